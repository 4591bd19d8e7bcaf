"""At most one agent works with a state directory: the lock on it, and who holds it.

`main` takes it before anything else begins and holds it to the end. Two releases of the chart in one cluster, or two
pods of a rolling update that overlap, find the same directory of the host, the same ledgers and the same keystore: who
comes second does nothing, says who is first, and goes on by itself when the first has ended. The kernel gives the lock
back with the process, however that ends; children do not inherit it.

The file is closed to all but root, as whoever can open it can hold the lock. What it says of its holder is for people,
and hostile until checked. Where there can be no lock (the directory is absent or cannot be written and the file is not
there) the agent works without, as it does without its ledgers.
"""

import asyncio
import fcntl
import logging
import os
import stat

import pydantic

from directdownload import escaping
from directdownload.agent.retry import Complaint
from directdownload.agent.settings import Settings
from directdownload.download import files
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

FILE_NAME = "agent.lock"
#: How often who waits tries again: a blocking call could not be given up, and would wait for a file that was replaced.
POLL_SECONDS = 1.0
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WORD_LIMIT = 253


class Holder(Document):
    """Who holds the lock, as it says itself."""

    node: str = ""
    namespace: str = ""
    pod: str = ""
    pid: int = 0

    def __str__(self) -> str:
        namespace, pod, node = (escaping.escaped(text, _WORD_LIMIT) for text in (self.namespace, self.pod, self.node))
        where = f" on node {node}" if node else ""
        return f"pod {namespace}/{pod}{where}, process {self.pid}" if pod else f"process {self.pid}{where}"


class StateLock:
    """`acquire`, and `release` when all work has ended; `problem` says meanwhile whom it waits for."""

    def __init__(self, settings: Settings, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._directory = settings.state_directory
        self._path = os.path.join(settings.state_directory, FILE_NAME)
        self._own = Holder(
            node=settings.node_name, namespace=settings.pod_namespace, pod=settings.pod_name, pid=os.getpid()
        )
        self._poll_seconds = poll_seconds
        self._descriptor = -1
        self._complaint = Complaint(logger)
        #: why the lock is not ours, while it is another's
        self.problem = ""

    async def acquire(self) -> None:
        """Waits, as long as it takes, until no other agent works with the directory."""
        try:
            while not self._try():
                self.problem = self._whom()
                self._complaint.say(logging.WARNING, self.problem)
                await asyncio.sleep(self._poll_seconds)
        except OSError as error:
            text = "Cannot lock %s: %s; running without the lock: make sure that no other agent runs on this host"
            logger.warning(text, self._path, error.strerror)
        self.problem = ""
        self._complaint.clear(f"The state directory {self._directory} is free: this agent uses it now")

    def release(self) -> None:
        if self._descriptor >= 0:
            self._write(b"")
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self) -> bool:
        """Whether the lock is ours now. Raises OSError where there can be none."""
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(descriptor), os.stat(self._path, follow_symlinks=False))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        except BaseException:
            os.close(descriptor)
            raise
        if not ours:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self._write(self._own.model_dump_json().encode())
        return True

    def _open(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError:
            # a file system that became read-only: what is there can be locked all the same
            descriptor = os.open(self._path, os.O_RDONLY | _FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(0, "it is not a regular file")
        return descriptor

    def _write(self, data: bytes) -> None:
        """In place, so that the lock stays; on a full disk nothing stands there, rather than the one before."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
        except OSError as error:
            logger.debug("Cannot write %s: %s", self._path, error.strerror)

    def _whom(self) -> str:
        try:
            holder = Holder.model_validate_json(files.read_small(self._path) or b"")
            who = f": {holder}"
        except pydantic.ValidationError:
            who = ""
        return (
            f"another agent uses the state directory {self._directory} of this host{who}; this agent waits until "
            "that one ends. If two releases are installed, uninstall one"
        )
