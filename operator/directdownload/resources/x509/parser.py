"""The one place that calls the X.509 parser of `cryptography`, and our one error for everything that it raises.

Used by `resources.pem` (the fields of a certificate) and `accepted`. Promises: whatever the bytes are, the result is
facts or a ParserError with the cause in plain words; nothing is warned of. The parser is stricter than Java, and other
versions of the library may refuse something else: its verdict is no reason to withdraw a certificate from hosts.
"""

import datetime
import re
import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from cryptography import exceptions, x509

T = TypeVar("T")
#: The filters of warnings belong to the process: two threads that change them at once leave them changed.
_lock = threading.Lock()
_TEXT_LIMIT = 200
_ASN1 = re.compile(r"ParseError \{ kind: (\w+)(?: \{.*?\})?(?:, location: \[(.*)\])? \}")
_PLACE = re.compile(r'"(?:\w+::)?(\w+)"')
_KINDS = {
    "InvalidValue": "a value that it may not have",
    "InvalidTag": "a field of a type that does not exist",
    "InvalidLength": "a length that is not written as DER has it",
    "UnexpectedTag": "a field of another type than expected",
    "ShortData": "a field that is cut off",
    "IntegerOverflow": "a number that is too large",
    "ExtraData": "more fields than it should have",
    "InvalidSetOrdering": "a set that is not in order",
    "EncodedDefault": "a default value that is written out",
    "InvalidSize": "a text that is too short or too long",
    "UnknownField": "a field that does not exist",
    "OidTooLong": "an object identifier that is too long",
}


class ParserError(ValueError):
    """The parser's objection, in one line."""


class Facts(NamedTuple):
    """The fields of a certificate; names as RFC 4514 writes them."""

    subject: str
    issuer: str
    serial_number: int
    not_before: datetime.datetime
    not_after: datetime.datetime


def facts(encoded: bytes) -> Facts:
    """Raises ParserError."""
    return _parsed(
        encoded,
        lambda parsed: Facts(
            subject=parsed.subject.rfc4514_string(),
            issuer=parsed.issuer.rfc4514_string(),
            serial_number=parsed.serial_number,
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
        ),
    )


def check(encoded: bytes) -> None:
    """Makes the parser read all of it, extensions and key too. Raises ParserError."""
    facts(encoded)
    _parsed(encoded, lambda parsed: (parsed.extensions, parsed.public_key()))


def _parsed(encoded: bytes, ask: Callable[[x509.Certificate], T]) -> T:
    try:
        with _lock, warnings.catch_warnings(action="ignore"):
            return ask(x509.load_der_x509_certificate(encoded))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise ParserError(_words(error)) from None


def _words(error: BaseException) -> str:
    match = _ASN1.search(str(error))
    if match is not None:
        places = [place.replace("_", " ") for place in _PLACE.findall(match[2] or "") if place != "tbs_cert"]
        words = _KINDS.get(match[1], "something that it does not know")
        return f"{words}, in {' of '.join(reversed(places))}" if places else words
    if isinstance(error, x509.UnsupportedGeneralNameType):
        return "a name of a type that it does not know (x400Address or ediPartyName)"
    if isinstance(error, x509.DuplicateExtension):
        return f"an extension that is there twice ({error.oid.dotted_string[:100]})"
    if isinstance(error, exceptions.UnsupportedAlgorithm):
        return "a key of a type that it does not know"
    text = str(error) if isinstance(error, (ValueError, TypeError)) else type(error).__name__
    return "".join(letter for letter in text.split("\n")[0][:_TEXT_LIMIT].rstrip(".") if letter.isprintable())
