"""The head of a request, and that of an answer. Pure; what a client sends is hostile."""

import dataclasses
import re
from collections.abc import Mapping

from directdownload.peer.protocol import AUTHORIZATION, HEAD_LIMIT_BYTES, SCHEME, ProtocolError

END = b"\r\n\r\n"
_LINE = re.compile(r"GET (?P<path>/[!-~]*) HTTP/1\.1", re.ASCII)
_FIELD = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):(?P<value>[ -~\t]*)", re.ASCII)
_FIELDS_LIMIT = 64
_WORDS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    503: "Service Unavailable",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """`grant` is empty without an Authorization of this protocol. `last`: no further request comes."""

    path: str
    grant: str
    last: bool


def parse(head: bytes) -> Request:
    """Without its `END`. Raises ProtocolError."""
    if len(head) > HEAD_LIMIT_BYTES:
        raise ProtocolError("the head is too long")
    line, *fields = head.decode("latin-1").split("\r\n")
    asked = _LINE.fullmatch(line)
    if asked is None:
        raise ProtocolError("expected GET, a path and HTTP/1.1")
    if len(fields) > _FIELDS_LIMIT:
        raise ProtocolError("there are too many fields")
    found = dict[str, str]()
    for field in fields:
        told = _FIELD.fullmatch(field)
        if told is None or told["name"].lower() in found:
            raise ProtocolError("a field is malformed, or there twice")
        found[told["name"].lower()] = told["value"].strip(" \t")
    if "transfer-encoding" in found or found.get("content-length", "0") != "0":
        raise ProtocolError("a request has no body")
    scheme, _, grant = found.get(AUTHORIZATION.lower(), "").partition(" ")
    options = {option.strip().lower() for option in found.get("connection", "").split(",")}
    return Request(asked["path"], grant if scheme == SCHEME else "", "close" in options)


def answer(status: int, fields: Mapping[str, str]) -> bytes:
    """The head of an answer, with its `END`."""
    lines = [f"HTTP/1.1 {status} {_WORDS[status]}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + END
