"""Signed statements: warrants and grants of the controller, and proofs of pieces by the host of a Seed.

A warrant says whose proofs count for a content in a zone; a grant says that a host may read it. Both are tokens:
base64url of JSON, a dot, base64url of the Ed25519 signature (RFC 8032) of a context and the JSON as sent, so nothing
depends on how JSON is written. A proof is a signature of the digest of one piece. Their contexts differ, so that none
of them passes for another.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from directdownload.resources import peers

#: Clocks of hosts differ.
LEEWAY_SECONDS = 300.0
TOKEN_LIMIT = 2048
_KEY_BYTES, _SIGNATURE_BYTES, _DIGEST_BYTES = 32, 64, 32
#: A later one would overflow a time.
_LATEST = 2**40
_HEX = frozenset("0123456789abcdef")
_WARRANT, _GRANT, _PROOF = (b"directdownload peers 1 " + word + b"\0" for word in (b"warrant", b"grant", b"proof"))


class StatementError(ValueError):
    """A statement that is malformed, forged, of another time or about something else; the message says which."""


@dataclasses.dataclass(frozen=True, slots=True)
class Warrant:
    """In `zone`, proofs of `content` by the key `signing_key` (raw bytes) count, until `expiry` (seconds since 1970).

    Where two warrants lead to different digests of a piece, the one with the higher `epoch` counts.
    """

    content: str
    zone: str
    piece_bytes: int
    signing_key: bytes
    epoch: int
    expiry: int

    @classmethod
    def read(cls, told: dict[str, Any]) -> Self:
        found = cls(
            _content(told),
            _text(told, "zone"),
            _number(told, "pieceBytes", peers.SMALLEST_PIECE_BYTES, peers.LARGEST_PIECE_BYTES),
            _decoded(_text(told, "signingKey"), _KEY_BYTES),
            _number(told, "epoch", 0, _LATEST),
            _number(told, "expiry", 0, _LATEST),
        )
        if found.piece_bytes & (found.piece_bytes - 1):
            raise StatementError("pieceBytes is no power of two")
        return found

    def told(self) -> dict[str, Any]:
        return {
            "content": self.content,
            "zone": self.zone,
            "pieceBytes": self.piece_bytes,
            "signingKey": encoded(self.signing_key),
            "epoch": self.epoch,
            "expiry": self.expiry,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """`host` may read `content` from hosts of `zone`, until `expiry` (seconds since 1970)."""

    content: str
    zone: str
    host: str
    expiry: int

    @classmethod
    def read(cls, told: dict[str, Any]) -> Self:
        return cls(_content(told), _text(told, "zone"), _text(told, "host"), _number(told, "expiry", 0, _LATEST))

    def told(self) -> dict[str, Any]:
        return {"content": self.content, "zone": self.zone, "host": self.host, "expiry": self.expiry}


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """A piece has the SHA-256 `digest`, says the signer of the warrant with this `epoch`."""

    epoch: int
    digest: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if (len(self.digest), len(self.signature)) != (_DIGEST_BYTES, _SIGNATURE_BYTES):
            raise StatementError("a digest has 32 bytes and a signature 64")
        if not 0 <= self.epoch <= _LATEST:
            raise StatementError("epoch is out of bounds")


class Issuer:
    """Signs for the controller."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> bytes:
        """The raw public key."""
        return self._key.public_key().public_bytes_raw()

    def warrant(self, warrant: Warrant) -> str:
        return self._token(_WARRANT, warrant.told())

    def grant(self, grant: Grant) -> str:
        return self._token(_GRANT, grant.told())

    def _token(self, context: bytes, told: dict[str, Any]) -> str:
        text = json.dumps(told, separators=(",", ":")).encode()
        return f"{encoded(text)}.{encoded(self._key.sign(context + text))}"


class Verifier:
    """Reads statements of any of the controller's `keys` (raw bytes). A key that is none is left out."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = [Ed25519PublicKey.from_public_bytes(key) for key in keys if len(key) == _KEY_BYTES]

    def warrant(self, token: str, now: float) -> Warrant:
        """Raises StatementError. It says nothing of content and zone: the caller compares them."""
        return _current(Warrant.read(self._told(_WARRANT, token)), now)

    def grant(self, token: str, now: float) -> Grant:
        """Raises StatementError. It says nothing of content, zone and host: the caller compares them."""
        return _current(Grant.read(self._told(_GRANT, token)), now)

    def _told(self, context: bytes, token: str) -> dict[str, Any]:
        if len(token) > TOKEN_LIMIT:
            raise StatementError("the token is too long")
        payload, _, signature = token.partition(".")
        text, signed = _decoded(payload), _decoded(signature, _SIGNATURE_BYTES)
        if not any(_verifies(key, signed, context + text) for key in self._keys):
            raise StatementError("no key of the controller has signed it")
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            raise StatementError("it is no JSON") from None
        if not isinstance(told, dict):
            raise StatementError("it is no object")
        return told


_S = TypeVar("_S", Warrant, Grant)


def _current(statement: _S, now: float) -> _S:
    if now > statement.expiry + LEEWAY_SECONDS:
        raise StatementError("it has expired")
    return statement


def sign_proof(key: Ed25519PrivateKey, content: str, epoch: int, index: int, digest: bytes) -> Proof:
    return Proof(epoch, digest, key.sign(_proven(content, epoch, index, digest)))


def check_proof(warrant: Warrant, index: int, proof: Proof) -> None:
    """Raises StatementError unless the warrant's signer has signed this digest for the piece `index`."""
    if proof.epoch != warrant.epoch:
        raise StatementError("the proof is of another epoch than its warrant")
    key = Ed25519PublicKey.from_public_bytes(warrant.signing_key)
    if not _verifies(key, proof.signature, _proven(warrant.content, proof.epoch, index, proof.digest)):
        raise StatementError("the signer of the warrant has not signed this digest")


def _proven(content: str, epoch: int, index: int, digest: bytes) -> bytes:
    return b"".join((_PROOF, bytes.fromhex(content), epoch.to_bytes(8), index.to_bytes(4), digest))


def _verifies(key: Ed25519PublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text)
    except InvalidSignature:
        return False
    return True


def key_of(text: str) -> bytes:
    """A raw Ed25519 public key, of its base64 (RFC 4648, section 4). Raises StatementError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise StatementError("the key is no base64") from None
    if len(data) != _KEY_BYTES or base64.b64encode(data).decode() != text:
        raise StatementError(f"the key is no base64 of {_KEY_BYTES} bytes")
    return data


def encoded(data: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The reverse; only the one notation that `encoded` writes. Raises StatementError."""
    return _decoded(text)


def _decoded(text: str, length: int | None = None) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise StatementError("it is no base64url") from None
    if encoded(data) != text or (length is not None and len(data) != length):
        raise StatementError("it has another length, or another notation than base64url")
    return data


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not value or len(value) > 253:
        raise StatementError(f"{name} is no text of 1 to 253 characters")
    return value


def _content(told: dict[str, Any]) -> str:
    value = _text(told, "content")
    if len(value) != 2 * _DIGEST_BYTES or not _HEX.issuperset(value):
        raise StatementError("content is no digest")
    return value


def _number(told: dict[str, Any], name: str, least: int, most: int) -> int:
    value = told.get(name)
    if type(value) is not int or not least <= value <= most:
        raise StatementError(f"{name} is no number from {least} to {most}")
    return value
