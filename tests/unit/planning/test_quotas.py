"""How many placements there may be: which are made at a limit, for whom they count, and what is said of the rest."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, by_key, stamp

from directdownload.planning import quotas
from directdownload.planning.conditions import Verdict
from directdownload.planning.deployments import PlacementChanges, plan_placements
from directdownload.planning.observed import PlacementView
from directdownload.planning.quotas import ALL, Account, Usage, allot, most_placements, shortage
from directdownload.planning.rollouts import plan_deployment
from directdownload.planning.selection import Fleet
from directdownload.resources.base import NAMESPACE_LABEL
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment

MIB = 2**20
OURS, THEIRS = Account("default", "zone-1"), Account("guest", "zone-1")
OPEN: dict[str, Any] = {"allowedNamespaces": {}}


def zones(limit: int) -> dict[str, Any]:
    return {"zone-1": build.zone(spec={"placementsPerNamespace": limit})}


# --- the limits themselves


@pytest.mark.parametrize(
    ("memory", "hosts", "copies", "measured"),
    [(512 * MIB, 100, 300, 105), (512 * MIB, 1000, 10_000, 206), (512 * MIB, 5000, 50_000, 414)],
)
def test_what_was_measured_fits_into_the_default_of_the_chart(
    memory: int, hosts: int, copies: int, measured: int
) -> None:
    """docs/install.md: MiB with a rollout to all hosts."""
    assert most_placements(memory, hosts) >= copies
    assert most_placements(int(measured * MIB / quotas._USABLE) + 1, hosts) < max(copies * 1.15, 1001)


def test_what_ended_the_controller_at_the_default_of_the_chart_is_not_made() -> None:
    assert 50_000 < most_placements(512 * MIB, 5000) < 100_000


def test_the_limit_grows_with_memory_and_shrinks_with_hosts() -> None:
    assert most_placements(0, 5000) == 0, "nobody knows how much there is: no limit"
    assert most_placements(64 * MIB, 10) == 1000
    assert most_placements(512 * MIB, 0) < most_placements(600 * MIB, 0)
    assert most_placements(512 * MIB, 1000) < most_placements(512 * MIB, 0)


@pytest.mark.parametrize(
    ("limit", "used", "most", "expected", "full"),
    [
        (3, 0, 0, "aaa..", {OURS}),
        (3, 1, 0, "aa...", {OURS}),
        (3, 7, 0, ".....", {OURS}),
        (0, 7, 0, "aaaaa", set()),
        (5, 0, 0, "aaaaa", set()),
        (9, 1, 3, "aa...", {ALL}),
        (2, 0, 2, "aa...", {ALL}),
    ],
)
def test_copies_are_made_up_to_the_limits_in_their_order(
    limit: int, used: int, most: int, expected: str, full: set[Account]
) -> None:
    found = allot([("zone-1", ["default"])] * 5, zones(limit), Usage({OURS: used, ALL: used}, most))
    assert "".join("a" if each == "default" else "." for each in found.namespaces) == expected
    assert found.full == full


def test_the_first_namespace_with_room_is_charged() -> None:
    found = allot([("zone-1", ["default", "guest"])] * 4, zones(2), Usage({OURS: 1}))
    assert found.namespaces == ["default", "guest", "guest", None]
    assert found.full == {OURS, THEIRS}


def test_zones_count_each_for_itself() -> None:
    both = {"zone-1": build.zone(spec={"placementsPerNamespace": 1}), "zone-2": build.zone("zone-2")}
    copies = [("zone-1", ["default"]), ("zone-2", ["default"])] * 2
    assert allot(copies, both, Usage()).namespaces == ["default", "default", None, "default"]


def test_what_is_short_says_how_many_there_are_how_many_may_be_and_what_to_do() -> None:
    one = shortage("default", "zone-1", zones(3), Usage({OURS: 3, ALL: 9}))
    assert one == Verdict(
        False,
        Reason.TOO_MANY_PLACEMENTS,
        "namespace default has 3 placements in Zone zone-1, which allows 3 (its spec.placementsPerNamespace); delete "
        "deployments of the namespace, or ask an administrator to raise it",
    )
    whole = shortage("default", "zone-1", zones(0), Usage({ALL: 9}, 9))
    assert whole == Verdict(
        False,
        Reason.TOO_MANY_PLACEMENTS,
        "the cluster has 9 placements, and the controller has memory for 9 at most; delete deployments, or ask an "
        "administrator to raise controller.resources.limits.memory of the chart",
    )
    assert shortage("guest", "zone-1", zones(3), Usage({OURS: 3, ALL: 9}, 10)) is None


# --- of deployments


def fleet(limit: int, used: Sequence[Account] = (), *, hosts: int = 5, most: int = 0) -> Fleet:
    members = [
        build.host(f"kvm-{number}", storage=[build.facts(availableBytes=1000 - number)]) for number in range(hosts)
    ]
    counts: dict[Account, int] = {}
    for account in used:
        for each in (account, ALL):
            counts[each] = counts.get(each, 0) + 1
    labels: dict[str, dict[str, str]] = {"default": {}, "guest": {}}
    return build.fleet(members, zones=zones(limit).values(), namespaces=labels, usage=Usage(counts, most))


def copy(host: str, namespace: str = "", **fields: Any) -> PlacementView:
    labels = {"labels": {NAMESPACE_LABEL: namespace}} if namespace else {}
    return build.placement(host=host, phase="Ready", **labels, **fields)


def guest(name: str = "theirs", age: float = 0, **fields: Any) -> TemplateDeployment:
    reference = {"name": "debian-13", "namespace": "default"}
    spec = {"templateRef": reference, **fields.pop("spec", {})}
    created = stamp(NOW - build.seconds(86400 + age))
    return build.deployment(name, namespace="guest", spec=spec, creationTimestamp=created, **fields)


def plan(
    deployments: Sequence[TemplateDeployment], world: Fleet, *existing: PlacementView, template: Template | None = None
) -> PlacementChanges:
    return plan_placements(template or build.template(spec=OPEN), deployments, world, by_key(*existing))


def test_those_with_the_most_space_are_made_at_the_limit_and_nothing_is_removed() -> None:
    everywhere = build.deployment()
    changes = plan([everywhere], fleet(3))
    assert [(t.host, t.namespace) for t in changes.create] == [(f"kvm-{n}", "default") for n in range(3)]
    assert changes.full == {OURS}
    made = [copy(target.host, "default") for target in changes.create]
    for limit in (3, 2, 1):
        rest = plan([everywhere], fleet(limit, [OURS] * 3), *made)
        assert rest == PlacementChanges(full=frozenset({OURS})), "a limit that is lowered takes nothing away"
    more = plan([everywhere], fleet(4, [OURS] * 3), *made)
    assert [target.host for target in more.create] == ["kvm-3"]


def test_a_deployment_says_what_it_waits_for_until_there_is_room() -> None:
    everywhere, template = build.deployment(), build.template(spec=OPEN)
    made = by_key(*(copy(f"kvm-{number}") for number in range(3)))

    def told(world: Fleet) -> Any:
        status = plan_deployment(everywhere, template, world, made, NOW)
        build.check_resource(everywhere, status)
        assert status.placements is not None
        assert (status.placements.desired, status.placements.ready, status.placements.pending) == (5, 3, 2)
        return status.conditions[0]

    ready = told(fleet(3, [OURS] * 3))
    assert (ready.status, ready.reason) == ("False", Reason.TOO_MANY_PLACEMENTS)
    assert ready.message.startswith("3 of 5 copies are verified, 2 are not created: namespace default has 3 placements")
    assert told(fleet(4, [OURS] * 3)).reason is Reason.PREPARING
    assert told(fleet(3, [THEIRS] * 3)).reason is Reason.PREPARING
    assert "the cluster has 7 placements" in told(fleet(0, [THEIRS] * 7, most=7)).message


def test_a_failed_copy_is_told_of_beside_the_limit() -> None:
    made = by_key(copy("kvm-0"), build.placement(host="kvm-1", phase="Failed", reason=Reason.SOURCE_REFUSED))
    status = plan_deployment(build.deployment(), build.template(), fleet(2, [OURS] * 2), made, NOW)
    assert status.conditions[0].reason is Reason.TOO_MANY_PLACEMENTS
    assert "1 failed (see status.failures)" in status.conditions[0].message


def test_a_namespace_fills_no_limit_but_its_own() -> None:
    world = fleet(2, [OURS] * 2)
    theirs = plan([build.deployment(), guest(age=-10)], world, copy("kvm-0", "default"), copy("kvm-1", "default"))
    assert [(t.host, t.namespace) for t in theirs.create] == [("kvm-2", "guest"), ("kvm-3", "guest")]


def test_a_copy_counts_for_one_that_wants_it() -> None:
    """Else a deployment that had it made, and is gone, would leave its limit filled for those who keep it."""
    ours, theirs = build.deployment(), guest()
    mine, others = copy("kvm-0", "default"), copy("kvm-1", "guest")
    assert plan([ours, theirs], fleet(9), mine, others).charge == ()
    assert plan([theirs], fleet(9), mine, others).charge == ((mine, "guest"),)
    oldest = guest("old", age=100)
    lost = copy("kvm-2", "gone")
    assert plan([ours, oldest], fleet(9), lost).charge == ((lost, "guest"),)
    assert plan([ours, guest("young", age=-100)], fleet(9), lost).charge == ((lost, "default"),)
    assert plan([], fleet(9), mine, others).charge == (), "what nobody wants is let go"


def test_a_copy_of_0_1_0_counts_for_the_namespace_of_its_template() -> None:
    old = copy("kvm-0")
    assert old.namespace == "default"
    assert plan([build.deployment()], fleet(9), old).charge == ()
    assert plan([guest()], fleet(9), old).charge == ((old, "guest"),)


def test_a_deployment_that_cannot_be_read_changes_nothing_of_it() -> None:
    changes = plan_placements(build.template(spec=OPEN), [guest()], fleet(9), by_key(copy("kvm-0")), held=True)
    assert changes.charge == ()


# --- what the zone's policy refuses


def refusing(limit: int = 9) -> Fleet:
    verdict = Verdict(False, Reason.URL_NOT_ALLOWED, "sourcePolicy.protocols allows HTTPS", stalled=True)
    base = fleet(limit)
    return build.fleet(base.hosts, zones=base.zones.values(), namespaces=base.namespaces, judge=lambda *_: verdict)


def test_a_template_whose_url_the_zone_refuses_gets_no_placements_and_loses_none() -> None:
    new, template = build.deployment(observed=None), build.template()
    assert plan([new], refusing()) == PlacementChanges()
    status = plan_deployment(new, template, refusing(), {}, NOW)
    build.check_resource(new, status)
    assert [(c.type, c.status) for c in status.conditions] == [
        ("Ready", "False"),
        ("Reconciling", "False"),
        ("Stalled", "True"),
    ]
    assert (status.conditions[0].reason, status.granted) == (Reason.URL_NOT_ALLOWED, None)
    assert status.conditions[0].message == "sourcePolicy.protocols allows HTTPS"
    granted = {"selection": "x", "templateUID": template.uid, "time": stamp(NOW)}
    for before in (build.deployment(), build.deployment(status={"granted": granted})):
        assert plan([before], refusing(), copy("kvm-0")) == PlacementChanges()
    allowed = plan([new], fleet(9))
    assert len(allowed.create) == 5


def test_a_deployment_that_the_policy_refuses_still_removes_what_it_was_granted() -> None:
    """The refusal is none of the right to have copies: its deletionPolicy counts."""
    template = build.template()
    granted = {"selection": "x", "templateUID": template.uid, "time": stamp(NOW)}
    for policy in ("Delete", "Retain"):
        gone = build.deployment(deleting=True, spec={"deletionPolicy": policy}, status={"granted": granted})
        changes = plan([gone], refusing(), copy("kvm-0"))
        assert (len(changes.remove), len(changes.release)) == ((1, 0) if policy == "Delete" else (0, 1))


# --- cost


def seconds(number: int) -> float:
    """Of planning `number` copies of which all exist and as many are to be made, at a limit; the best of some."""
    world = fleet(number + number // 2, [OURS] * number, hosts=2 * number)
    existing = [copy(f"kvm-{each}", "gone") for each in range(number)]
    deployments = [build.deployment(), guest()]
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        changes = plan(deployments, world, *existing)
        best = min(best, time.process_time() - began)
    assert (len(changes.create), len(changes.charge)) == (number, number)
    return best


def test_twice_as_many_copies_take_about_twice_as_long() -> None:
    assert seconds(1000) / seconds(500) < 3
