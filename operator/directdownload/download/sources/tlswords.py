"""The failures of TLS in words that say what happened and what to do, and the reason of each.

Called by `tls`. OpenSSL names a failure by a constant (`TLSV13_ALERT_CERTIFICATE_REQUIRED`); the log keeps it at level
debug. An alert comes from the server, and any other name from this end.
"""

import logging
import re
from typing import TYPE_CHECKING

from directdownload.download.errors import SourceError, plain
from directdownload.download.settings import Setting
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

CLIENT_CERTIFICATE = (
    "the server demands a client certificate; direct download has none to send: use a URL that needs none, or headers "
    f"({Setting.HEADERS}) if the server takes those"
)
_NO_TLS = "the server speaks no TLS at this port; correct the port, or use an http URL with a checksum"
_NOTHING_IN_COMMON = (
    "the server and direct download have no version or cipher of TLS in common; allow TLS 1.2 or newer on the server"
)
#: TLS_PLAINTEXT.type of an alert and of a handshake (RFC 8446, 5.1): any other first byte is of another protocol
_FIRST_BYTES = b"\x15\x16"
_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")
#: RFC 8446, 6.2: about the certificate of this end, which sends none
_OF_OUR_CERTIFICATE = frozenset(
    {
        *("BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_REVOKED", "CERTIFICATE_EXPIRED"),
        *("CERTIFICATE_UNKNOWN", "UNKNOWN_CA", "CERTIFICATE_REQUIRED"),
    }
)
_NO_COMMON_ALERTS = frozenset({"HANDSHAKE_FAILURE", "PROTOCOL_VERSION", "INSUFFICIENT_SECURITY"})
#: of this end: the server has chosen or offered what is too weak
_NO_COMMON = frozenset(
    {
        *("UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE", "UNKNOWN_PROTOCOL"),
        *("DH_KEY_TOO_SMALL", "BAD_ECPOINT", "UNSAFE_LEGACY_RENEGOTIATION_DISABLED", "WRONG_SIGNATURE_TYPE"),
    }
)
#: X509_V_ERR_… of OpenSSL: no chain to an authority that is trusted
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})


def check_is_tls(url: Url, first: int) -> None:
    """Raise SourceError unless the `first` byte from the server can be of TLS."""
    if first not in _FIRST_BYTES:
        raise SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: {_NO_TLS}")


def untrusted(url: Url, error: "ssl.SSLCertVerificationError") -> str:
    """The message for a certificate of the server that is not trusted."""
    _note(url, error)
    advice = f"; to trust it, add its authority by {Setting.CERTIFICATES}"
    return (
        f"{url}: the server's certificate is not trusted: {error.verify_message}"
        f"{advice if error.verify_code in _UNKNOWN_AUTHORITY else ''}"
    )


def handshake_failure(url: Url, error: "ssl.SSLError", *, chosen: bool) -> SourceError:
    """`chosen`: the server had chosen version and cipher before the failure."""
    _note(url, error)
    import ssl

    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: the server closed the connection in the TLS handshake")
    alert = _alert(error)
    if alert in _OF_OUR_CERTIFICATE or (chosen and alert == "HANDSHAKE_FAILURE"):
        return SourceError(Reason.SOURCE_REFUSED, f"{url}: {CLIENT_CERTIFICATE}")
    if alert in _NO_COMMON_ALERTS or error.reason in _NO_COMMON:
        return SourceError(Reason.SOURCE_REFUSED, f"{url}: {_NOTHING_IN_COMMON}")
    if alert == "UNRECOGNIZED_NAME":
        return SourceError(Reason.SOURCE_REFUSED, f"{url}: the server has no host of the name {url.host}")
    ended = (
        f"the server ended the TLS handshake: {_words(alert)}"
        if alert
        else f"the TLS handshake failed: {_words(error)}"
    )
    return SourceError(Reason.TLS_VERIFICATION_FAILED, f"{url}: {ended}")


def broken(url: Url, error: "ssl.SSLError") -> SourceError:
    """The failure of an established connection. In TLS 1.3 a server demands a certificate only then."""
    _note(url, error)
    alert = _alert(error)
    if alert in _OF_OUR_CERTIFICATE:
        return SourceError(Reason.SOURCE_REFUSED, f"{url}: {CLIENT_CERTIFICATE}")
    ended = "the server ended the connection" if alert else "damaged TLS data"
    return SourceError(Reason.TLS_VERIFICATION_FAILED, f"{url}: {ended}: {_words(alert or error)}")


def _alert(error: "ssl.SSLError") -> str:
    """The name of the alert that the server has sent; empty if this end failed."""
    match = _ALERT.fullmatch(error.reason or "")
    return match[1] if match else ""


def _words(what: "ssl.SSLError | str") -> str:
    return plain(what if isinstance(what, str) else what.reason or str(what))


def _note(url: Url, error: "ssl.SSLError") -> None:
    logger.debug("%s: %s", url, error)
