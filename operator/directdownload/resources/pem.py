"""One X.509 certificate in any pasted form: PEM on one line, wrapped, with CRLF, or bare base64; or a file in DER.

Used by the controller for `DirectDownloadCertificate`, by the command line and by the agent. `parse` and `read` promise
exactly one certificate that every Java reads and nothing else, or a `CertificateError` that says what was found.
`decode` looks at the armour alone, for a certificate that is published already: it reports itself whether it would be
accepted now (`refusal`), and whether Java opens a keystore that holds it (`unreadable`). The normalised PEM of the same
bytes is always the same text (RFC 7468: lines of 64, one newline at the end). Names, numbers and verdicts fit into a
status: one printable line, bounded. Whether it is valid now is the caller's question.
"""

import base64
import codecs
import dataclasses
import datetime
import functools
import hashlib
import re

from directdownload.resources.x509 import accepted, java, parser
from directdownload.resources.x509.der import Class, Flaw

#: Of the text, as in the CRD; a certificate takes a few kilobytes.
TEXT_LIMIT = 65536
#: Of a subject, an issuer or a serial number in a status; a longer one is cut, and ends with an ellipsis.
FIELD_LIMIT = 512
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
#: The labels of RFC 7468, section 3, and OpenSSL's "PKCS #7"; no longer than those that exist.
_LABEL = re.compile(r"-----BEGIN ([A-Z0-9# ]{1,40})-----")
_SPACE = re.compile(r"[ \t\r\n]+")
#: Commands that read other forms, by the label. Each writes one certificate, the first, in PEM.
_TO_PEM = "openssl x509 -out NEW-FILE"
_CONVERT = {
    "X509 CERTIFICATE": f"{_TO_PEM} -in FILE",
    "TRUSTED CERTIFICATE": f"{_TO_PEM} -in FILE",
    "PKCS7": f"openssl pkcs7 -in FILE -print_certs | {_TO_PEM}",
    "PKCS #7 SIGNED DATA": f"openssl pkcs7 -in FILE -print_certs | {_TO_PEM}",
}
_CONVERT_DER = f"openssl pkcs7 -inform DER -in FILE -print_certs | {_TO_PEM}"
_CONVERT_BASE64 = f"openssl base64 -d -A -in FILE | openssl pkcs7 -inform DER -print_certs | {_TO_PEM}"
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BOM = "\ufeff"


class CertificateError(ValueError):
    """The text is not exactly one certificate. The message never repeats the text: it may be a private key."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """One certificate, or bytes that were taken for one; compared by its bytes.

    Its properties raise CertificateError if the parser cannot read it; for one that `parse` made, they never do.
    """

    der: bytes

    @functools.cached_property
    def pem(self) -> str:
        text = base64.b64encode(self.der).decode()
        return "\n".join([_BEGIN, *(text[at : at + 64] for at in range(0, len(text), 64)), _END, ""])

    @functools.cached_property
    def fingerprint_sha256(self) -> str:
        return fingerprint_sha256(self.der)

    @functools.cached_property
    def flaw(self) -> Flaw | None:
        """The part that Java cannot read; None: it reads all."""
        try:
            java.read(self.der)
        except Flaw as flaw:
            # without the frames that an exception holds
            return Flaw(flaw.kind, flaw.text)
        return None

    @property
    def unreadable(self) -> str | None:
        """Why Java cannot open a keystore that holds it; None: it can."""
        if self.flaw is None:
            return None
        return _line(f"Java cannot read this certificate, nor a keystore that holds it: {self.flaw.text}")

    @functools.cached_property
    def refusal(self) -> str | None:
        """Why it would not be accepted as a new certificate; None: it would be."""
        if self.flaw is not None:
            return self.unreadable
        try:
            accepted.check(self.der)
        except accepted.Refusal as refusal:
            return _line(f"this certificate is not accepted: {refusal.text}")
        return None

    @functools.cached_property
    def _facts(self) -> parser.Facts:
        try:
            return parser.facts(self.der)
        except parser.ParserError as error:
            raise CertificateError(_line(f"the certificate cannot be read: {error}")) from None

    @property
    def subject(self) -> str:
        """In the notation of RFC 4514; unprintable parts as hexadecimal pairs (section 2.4)."""
        return _line(self._facts.subject)

    @property
    def issuer(self) -> str:
        return _line(self._facts.issuer)

    @property
    def serial_number(self) -> str:
        """Hexadecimal, as keytool prints it; old authorities have 0 and negative ones."""
        return _line(f"{self._facts.serial_number:x}")

    @property
    def not_before(self) -> datetime.datetime:
        return self._facts.not_before

    @property
    def not_after(self) -> datetime.datetime:
        return self._facts.not_after


def fingerprint_sha256(der: bytes) -> str:
    """SHA-256 of the certificate's bytes, as keytool and `openssl x509 -fingerprint -sha256` print it."""
    return hashlib.sha256(der).digest().hex(":").upper()


def parse(text: str) -> Certificate:
    """The certificate in `text`. Raises CertificateError, also for one that is not accepted."""
    return _strict(decode(text), "base64", _CONVERT_BASE64)


def read(content: bytes) -> Certificate:
    """As `parse`, for the content of a file, a Secret or a ConfigMap: text, also in UTF-16 as on Windows, or DER."""
    # base64 of a certificate begins with M, PEM with a hyphen: text that begins with 0 is no certificate
    if content[:1] == b"0":
        if len(content) > TEXT_LIMIT:
            raise CertificateError(f"expected one certificate, found {len(content)} bytes (at most {TEXT_LIMIT})")
        return _strict(Certificate(content), "bytes", _CONVERT_DER)
    return parse(_text(content))


def bare(content: bytes) -> Certificate | None:
    """The bytes that `read` would judge; None if they are not even armour."""
    if content[:1] == b"0":
        return Certificate(content[:TEXT_LIMIT])
    try:
        return decode(_text(content))
    except CertificateError:
        return None


def decode(text: str) -> Certificate:
    """As `parse`, whatever the bytes are: published bytes were judged when they were new."""
    text = text.removeprefix(_BOM)
    if len(text) > TEXT_LIMIT:
        raise CertificateError(f"expected one certificate, found {len(text)} characters (at most {TEXT_LIMIT})")
    text = text.strip()
    if not text:
        raise CertificateError("expected one certificate in PEM, found nothing")
    body = _body(text)
    try:
        return Certificate(base64.b64decode(_SPACE.sub("", body), validate=True))
    except ValueError:
        raise CertificateError(
            "expected one certificate in PEM or base64, found something that is not base64"
        ) from None


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8")
    except UnicodeError:
        raise CertificateError("expected one certificate in PEM or DER, found something that is neither") from None


def _body(text: str) -> str:
    """The part that should be the base64 of one certificate."""
    labels = _LABEL.findall(text)
    if foreign := next((label for label in labels if label != "CERTIFICATE"), None):
        advice = f"-----: convert it with `{_CONVERT[foreign]}`" if foreign in _CONVERT else ""
        raise CertificateError(
            f"expected one certificate in PEM, found a block that begins with -----BEGIN {foreign}{advice}"
        )
    if len(labels) > 1:
        raise CertificateError(
            f"expected one certificate, found {len(labels)}: create one object for each, with an alias of its own"
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


def _strict(found: Certificate, what: str, convert: str) -> Certificate:
    """`found`, if it is accepted. `what`: the form it was found in; `convert` makes a certificate of a PKCS #7."""
    if found.flaw is not None and found.flaw.kind is Class.OUTLINE:
        # behind a tag and a length
        if _SIGNED_DATA in found.der[: len(_SIGNED_DATA) + 6]:
            raise CertificateError(f"expected one certificate, found PKCS #7, a list: convert it with `{convert}`")
        raise CertificateError(f"expected one X.509 certificate, found {what} of something else (or of a part of one)")
    if found.refusal is not None:
        raise CertificateError(found.refusal)
    if len(found.pem) > TEXT_LIMIT:
        raise CertificateError(
            f"expected one certificate, found {len(found.pem)} characters in PEM (at most {TEXT_LIMIT})"
        )
    return found


def _line(text: str) -> str:
    shown = "".join(
        letter if letter.isprintable() else "".join(f"\\{byte:02X}" for byte in letter.encode())
        for letter in text[:FIELD_LIMIT]
    )
    return shown if max(len(text), len(shown)) <= FIELD_LIMIT else shown[: FIELD_LIMIT - 1] + "…"
