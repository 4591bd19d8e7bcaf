"""DER as Java's certificate parser reads it: bounded, never beyond the element that is read, with Java's leniency.

Used by the other modules of this package. Promises: whatever the bytes are, the result is an element or a Flaw, in time
that grows with their number only. If the JDKs 11 to 25 differ, the strictest counts, as a store must open in all: so
lengths must be as short as they can be (JDK 11). Indefinite lengths (BER) are a flaw anywhere: each JDK reads some and
fails at others, and no certificate that was ever published has them.
"""

import enum
from typing import NamedTuple

from directdownload.resources import tlv

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, ENUMERATED = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A
UTC_TIME, GENERALIZED_TIME, BMP_STRING, SEQUENCE, SET = 0x17, 0x18, 0x1E, 0x30, 0x31
_CLASS, _CONTEXT, _CONSTRUCTED, _NUMBER = 0xC0, 0x80, 0x20, 0x1F
_INT_LIMIT = 1 << 31
_TEXTS = {
    tlv.Problem.HEADER: "it ends within a field",
    tlv.Problem.TAG: "a tag that Java does not know (0x{:02x})",
    tlv.Problem.INDEFINITE: "a length that is left open (BER); expected DER",
    tlv.Problem.LENGTH: "a field has no length that can be",
    tlv.Problem.PADDED_LENGTH: "a length that is written longer than needed",
    tlv.Problem.CUT_OFF: "a field of {} bytes where {} are left: it is cut off",
    tlv.Problem.OID: "an object identifier that is empty, cut off or too long",
    tlv.Problem.PADDED_OID: "an object identifier with a useless byte",
}


class Class(enum.StrEnum):
    """The classes of certificates that KeyStore.load of some JDK refuses. The tests show each to real ones."""

    ENCODING = "encoding"
    INDEFINITE = "indefinite length"
    OUTLINE = "outline"
    VERSION = "version"
    SERIAL_NUMBER = "serial number"
    SIGNATURE_ALGORITHM = "signature algorithm"
    TWO_ALGORITHMS = "two algorithms"
    PSS_PARAMETERS = "RSASSA-PSS parameters"
    ENCRYPTION = "algorithm for encryption"
    ISSUER_EMPTY = "empty issuer"
    SUBJECT_EMPTY = "empty subject"
    NAME = "name"
    VALIDITY = "validity"
    PUBLIC_KEY = "public key"
    RSA_LENGTH = "RSA length"
    RSA_EXPONENT = "RSA exponent"
    EC_PARAMETERS = "EC parameters"
    EC_POINT = "EC point"
    VERSION_FIELDS = "fields of a later version"
    UNIQUE_IDENTIFIER = "unique identifier"
    EXTENSIONS = "extensions"
    EXTENSION_TWICE = "extension twice"
    CRITICAL_EXTENSION = "critical extension"
    CRITICAL_URI = "critical URI"
    CRITICAL_NAME = "critical name"


class Flaw(Exception):  # noqa: N818 - a verdict, not an error of ours
    """Why Java refuses it: `text` ends the sentence "Java cannot read it: …"."""

    def __init__(self, kind: Class, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class Element(NamedTuple):
    """One tag-length-value."""

    tag: int
    value: bytes

    def is_context(self, number: int, *, constructed: bool | None = None) -> bool:
        """Whether it is [number]; in some places Java does not care whether it is constructed."""
        if self.tag & _CLASS != _CONTEXT or self.tag & _NUMBER != number:
            return False
        return constructed is None or bool(self.tag & _CONSTRUCTED) == constructed

    @property
    def encoded(self) -> bytes:
        return tlv.write(self.tag, self.value)


class Reader:
    """Elements one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    @property
    def rest(self) -> bytes:
        return self._data[self._at :]

    def next(self) -> Element:
        element, self._at = _element(self._data, self._at)
        return element

    def all(self) -> list[Element]:
        found = []
        while self:
            found.append(self.next())
        return found


def first(data: bytes) -> Element:
    """The element that `data` begins with; Java reads no further."""
    return _element(data, 0)[0]


def only(data: bytes) -> Element:
    """The element that `data` consists of."""
    element, end = _element(data, 0)
    if end != len(data):
        raise _damaged(f"{len(data) - end} bytes follow where nothing should")
    return element


def sequence(element: Element, what: str, tag: int = SEQUENCE) -> Reader:
    if element.tag != tag:
        raise _damaged(f"expected {what}, found a field of another type (tag 0x{element.tag:02x})")
    return Reader(element.value)


def retagged(element: Element, tag: int) -> Element:
    """For an IMPLICIT type."""
    return Element(tag, element.value)


def integer(element: Element) -> int:
    _expect(element, INTEGER, "a number")
    return int.from_bytes(_number(element), signed=True)


def positive(element: Element) -> int:
    """Java treats the bytes of a key's numbers as not negative, whatever their sign."""
    _expect(element, INTEGER, "a number")
    return int.from_bytes(_number(element))


def small(element: Element, tag: int = INTEGER) -> int:
    """A number that Java keeps in an int."""
    _expect(element, tag, "a number")
    value = int.from_bytes(_number(element), signed=True)
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise _damaged("a number of more than 32 bits where Java has 32")
    return value


def boolean(element: Element) -> bool:
    _expect(element, BOOLEAN, "a BOOLEAN")
    if len(element.value) != 1:
        raise _damaged(f"a BOOLEAN of {len(element.value)} bytes")
    return element.value != b"\0"


def oid(element: Element) -> str:
    """In dotted notation."""
    _expect(element, OID, "an object identifier")
    try:
        tlv.check_oid(element.value)
    except tlv.Malformed as error:
        raise _refused(error) from None
    arcs, arc = [], 0
    for byte in element.value:
        arc = arc << 7 | byte & 0x7F
        if byte < 0x80:
            arcs.append(arc)
            arc = 0
    head = min(arcs[0] // 40, 2)
    # Python prints no number of thousands of digits; Java knows none of those either
    return ".".join(str(arc) if arc.bit_length() < 1024 else hex(arc) for arc in (head, arcs[0] - 40 * head, *arcs[1:]))


def octet_string(element: Element) -> bytes:
    if element.tag == OCTET_STRING:
        return element.value
    if element.tag & (_CONSTRUCTED | _NUMBER) != _CONSTRUCTED | OCTET_STRING:
        raise _damaged(f"expected an OCTET STRING, found a field of another type (tag 0x{element.tag:02x})")
    parts = Reader(element.value).all()
    for part in parts:
        _expect(part, OCTET_STRING, "an OCTET STRING")
    return b"".join(part.value for part in parts)


class Bits(NamedTuple):
    """A BIT STRING: as many bytes as `bits` need; unused ones are 0."""

    bits: int
    value: bytes


def bit_string(element: Element, *, implicit: bool = False) -> Bits:
    if not implicit:
        _expect(element, BIT_STRING, "a BIT STRING")
    if not element.value:
        raise _damaged("a BIT STRING with no content")
    unused, value = element.value[0], element.value[1:]
    if unused > 7 or unused > len(value) * 8:
        raise _damaged(f"a BIT STRING of {len(value)} bytes with {unused} unused bits")
    if unused:
        value = value[:-1] + bytes([value[-1] & 0xFF << unused & 0xFF])
    return Bits(len(value) * 8 - unused, value)


def _number(element: Element) -> bytes:
    value = element.value
    if not value:
        raise _damaged("a number with no content")
    return value


def _expect(element: Element, tag: int, what: str) -> None:
    if element.tag != tag:
        raise _damaged(f"expected {what}, found a field of another type (tag 0x{element.tag:02x})")


def _damaged(text: str) -> Flaw:
    return Flaw(Class.ENCODING, text)


def _refused(error: tlv.Malformed) -> Flaw:
    kind = Class.INDEFINITE if error.problem is tlv.Problem.INDEFINITE else Class.ENCODING
    return Flaw(kind, _TEXTS[error.problem].format(*error.numbers))


def _element(data: bytes, at: int) -> tuple[Element, int]:
    """The element at `at`, and its end."""
    try:
        tag, body, end = tlv.read(data, at, len(data), shortest=True)
    except tlv.Malformed as error:
        raise _refused(error) from None
    return Element(tag, data[body:end]), end
