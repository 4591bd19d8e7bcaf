"""What a tenant reads of an address where no server answers: the same, whatever is or is not there.

By real probes of real servers, and by what the planners make of the results.
"""

import contextlib
import pathlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.download.support import FAST, make_request
from tests.unit.planning import build
from tests.unit.planning.build import NOW, host
from tests.world.http import HostileServer, reset
from tests.world.origin import Origin

from directdownload.download import engine, probe
from directdownload.download.guard import Guard
from directdownload.planning import disclosure, probes
from directdownload.planning.hosts import AGENT_GRACE, plan_host
from directdownload.planning.observed import Agent
from directdownload.planning.probes import Outcome, Probe
from directdownload.planning.rollouts import plan_deployment
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason
from directdownload.resources.templatedeployment import PlacementFailure, TemplateDeploymentStatus

MESSAGE = (
    "asked from host kvm-1: no source answers in the protocol of its URL: a name has no address, or no such server is "
    "reached in time; an administrator finds the cause in the log of the controller"
)


@contextlib.contextmanager
def closed() -> Iterator[str]:
    yield "127.0.0.1:9"


@contextlib.contextmanager
def no_name() -> Iterator[str]:
    yield "none.invalid"


@contextlib.contextmanager
def filtered() -> Iterator[str]:
    """The kernel drops what a full queue cannot take, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as fillers:
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _scripted(respond: Any) -> Iterator[str]:
    with HostileServer(
        lambda connection, _request, _number: respond(connection, server), reads_request=False
    ) as server:
        yield f"127.0.0.1:{server.port}"


def ends() -> Any:
    return _scripted(lambda connection, server: None)


def resets() -> Any:
    return _scripted(lambda connection, server: reset(connection))


def silent() -> Any:
    return _scripted(lambda connection, server: server.ended.wait())


def another_protocol() -> Any:
    return _scripted(lambda connection, server: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"))


CAUSES = (closed, no_name, filtered, ends, resets, silent, another_protocol)


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "pool"


@pytest.fixture
def origin(tmp_path: pathlib.Path) -> Iterator[Origin]:
    (tmp_path / "image").write_bytes(b"x" * 1000)
    with Origin(tmp_path) as running:
        yield running


def asked(pool: pathlib.Path, url: str, *mirrors: str) -> JobResult:
    request = make_request(pool, url, mirrors=mirrors, timeouts=FAST)
    guard = Guard.start(threading.Event())
    return engine.outcome(lambda: probe.probe(request, guard), str)


def told(result: JobResult) -> TemplateDeploymentStatus:
    """The status of a deployment whose only copy has failed so."""
    phase = "Failed" if result.permanent else "Pending"
    document = build.placement_document(phase=phase, reason=result.reason, status={"attempts": 1})
    for condition in document["status"]["conditions"]:
        condition["message"] = result.message
    failed = build.VIEWS.placement(document)
    fleet = build.fleet([host()])
    return plan_deployment(build.deployment(), build.template(), fleet, {failed.key: failed}, NOW)


def failures(result: JobResult) -> tuple[PlacementFailure, ...]:
    return told(result).failures


def outcome(result: JobResult) -> Outcome:
    made = probes.outcome(
        build.template(), Probe(build.job("probe", 1, result=result), "kvm-1", "", "told"), host(), NOW
    )
    assert made is not None
    return made


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("cause", CAUSES)
def test_a_tenant_reads_the_same_whatever_is_at_an_address(pool: pathlib.Path, cause: Any, scheme: str) -> None:
    with cause() as address:
        result = asked(pool, f"{scheme}://{address}/image")
    assert result.reason in disclosure.UNANSWERED
    made = outcome(result)
    condition = made.condition
    assert (condition.status, condition.reason, condition.message) == ("False", Reason.SOURCE_UNREACHABLE, MESSAGE)
    # the time of the next probe would tell one that is given up
    assert made.record == outcome(JobResult(reason=Reason.SOURCE_UNREACHABLE)).record
    assert made.result.message == result.message, "administrators read all of it in the log"


@pytest.mark.parametrize("cause", CAUSES)
def test_nor_does_a_source_that_answers_report_the_others(pool: pathlib.Path, origin: Origin, cause: Any) -> None:
    with cause() as address:
        answers = asked(pool, origin.url("image"), f"http://{address}/image")
        first = asked(pool, f"http://{address}/image", origin.url("image"))
        refused = asked(pool, origin.url("none"), f"http://{address}/image")
    assert outcome(answers).condition.message.startswith(
        f"asked from host kvm-1: {origin.url('image')} answers: 1000 bytes"
    )
    assert "other sources: SourceUnreachable" in outcome(first).condition.message
    assert outcome(refused).condition.reason is Reason.SOURCE_UNREACHABLE
    for result in (answers, first, refused):
        message = outcome(result).condition.message
        assert address.rpartition(":")[2] not in message.replace(str(origin.port), "")
        assert not [reason for reason in disclosure.UNANSWERED - {Reason.SOURCE_UNREACHABLE} if reason in message]


@pytest.mark.parametrize("cause", CAUSES)
def test_failures_of_a_deployment_say_no_more(pool: pathlib.Path, cause: Any) -> None:
    with cause() as address:
        result = asked(pool, f"http://{address}/image")
    status = told(result)
    (entry,) = status.failures
    assert entry.reason is Reason.SOURCE_UNREACHABLE
    # Nor do conditions, counts and what waits: all is as if nobody listened there.
    assert status == told(JobResult(reason=Reason.SOURCE_UNREACHABLE, message="refused"))
    assert entry.message == disclosure.words(result.reason, "", f"TemplatePlacement {build.placement().key}")


def test_what_keeps_the_operators_own_pods_is_not_for_tenants() -> None:
    """Nor does a host that is Down say what keeps its agent."""
    cause = "ImagePullBackOff: Back-off pulling image registry.internal:5000/operator"
    plan = plan_host(host(), build.node(), [build.zone()], Agent(False, NOW - AGENT_GRACE, cause), NOW)
    (ready,) = [c for c in plan.status.conditions if c.type == "Ready"]
    assert cause in ready.message
    document = build.placement_document(phase="Pending", reason=Reason.HOST_DOWN)
    document["status"]["conditions"][0]["message"] = f"the host is Down: {ready.message}"
    waiting = build.VIEWS.placement(document)
    (entry,) = plan_deployment(
        build.deployment(), build.template(), build.fleet([host()]), {waiting.key: waiting}, NOW
    ).waiting
    assert entry.message == "the host is Down: no ready agent pod runs on the node"


def test_a_certificate_and_a_status_are_reported_to_tenants() -> None:
    for reason in (Reason.TLS_VERIFICATION_FAILED, Reason.SOURCE_REFUSED, Reason.SOURCE_UNAVAILABLE):
        result = JobResult(reason=reason, message="https://images.example.org/a: has expired")
        assert (outcome(result).condition.reason, "has expired" in outcome(result).condition.message) == (reason, True)
        (entry,) = failures(result)
        assert (entry.reason, entry.message) == (reason, result.message)
