"""Probes: from which host, when, and what an answer makes of the Template's status."""

import dataclasses
import itertools
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, host, seconds, zone

from directdownload.planning import disclosure, probes
from directdownload.planning.probes import Outcome, Probe
from directdownload.planning.startup import DEADLINE
from directdownload.planning.templates import plan_template
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import DONE, PERMANENT, Reason
from directdownload.resources.template import Template, TemplateProbe, TemplateStatus

ANSWER = JobResult(
    reason=Reason.SOURCE_REACHABLE, size_bytes=500, virtual_size_bytes=9000, etag='"x"', media_type="a/b", ranges=True
)
NAMESPACES: dict[str, dict[str, str]] = {"default": {"team": "a"}}
UP = host()


def probe(result: JobResult | Reason | None = None, attempt: int = 1, request: str = "", **job: Any) -> Probe:
    return Probe(build.job("probe", attempt, result=result, **job), "kvm-1", request, "told")


def taken(template: Template, found: Probe | None, now: Any = NOW) -> Outcome:
    outcome = probes.outcome(template, found, UP, now)
    assert outcome is not None
    return outcome


def after(template: Template, found: Probe, now: Any = NOW) -> tuple[Template, TemplateStatus]:
    """The template with the status that the probe makes, and that status, checked."""
    status = plan_template(template, {"zone-1"}, [], now, probed=taken(template, found, now))
    document = build.check_resource(template, status)
    read = {**template.model_dump(mode="json", by_alias=True), "status": document["status"]}
    return Template.model_validate(read), status


# --- from where


@pytest.mark.parametrize(
    ("zones", "hosts", "spec", "expected"),
    [
        ([zone()], [host("a"), host("b")], {}, ["a", "b"]),
        ([zone()], [host("a", "Down"), host("b", "Maintenance"), host("c", None)], {}, []),
        ([zone(spec={"enabled": False})], [host("a")], {}, []),
        ([zone(deleting=True)], [host("a")], {}, []),
        ([], [host("a")], {}, []),
        ([zone(), zone("zone-2")], [host("a"), host("b", zone="zone-2")], {"zones": ["zone-2"]}, ["b"]),
        ([zone(spec={"templateNamespaces": {"matchLabels": {"team": "b"}}})], [host("a")], {}, []),
        ([zone(spec={"templateNamespaces": {"matchLabels": {"team": "a"}}})], [host("a")], {}, ["a"]),
        ([zone()], [host("a", deleting=True)], {}, []),
    ],
)
def test_only_up_hosts_of_zones_that_take_the_template_ask(
    zones: list[Any], hosts: list[Any], spec: dict[str, Any], expected: list[str]
) -> None:
    found = probes.hosts_for(build.template(spec=spec), zones, hosts, NAMESPACES)
    assert [each.name for each in found] == expected


def test_the_choice_is_the_same_in_whatever_order_and_spreads_over_hosts_and_attempts() -> None:
    hosts = [host(f"kvm-{number}") for number in range(8)]
    template = build.template()

    def chosen(template: Template, attempt: int) -> str:
        found = probes.choose(template, hosts, attempt)
        assert found is not None
        assert found == probes.choose(template, hosts[::-1], attempt)
        return found.name

    assert len({chosen(template, attempt) for attempt in range(1, 30)}) > 3
    assert len({chosen(build.template(uid=f"u{number}"), 1) for number in range(30)}) > 3
    assert probes.choose(template, [], 1) is None


# --- when


def told(status: str, reason: Reason, **record: Any) -> Template:
    """A template whose last probe was that."""
    conditions = [
        build.condition("Ready", "True", Reason.REGISTERED),
        build.condition("SourceReachable", status, reason),
    ]
    known = {"attempts": 1, "observedInputs": "told", **record}
    return build.template(status={"conditions": conditions, "probe": known})


LATER = build.stamp(NOW + seconds(90))


@pytest.mark.parametrize(
    ("template", "inputs", "expected"),
    [
        (build.template(), "told", NOW),
        (told("True", Reason.SOURCE_REACHABLE), "told", None),
        (told("True", Reason.SOURCE_REACHABLE), "other", None),
        (told("False", Reason.SOURCE_REFUSED), "told", None),
        (told("False", Reason.SOURCE_REFUSED), "other", NOW),
        (told("False", Reason.SOURCE_UNREACHABLE, nextAttemptTime=LATER), "told", NOW + seconds(90)),
        (told("False", Reason.SOURCE_UNREACHABLE, nextAttemptTime=LATER), "other", NOW),
        (told("Unknown", Reason.INTERRUPTED, nextAttemptTime=LATER), "told", NOW + seconds(90)),
    ],
)
def test_when_a_source_is_asked(template: Template, inputs: str, expected: Any) -> None:
    assert probes.due(template, inputs, NOW) == expected
    asked = template.model_copy(update={"status": template.status.model_copy(update={"last_handled_request": "today"})})
    assert probes.due(asked, "told", NOW) == NOW
    record = (template.status.probe or TemplateProbe()).model_copy(update={"last_handled_request": "today"})
    served = asked.model_copy(update={"status": asked.status.model_copy(update={"probe": record})})
    if template.status.probe is not None:
        assert probes.due(served, inputs, NOW) == expected


def test_a_request_that_the_template_has_not_served_asks_no_source() -> None:
    """It serves one in each interval, however many there are."""
    answered = told("True", Reason.SOURCE_REACHABLE)
    metadata = answered.metadata.model_copy(update={"annotations": {"directdownload.dev/requested-at": "today"}})
    assert probes.due(answered.model_copy(update={"metadata": metadata}), "told", NOW) is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (build.template(), True),
        (build.template(ready=False), False),
        (build.template(status={"conditions": []}), False),
        (build.template(deleting=True), False),
    ],
)
def test_only_a_ready_template_is_asked_for(template: Template, expected: bool) -> None:
    assert probes.wanted(template) is expected


def test_what_decides_about_the_answer_is_in_the_inputs() -> None:
    zones = [zone(), zone("zone-2")]
    before = probes.inputs_of(build.template(), zones)
    assert before == probes.inputs_of(build.template(spec={"displayText": "x"}), zones)
    assert before == probes.inputs_of(build.template(), [zone(spec={"downloads": {"maxParallel": 1}}), zones[1]])
    others = {
        probes.inputs_of(build.template(spec={"mirrors": ["https://m.example.org/a"]}), zones),
        probes.inputs_of(build.template(spec={"headersSecretRef": {"name": "token"}}), zones),
        probes.inputs_of(build.template(), [zone(spec={"sourcePolicy": {"allowedCIDRs": ["10.0.0.0/8"]}}), zones[1]]),
    }
    assert len(others | {before}) == 4


# --- what comes of it


def test_an_answer_fills_the_status_and_leaves_ready_alone() -> None:
    before = build.template(requested_at="today")
    answer = ANSWER.model_copy(update={"message": "https://images.example.org/a answers"})
    template, status = after(before, probe(answer, request="today"))
    assert (status.size_bytes, status.virtual_size_bytes, status.etag) == (500, 9000, '"x"')
    reachable = template.status.condition("SourceReachable")
    assert reachable is not None
    assert (reachable.status, reachable.reason) == ("True", Reason.SOURCE_REACHABLE)
    assert "kvm-1" in reachable.message
    assert reachable.message == "asked from host kvm-1: https://images.example.org/a answers: 500 bytes, a/b"
    assert template.status.probe is not None
    assert (template.status.probe.attempts, template.status.probe.last_handled_request) == (1, "today")
    assert (template.status.digest, template.status.conditions[0].reason) == (None, Reason.REGISTERED)
    assert probes.due(template, "anything", NOW) is None
    assert probes.outcome(template, probe(ANSWER), UP, NOW) is None, "it has been read"


@pytest.mark.parametrize("reason", sorted(set(Reason) - DONE))
def test_every_reason_that_a_probe_may_give(reason: Reason) -> None:
    template, status = after(build.template(), probe(reason))
    reachable = status.condition("SourceReachable")
    assert reachable is not None
    assert reachable.reason is (Reason.SOURCE_UNREACHABLE if reason in disclosure.UNANSWERED else reason)
    assert (f"because of {reason}" in reachable.message) is (reason not in disclosure.UNANSWERED)
    assert status.conditions[0].status == "True", "a probe never blocks Ready"
    assert status.probe is not None
    due = probes.due(template, "told", NOW)
    if reason in PERMANENT - disclosure.UNANSWERED:
        assert (reachable.status, due) == ("False", None)
    else:
        assert reachable.status in ("False", "Unknown")
        assert due is not None
        assert seconds(60) <= due - NOW <= seconds(82)


def test_a_probe_that_could_not_run_says_nothing_of_the_source() -> None:
    for found, reason in (
        (probe(Reason.INTERRUPTED), Reason.INTERRUPTED),
        (probe(started=False, created=NOW - DEADLINE), Reason.POD_BLOCKED),
        (probe(JobResult(reason=Reason.DOWNLOADED, size_bytes=1)), Reason.INTERRUPTED),
    ):
        status = after(build.template(status={"sizeBytes": 7, "etag": '"y"'}), found)[1]
        reachable = status.condition("SourceReachable")
        assert reachable is not None
        assert (reachable.status, reachable.reason) == ("Unknown", reason)
        assert (status.size_bytes, status.etag) == (7, '"y"')


def test_pauses_grow_to_an_hour_and_an_answer_ends_them() -> None:
    template, now, pauses = build.template(), NOW, []
    for attempt in range(1, 12):
        template, _ = after(template, probe(Reason.SOURCE_UNAVAILABLE, attempt), now)
        due = probes.due(template, "told", now)
        assert due is not None
        pauses.append((due - now).total_seconds())
        now = due
    assert all(60 <= pause <= 3601 for pause in pauses)
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:6]))
    assert pauses[-1] >= 2700
    template, status = after(template, probe(ANSWER, 12), now)
    assert status.probe is not None
    assert (status.probe.recent_failures, status.probe.next_attempt_time) == (None, None)


def test_a_server_may_ask_to_be_left_alone_for_longer() -> None:
    asked = JobResult(reason=Reason.SOURCE_UNAVAILABLE, retry_after_seconds=1800)
    due = probes.due(after(build.template(), probe(asked))[0], "told", NOW)
    assert due is not None
    assert seconds(1800) <= due - NOW <= seconds(1801)


def test_a_probe_that_runs_is_left_alone() -> None:
    assert probes.outcome(build.template(), probe(), UP, NOW) is None
    assert probes.outcome(build.template(), None, None, NOW) is None
    assert probes.outcome(build.template(), probe(), host(state="Maintenance"), NOW) is None


@pytest.mark.parametrize("where", [None, host(state="Down")])
def test_a_probe_on_a_host_that_is_lost_is_given_up(where: Any) -> None:
    outcome = probes.outcome(build.template(), probe(), where, NOW)
    assert outcome is not None
    assert (outcome.condition.status, outcome.condition.reason) == ("Unknown", Reason.INTERRUPTED)
    answered = probes.outcome(build.template(), probe(ANSWER), where, NOW)
    assert answered is not None
    assert answered.condition.reason is Reason.SOURCE_REACHABLE, "what it said before counts"


def test_nothing_is_taken_in_for_a_template_that_goes() -> None:
    assert probes.outcome(build.template(deleting=True), probe(ANSWER), UP, NOW) is None


def test_the_time_of_the_condition_changes_only_with_its_status() -> None:
    template, _ = after(build.template(), probe(Reason.SOURCE_UNREACHABLE))
    template, status = after(template, probe(Reason.TLS_VERIFICATION_FAILED, 2), NOW + seconds(100))
    reachable = status.condition("SourceReachable")
    assert reachable is not None
    assert (reachable.reason, reachable.last_transition_time) == (Reason.TLS_VERIFICATION_FAILED, NOW)
    template, status = after(template, probe(ANSWER, 3), NOW + seconds(200))
    reachable = status.condition("SourceReachable")
    assert reachable is not None
    assert reachable.last_transition_time == NOW + seconds(200)


def test_the_condition_and_the_record_stay_when_nothing_new_is_known() -> None:
    template = after(build.template(), probe(ANSWER))[0]
    again = plan_template(template, {"zone-1"}, [], NOW + seconds(60))
    assert again.condition("SourceReachable") == template.status.condition("SourceReachable")
    assert (again.probe, again.etag, again.size_bytes) == (template.status.probe, '"x"', 500)


# --- what is known of the file


def copy(**file: Any) -> Any:
    known = {"path": "/p", "digest": build.DIGEST, "sizeBytes": 4096, **file}
    return build.placement(phase="Ready", status={"file": known})


def test_a_verified_copy_knows_better_than_a_server() -> None:
    template, _ = after(build.template(), probe(ANSWER))
    lessons = [Checksum.parse(build.DIGEST)]
    status = plan_template(template, (), [copy(virtualSizeBytes=8000)], NOW, lessons=lessons)
    assert (status.size_bytes, status.virtual_size_bytes, status.digest) == (4096, 8000, build.DIGEST)
    read = template.model_copy(update={"status": status})
    asked_again = dataclasses.replace(taken(read, probe(ANSWER, 2)))
    later = plan_template(read, (), [], NOW, probed=asked_again)
    assert (later.size_bytes, later.virtual_size_bytes) == (4096, 8000), "they belong to the digest"


def test_an_archive_is_as_large_as_it_is_served() -> None:
    status = plan_template(build.template(), (), [copy(servedBytes=1000)], NOW)
    assert status.size_bytes == 1000


@pytest.mark.parametrize(("etag", "expected"), [("", None), ('"x"', '"x"'), ('"x\n"', None)])
def test_an_etag_is_that_of_the_last_answer_and_can_be_shown(etag: str, expected: str | None) -> None:
    before = build.template(status={"etag": '"old"'})
    assert after(before, probe(ANSWER.model_copy(update={"etag": etag})))[1].etag == expected
