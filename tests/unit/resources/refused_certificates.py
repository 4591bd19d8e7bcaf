"""For each reason not to take a certificate one that Java reads all the same.

Used by `test_java_reads_what_we_accept`.
"""

from collections.abc import Mapping

from tests.world import asn1
from tests.world.asn1 import algorithm, bits, certificate, extension, integer, name, oid, sequence, tlv

from directdownload.resources.x509.accepted import Reason

_DSA, _X25519, _ED25519, _ML_DSA_44 = "1.2.840.10040.4.1", "1.3.101.110", "1.3.101.112", "2.16.840.1.101.3.4.3.17"


def _key(dotted: str, key: bytes, *parameters: bytes) -> bytes:
    return certificate(key=sequence(algorithm(dotted, *parameters), bits(key)))


#: By a word for the test's name.
NOT_TAKEN: Mapping[str, tuple[Reason, bytes]] = {
    "version-2": (Reason.VERSION, certificate(version=tlv(0xA0, integer(1)))),
    "version-7": (Reason.VERSION, certificate(version=tlv(0xA0, integer(6)))),
    "serial-number": (Reason.SERIAL_NUMBER, certificate(serial=integer(1 << 8 * 64))),
    "name-number": (Reason.NAME_STRING, certificate(subject=name(b"\1", asn1.INTEGER))),
    "dsa": (Reason.KEY_ALGORITHM, _key(_DSA, integer(7))),
    "x25519": (Reason.KEY_ALGORITHM, _key(_X25519, bytes(32))),
    "ml-dsa": (Reason.KEY_ALGORITHM, _key(_ML_DSA_44, bytes(1312))),
    "unknown-key": (Reason.KEY_ALGORITHM, _key("1.2.3", b"\1")),
    "ed25519-parameters": (Reason.KEY_ALGORITHM, _key(_ED25519, bytes(32), sequence())),
    "rsa-1023": (Reason.RSA_LENGTH, certificate(key=asn1.rsa_key(1023))),
    "rsa-exponent-long": (Reason.RSA_EXPONENT, certificate(key=asn1.rsa_key(2048, (1 << 64) + 1))),
    "rsa-exponent-even": (Reason.RSA_EXPONENT, certificate(key=asn1.rsa_key(2048, 4))),
    "p-192": (Reason.CURVE, _key(asn1.EC, b"\x04" + bytes(48), oid("1.2.840.10045.3.1.1"))),
    "point-with-a-byte": (Reason.EC_POINT, _key(asn1.EC, asn1.POINT + b"\0", oid(asn1.P256))),
    "unknown-signature": (Reason.SIGNATURE_ALGORITHM, certificate(signature=algorithm("1.2.3"))),
    "signature-parameters": (
        Reason.SIGNATURE_PARAMETERS,
        certificate(signature=algorithm("1.2.840.113549.1.1.11", sequence())),
    ),
    "pss-without-parameters": (Reason.SIGNATURE_PARAMETERS, certificate(signature=algorithm(asn1.PSS))),
    "null-once": (
        Reason.TWO_ALGORITHMS,
        certificate(signature=asn1.RSA_SHA256, outer=algorithm("1.2.840.113549.1.1.11")),
    ),
    "unique-identifier": (Reason.UNIQUE_IDENTIFIER, certificate(unique=tlv(0x81, b"\0\1"))),
    "unknown-critical": (Reason.CRITICAL_EXTENSION, certificate(extensions=[extension("1.2.3", b"")])),
    "trailing": (Reason.TRAILING_BYTES, certificate() + b"\0"),
    "off-the-curve": (Reason.PARSER, _key(asn1.EC, b"\x04" + b"\1" * 64, oid(asn1.P256))),
    "30-february": (
        Reason.PARSER,
        certificate(validity=sequence(*(tlv(asn1.UTC_TIME, day + b"000000Z") for day in (b"250230", b"490101")))),
    ),
    "default-written": (Reason.PARSER, certificate(version=tlv(0xA0, integer(0)))),
    "x400-name": (
        Reason.PARSER,
        certificate(extensions=[asn1.alternative_names(tlv(0xA3, sequence()), critical=False)]),
    ),
}
