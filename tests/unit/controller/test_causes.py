"""What keeps a pod: read of jobs, pods and Events of others, asked for within bounds, and never in the way."""

import asyncio
import dataclasses
import pathlib
from typing import Any, cast

import pytest
from tests.unit.controller import build as kube
from tests.unit.planning import build
from tests.unit.planning.build import NOW, seconds

from directdownload.cluster import client, errors, kinds
from directdownload.cluster.objects import PodView
from directdownload.controller import causes, events, settings, starts, turns
from directdownload.controller.context import Context
from directdownload.controller.queue import WorkQueue
from directdownload.controller.reconcile import placements
from directdownload.controller.world import RESULT_GRACE, World
from directdownload.planning import hosts
from directdownload.planning.observed import Happening, Job, Start
from directdownload.planning.startup import ASK_PAUSE, LATE, LATER_ASK_PAUSE
from directdownload.resources.reasons import Reason

PLACEMENT = build.placement(phase="Downloading", status={"attempts": 1})


class Clock:
    """Of `turns`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(turns, "time", found)
    return found


class Scene:
    """A controller that asks for Events of one late job; `answers` are the API server's, one after the other."""

    def __init__(self) -> None:
        async def nothing(_: object) -> None: ...

        self.asked: list[dict[str, str]] = []
        self.answers: list[Any] = []
        self.world = World((build.ROOT,))
        self.context = Context(
            cast(client.Api, self),
            self.world,
            WorkQueue(nothing),
            settings.Settings(kube.NAMESPACE, "pod", pathlib.Path("job.yaml"), ()),
            {},
            cast(events.Recorder, None),
        )
        self.world.placements.observe(PLACEMENT)
        self.view = kube.job(PLACEMENT)
        self.world.jobs.observe(self.view)

    async def request(self, method: str, resource: kinds.Resource, *, query: dict[str, str], **how: Any) -> Any:
        assert (method, resource, how["namespace"], how["verb"]) == ("GET", kinds.CORE_EVENTS, kube.NAMESPACE, "list")
        assert how["timeout_seconds"] <= 5
        self.asked.append(query)
        answer = self.answers.pop(0) if self.answers else {"items": []}
        if isinstance(answer, Exception):
            raise answer
        return answer

    def job(self, age: float = 0) -> Job:
        found = self.world.job(PLACEMENT, NOW + seconds(age))
        assert found is not None
        return found

    def ask(self, age: float) -> Start:
        """At that age of the job; what is known afterwards."""
        asyncio.run(causes.ask(self.context, self.view, self.job(age), NOW + seconds(age)))
        return self.job(age).start


@pytest.fixture
def scene(clock: Clock) -> Scene:
    found = Scene()
    found.job()
    return found


def event(reason: str, message: str = "why", version: int = 5, kind: str = "Warning") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "reason": reason, "message": message, "type": kind}


# --- what is read


def test_a_job_without_a_pod_is_asked_about_by_its_uid_once_it_is_late(scene: Scene) -> None:
    scene.answers = [{"items": [event("FailedCreate", "exceeded quota: none")]}]
    assert scene.ask(LATE.total_seconds() - 1) == Start()
    assert scene.asked == []
    said = scene.ask(LATE.total_seconds())
    assert said == Start("its pod cannot be created: FailedCreate: exceeded quota: none", blocked=True)
    assert scene.asked == [{"fieldSelector": f"involvedObject.uid={scene.view.uid}", "limit": "50"}]


def test_a_pod_is_asked_about_by_its_own_uid_and_what_was_said_of_the_job_is_over(scene: Scene, clock: Clock) -> None:
    scene.answers = [{"items": [event("FailedCreate")]}, {"items": [event("FailedMount")]}]
    assert scene.ask(9).blocked
    pod = kube.pod(scene.view, state={"waiting": {"reason": "ContainerCreating"}})
    scene.world.pods.observe(pod)
    assert scene.job(9).start == Start("ContainerCreating", pulling=True)
    assert scene.job(9).asked is None
    said = scene.ask(9)
    assert len(scene.asked) == 1, "not in the same moment"
    assert not said.blocked
    clock.now += 1
    assert scene.ask(9) == Start("a volume of its pod cannot be mounted: FailedMount: why", True, pulling=True)
    assert scene.asked[1]["fieldSelector"] == f"involvedObject.uid={pod.uid}"


def test_what_needs_no_events_asks_for_none(scene: Scene, clock: Clock) -> None:
    waiting = {"reason": "ErrImagePull", "message": "no such host"}
    scene.world.pods.observe(kube.pod(scene.view, state={"waiting": waiting}))
    said = scene.ask(9)
    assert said == Start("its image cannot be pulled: ErrImagePull: no such host", blocked=True)
    assert scene.asked == []


def test_the_age_of_a_job_counts_from_its_first_look_and_another_of_its_name_is_another(scene: Scene) -> None:
    assert scene.job(30).seen == NOW
    scene.answers = [{"items": [event("FailedCreate")]}]
    scene.ask(9)
    scene.world.jobs.forget(scene.view.key, 10**9)
    assert (scene.world.told, dict(scene.world._seen)) == ({}, {})


def test_an_answer_about_a_job_that_is_gone_is_not_kept(scene: Scene) -> None:
    job = scene.job(9)
    scene.world.jobs.forget(scene.view.key, 10**9)
    asyncio.run(causes.ask(scene.context, scene.view, job, NOW + seconds(9)))
    assert (len(scene.asked), scene.world.told) == (1, {})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\r\n\tand more", "two lines and more"),
        ("\x1b[2J\u202ex", "\\x1b[2J\\u202ex"),
        ("https://user:password@registry.example.org/a", "https://***@registry.example.org/a"),
        ("", ""),
        ("x" * 100_000, "x" * (starts.MESSAGE_LIMIT - 1) + "…"),
    ],
)
def test_texts_of_others_are_one_bounded_printable_line(text: str, shown: str) -> None:
    (found,) = starts.happenings([event("FailedMount", text)])
    assert found.message == shown
    assert starts.line(text) == shown


def test_events_with_fields_missing_are_read() -> None:
    (found,) = starts.happenings([{"metadata": {"resourceVersion": "7"}}])
    assert found == Happening("", "", False, 7)


def test_a_suspended_job_says_so(scene: Scene) -> None:
    suspended = dataclasses.replace(scene.view, suspended="by\nKueue")
    found = starts.start_of(suspended, None, None)
    assert found == Start("its Job is suspended: Suspended: by Kueue", blocked=True)


def test_a_job_that_has_ended_is_not_asked_about_and_its_result_is_awaited_no_longer_for_it(scene: Scene) -> None:
    scene.world.jobs.observe(kube.job(PLACEMENT, ended="Failed"))
    scene.world.hosts.observe(build.host())
    assert not scene.job().finished
    asyncio.run(placements._ask_for_cause(scene.context, PLACEMENT.key))
    assert scene.asked == []
    assert scene.job(RESULT_GRACE.total_seconds()).finished


# --- agents


def unstarted_agent(scene: Scene, uid: str = "uid-agent-1") -> PodView:
    pod = dataclasses.replace(kube.agent(ready=None), uid=uid, waiting_reason="ContainerCreating")
    scene.world.pods.observe(pod)
    return pod


def test_a_host_says_what_keeps_its_agent(scene: Scene, clock: Clock) -> None:
    """A pool root that it lacks, for example."""
    scene.world.nodes.observe(kube.node("kvm-1"))
    pod = unstarted_agent(scene)
    assert scene.world.agent("kvm-1", NOW).cause == ""
    scene.answers = [{"items": [event("FailedMount", "/srv is not a directory")]}, {"items": []}]
    early = pod.created + LATE - seconds(1)
    asyncio.run(causes.ask_about_agent(scene.context, pod, early))
    assert scene.asked == []
    late = pod.created + LATE
    asyncio.run(causes.ask_about_agent(scene.context, pod, late))
    cause = "a volume of its pod cannot be mounted: FailedMount: /srv is not a directory"
    assert scene.world.agent("kvm-1", NOW).cause == cause
    assert [query["fieldSelector"] for query in scene.asked] == [f"involvedObject.uid={pod.uid}"]
    node, before = build.node(), build.host(state=None)
    plan = hosts.plan_host(before, node, [build.zone()], scene.world.agent("kvm-1", NOW), NOW)
    told = plan.status.conditions[0]
    assert (told.reason, told.message) == (Reason.AGENT_NOT_READY, f"no ready agent pod runs on the node: {cause}")
    clock.now += 1
    asyncio.run(causes.ask_about_agent(scene.context, pod, late + seconds(9)))
    assert len(scene.asked) == 1, "not so soon again"
    unstarted_agent(scene, "another")
    assert scene.world.agent("kvm-1", NOW).cause == ""
    scene.world.pods.forget(pod.key, 10**9)
    assert scene.world.told == {}


def test_an_agent_that_has_run_is_not_asked_about(scene: Scene) -> None:
    pod = dataclasses.replace(unstarted_agent(scene), started=True)
    asyncio.run(causes.ask_about_agent(scene.context, pod, NOW + seconds(900)))
    assert scene.asked == []


# --- how it is asked


def test_questions_are_apart_and_few_at_a_time(clock: Clock) -> None:
    pace = turns.Turns()
    assert pace.begin()
    assert not pace.begin()
    for _ in range(turns.AT_ONCE - 1):
        clock.now += turns.APART_SECONDS
        assert pace.begin()
    clock.now += 60
    assert not pace.begin()
    pace.end()
    assert pace.begin()


def test_a_job_without_a_turn_is_not_asked_about(scene: Scene, clock: Clock) -> None:
    assert scene.world.event_turns.begin()
    assert scene.ask(9) == Start()
    assert (scene.asked, scene.job(9).asked) == ([], None)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (errors.Forbidden(403, "Forbidden", "no"), causes.REFUSED_SECONDS),
        (errors.TooManyRequests(429, "TooManyRequests", "later", 30.0), 30.0),
        (errors.Unreachable(0, "Timeout", "silent"), 1.0),
        (errors.Invalid(400, "BadRequest", "what"), 1.0),
    ],
)
def test_a_refusal_costs_nothing_but_the_cause(scene: Scene, clock: Clock, error: Exception, pause: float) -> None:
    scene.answers = [error, {"items": [event("FailedCreate")]}]
    assert scene.ask(9) == Start()
    clock.now += pause - 0.1
    assert scene.ask(9 + ASK_PAUSE.total_seconds()) == Start()
    assert len(scene.asked) == 1
    clock.now += 0.2
    assert scene.ask(15 + 2 * LATER_ASK_PAUSE.total_seconds()).blocked
