"""Protocol Buffers' encoding of small messages, by the fields that a dataclass declares.

Used by `messages`. Reading follows https://protobuf.dev/programming-guides/encoding/: unknown fields are skipped, the
last value of a field wins, messages that come twice are merged. Whatever is malformed raises MalformedError. Writing
leaves out defaults and orders by field number, so that one message has one encoding.
"""

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES, _VARINT_BITS = 10, 64
_HIGHEST_FIELD = 2**29 - 1


class MalformedError(ValueError):
    """Bytes that are not an encoding of the expected message."""


class _Kind(enum.Enum):
    TEXT = "string"
    TEXTS = "repeated string"
    FLAG = "bool"
    NUMBER = "int64 or enum"
    PAIRS = "map<string, string>"
    MESSAGE = "message"


@dataclasses.dataclass(frozen=True, slots=True)
class _Declared:
    number: int
    kind: _Kind
    message: type | None = None


# What a dataclass writes behind the `=` of a field, with the number of the field.


def text(number: int) -> Any:
    return _field(_Declared(number, _Kind.TEXT), "")


def texts(number: int) -> Any:
    return _field(_Declared(number, _Kind.TEXTS), ())


def flag(number: int) -> Any:
    return _field(_Declared(number, _Kind.FLAG), False)


def number(number: int) -> Any:
    """An unsigned one: no message of ours has another."""
    return _field(_Declared(number, _Kind.NUMBER), 0)


def pairs(number: int) -> Any:
    return dataclasses.field(default_factory=dict, metadata={"wire": _Declared(number, _Kind.PAIRS)})


def message(number: int, kind: type) -> Any:
    """None: it is not there."""
    return _field(_Declared(number, _Kind.MESSAGE, kind), None)


def encode(value: Any) -> bytes:
    """The bytes of a dataclass of such fields."""
    encoded = bytearray()
    for name, declared in sorted(_table(type(value)).items(), key=lambda item: item[1].number):
        for kind, data in _parts(declared, getattr(value, name)):
            encoded += _varint(declared.number << 3 | kind)
            encoded += data if kind == _VARINT else _varint(len(data)) + data
    return bytes(encoded)


def decode(kind: type[_T], data: bytes) -> _T:
    """Raises MalformedError."""
    values: dict[str, Any] = {}
    names = {declared.number: (name, declared) for name, declared in _table(kind).items()}
    for field, wire, found in _fields(data):
        if field in names:
            name, declared = names[field]
            _take(values, name, declared, wire, found)
    for name, declared in _table(kind).items():
        if declared.message is not None and name in values:
            values[name] = decode(declared.message, values[name])
        elif declared.kind is _Kind.TEXTS and name in values:
            values[name] = tuple(values[name])
    return kind(**values)


def _field(declared: _Declared, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"wire": declared})


def _table(kind: type) -> dict[str, _Declared]:
    return {field.name: field.metadata["wire"] for field in dataclasses.fields(kind)}


def _parts(declared: _Declared, value: Any) -> Iterator[tuple[int, bytes]]:
    """The wire type and the data of each occurrence of a field."""
    match declared.kind:
        case _Kind.TEXT if value:
            yield _BYTES, value.encode()
        case _Kind.TEXTS:
            yield from ((_BYTES, each.encode()) for each in value)
        case _Kind.FLAG | _Kind.NUMBER if value:
            yield _VARINT, _varint(int(value))
        case _Kind.PAIRS:
            yield from ((_BYTES, encode(_Pair(key, value[key]))) for key in sorted(value))
        case _Kind.MESSAGE if value is not None:
            yield _BYTES, encode(value)


def _take(values: dict[str, Any], name: str, declared: _Declared, wire: int, found: int | bytes) -> None:
    if wire != (_VARINT if declared.kind in (_Kind.FLAG, _Kind.NUMBER) else _BYTES):
        raise MalformedError(f"field {name}: expected {declared.kind.value}, found wire type {wire}")
    if isinstance(found, int):
        values[name] = bool(found) if declared.kind is _Kind.FLAG else found
        return
    match declared.kind:
        case _Kind.TEXT:
            values[name] = _decoded(name, found)
        case _Kind.TEXTS:
            values.setdefault(name, []).append(_decoded(name, found))
        case _Kind.PAIRS:
            pair = decode(_Pair, found)
            values.setdefault(name, {})[pair.key] = pair.value
        case _:
            # two encodings of a message, one behind the other, are the encoding of both merged
            values[name] = values.get(name, b"") + found


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedError(f"field {name}: expected UTF-8") from None


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field, known or not."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        field, wire = tag >> 3, tag & 7
        if not 0 < field <= _HIGHEST_FIELD:
            raise MalformedError(f"field number {field}")
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield field, wire, value
            continue
        if wire == _BYTES:
            length, at = _read_varint(data, at)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            # groups, which proto3 does not have
            raise MalformedError(f"field {field}: wire type {wire}")
        if length > len(data) - at:
            raise MalformedError(f"field {field}: {length} bytes announced, {len(data) - at} left")
        yield field, wire, data[at : at + length]
        at += length


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = 0
    for index, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> _VARINT_BITS:
                break
            return value, at + index + 1
    raise MalformedError("a number that does not end or is too large")


@dataclasses.dataclass(frozen=True, slots=True)
class _Pair:
    """An entry of a map."""

    key: str = text(1)
    value: str = text(2)
