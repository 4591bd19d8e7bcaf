"""Unusual certificates: some that Java cannot read, and some that only our parser cannot read.

`tests/unit/resources` tests each class of certificates that Java cannot read; here are those that other tests need.
"""

from cryptography import x509
from tests.world import certificates

from directdownload.resources.pem import Certificate


def no_names(host: str = "images.example.org") -> bytes:
    """As cert-manager's selfSigned issuer makes it of `dnsNames` alone: Java reads no certificate without an issuer."""
    nobody = x509.Name([])
    return certificates.Certificate(host, subject=nobody, critical_names=True, days=(-1, 3650)).der


def _unparsed() -> bytes:
    """A name that is not UTF-8: Java inserts a replacement character, cryptography refuses the certificate."""
    return certificates.der("images.example.org").replace(b"images.example.org", b"\xff" * 18)


NO_NAMES, UNPARSED = no_names(), _unparsed()


def pem(der: bytes) -> str:
    return Certificate(der).pem
