"""Certificates as others have them: old, odd or none at all. Used by the tests of the command line and of the agent."""

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from tests.world import certificates

_SERIAL_1 = bytes.fromhex("a003020102 020101")


def _patched(before: bytes, after: bytes) -> bytes:
    """One whose name is `one`, with some of its bytes exchanged: nobody checks the signature of a trusted one."""
    data = certificates.der("one", serial=1)
    assert before in data
    return data.replace(before, after)


def _with_name(encoded: bytes) -> bytes:
    """A subjectAltName of this encoding."""
    return certificates.der(extensions=(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, encoded),))


#: Java reads them; of some cryptography warns, others it does not read.
FOREIGN = {
    "serial number 0": _patched(_SERIAL_1, _SERIAL_1[:-1] + b"\0"),
    "negative serial number": _patched(_SERIAL_1, _SERIAL_1[:-1] + b"\xfb"),
    "country of three letters": _patched(bytes.fromhex("0603550403"), bytes.fromhex("0603550406")),
    "name of bits": _patched(b"\x0c\x03one", b"\x03\x03\0ne"),
    "name of X.400": _with_name(bytes.fromhex("3005a303040178")),
}
#: Java opens no store that has one of these.
UNREADABLE = {"no certificate": b"no certificate", "nothing": b""}
