"""X.509 certificates that no library makes, assembled from DER: `certificate` has a parameter for each field."""

from collections.abc import Sequence

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, SEQUENCE, SET = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x30, 0x31
UTC_TIME, UTF8_STRING, PRINTABLE_STRING, BMP_STRING = 0x17, 0x0C, 0x13, 0x1E


def tlv(tag: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    if len(value) < 0x80:
        return bytes((tag, len(value))) + value
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + value


def sequence(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, *parts)


def integer(value: int) -> bytes:
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        encoded.extend(reversed(groups))
    return tlv(OID, bytes(encoded))


def bits(value: bytes, unused: int = 0) -> bytes:
    return tlv(BIT_STRING, bytes([unused]), value)


def algorithm(dotted: str, *parameters: bytes) -> bytes:
    return sequence(oid(dotted), *parameters)


def name(text: str | bytes, tag: int = UTF8_STRING, attribute: str = "2.5.4.3") -> bytes:
    value = text.encode() if isinstance(text, str) else text
    return sequence(tlv(SET, sequence(oid(attribute), tlv(tag, value))))


def extension(dotted: str, value: bytes, *, critical: bool = True) -> bytes:
    return sequence(oid(dotted), tlv(BOOLEAN, b"\xff") if critical else b"", tlv(OCTET_STRING, value))


def alternative_names(*names: bytes, critical: bool = True) -> bytes:
    return extension("2.5.29.17", sequence(*names), critical=critical)


def uri(text: str) -> bytes:
    """As a GeneralName."""
    return tlv(0x86, text.encode())


ECDSA_SHA256, RSA_SHA256 = algorithm("1.2.840.10045.4.3.2"), algorithm("1.2.840.113549.1.1.11", tlv(NULL))
RSA, EC, PSS, P256 = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1", "1.2.840.113549.1.1.10", "1.2.840.10045.3.1.7"
#: The base point, which lies on P-256.
POINT = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
EC_KEY = sequence(algorithm(EC, oid(P256)), bits(POINT))
VERSION_3 = tlv(0xA0, integer(2))
VALIDITY = sequence(tlv(UTC_TIME, b"250101000000Z"), tlv(UTC_TIME, b"490101000000Z"))


def rsa_key(modulus_bits: int, exponent: int = 65537, identifier: bytes | None = None) -> bytes:
    """An RSA key with an odd modulus of `modulus_bits`, whose factors are unknown."""
    modulus = 1 << modulus_bits - 1 | 0x10001
    return sequence(identifier or algorithm(RSA, tlv(NULL)), bits(sequence(integer(modulus), integer(exponent))))


def certificate(
    *,
    version: bytes = VERSION_3,
    serial: bytes = integer(0x1234ABCD),
    signature: bytes = ECDSA_SHA256,
    outer: bytes | None = None,
    issuer: bytes = name("authority"),
    validity: bytes = VALIDITY,
    subject: bytes = name("images"),
    key: bytes = EC_KEY,
    unique: bytes = b"",
    extensions: Sequence[bytes] | None = None,
    tail: bytes = b"",
    signed: bytes = bits(b"\x30\x06\x02\x01\x01\x02\x01\x01"),
) -> bytes:
    """`outer`: the second occurrence of the algorithm; `tail` is the last field of the signed part."""
    listed = tlv(0xA3, sequence(*extensions)) if extensions is not None else b""
    fields = (version, serial, signature, issuer, validity, subject, key, unique, listed, tail)
    return sequence(sequence(*fields), signature if outer is None else outer, signed)
