"""Following what parents say that they have: one thread for each. Called by the transfer."""

import contextlib
import logging
import threading
import time

from directdownload.download.errors import SourceError
from directdownload.download.guard import Guard
from directdownload.download.peers.links import Access, refusal
from directdownload.download.peers.swarm import Swarm
from directdownload.peer import protocol
from directdownload.peer.protocol import Target
from directdownload.resources.jobs import JobParent
from directdownload.resources.reasons import Reason
from directdownload.tokenbucket import TokenBucket

logger = logging.getLogger(__name__)

#: The longest silence of a state, which has a heartbeat every five seconds.
_SILENCE_SECONDS = 16.0
#: Between two tries to follow a parent: at first, and at most.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
#: A state that goes on for so long was a good one.
_STEADY_SECONDS = 10.0
#: Bytes of a state: a server gathers for 20 ms what has changed. A line costs at least so many.
_BYTES_PER_SECOND, _BYTES_AT_ONCE, _LINE_BYTES = 64 * 1024.0, 2.0 * 1024 * 1024, 512


class States:
    """The states of `content` at parents go into `swarm`, under the lock `changed`, until `over` is set."""

    def __init__(
        self,
        access: Access,
        content: str,
        swarm: Swarm,
        changed: threading.Condition,
        guard: Guard,
        over: threading.Event,
    ) -> None:
        self._access = access
        self._content = content
        self._swarm = swarm
        self._changed = changed
        self._guard = guard.for_connection(over)
        self._over = over

    def follow(self, parent: JobParent) -> None:
        """Until the end, or until the parent is banned. Raises ReleasedError, StoppedError."""
        pause = _PAUSE_SECONDS
        while True:
            began = time.monotonic()
            try:
                self._listen(parent)
                problem = f"{parent.host}: it has ended its state"
            except SourceError as error:
                problem = error.message
            except protocol.ProtocolError as error:
                with self._changed:
                    self._swarm.ban(parent.host, f"{parent.host}: {error}")
            with self._changed:
                if self._swarm.is_banned(parent.host):
                    return
                self._swarm.silent(parent.host, problem)
            logger.debug("%s", problem)
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _PAUSE_SECONDS
            if self._over.wait(pause):
                return
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)

    def _listen(self, parent: JobParent) -> None:
        """Follow one stream to its end. Raises SourceError, ProtocolError."""
        host, first = parent.host, True
        with contextlib.closing(self._access.dial(parent, _SILENCE_SECONDS, self._guard)) as link:
            answer = link.get(Target(self._content), last=True)
            if answer.status != 200:
                raise SourceError(Reason.PEERS_UNAVAILABLE, f"{host}: {refusal(answer)}")
            bucket = TokenBucket.full(1 / _BYTES_PER_SECOND, _BYTES_AT_ONCE, time.monotonic())
            while line := link.line():
                bucket, wait = bucket.take(time.monotonic(), max(len(line), _LINE_BYTES))
                if wait:
                    raise protocol.ProtocolError("it says more of its state than a server does")
                said = protocol.read_state(line) if first else protocol.read_changes(line)
                with self._changed:
                    if self._swarm.is_banned(host):
                        break
                    if isinstance(said, protocol.State):
                        self._swarm.state(host, said, time.monotonic())
                    else:
                        self._swarm.changes(host, said, time.monotonic())
                    self._changed.notify_all()
                first = False
