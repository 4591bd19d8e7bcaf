"""nfs: one file of an export, read in user space through libnfs, several reads in flight.

Created by `sources.create`. No mount, no privilege but a source port below 1024, which most exports demand: libnfs
takes one where the process may (net.ipv4.ip_unprivileged_port_start).

`nfs://host[:port]/export/path/file`: the port is that of the NFS service. Version 4 is tried first, with the path
looked up from the server's root: it takes one connection, and no port mapper. Version 3 is tried when the server,
reached that way, does not give the file. There the directories above the file are mounted, the longest first, as
servers differ in whether they let a part of an export be mounted; the mount service is found by the port mapper.

Promises: connecting, mounting and opening take no longer than the connect timeout; reading ends with SocketTimeout
after the given silence; both notice the guard at once; the addresses used are those that the policy has allowed; at
most READ_BYTES * READS_IN_FLIGHT bytes are held, and none is delivered of a file that was found changed in the end.
"""

import collections
import re
import time
import urllib.parse
from collections.abc import Iterator

from directdownload.download.errors import RequestError, SourceError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.sources import connection, libnfs
from directdownload.download.sources.base import Ask, SourceOptions
from directdownload.download.sources.nfssession import NFSError, Read, Session
from directdownload.download.urls import Url
from directdownload.resources.reasons import Reason

READ_BYTES = 256 * 1024
READS_IN_FLIGHT = 16
#: MNTPATHLEN, RFC 1813, section 5.1.4
_PATH_LIMIT_BYTES = 1024
_NAME_LIMIT_BYTES = 255
_DEPTH_LIMIT = 32
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: of no use in the name of an image; whoever passes such a path to a shell must not be hurt by it
_SHELL = re.compile(r"[;|`\\]|\$\(")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_READ_BYTES_LEAST = 4096


def check_nfs_url(url: Url) -> str:
    """The path that an nfs URL names, decoded once; RequestError(InvalidURL) if it names no file or is dangerous."""
    encoded = url.target.partition("?")[0]
    if "?" in url.text or "#" in url.text:
        raise _invalid(url, "an nfs URL has no query and no fragment (write ? as %3F and # as %23)")
    if _BAD_ESCAPE.search(encoded):
        raise _invalid(url, "its path has a % that is not followed by two hexadecimal digits")
    try:
        path = urllib.parse.unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise _invalid(url, "its path is not UTF-8") from None
    if re.search("%2f", encoded, re.IGNORECASE):
        raise _invalid(url, "its path has an encoded slash")
    if _CONTROL.search(path):
        raise _invalid(url, "its path has control characters")
    if found := _SHELL.search(path):
        raise _invalid(url, f"its path has {found[0]!r}, which is not allowed")
    names = [name for name in path.split("/") if name]
    if "." in names or ".." in names:
        raise _invalid(url, "its path has . or .. in it")
    if not names or path.endswith("/"):
        raise _invalid(url, "it names no file")
    path = "/" + "/".join(names)
    too_long = len(path.encode()) > _PATH_LIMIT_BYTES or any(len(name.encode()) > _NAME_LIMIT_BYTES for name in names)
    if too_long or len(names) > _DEPTH_LIMIT:
        raise _invalid(
            url,
            f"its path is too long: allowed are {_PATH_LIMIT_BYTES} bytes, {_DEPTH_LIMIT} names and "
            f"{_NAME_LIMIT_BYTES} bytes in each",
        )
    return path


class NFSSource:
    """See `base.Source`. RequestError(InvalidURL) for a path that is not allowed."""

    def __init__(self, url: Url, options: SourceOptions) -> None:
        self.url = url
        self._options = options
        self._path = check_nfs_url(url)

    def open(self, ask: Ask, guard: Guard) -> "NFSStream":
        session = self._connect(guard)
        try:
            return NFSStream(session, ask)
        except BaseException:
            session.close()
            raise

    def _connect(self, guard: Guard) -> Session:
        """The file, opened at the first address of the host that can be reached."""
        timeouts = self._options.timeouts
        end = time.monotonic() + timeouts.connect_seconds
        addresses = connection.resolve(self.url, timeouts, guard, self._options.policy)
        failure: SourceError | None = None
        for index, address in enumerate(addresses):
            # an address that swallows packets must leave time for those after it
            share = (end - time.monotonic()) / (len(addresses) - index)
            try:
                return self._open_at(str(address[4][0]), time.monotonic() + share, guard)
            except SourceError as error:
                if not _unreached(error):
                    raise
                failure = failure or error
        raise failure or SourceError(Reason.SOURCE_UNREACHABLE, f"{self.url}: {self.url.host} has no address")

    def _open_at(self, address: str, end: float, guard: Guard) -> Session:
        try:
            return self._open_export(4, address, "/", end, guard)
        except NFSError as error:
            if _unreached(error):
                raise
            failure = error
        for export in _parents(self._path):
            try:
                return self._open_export(3, address, export, end, guard)
            except NFSError as error:
                if not error.mounting:
                    raise
                if error.reason is not Reason.SOURCE_REFUSED:
                    # most likely there is no version 3: what version 4 said is to the point
                    if failure.reason is Reason.SOURCE_REFUSED:
                        raise failure from error
                    raise SourceError(error.reason, f"{failure.message}; version 3: {error.told}") from error
                # the exports that are not there say "not found": less than "denied"
                if error.denied and not failure.denied:
                    failure = error
        raise failure

    def _open_export(self, version: int, address: str, export: str, end: float, guard: Guard) -> Session:
        session = Session(self.url, version, self._options.timeouts, guard)
        try:
            session.mount(address, export, end)
            session.open(self._path if export == "/" else self._path[len(export) :], end)
        except BaseException:
            session.close()
            raise
        return session


class NFSStream:
    """An open file; see `base.Stream`."""

    ranges = True
    media_type = ""

    def __init__(self, session: Session, ask: Ask) -> None:
        self._session = session
        self._found = session.attributes
        self.size_bytes: int | None = self._found.size
        self.validator = _version(self._found)
        same = ask.validator in ("", self.validator) and ask.size_bytes in (None, self._found.size)
        if same and ask.offset_bytes <= self._found.size:
            self.offset_bytes = ask.offset_bytes
            self._end = min(self._found.size, self._found.size if ask.end_bytes is None else ask.end_bytes)
        else:
            self.offset_bytes, self._end = 0, self._found.size
        self._position = self._next = self.offset_bytes
        self._read_bytes = READ_BYTES
        self._reads: collections.deque[Read] = collections.deque()
        self._spare: list[memoryview] = []

    def readinto(self, buffer: memoryview) -> int:
        if self._position == self._end or not buffer:
            return 0
        self._ask_ahead()
        first = self._reads[0]
        self._wait(first)
        count = min(len(buffer), first.length - first.taken)
        if self._position + count == self._end:
            self._check_unchanged()
        buffer[:count] = first.memory[first.taken : first.taken + count]
        first.taken += count
        self._position += count
        if first.taken == first.length:
            self._reads.popleft()
            self._spare.append(first.memory)
        return count

    def close(self) -> None:
        # the library frees what reads under way still use; those that were not closed end with the server's lease
        if all(read.call.done for read in self._reads):
            self._session.close_file()
        self._session.close()

    def _ask_ahead(self) -> None:
        """Keep the server busy: as many reads under way as there may be."""
        if self._session.lost is not None:
            # what arrived before may still be taken
            if not self._reads:
                raise self._session.lost
            return
        asked = False
        while self._next < self._end and len(self._reads) < READS_IN_FLIGHT:
            length = min(self._read_bytes, self._end - self._next)
            memory = self._spare.pop() if self._spare else memoryview(bytearray(min(READ_BYTES, self._found.size)))
            read = Read(self._next, length, memory)
            self._session.start_read(read)
            self._reads.append(read)
            self._next += length
            asked = True
        if asked:
            self._session.turn(0)

    def _wait(self, read: Read) -> None:
        """Until all of `read` is there."""
        session = self._session
        last = time.monotonic()
        while read.received < read.length:
            session.guard.check()
            if read.call.done:
                self._take(read)
            elif session.turn(TICK_SECONDS):
                last = time.monotonic()
            elif time.monotonic() - last >= session.silence_seconds:
                raise SourceError(
                    Reason.SOCKET_TIMEOUT, f"{session.url}: silence for {session.silence_seconds:g} s (timeouts.socket)"
                )

    def _take(self, read: Read) -> None:
        session, status = self._session, read.call.status
        if status < 0:
            raise session.failure(read.call, "the file cannot be read")
        if status == 0:
            self._check_unchanged()
            raise SourceError(
                Reason.TRUNCATED,
                f"{session.url}: the server has {read.offset + read.received} bytes and no more, "
                f"expected {self.size_bytes}",
            )
        read.received += status
        if read.received < read.length:
            # as much as the server gives at once: asking for more would cost a round trip each time
            self._read_bytes = min(self._read_bytes, max(_READ_BYTES_LEAST, status))
            session.start_read(read)

    def _check_unchanged(self) -> None:
        if _version(self._session.current_attributes()) != self.validator:
            raise SourceError(
                Reason.SOURCE_CHANGED, f"{self._session.url}: the file has changed while it was read; it is read anew"
            )


def _version(attributes: libnfs.Attributes) -> str:
    """Names a version of a file: ctime also tells of those changes after which mtime was set back."""
    return (
        f"{attributes.ino:x}-{attributes.size:x}-{attributes.mtime:x}.{attributes.mtime_nsec:x}"
        f"-{attributes.ctime:x}.{attributes.ctime_nsec:x}"
    )


def _parents(path: str) -> Iterator[str]:
    """The directories above, the longest first."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def _unreached(error: SourceError) -> bool:
    return error.reason in (Reason.SOURCE_UNREACHABLE, Reason.CONNECT_TIMEOUT)


def _invalid(url: Url, problem: str) -> RequestError:
    return RequestError(
        Reason.INVALID_URL,
        f"URL '{url}' is not valid: {problem}; for example nfs://storage.example.org/export/images/debian-13.qcow2",
    )
