"""The main program of download pods: one verb on one template in one pool, from a job document to a result.

Called by `directdownload job`. Every verb ends with a JobResult: on the last line of standard output and in the
termination message. Exit status: 0 done, 1 transient, 2 not a usable document, 3 permanent.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pydantic

from directdownload.download import engine, secrets
from directdownload.download.errors import StorageError
from directdownload.download.guard import Guard
from directdownload.download.request import FetchRequest
from directdownload.download.sandbox import sandbox
from directdownload.download.sources import headers
from directdownload.download.sources.proxy import Proxies
from directdownload.download.sources.urls import redact
from directdownload.download.store.place import Place
from directdownload.hostfiles import mountinfo
from directdownload.observe import logs
from directdownload.resources.jobs import JOB_ENVIRONMENT_VARIABLE, JobDocument, JobPool, JobResult, Verb
from directdownload.resources.naming import WORK_DIRECTORY
from directdownload.resources.reasons import Reason

if TYPE_CHECKING:
    from directdownload.download.peers.shared import Shared

logger = logging.getLogger(__name__)

#: From the chart's values `log`.
LOG_FORMAT_VARIABLE, LOG_LEVEL_VARIABLE = "DIRECTDOWNLOAD_LOG_FORMAT", "DIRECTDOWNLOAD_LOG_LEVEL"
#: The kubelet creates this file; outside a pod it is not written, unless the variable names another.
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_VARIABLE = "DIRECTDOWNLOAD_TERMINATION_LOG"
_VERSION = 1
_EXIT_USAGE = 2


def main(verb: str) -> int:
    """Run the verb that the environment describes; returns the exit status."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        logs.configure(os.environ.get(LOG_FORMAT_VARIABLE, "text"), os.environ.get(LOG_LEVEL_VARIABLE, "info"))
        document = read_document(os.environ, verb)
    except ValueError as error:
        logger.warning("%s", error)
        result = JobResult(reason=Reason.INTERRUPTED, message=str(error))
        status = _EXIT_USAGE
    else:
        result = _told(document, stop)
        status = engine.exit_status(result)
    message = result.to_message()
    _leave_termination_message(message)
    sys.stdout.write(message + "\n")
    sys.stdout.flush()
    return status


def _told(document: JobDocument, stop: threading.Event) -> JobResult:
    """`run_job` with one log line before and one after it."""
    # A probe belongs to no placement, and its document has no name of a Template.
    probing = document.verb is Verb.PROBE
    kind, name = ("Host", document.host) if probing else ("TemplatePlacement", document.placement)
    what, where = (redact(document.url), "") if probing else (document.file_name, f" on host {document.host}")
    task = f"{kind} {name}{where}: {document.verb} of {what}"
    fields = {"host": document.host, "pool": document.pool.name, "template_uid": document.template_uid}
    with logs.concerning(kind, name, **fields):
        logger.info("%s begins", task)
        result = run_job(document, stop)
        level = logging.INFO if result.done else logging.WARNING
        about = {"reason": str(result.reason), "seconds": result.seconds}
        logger.log(level, "%s: %s: %s", task, result.reason, result.message, extra=about)
    return result


def read_document(environment: Mapping[str, str], verb: str) -> JobDocument:
    """The job document. Raises ValueError that names the wrong field."""
    text = environment.get(JOB_ENVIRONMENT_VARIABLE, "")
    if not text:
        raise ValueError(f"environment variable {JOB_ENVIRONMENT_VARIABLE} is empty: expected a job document as JSON")
    try:
        document = JobDocument.read(text)
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:5]
        )
        raise ValueError(f"{JOB_ENVIRONMENT_VARIABLE} is not a job document of this version: {problems}") from None
    if document.version != _VERSION:
        raise ValueError(f"{JOB_ENVIRONMENT_VARIABLE}: version {document.version}, expected {_VERSION}")
    if document.verb != verb:
        raise ValueError(f"{JOB_ENVIRONMENT_VARIABLE}: verb {document.verb}, but this is `job {verb}`")
    if document.verb is Verb.PROBE:
        return document
    if not os.path.isabs(document.pool.path):
        raise ValueError(f"{JOB_ENVIRONMENT_VARIABLE}: pool.path {document.pool.path!r}: expected an absolute path")
    for field, name in (
        ("fileName", document.file_name),
        ("templateUid", document.template_uid),
        ("host", document.host),
    ):
        if not name or name.startswith(".") or "/" in name or not name.isprintable() or name == WORK_DIRECTORY:
            raise ValueError(f"{JOB_ENVIRONMENT_VARIABLE}: {field} {name!r}: expected a plain name without '/'")
    return document


def run_job(document: JobDocument, stop: threading.Event) -> JobResult:
    """Run the document's verb; never raises."""
    action = {Verb.FETCH: _fetch, Verb.VERIFY: _verify, Verb.REMOVE: _remove, Verb.PROBE: _probe}[document.verb]

    def run() -> JobResult:
        _check_mounted(document.pool)
        return action(document, stop)

    known = secrets.Secrets.of_job(document, os.environ)
    return known.hide_in(engine.outcome(run, known.hide))


def _place(document: JobDocument) -> Place:
    return Place.in_pool(
        document.pool.path,
        document.file_name,
        document.template_uid,
        document.host,
        seals=document.seal_directory,
    )


def _request(document: JobDocument) -> FetchRequest:
    return FetchRequest(
        url=document.url,
        place=_place(document),
        mirrors=document.mirrors,
        headers=headers.read(document.headers_directory),
        checksum=document.checksum,
        expected_digest=document.expected_digest,
        image_format=document.format,
        timeouts=document.timeouts,
        limits=document.limits,
        policy=document.policy,
        trust_bundle=document.trust_bundle,
        proxies=Proxies.from_environment(os.environ),
        reserve=document.pool.reserve,
        file=document.pool.file,
        placement=document.placement,
        placement_uid=document.placement_uid,
        host=document.host,
        confined=True,
        shared=_shared(document),
    )


def _shared(document: JobDocument) -> "Shared | None":
    if document.peers is None:
        return None
    from directdownload.download.peers import shared

    return shared.of(document, document.peers)


def _fetch(document: JobDocument, stop: threading.Event) -> JobResult:
    return engine.fetch(_request(document), stop=stop)


def _probe(document: JobDocument, stop: threading.Event) -> JobResult:
    guard = Guard.start(stop, document.limits.deadline_seconds, "nothing is kept")
    return sandbox.probe(_request(document), guard)


def _verify(document: JobDocument, stop: threading.Event) -> JobResult:
    from directdownload.download import verify

    guard = Guard.start(stop, document.limits.deadline_seconds, "the next check starts from zero")
    return verify.verify(document, _place(document), guard)


def _remove(document: JobDocument, stop: threading.Event) -> JobResult:
    from directdownload.download import remove

    guard = Guard.start(stop, document.limits.deadline_seconds, "the next attempt removes the rest")
    return remove.remove(document, _place(document), guard)


def _check_mounted(pool: JobPool) -> None:
    """Raise StorageError(NotMounted) if a shared pool is not mounted: a download would fill the host's own disk."""
    if not pool.shared:
        return
    # an automounter mounts the pool again when a process enters its directory
    with contextlib.suppress(OSError):
        os.stat(os.path.join(pool.path, "."))
    path = os.path.realpath(pool.path)
    root = mountinfo.root_of(path, pool.roots)
    below_root = root is not None or not pool.roots
    if not (below_root and mountinfo.is_pool_mount(mountinfo.covering(mountinfo.read(), path), path, root)):
        where = f" strictly below {', '.join(pool.roots)}" if pool.roots else ""
        raise StorageError(
            Reason.NOT_MOUNTED, f"{pool.path} is not a mount point{where}, as a shared pool must be; mount it there"
        )


def _leave_termination_message(message: str) -> None:
    path = os.environ.get(TERMINATION_LOG_VARIABLE)
    flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | (os.O_CREAT if path else 0)
    # outside a pod there is none, and the result is on standard output
    with contextlib.suppress(OSError):
        descriptor = os.open(path or TERMINATION_LOG, flags, 0o644)
        try:
            os.write(descriptor, message.encode())
        finally:
            os.close(descriptor)
