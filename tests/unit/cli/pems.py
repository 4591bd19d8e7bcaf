"""Certificates and keys as files hold them, for tests of the command line."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def certificate(name: str = "images.example.org", *, begins_in: int = -1, ends_in: int = 365) -> str:
    """A self-signed certificate in PEM, always another one; days from now."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(_KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in * DAY)
        .not_valid_after(now + ends_in * DAY)
        .sign(_KEY, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def private_key() -> str:
    return _KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


_KEY = ec.generate_private_key(ec.SECP256R1())
