"""Requests for certificates, and the certificates of hosts: made, and checked by the end that receives them.

The controller checks requests, the agent certificates; each believes nothing of the other. Whatever a text is, the
result is facts or a CertificateError.
"""

import base64
import contextlib
import datetime
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from directdownload.peer import statements

#: Of the two certificates of a host: each serves one purpose, and none the other.
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
#: Characters of a PEM text.
_PEM_LIMIT = 8192
_AUTHORITIES_LIMIT = 2

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class CertificateError(ValueError):
    """A key, request or certificate that cannot be read or must not be used; the message says why, in one line."""


class Validity(NamedTuple):
    """A certificate counts from `begins` to before `ends`."""

    begins: datetime.datetime
    ends: datetime.datetime

    def covers(self, now: datetime.datetime) -> bool:
        return self.begins <= now < self.ends


def private_pem(key: PrivateKey) -> bytes:
    """PKCS #8 without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def elliptic(data: bytes) -> ec.EllipticCurvePrivateKey:
    """A key of EC P-256 as `private_pem` writes it. Raises CertificateError."""
    found = _private_key(data)
    if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1):
        return found
    raise CertificateError("private key: expected EC P-256")


def edwards(data: bytes) -> ed25519.Ed25519PrivateKey:
    """An Ed25519 key as `private_pem` writes it. Raises CertificateError."""
    found = _private_key(data)
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return found
    raise CertificateError("private key: expected Ed25519")


def _private_key(data: bytes) -> object:
    with _reading("private key"):
        return serialization.load_pem_private_key(data, password=None)


def raw(key: PublicKey) -> bytes:
    """Equal for equal keys."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def text_of_key(key: ed25519.Ed25519PublicKey) -> str:
    """Base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def key_of_text(text: str) -> ed25519.Ed25519PublicKey:
    """The reverse. Raises CertificateError."""
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(statements.key_of(text))
    except statements.StatementError as error:
        raise CertificateError(f"Ed25519 public key: {error}") from None


def request(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate signing request (PEM) that names nobody: the issuer knows whose it is."""
    built = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def requested_key(text: str) -> PublicKey:
    """The only thing that is taken from a request: the key whose private part signed it. Raises CertificateError."""
    with _reading("certificate signing request"):
        found = x509.load_pem_x509_csr(_bounded(text))
        key, signed = found.public_key(), found.is_signature_valid
    accepted = _accepted(key, "certificate signing request")
    if not signed:
        raise CertificateError("certificate signing request: its signature is not by its own key")
    return accepted


def certificate(text: str) -> x509.Certificate:
    """The first one. Raises CertificateError."""
    with _reading("certificate"):
        return x509.load_pem_x509_certificate(_bounded(text))


def key_of(found: x509.Certificate) -> PublicKey:
    """Raises CertificateError."""
    with _reading("certificate"):
        key = found.public_key()
    return _accepted(key, "certificate")


def pem(found: x509.Certificate) -> str:
    """The certificate and nothing else."""
    return found.public_bytes(serialization.Encoding.PEM).decode()


def authorities(bundle: str) -> tuple[x509.Certificate, ...]:
    """One or two certificates of authorities, whatever their time. Raises CertificateError."""
    with _reading("bundle"):
        found = tuple(x509.load_pem_x509_certificates(_bounded(bundle)))
        allowed = [each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for each in found]
        keys = [each.public_key() for each in found]
    if not 1 <= len(found) <= _AUTHORITIES_LIMIT:
        raise CertificateError(f"bundle: expected one to {_AUTHORITIES_LIMIT} certificates")
    for key in keys:
        _accepted(key, "bundle")
    if not all(allowed):
        raise CertificateError("bundle: expected certificates of authorities")
    return found


def check(
    found: x509.Certificate,
    *,
    name: str,
    purpose: x509.ObjectIdentifier,
    authorities: Sequence[x509.Certificate],
) -> Validity:
    """When `found`, signed by one of `authorities`, proves `name` (a URI) for this purpose and no other; the time of
    the authority bounds it. Whose key it has the caller compares. Raises CertificateError."""
    with _reading("certificate"):
        names = list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        purposes = list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        own = Validity(found.not_valid_before_utc, found.not_valid_after_utc)
    if names != [x509.UniformResourceIdentifier(name)]:
        raise CertificateError(f"certificate: it is not for {name}")
    if purposes != [purpose] or authority:
        raise CertificateError("certificate: it is for another purpose")
    key_of(found)
    for issuer in authorities:
        try:
            with _reading("certificate"):
                found.verify_directly_issued_by(issuer)
                begins, ends = issuer.not_valid_before_utc, issuer.not_valid_after_utc
        except CertificateError:
            continue
        return Validity(max(own.begins, begins), min(own.ends, ends))
    raise CertificateError("certificate: no authority of the bundle has signed it")


def _accepted(key: object, what: str) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise CertificateError(f"{what}: expected a key of EC P-256 or Ed25519")


def _bounded(text: str) -> bytes:
    if len(text) > _PEM_LIMIT:
        raise CertificateError(f"expected at most {_PEM_LIMIT} characters of PEM")
    return text.encode(errors="replace")


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (KeyboardInterrupt, SystemExit, CertificateError):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise CertificateError(f"{what}: it cannot be read ({type(error).__name__})") from None
