"""X.509 certificates for tests: the one maker.

What it makes is in order. `odd_certificates` has what Java or our parser cannot read, `asn1` what no library makes.
"""

import datetime
import functools
import ipaddress
import pathlib
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


@functools.cache
def _key() -> ec.EllipticCurvePrivateKey:
    """The one of `der` and `pem`, as nobody uses it there."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """The same one during a test run: it takes long to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, private, serialization.NoEncryption())


def private_key() -> str:
    """That of `der` and `pem`."""
    return key_pem(_key()).decode()


def common_name(text: str, organizations: Iterable[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, text)])


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
    subject = x509.Name([x509.NameAttribute(attribute, name)])
    builder = _builder(subject, subject, _key(), days=(-1, 3650), begins=begins, ends=ends, serial=serial)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def pem(name: str = "images.example.org", **fields: Any) -> str:
    """As `der`, as openssl writes it."""
    return ssl.DER_cert_to_PEM_cert(der(name, **fields))


class Certificate:
    """A key of its own and its certificate, signed by `issuer` or itself; `names` are host names, addresses and URIs.

    A `strict` one passes strict verification: it has key usage and key identifiers.
    """

    def __init__(
        self,
        *names: str,
        issuer: "Certificate | None" = None,
        authority: bool | None = None,
        days: tuple[int, int] = (-1, 1),
        ends: datetime.datetime | None = None,
        subject: x509.Name | None = None,
        critical_names: bool = False,
        strict: bool = False,
        purpose: x509.ObjectIdentifier | None = None,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = common_name(f"test {names} {id(self)}") if subject is None else subject
        builder = _builder(self.name, issuer.name if issuer else self.name, self.key, days=days, ends=ends)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=critical_names)
        if authority is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if strict:
            own, above = (each.key.public_key() for each in (self, issuer or self))
            builder = (
                builder.add_extension(_key_usage(authority=bool(authority)), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
            )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        signed = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())
        self.der = signed.public_bytes(serialization.Encoding.DER)
        self.pem = signed.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)

    def save(self, path: pathlib.Path) -> str:
        """The certificate alone, as a trust bundle has it."""
        path.write_bytes(self.pem)
        return str(path)

    def server_context(self, directory: pathlib.Path) -> ssl.SSLContext:
        both = directory / f"{id(self)}.pem"
        both.write_bytes(self.pem + self.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        return context


def bundle(directory: pathlib.Path, certificates: Sequence[Certificate]) -> str:
    path = directory / "bundle.pem"
    path.write_bytes(b"".join(certificate.pem for certificate in certificates))
    return str(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: tuple[int, int],
    begins: datetime.datetime | None = None,
    ends: datetime.datetime | None = None,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    """Valid from `begins` to `ends`; where one is missing, the first or last of `days` from today."""
    now = datetime.datetime.now(datetime.UTC)
    number = x509.random_serial_number() if serial is None else serial
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), number)
    first, last = (now + datetime.timedelta(days=count) for count in days)
    return builder.not_valid_before(begins or first).not_valid_after(ends or last)


def _general_name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
