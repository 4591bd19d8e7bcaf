"""nfs: one file of an export, read in user space through libnfs, several reads in flight.

Created by `sources.create`. It needs no mount, and no privilege but a source port below 1024, which most exports
require: libnfs takes one where the process may (net.ipv4.ip_unprivileged_port_start).

`nfs://host[:port]/export/path/file`: the port is that of the NFS service. Version 4 is tried first: it needs one
connection, and no port mapper. Version 3 is tried if the server answers over version 4 but does not give the file; the
port mapper then names the mount service.

The source mounts the directory that the policy allows (`exports.allowed_root`), so it never holds a handle of anything
above it. A server of version 3 may refuse to mount a part of an export: then the source mounts a directory above, and
resolves all links itself. It mounts no directory below the allowed one, as the server follows links in the path that it
mounts. Only where the policy allows the whole server, it mounts directories above the file, the longest first.

Promises: connecting, mounting and opening take no longer than the connect timeout; reading ends with SocketTimeout
after the given silence; both check the guard every TICK_SECONDS; only addresses that the policy allows are used; at
most READ_BYTES * READS_IN_FLIGHT bytes are held; the last bytes of a file that changed are not delivered.
"""

import collections
import time
from collections.abc import Iterator

from directdownload.download.errors import SourceError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.settings import Setting
from directdownload.download.sources import connection, exports, libnfs
from directdownload.download.sources.base import Ask, SourceOptions
from directdownload.download.sources.nfssession import NFSError, Read, Session
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason

READ_BYTES = 256 * 1024
READS_IN_FLIGHT = 16
_READ_BYTES_LEAST = 4096


class NFSSource:
    """See `base.Source`. Raises RequestError(URLNotAllowed) for a path that is not allowed."""

    def __init__(self, url: Url, options: SourceOptions) -> None:
        self.url = url
        self._options = options
        self._path = "/" + "/".join(url.nfs_names)
        self._root = exports.allowed_root(url, options.policy)

    def open(self, ask: Ask, guard: Guard) -> "NFSStream":
        session = self._connect(guard)
        try:
            return NFSStream(session, ask)
        except BaseException:
            session.close()
            raise

    def _connect(self, guard: Guard) -> Session:
        """Open the file at the first reachable address of the host."""
        timeouts = self._options.timeouts
        end = time.monotonic() + timeouts.connect_seconds
        addresses = connection.resolve(self.url, timeouts, guard, self._options.policy)
        failure: SourceError | None = None
        for index, address in enumerate(addresses):
            # an address that drops packets must leave time for the next ones
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
            return self._open_export(4, address, self._root, end, guard)
        except NFSError as error:
            if _unreached(error):
                raise
            failure = error
        for export in _parents(self._path) if self._root == "/" else (self._root, *_parents(self._root)):
            try:
                return self._open_export(3, address, export, end, guard)
            except NFSError as error:
                if not error.mounting:
                    raise
                if error.reason is not Reason.SOURCE_REFUSED:
                    # the server most likely has no version 3: the failure of version 4 is the relevant one
                    if failure.reason is Reason.SOURCE_REFUSED:
                        raise failure from error
                    raise SourceError(error.reason, f"{failure.message}; version 3: {error.told}") from error
                # absent exports answer "not found", which explains less than "denied"
                if error.denied and not failure.denied:
                    failure = error
        raise failure

    def _open_export(self, version: int, address: str, export: str, end: float, guard: Guard) -> Session:
        session = Session(self.url, version, self._options.policy.nfs_user, self._options.timeouts, guard)
        try:
            session.mount(address, export, end)
            session.open(self._path, self._root, end)
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
        # the library frees the memory of pending reads; files that were not closed end with the server's lease
        if all(read.call.done for read in self._reads):
            self._session.close_file()
        self._session.close()

    def _ask_ahead(self) -> None:
        """Keep as many reads in flight as allowed."""
        if self._session.lost is not None:
            # bytes that arrived before may still be delivered
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
        """Wait until all bytes of `read` have arrived."""
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
                    Reason.SOCKET_TIMEOUT,
                    f"{session.url}: no data for {session.silence_seconds:g} s ({Setting.SOCKET_TIMEOUT})",
                )

    def _take(self, read: Read) -> None:
        session, status = self._session, read.call.status
        if status < 0:
            raise session.failure(read.call, "the file cannot be read")
        if status == 0:
            self._check_unchanged()
            raise SourceError(
                Reason.TRUNCATED,
                f"{session.url}: the file ends after {read.offset + read.received} bytes, expected {self.size_bytes}",
            )
        read.received += status
        if read.received < read.length:
            # the server's limit of one read: asking for more would cost a round trip each time
            self._read_bytes = min(self._read_bytes, max(_READ_BYTES_LEAST, status))
            session.start_read(read)

    def _check_unchanged(self) -> None:
        if _version(self._session.current_attributes()) != self.validator:
            raise SourceError(
                Reason.SOURCE_CHANGED, f"{self._session.url}: the file changed while it was read; it is read again"
            )


def _version(attributes: libnfs.Attributes) -> str:
    """Name a version of a file: ctime also shows a change after which mtime was set back."""
    return (
        f"{attributes.ino:x}-{attributes.size:x}-{attributes.mtime:x}.{attributes.mtime_nsec:x}"
        f"-{attributes.ctime:x}.{attributes.ctime_nsec:x}"
    )


def _parents(path: str) -> Iterator[str]:
    """The directories above `path`, the longest first."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def _unreached(error: SourceError) -> bool:
    return error.reason in (Reason.SOURCE_UNREACHABLE, Reason.CONNECT_TIMEOUT)
