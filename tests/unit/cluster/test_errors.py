"""Which error each answer of an API server becomes."""

import json
from typing import Any

import aiohttp
import pytest

from directdownload.cluster import errors

UNDECLARED = "failed to create typed patch object (/x; a/v1, Kind=B): .spec.zz: field not declared in schema"


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (400, {"reason": "BadRequest"}, errors.Invalid),
        (401, {"reason": "Unauthorized"}, errors.Forbidden),
        (403, {"reason": "Forbidden"}, errors.Forbidden),
        (404, {"reason": "NotFound"}, errors.NotFound),
        (409, {"reason": "Conflict"}, errors.Conflict),
        (409, {"reason": "AlreadyExists"}, errors.AlreadyExists),
        (410, {"reason": "Expired"}, errors.Gone),
        (422, {"reason": "Invalid"}, errors.Invalid),
        (418, {"reason": "Teapot"}, errors.ApiError),
        (500, {"reason": "InternalError", "message": "etcdserver: leader changed"}, errors.Unreachable),
        (500, {"message": UNDECLARED}, errors.Invalid),
        (503, {"reason": "ServiceUnavailable"}, errors.Unreachable),
        (504, {"reason": "Timeout"}, errors.Unreachable),
    ],
)
def test_status(status: int, document: dict[str, Any], expected: type[errors.ApiError]) -> None:
    error = errors.from_response(status, json.dumps(document).encode(), None, "GET /x")
    assert type(error) is expected
    assert error.status == status
    assert "GET /x" in str(error)


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("7", {}, 7),
        (None, {"retryAfterSeconds": 3}, 3),
        (None, {}, 1),
        (None, "a moment", 1),
        ("Fri, 31 Dec 1999 23:59:59 GMT", {}, 1),
        ("-5", {}, 0),
        ("nan", {}, 0),
        ("1e9", {}, 300),
        ("inf", {}, 300),
    ],
)
def test_retry_after(header: str | None, details: object, seconds: float) -> None:
    error = errors.from_response(429, json.dumps({"details": details}).encode(), header, "GET /x")
    assert isinstance(error, errors.TooManyRequests)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b'"text"', b"", b"\xff"])
def test_answer_of_something_in_between(body: bytes) -> None:
    error = errors.from_response(502, body, None, "GET /x")
    assert isinstance(error, errors.Unreachable)
    assert error.reason == "HTTP502"


def test_transport_errors_are_unreachable() -> None:
    assert errors.from_exception(TimeoutError(), "GET /x").reason == "Timeout"
    lost = errors.from_exception(aiohttp.ServerDisconnectedError(), "GET /x")
    assert (type(lost), lost.status, lost.reason) == (errors.Unreachable, 0, "ConnectionFailed")
