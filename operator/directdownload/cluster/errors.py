"""The errors of a call to the Kubernetes API, as one tree; exceptions of libraries never leave this package.

    ApiError
    ├── ConfigurationError   no usable credentials: a human must act
    ├── NotFound             404
    ├── Conflict             409: the object changed meanwhile, or another manager owns a field
    │   └── AlreadyExists    409 at creation
    ├── Gone                 410: the resourceVersion or continue token is too old, list again
    ├── Forbidden            401, 403
    ├── Invalid              the request can never succeed as it is
    ├── TooManyRequests      429: try again after `retry_after_seconds`
    └── Unreachable          network, timeouts, 5xx: try again with backoff

`from_response` and `from_exception` are the one place where the mapping is decided; `client` is their only caller.
"""

# ruff: noqa: N818 - the API's own words, as they stand in its answers

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import aiohttp

#: Transport errors below HTTP. The last two: the answer is not JSON, as something in between made it.
TRANSPORT_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError, json.JSONDecodeError, UnicodeDecodeError)
DEFAULT_RETRY_AFTER_SECONDS = 1.0
#: No answer delays the next try by more than this: something in between may have made it.
LONGEST_RETRY_AFTER_SECONDS = 300.0
_TEXT_LIMIT = 500


class ApiError(Exception):
    """A failed call. `status` is the HTTP status or 0; `reason` the API's own CamelCase word.

    `details` are those of the answer, if it has any: the object's kind and name, the causes by field.
    """

    details: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason} ({status}): {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ConfigurationError(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(0, "ConfigurationInvalid", message)


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class AlreadyExists(Conflict):
    pass


class Gone(ApiError):
    pass


class Forbidden(ApiError):
    pass


class Invalid(ApiError):
    pass


class TooManyRequests(ApiError):
    def __init__(self, status: int, reason: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(status, reason, message)
        self.retry_after_seconds = retry_after_seconds


class Unreachable(ApiError):
    pass


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: Unreachable,
    409: Conflict,
    410: Gone,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}
#: Server-side apply answers 500 to fields that the schema does not know or that have a wrong type.
_PERMANENT_500 = ("field not declared in schema", "failed to create typed patch object")


def from_response(status: int, body: bytes, retry_after: str | None, call: str) -> ApiError:
    """The error for an HTTP answer >= 400; `call` (`GET /api/v1/…`) names the request."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # not from the API server but from something in between
        document = {"message": body[:_TEXT_LIMIT].decode(errors="replace").strip()}
    return from_status(document, status, retry_after, call)


def from_status(document: Mapping[str, Any], status: int, retry_after: str | None, call: str) -> ApiError:
    """The error for a `Status` document: the body of an answer, or the object of a watch's ERROR event."""
    reason = str(document.get("reason") or f"HTTP{status}")
    message = f"{call}: {document.get('message') or 'no message'}"
    details = document.get("details")
    details = details if isinstance(details, dict) else {}
    error: ApiError
    if status == 429:
        error = TooManyRequests(status, reason, message, _seconds(retry_after, details.get("retryAfterSeconds")))
    else:
        error = _kind(status, reason, message)(status, reason, message)
    error.details = details
    return error


def _kind(status: int, reason: str, message: str) -> type[ApiError]:
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists
    if status == 500 and any(text in message for text in _PERMANENT_500):
        return Invalid
    return Unreachable if status >= 500 else _BY_STATUS.get(status, ApiError)


def from_exception(error: Exception, call: str) -> ApiError:
    """The error for one of `TRANSPORT_ERRORS`."""
    reason = "Timeout" if isinstance(error, asyncio.TimeoutError) else "ConnectionFailed"
    return Unreachable(0, reason, f"{call}: {type(error).__name__} {error}".rstrip())


def _seconds(*candidates: object) -> float:
    for candidate in candidates:
        try:
            # In this order a NaN becomes 0.
            return min(max(0.0, float(str(candidate))), LONGEST_RETRY_AFTER_SECONDS)
        except ValueError:
            continue  # absent, or an HTTP date, which the API server does not send
    return DEFAULT_RETRY_AFTER_SECONDS
