"""Certificates that are no ordinary ones: what Java cannot read, and what only our parser cannot.

The classes of what Java cannot read are each tested in `tests/unit/resources`; here are those that other tests need.
"""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.world import certificates

from directdownload.resources.pem import Certificate


def no_names(host: str = "images.example.org") -> bytes:
    """As cert-manager's selfSigned issuer makes it of `dnsNames` alone: Java reads no certificate without an issuer."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _unparsed() -> bytes:
    """A name that is no UTF-8: Java puts a replacement character, cryptography refuses the certificate."""
    return certificates.der("images.example.org").replace(b"images.example.org", b"\xff" * 18)


NO_NAMES, UNPARSED = no_names(), _unparsed()


def pem(der: bytes) -> str:
    return Certificate(der).pem
