"""Architectures: which hosts get new copies, that existing copies stay, and how skipped ones are reported."""

import itertools
import random
import typing
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, by_key, deployment, placement

from directdownload.planning import architectures, dryrun
from directdownload.planning.deployments import plan_placements
from directdownload.planning.dryrun import Action
from directdownload.planning.hosts import plan_host
from directdownload.planning.observed import Agent, ObservedHost, PlacementView
from directdownload.planning.quotas import Account, Usage
from directdownload.planning.rollouts import FAILURE_SAMPLES, plan_deployment
from directdownload.planning.selection import Fleet
from directdownload.resources.host import Architecture, Host
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template, TemplateSpec
from directdownload.resources.templatedeployment import TemplateDeploymentStatus

LABEL = "kubernetes.io/arch"


def host(name: str = "kvm-1", known: str | None = "x86_64", state: str | None = "Up", **fields: Any) -> ObservedHost:
    return build.host(name, state, status={"architecture": known} if known else {}, **fields)


def template(architecture: str = "x86_64") -> Template:
    return build.template(spec={"architecture": architecture})


X86, ARM, UNKNOWN = host("kvm-1"), host("kvm-2", "aarch64"), host("kvm-3", None)
FLEET = build.fleet([X86, ARM, UNKNOWN])
NAMED = {"hosts": ["kvm-1", "kvm-2", "kvm-3"]}


def created(of: Template, fleet: Fleet = FLEET, *existing: PlacementView, **fields: Any) -> list[str]:
    changes = plan_placements(of, [deployment(**fields)], fleet, by_key(*existing))
    assert (changes.remove, changes.release, changes.charge) == ((), (), ())
    return sorted(target.host for target in changes.create)


def status(of: Template, fleet: Fleet = FLEET, *existing: PlacementView, **spec: Any) -> TemplateDeploymentStatus:
    wish = deployment(spec=spec)
    found = plan_deployment(wish, of, fleet, by_key(*existing), NOW)
    build.check_resource(wish, found)
    again = plan_deployment(wish.model_copy(update={"status": found}), of, fleet, by_key(*existing), NOW)
    assert again == found
    return found


def verdict(found: TemplateDeploymentStatus) -> tuple[Reason, list[str], str]:
    true = [condition.type for condition in found.conditions if condition.status == "True"]
    return found.conditions[0].reason, true, found.conditions[0].message


def counts(found: TemplateDeploymentStatus) -> tuple[int | None, int | None]:
    assert found.placements is not None
    return found.placements.desired, found.placements.skipped


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("amd64", "x86_64"),
        ("arm64", "aarch64"),
        ("s390x", "s390x"),
        ("ppc64le", "ppc64le"),
        ("riscv64", "riscv64"),
        ("loong64", "Unknown"),
        ("Unknown", "Unknown"),
        ("", None),
        (None, None),
    ],
)
def test_a_host_has_the_architecture_of_its_nodes_label(label: str | None, expected: str | None) -> None:
    labels = {"zone": "zone-1", **({LABEL: label} if label is not None else {})}
    plan = plan_host(host(known="s390x"), build.node(labels=labels), [build.zone()], Agent(True), NOW)
    assert plan.status.architecture == expected
    build.check_resource(build.host(), plan.status)


def test_hosts_and_templates_have_the_same_words() -> None:
    words = typing.get_args(TemplateSpec.model_fields["architecture"].annotation)
    assert set(words) == set(Architecture) - {Architecture.UNKNOWN}


def test_a_host_without_its_node_keeps_what_was_known() -> None:
    assert plan_host(ARM, None, [build.zone()], Agent(True), NOW).status.architecture is Architecture.AARCH64


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "s390x", "ppc64le", "riscv64"])
def test_only_a_known_host_of_another_architecture_gets_no_new_copy(architecture: str) -> None:
    for known in (None, *Architecture):
        same = known in (None, "Unknown", architecture)
        assert architectures.takes(template(architecture), host(known=known)) is same
        assert architectures.differs(template(architecture), host(known=known)) is not same


def test_new_copies_go_only_to_hosts_of_the_template() -> None:
    assert created(template("x86_64")) == ["kvm-1", "kvm-3"]
    assert created(template("aarch64")) == ["kvm-2", "kvm-3"]
    assert created(template("s390x")) == ["kvm-3"]
    assert created(template("x86_64"), spec=NAMED) == ["kvm-1", "kvm-3"]


def test_a_host_gets_no_copy_before_its_first_status() -> None:
    """The architecture comes with it: a Host that was just created may be of any."""
    fresh = build.fleet([host("kvm-1"), host("kvm-4", None, state=None)])
    assert created(template(), fresh) == ["kvm-1"]
    assert counts(status(template(), fresh)) == (1, None)


PHASES = [None, "Pending", "Downloading", "Ready", "Failed", "Unknown"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("spec", [{}, {"hosts": ["kvm-2"]}])
def test_a_placement_that_exists_stays_and_counts(phase: str | None, spec: dict[str, Any]) -> None:
    fleet, copy = build.fleet([ARM]), placement(host="kvm-2", phase=phase)
    assert created(template("x86_64"), fleet, copy, spec=spec) == []
    assert created(template("x86_64"), fleet, copy, spec=spec, generation=2, observed=1) == []
    found = status(template("x86_64"), fleet, copy, **spec)
    assert counts(found) == (1, None)
    assert verdict(found)[0] is (Reason.CONVERGED if phase == "Ready" else verdict(found)[0])
    assert verdict(found)[0] is not Reason.ARCHITECTURE_MISMATCH


def test_a_placement_that_is_being_removed_counts_as_gone() -> None:
    going = placement(host="kvm-2", phase="Removing")
    changes = plan_placements(template("x86_64"), [deployment()], build.fleet([ARM]), by_key(going))
    assert (changes.restore, changes.create) == ((), ())
    changes = plan_placements(template("aarch64"), [deployment()], build.fleet([ARM]), by_key(going))
    assert changes.restore == (going,)


def test_a_copy_of_another_architecture_goes_as_any_other_when_its_deployment_does() -> None:
    copy = placement(host="kvm-2", phase="Ready")
    gone = deployment(deleting=True)
    assert plan_placements(template("x86_64"), [gone], FLEET, by_key(copy)).remove == (copy,)
    narrowed = deployment(spec={"hosts": ["kvm-1"]}, generation=2, observed=1)
    assert plan_placements(template("x86_64"), [narrowed], FLEET, by_key(copy)).remove == (copy,)


def test_selectors_skip_in_silence_and_counts_tell() -> None:
    found = status(template("x86_64"), FLEET, *(placement(host=name, phase="Ready") for name in ("kvm-1", "kvm-3")))
    reason, true, message = verdict(found)
    assert (reason, true) == (Reason.CONVERGED, ["Ready"])
    assert message == "2 of 2 copies are verified, 1 skipped on hosts of another architecture"
    assert counts(found) == (2, 1)
    assert found.failures == ()


def test_a_named_host_of_another_architecture_is_reported() -> None:
    existing = [placement(host=name, phase="Ready") for name in ("kvm-1", "kvm-3")]
    found = status(template("x86_64"), FLEET, *existing, **NAMED)
    reason, true, message = verdict(found)
    assert (reason, true) == (Reason.ARCHITECTURE_MISMATCH, ["Stalled"])
    assert "another architecture: spec.hosts names them, see status.failures" in message
    (failure,) = found.failures
    assert (failure.host, failure.pool, failure.reason) == ("kvm-2", "local", Reason.ARCHITECTURE_MISMATCH)
    assert failure.message == "host kvm-2 is aarch64, and the Template's spec.architecture is x86_64"
    assert counts(found) == (2, 1)
    # Work goes on: not stalled yet.
    assert verdict(status(template("x86_64"), FLEET, existing[0], **NAMED))[:2] == (
        Reason.ARCHITECTURE_MISMATCH,
        ["Reconciling"],
    )


@pytest.mark.parametrize(("spec", "condition"), [({}, "Reconciling"), ({"hosts": ["kvm-2"]}, "Stalled")])
def test_a_deployment_without_any_such_host_says_so(spec: dict[str, Any], condition: str) -> None:
    found = status(template("x86_64"), build.fleet([ARM]), **spec)
    reason, true, message = verdict(found)
    assert (reason, true) == (Reason.ARCHITECTURE_MISMATCH, [condition])
    assert "host kvm-2 is aarch64, and the Template's spec.architecture is x86_64" in message
    assert counts(found) == (0, 1)


def test_named_hosts_are_a_bounded_sample_after_what_failed() -> None:
    fleet = build.fleet([host(f"kvm-{number:02}", "aarch64") for number in range(20)])
    failed = placement(host="kvm-19", phase="Failed", reason=Reason.CHECKSUM_MISMATCH)
    again = placement(host="kvm-18", phase="Pending", reason=Reason.SOURCE_UNREACHABLE, status={"attempts": 1})
    spec = {"hosts": [f"kvm-{number:02}" for number in range(20)]}
    failures = status(template("x86_64"), fleet, failed, again, **spec).failures
    assert len(failures) == FAILURE_SAMPLES
    assert [each.host for each in failures] == ["kvm-19", *(f"kvm-{number:02}" for number in range(9))]


def test_a_refused_deployment_reports_no_architectures() -> None:
    fleet = build.fleet([ARM], zones=[build.zone(spec={"templateNamespaces": {"matchLabels": {"team": "a"}}})])
    found = status(template("x86_64"), fleet, hosts=["kvm-2"])
    assert verdict(found)[0] is Reason.NAMESPACE_NOT_ALLOWED
    assert found.placements is None or found.placements.skipped is None
    assert found.failures == ()


def test_no_quota_is_charged_for_what_is_skipped() -> None:
    account = Account("default", "zone-1")
    zones = [build.zone(spec={"placementsPerNamespace": 1})]
    fleet = build.fleet([host("kvm-0", "aarch64"), X86], zones=zones, usage=Usage({account: 0}))
    changes = plan_placements(template("x86_64"), [deployment()], fleet, {})
    assert [target.host for target in changes.create] == ["kvm-1"]
    assert not changes.full


SHARED = [build.pool(spec=build.SHARED)]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        # the one that takes it fetches it, also while it is Down: another one takes over then
        ([ARM, X86], ["kvm-1"]),
        ([ARM, host("kvm-1", state="Down")], ["kvm-1"]),
        ([ARM, UNKNOWN], ["kvm-3"]),
        ([ARM], []),
    ],
)
def test_a_shared_pool_gets_a_copy_if_one_of_its_hosts_takes_it(hosts: list[Host], expected: list[str]) -> None:
    fleet = build.fleet(hosts, SHARED)
    assert created(template("x86_64"), fleet) == expected
    assert counts(status(template("x86_64"), fleet)) == (len(expected), None if expected else 1)
    # A named host that sees the copy of another one lacks nothing.
    named = status(template("x86_64"), fleet, hosts=[each.name for each in hosts])
    assert bool(named.failures) is not bool(expected)


def test_a_shared_copy_that_exists_stays() -> None:
    copy = placement(host="kvm-2", shared=True, phase="Ready")
    assert created(template("x86_64"), build.fleet([ARM], SHARED), copy) == []
    assert counts(status(template("x86_64"), build.fleet([ARM], SHARED), copy)) == (1, None)


def plan(fleet: Fleet, *existing: PlacementView, **spec: Any) -> dryrun.DryRun:
    return dryrun.plan_dry_run(deployment(spec=spec, observed=None), template("x86_64"), fleet, by_key(*existing), NOW)


def test_a_plan_counts_what_is_skipped() -> None:
    run = plan(FLEET)
    assert [(copy.host, copy.action) for copy in run.copies] == [("kvm-1", "Download"), ("kvm-3", "Download")]
    assert [(each.host.name, each.pool) for each in run.skipped] == [("kvm-2", "local")]
    assert run.refused is None


def test_a_plan_refuses_a_named_host_of_another_architecture() -> None:
    run = plan(FLEET, **NAMED)
    refused = [copy for copy in run.copies if copy.action is Action.REFUSED]
    assert [(copy.host, copy.reason, copy.round) for copy in refused] == [("kvm-2", Reason.ARCHITECTURE_MISMATCH, None)]
    assert (run.skipped, run.refused, run.count(Action.DOWNLOAD)) == ((), None, 2)


def test_a_plan_without_any_such_host_is_refused() -> None:
    run = plan(build.fleet([ARM]))
    assert run.refused is not None
    assert (run.refused.reason, run.copies, len(run.skipped)) == (Reason.ARCHITECTURE_MISMATCH, (), 1)
    assert plan(build.fleet([ARM]), placement(host="kvm-2", phase="Ready")).count(Action.PRESENT) == 1


def test_no_world_loses_a_copy_or_makes_one_of_another_architecture() -> None:
    """Random fleets, copies and wishes: as all hosts were of one architecture, less the new copies elsewhere."""
    drawn = random.Random(7)
    kinds = (None, "Unknown", "x86_64", "aarch64", "s390x")
    for _ in range(300):
        hosts = {f"kvm-{number}": drawn.choice(kinds) for number in range(6)}
        pools = [build.pool("local"), build.pool("shared", spec={**build.SHARED, "path": f"{build.ROOT}/shared"})]
        existing = by_key(
            *(
                placement(host=name, pool=pool, shared=pool == "shared", phase=drawn.choice([*PHASES, "Removing"]))
                for name, pool in itertools.product(hosts, ("local", "shared"))
                if drawn.random() < (0.4 if pool == "local" else 0.1)
            )
        )
        wishes = [
            deployment(
                f"wish-{number}",
                deleting=drawn.random() < 0.3,
                observed=drawn.choice([1, 2, None]),
                generation=2,
                spec=drawn.choice([{}, {"hosts": drawn.sample(sorted(hosts), 3)}, {"pools": ["local"]}]),
            )
            for number in range(drawn.randint(1, 3))
        ]
        of = template(drawn.choice(["x86_64", "aarch64"]))
        anywhere = build.fleet([build.host(name) for name in hosts], pools)
        fleet = build.fleet([host(name, known) for name, known in hosts.items()], pools)
        before, after = (plan_placements(of, wishes, each, existing) for each in (anywhere, fleet))
        assert (after.remove, after.release) == (before.remove, before.release)
        assert {target.name for target in after.create} <= {target.name for target in before.create}
        assert {view.key for view in after.restore} <= {view.key for view in before.restore}
        for target in after.create:
            assert hosts[target.host] in (None, "Unknown", of.spec.architecture)
        made = {target.name for target in after.create}
        for target in before.create:
            if target.pool == "local" and hosts[target.host] in (None, "Unknown", of.spec.architecture):
                assert target.name in made
        for wish in wishes:
            found = plan_deployment(wish, of, fleet, existing, NOW)
            build.check_resource(wish, found)
            desired, skipped = counts(found)
            assert (desired or 0) + (skipped or 0) == counts(plan_deployment(wish, of, anywhere, existing, NOW))[0]


def test_a_copy_that_cannot_be_read_is_not_skipped() -> None:
    """It exists: its file may be there."""
    name = placement(host="kvm-2").key
    found = plan_deployment(deployment(spec=NAMED), template("x86_64"), build.fleet([ARM]), {}, NOW, unreadable={name})
    assert counts(found) == (1, None)
    assert [(entry.reason, entry.count) for entry in found.waiting] == [(Reason.UNREADABLE, 1)]
