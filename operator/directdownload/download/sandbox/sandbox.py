"""A process that handles foreign bytes and can open no files, and the protocol with it.

Called by the engine and the job verbs. The parent keeps every path, name and right; the child gets open descriptors,
fetches, unpacks and inspects. Its messages are untrusted: the parent reads them within bounds and validates them by the
models, and they affect only the file that the child got. The child is forked, so it starts in milliseconds; no byte is
copied twice.

A message is four bytes of length and JSON: from the child ["keep", journal], ["forget"] and ["out"], which the parent
answers with [] or a failure, and finally ["done", value] or ["failed", failure]; from the parent ["stop"]. A failure
is reason, message and the seconds to wait. Descriptors of a file come with the answer, over a socket. The child sends
through a pipe: over a socket it could pass descriptors, and closing those could block the parent.
"""

import codecs
import contextlib
import functools
import importlib
import json
import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from directdownload.download import defects, gathering, images
from directdownload.download import probe as probing
from directdownload.download.errors import DownloadError, SourceError, StorageError, UnsoundError
from directdownload.download.gathered import LARGEST_BYTES, Gathered
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.request import FetchRequest
from directdownload.download.sandbox import confinement
from directdownload.download.secrets import Secrets
from directdownload.download.sources import tls
from directdownload.download.store.staging import StagedFile, Staging
from directdownload.download.transfer.journal import Journal
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import Document, JobResult
from directdownload.resources.reasons import PERMANENT, TRANSIENT, Reason

if TYPE_CHECKING:
    from directdownload.download.peers.shared import Shared

_MESSAGE_LIMIT_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")
#: A terminated job has 30 s, and must report its result within them.
_END_SECONDS = 20.0
#: So long a child may take to end by itself, and then one that was killed.
_REAP_SECONDS, _KILLED_SECONDS = 3.0, 3.0
_ANSWER_SECONDS = 3.0
_STANDARD_ERROR = 2
#: of one file: one ordinary, one past the page cache
_DESCRIPTORS_LIMIT = 2
_TEXT_LIMIT = 2000
_FAILURES = frozenset(map(str, {*PERMANENT, *TRANSIENT}))
#: Loaded at their first use, which the child may be unable to: the library may be in a directory that only root reads.
_MODULES = (
    *("email.utils", "http", "idna.uts46data"),
    *("directdownload.download.archives.streams", "directdownload.download.archives.zip"),
    "directdownload.download.sources.nfs",
)
_CODECS = ("ascii", "latin-1", "utf-8", "utf-16-le", "utf-16-be", "idna", "punycode")

T = TypeVar("T")
D = TypeVar("D", bound=Document)
#: The parent's action for each request of the child; it returns the descriptors to pass.
Answers = Mapping[str, Callable[..., Sequence[int] | None]]


def gather(request: FetchRequest, staging: Staging, expected: Sequence[Checksum], guard: Guard) -> Gathered:
    """As `Gathering.run`, in its own process."""

    # opened again, as the child could release the lock on a shared open file
    part, pieces = staging.part.again(), staging.pieces

    def task(link: "_Link", stop: threading.Event) -> Any:
        inner = Staging(
            staging.directory,
            part,
            staging.out_path,
            make_out=lambda: StagedFile(staging.out_path, *link.ask("out")),
            earlier=staging.earlier,
            proven=staging.proven,
            forget=lambda: link.ask("forget"),
            keep=lambda kept: link.ask("keep", kept.model_dump(mode="json")),
        )
        inner.pieces = pieces
        return gathering.of(request, inner, expected, guard.for_stop(stop)).run().model_dump(mode="json")

    def keep(told: Any) -> None:
        # only the parent decides whose part it is
        owner = {"placement": request.placement, "placementUid": request.placement_uid}
        staging.keep(_document(Journal, {**told, **owner}))

    try:
        return run(
            task,
            functools.partial(_document, Gathered),
            guard,
            descriptors=(*part.descriptors, *((pieces.descriptor,) if pieces is not None else ())),
            trust_bundle=request.trust_bundle,
            shared=request.shared,
            answers={"keep": keep, "forget": staging.forget, "out": lambda: staging.unpacked().descriptors},
            hide=Secrets.of_request(request).hide,
        )
    finally:
        part.close()


def inspect(descriptor: int, size_bytes: int, image_format: str, limit_bytes: int, guard: Guard) -> images.ImageInfo:
    """As `images.inspect`, in its own process."""

    def task(_link: "_Link", _stop: threading.Event) -> Any:
        info = images.inspect(descriptor, size_bytes, image_format, max_virtual_size_bytes=limit_bytes)
        return [info.format, info.virtual_size_bytes]

    def parse(told: Any) -> images.ImageInfo:
        found, virtual_size = told
        if found not in images.FORMATS or (virtual_size is not None and not 0 <= virtual_size <= LARGEST_BYTES):
            raise ValueError("no image")
        return images.ImageInfo(found, virtual_size)

    return run(task, parse, guard, descriptors=(descriptor,))


def probe(request: FetchRequest, guard: Guard) -> JobResult:
    """As `probe.probe`, in its own process."""

    def task(_link: "_Link", stop: threading.Event) -> Any:
        return probing.probe(request, guard.for_stop(stop)).model_dump(mode="json")

    hide = Secrets.of_request(request).hide
    return run(task, functools.partial(_document, JobResult), guard, trust_bundle=request.trust_bundle, hide=hide)


def run(
    task: Callable[["_Link", threading.Event], Any],
    parse: Callable[[Any], T],
    guard: Guard,
    *,
    descriptors: Iterable[int] = (),
    trust_bundle: str = "",
    shared: "Shared | None" = None,
    answers: Answers | None = None,
    hide: defects.Hide = str,
) -> T:
    """Run `task` in a process that has `descriptors`; return its result (JSON), parsed. Raises DownloadError.

    `parse` raises ValueError for an invalid result. `task` gets an event that is set when it must end. `answers` do in
    this process what the child asks for. `hide`: as for `defects.report`, in the child.
    """
    hears, says = os.pipe()
    ours, theirs = socket.socketpair()
    # the child must send nothing over the socket, above all no descriptors
    ours.shutdown(socket.SHUT_RD)
    # a child that asks but does not read must not keep this process from its deadline
    ours.settimeout(_ANSWER_SECONDS)
    # once for both, and what pydantic loads for it, as in _MODULES
    for model in (Journal, Gathered, JobResult):
        model.model_rebuild()
    process = os.fork()
    if process == 0:
        _child(task, says, theirs, {*descriptors}, trust_bundle, shared, hide)
    theirs.close()
    os.close(says)
    ended: str | None = None
    try:
        value = parse(_serve(hears, ours, guard, answers or {}))
    except (ValueError, TypeError, LookupError, RecursionError, TimeoutError) as error:
        raise UnsoundError(
            Reason.WRITE_FAILED, f"the fetching process sent an invalid message: {type(error).__name__}"
        ) from None
    except EOFError:
        ended = _reap(process)
        raise SourceError(Reason.INTERRUPTED, f"the fetching process ended early: {ended}") from None
    finally:
        os.close(hears)
        ours.close()
        ended = ended or _reap(process)
        if ended is None:
            raise UnsoundError(
                Reason.WRITE_FAILED,
                "the fetching process does not end and could still write; the next attempt starts from zero",
            )
    return value


# The parent


def _serve(hears: int, link: socket.socket, guard: Guard, answers: Answers) -> Any:
    """The child's value. Raises EOFError if it ends without one, ValueError if a message is invalid."""
    over: float | None = None
    told = False
    buffer = bytearray()
    while True:
        try:
            guard.check()
        except DownloadError:
            over = over or time.monotonic()
            if time.monotonic() - over > _END_SECONDS:
                raise
        if guard.stop.is_set() and not told:
            # the child knows its deadline
            told = True
            _tell(link, ["stop"])
        if not select.select([hears], [], [], TICK_SECONDS)[0]:
            continue
        data = os.read(hears, 64 * 1024)
        if not data:
            raise EOFError
        buffer += data
        while (message := _take(buffer)) is not None:
            kind, *rest = message
            if kind == "done":
                return rest[0]
            if kind == "failed":
                raise _error(DownloadError, rest[0])
            try:
                _tell(link, [], answers[kind](*rest) or ())
            except DownloadError as error:
                _tell(link, [_failure(error)])


def _tell(link: socket.socket, message: list[Any], descriptors: Sequence[int] = ()) -> None:
    """Send to the child. If it has ended it needs no answer, and its earlier messages must still be read."""
    data = _framed(message)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if descriptors:
            data = data[socket.send_fds(link, [data], descriptors) :]
        link.sendall(data)


def _reap(process: int) -> str | None:
    """The way in which the child ended; None if it did not end although killed."""
    end = time.monotonic() + _REAP_SECONDS
    killed = False
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit status {code}"
        if time.monotonic() > end:
            if killed:
                return None
            killed = True
            end = time.monotonic() + _KILLED_SECONDS
            # it runs as another user by now: without the capability KILL only the end of the container ends it
            with contextlib.suppress(PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


# The child


class _Link:
    """The child's end: it sends requests, and receives stop. It ends at once when its parent does."""

    def __init__(self, says: int, link: socket.socket, stop: threading.Event) -> None:
        self._says = says
        self._link = link
        self._stop = stop
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[tuple[list[Any], list[int]]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def ask(self, kind: str, *values: Any) -> list[int]:
        """Send a request and wait; return the descriptors received. Raises StorageError if the parent failed."""
        with self._asking:
            _say(self._says, [kind, *values])
            answer, descriptors = self._answers.get()
        if answer:
            raise _error(StorageError, answer[0])
        return descriptors

    def _listen(self) -> None:
        buffer, descriptors = bytearray(), list[int]()
        while (received := socket.recv_fds(self._link, 64 * 1024, _DESCRIPTORS_LIMIT))[0]:
            buffer += received[0]
            descriptors += received[1]
            while (message := _take(buffer)) is not None:
                if message == ["stop"]:
                    self._stop.set()
                else:
                    self._answers.put((message, descriptors))
                    descriptors = []
        os._exit(1)


def _child(
    task: Callable[[_Link, threading.Event], Any],
    says: int,
    link: socket.socket,
    kept: set[int],
    trust_bundle: str,
    shared: "Shared | None",
    hide: defects.Hide,
) -> NoReturn:
    try:
        # the parent decides, and sends stop over the link
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        # only the parent prints a result
        os.dup2(_STANDARD_ERROR, 1)
        _close_all_but({0, 1, _STANDARD_ERROR, says, link.fileno(), *kept})
        # it may be in a directory that only root can read
        tls.preload(trust_bundle)
        if shared is not None:
            shared.preload()
        for module in _MODULES:
            importlib.import_module(module)
        for codec in _CODECS:
            codecs.lookup(codec)
        confinement.confine((os.path.dirname(trust_bundle),) if trust_bundle else ())
        stop = threading.Event()
        message = ["done", task(_Link(says, link, stop), stop)]
    except DownloadError as error:
        message = ["failed", _failure(error)]
    except BaseException as error:  # nothing may return from here into the parent's code
        message = ["failed", _failure(defects.report(error, hide))]
    with contextlib.suppress(BaseException):
        _say(says, message)
        sys.stderr.flush()
    os._exit(0)


def _say(says: int, message: list[Any]) -> None:
    data = memoryview(_framed(message))
    while data:
        data = data[os.write(says, data) :]


def _close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            # the descriptor of the listing is already closed
            with contextlib.suppress(OSError):
                os.close(int(name))


# Both


def _document(model: type[D], told: Any) -> D:
    return model.model_validate_json(json.dumps(told))


def _framed(message: list[Any]) -> bytes:
    text = json.dumps(message).encode()
    return _LENGTH.pack(len(text)) + text


def _take(buffer: bytearray) -> list[Any] | None:
    """Take the first message out of the buffer; None if it is incomplete. Raises ValueError if it is invalid."""
    if len(buffer) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(buffer)
    if length > _MESSAGE_LIMIT_BYTES:
        raise ValueError("too long")
    end = _LENGTH.size + length
    if len(buffer) < end:
        return None
    message = json.loads(bytes(buffer[_LENGTH.size : end]))
    del buffer[:end]
    if not isinstance(message, list):
        raise ValueError("no list")
    return message


def _failure(error: DownloadError) -> list[Any]:
    return [str(error.reason), error.message, error.retry_after_seconds]


def _error(kind: type[DownloadError], failure: Sequence[Any]) -> DownloadError:
    """The error for `failure`. Raises ValueError if invalid: a reason of success would count as success."""
    reason, message, retry_after = failure
    if reason not in _FAILURES:
        raise ValueError("no reason of a failure")
    # a result takes short text only
    text = str(message).encode(errors="replace").decode()[:_TEXT_LIMIT]
    return kind(Reason(reason), text, retry_after_seconds=float(retry_after) if retry_after is not None else None)
