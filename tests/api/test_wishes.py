"""Wishes change while they are being fulfilled: what is no longer wanted ends and goes, and nothing else does."""

from typing import Any

import pytest
from tests.world.disks import SIZE_BYTES, File, digest_of
from tests.world.kube import Object
from tests.world.simulation import DIGEST, Simulation, fail, succeed
from tests.world.steps import (
    ask,
    counted,
    delete,
    deployed,
    edit,
    empty,
    file_of,
    hang,
    hosts_of_a_zone,
    kill,
    settle,
    state,
    states,
    until_state,
)
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult, Verb
from directdownload.resources.reasons import Reason

READY = ("Ready", "Downloaded")
DEPLOYMENTS = kinds.TEMPLATE_DEPLOYMENTS


def fetches_hang(document: JobDocument) -> JobResult | None:
    return None if document.verb is Verb.FETCH else succeed(document)


def test_what_a_narrowed_deployment_drops_in_mid_download_ends_and_leaves_nothing(world: Simulation) -> None:
    kept, *dropped = hosts_of_a_zone(world, 3)
    world.behaviour = fetches_hang
    world.start_controller()
    world.create_template()
    world.deploy()
    until("all downloads", lambda: len(world.started) == 3)
    until_state(world, kept, "Downloading")
    assert all(world.disk(host).parts for host in (kept, *dropped))
    edit(world, DEPLOYMENTS, "everywhere", {"hosts": [kept]})
    until("two placements to go", lambda: list(states(world)) == [kept])
    until("the downloads to end", lambda: [run.machine.name for run in world.kubelets.running()] == [kept])
    assert all(empty(world, host) for host in dropped)
    world.behaviour = succeed
    world.converged(1)
    settle(world)
    assert counted(world) == {
        (kept, "fetch"): 1,
        **{(host, verb): 1 for host in dropped for verb in ("fetch", "remove")},
    }


def test_a_widened_deployment_fetches_only_what_is_new(world: Simulation) -> None:
    first, second, third = hosts_of_a_zone(world, 3)
    world.start_controller()
    world.create_template()
    world.deploy(hosts=[first])
    world.converged(1)
    edit(world, DEPLOYMENTS, "everywhere", {"hosts": [first, second]})
    world.converged(2)
    assert counted(world) == {(first, "fetch"): 1, (second, "fetch"): 1}
    edit(world, DEPLOYMENTS, "everywhere", {"hosts": []})
    world.converged(3)
    settle(world)
    assert counted(world) == {(host, "fetch"): 1 for host in (first, second, third)}


def test_a_paused_deployment_finishes_what_runs_and_goes_on_when_resumed(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 3)
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy(rollout={"maxParallel": 1})
    until("one download", lambda: sorted(states(world).values())[:1] == [("Downloading", "Downloading")])
    until("the others to wait", lambda: sorted(states(world).values())[1:] == [("Pending", "WaitingForSlot")] * 2)
    edit(world, DEPLOYMENTS, "everywhere", {"rollout": {"paused": True}})
    world.behaviour = succeed
    until("the running one", lambda: sorted(states(world).values()) == [("Pending", "Paused")] * 2 + [READY])
    settle(world)
    assert len(world.started) == 1
    until("the reason", lambda: world.ready_reason(DEPLOYMENTS, "everywhere") == "Paused")
    edit(world, DEPLOYMENTS, "everywhere", {"rollout": {"paused": False}})
    world.converged(3)
    assert counted(world) == {(host, "fetch"): 1 for host in hosts}


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_deleted_deployment_takes_its_files_along_or_retains_them(world: Simulation, policy: str) -> None:
    hosts, foreign = hosts_of_a_zone(world, 2), File(digest_of("someone"), SIZE_BYTES)
    world.start_controller()
    world.create_template()
    world.deploy(deletionPolicy=policy)
    world.converged(2)
    for host in hosts:
        world.disk(host).files["someone.qcow2"] = foreign
    delete(world, DEPLOYMENTS, "everywhere")
    until("the placements to go", lambda: not world.placements())
    until("the deployment to go", lambda: world.gone(DEPLOYMENTS, "everywhere"))
    settle(world)
    removed = policy == "Delete"
    assert [verb for _, verb, _ in world.started].count("remove") == (2 if removed else 0)
    for host in hosts:
        assert len(world.disk(host).files) == (1 if removed else 2)
        assert world.disk(host).files["someone.qcow2"] == foreign
    # Wanted again, retained files are found and not fetched anew.
    world.deploy(deletionPolicy=policy)
    world.converged(2)
    expected = READY if removed else ("Ready", "AlreadyPresent")
    assert list(states(world).values()) == [expected] * 2


def test_a_copy_that_two_deployments_want_goes_with_the_second(world: Simulation) -> None:
    hosts = deployed(world, 2)
    world.deploy("also", hosts=hosts[:1])
    world.converged(1, "also")
    before = world.placement(hosts[0])["metadata"]["uid"]
    delete(world, DEPLOYMENTS, "everywhere")
    until("the other copy to go", lambda: list(states(world)) == hosts[:1])
    settle(world)
    assert counted(world) == {**{(host, "fetch"): 1 for host in hosts}, (hosts[1], "remove"): 1}
    assert world.placement(hosts[0])["metadata"]["uid"] == before
    delete(world, DEPLOYMENTS, "also")
    until("the last copy to go", lambda: not world.placements())
    assert empty(world, hosts[0])


def test_a_paused_deployment_holds_up_no_copy_that_another_one_wants(world: Simulation) -> None:
    both, paused_only = hosts_of_a_zone(world, 2)
    world.start_controller()
    world.create_template()
    world.deploy("paused", rollout={"paused": True, "maxParallel": 1})
    world.deploy("going", hosts=[both])
    world.converged(1, "going")
    until_state(world, paused_only, "Pending", "Paused")
    settle(world)
    assert counted(world) == {(both, "fetch"): 1}


@pytest.mark.parametrize(("other", "at_once"), [(0, 3), (2, 1)], ids=["no-limit", "a-limit-of-its-own"])
def test_a_limit_of_one_deployment_counts_only_if_all_that_want_the_copy_have_one(
    world: Simulation, other: int, at_once: int
) -> None:
    hosts_of_a_zone(world, 3)
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    # Otherwise the one that is seen first would be alone for a moment.
    edit(world, kinds.ZONES, world.zone, {"enabled": False})
    world.deploy("narrow", rollout={"maxParallel": 1})
    world.deploy("wide", rollout={"maxParallel": other})
    until("all to wait", lambda: list(states(world).values()) == [("Pending", "ZoneDisabled")] * 3)
    settle(world)
    edit(world, kinds.ZONES, world.zone, {"enabled": True})
    until("downloads", lambda: len(world.kubelets.running()) == at_once)
    settle(world)
    assert len(world.started) == at_once
    world.behaviour = succeed
    world.converged(3, "narrow")
    assert world.most_active <= at_once


def test_another_namespace_deploys_while_it_is_allowed_and_holds_what_it_has(world: Simulation) -> None:
    first, second = hosts_of_a_zone(world, 2)
    tenant = world.create_namespace("tenant", team="blue")
    world.start_controller()
    world.create_template(allowedNamespaces={"matchLabels": {"team": "blue"}})
    reference = {"name": "debian", "namespace": world.namespace}
    world.deploy("theirs", namespace=tenant, templateRef=reference, hosts=[first])
    until_state(world, first, *READY)
    edit(world, kinds.TEMPLATES, "debian", {"allowedNamespaces": {"matchLabels": {"team": "red"}}})
    until("the refusal", lambda: _ready_reason(world, tenant) == "TemplateNotAllowed")
    settle(world)
    assert states(world) == {first: READY}
    # With another selection than the one that was granted it decides nothing: it lets go, and the file stays.
    edit(world, DEPLOYMENTS, "theirs", {"hosts": [first, second]}, tenant)
    until("the placement to go", lambda: not world.placements())
    settle(world)
    assert not empty(world, first)
    assert counted(world) == {(first, "fetch"): 1}
    # By the labels of the namespace as well as by the selector.
    with world.kube() as kube:
        kube.patch(kinds.NAMESPACES, tenant, {"metadata": {"labels": {"team": "red"}}}).object()
    until_state(world, first, "Ready", "AlreadyPresent")
    until_state(world, second, *READY)
    with world.kube() as kube:
        kube.delete(DEPLOYMENTS, "theirs", tenant).object()
    until("the placements to go", lambda: not world.placements())
    assert all(empty(world, host) for host in (first, second))


def _ready_reason(world: Simulation, namespace: str) -> str:
    conditions = world.get(DEPLOYMENTS, "theirs", namespace).get("status", {}).get("conditions", ())
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


def test_a_template_made_again_under_its_name_is_fetched_anew_and_the_old_file_goes(world: Simulation) -> None:
    """On one host the old file is in use for a while: that holds up neither the Template nor the new file."""
    busy, free = deployed(world, 2)
    old = file_of(world.placement(busy))
    world.disk(busy).in_use.add(old)
    delete(world, kinds.TEMPLATES, "debian")
    until("the template to go", lambda: world.gone(kinds.TEMPLATES, "debian"))
    until("the reason", lambda: world.ready_reason(DEPLOYMENTS, "everywhere") == "TemplateNotFound")
    world.create_template()
    new = world.get(kinds.TEMPLATES, "debian")["metadata"]["uid"]
    world.converged(2)
    until("the old file to go", lambda: set(world.disk(free).files) == {new})
    assert set(world.disk(busy).files) == {old, new}
    world.disk(busy).in_use.clear()
    until("the other old file to go", lambda: set(world.disk(busy).files) == {new})
    until("its placement to go", lambda: len(world.placements()) == 2)
    settle(world)
    assert {h: (n["fetch"], n["remove"] > 0) for h, n in _by_host(world).items()} == {
        busy: (2, True),
        free: (2, True),
    }
    world.converged(2)


def _by_host(world: Simulation) -> dict[str, dict[str, int]]:
    found = counted(world)
    return {host: {verb: found[host, verb] for verb in ("fetch", "remove")} for host, _ in found}


def test_a_template_that_vanished_by_force_leaves_its_files(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 2)
    controller = world.start_controller("first")
    world.create_template()
    world.deploy()
    world.converged(2)
    name = file_of(world.placement(hosts[0]))
    kill(world, controller)
    with world.kube() as kube:
        kube.patch(kinds.TEMPLATES, "debian", {"metadata": {"finalizers": None}}, world.namespace).object()
    delete(world, kinds.TEMPLATES, "debian")
    assert world.gone(kinds.TEMPLATES, "debian")
    world.start_controller("second")
    until("the placements to be released", lambda: not world.placements())
    settle(world)
    assert counted(world) == {(host, "fetch"): 1 for host in hosts}
    assert [set(world.disk(host).files) for host in hosts] == [{name}] * 2


def test_a_host_label_that_vanishes_removes_nothing_until_the_selection_is_edited(world: Simulation) -> None:
    world.create_zone()
    lost, kept = (world.add_host(f"kvm-{number}", labels={"tier": "gold"}) for number in (1, 2))
    world.start_controller()
    world.create_template()
    world.deploy(hostSelector={"matchLabels": {"tier": "gold"}})
    world.converged(2)
    world.relabel(lost, tier=None)
    until("the label to go", lambda: "tier" not in world.get(kinds.HOSTS, lost)["metadata"].get("labels", {}))
    settle(world)
    edit(world, DEPLOYMENTS, "everywhere", {"rollout": {"maxParallel": 7}})
    settle(world)
    assert states(world) == {lost: READY, kept: READY}
    assert counted(world) == {(lost, "fetch"): 1, (kept, "fetch"): 1}
    edit(world, DEPLOYMENTS, "everywhere", {"hostSelector": {"matchLabels": None, "matchExpressions": [GOLD]}})
    until("the placement to go", lambda: states(world) == {kept: READY})
    assert empty(world, lost)


GOLD = {"key": "tier", "operator": "In", "values": ["gold"]}


def test_a_disabled_zone_finishes_what_runs_and_starts_nothing_until_it_is_enabled(world: Simulation) -> None:
    hosts_of_a_zone(world, 2, maxParallel=1)
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy()
    until("one to wait", lambda: ("Pending", "WaitingForSlot") in states(world).values())
    edit(world, kinds.ZONES, world.zone, {"enabled": False})
    world.behaviour = succeed
    until("the running one", lambda: sorted(states(world).values()) == [("Pending", "ZoneDisabled"), READY])
    settle(world)
    assert len(world.started) == 1
    # What shall go waits as well, and is not forgotten.
    edit(world, DEPLOYMENTS, "everywhere", {"hosts": [h for h, found in states(world).items() if found != READY]})
    until("the reason", lambda: ("Removing", "ZoneDisabled") in states(world).values())
    settle(world)
    assert len(world.started) == 1
    edit(world, kinds.ZONES, world.zone, {"enabled": True})
    world.converged(1)
    until("the other placement to go", lambda: len(world.placements()) == 1)
    assert sorted(verb for _, verb, _ in world.started) == ["fetch", "fetch", "remove"]


@pytest.mark.parametrize("limited", ["zone", "deployment"])
def test_a_limit_that_is_raised_lets_waiting_copies_go_at_once(world: Simulation, limited: str) -> None:
    hosts_of_a_zone(world, 3, maxParallel=1 if limited == "zone" else 0)
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy(rollout={"maxParallel": 1 if limited == "deployment" else 0})
    until("two to wait", lambda: list(states(world).values()).count(("Pending", "WaitingForSlot")) == 2)
    until("one to run", lambda: len(world.started) == 1)
    if limited == "zone":
        edit(world, kinds.ZONES, world.zone, {"downloads": {"maxParallel": 3}})
    else:
        edit(world, DEPLOYMENTS, "everywhere", {"rollout": {"maxParallel": "100%"}})
    until("all to run", lambda: len(world.kubelets.running()) == 3)


def test_a_request_on_any_object_gets_its_failed_copy_going_again(world: Simulation) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    world.behaviour = lambda _: fail(Reason.CHECKSUM_MISMATCH)
    # Shorter than what `settle` waits: else the copy would let each of them wait for a minute.
    world.request_interval_seconds = 1
    world.start_controller()
    world.create_template()
    world.deploy()
    placement = until_state(world, host, "Failed", "ChecksumMismatch")
    objects = [
        (kinds.ZONES, world.zone),
        (kinds.HOSTS, host),
        (kinds.STORAGE_POOLS, world.pool),
        (kinds.TEMPLATES, "debian"),
        (DEPLOYMENTS, "everywhere"),
        (kinds.TEMPLATE_PLACEMENTS, placement["metadata"]["name"]),
    ]
    for attempt, (kind, name) in enumerate(objects, 2):
        value = ask(world, kind, name)
        until(f"attempt {attempt}, by {kind.kind}", lambda attempt=attempt: _failed(world, host, attempt))  # type: ignore[misc]
        until("the answer", lambda kind=kind, name=name, value=value: _served(world.get(kind, name), value))  # type: ignore[misc]
        settle(world)
        assert len(world.started) == attempt
    world.behaviour = succeed
    ask(world, kinds.HOSTS, host)
    world.converged(1)


def _failed(world: Simulation, host: str, attempts: int) -> bool:
    status = world.placement(host)["status"]
    return (status["phase"], status["attempts"]) == ("Failed", attempts)


def _served(found: Object, value: str) -> bool:
    return bool(found["status"].get("lastHandledRequest") == value)


@pytest.mark.parametrize(
    ("kind", "remedy", "irrelevant"),
    [
        (kinds.ZONES, {"sourcePolicy": {"maxRedirects": 9}}, {"downloads": {"maxParallel": 7}}),
        (kinds.TEMPLATES, {"mirrors": ["http://mirror.example.org/debian.qcow2"]}, {"displayText": "Debian"}),
    ],
    ids=["zone", "template"],
)
def test_a_failed_copy_goes_on_by_itself_after_what_it_was_told_has_changed(
    world: Simulation, kind: kinds.Resource, remedy: dict[str, Any], irrelevant: dict[str, Any]
) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    world.behaviour = lambda _: fail(Reason.TOO_MANY_REDIRECTS)
    world.start_controller()
    world.create_template()
    world.deploy()
    until_state(world, host, "Failed", "TooManyRedirects")
    name = world.zone if kind is kinds.ZONES else "debian"
    edit(world, kind, name, irrelevant)
    settle(world)
    assert (state(world, host)[0], len(world.started)) == ("Failed", 1)
    world.behaviour = succeed
    edit(world, kind, name, remedy)
    world.converged(1)
    assert len(world.started) == 2
    assert next(iter(world.disk(host).files.values())).digest == DIGEST
