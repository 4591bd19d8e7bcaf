"""Which certificates are accepted: those on a list of what authorities make, all of which every Java reads.

Used by `resources.pem` for bytes that nobody has published yet; published ones only have to pass `java`.
`check` raises a Flaw for bytes that Java cannot read, and a Refusal for those off the list that Java may read.
The bounds are those below which Java trusts nothing (jdk.certpath.disabledAlgorithms) or above which it reads nothing.
"""

import enum

from directdownload.resources.x509 import algorithms, der, java, keys, parser
from directdownload.resources.x509.der import Element

_CURVES = {
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
    "1.3.132.0.33": "P-224",
    "1.3.132.0.10": "secp256k1",
    "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1",
    "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
    "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
}
_RSA_BITS = range(1024, 16384 + 1)
_RSA_EXPONENT_BITS = 64
_RSA_KEYS = frozenset({algorithms.RSA, algorithms.PSS})
_EDWARDS = frozenset({keys.ED25519, keys.ED448})
#: RSA with MD2, MD5, SHA-1, SHA-2 and SHA-3; ECDSA and DSA with SHA-1, SHA-2 and SHA-3; Ed25519 and Ed448. On an
#: authority's own certificate the signature proves nothing, so old ones do no harm.
_SIGNATURES = frozenset(
    {
        *(f"1.2.840.113549.1.1.{arc}" for arc in (2, 4, 5, 11, 12, 13, 14, 15, 16)),
        "1.3.14.3.2.29",
        *(f"2.16.840.1.101.3.4.3.{arc}" for arc in (1, 2, *range(9, 17))),
        "1.2.840.10045.4.1",
        *(f"1.2.840.10045.4.3.{arc}" for arc in range(1, 5)),
        "1.2.840.10040.4.3",
        keys.ED25519,
        keys.ED448,
    }
)
#: Critical ones that Java knows; all are parsed. The rest concerns CRLs, or Java ignores their content.
_CRITICAL = frozenset(
    {
        *(f"2.5.29.{arc}" for arc in (14, 15, 16, 17, 18, 19, 30, 31, 32, 33, 35, 36, 37, 46, 54)),
        "1.3.6.1.5.5.7.1.1",
        "1.3.6.1.5.5.7.1.11",
        "2.16.840.1.113730.1.1",
    }
)
#: UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString, UniversalString, BMPString.
_STRINGS = frozenset({0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A, 0x1C, 0x1E})
_UNIQUE_IDENTIFIER = "2.5.4.45"
_SERIAL_NUMBER_LIMIT_BYTES = 64


class Reason(enum.StrEnum):
    """The classes of certificates that Java may read and that are not accepted."""

    VERSION = "version"
    SERIAL_NUMBER = "serial number"
    NAME_STRING = "string of a name"
    KEY_ALGORITHM = "key algorithm"
    RSA_LENGTH = "RSA length"
    RSA_EXPONENT = "RSA exponent"
    CURVE = "curve"
    EC_POINT = "EC point"
    SIGNATURE_ALGORITHM = "signature algorithm"
    SIGNATURE_PARAMETERS = "signature parameters"
    TWO_ALGORITHMS = "two algorithms"
    UNIQUE_IDENTIFIER = "unique identifier"
    CRITICAL_EXTENSION = "critical extension"
    TRAILING_BYTES = "trailing bytes"
    PARSER = "parser"


class Refusal(Exception):  # noqa: N818 - a verdict, not an error of ours
    """Why it is not accepted: `text` is about the certificate, as in "its key …"."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason, self.text = reason, text


def check(encoded: bytes) -> None:
    """Raises Flaw, Refusal."""
    found = java.read(encoded)
    _check_outline(encoded, found)
    _check_names(found)
    _check_key(found.public_key)
    _check_signature(found)
    for extension in found.extensions:
        if extension.critical and extension.oid not in _CRITICAL:
            raise Refusal(
                Reason.CRITICAL_EXTENSION,
                f"its extension {extension.oid[:100]} is critical, and Java does not know what it means",
            )
    try:
        parser.check(encoded)
    except parser.ParserError as error:
        raise Refusal(Reason.PARSER, f"the parser of this program cannot read it, although Java can: {error}") from None


def _check_outline(encoded: bytes, found: java.Certificate) -> None:
    if der.first(encoded).encoded != encoded:
        raise Refusal(Reason.TRAILING_BYTES, "more bytes follow it; expected one certificate and nothing else")
    if found.version not in (java.V1, java.V3):
        raise Refusal(Reason.VERSION, f"it is of version {found.version + 1}; expected 3, or 1")
    if found.has_unique_identifiers:
        raise Refusal(Reason.UNIQUE_IDENTIFIER, "it has a unique identifier of its issuer or subject, as none should")
    if len(found.serial_number.value) > _SERIAL_NUMBER_LIMIT_BYTES:
        raise Refusal(
            Reason.SERIAL_NUMBER,
            f"its serial number has {len(found.serial_number.value)} bytes; expected at most "
            f"{_SERIAL_NUMBER_LIMIT_BYTES}",
        )


def _check_names(found: java.Certificate) -> None:
    for what, name in (("issuer", found.issuer), ("subject", found.subject)):
        for oid, value in _attributes(name):
            if value.tag not in _STRINGS and not (oid == _UNIQUE_IDENTIFIER and value.tag == der.BIT_STRING):
                raise Refusal(
                    Reason.NAME_STRING,
                    f"its {what} has a value of {oid[:100]} that is no string (tag 0x{value.tag:02x})",
                )


def _attributes(name: Element) -> list[tuple[str, Element]]:
    """The attributes of a name that Java has read."""
    found = []
    for part in der.Reader(name.value).all():
        for attribute in der.Reader(part.value).all():
            oid, value = der.Reader(attribute.value).all()
            found.append((der.oid(oid), value))
    return found


def _check_key(key: keys.PublicKey) -> None:
    oid, parameters = key.algorithm
    if oid in _RSA_KEYS:
        _check_rsa(keys.rsa_numbers(key))
    elif oid == algorithms.EC and parameters is not None:
        if algorithms.curve(der.only(parameters)) not in _CURVES:
            raise Refusal(Reason.CURVE, f"its EC key is of another curve than {', '.join(_CURVES.values())}")
        # Java overlooks an extra byte
        if len(key.bits.value) % 2 == 0:
            raise Refusal(Reason.EC_POINT, "its EC key has a byte too many")
    elif oid not in _EDWARDS:
        raise Refusal(
            Reason.KEY_ALGORITHM, f"its key is of the algorithm {oid[:100]}; expected RSA, EC, Ed25519 or Ed448"
        )
    elif parameters is not None:
        raise Refusal(Reason.KEY_ALGORITHM, "its Ed25519 or Ed448 key has parameters")


def _check_rsa(numbers: keys.RsaNumbers) -> None:
    bits, exponent_bits = numbers.modulus.bit_length(), numbers.exponent.bit_length()
    if bits not in _RSA_BITS:
        raise Refusal(
            Reason.RSA_LENGTH, f"its RSA key has {bits} bits; expected {_RSA_BITS.start} to {_RSA_BITS.stop - 1}"
        )
    if exponent_bits > _RSA_EXPONENT_BITS or numbers.exponent % 2 == 0:
        raise Refusal(
            Reason.RSA_EXPONENT,
            f"its RSA key has an exponent of {exponent_bits} bits that is even or too long; expected an odd one of at "
            f"most {_RSA_EXPONENT_BITS} bits, such as 65537",
        )


def _check_signature(found: java.Certificate) -> None:
    oid, parameters = found.signature_algorithm
    if not found.has_one_signature_algorithm:
        raise Refusal(Reason.TWO_ALGORITHMS, "it names the algorithm of its signature in two ways")
    if oid == algorithms.PSS:
        if parameters is None:
            raise Refusal(Reason.SIGNATURE_PARAMETERS, "its signature is RSASSA-PSS without parameters")
    elif oid not in _SIGNATURES:
        raise Refusal(
            Reason.SIGNATURE_ALGORITHM,
            f"its signature is of the algorithm {oid[:100]}; expected RSA, ECDSA, DSA, Ed25519 or Ed448 with a hash "
            "function of the SHA families",
        )
    elif parameters is not None:
        raise Refusal(Reason.SIGNATURE_PARAMETERS, "its signature algorithm has parameters, as none should")
