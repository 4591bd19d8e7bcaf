"""Volumes: which copies they want and hold, when they let go, what is refused, and the answers that their pods read."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, TEMPLATE_UID, Document, by_key, seconds

from directdownload.planning import demands, deployments, placements, plans, served, slots, steps
from directdownload.planning.conditions import Verdict
from directdownload.planning.demands import Demands
from directdownload.planning.observed import ObservedHost, PlacementView
from directdownload.planning.plans import Step
from directdownload.planning.selection import Fleet
from directdownload.resources.host import SERVED_MESSAGE_LENGTH, Served, ServedState
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.zone import Zone

SINCE = NOW - seconds(7200)
LABELS: Mapping[str, Mapping[str, str]] = {"default": {"vms": "yes"}, "team-a": {"vms": "yes"}, "team-b": {}}
TEMPLATE = build.template()
MINE = f"{build.POOL_PATH}/{TEMPLATE_UID}"


def zone(name: str = "zone-1", *, on_demand: Document | None = None, **spec: Any) -> Zone:
    wishes = {"enabled": True, "namespaces": {"matchLabels": {"vms": "yes"}}, **(on_demand or {})}
    return build.zone(name, spec={"onDemand": wishes, **spec})


def demand(template: str = "debian-13", *, unused: float | None = None, **fields: Any) -> Document:
    """One volume that waits; `unused`: none, since so many seconds."""
    idle = {} if unused is None else {"volumes": 0, "lastUsedTime": build.stamp(NOW - seconds(unused))}
    return {
        "namespace": "default",
        "template": template,
        "since": build.stamp(SINCE),
        "volumes": 1,
        **idle,
        **fields,
    }


def host(*found: Document, name: str = "kvm-1", state: str = "Up", **status: Any) -> ObservedHost:
    pools = [build.facts("local"), build.facts("fast")]
    return build.host(name, state, storage=pools, status={"demands": list(found), **status})


def fleet(*hosts: ObservedHost, **fields: Any) -> Fleet:
    return build.fleet(hosts, **{"zones": [zone()], "namespaces": LABELS, **fields})


def wished(found: Fleet, existing: Mapping[str, PlacementView] = {}, template: Template = TEMPLATE) -> Demands:
    return steps.finish(demands.of_template(template, found.hosts, found, existing, NOW))


def changes(
    found: Fleet, *existing: PlacementView, template: Template = TEMPLATE, deployed: Any = ()
) -> deployments.PlacementChanges:
    there = by_key(*existing)
    return deployments.plan_placements(template, deployed, found, there, demands=wished(found, there, template))


def refused(found: Fleet, template: Template | None = TEMPLATE) -> Verdict | None:
    (first, *_) = found.hosts
    asking = demands.asked(first, found.zones.get("zone-1"), found.labels_of)[-1]
    return demands.refusal(asking, template, found.judge)


def answers(
    found: Fleet, *existing: PlacementView, template: Template | None = TEMPLATE, **fields: Any
) -> tuple[Served, ...]:
    (first, *_) = found.hosts
    there = by_key(*existing)
    answered = []
    for asking in demands.asked(first, found.zones.get("zone-1"), found.labels_of):
        uid = asking.demand.uid or (template.uid if template is not None else "")
        seen = demands.copies(first, "debian-13", uid, found.pools, there.get, found.pool_roots)
        answered.append(served.answer(asking, template, seen, found.judge, NOW, **fields))
    return tuple(answered)


def answer(found: Fleet, *existing: PlacementView, **fields: Any) -> Served:
    (only,) = answers(found, *existing, **fields)
    return only


# The copies that volumes want


def test_a_volume_makes_a_copy_on_its_host_and_on_no_other() -> None:
    (target,) = changes(fleet(host(demand()), host(name="kvm-2"))).create
    assert (target.host, target.pool, target.namespace, target.path) == ("kvm-1", "local", "default", MINE)


def test_ten_volumes_of_two_namespaces_make_one_copy() -> None:
    other = build.template(spec={"allowedNamespaces": {}})
    both = host(demand(volumes=10), demand("default/debian-13", namespace="team-a"))
    assert len(changes(fleet(both), template=other).create) == 1


def test_a_copy_of_a_deployment_serves_volumes() -> None:
    ready = build.placement(phase="Ready")
    found = changes(fleet(host(demand())), ready, deployed=[build.deployment()])
    assert found == deployments.PlacementChanges()


TWO = [build.pool("local"), build.pool("fast", spec={"path": f"{build.ROOT}/fast"})]


@pytest.mark.parametrize(
    ("pool", "phases", "expected"),
    [
        (None, {}, "fast"),
        ("local", {}, "local"),
        ("none", {}, None),
        ("fast", {"local": "Ready"}, "local"),
        (None, {"local": "Downloading"}, "local"),
        (None, {"fast": "Pending", "local": "Ready"}, "local"),
        (None, {"local": "Removing"}, "fast"),
    ],
)
def test_the_pool_of_a_volume(pool: str | None, phases: Mapping[str, str], expected: str | None) -> None:
    """The copy that is there, wherever it is; else the pool that the Zone names, or the first usable one."""
    found = fleet(host(demand()), zones=[zone(on_demand={"pool": pool} if pool else {})], pools=TWO)
    there = by_key(*(build.placement(pool=name, phase=phase) for name, phase in phases.items()))
    assert [target.pool for target in wished(found, there).targets.values()] == ([expected] if expected else [])


def test_a_pool_that_is_not_usable_comes_last() -> None:
    storage = [build.facts("fast", reason="NotMounted"), build.facts("local")]
    unmounted = build.host(storage=storage, status={"demands": [demand()]})
    assert [target.pool for target in wished(fleet(unmounted, pools=TWO)).targets.values()] == ["local"]


def test_a_shared_pool_has_one_copy_for_the_volumes_of_all_hosts() -> None:
    shared = build.pool(spec=build.SHARED)
    found = fleet(*(host(demand(), name=name) for name in ("kvm-1", "kvm-2")), pools=[shared])
    assert len(changes(found).create) == 1


def test_a_copy_that_was_to_go_is_wanted_again() -> None:
    removing = build.placement(phase="Removing")
    assert changes(fleet(host(demand())), removing).restore == (removing,)


# How long they hold it, and when it goes


@pytest.mark.parametrize(
    ("found", "fate"),
    [
        (demand(), "stays"),
        (demand(uid=TEMPLATE_UID), "stays"),
        (demand(uid=TEMPLATE_UID, unused=3599), "stays"),
        (demand(uid=TEMPLATE_UID, unused=3600), "remove"),
        (demand(unused=3600), "remove"),
        (demand(uid=TEMPLATE_UID, volumes=0), "stays"),
        (demand(uid="of-another", unused=3600), "release"),
        (None, "release"),
    ],
)
def test_the_file_goes_once_its_last_volume_is_gone_for_long_enough(found: Document | None, fate: str) -> None:
    ready = build.placement(phase="Ready")
    plan = changes(fleet(host(*filter(None, [found]))), ready)
    expected: dict[str, Any] = {"stays": {}, "remove": {"remove": (ready,)}, "release": {"release": (ready,)}}[fate]
    assert plan == deployments.PlacementChanges(**expected)


SPENT = demand(uid=TEMPLATE_UID, unused=100_000)


@pytest.mark.parametrize(
    "found",
    [
        fleet(host(SPENT, state="Down")),
        fleet(host(SPENT, state="Maintenance")),
        fleet(host(SPENT), zones=[zone(on_demand={"enabled": False})]),
        fleet(host(SPENT), zones=[zone(enabled=False)]),
        fleet(host(SPENT), zones=[]),
        fleet(host()),
        fleet(),
    ],
    ids=["host Down", "host in Maintenance", "onDemand off", "Zone disabled", "Zone gone", "ledger wiped", "Host gone"],
)
def test_what_is_no_evidence_removes_nothing(found: Fleet) -> None:
    assert changes(found, build.placement(phase="Ready")).remove == ()


def test_a_copy_stays_while_one_of_two_namespaces_has_volumes() -> None:
    template = build.template(spec={"allowedNamespaces": {}})
    other = demand("default/debian-13", namespace="team-a", uid=TEMPLATE_UID)
    ready = build.placement(phase="Ready")
    found = changes(fleet(host(SPENT, other)), ready, template=template)
    assert (found.remove, found.release) == ((), ())
    assert found.charge == ((ready, "team-a"),)


def test_a_shared_copy_stays_while_the_volumes_of_any_host_hold_it() -> None:
    pools = [build.pool(spec=build.SHARED)]
    ready = build.placement(phase="Ready", shared=True)
    using = fleet(host(SPENT), host(demand(uid=TEMPLATE_UID), name="kvm-2"), pools=pools)
    assert changes(using, ready) == deployments.PlacementChanges()
    gone = fleet(host(SPENT), host(SPENT, name="kvm-2"), pools=pools)
    assert changes(gone, ready).remove == (ready,)


def test_volumes_of_other_hosts_do_not_hold_a_local_copy() -> None:
    ready = build.placement(phase="Ready")
    found = fleet(host(SPENT), host(demand(uid=TEMPLATE_UID), name="kvm-2"))
    assert changes(found, ready).remove == (ready,)


def test_a_deployment_keeps_what_volumes_let_go() -> None:
    ready = build.placement(phase="Ready")
    assert changes(fleet(host(SPENT)), ready, deployed=[build.deployment()]).remove == ()


def test_a_deployment_that_leaves_with_retain_decides_over_volumes_that_let_go_at_once() -> None:
    ready = build.placement(phase="Ready")
    leaving = build.deployment(deleting=True, spec={"deletionPolicy": "Retain"})
    assert changes(fleet(host(SPENT)), ready, deployed=[leaving]).release == (ready,)


def test_a_deployment_that_leaves_takes_no_copy_from_a_volume() -> None:
    ready = build.placement(phase="Ready")
    found = changes(fleet(host(demand(uid=TEMPLATE_UID))), ready, deployed=[build.deployment(deleting=True)])
    assert (found.remove, found.release) == ((), ())


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_stops_no_plan_for_the_others(time: str) -> None:
    """A host may write any: it may neither raise nor be believed when it is still to come."""
    ready = build.placement(phase="Ready")
    odd = demand(uid=TEMPLATE_UID, volumes=0, lastUsedTime=time)
    found = fleet(host(odd), host(demand(), name="kvm-2"), zones=[zone(on_demand={"keep": "1000000h"})])
    assert [target.host for target in changes(found, ready).create] == ["kvm-2"]
    assert answers(found, ready)[0].state is ServedState.READY


def test_the_next_look_comes_when_keep_is_over() -> None:
    found = wished(fleet(host(demand(uid=TEMPLATE_UID, unused=600), demand("other", unused=10))))
    assert found.look_again == NOW + seconds(3000)
    assert wished(fleet(host(SPENT))).look_again is None


# Rights


@pytest.mark.parametrize(
    ("found", "template", "reason", "stalled"),
    [
        (fleet(host(demand())), TEMPLATE, None, False),
        (fleet(host(demand()), zones=[]), TEMPLATE, Reason.ZONE_NOT_FOUND, False),
        (fleet(host(demand()), zones=[build.zone()]), TEMPLATE, Reason.ON_DEMAND_DISABLED, True),
        (
            fleet(host(demand()), zones=[build.zone(spec={"onDemand": {"enabled": True}})]),
            TEMPLATE,
            Reason.NAMESPACE_NOT_ALLOWED,
            True,
        ),
        (fleet(host(demand()), zones=[zone(on_demand={"namespaces": {}})]), TEMPLATE, None, False),
        (fleet(host(demand("default/debian-13", namespace="team-b"))), TEMPLATE, Reason.NAMESPACE_NOT_ALLOWED, True),
        (
            fleet(host(demand()), zones=[zone(templateNamespaces={"matchLabels": {"images": "yes"}})]),
            TEMPLATE,
            Reason.NAMESPACE_NOT_ALLOWED,
            True,
        ),
        (fleet(host(demand())), None, Reason.TEMPLATE_NOT_FOUND, True),
        (fleet(host(demand())), build.template(deleting=True), Reason.TEMPLATE_NOT_FOUND, True),
        (fleet(host(demand(uid="of-another"))), TEMPLATE, Reason.TEMPLATE_NOT_FOUND, True),
        (fleet(host(demand())), build.template(spec={"zones": ["zone-2"]}), Reason.TEMPLATE_NOT_IN_ZONE, True),
        (fleet(host(demand())), build.template(ready=False), Reason.TEMPLATE_NOT_READY, False),
        (
            fleet(host(demand()), judge=lambda *_: Verdict(False, Reason.URL_NOT_ALLOWED, stalled=True)),
            TEMPLATE,
            Reason.URL_NOT_ALLOWED,
            True,
        ),
    ],
)
def test_refusal(found: Fleet, template: Template | None, reason: Reason | None, stalled: bool) -> None:
    verdict = refused(found, template)
    assert ((verdict.reason, verdict.stalled) if verdict else (None, False)) == (reason, stalled)
    if verdict is not None and template is not None:
        assert changes(found, template=template).create == ()


def test_a_template_that_a_namespace_may_not_use_reads_as_one_that_does_not_exist() -> None:
    found = fleet(host(demand("default/debian-13", namespace="team-a")))
    private, allowed = build.template(), build.template(spec={"allowedNamespaces": {}})
    assert refused(found, private) == refused(found, None)
    assert refused(found, private).message == (  # type: ignore[union-attr]
        "there is no Template default/debian-13 that pods of namespace team-a may use"
    )
    assert refused(found, allowed) is None


def test_a_refused_demand_decides_nothing() -> None:
    """It neither holds a copy, nor orders its removal, nor makes one count for its namespace."""
    ready = build.placement(phase="Ready")
    for each in (
        demand("default/debian-13", namespace="team-a"),
        demand("default/debian-13", namespace="team-a", unused=10**6),
    ):
        found = changes(fleet(host(each)), ready, deployed=[build.deployment(deleting=True)])
        assert found.remove == (ready,)
        assert changes(fleet(host(each)), ready).release == (ready,)


def test_a_copy_that_was_served_is_held_whatever_became_of_the_rights() -> None:
    ready = build.placement(phase="Ready")
    mounted = host(demand(uid=TEMPLATE_UID))
    for each in (fleet(mounted, zones=[zone(on_demand={"enabled": False})]), fleet(mounted, namespaces={})):
        assert changes(each, ready) == deployments.PlacementChanges()


def test_a_template_that_waits_for_its_secret_does_not_lose_the_copy_that_is_under_way() -> None:
    loading = build.placement(phase="Downloading")
    assert changes(fleet(host(demand())), loading, template=build.template(ready=False)).release == ()


# The limit of a host


def many(number: int, **fields: Any) -> list[Document]:
    return [demand(f"t-{each}", since=build.stamp(SINCE + seconds(each)), **fields) for each in range(number)]


def over(found: ObservedHost, most: int) -> list[str]:
    limited = zone(on_demand={"maxPerHost": most})
    return [a.demand.template for a in demands.asked(found, limited, lambda _: LABELS["default"]) if a.over]


def test_a_host_over_its_cap_refuses_the_latest() -> None:
    found = host(*many(3))
    assert over(found, 2) == ["t-2"]
    assert over(found, 3) == []
    assert over(found, 0) == []
    verdict = refused(fleet(found, zones=[zone(on_demand={"maxPerHost": 2})]), build.template("t-2"))
    assert verdict is not None
    assert (verdict.reason, verdict.stalled) == (Reason.TOO_MANY_DEMANDS, True)
    assert "kvm-1" in verdict.message
    assert "maxPerHost" in verdict.message


def test_at_the_cap_the_copy_that_is_unused_for_the_longest_time_goes_early() -> None:
    idle = [demand("old", uid="u", unused=20), demand("new", uid="u", unused=10)]
    assert over(host(*idle, *many(1)), 2) == ["old"]
    ready = build.placement(phase="Ready")
    mine = demand(uid=TEMPLATE_UID, unused=20)
    assert changes(fleet(host(mine, demand("other"))), ready).remove == ()
    limited = [zone(on_demand={"maxPerHost": 1})]
    assert changes(fleet(host(mine, demand("other")), zones=limited), ready).remove == (ready,)


def test_a_lower_cap_takes_nothing_from_mounted_volumes() -> None:
    ready = build.placement(phase="Ready")
    mounted = host(*(demand(f"t-{each}", uid="u") for each in range(3)), demand(uid=TEMPLATE_UID))
    found = fleet(mounted, zones=[zone(on_demand={"maxPerHost": 1})])
    assert changes(found, ready) == deployments.PlacementChanges()


def test_namespaces_that_share_a_template_take_one_place() -> None:
    assert over(host(demand("default/debian-13", namespace="team-a"), demand(), demand("b")), 2) == []


# A mounted volume is use


@pytest.mark.parametrize(
    ("found", "used"),
    [
        (host(demand(uid=TEMPLATE_UID)), True),
        (host(demand(uid=TEMPLATE_UID, unused=5)), False),
        (host(demand(uid="of-another")), False),
        (host(demand()), False),
        (host(demand(), served=[{**demand(), "state": "Ready", "templateUID": TEMPLATE_UID}]), True),
        (
            host(
                demand(),
                served=[{**demand(), "state": "Ready", "templateUID": TEMPLATE_UID, "since": build.stamp(NOW)}],
            ),
            False,
        ),
        (host(demand(), served=[{**demand(), "state": "Waiting", "templateUID": TEMPLATE_UID}]), False),
    ],
)
def test_a_file_that_volumes_use_is_not_removed(found: ObservedHost, used: bool) -> None:
    removing = build.placement(phase="Removing")
    verdict = demands.in_use(removing, [found])
    assert (verdict is not None) is used
    plan = placements.plan_placement(removing, build.around(in_use=verdict), None, NOW)
    assert (plan.step is Step.REMOVE) is not used
    if used:
        assert plan.status is not None
        assert plan.status.conditions[0].reason is Reason.IN_USE
        assert "kvm-1" in plan.status.conditions[0].message


def test_a_template_that_is_deleted_while_its_copy_is_mounted_waits_for_the_volume() -> None:
    ready = build.placement(phase="Ready")
    mounted = fleet(host(demand(uid=TEMPLATE_UID)))
    found = changes(mounted, ready, template=build.template(deleting=True))
    assert found.remove == (ready,)
    marked = build.applied(ready, plans.mark_removing(ready, NOW))
    plan = placements.plan_placement(marked, build.around(in_use=demands.in_use(marked, mounted.hosts)), None, NOW)
    assert plan.step is Step.NONE


# In line


def test_a_copy_that_volumes_wait_for_is_first_in_line() -> None:
    line, groups = slots.Line(), (slots.Group("zone/zone-1", 1), slots.Group("namespace/zone-1/default", 1))
    line.join("deployed", groups, 1000)
    line.join("demanded", groups, 0, 3, demanded=True)
    line.join("of-another", (groups[0], slots.Group("namespace/zone-1/team-a", 1)), 1000)
    assert line.call(slots.Slots()) == "demanded"


def test_the_limit_of_a_deployment_does_not_hold_a_volume_back() -> None:
    wish = build.deployment(spec={"rollout": {"maxParallel": 1}})
    names = [
        {group.name for group in slots.groups_of(build.placement(), TEMPLATE, zone(), [(wish, 5)], demanded=demanded)}
        for demanded in (False, True)
    ]
    assert names[0] - names[1] == {"deployment/default/everywhere"}


# Answers


@pytest.mark.parametrize(
    ("existing", "state", "reason"),
    [
        ([], ServedState.WAITING, Reason.PREPARING),
        ([build.placement()], ServedState.WAITING, Reason.PREPARING),
        (
            [build.placement(phase="Pending", reason=Reason.WAITING_FOR_SLOT)],
            ServedState.WAITING,
            Reason.WAITING_FOR_SLOT,
        ),
        (
            [build.placement(phase="Pending", reason=Reason.INSUFFICIENT_SPACE)],
            ServedState.WAITING,
            Reason.INSUFFICIENT_SPACE,
        ),
        ([build.placement(phase="Pending", reason=Reason.MAINTENANCE)], ServedState.WAITING, Reason.MAINTENANCE),
        (
            [build.placement(phase="Pending", reason=Reason.SOCKET_TIMEOUT)],
            ServedState.WAITING,
            Reason.SOURCE_UNREACHABLE,
        ),
        ([build.placement(phase="Downloading", reason=Reason.DOWNLOADING)], ServedState.WAITING, Reason.DOWNLOADING),
        (
            [build.placement(phase="Failed", reason=Reason.CHECKSUM_MISMATCH)],
            ServedState.REFUSED,
            Reason.CHECKSUM_MISMATCH,
        ),
        ([build.placement(phase="Ready")], ServedState.READY, None),
        ([build.placement(phase="Removing", reason=Reason.REMOVED)], ServedState.WAITING, Reason.PREPARING),
    ],
)
def test_the_answer_while_a_copy_is_made(
    existing: list[PlacementView], state: ServedState, reason: Reason | None
) -> None:
    found = answer(fleet(host(demand())), *existing)
    assert (found.state, found.reason) == (state, reason)
    assert (found.namespace, found.template, found.uid, found.since) == ("default", "debian-13", "", SINCE)
    assert found.template_uid == TEMPLATE_UID
    assert found.path == (MINE if state is ServedState.READY else None)
    assert "kvm-1" not in (found.message or "") or reason is not Reason.SOURCE_UNREACHABLE


def test_a_refused_volume_is_told_why() -> None:
    found = answer(fleet(host(demand()), zones=[build.zone()]), build.placement(phase="Ready"))
    assert (found.state, found.reason, found.path) == (ServedState.REFUSED, Reason.ON_DEMAND_DISABLED, None)
    assert "onDemand.enabled" in (found.message or "")


@pytest.mark.parametrize(
    "disabled", [{"enabled": False}, {"on_demand": {"enabled": False}}, {"on_demand": {"namespaces": None}}]
)
def test_a_volume_that_was_served_is_served_again_after_a_reboot(disabled: Document) -> None:
    found = fleet(host(demand(uid=TEMPLATE_UID), state="Maintenance"), zones=[zone(**disabled)])
    again = answer(found, build.placement(phase="Ready"), template=None)
    assert (again.state, again.path, again.template_uid) == (ServedState.READY, MINE, TEMPLATE_UID)


def test_a_copy_that_is_there_is_served_in_maintenance_and_in_a_disabled_zone() -> None:
    for found in (fleet(host(demand(), state="Maintenance")), fleet(host(demand()), zones=[zone(enabled=False)])):
        assert answer(found, build.placement(phase="Ready")).state is ServedState.READY


def test_the_copy_of_a_template_that_was_deleted_is_served_to_its_own_volumes_only() -> None:
    kept = build.placement(phase="Removing", reason=Reason.IN_USE)
    assert answer(fleet(host(demand(uid=TEMPLATE_UID))), kept, template=None).state is ServedState.READY
    assert answer(fleet(host(demand())), kept).state is ServedState.WAITING


def test_a_template_that_was_made_again_is_another() -> None:
    again = build.template(uid="uid-of-the-new-one")
    old = build.placement(phase="Ready")
    new = build.placement(phase="Ready", template_uid="uid-of-the-new-one")
    first, second = answers(fleet(host(demand(uid=TEMPLATE_UID), demand())), old, new, template=again)
    assert first.path == MINE
    assert second.path == f"{build.POOL_PATH}/uid-of-the-new-one"
    assert [first.template_uid, second.template_uid] == [TEMPLATE_UID, "uid-of-the-new-one"]


def test_a_pool_that_the_host_cannot_use_is_what_blocks() -> None:
    storage = [build.facts("local", reason="NotMounted")]
    found = fleet(build.host(storage=storage, status={"demands": [demand()]}))
    waiting = answer(found, build.placement(phase="Ready"))
    assert (waiting.state, waiting.reason) == (ServedState.WAITING, Reason.POOL_NOT_READY)
    assert "NotMounted" in (waiting.message or "")


def test_another_architecture_is_refused() -> None:
    found = fleet(host(demand(), architecture="x86_64"))
    arm = build.template(spec={"architecture": "aarch64"})
    assert changes(found, template=arm).create == ()
    assert answer(found, template=arm).reason is Reason.ARCHITECTURE_MISMATCH


@pytest.mark.parametrize(
    ("found", "existing", "kept", "state"),
    [
        (demand(uid=TEMPLATE_UID, unused=10), [], False, ServedState.RELEASED),
        (demand(uid=TEMPLATE_UID, unused=10), [build.placement(phase="Ready")], False, ServedState.READY),
        (demand(uid=TEMPLATE_UID, unused=10), [build.placement(phase="Ready")], True, ServedState.READY),
        (SPENT, [build.placement(phase="Ready")], False, ServedState.READY),
        (SPENT, [build.placement(phase="Ready")], True, ServedState.RELEASED),
        (SPENT, [build.placement(phase="Removing")], False, ServedState.RELEASED),
        (demand(unused=10), [], False, ServedState.RELEASED),
    ],
)
def test_a_demand_is_released_once_its_evidence_is_no_longer_needed(
    found: Document, existing: list[PlacementView], kept: bool, state: ServedState
) -> None:
    """Only then the agent forgets it: a removal that was not marked yet would have lost its reason."""
    assert answer(fleet(host(found)), *existing, kept=kept).state is state


def test_no_message_is_a_format_or_too_long() -> None:
    """kubelet takes it as a format for the pod's Event."""
    long = Verdict(False, Reason.NO_MATCHING_POOLS, "100% of " + "x" * 1000)
    found = answer(fleet(host(demand())), obstacle=long)
    assert found.message is not None
    assert "%" not in found.message
    assert len(found.message) == SERVED_MESSAGE_LENGTH


def test_an_answer_fits_the_definition() -> None:
    found = answers(fleet(host(demand(), demand(uid=TEMPLATE_UID, unused=1))), build.placement(phase="Ready"))
    assert all(Served.model_validate(each.model_dump(mode="json", by_alias=True)) == each for each in found)


def test_who_sees_a_copy_wants_it() -> None:
    for found, wants in ((demand(), True), (demand(unused=5), False), (demand(uid="of-another"), False)):
        askings = demands.asked(host(found), zone(), lambda _: LABELS["default"])
        assert demands.wants(TEMPLATE, askings, fleet().judge) is wants
