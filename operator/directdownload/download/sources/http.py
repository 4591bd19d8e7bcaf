"""http and https: one GET with redirects, ranges and validators.

Created by `sources.create`. Promises: every hop is checked against the policy before connecting, and the connection
goes to the checked address; the user's headers go to the origin of the first URL only; no other credentials are ever
sent to a server; a stream that begins at the offset asked for is of the version asked for, as far as the server is
truthful.
"""

import contextlib
import dataclasses
import datetime
import io
import math
import re
import socket
import time
from collections.abc import Callable

from directdownload.download import secrets
from directdownload.download.errors import RequestError, SourceError
from directdownload.download.guard import Guard
from directdownload.download.settings import Setting
from directdownload.download.sources import body, connection, encodings, head, policy, proxy, tlswords
from directdownload.download.sources.base import Ask, SourceOptions
from directdownload.download.sources.urls import Url, location, redact
from directdownload.resources.reasons import Reason

_HEAD_SECONDS = 30
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: the server is at fault, not the request: another attempt may succeed
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_BODY_LOOK_BYTES = 1024
_RETRY_AFTER_LIMIT_SECONDS = 86_400.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,1024}"')
#: in the body of a 400 by nginx, Apache or Go, which say nothing about it in the head
_USE_HTTPS = "the server speaks TLS at this port; use an https URL"
_BAD_REQUESTS = {
    b"No required SSL certificate was sent": tlswords.CLIENT_CERTIFICATE,
    b"The plain HTTP request was sent to HTTPS port": _USE_HTTPS,
    b"speaking plain HTTP to an SSL-enabled server port": _USE_HTTPS,
    b"Client sent an HTTP request to an HTTPS server": _USE_HTTPS,
}
_SLOTS = connection.Slots()

_Headers = tuple[tuple[str, str], ...]


@dataclasses.dataclass(slots=True)
class _Response:
    url: Url
    status: int
    headers: head.Headers
    proxied: proxy.Proxy | None
    wire: connection.Wire
    #: at the first byte of the body
    reader: io.BufferedReader
    release: Callable[[], None]

    @property
    def chunked(self) -> bool:
        """RFC 9112, 6.3: this frames the body, whatever its Content-Length says."""
        return _transfer_encodings(self.headers) == ["chunked"]

    def close(self) -> None:
        self.wire.close()
        self.release()


class HTTPStream:
    """An open response; see `base.Stream`."""

    def __init__(self, response: _Response, offset_bytes: int, size_bytes: int | None, content: body.Body) -> None:
        self._response = response
        self.content = content
        self.offset_bytes = offset_bytes
        self.size_bytes = size_bytes
        self.validator = _validator(response.headers)
        accepted = response.headers.get("Accept-Ranges").strip().lower()
        self.ranges = size_bytes is not None and (response.status == 206 or accepted == "bytes")
        self.media_type = redact(response.headers.media_type)

    def readinto(self, buffer: memoryview) -> int:
        return self.content.readinto(buffer)

    def close(self) -> None:
        self._response.close()


class HTTPSource:
    """See `base.Source`."""

    def __init__(self, url: Url, options: SourceOptions) -> None:
        self.url = url
        self._options = options
        #: where redirects led to, with the headers that may go there: the next range comes from the same server
        self._led_to: tuple[Url, _Headers] | None = None

    def open(self, ask: Ask, guard: Guard) -> HTTPStream:
        stream = self._open_again(ask, guard) or self._open(ask, guard)
        # the server has another version, or bungles ranges: the whole file, then
        return stream or self.open(Ask(), guard)

    def _open_again(self, ask: Ask, guard: Guard) -> HTTPStream | None:
        """A further range, from where an earlier one came; None if it does not come from there any more."""
        if self._led_to is None or not _is_partial(ask):
            return None
        try:
            return self._accept(self._get(*self._led_to, ask, guard), ask)
        except (SourceError, RequestError):
            # such as a link that was good for a while only
            self._led_to = None
            return None

    def _open(self, ask: Ask, guard: Guard) -> HTTPStream | None:
        response, headers = self._follow(ask, guard)
        stream = self._accept(response, ask)
        if response.url != self.url:
            self._led_to = response.url, headers
        return stream

    def _accept(self, response: _Response, ask: Ask) -> HTTPStream | None:
        """The stream of a final answer; None if the file must be asked for from its beginning."""
        try:
            stream = _stream(response, ask)
            if stream is not None:
                labels = response.headers.get_all("Content-Encoding")
                begins = not stream.offset_bytes
                stream.content = encodings.plain(stream.content, begins, labels, (self.url, response.url))
        except BaseException:
            response.close()
            raise
        if stream is None:
            response.close()
        elif secrets.Secrets.of_headers(self._options.headers).hide(stream.validator) != stream.validator:
            # It would be kept on disk.
            stream.validator = ""
        return stream

    def _follow(self, ask: Ask, guard: Guard) -> tuple[_Response, _Headers]:
        """The first answer that is no redirect, and the headers that it was asked with."""
        url, headers = self.url, self._options.headers
        for _ in range(self._options.policy.max_redirects + 1):
            response = self._get(url, headers, ask, guard)
            if response.status not in _REDIRECTS:
                return response, headers
            response.close()
            target = response.headers.get("Location")
            if not target:
                raise SourceError(
                    Reason.SOURCE_UNAVAILABLE,
                    f"{url}: the server redirects (status {response.status}) without a Location header",
                )
            following = Url.of_server(location(target), f"{url} redirects to ", url)
            if following.scheme not in ("http", "https"):
                raise SourceError(
                    Reason.UNSUPPORTED_PROTOCOL, f"{following.introduced}: only http and https are supported"
                )
            policy.check_redirect(url, following, self._options.policy)
            if following.origin != url.origin:
                headers = ()
            url = following
        raise SourceError(
            Reason.TOO_MANY_REDIRECTS,
            f"{self.url}: more than {self._options.policy.max_redirects} redirects, the last one to {url} "
            f"({Setting.MAX_REDIRECTS})",
        )

    def _get(self, url: Url, headers: _Headers, ask: Ask, guard: Guard) -> _Response:
        timeouts = self._options.timeouts
        proxied = None if self._options.policy.require_direct else self._options.proxies.choose(url)
        release = _SLOTS.acquire(url, timeouts.connection_request_seconds, guard)
        wire = None
        try:
            wire = self._connect(url, proxied, guard)
            wire.begin_head(_HEAD_SECONDS + timeouts.socket_seconds)
            wire.send(_request(url, headers, ask, proxied))
            reader = wire.reader()
            found = head.read(reader, url)
            wire.end_head()
            return _Response(url, found.status, found.headers, proxied, wire, reader, release)
        except BaseException:
            if wire is not None:
                wire.close()
            release()
            raise

    def _connect(self, url: Url, proxied: proxy.Proxy | None, guard: Guard) -> connection.Wire:
        effort = connection.Effort.begin(url, self._options.timeouts, guard)

        def dial() -> socket.socket:
            if proxied is not None:
                return proxy.connect(effort, proxied)
            return connection.connect(effort, self._options.policy)

        if url.scheme == "http":
            return connection.Wire(effort, dial())
        from directdownload.download.sources import tls

        return tls.connect(dial, effort, tls.trust(self._options.trust_bundle))


def _request(url: Url, headers: _Headers, ask: Ask, proxied: proxy.Proxy | None) -> bytes:
    # RFC 9112, 3.2.2: a proxy gets the whole URL; through a tunnel it sees nothing
    seen_by_proxy = proxied is not None and url.scheme == "http"
    target = f"http://{url.authority}{url.target}" if seen_by_proxy else url.target
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {url.authority}",
        "User-Agent: directdownload",
        "Accept: */*",
        # a checksum is of the file, not of an encoding of it
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if _is_partial(ask):
        last = "" if ask.end_bytes is None else ask.end_bytes - 1
        lines.append(f"Range: bytes={ask.offset_bytes}-{last}")
        if ask.validator:
            lines.append(f"If-Range: {ask.validator}")
    if proxied is not None and seen_by_proxy and proxied.authorization:
        lines.append(f"Proxy-Authorization: {proxied.authorization}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _is_partial(ask: Ask) -> bool:
    return bool(ask.offset_bytes) or ask.end_bytes is not None


def _stream(response: _Response, ask: Ask) -> HTTPStream | None:
    """The stream of a final answer; None if the caller must ask for the file from its beginning."""
    status = response.status
    # RFC 9110, 15.3.4: of a proxy that has changed the answer
    if status in (200, 203):
        length = _content_length(response)
        return HTTPStream(response, 0, length, _body(response, length))
    if status == 206:
        stream = _partial(response, ask)
        # if nobody asked for a range, it must be that of the whole file
        if stream is not None or _is_partial(ask):
            return stream
    if status == 416 and _is_partial(ask):
        return None
    raise _refusal(response)


def _partial(response: _Response, ask: Ask) -> HTTPStream | None:
    """The stream of a 206; None unless it has exactly the range asked for."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range").strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    length = _content_length(response)
    validator = _validator(response.headers)
    continues = (
        first == ask.offset_bytes
        and last >= first
        and size is not None
        and last == min(size, ask.end_bytes or size) - 1
        and size == (ask.size_bytes or size)
        and length in (None, last - first + 1)
        and (not ask.validator or not validator or validator == ask.validator)
    )
    if not continues:
        return None
    return HTTPStream(response, first, size, _body(response, last - first + 1 if not response.chunked else None))


def _body(response: _Response, length: int | None) -> body.Body:
    reader = response.reader
    if response.chunked:
        return body.ChunkedBody(response.url, reader)
    if length is not None:
        return body.LengthBody(response.url, reader, length)
    return body.UntilCloseBody(reader)


def _content_length(response: _Response) -> int | None:
    """The declared length of the body; None for a chunked body or none declared."""
    transfers = _transfer_encodings(response.headers)
    if transfers not in ([], ["chunked"], ["identity"]):
        raise SourceError(
            Reason.SOURCE_REFUSED, f"{response.url}: transfer encoding '{redact(transfers[0])}' is not supported"
        )
    if response.chunked:
        return None
    values = [value.strip() for text in response.headers.get_all("Content-Length") for value in text.split(",")]
    if any(not re.fullmatch(r"[0-9]{1,18}", value) for value in values):
        raise SourceError(Reason.SOURCE_UNAVAILABLE, f"{response.url}: the server's Content-Length is not a number")
    # RFC 9110, 8.6: repeated on the way, it counts as one
    lengths = sorted({int(value) for value in values})
    if len(lengths) > 1:
        message = f"{response.url}: the server names several lengths: {', '.join(map(str, lengths[:4]))}; expected one"
        raise SourceError(Reason.SOURCE_UNAVAILABLE, message)
    return lengths[0] if lengths else None


def _transfer_encodings(headers: head.Headers) -> list[str]:
    return [value.strip().lower() for value in headers.get_all("Transfer-Encoding")]


def _validator(headers: head.Headers) -> str:
    """A strong ETag, else Last-Modified, fit for If-Range; else empty (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    modified = headers.get("Last-Modified").strip()
    return modified if _date(modified) is not None else ""


def _refusal(response: _Response) -> SourceError:
    status = response.status
    if status == 407 and response.proxied is not None:
        return proxy.refusal(response.url, response.proxied, status)
    import http

    phrase = next((known.phrase for known in http.HTTPStatus if known == status), "unknown status")
    through = f" (through {response.proxied})" if response.proxied is not None else ""
    message = f"{response.url}: the server answered {status} {phrase}{through}"
    if 400 <= status < 500 and status not in _TRANSIENT_STATUSES:
        return SourceError(Reason.SOURCE_REFUSED, message + (_bad_request(response) if status == 400 else ""))
    pause = _retry_after(response.headers.get("Retry-After"))
    if pause:
        message += f" and asks for {math.ceil(pause)} s of pause"
    return SourceError(Reason.SOURCE_UNAVAILABLE, message, retry_after_seconds=pause)


def _bad_request(response: _Response) -> str:
    """What the answer 400 is about, if its body says so in known words."""
    text = b""
    with contextlib.suppress(SourceError):
        text = response.reader.read1(_BODY_LOOK_BYTES)
    return next((f": {words}" for sign, words in _BAD_REQUESTS.items() if sign in text), "")


def _retry_after(text: str) -> float | None:
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), _RETRY_AFTER_LIMIT_SECONDS)
    moment = _date(text)
    if moment is None:
        return None
    return min(max(0.0, moment.timestamp() - time.time()), _RETRY_AFTER_LIMIT_SECONDS)


def _date(text: str) -> datetime.datetime | None:
    import email.utils

    try:
        # the parser is lenient, and the text may go into a request again
        return email.utils.parsedate_to_datetime(text) if len(text) <= 64 and text.isascii() else None
    except (TypeError, ValueError):
        return None
