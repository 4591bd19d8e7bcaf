"""The piece log: which pieces of a file a host has, and who vouches for each.

One file per copy in the pool's work directory, `<template uid>.<host>.pieces`: lines of JSON that are only appended. A
download job writes it while it fetches, and the peer server reads what was added. It stays beside the published file.

Hostile until checked: any writer of the pool may have written it. Lines that are malformed or out of bounds count for
nothing. A line may promise bytes that a crash has taken: whoever serves or reuses a piece hashes it first.
"""

import dataclasses
import json
from typing import Any, Self

from directdownload.peer.statements import TOKEN_LIMIT, Proof, StatementError, decoded, encoded
from directdownload.resources import peers
from directdownload.resources.checksum import Checksum

VERSION = 1
#: The longest line: one with a warrant.
LINE_LIMIT_BYTES = TOKEN_LIMIT + 64
#: A log of all pieces has 8 MiB; beyond this it counts as none.
LIMIT_BYTES = 32 * peers.MEBIBYTE
#: Warrants that count: of as many Seeds in a row.
WARRANTS_LIMIT = 64
_DIGEST_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """The first line: whose bytes these are. `content` follows from the rest."""

    template_uid: str
    checksum: str
    piece_bytes: int

    @property
    def content(self) -> str:
        return peers.content_id(self.template_uid, self.checksum, self.piece_bytes)

    @classmethod
    def read(cls, told: Any) -> Self:
        """Raises ValueError."""
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise ValueError("it is no header of this version")
        uid, checksum, piece = told.get("templateUID"), told.get("checksum"), told.get("pieceBytes")
        if not isinstance(uid, str) or not 0 < len(uid) <= 64 or not isinstance(checksum, str) or len(checksum) > 256:
            raise ValueError("it names no Template or checksum")
        canonical = str(Checksum.parse(checksum))
        if type(piece) is not int or not peers.SMALLEST_PIECE_BYTES <= piece <= peers.LARGEST_PIECE_BYTES:
            raise ValueError("its size of a piece is out of bounds")
        if piece & (piece - 1) or canonical != checksum:
            raise ValueError("its size of a piece is no power of two, or its checksum is not canonical")
        return cls(uid, checksum, piece)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A piece: its SHA-256, and the proof of it; None in the log of a Seed, whose host's server makes the proof."""

    digest: bytes
    proof: Proof | None


class PieceLog:
    """What a log says so far. `feed` takes further bytes of the file; nothing else changes it."""

    def __init__(self) -> None:
        self.header: Header | None = None
        self.size_bytes: int | None = None
        #: tokens by their order in the log, not checked
        self.warrants: list[str] = []
        self.entries: dict[int, Entry] = {}
        #: bytes taken, the incomplete last line among them
        self.length_bytes = 0
        self._rest = b""
        self._lines = 0

    @property
    def complete(self) -> bool:
        """Whether it lists every piece of the file."""
        if self.header is None or self.size_bytes is None:
            return False
        return len(self.entries) >= peers.pieces(self.size_bytes, self.header.piece_bytes)

    def feed(self, data: bytes) -> set[int]:
        """Take further bytes; return the pieces that came, went or changed. Raises ValueError if it is no log."""
        self.length_bytes += len(data)
        if self.length_bytes > LIMIT_BYTES:
            raise ValueError("the piece log is too long")
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT_BYTES:
            # of a line that never ends only its end is looked at, which counts for nothing
            self._rest = self._rest[-1:]
        changed = set[int]()
        for line in lines:
            self._take(line, changed)
        return changed

    def _take(self, line: bytes, changed: set[int]) -> None:
        self._lines += 1
        try:
            told = json.loads(line) if len(line) <= LINE_LIMIT_BYTES else None
        except (ValueError, RecursionError):
            told = None
        if self.header is None:
            if self._lines > 1 or told is None:
                raise ValueError("it does not begin as a piece log")
            self.header = Header.read(told)
        elif isinstance(told, dict):
            self._take_one(told, changed)

    def _take_one(self, told: dict[str, Any], changed: set[int]) -> None:
        match told:
            case {"piece": int(index), "digest": str(digest), **more} if self._is_piece(index):
                entry = _entry(digest, more)
                if entry is not None:
                    self.entries[index] = entry
                    changed.add(index)
            case {"lost": int(index)} if self._is_piece(index):
                if self.entries.pop(index, None) is not None:
                    changed.add(index)
            case {"warrant": str(token)}:
                if len(self.warrants) < WARRANTS_LIMIT and token not in self.warrants and len(token) <= TOKEN_LIMIT:
                    self.warrants.append(token)
            case {"size": int(size)} if self._is_size(size):
                self.size_bytes = size
                most = peers.pieces(size, self.header.piece_bytes) if self.header is not None else 0
                beyond = [index for index in self.entries if index >= most]
                for index in beyond:
                    del self.entries[index]
                changed.update(beyond)

    def _is_piece(self, index: int) -> bool:
        if self.header is None or self.size_bytes is None or type(index) is bool:
            return False
        return 0 <= index < peers.pieces(self.size_bytes, self.header.piece_bytes)

    def _is_size(self, size: int) -> bool:
        if self.header is None or type(size) is bool:
            return False
        return size > 0 and peers.pieces(size, self.header.piece_bytes) <= peers.PIECES_LIMIT


def _entry(digest: str, more: dict[str, Any]) -> Entry | None:
    try:
        found = decoded(digest)
        if len(found) != _DIGEST_BYTES:
            return None
        if "signature" not in more:
            return Entry(found, None)
        epoch, signature = more.get("epoch"), more["signature"]
        if type(epoch) is not int or not isinstance(signature, str):
            return None
        return Entry(found, Proof(epoch, found, decoded(signature)))
    except StatementError:
        return None


def header_line(header: Header) -> bytes:
    """The first line."""
    told = {"templateUID": header.template_uid, "checksum": header.checksum, "pieceBytes": header.piece_bytes}
    return _line({"version": VERSION, **told})


def size_line(size_bytes: int) -> bytes:
    """Before the first piece: a piece counts only where the size is known."""
    return _line({"size": size_bytes})


def warrant_line(token: str) -> bytes:
    return _line({"warrant": token})


def piece_line(index: int, digest: bytes, proof: Proof | None = None) -> bytes:
    """`proof` None: of a Seed."""
    signed = {} if proof is None else {"epoch": proof.epoch, "signature": encoded(proof.signature)}
    return _line({"piece": index, "digest": encoded(digest), **signed})


def lost_line(index: int) -> bytes:
    """The piece is not there after all."""
    return _line({"lost": index})


#: Before the first line of a further attempt: a crash may have left a line without its end.
FRESH_LINE = b"\n"


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"
