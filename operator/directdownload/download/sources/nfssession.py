"""One NFS connection with at most one open file: the loop that drives libnfs, and the meaning of its failures.

Called by the NFS source. Promises: every wait checks the guard every TICK_SECONDS; every failure is a SourceError; its
message takes from the server only names of statuses and bounded, printable text.
"""

import contextlib
import ctypes
import dataclasses
import errno
import logging
import os
import re
import select
import socket
import stat
import time
from collections.abc import Sequence
from typing import Any

from directdownload.download.errors import SourceError, plain
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.settings import Setting
from directdownload.download.sources import libnfs, links
from directdownload.download.sources.urls import Url, redact
from directdownload.download.terms import NFSUser, Timeouts
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: libnfs ends its messages with the name of the server's status
_STATUS = re.compile(r"\b(?:NFS3ERR|NFS4ERR|MNT3ERR)_([A-Z_]{2,32})\b")
_CONNECT_ERROR = re.compile(r"connect\(\) to server failed\. [^()]*\((\d{1,3})\)")
_ABSENT = frozenset({"NOENT", "NOTDIR", "NAMETOOLONG", "BADNAME", "BADCHAR"})
_DENIED = frozenset({"PERM", "ACCES", "ACCESS", "WRONGSEC"})
#: libnfs checks the server's ACCESS answer itself
_DENIED_TEXTS = ("Insufficient ACCESS", "ACCESS denied")
#: RFC 5531, MSG_DENIED: a server that rejects the source port answers with AUTH_TOOWEAK
_REJECTED = "RPC Packet not accepted by the server"
#: RFC 1813, 2.6, and RFC 7530, 13.1
_WORDS = {
    "IO": "the server cannot read its disk (input/output error)",
    "STALE": "the file or its directory was replaced on the server (stale handle)",
    "FHEXPIRED": "the file or its directory was replaced on the server (expired handle)",
    "BADHANDLE": "the server does not know its own handle any more",
    "SERVERFAULT": "the server failed",
    "JUKEBOX": "the server is busy and asks to come later",
    "DELAY": "the server is busy and asks to come later",
    "RESOURCE": "the server has no resources left for it",
    "GRACE": "the server has restarted and accepts no opens yet (grace period)",
    "NOTSUPP": "the server does not support the operation",
    "MINOR_VERS_MISMATCH": "the server does not support this version of NFS",
}
_NO_FILE = frozenset({"ISDIR", "INVAL", "SYMLINK", "WRONG_TYPE", "NXIO", "NODEV"})
_STATUS_OF_ERRNO = {
    errno.ENOENT: "NOENT",
    errno.ENOTDIR: "NOTDIR",
    errno.ENAMETOOLONG: "NAMETOOLONG",
    errno.EPERM: "PERM",
    errno.EACCES: "ACCES",
    errno.EISDIR: "ISDIR",
}
_CLOSE_SECONDS = TICK_SECONDS
_DETAIL_LIMIT = 200
_SIZE_LIMIT_BYTES = 10**18


@dataclasses.dataclass(slots=True)
class Read:
    """`length` bytes of the file from `offset`: `received` of them are in `memory`, `taken` of those are delivered."""

    offset: int
    length: int
    memory: memoryview
    received: int = 0
    taken: int = 0
    call: libnfs.Call = dataclasses.field(default_factory=libnfs.Call)


class NFSError(SourceError):
    """`told` is the message without the name of the source.

    `mounting`: the server refused the export, not the file in it; `denied`: it denied access.
    """

    def __init__(self, reason: Reason, source: str, told: str, *, mounting: bool, denied: bool = False) -> None:
        super().__init__(reason, f"{source}: {told}")
        self.told = told
        self.mounting = mounting
        self.denied = denied


class Session:
    """One libnfs context with at most one file, and the loop that drives it."""

    def __init__(self, url: Url, version: int, user: NFSUser | None, timeouts: Timeouts, guard: Guard) -> None:
        self.url = url
        self.guard = guard
        self.silence_seconds = timeouts.socket_seconds
        self.attributes = libnfs.Attributes()
        self._timeouts = timeouts
        self._version = version
        self._user = (user.uid, user.gid) if user is not None else None
        self._export = "/"
        self._handle = 0
        self._mounted = False
        #: the reason why the connection is unusable; bytes that arrived before may still be delivered
        self.lost: SourceError | None = None
        try:
            self._context = libnfs.Context(version, url.port, self._user)
        except libnfs.LibraryMissingError as error:
            raise SourceError(
                Reason.UNSUPPORTED_PROTOCOL,
                f"{url}: nfs needs libnfs, which is not installed ({error}); install the Debian package libnfs14 "
                "(libnfs13 on Debian 12)",
            ) from None

    def mount(self, address: str, export: str, end: float) -> None:
        self._finish(self._context.mount(address, export), end, f"export {export} cannot be mounted")
        self._mounted = True
        self._export = export

    def open(self, path: str, root: str, end: float) -> None:
        """Open a regular file and read its attributes. `path` and `root` start at the server's root. No link may lead
        out of `root` or out of the export.

        Links are resolved here and not by libnfs: its releases treat absolute links differently, and crash on some.
        """
        fence = max(_names(root), _names(self._export), key=len)
        try:
            names = links.resolve(_names(path), fence, lambda reached: self._link(reached, end))
        except links.AstrayError as error:
            raise self._refused(f"the file cannot be opened: {error}") from None
        handle: int = self._finish(self._context.open(self._below(names)), end, "the file cannot be opened")
        self._handle = handle
        self.attributes = self._finish(self._context.attributes(handle), end, "the file cannot be looked at")
        if not stat.S_ISREG(self.attributes.mode):
            raise self._refused("it is not a regular file")
        if self.attributes.size > _SIZE_LIMIT_BYTES:
            raise self._error(
                Reason.NFS_ERROR, f"the server reports an impossible size of {self.attributes.size} bytes"
            )

    def _link(self, names: Sequence[str], end: float) -> str | None:
        """The target of the symbolic link at `names`; None if it is not a link."""
        path = self._below(names)
        found: libnfs.Attributes = self._finish(self._context.look_at(path), end, "the file cannot be opened")
        if not stat.S_ISLNK(found.mode):
            return None
        target: str = self._finish(self._context.read_link(path), end, "a symbolic link cannot be read")
        return os.fsdecode(os.fsencode(target)[: found.size])

    def _below(self, names: Sequence[str]) -> str:
        """The path from the export, of a path from the server's root."""
        return "/" + "/".join(names[len(_names(self._export)) :])

    def current_attributes(self) -> libnfs.Attributes:
        end = time.monotonic() + self.silence_seconds
        found: libnfs.Attributes = self._finish(
            self._context.attributes(self._handle), end, "the file cannot be looked at"
        )
        return found

    def start_read(self, read: Read) -> None:
        """Ask for the missing bytes of `read`."""
        place = ctypes.addressof(ctypes.c_char.from_buffer(read.memory, read.received))
        read.call = self._context.read(self._handle, read.offset + read.received, read.length - read.received, place)

    def turn(self, seconds: float) -> bool:
        """Wait for the server up to `seconds` and run the library; return whether anything was received.

        A broken connection fails its calls and sets `lost`, which the next call raises.
        """
        if self.lost is not None:
            raise self.lost
        descriptor = self._context.descriptor
        if descriptor < 0:
            self.lost = self._broken(0)
            return False
        poll = select.poll()
        poll.register(descriptor, self._context.events)
        ready = poll.poll(seconds * 1000)
        if not ready:
            return False
        events = ready[0][1]
        # before the library clears it
        error_number = _socket_error(descriptor) if events & select.POLLERR else 0
        if events & select.POLLNVAL or not self._context.service(events):
            self.lost = self._broken(error_number)
        return bool(events & select.POLLIN)

    def failure(self, call: libnfs.Call, problem: str) -> SourceError:
        """The error for the negative result of a call."""
        if self.lost is not None:
            return self.lost
        text = self._context.error
        names = _STATUS.findall(text)
        # a path, which the server may choose, comes before the status
        name = names[-1] if names else _STATUS_OF_ERRNO.get(-call.status, "")
        if not names and (refusal := _CONNECT_ERROR.search(text)):
            return self._unreachable(int(refusal[1]))
        if -call.status == errno.ELOOP:
            return self._refused(f"{problem}: a symbolic link is in the path")
        if name in _DENIED or any(sign in text for sign in _DENIED_TEXTS) or call.text == _REJECTED:
            hints = self._user_hint() + self._port_hint()
            return self._refused(f"{problem}: access denied{hints}", denied=True)
        if name in _ABSENT:
            return self._refused(f"{problem}: no such file or directory{self._port_hint()}")
        if name in _NO_FILE:
            return self._refused(f"{problem}: it is not a regular file")
        told = redact(call.text or text)[:_DETAIL_LIMIT]
        logger.debug("%s: %s: %s", self._shown, problem, told)
        detail = _WORDS.get(name) or (f"the server answers with the status '{plain(name)}'" if name else plain(told))
        return self._error(Reason.NFS_ERROR, f"{problem}: {detail or 'the server rejects the call'}")

    def close_file(self) -> None:
        """Close the file on the server, if it answers. No reads may be in flight."""
        if not self._handle or self.lost is not None:
            return
        handle, self._handle = self._handle, 0
        call = self._context.close_file(handle)
        end = time.monotonic() + _CLOSE_SECONDS
        with contextlib.suppress(SourceError):
            while not call.done and (left := end - time.monotonic()) > 0:
                self.turn(left)

    def close(self) -> None:
        self._context.close()

    @property
    def _shown(self) -> str:
        return f"{self.url} (NFS version {self._version})"

    def _finish(self, call: libnfs.Call, end: float, problem: str) -> Any:
        while not call.done:
            self.guard.check()
            left = end - time.monotonic()
            if left <= 0:
                raise self._too_slow()
            self.turn(min(left, TICK_SECONDS))
        if call.status < 0:
            raise self.failure(call, problem)
        return call.value

    def _too_slow(self) -> SourceError:
        if self.attributes.mode:
            return SourceError(
                Reason.SOCKET_TIMEOUT,
                f"{self._shown}: no answer within {self.silence_seconds:g} s ({Setting.SOCKET_TIMEOUT})",
            )
        return self._error(
            Reason.CONNECT_TIMEOUT,
            f"connecting and mounting did not end within {self._timeouts.connect_seconds:g} s "
            f"({Setting.CONNECT_TIMEOUT})",
        )

    def _broken(self, error_number: int) -> SourceError:
        if not self.attributes.mode:
            return self._unreachable(error_number)
        detail = os.strerror(error_number) if error_number else "closed by the server"
        return SourceError(Reason.TRUNCATED, f"{self._shown}: the connection broke: {detail}")

    def _unreachable(self, error_number: int) -> SourceError:
        detail = os.strerror(error_number) if error_number else "the server closed the connection"
        return self._error(Reason.SOURCE_UNREACHABLE, detail)

    def _refused(self, told: str, *, denied: bool = False) -> NFSError:
        return self._error(Reason.SOURCE_REFUSED, told, denied=denied)

    def _error(self, reason: Reason, told: str, *, denied: bool = False) -> NFSError:
        return NFSError(reason, self._shown, told, mounting=not self._mounted, denied=denied)

    def _user_hint(self) -> str:
        if self._user is None:
            return f"; requested as user {os.getuid()}, group {os.getgid()}"
        return f"; requested as user {self._user[0]}, group {self._user[1]} ({Setting.NFS_USER})"

    def _port_hint(self) -> str:
        port = _local_port(self._context.descriptor)
        if port < socket.IPPORT_RESERVED:
            return ""
        return (
            f"; the source port was {port}: most exports require one below {socket.IPPORT_RESERVED}, or look absent "
            "without it; in a pod set the sysctl net.ipv4.ip_unprivileged_port_start=0, elsewhere run as root or "
            "export with `insecure`"
        )


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _socket_error(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _local_port(descriptor: int) -> int:
    """The local port; 0 if the connection is gone."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            return int(copy.getsockname()[1])
    except OSError:
        return 0
