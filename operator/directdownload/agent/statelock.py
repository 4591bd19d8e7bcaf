"""The lock on a state directory: at most one agent uses it.

`main` takes the lock before everything else and holds it to the end. Two releases of the chart in one cluster, or two
overlapping pods of a rolling update, share the host's directory, ledgers and keystore: the second agent waits, reports
the holder, and starts when the first has ended. The kernel releases the lock when the process ends; children do not
inherit it.

Only root can open the file, because everybody who can open it can hold the lock. The text about the holder is for
people, and hostile until checked. If no lock is possible (the directory is missing, or it cannot be written and has no
lock file), the agent runs without it, as it runs without its ledgers.
"""

import asyncio
import logging
import os

import pydantic

from directdownload import escaping
from directdownload.agent.retry import Complaint
from directdownload.agent.settings import Settings
from directdownload.hostfiles import locks, reading
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

FILE_NAME = "agent.lock"
#: Pause between attempts. A blocking call could not be cancelled, and would wait for a file that was replaced.
POLL_SECONDS = 1.0
_WORD_LIMIT = 253


class Holder(Document):
    """The holder of the lock, as written by itself."""

    node: str = ""
    namespace: str = ""
    pod: str = ""
    pid: int = 0

    def __str__(self) -> str:
        namespace, pod, node = (escaping.escaped(text, _WORD_LIMIT) for text in (self.namespace, self.pod, self.node))
        where = f" on node {node}" if node else ""
        return f"pod {namespace}/{pod}{where}, process {self.pid}" if pod else f"process {self.pid}{where}"


class StateLock:
    """Call `acquire`, and `release` after all work. `problem` names the holder while `acquire` waits."""

    def __init__(self, settings: Settings, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._directory = settings.state_directory
        self._path = os.path.join(settings.state_directory, FILE_NAME)
        self._own = Holder(
            node=settings.node_name, namespace=settings.pod_namespace, pod=settings.pod_name, pid=os.getpid()
        )
        self._poll_seconds = poll_seconds
        self._descriptor = -1
        self._complaint = Complaint(logger)
        #: the holder of the lock, as text, while another agent has it
        self.problem = ""

    async def acquire(self) -> None:
        """Waits without limit until no other agent uses the directory."""
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
        """Takes the lock; False if another agent has it. Raises OSError if no lock is possible."""
        descriptor = self._open()
        try:
            ours = locks.take(descriptor) and locks.same_file(descriptor, self._path)
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
            return locks.open_file(self._path)
        except OSError:
            # the file system became read-only; an existing file can be locked all the same
            return reading.open_regular(self._path)[0]

    def _write(self, data: bytes) -> None:
        """Writes in place, so that the lock stays. On a full disk the file is empty rather than wrong."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
        except OSError as error:
            logger.debug("Cannot write %s: %s", self._path, error.strerror)

    def _whom(self) -> str:
        try:
            holder = Holder.model_validate_json(reading.read_small(self._path) or b"")
            who = f": {holder}"
        except pydantic.ValidationError:
            who = ""
        return (
            f"another agent uses the state directory {self._directory} of this host{who}; this agent waits until "
            "that one ends. If two releases are installed, uninstall one"
        )
