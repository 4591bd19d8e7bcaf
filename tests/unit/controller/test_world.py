"""What the controller knows: indexes that follow their stores, agents, jobs with their pods, hostile results."""

import dataclasses
import itertools
import json
from typing import Any

import pytest
from tests.unit.controller import build as kube
from tests.unit.planning import build
from tests.unit.planning.build import NOW, seconds

from directdownload.cluster.reflector import Store
from directdownload.controller import surroundings
from directdownload.controller.indexes import Index
from directdownload.controller.world import HOST_ANNOTATION, INPUTS_ANNOTATION, PROBE_LABEL, RESULT_GRACE, World
from directdownload.planning import header_secrets
from directdownload.planning.observed import Agent, PlacementView, Revision, project_revision
from directdownload.planning.publications import Found, Source
from directdownload.planning.slots import Group
from directdownload.resources import naming
from directdownload.resources.base import REQUESTED_AT
from directdownload.resources.certificate import CertificateReference
from directdownload.resources.host import Architecture
from directdownload.resources.jobs import RESULT_LIMIT_BYTES, JobResult, Verb
from directdownload.resources.reasons import Reason

PLACEMENT = build.placement(phase="Downloading", status={"attempts": 1})


@pytest.fixture
def world() -> World:
    found = World((build.ROOT,))
    found.placements.observe(PLACEMENT)
    return found


def test_an_index_follows_every_change() -> None:
    store: Store[PlacementView] = Store()
    index = Index(store, lambda p: p.host)
    moves = [(host, version) for version, host in enumerate(("a", "b", "a", "a", "c"), start=1)]
    for host, version in moves:
        store.observe(build.placement(host=host, shared=True, resourceVersion=str(version)))
        store.observe(build.placement(host="fixed", resourceVersion=str(version)))
        for name in ("a", "b", "c", "fixed"):
            assert {p.key for p in index[name]} == {p.key for p in store if p.host == name}
    for item in list(store):
        store.forget(item.key, 99)
    assert [list(index[name]) for name in ("a", "b", "c", "fixed")] == [[], [], [], []]
    assert index._keys == {}


def test_an_index_may_be_read_while_its_store_changes() -> None:
    store: Store[PlacementView] = Store()
    index = Index(store, lambda p: p.zone)
    for name in ("a", "b", "c"):
        store.observe(build.placement(host=name))
    for item in index["zone-1"]:
        store.forget(item.key, 99)
    assert not len(store)


# --- agents


@pytest.fixture
def nodes(world: World) -> None:
    for number in (1, 2, 3):
        world.nodes.observe(kube.node(f"kvm-{number}"))


@pytest.mark.usefixtures("nodes")
def test_agents(world: World) -> None:
    later = NOW + seconds(30)
    assert world.agent("kvm-1", NOW) == Agent(False, NOW)
    assert world.agent("kvm-1", later) == Agent(False, NOW)
    world.pods.observe(kube.agent())
    world.pods.observe(kube.agent("kvm-2", name="agent-2", ready=False))
    assert world.agent("kvm-1", later) == Agent(True)
    assert world.agent("kvm-3", later) == Agent(False, later)
    world.pods.observe(kube.agent(deleting=True))
    assert world.agent("kvm-1", later) == Agent(False, later)


@pytest.mark.usefixtures("nodes")
def test_the_first_look_knows_how_long_an_agent_has_been_away(world: World) -> None:
    world.pods.observe(kube.agent(ready=False, since=NOW - seconds(500)))
    assert world.agent("kvm-1", NOW) == Agent(False, NOW - seconds(500))


@pytest.mark.usefixtures("nodes")
def test_a_pod_that_is_replaced_again_and_again_does_not_renew_the_grace(world: World) -> None:
    world.pods.observe(kube.agent())
    world.agent("kvm-1", NOW)
    for number in range(1, 5):
        moment = NOW + seconds(100 * number)
        world.pods.observe(kube.agent(ready=False, since=moment))
        assert world.agent("kvm-1", moment + seconds(1)).unready_since == NOW + seconds(101)
    world.pods.observe(kube.agent())
    assert world.agent("kvm-1", NOW + seconds(600)) == Agent(True)
    world.pods.observe(kube.agent(ready=None))
    assert world.agent("kvm-1", NOW + seconds(700)) == Agent(False, NOW + seconds(700))


# --- who wants a copy


@pytest.mark.parametrize(
    ("specs", "paused"),
    [
        ([], False),
        ([{}], False),
        ([{"paused": True}], True),
        ([{"paused": True}, {}], False),
        ([{"paused": True}, {"paused": True}], True),
        ([{"paused": True}, {"zone": "zone-2"}], True),
        ([{"paused": True}, {"pools": ["other"]}], True),
        ([{"paused": True}, {"hosts": ["kvm-2"]}], True),
        ([{"paused": True}, {"hostSelector": {"matchLabels": {"rack": "2"}}}], True),
        ([{"paused": True, "hostSelector": {"matchLabels": {"rack": "1"}}}, {"hosts": ["kvm-2"]}], True),
        ([{"paused": True, "hostSelector": {"matchLabels": {"gone": "label"}}}], True),
        ([{"paused": True}, {"deleting": True}], True),
        ([{"paused": True}, {"template": "another"}], True),
    ],
)
def test_a_copy_is_paused_when_all_who_want_it_are(world: World, specs: list[dict[str, Any]], paused: bool) -> None:
    world.hosts.observe(build.host(labels={"rack": "1"}))
    for number, spec in enumerate(specs):
        fields = {key: value for key, value in spec.items() if key not in ("paused", "deleting", "template")}
        fields["rollout"] = {"paused": spec.get("paused", False)}
        if "template" in spec:
            fields["templateRef"] = {"name": spec["template"]}
        world.deployments.observe(build.deployment(f"d{number}", spec=fields, deleting=spec.get("deleting", False)))
    assert surroundings.of(world, PLACEMENT, NOW).paused is paused


def test_a_shared_copy_is_wanted_by_whoever_names_another_of_its_hosts(world: World) -> None:
    world.hosts.observe(build.host())
    world.deployments.observe(build.deployment(spec={"hosts": ["kvm-2"], "rollout": {"paused": True}}))
    assert surroundings.of(world, build.placement(shared=True), NOW).paused


def test_surroundings_are_the_very_objects(world: World) -> None:
    empty = surroundings.of(world, PLACEMENT, NOW)
    assert (empty.template, empty.zone, empty.host, empty.pool) == (None, None, None, None)
    world.zones.observe(build.zone())
    world.hosts.observe(build.host())
    world.pools.observe(build.pool())
    world.templates.observe(build.template(uid="made anew under the old name"))
    found = surroundings.of(world, PLACEMENT, NOW)
    assert (found.zone, found.host, found.pool) == (build.zone(), build.host(), build.pool())
    assert (found.template, found.pool_roots) == (None, (build.ROOT,))
    world.templates.observe(build.template(resourceVersion="2"))
    assert surroundings.of(world, PLACEMENT, NOW).template is not None


# --- jobs and their pods


def test_no_job(world: World) -> None:
    assert world.job(PLACEMENT, NOW) is None
    world.jobs.observe(kube.job(build.placement(host="kvm-2")))
    world.jobs.observe(kube.job(PLACEMENT, uid="an earlier placement of this name"))
    assert world.job(PLACEMENT, NOW) is None
    assert world.result_due(world.jobs_of_placement[PLACEMENT.key]) is None


def test_the_latest_attempt_counts(world: World) -> None:
    for attempt in (2, 10, 9):
        world.jobs.observe(kube.job(PLACEMENT, attempt=attempt))
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert (found.attempt, found.verb, found.started, found.finished) == (10, Verb.FETCH, False, False)


def test_a_job_tells_what_its_pod_tells(world: World) -> None:
    job = kube.job(PLACEMENT)
    world.jobs.observe(job)
    states: list[tuple[dict[str, Any] | None, bool, bool, str]] = [
        (None, False, False, ""),
        ({"waiting": {"reason": "ContainerCreating"}}, False, False, "ContainerCreating"),
        ({"running": {}}, True, False, ""),
        (kube.ended(None, 137, "OOMKilled"), True, True, "OOMKilled"),
    ]
    for state, started, finished, hint in states:
        world.pods.observe(kube.pod(job, state=state))
        found = world.job(PLACEMENT, NOW)
        assert found is not None
        assert (found.started, found.finished, found.hint, found.result) == (started, finished, hint, None)


def test_the_result_of_the_latest_pod_counts(world: World) -> None:
    job = kube.job(PLACEMENT)
    world.jobs.observe(job)
    for number, reason in enumerate((Reason.TRUNCATED, Reason.DOWNLOADED, Reason.NFS_ERROR)):
        message = JobResult(reason=reason).to_message()
        age = seconds(60 * (number % 2))
        world.pods.observe(kube.pod(job, name=f"pod-{number}", state=kube.ended(message), created=NOW + age))
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert found.result is not None
    assert found.result.reason is Reason.DOWNLOADED


@pytest.mark.parametrize("how", ["Complete", "Failed"])
def test_a_job_that_ends_before_its_pod_is_given_a_moment(world: World, how: str) -> None:
    job = kube.job(PLACEMENT, ended=how)
    world.jobs.observe(job)
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    # it has ended, so it has run: nobody shall say that its pod never started
    assert (found.finished, found.started) == (False, True)
    assert world.result_due(world.jobs_of_placement[PLACEMENT.key]) == NOW + RESULT_GRACE
    early = world.job(PLACEMENT, NOW + RESULT_GRACE - seconds(0.1))
    assert early is not None
    assert not early.finished
    world.pods.observe(kube.pod(job, state=kube.ended(JobResult(reason=Reason.DOWNLOADED).to_message())))
    told = world.job(PLACEMENT, NOW + seconds(1))
    assert told is not None
    assert told.finished
    assert told.result is not None
    assert world.result_due(world.jobs_of_placement[PLACEMENT.key]) is None


def test_a_job_whose_pod_is_gone_counts_as_ended_after_the_grace(world: World) -> None:
    world.jobs.observe(kube.job(PLACEMENT, ended="Failed"))
    world.job(PLACEMENT, NOW)
    found = world.job(PLACEMENT, NOW + RESULT_GRACE)
    assert found is not None
    assert (found.finished, found.result, found.hint) == (True, None, "BackoffLimitExceeded")


def test_a_job_that_is_being_deleted_is_not_waited_for(world: World) -> None:
    world.jobs.observe(kube.job(PLACEMENT, ended="Failed", deleting=True))
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert found.deleting
    assert world.result_due(world.jobs_of_placement[PLACEMENT.key]) is None


LONG = JobResult(reason=Reason.SOURCE_REFUSED, message="x" * 9000, source="https://images.example.org/" + "y" * 2000)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (JobResult(reason=Reason.DOWNLOADED, digest=build.DIGEST, size_bytes=4096).to_message(), Reason.DOWNLOADED),
        (LONG.to_message(), Reason.SOURCE_REFUSED),
        ('{"reason": "Downloaded", "of a newer job": [1, 2]}', Reason.DOWNLOADED),
        ('{"reason": "Downloaded", "sizeBytes": 0}', Reason.DOWNLOADED),
        ('{"reason": "SourceUnavailable", "retryAfterSeconds": NaN}', Reason.SOURCE_UNAVAILABLE),
        (None, None),
        ("", None),
        ("garbage", None),
        ("null", None),
        ("[]", None),
        ('"Downloaded"', None),
        ("{}", None),
        ('{"reason": null}', None),
        ('{"reason": "Excellent"}', Reason.UNKNOWN),
        ('{"reason": "downloaded"}', Reason.UNKNOWN),
        ('{"reason": {"$ref": "x"}}', None),
        ("[" * 4000, None),
        ("\x00\ufffd" * 2000, None),
        (json.dumps({"reason": "Downloaded", "message": "x" * 9000})[-4096:], None),
        (json.dumps({"reason": "Downloaded", "message": "x" * 9000})[:4096], None),
        ('{"reason": "Downloaded", "sizeBytes": "many"}', None),
        ('{"reason": "Downloaded", "sizeBytes": -1}', None),
        ('{"reason": "Downloaded", "sizeBytes": 9223372036854775808}', None),
        ('{"reason": "Downloaded", "sizeBytes": 9223372036854775807}', Reason.DOWNLOADED),
        ('{"reason": "Downloaded", "virtualSizeBytes": 18446744073709551615}', None),
        ('{"reason": "Downloaded", "servedBytes": 9223372036854775808}', None),
        ('{"reason": "Downloaded", "virtualSizeBytes": 1' + "0" * 3000 + "}", None),
        ('{"reason": "Downloaded", "digest": "sha256:abc"}', None),
        ('{"reason": "Downloaded", "digest": "rm -rf"}', None),
        ('{"reason": "Downloaded", "retryAfterSeconds": []}', None),
    ],
)
def test_hostile_results(world: World, message: str | None, reason: Reason | None) -> None:
    job = kube.job(PLACEMENT)
    world.jobs.observe(job)
    world.pods.observe(kube.pod(job, state=kube.ended(message)))
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert found.finished
    assert (found.result.reason if found.result else None) is reason


def test_the_words_of_a_result_are_one_printable_line(world: World) -> None:
    words = "gone\r\n\x1b]0;owned\x07\u202e"
    job = kube.job(PLACEMENT)
    world.jobs.observe(job)
    told = json.dumps({"reason": "SourceRefused", "message": words, "format": words, "mediaType": words})
    world.pods.observe(kube.pod(job, state=kube.ended(told)))
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert found.result is not None
    assert {found.result.message, found.result.format, found.result.media_type} == {"gone   ]0;owned  "}


@pytest.mark.parametrize("field", ["message", "source", "etag"])
def test_secrets_in_the_words_of_a_result_are_masked_and_the_rest_is_read(world: World, field: str) -> None:
    job = kube.job(PLACEMENT)
    world.jobs.observe(job)
    # The quotation mark comes right after what is masked, and stands in JSON behind a backslash.
    told = json.dumps({"reason": "SourceRefused", field: 'it sent "http://images.example.org/x?key=planted" back'})
    world.pods.observe(kube.pod(job, state=kube.ended(told)))
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert found.result is not None
    assert found.result.reason is Reason.SOURCE_REFUSED
    assert getattr(found.result, field) == 'it sent "http://images.example.org/x?***" back'


def test_a_result_always_fits() -> None:
    for text in ("x", "\\", "\x00", "ü", "\U0001f600"):
        message = JobResult(reason=Reason.WRITE_FAILED, message=text * 9000, source=text * 9000).to_message()
        assert len(message.encode()) <= RESULT_LIMIT_BYTES
        assert JobResult.model_validate_json(message).reason is Reason.WRITE_FAILED


# --- the line before the slots


def test_the_first_with_room_is_called_and_leaves_the_line(world: World) -> None:
    zone, one, two = Group("zone/z", 2), Group("host/1", 1), Group("host/2", 1)
    for name, groups in (("a", (zone, one)), ("b", (zone, two)), ("c", (zone, two))):
        world.line.join(name, groups, 0)
    world.slots.occupy("job", ["zone/z", "host/1"])
    assert world.line.call(world.slots) == "b"
    assert (len(world.line), world.line.answer("b"), world.line.answer("b")) == (2, True, False)
    world.slots.occupy("job-b", ["zone/z", "host/2"])
    assert world.line.call(world.slots) is None
    world.slots.release("job")
    assert world.line.call(world.slots) == "a"


def test_whoever_waits_is_called_in_the_end_and_those_with_space_first(world: World) -> None:
    zone = Group("zone/z", 1)
    for order in itertools.permutations({"a": 10, "b": 30, "c": 30, "d": 20}.items()):
        for name, space in order:
            world.line.join(name, (zone,), space)
        assert [world.line.call(world.slots) for _ in range(5)] == ["b", "c", "d", "a", None]


# --- what is not there any more


def test_nothing_is_remembered_of_what_is_gone(world: World) -> None:
    """A controller that runs for years must not grow by what came and went."""
    world.nodes.observe(kube.node("kvm-9"))
    world.agent("kvm-9", NOW)
    job = kube.job(PLACEMENT, ended="Complete")
    world.jobs.observe(job)
    world.job(PLACEMENT, NOW)
    template, deployment = build.template(), build.deployment()
    world.templates.observe(template)
    world.deployments.observe(deployment)
    world.summaries.update({template.uid: 1.0, deployment.uid: 2.0})
    world.secrets[template.uid] = header_secrets.Found("token", None, NOW, NOW)
    world.equipped[job.uid] = True
    world.refused[template.uid] = frozenset({"copy"})
    before = world.result_due(world.jobs_of_placement[PLACEMENT.key])
    assert before is not None
    for store, key in (
        (world.nodes, "kvm-9"),
        (world.jobs, job.key),
        (world.templates, template.key),
        (world.deployments, deployment.key),
    ):
        store.forget(key, 10**9)
    memories = (
        *(world.summaries, world._agent_missing_since, world._result_missing_since),
        *(world.secrets, world.equipped, world.refused),
    )
    assert [len(memory) for memory in memories] == [0] * 6
    # A reconcile that has waited for an answer meanwhile, and one of a Host whose node is gone for good.
    world.summaries[template.uid] = world.summaries[deployment.uid] = 1.0
    world.secrets[template.uid] = header_secrets.Found("token", None, NOW, NOW)
    world.equipped[job.uid] = True
    world.refused[template.uid] = frozenset({"copy"})
    world.agent("kvm-9", NOW)
    assert [len(memory) for memory in memories] == [0] * 6


# --- probes


def test_a_probe_is_known_by_its_template_and_never_as_a_job_of_a_placement(world: World) -> None:
    template = build.template()
    name = naming.probe_name(template.name, template.uid)
    world.templates.observe(template)
    assert world.probe(name, NOW) is None
    for attempt in (1, 3, 2):
        world.jobs.observe(kube.probe(template, attempt))
    found = world.probe(name, NOW)
    assert found is not None
    assert (found.job.verb, found.job.attempt, found.job.finished) == (Verb.PROBE, 3, False)
    assert (found.host, found.request, found.inputs) == ("kvm-1", "", "told")
    assert [each.key for each in world.templates_of_probe[name]] == [template.key]
    assert world.job(PLACEMENT, NOW) is None


def test_what_a_probe_answers_is_read_from_its_pod(world: World) -> None:
    job = kube.probe(build.template(), 1)
    world.jobs.observe(job)
    answer = JobResult(reason=Reason.SOURCE_REACHABLE, size_bytes=7, etag='"x"')
    world.pods.observe(kube.pod(job, state=kube.ended(answer.to_message())))
    found = world.probe(job.labels[PROBE_LABEL], NOW)
    assert found is not None
    assert found.job.result == answer


def test_a_probe_that_ends_without_a_word_is_given_a_moment(world: World) -> None:
    job = kube.probe(build.template(), 1, ended="Failed")
    world.jobs.observe(job)
    name = job.labels[PROBE_LABEL]
    early, late = world.probe(name, NOW), world.probe(name, NOW + RESULT_GRACE)
    assert early is not None
    assert late is not None
    assert (early.job.finished, late.job.finished) == (False, True)
    world.probe(name, NOW)
    assert world.result_due(world.jobs_of_probe[name]) == NOW + RESULT_GRACE


# --- hosts that leave, hosts that take over


@pytest.mark.parametrize(
    ("node", "labels", "departed"),
    [(False, {}, True), (True, {}, True), (True, {"zone": "zone-1"}, False)],
)
def test_a_host_has_departed_when_nothing_makes_it_again(
    world: World, node: bool, labels: dict[str, str], departed: bool
) -> None:
    world.zones.observe(build.zone())
    if node:
        world.nodes.observe(kube.node("kvm-1", labels=labels))
    assert surroundings.of(world, PLACEMENT, NOW).departed is departed
    world.hosts.observe(build.host())
    assert not surroundings.of(world, PLACEMENT, NOW).departed


def test_a_shared_copy_goes_to_a_host_that_a_deployment_selects_else_to_any(world: World) -> None:
    world.zones.observe(build.zone())
    world.pools.observe(build.pool(spec=build.SHARED))
    copy = build.placement(shared=True, phase="Pending")
    world.placements.observe(copy)
    world.hosts.observe(build.host("kvm-1", "Down", storage=[build.facts()]))
    assert surroundings.of(world, copy, NOW).successor == ""
    world.hosts.observe(build.host("kvm-2", storage=[build.facts(availableBytes=9)]))
    world.hosts.observe(build.host("kvm-3", storage=[build.facts(availableBytes=1)]))
    assert surroundings.of(world, copy, NOW).successor == "kvm-2"
    world.deployments.observe(build.deployment(spec={"hosts": ["kvm-1", "kvm-3"]}))
    assert surroundings.of(world, copy, NOW).successor == "kvm-3"
    world.hosts.observe(build.host("kvm-3", "Down", resourceVersion="2"))
    assert surroundings.of(world, copy, NOW).successor == "kvm-2"
    world.hosts.observe(build.host("kvm-1", storage=[build.facts()], resourceVersion="2"))
    assert surroundings.of(world, copy, NOW).successor == ""


def test_a_copy_of_its_own_never_goes_to_another_host(world: World) -> None:
    world.zones.observe(build.zone())
    world.pools.observe(build.pool())
    world.hosts.observe(build.host("kvm-1", "Down", storage=[build.facts()]))
    world.hosts.observe(build.host("kvm-2", storage=[build.facts()]))
    assert surroundings.of(world, PLACEMENT, NOW).successor == ""


def test_a_file_is_claimed_by_another_placement_of_its_host_that_stays(world: World) -> None:
    going, twin = build.placement(phase="Removing"), build.placement(pool="other", zone="zone-2", phase="Ready")
    world.placements.observe(going)
    assert not surroundings.of(world, going, NOW).claimed
    world.placements.observe(twin)
    assert surroundings.of(world, going, NOW).claimed
    world.placements.observe(build.placement(pool="other", zone="zone-2", phase="Removing", resourceVersion="2"))
    assert not surroundings.of(world, going, NOW).claimed
    world.placements.observe(build.placement(pool="third", host="kvm-2", phase="Ready"))
    assert not surroundings.of(world, going, NOW).claimed


def test_a_pod_whose_job_is_gone_counts_until_it_has_ended(world: World) -> None:
    """It may publish the file until its end: whoever removes that file must come after it."""
    job = kube.job(PLACEMENT, attempt=2)
    states: list[dict[str, Any] | None] = [None, {"waiting": {"reason": "ContainerCreating"}}, {"running": {}}]
    for state in states:
        world.pods.observe(kube.pod(job, state=state))
        found = world.job(PLACEMENT, NOW)
        assert found is not None
        assert (found.deleting, found.started, found.result) == (True, True, None)
    world.pods.observe(kube.pod(job, state=kube.ended(None, 137, "Error")))
    assert world.job(PLACEMENT, NOW) is None


def test_a_pod_on_another_host_holds_up_no_take_over(world: World) -> None:
    world.pods.observe(kube.pod(kube.job(PLACEMENT), state={"running": {}}))
    assert world.job(dataclasses.replace(PLACEMENT, host="kvm-2"), NOW) is None


def test_a_pod_that_was_never_run_holds_nothing_up(world: World) -> None:
    pod = kube.pod(kube.job(PLACEMENT), state=None)
    world.pods.observe(dataclasses.replace(pod, phase="Failed"))
    assert world.job(PLACEMENT, NOW) is None


def test_what_the_pod_of_an_earlier_job_of_the_same_name_said_counts_for_nothing(world: World) -> None:
    """A copy that was let go and is wanted again begins with attempt 1 once more; the old pod may still be there."""
    job = kube.job(PLACEMENT)
    earlier = dataclasses.replace(job, uid="earlier")
    message = JobResult(reason=Reason.DOWNLOADED).to_message()
    world.pods.observe(kube.pod(earlier, name="old", state=kube.ended(message)))
    world.jobs.observe(job)
    found = world.job(PLACEMENT, NOW)
    assert found is not None
    assert (found.started, found.finished, found.result) == (False, False, None)


# --- certificates


def test_rivals_are_the_others_of_zone_and_alias_in_any_case(world: World) -> None:
    mine = build.certificate()
    for other in (
        mine,
        build.certificate("same", spec={"alias": "MY-CA"}),
        build.certificate("elsewhere", spec={"zone": "zone-2"}),
        build.certificate("another", spec={"alias": "my-ca-2"}),
    ):
        world.certificates.observe(other)
    assert [rival.name for rival in world.rivals(mine)] == ["same"]


def test_what_was_read_for_a_certificate_and_of_a_host_goes_with_it(world: World) -> None:
    reference = CertificateReference(kind="Secret", name="ca", key="ca.crt")
    mine = build.certificate()
    world.certificates.observe(mine)
    world.hosts.observe(build.host())
    world.sources[mine.uid] = Found(reference, 1, Source(None))
    assert "kvm-1" in world.drifts
    world.summaries[mine.uid] = 1.0
    world.certificates.observe(build.certificate(uid="made-anew", resourceVersion="2"))
    assert not world.sources
    world.certificates.forget("my-ca", 9)
    world.hosts.forget("kvm-1", 9)
    assert not world.drifts


def test_of_a_secret_nothing_is_kept_but_that_it_is_there() -> None:
    document = {
        "metadata": {
            "name": "ca",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "7",
            "annotations": {"a": "hunter2"},
        },
        "data": {"tls.key": "hunter2"},
    }
    found = project_revision(document)
    assert found == Revision("ns/ca", "ca", "u", 7)
    assert "hunter2" not in repr(found)


def test_what_is_told_by_the_annotations_of_a_job_is_cut(world: World) -> None:
    """It is handed on into a status, where more than it holds would be refused each time."""
    annotations = {REQUESTED_AT: "r" * 300, INPUTS_ANNOTATION: "i" * 300, HOST_ANNOTATION: "kvm-1"}
    template = build.template()
    name = naming.probe_name(template.name, template.uid)
    world.jobs.observe(dataclasses.replace(kube.probe(template), annotations=annotations))
    probe = world.probe(name, NOW)
    assert probe is not None
    assert (probe.request, probe.inputs, probe.job.request) == ("r" * 253, "i" * 253, "r" * 253)


def test_the_architecture_of_a_host_counts_before_its_status_has_it(world: World) -> None:
    """An older definition does not keep the field, and after an upgrade it is written for one Host after the other."""
    world.nodes.observe(kube.node("kvm-1", labels={"kubernetes.io/arch": "arm64"}))
    world.hosts.observe(build.host("kvm-1"))
    (known,) = world.fleet().hosts
    assert known.status.architecture is Architecture.AARCH64
    world.hosts.observe(build.host("kvm-1", status={"architecture": "x86_64"}, resourceVersion="2"))
    (told,) = world.fleet().hosts
    assert told.status.architecture is Architecture.X86_64
