"""The agent's side of the socket on which the CSI plugin asks for volumes (`resources.volumes` has the words).

`supervisor` runs a `VolumeDesk` where the agent has a `csi_socket`, feeds it with the Host, and reports `demands`.
Promises: a volume is answered Ready only when its uid is on disk; a request ends as soon as it can be answered, or its
connection is closed; everything is looked at again at each change, so no order of events matters. The plugin may come
and go: the agent waits for it nowhere.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable

from directdownload.agent import cluster_view as views
from directdownload.agent import metrics, retry
from directdownload.agent.settings import Settings
from directdownload.agent.volumes import demands
from directdownload.agent.volumes.book import Asked, Moment, VolumeBook
from directdownload.agent.volumes.ledger import Ledger
from directdownload.hostfiles import sockets
from directdownload.resources.host import DEMANDS_LIMIT, Demand, Served
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Progress
from directdownload.resources.volumes import (
    LINE_BYTES,
    READY,
    REFUSED,
    WAITING,
    Answer,
    MalformedError,
    Mounted,
    Publish,
    Request,
    Unpublish,
    read_request,
)

logger = logging.getLogger(__name__)

#: Of connections at once; each waiting volume has one.
CONNECTIONS_LIMIT = 1000
#: The plugin writes its request at once.
_READ_SECONDS = 10.0
#: More than the kubelet waits for an answer, and less than it takes until a volume is forgotten.
_LONGEST_HOLD_SECONDS = 300.0

#: Progress of the download of the Template with this uid; None: none runs here.
ProgressOf = Callable[[str], Progress | None]


class VolumeDesk:
    """`run` ends only when cancelled. `hear` sets the Host as it is now; `demands` are for its status."""

    def __init__(self, settings: Settings, *, progress: ProgressOf, on_change: Callable[[], None]) -> None:
        self._path = settings.csi_socket
        self._host = settings.node_name
        self._pool_roots = settings.pool_roots
        self._first_answer_seconds = settings.first_answer_seconds
        self._progress = progress
        self._on_change = on_change
        self._ledger = Ledger.load(settings.state_directory)
        self._book = VolumeBook(self._ledger, Moment.now())
        self._heard: views.HostView | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: replaced at each change: whoever waits holds the one of his last look
        self._change = asyncio.Event()
        self._save = asyncio.Event()
        self._socket_complaint = retry.Complaint(logger)
        self._request_complaint = retry.Complaint(logger)
        self._status_complaint = retry.Complaint(logger)

    @property
    def demands(self) -> tuple[Demand, ...]:
        return self._book.demands()

    @property
    def connections(self) -> int:
        """Requests that are not answered yet."""
        return len(self._tasks)

    def hear(self, host: views.HostView) -> None:
        """Takes the Host: the controller's answers, and of a Host that was not seen before also its demands."""
        if self._heard is host:
            return
        served, flaw = demands.readable(host.status.get("served"), Served)
        if self._heard is None or self._heard.uid != host.uid:
            told, unread = demands.readable(host.status.get("demands"), Demand)
            self._book.remember(told, Moment.now())
            flaw = flaw or unread
        if flaw:
            text = f"Host {self._host}: skipped what is not understood in status.served or status.demands: {flaw}"
            self._status_complaint.say(logging.WARNING, text)
        self._heard = host
        self._book.hear(served)
        self._changed()

    async def run(self) -> None:
        self._measure()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep())
                group.create_task(self._listen())
        finally:
            for task in self._tasks:
                task.cancel()

    async def _keep(self) -> None:
        """Saves the ledger after each change, and again after a failure."""
        while True:
            self._save.clear()
            if not self._ledger.saved:
                await self._ledger.save()
                # also where more has changed meanwhile: what was written is durable
                self._notify()
            pause = None if self._ledger.saved else max(0.01, self._ledger.retry_monotonic - Moment.now().monotonic)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._save.wait()

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                server = await asyncio.start_unix_server(
                    self._connected, sock=sockets.bound(self._path), limit=LINE_BYTES
                )
            except OSError as error:
                failures += 1
                text = f"Cannot listen at {self._path} for the CSI plugin: {error.strerror or error}"
                self._socket_complaint.say(logging.WARNING, text)
                await asyncio.sleep(retry.pause_seconds(failures, error))
                continue
            self._socket_complaint.clear(f"Listens at {self._path}")
            async with server:
                await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= CONNECTIONS_LIMIT:
            text = f"The CSI plugin has more than {CONNECTIONS_LIMIT} requests at once; refused further ones"
            self._request_complaint.say(logging.WARNING, text)
            writer.close()
            return
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            # the plugin waits no longer
            pass
        except asyncio.CancelledError:
            # the agent ends; asyncio reports the end of a connection's task as an error
            pass
        except (ValueError, RecursionError, TimeoutError) as error:
            text = f"Closed a connection of the CSI plugin, whose request is not understood: {error or 'no request'}"
            self._request_complaint.say(logging.WARNING, text)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer. Raises ConnectionError; ValueError or TimeoutError for what is no request."""
        async with asyncio.timeout(_READ_SECONDS):
            line = await reader.readline()
        if not line:
            return
        request = read_request(line)
        work, closed = asyncio.ensure_future(self._answer(request)), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                if closed.result():
                    raise MalformedError("expected one request")
                return
            writer.write(work.result().line())
            await writer.drain()
        finally:
            for task in (work, closed):
                task.cancel()
            await asyncio.gather(work, closed, return_exceptions=True)

    async def _answer(self, request: Request) -> Answer:
        match request:
            case Publish():
                return await self._publish(request)
            case Unpublish():
                self._book.unpublish(request.volume, Moment.now())
            case Mounted():
                if refused := self._book.state(request.volumes, Moment.now()):
                    text = f"The CSI plugin names mounts that cannot be: {json.dumps(sorted(refused)[:10])}"
                    self._request_complaint.say(logging.WARNING, text)
        self._changed()
        self._on_change()
        return Answer()

    async def _publish(self, request: Publish) -> Answer:
        if not 0 <= request.hold_seconds <= _LONGEST_HOLD_SECONDS:
            raise MalformedError(f"hold_seconds: expected a number from 0 to {_LONGEST_HOLD_SECONDS:g}")
        asked = self._book.ask(request.volume, request.namespace, request.template, Moment.now())
        if asked not in (Asked.FIRST, Asked.AGAIN):
            return _refusal(asked)
        first = asked is Asked.FIRST
        if first:
            self._save.set()
            self._on_change()
        answer = Answer(WAITING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._first_answer_seconds if first else request.hold_seconds):
                while True:
                    change = self._change
                    answer, known = self._look(request.volume)
                    gone = self._book.volume(request.volume) is None
                    if answer.state != WAITING or (first and known) or gone:
                        break
                    await change.wait()
        return self._worded(request.volume, answer) if answer.state == WAITING else answer

    def _look(self, name: str) -> tuple[Answer, bool]:
        """The answer for the volume as things are, and whether it is worth an Event of its pod.

        The first Ready decides which Template the volume has. It is given once the ledger is on disk with that.
        """
        volume = self._book.volume(name)
        if volume is None:
            return Answer(WAITING, message="the volume was unpublished meanwhile"), False
        served = self._book.answer(volume)
        answer = demands.judged(volume, served, self._pool_roots)
        if answer.state != READY:
            return answer, served is not None
        now = Moment.now()
        if not volume.uid:
            self._book.resolve(name, answer.uid, now)
            self._save.set()
            self._on_change()
        if not self._ledger.durable(name):
            return Answer(WAITING, message=self._ledger.problem or "its Template is being noted"), False
        metrics.VOLUME_PUBLISH_SECONDS.observe(self._book.handed_over(name, now))
        return answer, True

    def _worded(self, name: str, answer: Answer) -> Answer:
        volume = self._book.volume(name)
        if volume is None:
            return answer
        served = self._book.answer(volume)
        if served is None and volume.key not in {each.key for each in self.demands}:
            text = f"the pods of this host ask for more than {DEMANDS_LIMIT} templates"
            return demands.waiting(volume, Answer(answer.state, reason=Reason.TOO_MANY_DEMANDS, message=text), None)
        uid = volume.uid or (served.template_uid if served is not None else "") or ""
        return demands.waiting(volume, answer, self._progress(uid))

    def _changed(self) -> None:
        self._save.set()
        self._notify()

    def _notify(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    def _measure(self) -> None:
        """The gauges, each computed when it is read."""
        states = {
            "mounted": lambda: self._book.mounted,
            "waiting": lambda: len(self._book.waiting_seconds(Moment.now())),
        }
        for state, count in states.items():
            metrics.VOLUMES.labels(host=self._host, state=state).set_function(count)
        metrics.VOLUME_WAITING_SECONDS.labels(host=self._host).set_function(
            lambda: max(self._book.waiting_seconds(Moment.now()), default=0.0)
        )
        metrics.CSI_CONNECTED.labels(host=self._host).set_function(lambda: self._book.connected(Moment.now()))


def _refusal(asked: Asked) -> Answer:
    """The answer to a request that is not noted."""
    if asked is Asked.FULL:
        text = "this host has too many volumes; others must go first"
        return Answer(WAITING, reason=Reason.TOO_MANY_DEMANDS, message=text)
    if asked is Asked.OTHER:
        text = "the volume was published with another template or for another namespace"
        return Answer(REFUSED, reason=Reason.TEMPLATE_NOT_FOUND, message=text)
    text = "expected the name of a Template as `name` or `namespace/name`, for example debian-13"
    return Answer(REFUSED, reason=Reason.TEMPLATE_NOT_FOUND, message=text)
