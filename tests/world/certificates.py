"""X.509 certificates for tests, good and odd ones; one key for all, as nobody here uses it."""

import datetime
import functools
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@functools.cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(
    name: str = "images.example.org",
    *,
    begins: datetime.datetime | None = None,
    ends: datetime.datetime | None = None,
    serial: int = 0x1234ABCD,
    extensions: tuple[x509.ExtensionType, ...] = (),
    attribute: x509.ObjectIdentifier = NameOID.COMMON_NAME,
) -> bytes:
    """A self-signed certificate, other bytes with each call; by default valid from yesterday for ten years."""
    now = datetime.datetime.now(datetime.UTC)
    names = x509.Name([x509.NameAttribute(attribute, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(names)
        .issuer_name(names)
        .public_key(_key().public_key())
        .serial_number(serial)
        .not_valid_before(begins or now - datetime.timedelta(days=1))
        .not_valid_after(ends or now + datetime.timedelta(days=3650))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def pem(name: str = "images.example.org", **fields: Any) -> str:
    """As `der`, as openssl writes it."""
    certificate = x509.load_der_x509_certificate(der(name, **fields))
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def private_key() -> str:
    return (
        _key()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
