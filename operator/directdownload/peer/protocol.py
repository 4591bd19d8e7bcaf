"""What hosts say to each other: paths, headers, and the lines of a state stream. Both sides; no sockets.

`GET /v1/<content>/state` is answered by lines of JSON until the connection ends: first the size of a piece, the size
of the file and the map of pieces, then what changed, and every `HEARTBEAT_SECONDS` an empty object. `GET
/v1/<content>/pieces/<index>` is answered by the bytes of the piece, with its proof and the warrant of its signer.
Whatever the other side says is hostile: bounded, and checked field by field.
"""

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

from directdownload.peer.statements import Proof, StatementError, decoded, encoded
from directdownload.resources import peers

HEARTBEAT_SECONDS = 5.0
#: Changes of a state are gathered for at most this long.
GATHER_SECONDS = 0.02
#: A head, of a request or an answer.
HEAD_LIMIT_BYTES = 8192
#: A line of a state: the map of all pieces has 5.5 KiB, and indices of all of them 192 KiB.
LINE_LIMIT_BYTES = 256 * 1024

AUTHORIZATION = "Authorization"
SCHEME = "DirectDownload"
PROOF, WARRANT, RETRY_AFTER = "Piece-Proof", "Piece-Warrant", "Piece-Retry-After"
_PATH = re.compile(r"/v1/(?P<content>[0-9a-f]{64})/(?:(?P<state>state)|pieces/(?P<index>0|[1-9][0-9]{0,4}))", re.ASCII)


class ProtocolError(ValueError):
    """The other side says something that this protocol does not have."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for: `index` None is the state."""

    content: str
    index: int | None = None

    def path(self) -> str:
        return f"/v1/{self.content}/state" if self.index is None else f"/v1/{self.content}/pieces/{self.index}"

    @classmethod
    def of(cls, path: str) -> "Target":
        """Raises ProtocolError."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise ProtocolError("there is no such path")
        index = found["index"]
        if index is not None and int(index) >= peers.PIECES_LIMIT:
            raise ProtocolError("there is no such piece")
        return cls(found["content"], int(index) if index is not None else None)


def proof_header(proof: Proof) -> str:
    return f"{proof.epoch} {encoded(proof.digest)} {encoded(proof.signature)}"


def read_proof(text: str) -> Proof:
    """Raises ProtocolError."""
    epoch, _, rest = text.partition(" ")
    digest, _, signature = rest.partition(" ")
    if not (epoch.isascii() and epoch.isdecimal() and len(epoch) <= 16):
        raise ProtocolError("the epoch of a proof is no number")
    try:
        return Proof(int(epoch), decoded(digest), decoded(signature))
    except StatementError as error:
        raise ProtocolError(f"the proof of a piece: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """The first line. `have` holds the pieces; without a `size_bytes` there are none.

    `piece_bytes` is None where the host has nothing of the content yet: its id does not tell.
    """

    piece_bytes: int | None
    size_bytes: int | None
    have: frozenset[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """A later line; one without anything is a heartbeat."""

    size_bytes: int | None = None
    add: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()


def state_line(state: State) -> bytes:
    return _line({"pieceBytes": state.piece_bytes, "size": state.size_bytes, "have": _map(state.have)})


def changes_line(changes: Changes) -> bytes:
    told: dict[str, Any] = {} if changes.size_bytes is None else {"size": changes.size_bytes}
    if changes.add:
        told["add"] = changes.add
    if changes.drop:
        told["drop"] = changes.drop
    return _line(told)


def read_state(line: bytes) -> State:
    """Raises ProtocolError."""
    told = _object(line)
    piece, size, have = told.get("pieceBytes"), told.get("size"), told.get("have")
    if piece is not None and (
        type(piece) is not int or not peers.SMALLEST_PIECE_BYTES <= piece <= peers.LARGEST_PIECE_BYTES
    ):
        raise ProtocolError("the size of a piece is out of bounds")
    if not isinstance(have, str):
        raise ProtocolError("there is no map of pieces")
    found = _read_map(have)
    if piece is None and size is not None:
        raise ProtocolError("the size of the file without that of a piece")
    if size is None or piece is None:
        if found:
            raise ProtocolError("a map of pieces without the size of the file")
        return State(piece, None, found)
    number = peers.pieces(_size(size), piece)
    if number > peers.PIECES_LIMIT or any(index >= number for index in found):
        raise ProtocolError("the map of pieces is longer than the file")
    return State(piece, size, found)


def read_changes(line: bytes) -> Changes:
    """Raises ProtocolError. Indices are below `PIECES_LIMIT`: the caller knows the number of pieces."""
    told = _object(line)
    size = told.get("size")
    return Changes(_size(size) if size is not None else None, _indices(told, "add"), _indices(told, "drop"))


def _object(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line of the state is no JSON") from None
    if not isinstance(told, dict):
        raise ProtocolError("a line of the state is no object")
    return told


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value <= peers.PIECES_LIMIT * peers.LARGEST_PIECE_BYTES:
        raise ProtocolError("the size of the file is out of bounds")
    return value


def _indices(told: dict[str, Any], name: str) -> tuple[int, ...]:
    value = told.get(name, [])
    if not isinstance(value, list) or len(value) > peers.PIECES_LIMIT:
        raise ProtocolError(f"{name} is no list of pieces")
    if not all(type(index) is int and 0 <= index < peers.PIECES_LIMIT for index in value):
        raise ProtocolError(f"{name} names a piece that cannot be")
    return tuple(value)


def _map(have: Iterable[int]) -> str:
    """base64 of a bitmap, the lowest bit of the first byte first."""
    bits = bytearray()
    for index in have:
        if index // 8 >= len(bits):
            bits.extend(bytes(index // 8 + 1 - len(bits)))
        bits[index // 8] |= 1 << index % 8
    return base64.b64encode(bits).decode()


def _read_map(text: str) -> frozenset[int]:
    if len(text) > peers.PIECES_LIMIT // 8 * 4 // 3 + 4:
        raise ProtocolError("the map of pieces is too long")
    try:
        bits = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("the map of pieces is no base64") from None
    return frozenset(8 * byte + bit for byte, value in enumerate(bits) if value for bit in range(8) if value >> bit & 1)


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"
