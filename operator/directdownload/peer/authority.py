"""The authority of an installation: it signs the certificates of hosts and the grants of jobs.

Its content is one document of one Secret: one or two *generations*, each with a CA and a key for grants. A new
generation is spread for a day before it is used, so that every host believes it by then; the one before stays until
what it has signed has expired. A new generation keeps the key for grants: it has signed the warrants in the piece logs
of copies that exist, and they would serve nobody any more. All here is pure: the caller has the clock and the Secret.
"""

import dataclasses
import datetime
import json
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from directdownload.peer import certificates
from directdownload.peer.certificates import CertificateError, PublicKey
from directdownload.resources import peers

VERSION = 1
_LIMIT_BYTES = 64 * 1024
#: Clocks differ: a certificate counts from so long before it was signed.
EARLIER = datetime.timedelta(hours=1)
#: How long a certificate of a host counts after it was signed.
LIFE = datetime.timedelta(hours=24)
#: A generation is followed by the next one after this time; it could sign for a month longer.
ROTATION, _AUTHORITY_LIFE = datetime.timedelta(days=90), datetime.timedelta(days=120)
#: How long a new generation is only spread.
SPREAD = datetime.timedelta(days=1)
#: How long the one before is believed after the new one signs: longer than any certificate or grant counts.
BELIEVED = datetime.timedelta(days=2)


class AuthorityError(ValueError):
    """The Secret's content is none that this version has written; the message says what is wrong, and no key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    grant_key: ed25519.Ed25519PrivateKey

    @property
    def created(self) -> datetime.datetime:
        return self.certificate.not_valid_before_utc + EARLIER

    @property
    def ends(self) -> datetime.datetime:
        return self.certificate.not_valid_after_utc

    def can_sign(self, now: datetime.datetime) -> bool:
        """Whether what it signs counts for its whole life."""
        return self.created - EARLIER <= now <= self.ends - LIFE


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """`generations`: one or two, the older one first."""

    generations: tuple[Generation, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The document that `encoded` writes. Raises AuthorityError."""
        if len(data) > _LIMIT_BYTES:
            raise AuthorityError(f"expected at most {_LIMIT_BYTES} bytes")
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            raise AuthorityError("it is no JSON") from None
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise AuthorityError(f"expected an object of version {VERSION}")
        entries = told.get("generations")
        if not isinstance(entries, list) or not 1 <= len(entries) <= peers.KEYS_LIMIT:
            raise AuthorityError(f"generations: expected a list of one to {peers.KEYS_LIMIT}")
        generations = tuple(_generation(entry, f"generations[{number}]") for number, entry in enumerate(entries))
        if len({each.certificate.serial_number for each in generations}) != len(generations):
            raise AuthorityError("generations: expected different ones")
        return cls(generations)

    def encoded(self) -> bytes:
        entries = [
            {
                "certificate": certificates.pem(each.certificate),
                "key": certificates.private_pem(each.key).decode(),
                "grantKey": certificates.private_pem(each.grant_key).decode(),
            }
            for each in self.generations
        ]
        return json.dumps({"version": VERSION, "generations": entries}, indent=1).encode() + b"\n"

    @property
    def bundle(self) -> str:
        """What hosts believe, as PEM."""
        return "".join(certificates.pem(each.certificate) for each in self.generations)

    @property
    def keys(self) -> tuple[str, ...]:
        """The public keys of grants that hosts believe, as base64."""
        told = (certificates.text_of_key(each.grant_key.public_key()) for each in self.generations)
        return tuple(dict.fromkeys(told))

    def current(self, now: datetime.datetime) -> Generation:
        """The generation that signs."""
        older, newest = self.generations[0], self.generations[-1]
        if older.can_sign(now) and (now < newest.created + SPREAD or not newest.can_sign(now)):
            return older
        return newest


def advanced(authority: Authority | None, now: datetime.datetime) -> Authority:
    """`authority` as it should be at `now`: the same object if nothing is to be done; None is one that is lost."""
    if authority is None:
        return Authority((make(now),))
    newest = authority.generations[-1]
    if not any(each.can_sign(now) for each in authority.generations):
        # Nothing was looked at for months, or the clock was wrong.
        return Authority((newest, make(now, newest.grant_key)))
    if newest.can_sign(now):
        if now >= newest.created + ROTATION:
            return Authority((newest, make(now, newest.grant_key)))
        if len(authority.generations) > 1 and now >= newest.created + SPREAD + BELIEVED:
            return Authority((newest,))
    return authority


def make(now: datetime.datetime, grant_key: ed25519.Ed25519PrivateKey | None = None) -> Generation:
    """`grant_key`: that of the generation before, which goes on."""
    now = now.replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Each has a name of its own: verifiers look for an issuer by name.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"direct-download-operator peers {serial:x}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Generation(certificate, key, grant_key or ed25519.Ed25519PrivateKey.generate())


def issue(
    generation: Generation, key: PublicKey, name: str, purpose: x509.ObjectIdentifier, now: datetime.datetime
) -> str:
    """A certificate (PEM) for `name` (a URI) with `key`, for one purpose, that counts for `LIFE`."""
    now = now.replace(microsecond=0)
    above = generation.key.public_key()
    built = (
        x509.CertificateBuilder(
            generation.certificate.subject, x509.Name([]), key, x509.random_serial_number(), now - EARLIER, now + LIFE
        )
        # Critical, as there is no subject (RFC 5280, 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
    )
    return certificates.pem(built.sign(generation.key, hashes.SHA256()))


def _generation(entry: Any, where: str) -> Generation:
    if not isinstance(entry, dict):
        raise AuthorityError(f"{where}: expected an object")
    certificate, key, grant_key = (_text(entry, name, where) for name in ("certificate", "key", "grantKey"))
    try:
        parsed, *others = certificates.authorities(certificate)
        public = parsed.public_key()
        signing = certificates.elliptic(key.encode(errors="replace"))
        granting = certificates.edwards(grant_key.encode(errors="replace"))
    except CertificateError as error:
        raise AuthorityError(f"{where}: {error}") from None
    if others:
        raise AuthorityError(f"{where}: certificate: expected exactly one")
    if signing.public_key() != public:
        raise AuthorityError(f"{where}: key: expected that of the certificate")
    return Generation(parsed, signing, granting)


def _text(entry: dict[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise AuthorityError(f"{where}: {name}: expected a text")
    return value


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
