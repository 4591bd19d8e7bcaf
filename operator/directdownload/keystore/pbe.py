"""Password-based cryptography of PKCS#12: keys, ciphers and MACs, selected by AlgorithmIdentifiers.

Used by `pkcs12`. Promises: the cost of a hostile keystore is bounded (`ITERATION_LIMIT` for all its keys together), and
an unknown algorithm raises UnreadableError with its name.

Supports what Java 8 to 25 and OpenSSL write: PBES2 (RFC 8018) with PBKDF2 and AES-CBC or 3DES, the earlier schemes of
RFC 7292 appendix C (3DES, and RC2 of 40 or 128 bits for certificates), the MAC of RFC 7292 appendix B, and PBMAC1
(RFC 9579).
"""

import dataclasses
import functools
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from Cryptodome.Cipher import ARC2
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import ciphers, padding

from directdownload.keystore import der
from directdownload.keystore.errors import PasswordWrongError, UnreadableError

#: Java's PKCS12KeyStore has this limit per key; here it is for all keys of a keystore: a few seconds of work.
ITERATION_LIMIT = 5_000_000
SALT_LIMIT_BYTES = 1024
_KEY_LIMIT_BYTES = 128

SHA256 = der.oid("2.16.840.1.101.3.4.2.1")
_DIGESTS = {
    der.oid("1.3.14.3.2.26"): "sha1",
    der.oid("2.16.840.1.101.3.4.2.4"): "sha224",
    SHA256: "sha256",
    der.oid("2.16.840.1.101.3.4.2.2"): "sha384",
    der.oid("2.16.840.1.101.3.4.2.3"): "sha512",
    der.oid("2.16.840.1.101.3.4.2.5"): "sha512_224",
    der.oid("2.16.840.1.101.3.4.2.6"): "sha512_256",
}
_HMACS = {
    der.oid("1.2.840.113549.2.7"): "sha1",
    der.oid("1.2.840.113549.2.8"): "sha224",
    der.oid("1.2.840.113549.2.9"): "sha256",
    der.oid("1.2.840.113549.2.10"): "sha384",
    der.oid("1.2.840.113549.2.11"): "sha512",
    der.oid("1.2.840.113549.2.12"): "sha512_224",
    der.oid("1.2.840.113549.2.13"): "sha512_256",
}
_PBKDF2 = der.oid("1.2.840.113549.1.5.12")
_PBES2 = der.oid("1.2.840.113549.1.5.13")
_PBMAC1 = der.oid("1.2.840.113549.1.5.14")
#: Ciphers of PBES2, and the size of their keys in bytes.
_PBES2_CIPHERS = {
    der.oid("2.16.840.1.101.3.4.1.2"): ("AES", 16),
    der.oid("2.16.840.1.101.3.4.1.22"): ("AES", 24),
    der.oid("2.16.840.1.101.3.4.1.42"): ("AES", 32),
    der.oid("1.2.840.113549.3.7"): ("3DES", 24),
}
#: Schemes of RFC 7292 appendix C, likewise.
_PKCS12_CIPHERS = {
    der.oid("1.2.840.113549.1.12.1.3"): ("3DES", 24),
    der.oid("1.2.840.113549.1.12.1.5"): ("RC2", 16),
    der.oid("1.2.840.113549.1.12.1.6"): ("RC2", 5),
}
#: Purposes of keys (ID of RFC 7292 appendix B.3).
_KEY, _IV, _MAC = 1, 2, 3


class Keys:
    """Derives and caches keys of one password. All together cost at most ITERATION_LIMIT iterations."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._left = ITERATION_LIMIT
        self._found: dict[tuple[object, ...], bytes] = {}

    def pkcs12(self, digest: str, purpose: int, salt: bytes, iterations: int, size: int) -> bytes:
        """A key of `size` bytes by RFC 7292 appendix B. Raises UnreadableError beyond ITERATION_LIMIT."""
        # RFC 7292 B.1: BMPString with a NUL character at its end
        password = self._password.encode("utf-16-be") + b"\0\0"
        blocks = -(-size // hashlib.new(digest).digest_size)
        return self._once(_pkcs12, digest, password, purpose, salt, iterations, size, cost=iterations * blocks)

    def pbkdf2(self, digest: str, salt: bytes, iterations: int, size: int) -> bytes:
        """A key of `size` bytes by RFC 8018 5.2, with the password in UTF-8, as in Java and OpenSSL.

        Raises UnreadableError beyond ITERATION_LIMIT."""
        password = self._password.encode()
        blocks = -(-size // hashlib.new(digest).digest_size)
        return self._once(hashlib.pbkdf2_hmac, digest, password, salt, iterations, size, cost=iterations * blocks)

    def _once(self, derive: Callable[..., bytes], *arguments: object, cost: int) -> bytes:
        found = self._found.get((derive, *arguments))
        if found is None:
            if cost > self._left:
                raise UnreadableError(f"its iteration counts are larger than {ITERATION_LIMIT} in total")
            self._left -= cost
            found = self._found[derive, *arguments] = derive(*arguments)
        return found


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Cipher:
    """A block cipher in CBC mode with PKCS#7 padding, with key and IV."""

    name: str
    key: bytes
    iv: bytes

    def encrypt(self, data: bytes) -> bytes:
        padder = padding.PKCS7(8 * len(self.iv)).padder()
        padded = padder.update(data) + padder.finalize()
        if self.name == "RC2":
            return bytes(self._rc2().encrypt(padded))
        encryptor = self._block().encryptor()
        return encryptor.update(padded) + encryptor.finalize()

    def decrypt(self, data: bytes) -> bytes:
        """Raises PasswordWrongError if the padding does not fit this key, and UnreadableError for partial blocks."""
        block = len(self.iv)
        if not data or len(data) % block:
            raise UnreadableError(f"damaged: {len(data)} encrypted bytes are not a multiple of the block size, {block}")
        if self.name == "RC2":
            padded = self._rc2().decrypt(data)
        else:
            decryptor = self._block().decryptor()
            padded = decryptor.update(data) + decryptor.finalize()
        unpadder = padding.PKCS7(8 * block).unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise PasswordWrongError from None

    def _block(self) -> ciphers.Cipher[ciphers.modes.CBC]:
        algorithm = TripleDES(self.key) if self.name == "3DES" else ciphers.algorithms.AES(self.key)
        return ciphers.Cipher(algorithm, ciphers.modes.CBC(self.iv))

    def _rc2(self) -> Any:
        # its types lack effective_keylen; the keystore determines the algorithm
        bits = 8 * len(self.key)
        return ARC2.new(self.key, ARC2.MODE_CBC, iv=self.iv, effective_keylen=bits)  # type: ignore[call-arg]  # noqa: S304


def cipher(keys: Keys, algorithm: der.Element) -> Cipher:
    """The cipher of an EncryptedContentInfo's contentEncryptionAlgorithm. Raises UnreadableError."""
    oid, parameters = _identifier(algorithm)
    if known := _PKCS12_CIPHERS.get(oid):
        name, size = known
        salt, iterations = _salt_and_iterations(*der.fields(parameters, der.OCTET_STRING, der.INTEGER))
        derive = functools.partial(keys.pkcs12, "sha1", salt=salt, iterations=iterations)
        return Cipher(name, derive(_KEY, size=size), derive(_IV, size=8))
    if oid != _PBES2:
        raise _unknown_cipher(oid)
    derivation, encryption = der.fields(parameters, der.SEQUENCE, der.SEQUENCE)
    oid, parameters = _identifier(encryption)
    if oid not in _PBES2_CIPHERS:
        raise _unknown_cipher(oid)
    name, size = _PBES2_CIPHERS[oid]
    iv = der.expect(parameters, der.OCTET_STRING).value
    if len(iv) != (block := 16 if name == "AES" else 8):
        raise UnreadableError(f"damaged: an IV of {len(iv)} bytes, expected {block}")
    return Cipher(name, _pbkdf2(keys, derivation, size), iv)


def mac(keys: Keys, algorithm: der.Element, salt: der.Element, iterations: der.Element | None, data: bytes) -> bytes:
    """The MAC of `data` by the fields of a MacData; iterations defaults to 1 (RFC 7292 section 4)."""
    oid, *parameters = der.fields(algorithm, der.OID, more=1)
    if oid.value == _PBMAC1 and parameters:
        derivation, scheme = der.fields(parameters[0], der.SEQUENCE, der.SEQUENCE)
        digest = _name(_HMACS, scheme)
        key = _pbkdf2(keys, derivation, None)
    else:
        digest = _name(_DIGESTS, algorithm)
        salt_, iterations_ = _salt_and_iterations(salt, iterations)
        key = keys.pkcs12(digest, _MAC, salt_, iterations_, hashlib.new(digest).digest_size)
    return hmac.digest(key, data, digest)


def _identifier(algorithm: der.Element) -> tuple[bytes, der.Element]:
    """OID and parameters of an AlgorithmIdentifier. Raises UnreadableError if it has no parameters."""
    oid, *parameters = der.fields(algorithm, der.OID, more=1)
    if not parameters:
        raise UnreadableError("damaged: an algorithm without parameters")
    return oid.value, parameters[0]


def _salt_and_iterations(salt: der.Element, iterations: der.Element | None) -> tuple[bytes, int]:
    value, count = der.expect(salt, der.OCTET_STRING).value, 1 if iterations is None else der.integer(iterations)
    if len(value) > SALT_LIMIT_BYTES:
        raise UnreadableError(f"a salt of {len(value)} bytes; at most {SALT_LIMIT_BYTES} are read")
    if count < 1:
        raise UnreadableError(f"damaged: an iteration count of {count}")
    return value, count


def _pbkdf2(keys: Keys, derivation: der.Element, size: int | None) -> bytes:
    """A key of `size` bytes. None: of keyLength bytes, which the parameters must then have (RFC 9579 section 3)."""
    oid, parameters = _identifier(derivation)
    if oid != _PBKDF2:
        raise UnreadableError(f"its key is derived with the unknown function {_dotted(oid)}")
    salt, iterations, *more = der.fields(parameters, der.OCTET_STRING, der.INTEGER, more=2)
    digest = "sha1"
    length = None
    for field in more:
        if field.tag == der.INTEGER:
            length = der.integer(field)
        else:
            digest = _name(_HMACS, field)
    if size is None and length is None:
        raise UnreadableError("damaged: the key of its MAC has no length")
    if size is not None and length not in (None, size):
        raise UnreadableError(f"damaged: a key of {length} bytes, expected {size}")
    size = size if size is not None else length or 0
    if not 1 <= size <= _KEY_LIMIT_BYTES:
        raise UnreadableError(f"damaged: a key of {size} bytes, expected 1 to {_KEY_LIMIT_BYTES}")
    return keys.pbkdf2(digest, *_salt_and_iterations(salt, iterations), size)


def _pkcs12(digest: str, password: bytes, purpose: int, salt: bytes, iterations: int, size: int) -> bytes:
    """RFC 7292 appendix B.2; `password` is a BMPString that ends with NUL."""
    new = getattr(hashlib, digest, None) or functools.partial(hashlib.new, digest)
    block = new(b"").block_size
    filled = _filled(salt, block) + _filled(password, block)
    found = b""
    while len(found) < size:
        part = new(bytes([purpose]) * block + filled).digest()
        for _ in range(iterations - 1):
            part = new(part).digest()
        found += part
        step = int.from_bytes(_filled(part, block)[:block]) + 1
        filled = b"".join(
            ((int.from_bytes(filled[at : at + block]) + step) % (1 << 8 * block)).to_bytes(block)
            for at in range(0, len(filled), block)
        )
    return found[:size]


def _filled(text: bytes, block: int) -> bytes:
    """`text` repeated to the next multiple of the block size."""
    size = -(-len(text) // block) * block
    return (text * (size // max(1, len(text)) + 1))[:size]


def _unknown_cipher(oid: bytes) -> UnreadableError:
    return UnreadableError(
        f"its certificates are encrypted with the algorithm {_dotted(oid)}, which is not supported; if Java reads it, "
        "rewrite it with keytool -importkeystore"
    )


def _name(known: dict[bytes, str], algorithm: der.Element) -> str:
    """The name of the digest in an AlgorithmIdentifier. Raises UnreadableError."""
    oid = der.fields(algorithm, der.OID, more=1)[0].value
    if oid not in known:
        raise UnreadableError(f"it is protected with the unknown digest {_dotted(oid)}")
    return known[oid]


def _dotted(oid: bytes) -> str:
    """The OID in dotted form, for messages; cut off beyond any length in use."""
    first, *rest = oid[:20]
    arcs, arc = [first // 40, first % 40], 0
    for group in rest:
        arc = arc << 7 | group & 0x7F
        if not group & 0x80:
            arcs.append(arc)
            arc = 0
    return ".".join(map(str, arcs))
