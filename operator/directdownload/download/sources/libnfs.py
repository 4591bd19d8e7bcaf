"""A thin binding to libnfs, an NFS client in user space: one context is one connection, and its caller polls it.

Called by the NFS source. Only the asynchronous functions are bound, so nothing here waits: every operation returns a
Call, which is done after enough calls of `service`. A context and its calls belong to one thread at a time. The library
is loaded by its soname, without compiler or ldconfig. Signatures are those of libnfs.h of the releases 4.0.0, 5.0.2 and
6.0.2; struct nfs_stat_64 is the same in all of them.
"""

import ctypes
import errno
import functools
import itertools
import os
import uuid
from collections.abc import Callable
from typing import Any

#: soname and first digit of the release; libnfs14 is Debian 13's
_SONAMES = (("libnfs.so.14", 5), ("libnfs.so.13", 4), ("libnfs.so.16", 6))
_ERROR_LIMIT_BYTES = 1024
_VERIFIER_BYTES = 8

# void (*nfs_cb)(int err, struct nfs_context *nfs, void *data, void *private_data)
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_POINTER, _TEXT, _INT, _U64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64


# fmt: off
_ATTRIBUTES = (
    "dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks",
    "atime", "mtime", "ctime", "atime_nsec", "mtime_nsec", "ctime_nsec", "used",
)
# fmt: on


class LibraryMissingError(Exception):
    """No libnfs on this system."""


class Attributes(ctypes.Structure):
    """struct nfs_stat_64."""

    _fields_ = [(name, ctypes.c_uint64) for name in _ATTRIBUTES]

    ino: int
    mode: int
    size: int
    mtime: int
    ctime: int
    mtime_nsec: int
    ctime_nsec: int


class Call:
    """An operation in progress. When `done`, `status` is its result, or a negated errno; `value` is the decoded answer.

    With `explained`, `text` may say why the server rejected the call.
    """

    __slots__ = ("_explained", "_limit", "_take", "done", "status", "text", "value")

    def __init__(
        self, take: Callable[[int, int], Any] | None = None, *, limit: int | None = None, explained: bool = False
    ) -> None:
        self._take = take
        self._limit = limit
        self._explained = explained
        self.done = False
        self.text = ""
        self.status = 0
        self.value: Any = None

    def finish(self, status: int, data: int | None) -> None:
        """`take` converts the library's data to the value. A status above `limit` is an invalid answer."""
        self.done = True
        self.status = status
        if status < 0:
            # only these calls pass text here; others pass any data
            if status == -errno.EFAULT and self._explained and data:
                self.text = (ctypes.c_char_p(data).value or b"")[:_ERROR_LIMIT_BYTES].decode("latin-1")
            return
        if self._limit is not None and status > self._limit:
            self.status = -errno.EPROTO
        elif self._take is not None and data:
            self.value = self._take(status, data)
        elif self._take is not None and (status or self._limit is None):
            self.status = -errno.EPROTO


class Context:
    """A client of one server over one protocol version (3 or 4). It sends nothing before `mount`.

    `user` is the user and the group for AUTH_SYS; None takes those of the process. Further groups are never sent.
    """

    def __init__(self, version: int, port: int, user: tuple[int, int] | None) -> None:
        self._library, self._release = _load()
        self._waiting: dict[int, Call] = {}
        self._tokens = itertools.count(1)
        self._callback = _CALLBACK(self._finished)
        self._context = self._library.nfs_init_context()
        if not self._context:
            raise MemoryError("libnfs cannot make a context")
        self._library.nfs_set_version(self._context, version)
        if user is not None:
            self._library.nfs_set_uid(self._context, user[0])
            self._library.nfs_set_gid(self._context, user[1])
        # the source handles a lost connection: the library would retry for ever, and print
        self._library.nfs_set_autoreconnect(self._context, 0)
        # releases 4 and 5 take these from a URL only; the server could make the list of nested exports arbitrarily long
        arguments = self._library.nfs_parse_url_incomplete(
            self._context, f"nfs://?nfsport={port}&auto-traverse-mounts=0".encode()
        )
        if arguments:
            self._library.nfs_destroy_url(arguments)
        # The library's own name consists of process id and second: two clients with the same name, in two containers
        # or in one process, would discard each other's open files (RFC 7530, section 9.1.1).
        self._library.nfs4_set_client_name(self._context, f"directdownload {uuid.uuid4()}".encode())
        self._library.nfs4_set_verifier(self._context, os.urandom(_VERIFIER_BYTES))

    @property
    def descriptor(self) -> int:
        """The descriptor to poll, -1 if there is none. It changes with each step of a mount."""
        return int(self._library.nfs_get_fd(self._context))

    @property
    def events(self) -> int:
        return int(self._library.nfs_which_events(self._context))

    @property
    def error(self) -> str:
        """The library's message about the last failure; parts of it may come from the server."""
        parts: list[bytes] = [
            self._library.rpc_get_error(self._library.nfs_get_rpc_context(self._context)) or b"",
            self._library.nfs_get_error(self._context) or b"",
        ]
        # both are the same in release 4
        return "; ".join(part[:_ERROR_LIMIT_BYTES].decode("latin-1") for part in dict.fromkeys(filter(None, parts)))

    def service(self, events: int) -> bool:
        """Move bytes and finish calls; False when the connection is unusable."""
        status: int = self._library.nfs_service(self._context, events)
        return status == 0

    def mount(self, address: str, export: str) -> Call:
        return self._start(Call(explained=True), self._library.nfs_mount_async, address.encode(), os.fsencode(export))

    def open(self, path: str) -> Call:
        """Open for reading; the value is a handle. ELOOP for a link; over version 3 also for a link in the path."""
        flags = os.O_RDONLY | os.O_NOFOLLOW
        return self._start(Call(lambda _, data: data), self._library.nfs_open_async, os.fsencode(path), flags)

    def look_at(self, path: str) -> Call:
        """As lstat(2); the value is Attributes."""
        return self._start(Call(_copy_attributes), self._library.nfs_lstat64_async, os.fsencode(path))

    def read_link(self, path: str) -> Call:
        """The value is the target, perhaps with bytes after it: over version 4, releases 4 and 5 do not find its
        end."""
        take = Call(lambda _, data: os.fsdecode(ctypes.c_char_p(data).value or b""))
        return self._start(take, self._library.nfs_readlink_async, os.fsencode(path))

    def attributes(self, handle: int) -> Call:
        """Ask the server for the current attributes; the value is Attributes."""
        return self._start(Call(_copy_attributes), self._library.nfs_fstat64_async, handle)

    def read(self, handle: int, offset: int, count: int, address: int) -> Call:
        """Read up to `count` bytes into the memory at `address`, which must live until the call is done or the context
        is closed.

        The status is the number of bytes; the server may return fewer than the file has.
        """
        if self._release >= 6:
            return self._start(Call(limit=count), self._library.nfs_pread_async, handle, address, count, offset)
        call = Call(lambda received, data: ctypes.memmove(address, data, received), limit=count)
        return self._start(call, self._library.nfs_pread_async, handle, offset, count)

    def close_file(self, handle: int) -> Call:
        return self._start(Call(), self._library.nfs_close_async, handle)

    def close(self) -> None:
        """Close the connection; calls that are not done fail. Idempotent."""
        if self._context:
            self._library.nfs_destroy_context(self._context)
            self._context = None
            self._waiting.clear()

    def _start(self, call: Call, function: Any, *arguments: Any) -> Call:
        token = next(self._tokens)
        self._waiting[token] = call
        if function(self._context, *arguments, self._callback, token) != 0 and not call.done:
            self._waiting.pop(token, None)
            call.finish(-errno.EFAULT, None)
        return call

    def _finished(self, status: int, _context: int | None, data: int | None, token: int | None) -> None:
        """The callback of the library, which would lose an exception."""
        call = self._waiting.pop(token or 0, None)
        if call is not None:
            call.finish(status, data)


def _copy_attributes(_status: int, data: int) -> Attributes:
    return Attributes.from_buffer_copy(ctypes.string_at(data, ctypes.sizeof(Attributes)))


@functools.cache
def _load() -> tuple[Any, int]:
    """The library and the first digit of its release."""
    for name, release in _SONAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        _declare(library, release)
        return library, release
    raise LibraryMissingError(", ".join(name for name, _ in _SONAMES))


def _declare(library: ctypes.CDLL, release: int) -> None:
    def function(name: str, result: Any, *arguments: Any) -> None:
        bound = getattr(library, name)
        bound.restype, bound.argtypes = result, (_POINTER, *arguments)

    library.nfs_init_context.restype, library.nfs_init_context.argtypes = _POINTER, ()
    function("nfs_destroy_context", None)
    function("nfs_set_version", _INT, _INT)
    function("nfs_set_uid", None, _INT)
    function("nfs_set_gid", None, _INT)
    function("nfs_set_autoreconnect", None, _INT)
    function("nfs_parse_url_incomplete", _POINTER, _TEXT)
    function("nfs_destroy_url", None)
    function("nfs4_set_client_name", None, _TEXT)
    function("nfs4_set_verifier", None, _TEXT)
    function("nfs_get_fd", _INT)
    function("nfs_which_events", _INT)
    function("nfs_get_error", _TEXT)
    function("nfs_get_rpc_context", _POINTER)
    function("rpc_get_error", _TEXT)
    function("nfs_service", _INT, _INT)
    function("nfs_mount_async", _INT, _TEXT, _TEXT, _CALLBACK, _POINTER)
    function("nfs_open_async", _INT, _TEXT, _INT, _CALLBACK, _POINTER)
    function("nfs_lstat64_async", _INT, _TEXT, _CALLBACK, _POINTER)
    function("nfs_readlink_async", _INT, _TEXT, _CALLBACK, _POINTER)
    function("nfs_fstat64_async", _INT, _POINTER, _CALLBACK, _POINTER)
    function("nfs_close_async", _INT, _POINTER, _CALLBACK, _POINTER)
    if release >= 6:
        function("nfs_pread_async", _INT, _POINTER, _POINTER, ctypes.c_size_t, _U64, _CALLBACK, _POINTER)
    else:
        function("nfs_pread_async", _INT, _POINTER, _U64, _U64, _CALLBACK, _POINTER)
