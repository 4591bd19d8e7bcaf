"""Deployments: why one is refused, which copies it wants, and its status."""

from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, by_key

from directdownload.planning.observed import PlacementView
from directdownload.planning.rights import refusal
from directdownload.planning.rollouts import FAILURE_SAMPLES, plan_deployment
from directdownload.planning.selection import Fleet, select
from directdownload.resources import naming
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template

ELSEWHERE = {"templateRef": {"name": "debian-13", "namespace": "images"}}
TEAM_A = {"matchLabels": {"team": "a"}}
LABELS = {"default": {"team": "a"}, "images": {}}
FOREIGN = build.template(namespace="images", spec={"allowedNamespaces": TEAM_A})
PRIVATE = build.template(namespace="images")


def zoned(**spec: Any) -> Fleet:
    return build.fleet(zones=[build.zone(spec=spec)], namespaces=LABELS)


@pytest.mark.parametrize(
    ("template", "fleet", "spec", "reason", "stalled", "words"),
    [
        (build.template(), zoned(), {}, None, False, ""),
        (None, zoned(), {}, Reason.TEMPLATE_NOT_FOUND, False, "default/debian-13"),
        (None, zoned(), ELSEWHERE, Reason.TEMPLATE_NOT_FOUND, False, "images/debian-13"),
        (build.template(deleting=True), zoned(), {}, Reason.TEMPLATE_NOT_FOUND, False, "debian-13"),
        (build.template(), build.fleet(zones=[]), {}, Reason.ZONE_NOT_FOUND, False, "spec.zone"),
        (build.template(), zoned(templateNamespaces=TEAM_A), {}, None, False, ""),
        (
            build.template(),
            zoned(templateNamespaces={"matchLabels": {"team": "b"}}),
            {},
            Reason.NAMESPACE_NOT_ALLOWED,
            True,
            "templateNamespaces",
        ),
        (
            build.template(),
            build.fleet(zones=[build.zone(spec={"templateNamespaces": TEAM_A})], namespaces={}),
            {},
            Reason.NAMESPACE_NOT_ALLOWED,
            True,
            "zone-1",
        ),
        (PRIVATE, zoned(), ELSEWHERE, Reason.TEMPLATE_NOT_ALLOWED, True, "allowedNamespaces"),
        (FOREIGN, zoned(), ELSEWHERE, None, False, ""),
        (build.template(namespace="images", spec={"allowedNamespaces": {}}), zoned(), ELSEWHERE, None, False, ""),
        (
            build.template(namespace="images", spec={"allowedNamespaces": {"matchLabels": {"team": "b"}}}),
            zoned(),
            ELSEWHERE,
            Reason.TEMPLATE_NOT_ALLOWED,
            True,
            "default",
        ),
        (build.template(spec={"zones": ["zone-1", "zone-2"]}), zoned(), {}, None, False, ""),
        (build.template(spec={"zones": ["zone-2"]}), zoned(), {}, Reason.TEMPLATE_NOT_IN_ZONE, True, "zone-2"),
        (build.template(ready=False), zoned(), {}, Reason.TEMPLATE_NOT_READY, False, "because of InvalidURL"),
        (build.template(status={"conditions": []}), zoned(), {}, Reason.TEMPLATE_NOT_READY, False, "not seen"),
    ],
)
def test_refusal(
    template: Template | None, fleet: Fleet, spec: dict[str, Any], reason: Reason | None, stalled: bool, words: str
) -> None:
    deployment = build.deployment(spec=spec)
    found = refusal(deployment, template, fleet)
    assert (found.reason if found else None) is reason
    if found is not None:
        assert (found.ready, found.stalled) == (False, stalled)
        assert words in found.message
        status = plan_deployment(deployment, template, fleet, {}, NOW)
        assert status.conditions[0].reason is reason
        build.check_resource(deployment, status)


RACKS = [build.host(f"kvm-{i}", labels={"rack": str(i % 2), "ssd": "yes"}) for i in range(1, 5)]
ZONES = [build.zone(), build.zone("zone-2")]
STRANGER = build.host("kvm-9", zone="zone-2", labels={"rack": "1"})
TWO_POOLS = [build.pool("local"), build.pool("fast", spec={"path": f"{build.ROOT}/fast"})]


@pytest.mark.parametrize(
    ("spec", "pools", "expected"),
    [
        ({}, [build.pool()], {("local", f"kvm-{i}") for i in range(1, 5)}),
        ({}, TWO_POOLS, {(p, f"kvm-{i}") for i in range(1, 5) for p in ("local", "fast")}),
        ({"pools": ["fast"]}, TWO_POOLS, {("fast", f"kvm-{i}") for i in range(1, 5)}),
        ({"pools": ["none"]}, TWO_POOLS, set()),
        ({"hosts": ["kvm-1", "kvm-9", "kvm-0"]}, [build.pool()], {("local", "kvm-1")}),
        ({"hostSelector": {"matchLabels": {"rack": "1"}}}, [build.pool()], {("local", "kvm-1"), ("local", "kvm-3")}),
        (
            {"hostSelector": {"matchLabels": {"rack": "1"}}, "hosts": ["kvm-1", "kvm-2"]},
            [build.pool()],
            {("local", "kvm-1")},
        ),
        (
            {},
            [build.pool(spec={"hostSelector": {"matchExpressions": [{"key": "ssd", "operator": "DoesNotExist"}]}})],
            set(),
        ),
        (
            {"hostSelector": {"matchLabels": {"rack": "0"}}},
            [build.pool(spec={"hostSelector": {"matchLabels": {"rack": "1"}}})],
            set(),
        ),
        ({}, [build.pool(zone="zone-2")], set()),
        ({}, [build.pool(deleting=True)], set()),
        ({"zone": "zone-2"}, [build.pool(zone="zone-2")], {("local", "kvm-9")}),
        ({}, [], set()),
    ],
)
def test_targets(spec: dict[str, Any], pools: list[Any], expected: set[tuple[str, str]]) -> None:
    template, fleet = build.template(), build.fleet([*RACKS, STRANGER], pools, ZONES)
    found = select(build.deployment(spec=spec), template, fleet, {}).wanted
    assert {(target.pool, target.host) for target in found.values()} == expected
    for name, target in found.items():
        assert name == target.name == naming.placement_name("debian-13", template.uid, target.pool, target.host)
        assert target.path.endswith(f"/{template.uid}")
    assert len({(target.pool, target.host, target.path) for target in found.values()}) == len(found)


def test_an_iso_keeps_its_suffix() -> None:
    template = build.template(spec={"format": "ISO"})
    (target,) = select(build.deployment(), template, build.fleet([build.host()]), {}).wanted.values()
    assert target.path == f"{build.POOL_PATH}/{template.uid}.iso"


SHARED = [build.pool(spec=build.SHARED)]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"a": "Up", "b": "Up"}, "a"),
        ({"a": "Down", "b": "Up"}, "b"),
        ({"a": "Maintenance", "b": "Up"}, "b"),
        ({"a": None, "b": "Up"}, "b"),
        ({"a": "Down", "b": "Down"}, "a"),
        ({}, None),
    ],
)
def test_a_shared_pool_has_one_copy_on_a_host_that_can_fetch_it(
    states: dict[str, str | None], expected: str | None
) -> None:
    fleet = build.fleet([build.host(name, state) for name, state in states.items()], SHARED)
    found = select(build.deployment(), build.template(), fleet, {}).wanted
    assert [target.host for target in found.values()] == ([expected] if expected else [])
    if expected:
        assert list(found) == [naming.placement_name("debian-13", build.TEMPLATE_UID, "local", None)]


HOSTS = [build.host(f"kvm-{i}") for i in range(1, 5)]


def copies(*phases: str | None, reason: Reason | None = None, **status: Any) -> dict[str, PlacementView]:
    return by_key(
        *(build.placement(host=f"kvm-{i}", phase=p, reason=reason, status=status) for i, p in enumerate(phases, 1))
    )


@pytest.mark.parametrize(
    ("phases", "zone", "spec", "reason", "condition"),
    [
        (("Ready",) * 4, {}, {}, Reason.CONVERGED, "Ready"),
        (("Ready",) * 4, {"enabled": False}, {"rollout": {"paused": True}}, Reason.CONVERGED, "Ready"),
        ((), {}, {}, Reason.PREPARING, "Reconciling"),
        (("Ready", "Ready", "Ready"), {}, {}, Reason.PREPARING, "Reconciling"),
        (("Ready", "Downloading", None, "Pending"), {}, {}, Reason.DOWNLOADING, "Reconciling"),
        (("Ready", "Ready", "Ready", "Removing"), {}, {}, Reason.REMOVED, "Reconciling"),
        (("Ready", "Downloading"), {"enabled": False}, {}, Reason.ZONE_DISABLED, "Reconciling"),
        (("Ready", "Downloading"), {}, {"rollout": {"paused": True}}, Reason.PAUSED, "Reconciling"),
        (("Failed", "Downloading", "Ready", "Ready"), {}, {}, Reason.PLACEMENTS_FAILED, "Reconciling"),
        (("Failed", "Ready", "Ready", "Ready"), {}, {}, Reason.PLACEMENTS_FAILED, "Stalled"),
        (("Failed",) * 4, {"enabled": False}, {"rollout": {"paused": True}}, Reason.PLACEMENTS_FAILED, "Stalled"),
        ((), {}, {"hosts": ["nobody"]}, Reason.NO_MATCHING_HOSTS, "Reconciling"),
        ((), {}, {"pools": ["none"]}, Reason.NO_MATCHING_POOLS, "Reconciling"),
        (("Failed",), {}, {"hosts": ["kvm-2"]}, Reason.PREPARING, "Reconciling"),
        (("Ready", "Ready"), {}, {"hosts": ["kvm-1", "nope"]}, Reason.HOST_NOT_FOUND, "Reconciling"),
        (("Ready",) * 4, {}, {"pools": ["local", "nope"]}, Reason.POOL_NOT_FOUND, "Reconciling"),
    ],
)
def test_verdict(
    phases: tuple[str | None, ...], zone: dict[str, Any], spec: dict[str, Any], reason: Reason, condition: str
) -> None:
    deployment = build.deployment(spec=spec, generation=5, requested_at="today")
    fleet = build.fleet(HOSTS, zones=[build.zone(spec=zone)])
    status = plan_deployment(deployment, build.template(), fleet, copies(*phases), NOW)
    true = [c.type for c in status.conditions if c.status == "True"]
    assert (status.conditions[0].reason, true) == (reason, [condition])
    assert (status.observed_generation, status.last_handled_request) == (5, "today")
    assert status.placements is not None
    placements = status.placements
    assert placements.desired == placements.ready + placements.downloading + placements.pending + placements.failed
    build.check_resource(deployment, status)
    shown = deployment.model_copy(update={"status": status})
    again = plan_deployment(shown, build.template(), fleet, copies(*phases), NOW + build.seconds(9))
    assert again == status


def test_only_pools_of_other_zones_is_no_matching_pool() -> None:
    fleet = build.fleet(HOSTS, [build.pool(zone="zone-2")])
    status = plan_deployment(build.deployment(), build.template(), fleet, {}, NOW)
    assert status.conditions[0].reason is Reason.NO_MATCHING_POOLS


@pytest.mark.parametrize("phase", [None, "Pending", "Downloading", "Ready", "Failed", "Removing"])
def test_counts(phase: str | None) -> None:
    fleet = build.fleet(HOSTS)
    status = plan_deployment(build.deployment(), build.template(), fleet, copies(phase, phase, "Ready"), NOW)
    assert status.placements is not None
    found = status.placements.model_dump()
    expected = {"total": None, "desired": 4, "skipped": None, "ready": 1, "downloading": 0, "pending": 1, "failed": 0}
    expected["pending" if phase in (None, "Removing") else (phase or "").lower()] += 2  # type: ignore[operator]
    assert found == expected


@pytest.mark.parametrize(
    ("learnt", "first", "progress", "total", "downloaded"),
    [
        (None, None, None, 0, 0),
        (100, None, None, 400, 0),
        (100, "Downloading", (30, 100), 400, 30),
        (None, "Downloading", (30, 100), 100, 30),
        (None, "Downloading", (30, 0), 0, 30),
        (100, "Ready", None, 400, 100),
        (100, "Ready", (30, 100), 400, 100),
        (100, "Failed", (30, 100), 400, 30),
        (100, "Removing", (30, 100), 400, 0),
    ],
)
def test_bytes(
    learnt: int | None, first: str | None, progress: tuple[int, int] | None, total: int, downloaded: int
) -> None:
    status: dict[str, Any] = {}
    if progress:
        status["progress"] = {"bytesDownloaded": progress[0], "bytesTotal": progress[1]}
    if first == "Ready":
        status["file"] = {"path": "/p", "sizeBytes": 100}
    existing = copies(first, **status) if first else {}
    template = build.template(status={"sizeBytes": learnt} if learnt else {})
    planned = plan_deployment(build.deployment(), template, build.fleet(HOSTS), existing, NOW)
    assert planned.bytes is not None
    assert (planned.bytes.total, planned.bytes.downloaded) == (total, downloaded)


def test_an_archive_counts_as_what_is_downloaded() -> None:
    existing = copies("Ready", file={"path": "/p", "sizeBytes": 100, "servedBytes": 30})
    template = build.template(status={"sizeBytes": 30})
    planned = plan_deployment(build.deployment(), template, build.fleet(HOSTS), existing, NOW)
    assert planned.bytes is not None
    assert (planned.bytes.total, planned.bytes.downloaded) == (120, 30)


def test_failures_are_a_bounded_sample_that_begins_with_those_that_stay() -> None:
    hosts = [build.host(f"kvm-{i:02}") for i in range(30)]
    existing = by_key(
        *(
            build.placement(
                host=host.name,
                phase="Failed" if number % 2 else "Pending",
                reason=Reason.CHECKSUM_MISMATCH if number % 2 else Reason.SOURCE_UNREACHABLE,
                status={"attempts": 1},
            )
            for number, host in enumerate(hosts[:16])
        )
    )
    failures = plan_deployment(build.deployment(), build.template(), build.fleet(hosts), existing, NOW).failures
    assert len(failures) == FAILURE_SAMPLES == 10
    assert [f.host for f in failures] == [f"kvm-{i:02}" for i in (1, 3, 5, 7, 9, 11, 13, 15, 0, 2)]
    assert {f.reason for f in failures[:8]} == {Reason.CHECKSUM_MISMATCH}
    assert failures[0].message == "because of ChecksumMismatch"


@pytest.mark.parametrize(
    ("phase", "reason", "attempts", "told"),
    [
        ("Failed", Reason.CHECKSUM_MISMATCH, 1, True),
        ("Pending", Reason.SOURCE_UNREACHABLE, 1, True),
        ("Pending", Reason.INSUFFICIENT_SPACE, 3, True),
        ("Pending", Reason.POD_BLOCKED, 0, True),
        ("Pending", Reason.POOL_NOT_READY, 0, False),
        ("Pending", Reason.WAITING_FOR_SLOT, 1, False),
        ("Pending", Reason.HOST_DOWN, 1, False),
        ("Downloading", Reason.DOWNLOADING, 2, False),
        ("Ready", Reason.DOWNLOADED, 1, False),
        ("Removing", Reason.REMOVED, 1, False),
    ],
)
def test_which_placements_are_failures(phase: str, reason: Reason, attempts: int, told: bool) -> None:
    existing = copies(phase, reason=reason, attempts=attempts)
    failures = plan_deployment(build.deployment(), build.template(), build.fleet(HOSTS), existing, NOW).failures
    assert [(f.host, f.reason) for f in failures] == ([("kvm-1", reason)] if told else [])
