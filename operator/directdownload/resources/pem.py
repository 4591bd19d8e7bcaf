"""One X.509 certificate, however it was pasted: PEM on one line, wrapped, with CRLF, or bare base64.

Used by the controller for `DirectDownloadCertificate`, by the command line and by the agent. Promises: exactly one
certificate and nothing else, or a `CertificateError` that says what was found; the normalised PEM of the same bytes is
always the same text (RFC 7468: lines of 64, one newline at the end). Its names and numbers fit into a status: one
printable line, bounded. Whether it is valid now is the caller's question.
"""

import base64
import dataclasses
import datetime
import functools
import hashlib
import re
import warnings

from cryptography import exceptions, utils, x509
from cryptography.x509.oid import PublicKeyAlgorithmOID

#: Of the text, as the CRD has it; a certificate takes a few kilobytes.
TEXT_LIMIT = 65536
#: Of a subject, an issuer or a serial number as it is told; what is longer is cut, and ends with an ellipsis.
FIELD_LIMIT = 512
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
#: As RFC 7468, section 3 has labels, and no longer than those that exist.
_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_VERSION_TAG = 0xA0
_SPACE = re.compile(r"[ \t\r\n]+")
#: All that the parser raises for bytes that are no certificate; it raises the last three for what only looks like one.
_PARSE_ERRORS = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


class CertificateError(ValueError):
    """The text is not exactly one certificate. The message never repeats the text: it may be a private key."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Facts:
    """What a certificate says of itself."""

    subject: str
    issuer: str
    serial_number: str
    not_before: datetime.datetime
    not_after: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Certificate:
    """One certificate; compared by its bytes. `parse` makes it; of other bytes the properties raise what it catches."""

    der: bytes

    @functools.cached_property
    def pem(self) -> str:
        text = base64.b64encode(self.der).decode()
        return "\n".join([_BEGIN, *(text[at : at + 64] for at in range(0, len(text), 64)), _END, ""])

    @functools.cached_property
    def fingerprint_sha256(self) -> str:
        return fingerprint_sha256(self.der)

    @functools.cached_property
    def _facts(self) -> _Facts:
        return _read(self.der)

    @property
    def subject(self) -> str:
        """As RFC 4514 writes it; what cannot be printed as its hexadecimal pairs (section 2.4)."""
        return self._facts.subject

    @property
    def issuer(self) -> str:
        return self._facts.issuer

    @property
    def serial_number(self) -> str:
        """Hexadecimal, as keytool prints it; old authorities have 0 and negative ones."""
        return self._facts.serial_number

    @property
    def not_before(self) -> datetime.datetime:
        return self._facts.not_before

    @property
    def not_after(self) -> datetime.datetime:
        return self._facts.not_after


def fingerprint_sha256(der: bytes) -> str:
    """SHA-256 of the certificate's bytes as keytool and `openssl x509 -fingerprint -sha256` print it."""
    return hashlib.sha256(der).digest().hex(":").upper()


def parse(text: str) -> Certificate:
    """The certificate in `text`. Raises CertificateError."""
    if len(text) > TEXT_LIMIT:
        raise CertificateError(f"expected one certificate, found {len(text)} characters (at most {TEXT_LIMIT})")
    text = text.strip()
    if not text:
        raise CertificateError("expected one certificate in PEM, found nothing")
    body = _body(text)
    try:
        der = base64.b64decode(_SPACE.sub("", body), validate=True)
    except ValueError:
        raise CertificateError(
            "expected one certificate in PEM or base64, found something that is not base64"
        ) from None
    found = Certificate(der)
    try:
        _ = found.subject
    except _PARSE_ERRORS:
        raise CertificateError(
            "expected one X.509 certificate, found base64 of something else (or of a part of one)"
        ) from None
    return found


def _body(text: str) -> str:
    """What should be the base64 of one certificate."""
    labels = _LABEL.findall(text)
    if foreign := next((label for label in labels if label != "CERTIFICATE"), None):
        raise CertificateError(f"expected one certificate in PEM, found a block that begins with -----BEGIN {foreign}")
    if len(labels) > 1:
        raise CertificateError(
            f"expected one certificate, found {len(labels)}: make one object of each, with an alias of its own"
        )
    if not labels:
        return text
    before, _, rest = text.partition(_BEGIN)
    body, end, after = rest.partition(_END)
    if not end:
        raise CertificateError(f"expected {_END} at the end, found none: the certificate is cut off")
    if before or after:
        where = "before" if before else "after"
        raise CertificateError(f"expected one certificate and nothing else, found text {where} it")
    return body


def _read(der: bytes) -> _Facts:
    """Raises one of `_PARSE_ERRORS`. What Java would refuse to read is refused here: one such entry makes it refuse
    the whole keystore."""
    # It warns of serial numbers that RFC 5280 forbids. A certificate that has one is trusted all the same, and nobody
    # reads warnings. The filter is the process's: between two threads it may at worst stay.
    with warnings.catch_warnings(action="ignore", category=utils.CryptographyDeprecationWarning):
        parsed = x509.load_der_x509_certificate(der)
        _ = parsed.extensions
        _check_algorithms(der)
        try:
            parsed.public_key()
        except exceptions.UnsupportedAlgorithm as error:
            # Java keeps a key of an algorithm that it does not know as it is, but not one of an unknown curve.
            if parsed.public_key_algorithm_oid == PublicKeyAlgorithmOID.EC_PUBLIC_KEY:
                raise ValueError(str(error)) from None
        return _Facts(
            subject=_line(parsed.subject.rfc4514_string()),
            issuer=_line(parsed.issuer.rfc4514_string()),
            serial_number=_line(f"{parsed.serial_number:x}"),
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
        )


def _check_algorithms(der: bytes) -> None:
    """That both statements of the signature's algorithm are the same (RFC 5280, section 4.1.1.2). ValueError if not."""
    signed, _ = _element(der, 0)
    at, signed_end = _element(der, signed)
    # The version is left out of old certificates; the serial number never.
    for _ in range(2 if der[at] == _VERSION_TAG else 1):
        at = _element(der, at)[1]
    if der[at : _element(der, at)[1]] != der[signed_end : _element(der, signed_end)[1]]:
        raise ValueError("two algorithms of one signature")


def _element(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends; of DER that has been parsed."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[at + 2 : begin])
    return begin, begin + length


def _line(text: str) -> str:
    shown = "".join(
        letter if letter.isprintable() else "".join(f"\\{byte:02X}" for byte in letter.encode())
        for letter in text[:FIELD_LIMIT]
    )
    return shown if max(len(text), len(shown)) <= FIELD_LIMIT else shown[: FIELD_LIMIT - 1] + "…"
