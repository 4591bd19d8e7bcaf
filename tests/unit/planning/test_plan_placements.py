"""Which placements are made, kept, removed with their file, or let go without it."""

import itertools
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import by_key, deployment, placement

from directdownload.planning.deployments import plan_placements
from directdownload.planning.observed import PlacementView
from directdownload.planning.rights import selection
from directdownload.planning.selection import Fleet
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment

HOSTS = [build.host("kvm-1", labels={"rack": "1"}), build.host("kvm-2", labels={"rack": "2"})]
FLEET = build.fleet(HOSTS)
ON_1, ON_2 = (placement(host=name, phase="Ready") for name in ("kvm-1", "kvm-2"))
RETAIN = {"deletionPolicy": "Retain"}
RACK_1 = {"hostSelector": {"matchLabels": {"rack": "1"}}}


def plan(
    deployments: list[TemplateDeployment],
    existing: tuple[PlacementView, ...] = (),
    fleet: Fleet = FLEET,
    template: Template | None = None,
) -> dict[str, list[str]]:
    """Per action the hosts of its placements; what is not listed is kept."""
    changes = plan_placements(template or build.template(), deployments, fleet, by_key(*existing))
    return {
        "create": sorted(target.host for target in changes.create),
        "restore": sorted(view.host for view in changes.restore),
        "remove": sorted(view.host for view in changes.remove),
        "release": sorted(view.host for view in changes.release),
    }


def found(create: str = "", remove: str = "", release: str = "", restore: str = "") -> dict[str, list[str]]:
    return {
        name: [f"kvm-{digit}" for digit in digits]
        for name, digits in (("create", create), ("restore", restore), ("remove", remove), ("release", release))
    }


NOTHING = found()


def test_copies_are_made_where_they_are_missing() -> None:
    assert plan([deployment(observed=None)]) == found(create="12")
    assert plan([deployment()], (ON_1,)) == found(create="2")
    assert plan([deployment()], (ON_1, ON_2)) == NOTHING
    assert plan([deployment(), deployment("again")]) == found(create="12")
    assert plan([]) == NOTHING


def test_hosts_with_space_come_first() -> None:
    space = {"kvm-1": 10, "kvm-2": 900, "kvm-3": 40}
    hosts = [build.host(name, storage=[build.facts(availableBytes=bytes_)]) for name, bytes_ in space.items()]
    hosts.append(build.host("kvm-4"))
    changes = plan_placements(build.template(), [deployment(observed=None)], build.fleet(hosts), {})
    assert [target.host for target in changes.create] == ["kvm-2", "kvm-3", "kvm-1", "kvm-4"]


@pytest.mark.parametrize(
    "other", [{"rollout": {"maxParallel": 3}}, {"rollout": {"paused": True}}, {"deletionPolicy": "Retain"}]
)
def test_an_edit_that_selects_nothing_else_removes_nothing(other: dict[str, Any]) -> None:
    """The host lost its label meanwhile; what has been edited since says nothing about that (rule 12)."""
    planned = selection(deployment(spec=RACK_1))
    edited = deployment(spec={**RACK_1, **other}, generation=2, status={"observedSelection": planned})
    assert plan([edited], (ON_1, ON_2)) == NOTHING
    narrowed = deployment(spec={**RACK_1, **other}, generation=2, status={"observedSelection": "wider"})
    assert plan([narrowed], (ON_1, ON_2)) in (found(remove="2"), found(release="2"))


@pytest.mark.parametrize("phase", [None, "Pending", "Downloading", "Ready", "Failed", "Removing"])
def test_a_copy_in_any_phase_is_not_made_twice(phase: str | None) -> None:
    present = placement(host="kvm-1", phase=phase)
    assert plan([deployment()], (present, ON_2)) == found(restore="1" if phase == "Removing" else "")


def test_what_is_wanted_again_before_it_is_gone_stays() -> None:
    """A removal may wait for months: for a virtual machine, or a host that is down."""
    going = placement(host="kvm-1", phase="Removing")
    assert plan([deployment(deleting=True), deployment("again")], (going, ON_2)) == found(restore="1")
    assert plan([deployment(deleting=True)], (going,)) == NOTHING
    assert plan([deployment()], (placement(host="kvm-1", phase="Removing", deleting=True), ON_2)) == NOTHING
    assert plan([deployment()], (going, ON_2), template=build.template(deleting=True)) == found(remove="2")
    refused = build.fleet(HOSTS, zones=[build.zone(spec={"templateNamespaces": {"matchLabels": {"a": "b"}}})])
    assert plan([deployment()], (going, ON_2), refused) == NOTHING


def test_what_is_on_its_way_out_is_left_alone() -> None:
    leaving = (placement(host="kvm-1", phase="Removing"), placement(host="kvm-2", phase="Ready", deleting=True))
    assert plan([], leaving) == NOTHING
    assert plan([deployment(deleting=True, spec=RETAIN)], leaving) == NOTHING


@pytest.mark.parametrize(
    ("kept", "kept_policy", "gone", "expected"),
    [
        # (exists, policy) of one deployment; policy of the one that is being deleted; what becomes of both copies
        (False, "", "Delete", found(remove="12")),
        (False, "", "Retain", found(release="12")),
        (True, "Delete", "Delete", NOTHING),
        (True, "Retain", "Delete", NOTHING),
        (True, "Delete", "Retain", NOTHING),
    ],
)
def test_a_copy_goes_when_the_last_deployment_goes(
    kept: bool, kept_policy: str, gone: str, expected: dict[str, list[str]]
) -> None:
    deployments = [deployment("gone", deleting=True, spec={"deletionPolicy": gone})]
    if kept:
        deployments.append(deployment("kept", spec={"deletionPolicy": kept_policy}))
    assert plan(deployments, (ON_1, ON_2)) == expected


def test_any_retain_wins_among_those_that_go_together() -> None:
    both = [deployment("a", deleting=True), deployment("b", deleting=True, spec={**RETAIN, "hosts": ["kvm-2"]})]
    assert plan(both, (ON_1, ON_2)) == found(remove="1", release="2")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        # of the one that is deleted and of the one that is narrowed to kvm-1
        (("Delete", "Retain"), found(release="2")),
        (("Retain", "Delete"), found(release="2")),
        (("Delete", "Delete"), found(remove="2")),
    ],
)
def test_any_retain_wins_among_one_that_goes_and_one_that_is_narrowed(
    policies: tuple[str, str], expected: dict[str, list[str]]
) -> None:
    gone, narrowed = policies
    both = [
        deployment("a", deleting=True, spec={"deletionPolicy": gone}),
        deployment("b", spec={"deletionPolicy": narrowed, "hosts": ["kvm-1"]}, generation=2, observed=1),
    ]
    assert plan(both, (ON_1, ON_2)) == expected


def test_what_is_new_and_never_wanted_a_copy_does_not_keep_its_file() -> None:
    new = deployment("b", spec={**RETAIN, "hosts": ["kvm-1"]}, observed=None)
    assert plan([deployment("a", deleting=True), new], (ON_1, ON_2)) == found(remove="2")


def test_a_deployment_that_is_being_deleted_makes_nothing() -> None:
    assert plan([deployment(deleting=True)]) == NOTHING


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hosts": ["kvm-1"]}, found(remove="2")),
        (RACK_1, found(remove="2")),
        ({"hosts": ["kvm-1"], **RETAIN}, found(release="2")),
        ({**RACK_1, **RETAIN}, found(release="2")),
        ({"pools": ["other"]}, found(remove="12")),
        ({"pools": ["other"], **RETAIN}, found(release="12")),
        ({"rollout": {"paused": True}}, NOTHING),
    ],
)
def test_narrowing_removes_what_is_no_longer_named(spec: dict[str, Any], expected: dict[str, list[str]]) -> None:
    assert plan([deployment(spec=spec, generation=2, observed=1)], (ON_1, ON_2)) == expected


def test_narrowing_one_of_two_keeps_what_the_other_wants() -> None:
    narrowed = deployment("a", spec={"hosts": ["kvm-1"]}, generation=2, observed=1)
    assert plan([narrowed, deployment("b")], (ON_1, ON_2)) == NOTHING
    assert plan([narrowed, deployment("b", spec={"hosts": ["kvm-1"]})], (ON_1, ON_2)) == found(remove="2")


def test_retain_of_a_deployment_that_never_wanted_the_copy_keeps_nothing() -> None:
    narrowed = deployment("a", spec={"hosts": ["kvm-1"]}, generation=2, observed=1)
    bystander = deployment("b", spec={"hosts": ["kvm-1"], **RETAIN})
    assert plan([narrowed, bystander], (ON_1, ON_2)) == found(remove="2")


NO_LABELS = [build.host("kvm-1"), build.host("kvm-2")]


@pytest.mark.parametrize(
    ("spec", "fleet"),
    [
        pytest.param(RACK_1, build.fleet(NO_LABELS), id="label"),
        pytest.param({}, build.fleet([]), id="hosts"),
        pytest.param({"hosts": ["kvm-1"]}, build.fleet([]), id="named-host"),
        pytest.param(RACK_1, build.fleet([]), id="selected-host"),
        pytest.param({}, build.fleet(HOSTS, []), id="pool"),
        pytest.param({"pools": ["local"]}, build.fleet(HOSTS, []), id="named-pool"),
        pytest.param({}, build.fleet(HOSTS, [build.pool(deleting=True)]), id="pool-being-deleted"),
        pytest.param({}, build.fleet(HOSTS, zones=[]), id="zone"),
        pytest.param({}, build.fleet(HOSTS, zones=[build.zone(spec={"enabled": False})]), id="zone-disabled"),
        pytest.param({}, build.fleet(HOSTS, namespaces={}), id="namespace-labels"),
        pytest.param(
            {},
            build.fleet(HOSTS, zones=[build.zone(spec={"templateNamespaces": {"matchLabels": {"a": "b"}}})]),
            id="no-longer-allowed",
        ),
        pytest.param(
            {},
            build.fleet(HOSTS, [build.pool(spec={"hostSelector": {"matchLabels": {"rack": "9"}}})]),
            id="pool-selector",
        ),
    ],
)
def test_what_vanishes_removes_nothing(spec: dict[str, Any], fleet: Fleet) -> None:
    assert plan([deployment(spec=spec)], (ON_1,), fleet)["remove"] == []
    assert plan([deployment(spec=spec)], (ON_1,), fleet)["release"] == []


def test_a_template_that_is_not_ready_any_more_removes_nothing() -> None:
    template = build.template(ready=False, spec={"zones": ["zone-7"]})
    assert plan([deployment()], (ON_1,), template=template) == NOTHING


def test_a_changed_deployment_keeps_what_nobody_can_see() -> None:
    changed = deployment(spec=RACK_1, generation=2, observed=1)
    assert plan([changed], (ON_1, ON_2), build.fleet([])) == NOTHING
    assert plan([changed], (ON_1, ON_2), build.fleet(HOSTS, [])) == NOTHING


SHARED_POOL = build.pool(spec=build.SHARED)
SHARED_COPY = placement(host="kvm-2", shared=True, phase="Ready")


@pytest.mark.parametrize("pools", [[SHARED_POOL], []], ids=["pool", "vanished-pool"])
@pytest.mark.parametrize("observed", [1, None])
@pytest.mark.parametrize("spec", [{}, {"hosts": ["kvm-1"]}, RACK_1])
def test_a_shared_copy_stays_whichever_host_fetched_it(
    pools: list[Any], observed: int | None, spec: dict[str, Any]
) -> None:
    assert plan([deployment(spec=spec, observed=observed)], (SHARED_COPY,), build.fleet(HOSTS, pools)) == NOTHING


def test_a_shared_copy_goes_with_its_last_deployment() -> None:
    fleet = build.fleet(HOSTS, [SHARED_POOL])
    assert plan([deployment(deleting=True)], (SHARED_COPY,), fleet) == found(remove="2")
    narrowed = deployment(spec={"pools": ["other"]}, generation=2, observed=1)
    assert plan([narrowed], (SHARED_COPY,), fleet) == found(remove="2")


@pytest.mark.parametrize("deleting", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_host_that_moves_to_another_zone_keeps_its_files(deleting: bool, shared: bool) -> None:
    fleet = build.fleet(
        [build.host("kvm-1", zone="zone-2")],
        [build.pool(spec=build.SHARED if shared else {})],
        [build.zone(), build.zone("zone-2")],
    )
    copy = placement(host="kvm-1", phase="Ready", shared=shared)
    assert plan([deployment(deleting=deleting)], (copy,), fleet) == found(release="1")


@pytest.mark.parametrize(("policy", "expected"), [("Delete", found(remove="1")), ("Retain", found(release="1"))])
def test_a_host_that_moves_while_its_template_is_deleted_keeps_only_what_is_retained(
    policy: str, expected: dict[str, list[str]]
) -> None:
    fleet = build.fleet([build.host("kvm-1", zone="zone-2")], zones=[build.zone(), build.zone("zone-2")])
    wish = deployment(deleting=True, spec={"deletionPolicy": policy})
    assert plan([wish], (ON_1,), fleet, template=build.template(deleting=True)) == expected


@pytest.mark.parametrize(
    ("policies", "expected"),
    [(["Delete"], found(remove="12")), (["Delete", "Retain"], found(release="12")), ([], found(remove="12"))],
)
def test_deleting_the_template_takes_all_copies(policies: list[str], expected: dict[str, list[str]]) -> None:
    deployments = [deployment(f"d{i}", spec={"deletionPolicy": policy}) for i, policy in enumerate(policies)]
    assert plan(deployments, (ON_1, ON_2), template=build.template(deleting=True)) == expected


def test_a_refused_deployment_makes_nothing_and_keeps_what_there_is() -> None:
    fleet = build.fleet(HOSTS, zones=[])
    assert plan([deployment()], (ON_1,), fleet) == NOTHING


def test_a_refused_deployment_does_not_hinder_another() -> None:
    strangers = build.template(namespace="images")
    foreign = deployment("foreign", spec={"templateRef": {"name": "debian-13", "namespace": "images"}})
    own = deployment("own", namespace="images", spec={"hosts": ["kvm-2"]})
    fleet = build.fleet(HOSTS, namespaces={"default": {}, "images": {}})
    assert plan([foreign, own], template=strangers, fleet=fleet) == found(create="2")


def test_each_placement_has_one_fate() -> None:
    """Over all small worlds: never two actions at once, and what a live deployment names is never taken away."""
    specs: list[dict[str, Any]] = [{}, {"hosts": ["kvm-1"]}, RACK_1, {"pools": ["other"]}]
    fleets = [FLEET, build.fleet([]), build.fleet(HOSTS, []), build.fleet(NO_LABELS), build.fleet(HOSTS, zones=[])]
    variants = list(itertools.product(specs, ("Delete", "Retain"), (False, True), (1, 2, None)))
    for fleet, (one, two) in itertools.product(fleets, itertools.combinations(variants, 2)):
        deployments = [
            deployment(
                name, spec={**spec, "deletionPolicy": policy}, deleting=deleting, generation=2, observed=observed
            )
            for name, (spec, policy, deleting, observed) in (("a", one), ("b", two))
        ]
        changes = plan_placements(build.template(), deployments, fleet, by_key(ON_1, ON_2))
        fates = [view.key for view in (*changes.remove, *changes.release)]
        assert len(fates) == len(set(fates))
        assert not set(fates) & {target.name for target in changes.create}
        live = [d for d in deployments if not d.deleting and (d.status.granted or fleet.zones)]
        for view in (*changes.remove, *changes.release):
            assert not any(
                not d.spec.pools and (d.spec.hosts == (view.host,) or d.spec == build.deployment().spec) for d in live
            )
        if all(d.spec.deletion_policy == "Retain" for d in deployments):
            assert not changes.remove
        wanted_last = [d for d in deployments if d.status.granted and d.deleting and d.spec == build.deployment().spec]
        if wanted_last and not any(d.spec.deletion_policy == "Retain" for d in deployments):
            assert not changes.release
