"""Opens the copies of this host for the peer server, which has neither the rights nor the mounts to do so.

Called by `main`. Promises: a path comes from the scan of a pool that the agent named, and never from a request; a pool
that hangs delays no answer about the others for more than `WAIT_SECONDS`, and each later one not at all; nothing is
read and no pool is looked at while nobody asks.
"""

import contextlib
import logging
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable

from directdownload.hostfiles import reading, sockets
from directdownload.peer import asking, table
from directdownload.peer.config import Config, ConfigError
from directdownload.resources.naming import WORK_DIRECTORY

logger = logging.getLogger(__name__)

#: For the answers of all pools together.
WAIT_SECONDS = 2.0
#: A pool is scanned again for a content that it did not have: after this time, and ten times what the last scan took.
SCAN_SECONDS, _SCAN_FACTOR = 0.25, 10.0
_CONNECTIONS_LIMIT = 64
_QUESTION_SECONDS = 5.0
_TURN_SECONDS = 10.0
_WAITING_LIMIT = 64
_CREDENTIALS = struct.Struct("=iII")


class Opener:
    """Listens at `path` from `start` to `close`. Only `uids` are answered; the group of the last one can
    open the socket."""

    def __init__(self, path: str, config: str, pool_roots: Iterable[str], uids: tuple[int, ...]) -> None:
        self._path = path
        self._config = config
        self._pool_roots = tuple(os.path.normpath(root) for root in pool_roots)
        self._uids = uids
        self._stamp: tuple[int, ...] | None = None
        self._pools: dict[tuple[str, str], Pool] = {}
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_CONNECTIONS_LIMIT)
        self._listening: socket.socket | None = None

    def start(self) -> None:
        """Raises OSError."""
        listening = sockets.bound(self._path)
        try:
            # To its group: the process has no right to give a file to another user.
            os.chown(self._path, -1, self._uids[-1])
            os.chmod(self._path, 0o660)
            listening.listen(_CONNECTIONS_LIMIT)
            listening.settimeout(_TURN_SECONDS)
        except OSError:
            listening.close()
            raise
        self._listening = listening

    def serve(self, turn: Callable[[], None] = lambda: None) -> None:
        """Until `close`. `turn` is called at least every ten seconds."""
        listening = self._listening
        while listening is not None:
            turn()
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._listening is None:
                    return
                logger.exception("No connection can be taken")
                time.sleep(1)
                continue
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._converse, args=(connection,), name="question", daemon=True).start()

    def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        with self._lock:
            for pool in self._pools.values():
                pool.close()

    def find(self, content: str) -> table.Opened | None:
        """The open files of a content: those of a published copy rather than of a part."""
        end = time.monotonic() + WAIT_SECONDS
        answers = [pool.ask(content) for pool in self._current() if not pool.hangs]
        best: table.Opened | None = None
        for each in answers:
            found = each.wait(end - time.monotonic())
            if found is None:
                continue
            if best is None or (found.published and not best.published):
                best, found = found, best
            if found is not None:
                found.close()
        return best

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_QUESTION_SECONDS)
                packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                if _CREDENTIALS.unpack(packed)[1] not in self._uids:
                    return
                with contextlib.suppress(OSError, ValueError):
                    opened = self.find(asking.receive(connection))
                    asking.answer(connection, opened)
                    if opened is not None:
                        opened.close()
        except Exception:
            logger.exception("A question failed")
        finally:
            self._room.release()

    def _current(self) -> list["Pool"]:
        """The pools that the agent names now."""
        with self._lock:
            try:
                stamp = reading.stamp(os.stat(self._config, follow_symlinks=False))
            except OSError:
                stamp = None
            if stamp != self._stamp:
                self._stamp = stamp
                self._read()
            return list(self._pools.values())

    def _read(self) -> None:
        wanted = set[tuple[str, str]]()
        try:
            config = Config.read(self._config)
            wanted = {(pool, config.host) for pool in config.pools if self._is_mounted(pool)}
        except ConfigError as error:
            logger.warning("%s: %s", self._config, error)
        for key in self._pools.keys() - wanted:
            self._pools.pop(key).close()
        for key in wanted - self._pools.keys():
            self._pools[key] = Pool(*key)

    def _is_mounted(self, pool: str) -> bool:
        return any(pool == root or pool.startswith(f"{root.rstrip('/')}/") for root in self._pool_roots)


class Answer:
    """What a pool has of one content. An answer that comes after its time is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._came = threading.Event()
        self._opened: table.Opened | None = None
        self._late = False

    def give(self, opened: table.Opened | None) -> None:
        with self._lock:
            if not self._late:
                self._opened = opened
                self._came.set()
                return
        if opened is not None:
            opened.close()

    def wait(self, seconds: float) -> table.Opened | None:
        """None if there is none, or none within `seconds`."""
        self._came.wait(max(0.0, seconds))
        with self._lock:
            self._late = True
            return self._opened


class Pool:
    """One pool and the one thread that touches it: a thread on a file system that hangs cannot be ended."""

    def __init__(self, path: str, host: str) -> None:
        self._path = path
        self._host = host
        self._asked: queue.SimpleQueue[tuple[str, Answer] | None] = queue.SimpleQueue()
        self._contents: dict[str, str] = {}
        self._scan_monotonic = float("-inf")
        self._busy_since: float | None = None
        self._problem = ""
        threading.Thread(target=self._run, name=f"opens files of {path}", daemon=True).start()

    @property
    def hangs(self) -> bool:
        since = self._busy_since
        return (since is not None and time.monotonic() - since > WAIT_SECONDS / 2) or (
            self._asked.qsize() >= _WAITING_LIMIT
        )

    def ask(self, content: str) -> Answer:
        answer = Answer()
        self._asked.put((content, answer))
        return answer

    def close(self) -> None:
        """Its thread ends after what it is asked already."""
        self._asked.put(None)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            content, answer = asked
            self._busy_since = time.monotonic()
            found = None
            try:
                found = self._find(content)
                self._say("")
            except FileNotFoundError:
                # nothing was put into this pool yet, or the copy goes just now
                pass
            except OSError as error:
                self._say(error.strerror or str(error))
            except Exception:
                logger.exception("Pool %s: a search failed", self._path)
            self._busy_since = None
            answer.give(found)

    def _find(self, content: str) -> table.Opened | None:
        uid = self._contents.get(content)
        if uid is not None:
            with contextlib.suppress(FileNotFoundError):
                found = table.open_content(self._path, self._host, uid, content)
                if found is not None:
                    return found
        if time.monotonic() < self._scan_monotonic:
            return None
        began = time.monotonic()
        try:
            self._contents = table.scan(self._path, self._host)
        finally:
            ended = time.monotonic()
            self._scan_monotonic = ended + max(SCAN_SECONDS, _SCAN_FACTOR * (ended - began))
        uid = self._contents.get(content)
        return table.open_content(self._path, self._host, uid, content) if uid is not None else None

    def _say(self, problem: str) -> None:
        """Logs a problem once, until it is another one."""
        if problem and problem != self._problem:
            logger.warning("%s: %s", os.path.join(self._path, WORK_DIRECTORY), problem)
        self._problem = problem
