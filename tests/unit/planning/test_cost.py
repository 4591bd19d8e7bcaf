"""Planners at N and at 2N: twice as much takes about twice as long, also where all is on one host or in one namespace.

`quotas.allot` in a whole plan of placements is measured in test_quotas.
"""

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW

from directdownload.planning import (
    certificates,
    deployments,
    digests,
    dryrun,
    hosts,
    installations,
    keystores,
    pools,
    probes,
    publications,
    quotas,
    sharing,
    slots,
    templates,
    zones,
)
from directdownload.planning.observed import Agent, ObservedHost, PlacementView
from directdownload.resources.checksum import Checksum
from directdownload.resources.pem import Certificate
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment

#: What is measured, with all it needs made before.
Work = Callable[[], object]

_ENOUGH_SECONDS = 0.02

ROOTS = (build.ROOT,)
ZONES = {"zone-1": build.zone()}
SIZED = build.template(status={"sizeBytes": 100})


def fleet_hosts(number: int, **status: Any) -> list[ObservedHost]:
    return [build.host(f"kvm-{each}", storage=[build.facts()], status=status) for each in range(number)]


def spread(number: int) -> deployments.Fleet:
    """One copy for each host."""
    return build.fleet(fleet_hosts(number))


def crowded(number: int) -> deployments.Fleet:
    """All copies on one host, which has not told of its pools yet."""
    return build.fleet([build.host()], [build.pool(f"pool-{each}") for each in range(number)])


def copies(number: int, phase: str = "Ready", **fields: Any) -> dict[str, PlacementView]:
    """Those of `spread`."""
    return build.by_key(*(build.placement(host=f"kvm-{each}", phase=phase, **fields) for each in range(number)))


def of(
    plan: Callable[[TemplateDeployment, Template, deployments.Fleet], object],
    world: Callable[[int], deployments.Fleet],
    spec: build.Document | None = None,
    **fields: Any,
) -> Callable[[int], Work]:
    """A plan for one deployment of one template, with nothing there yet."""

    def prepared(number: int) -> Work:
        fleet, deployment = world(number), build.deployment(spec=spec, **fields)
        return lambda: plan(deployment, SIZED, fleet)

    return prepared


def placements(existing: Callable[[int], Mapping[str, PlacementView]], **fields: Any) -> Callable[[int], Work]:
    def prepared(number: int) -> Work:
        there, fleet, deployment = existing(number), spread(number), build.deployment(**fields)
        return lambda: deployments.plan_placements(SIZED, [deployment], fleet, there)

    return prepared


def status(phase: str) -> Callable[[int], Work]:
    def prepared(number: int) -> Work:
        there, fleet, deployment = copies(number, phase), spread(number), build.deployment()
        return lambda: deployments.plan_deployment(deployment, SIZED, fleet, there, NOW)

    return prepared


def listed(make: Callable[[int], Any], plan: Callable[[list[Any]], object]) -> Callable[[int], Work]:
    """A plan for a list of what `make` makes of each number."""

    def prepared(number: int) -> Work:
        items = [make(each) for each in range(number)]
        return lambda: plan(items)

    return prepared


def up(each: int) -> ObservedHost:
    return build.host(f"kvm-{each}", storage=[build.facts()])


def proving(state: str) -> Callable[[int], ObservedHost]:
    entry = {"name": "my-ca", "state": state, "message": "it could not be written"}
    return lambda each: build.host(f"kvm-{each}", status={"keystore": {"type": "JKS"}, "certificates": [entry]})


def plan_certificate(found: Iterable[ObservedHost]) -> object:
    item = build.certificate()
    return certificates.plan_certificate(item, publications.inline(item), ZONES["zone-1"], (), found, NOW)


def published(each: int, alias: str = "") -> keystores.Published:
    name = f"ca-{each}"
    return keystores.Published(
        alias=alias or name, certificate=Certificate(name.encode()), name=name, created=NOW, zone="zone-1"
    )


def keystore(alias: str) -> Callable[[int], Work]:
    def plan(found: list[keystores.Published]) -> object:
        wanted = keystores.desired("kvm-1", "zone-1", True, found, NOW)
        first = keystores.plan(wanted, {}, {})
        entries = {name: wish.certificate.fingerprint_sha256 for name, wish in first.put.items()}
        settled = keystores.plan(wanted, first.ledger, entries)
        assert not settled.changes
        return keystores.proofs(wanted, settled, entries), keystores.distrusted(wanted, settled.ledger)

    return listed(lambda each: published(each, alias), plan)


def line(group: Callable[[int], tuple[slots.Group, ...]], busy: str = "") -> Callable[[int], Work]:
    """All join, and some are called; `busy` is a group that has no room."""

    def prepared(number: int) -> Work:
        waiting = [(f"copy-{each}", group(each)) for each in range(number)]

        def serve() -> None:
            queue, ledger = slots.Line(), slots.Ledger()
            ledger.occupy("first", [busy])
            ledger.occupy("second", [busy])
            for name, groups in waiting:
                queue.join(name, groups, 1)
            for _ in range(10):
                queue.call(ledger)

        return serve

    return prepared


def groups(host: str, namespace: str) -> tuple[slots.Group, ...]:
    names = {"zone/zone-1": 20, f"host/{host}": 2, f"namespace/zone-1/{namespace}": 16}
    return tuple(slots.Group(name, limit) for name, limit in names.items())


def record(each: int) -> installations.Record:
    return installations.Record(f"ns-{each}", "controller", f"uid-{each}", NOW, "pod", "0", 0)


def watch(found: list[installations.Record]) -> object:
    seen = installations.look({}, found, 0, None)
    seen = installations.look(seen, found, 1, 0)
    return installations.judge(found[-1], seen, 1)


DRY_RUN = lambda d, t, fleet: dryrun.plan_dry_run(d, t, fleet, {}, NOW)  # noqa: E731
SHARED = build.pool(spec=build.SHARED)
GONE = {"deleting": True}
MINE, TAKEN = [("zone-1", ["default"])], quotas.Usage({quotas.Account("default", "zone-1"): 100})

#: What is planned: N, and what is measured. No planner is left out that is given all of a fleet.
CASES: dict[str, tuple[int, Callable[[int], Work]]] = {
    "the copies of a deployment": (1000, of(deployments.targets, spread)),
    "the copies of a deployment, on one host": (1000, of(deployments.targets, crowded)),
    "placements to be made": (1000, placements(lambda _: {})),
    "placements that are there": (1000, placements(copies)),
    "placements to be removed": (1000, placements(copies, **GONE)),
    "placements of others, which stay": (1000, placements(lambda n: copies(n, template_uid="other"))),
    "a deployment that is Ready": (1000, status("Ready")),
    "a deployment all of whose copies failed": (1000, status("Failed")),
    "a dry run": (500, of(DRY_RUN, spread)),
    "a dry run on one host": (250, of(DRY_RUN, crowded)),
    "a dry run, one after the other": (500, of(DRY_RUN, spread, {"rollout": {"maxParallel": 1}})),
    "a certificate that is proved": (1000, listed(proving("Uploaded"), plan_certificate)),
    "a certificate that no host takes": (1000, listed(proving("Failed"), plan_certificate)),
    "rivals of a certificate": (
        1000,
        listed(
            lambda each: build.certificate(f"ca-{each}"),
            lambda found: publications.publish(
                build.certificate(), publications.inline(build.certificate()), found, NOW
            ),
        ),
    ),
    "a keystore": (500, keystore("")),
    "a keystore, all with one alias": (1000, keystore("ca")),
    "the zones of a node": (
        1000,
        listed(
            lambda each: build.zone(f"zone-{each}"),
            lambda found: hosts.plan_host(None, build.node(labels={"zone": "zone-1"}), found, Agent(True), NOW),
        ),
    ),
    "a pool": (1000, listed(up, lambda found: pools.plan_pool(build.pool(), True, found, ROOTS, NOW))),
    "roots": (1000, listed(lambda each: build.pool(f"pool-{each}"), pools.told_roots)),
    "roots, each another one": (
        1000,
        listed(lambda each: build.pool(spec={"path": f"/var/lib/{each}"}), pools.told_roots),
    ),
    "hosts for a probe": (
        1000,
        listed(
            up,
            lambda found: probes.choose(SIZED, probes.hosts_for(SIZED, ZONES.values(), found, {"default": {}}), 1),
        ),
    ),
    "inputs of a probe": (500, listed(lambda each: build.zone(f"zone-{each}"), lambda z: probes.inputs_of(SIZED, z))),
    "who pays, in one namespace": (1000, listed(lambda _: MINE[0], lambda all_: quotas.allot(all_, ZONES, TAKEN))),
    "who pays, each another namespace": (
        1000,
        listed(lambda each: ("zone-1", [f"ns-{each}"]), lambda all_: quotas.allot(all_, ZONES, TAKEN)),
    ),
    "who fetches for a shared pool": (1000, listed(up, lambda found: sharing.choose(SHARED, found, ROOTS))),
    "who takes over a copy of a shared pool": (
        1000,
        listed(
            up,
            lambda found: sharing.successor(
                SHARED, None, build.placement(shared=True), found, [build.deployment()], ROOTS, NOW
            ),
        ),
    ),
    "a line for slots": (1000, line(lambda each: groups(f"kvm-{each}", "default"))),
    "a line on one host": (1000, line(lambda _: groups("kvm-1", "default"))),
    "a line on one host that is busy": (1000, line(lambda _: groups("kvm-1", "default"), "host/kvm-1")),
    "a line of many namespaces": (1000, line(lambda each: groups("kvm-1", f"ns-{each}"))),
    "the copies of a template": (
        1000,
        listed(
            lambda each: build.placement(host=f"kvm-{each}", phase="Ready", status=build.file_status()),
            lambda found: templates.plan_template(SIZED, {"zone-1"}, found, NOW),
        ),
    ),
    "what copies teach": (
        1000,
        listed(
            lambda each: Checksum.parse(f"sha256:{each:064x}"),
            lambda found: digests.learn(SIZED, found),
        ),
    ),
    "a zone": (1000, listed(up, lambda found: zones.plan_zone(ZONES["zone-1"], found, (), NOW))),
    "other installations": (1000, listed(record, watch)),
}


def seconds(once: Work, twice: Work) -> tuple[float, float]:
    """CPU time of both, the best of some, measured in turns: what else the machine does meets both alike."""
    gc.collect()
    gc.disable()
    try:
        # so often that it takes long enough to be measured
        repeats = max(1, round(_ENOUGH_SECONDS / _timed(once, 1)))
        measured = [(_timed(once, repeats), _timed(twice, repeats)) for _ in range(4)]
    finally:
        gc.enable()
    return min(first for first, _ in measured), min(second for _, second in measured)


def _timed(work: Work, repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        work()
    return time.process_time() - began


@pytest.mark.parametrize("what", CASES)
def test_twice_as_much_takes_about_twice_as_long(what: str) -> None:
    number, prepared = CASES[what]
    once, twice = seconds(prepared(number), prepared(2 * number))
    assert twice / once < 3, f"{number}: {once * 1000:.1f} ms, {2 * number}: {twice * 1000:.1f} ms"
