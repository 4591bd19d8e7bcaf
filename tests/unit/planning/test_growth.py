"""Planners at fleet size: twice the objects may cost three times the CPU at most, however the objects are spread.

Every public function of `planning` is here: in `CASES`, or in `OF_ONE` if it is about one object of bounded size.
"""

import dataclasses
import datetime
import functools
import gc
import importlib
import inspect
import pkgutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document
from tests.world import certificates as certificate_files

from directdownload import planning
from directdownload.planning import (
    certificates,
    conditions,
    demands,
    deployments,
    digests,
    dryrun,
    footprints,
    hosts,
    installations,
    keystores,
    observed,
    peers,
    placements,
    pools,
    probes,
    publications,
    quotas,
    rights,
    rollouts,
    selection,
    served,
    sharing,
    slots,
    steps,
    swarms,
    templates,
    unserved,
    waits,
    zones,
)
from directdownload.planning.observed import ObservedHost, PlacementView
from directdownload.planning.selection import Fleet
from directdownload.resources.checksum import Checksum
from directdownload.resources.host import Demand
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase, PlacementPeers, Role
from directdownload.resources.zone import Zone

NUMBER = 400
RATIO = 3.0
#: Another process may disturb one measurement, but not all of them.
ROUNDS = 6

Call = Callable[[], object]

_OF_ONE = """
    architectures.differs architectures.of_node architectures.takes attempts.counted attempts.failures_before
    attempts.given_up attempts.gives_up attempts.next_attempt attempts.one_more attempts.pause_end
    attempts.result_of attempts.retry_pause_seconds conditions.condition conditions.conditions digests.disputed
    demands.key_of demands.keys_of demands.volumes_of demands.refusal demands.serves
    served.unread rights.kept_from rights.unready
    selection.target_of digests.hold digests.lesson
    disclosure.failure disclosure.reason disclosure.shown disclosure.words
    header_secrets.followed header_secrets.forbidden header_secrets.good_until header_secrets.judge
    header_secrets.missing header_secrets.obstacle keystores.nothing observed.project_namespace
    observed.project_revision placements.inputs_of plans.downloading plans.held_up plans.mark_removing
    plans.mark_wanted plans.request_due plans.status_of plans.waiting_for_slot pools.exposed probes.due
    probes.look_again probes.next_attempt probes.outcome probes.result_of probes.wanted publications.inline
    publications.named publications.referred publications.written quotas.has_room quotas.limit
    quotas.most_placements quotas.shortage removal.plan_removal repair.plan_ready repair.plan_verification
    requests.due requests.due_of requests.is_due requests.later requests.served rights.denial rights.grant
    rights.holds_unread rights.refusal rights.renewed rights.template_of rights.template_uid_of sharing.able
    sharing.stays slots.parallel_limit slots.verification_groups startup.asks startup.blocked startup.late
    startup.latest startup.look_again startup.with_pod startup.without_pod templates.protocol templates.source_host
    footprints.lies_there footprints.part_bytes footprints.too_large readers.job_role readers.role_of
    peers.after peers.checksum_of peers.content_of peers.distrusts peers.next_epoch peers.notations peers.part_of
    peers.recorded peers.shown peers.turn peers.waiting placements.startable placements.verifiable slots.peers_group
    slots.seed_group
    waits.leading waits.stage waits.wait_of waits.words
"""
OF_ONE = frozenset(_OF_ONE.split())


def names(prefix: str, number: int) -> list[str]:
    return [f"{prefix}-{each}" for each in range(number)]


@functools.cache
def on_many(number: int) -> Sequence[ObservedHost]:
    known: Document = {"storage": [build.facts()], "labels": {"rack": "a"}, "status": {"architecture": "x86_64"}}
    return [build.host(name, **known) for name in names("kvm", number)]


@functools.cache
def with_pools(number: int) -> tuple[ObservedHost, Sequence[StoragePool]]:
    """One host that has all of them."""
    storage = [build.facts(name) for name in names("pool", number)]
    return build.host("kvm-0", storage=storage), [build.pool(name) for name in names("pool", number)]


@functools.cache
def copies(number: int) -> Mapping[str, PlacementView]:
    return build.by_key(*(build.placement(host=host.name, phase="Ready") for host in on_many(number)))


@functools.cache
def copies_on_one(number: int) -> Mapping[str, PlacementView]:
    return build.by_key(*(build.placement(host="kvm-0", pool=name, phase="Ready") for name in names("pool", number)))


@dataclasses.dataclass(frozen=True)
class Scene:
    """A fleet, the deployments of the one template, and its copies."""

    fleet: Fleet
    wishes: Sequence[TemplateDeployment]
    existing: Mapping[str, PlacementView]
    template: Template = dataclasses.field(default_factory=build.template)

    def changes(self) -> object:
        return deployments.plan_placements(self.template, self.wishes, self.fleet, self.existing)

    def statuses(self) -> object:
        return [rollouts.plan_deployment(d, self.template, self.fleet, self.existing, NOW) for d in self.wishes]

    def dry_run(self) -> object:
        found = dryrun.plan_dry_run(self.wishes[0], self.template, self.fleet, self.existing, NOW)
        return found.rounds, found.most_at_once, found.fetch_bytes, found.count(dryrun.Action.DOWNLOAD)


def rollout(number: int) -> Scene:
    return Scene(build.fleet(on_many(number)), [build.deployment()], {})


def settled(number: int) -> Scene:
    return dataclasses.replace(rollout(number), existing=copies(number))


def named(number: int) -> Scene:
    """Every host is named in the deployment."""
    wish = build.deployment(spec={"hosts": names("kvm", number)})
    return dataclasses.replace(settled(number), wishes=[wish])


def narrowed(number: int) -> Scene:
    wish = build.deployment(generation=2, spec={"hosts": names("kvm", number // 2)})
    return dataclasses.replace(settled(number), wishes=[wish])


def mismatched(number: int) -> Scene:
    """Every host is named, and of another architecture than the template."""
    return dataclasses.replace(named(number), template=build.template(spec={"architecture": "s390x"}), existing={})


def relabelled(number: int) -> Scene:
    """No host has the wanted label any more."""
    spec: Document = {"hosts": names("kvm", number), "hostSelector": {"matchLabels": {"rack": "b"}}}
    return dataclasses.replace(settled(number), wishes=[build.deployment(spec=spec)])


def relabelled_and_edited(number: int) -> Scene:
    spec: Document = {"hosts": names("kvm", number), "hostSelector": {"matchLabels": {"rack": "b"}}}
    return dataclasses.replace(settled(number), wishes=[build.deployment(generation=2, spec=spec)])


def withdrawn(number: int) -> Scene:
    """The deployment is being deleted."""
    return dataclasses.replace(settled(number), wishes=[build.deployment(deleting=True)])


def without_zone(number: int) -> Scene:
    return dataclasses.replace(settled(number), fleet=build.fleet(on_many(number), zones=[]))


def denied(number: int) -> Scene:
    """The right to copies was taken away, and each name is part of what was granted."""
    wish = build.deployment(namespace="other", spec={"hosts": names("kvm", number), "templateRef": _REFERENCE})
    return dataclasses.replace(settled(number), wishes=[wish])


def one_host(number: int) -> Scene:
    host, found = with_pools(number)
    return Scene(build.fleet([host], found), [build.deployment()], {})


def one_host_settled(number: int) -> Scene:
    return dataclasses.replace(one_host(number), existing=copies_on_one(number))


def one_namespace(number: int) -> Scene:
    """All deployments are of one template, in one namespace."""
    wishes = [build.deployment(name, spec={"hosts": names("kvm", 10)}) for name in names("wish", number)]
    return Scene(build.fleet(on_many(10)), wishes, copies(10))


def many_namespaces(number: int) -> Scene:
    template = build.template(spec={"allowedNamespaces": {}})
    wishes = [
        build.deployment("wish", namespace=name, spec={"hosts": names("kvm", 10), "templateRef": _REFERENCE})
        for name in names("tenant", number)
    ]
    fleet = build.fleet(on_many(10), namespaces={name: {} for name in names("tenant", number)})
    return Scene(fleet, wishes, {}, template)


_REFERENCE = {"name": "debian-13", "namespace": "default"}
#: The last two have as many deployments as copies elsewhere.
SCENES = (
    *(rollout, settled, named, narrowed, relabelled, relabelled_and_edited, withdrawn, without_zone, denied),
    *(mismatched, one_host, one_host_settled, one_namespace, many_namespaces),
)


def of(scene: Callable[[int], Scene], plans: Callable[[Scene], object]) -> Callable[[int], Call]:
    return lambda number: functools.partial(plans, scene(number))


def archive(number: int) -> Scene:
    """One copy of many is verified, and the last one: it says how large the unpacked file is."""
    served: Document = {"file": {**build.file_status()["file"], "servedBytes": 100}}
    last = build.placement(host=f"kvm-{number - 1}", phase="Ready", status=served)
    pending = {key: dataclasses.replace(view, phase=None) for key, view in copies(number).items()}
    return dataclasses.replace(settled(number), existing={**pending, last.key: last})


def refused(number: int) -> Scene:
    """No copy is created, and each is shown."""
    return dataclasses.replace(rollout(number), template=build.template(ready=False))


def shared(number: int) -> Call:
    """Where hosts read from each other."""
    zone = build.zone(status={"peers": {"unavailable": 0}})
    template = build.template(spec={"checksum": build.DIGEST})
    scene = Scene(build.fleet(on_many(number), zones=[zone]), [build.deployment()], {}, template)
    archives = list(copies(number).values())
    return lambda: (scene.dry_run(), footprints.unpacked_bytes(archives))


def around(number: int) -> Call:
    """Each copy of one host that has as many pools."""
    host, found = with_pools(number)
    views = [(build.around(host=host, pool=pool), build.placement(host="kvm-0", pool=pool.name)) for pool in found]
    return lambda: [placements.plan_placement(view, each, None, NOW) for each, view in views]


def facts(number: int) -> Call:
    host, found = with_pools(number)
    return lambda: [
        (pools.facts(pool, host), pools.available_bytes(pool, host), pools.obstacle(pool, host, (build.ROOT,)))
        for pool in found
    ]


def pool_of_many(number: int) -> Call:
    return lambda: pools.plan_pool(build.pool(), True, on_many(number), (build.ROOT,), NOW)


def successor(number: int) -> Call:
    pool = build.pool(spec=build.SHARED)
    hosts_named = build.deployment(spec={"hosts": names("kvm", number)})
    view, found = build.placement(host="gone", shared=True), on_many(number)
    return lambda: sharing.successor(pool, None, view, found, [hosts_named], (build.ROOT,), NOW)


def zones_of(number: int) -> Sequence[Zone]:
    """All of them select the same nodes."""
    return [build.zone(name, spec={"nodeSelector": {}}) for name in names("zone", number)]


def host_in_many_zones(number: int) -> Call:
    found, agent = zones_of(number), observed.Agent(True)
    unreadable = frozenset(names("unread", number))
    return lambda: hosts.plan_host(None, build.node(), found, agent, NOW, unreadable=unreadable)


def selecting(number: int) -> Call:
    found = zones_of(number)
    return lambda: hosts.selecting_zones({}, found)


def zone_of_many(number: int) -> Call:
    return lambda: zones.plan_zone(build.zone(), on_many(number), names("node", number), NOW)


def template_of_many(number: int) -> Call:
    views, lessons = copies(number).values(), checksums(number)
    return lambda: templates.plan_template(build.template(), names("zone", number), views, NOW, lessons=lessons)


def checksums(number: int) -> list[Checksum]:
    return [Checksum.parse(f"sha256:{each:064x}") for each in range(number)]


def learn(number: int) -> Call:
    found = checksums(number)
    return lambda: digests.learn(build.template(), found)


def probed(number: int) -> Call:
    template, found, fleet = build.template(), zones_of(number), on_many(number)
    return lambda: (
        probes.choose(template, probes.hosts_for(template, found, fleet, {}), 1),
        probes.inputs_of(template, found),
    )


def rivals(number: int) -> Call:
    """All want one alias."""
    text = certificate_files.pem()
    first, *others = (build.certificate(name, spec={"certificate": text}) for name in names("ca", number))
    source = publications.inline(first)
    return lambda: publications.publish(first, source, others, NOW)


def proved(state: str) -> Callable[[int], Call]:
    def case(number: int) -> Call:
        item = build.certificate(spec={"certificate": certificate_files.pem(), "revokedHosts": names("kvm", number)})
        found = [
            build.host(name, status={"certificates": [{"name": "my-ca", "state": state, "message": name}]})
            for name in names("kvm", number)
        ]
        source = publications.inline(item)
        return lambda: certificates.plan_certificate(item, source, build.zone(), [], found, NOW)

    return case


def keystore(aliases: Callable[[int], str], *, held: bool = False) -> Callable[[int], Call]:
    """As many certificates, under these aliases; all are also withdrawn, remembered, and in the store."""

    def case(number: int) -> Call:
        found = [Certificate(str(each).encode()) for each in range(number)]
        published = [
            keystores.Published(f"ca-{each}", NOW, "z", aliases(each), certificate, revoked=each % 2 == 0)
            for each, certificate in enumerate(found)
        ]
        entries = {f"{aliases(each)}": each_file.fingerprint_sha256 for each, each_file in enumerate(found)}
        entries |= {f"other-{each}": each_file.fingerprint_sha256 for each, each_file in enumerate(found)}
        ownership = {
            alias: keystores.Owned(f"gone-{each}", frozenset({fingerprint}), placed=True)
            for each, (alias, fingerprint) in enumerate(entries.items())
        }
        taken = {(f"other-{each}", each_file.fingerprint_sha256): "gone" for each, each_file in enumerate(found)}
        enabled = None if held else True

        def plan() -> object:
            wanted = keystores.desired("kvm-1", "z", enabled, published, NOW, ownerships=[ownership], taken=taken)
            made = keystores.plan(wanted, ownership, entries, flawed=frozenset(entries))
            keystores.failed(wanted, Reason.KEYSTORE_MISSING)
            keystores.distrusted(wanted, ownership)
            return keystores.proofs(wanted, made, entries, "unreadable")

        return plan

    return case


def leases(number: int) -> Call:
    records = [
        installations.Record(name, "controller", name, NOW - datetime.timedelta(seconds=1), "pod", "0", 0)
        for name in names("lease", number)
    ]

    def look() -> object:
        return installations.judge(records[0], installations.look({}, records, 1.0, 0.0), 1.0)

    return look


def allotted(number: int) -> Call:
    namespaces = names("tenant", 10)
    found, usage = {"zone-1": build.zone(spec={"placementsPerNamespace": number // 20})}, quotas.Usage({}, number // 2)
    return lambda: quotas.allot([("zone-1", namespaces)] * number, found, usage)


def told_roots(number: int) -> Call:
    found = [build.pool(name, spec={"path": f"{build.ROOT}/{name}"}) for name in names("pool", number)]
    return lambda: pools.told_roots(found)


def host_with_much(number: int) -> Call:
    """One Host that reports as many pools and certificates."""
    proofs = [{"name": name, "state": "Pending", "message": name} for name in names("ca", number)]
    storage = [build.facts(name) for name in names("pool", number)]
    document = {
        "metadata": build.metadata("kvm-1"),
        "spec": {"nodeName": "kvm-1", "zone": "zone-1"},
        "status": {"storage": storage, "certificates": proofs},
    }

    def project() -> object:
        # Reports that were seen before are remembered.
        return observed.Views().host(document)

    return project


def groups(number: int) -> Call:
    wanting = [(build.deployment(name, spec={"rollout": {"maxParallel": 1}}), 5) for name in names("wish", number)]
    return lambda: slots.groups_of(build.placement(), build.template(), build.zone(), wanting)


def waiting(number: int) -> Call:
    """All wait, half of them for one thing."""
    reasons = [Reason.HOST_DOWN, *Reason]
    found = [waits.Wait(reasons[each % len(reasons) * (each % 2)], f"kvm-{each}") for each in range(number)]
    return lambda: (waits.counted(found), conditions.listed([wait.host for wait in found]))


def misspelt(number: int) -> Call:
    """No host has any of the names."""
    wish = build.deployment(spec={"hosts": names("nope", number), "pools": names("nope", number % 256)})
    fleet = build.fleet(on_many(number))
    return lambda: unserved.names_unserved(wish, fleet).words


def swarm(number: int) -> Call:
    """A rollout: one after the other starts, some fail, and each asks who is next."""
    views = [
        build.placement(host=name, phase="Pending", reason=Reason.WAITING_FOR_SEED) for name in names("kvm", number)
    ]
    begun = [dataclasses.replace(view, phase=Phase.DOWNLOADING, peers=PlacementPeers(role=Role.PEER)) for view in views]
    failed = [dataclasses.replace(view, recent_failures=2, next_attempt_time=NOW + build.seconds(60)) for view in views]

    def calls() -> object:
        found = swarms.Swarm(build.TEMPLATE_UID, "zone-1")
        for view in views:
            found.take(None, view)
        for place, view in enumerate(views):
            found.next_seed(lambda _: True, NOW)
            found.recorder(lambda _: True, NOW)
            peers.candidates("a" * 64, view.host, found.ahead, found.wanting, lambda _: True)
            found.take(view, failed[place] if place % 4 == 0 else begun[place])
        return peers.unreached(views)

    return calls


def standing(number: int) -> Call:
    found = denied(number)
    return lambda: [(rights.standing(d, found.template, found.fleet), rights.selection(d)) for d in found.wishes]


_ON_DEMAND: Document = {"onDemand": {"enabled": True, "namespaces": {}, "maxPerHost": 0}}
_DEMAND: Document = {"namespace": "default", "template": "debian-13", "since": build.stamp(NOW), "volumes": 1}


def demanded(spec: Document) -> Callable[[int], Call]:
    """Each host has a volume of the template."""

    def case(number: int) -> Call:
        found = [
            build.host(name, storage=[build.facts()], status={"demands": [_DEMAND]}) for name in names("kvm", number)
        ]
        fleet = build.fleet(found, [build.pool(spec=spec)], [build.zone(spec=_ON_DEMAND)])
        template, existing, view = build.template(), copies(number), build.placement(phase="Removing")
        askings = [a for host in found for a in demands.asked(host, fleet.zones["zone-1"], fleet.labels_of)]

        def plan() -> object:
            wished = steps.finish(demands.of_template(template, found, fleet, existing, NOW))
            changes = deployments.plan_placements(template, [], fleet, existing, demands=wished)
            return changes, demands.in_use(view, found), demands.wants(template, reversed(askings), fleet.judge)

        return plan

    return case


def answered(number: int) -> Call:
    """One host with as many pools, and a copy in each."""
    host, found = with_pools(number)
    view = copies_on_one(number)
    asking = demands.Asking(host, Demand.model_validate(_DEMAND), build.zone(spec=_ON_DEMAND), {})

    def plan() -> object:
        seen = demands.copies(host, "debian-13", build.TEMPLATE_UID, found, view.get, (build.ROOT,))
        return served.answer(asking, build.template(), seen, build.fleet().judge, NOW)

    return plan


def line(host_of: Callable[[int], str], *, full: bool) -> Callable[[int], Call]:
    """All wait, and are called one after the other. `full`: one host has no room, and the others have."""

    def case(number: int) -> Call:
        zone, template = build.zone(spec={"downloads": {"maxParallel": 0, "maxParallelPerHost": 1}}), build.template()
        views = [
            dataclasses.replace(build.placement(), key=f"copy-{each:06}", host=host_of(each)) for each in range(number)
        ]
        waiting = [(view.key, slots.groups_of(view, template, zone, [])) for view in views]

        def calls() -> object:
            found, held = slots.Line(), slots.Slots()
            if full:
                held.occupy("job", ["host/kvm-0"])
            for name, each in waiting:
                found.join(name, each, 0)
            while (called := found.call(held)) is not None:
                found.answer(called)
                held.occupy(called, ["namespace/zone-1/default"])
            for name, _ in waiting:
                found.call(held)
                found.leave(name)
                held.release(name)
            return found

        return calls

    return case


_IN_STEPS = "deployments.place_in_steps, steps.finish, removal_orders.has_moved, removal_orders.is_ordered"
CASES: Mapping[str, Callable[[int], Call]] = {
    **{f"deployments.plan_placements, {_IN_STEPS}, {each.__name__}": of(each, Scene.changes) for each in SCENES},
    **{f"rollouts.plan_deployment, {each.__name__}": of(each, Scene.statuses) for each in SCENES[:-2]},
    **{
        f"dryrun.plan_dry_run, rounds.assigned, {each.__name__}": of(each, Scene.dry_run)
        for each in (*SCENES, archive, refused)
    },
    "selection.select": lambda number: functools.partial(
        selection.select, named(number).wishes[0], build.template(), build.fleet(on_many(number)), copies(number)
    ),
    "placements.plan_placement, one host": around,
    "pools.facts, pools.available_bytes, pools.obstacle, one host": facts,
    "pools.hosts_of": lambda number: lambda: pools.hosts_of(build.pool(), on_many(number)),
    "pools.plan_pool": pool_of_many,
    "pools.told_roots": told_roots,
    "sharing.successor, sharing.choose": successor,
    "hosts.plan_host": host_in_many_zones,
    "hosts.selecting_zones": selecting,
    "zones.plan_zone": zone_of_many,
    "templates.plan_template, templates.count": template_of_many,
    "digests.learn": learn,
    "probes.hosts_for, probes.choose, probes.inputs_of": probed,
    "publications.publish, one alias": rivals,
    "certificates.plan_certificate, failed": proved("Failed"),
    "certificates.plan_certificate, revoked": proved("Revoked"),
    "keystores.desired, keystores.plan, keystores.proofs, keystores.failed, keystores.distrusted": keystore(
        lambda each: f"ca-{each}"
    ),
    "keystores.desired, keystores.plan, keystores.proofs, one alias": keystore(lambda _: "ca"),
    "keystores.desired, keystores.plan, keystores.proofs, no zone": keystore(lambda each: f"ca-{each}", held=True),
    "installations.look, installations.judge": leases,
    "quotas.allot": allotted,
    "observed.Views.host": host_with_much,
    "slots.groups_of": groups,
    "slots.Line": line(lambda each: f"kvm-{each}", full=False),
    "slots.Line, one host": line(lambda _: "kvm-0", full=True),
    "slots.Line, most on one host": line(lambda each: "kvm-0" if each % 10 else f"kvm-{each}", full=True),
    "rights.standing, rights.selection": standing,
    "demands.of_template, demands.choose, demands.asked, local": demanded({}),
    "demands.of_template, demands.in_use, demands.wants, shared": demanded(build.SHARED),
    "demands.copies, served.answer, one host": answered,
    "waits.counted, conditions.listed": waiting,
    "peers.candidates, peers.unreached, swarms.Swarm": swarm,
    "readers.roles, footprints.unpacked_bytes": shared,
    "unserved.names_unserved": misspelt,
}


def public() -> Iterator[str]:
    for module in pkgutil.iter_modules(planning.__path__):
        found = importlib.import_module(f"{planning.__name__}.{module.name}")
        for name, value in vars(found).items():
            if inspect.isfunction(value) and value.__module__ == found.__name__ and not name.startswith("_"):
                yield f"{module.name}.{name}"


def test_every_public_planner_is_measured_or_is_about_one_object() -> None:
    measured = {name for case in CASES for name in case.split(", ") if "." in name}
    assert set(public()) == (measured - {"slots.Line", "swarms.Swarm", "observed.Views.host"}) | OF_ONE
    assert not measured & OF_ONE


def cpu_seconds(call: Call) -> float:
    gc.disable()
    try:
        began = time.process_time()
        call()
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.parametrize("case", CASES)
def test_twice_the_objects_cost_no_three_times_the_cpu(case: str) -> None:
    once, twice = (CASES[case](number) for number in (NUMBER, 2 * NUMBER))
    for call in (once, twice):
        call()
    least, most = float("inf"), float("inf")
    for _ in range(ROUNDS):
        least, most = min(least, cpu_seconds(once)), min(most, cpu_seconds(twice))
        if most < RATIO * least:
            return
    pytest.fail(f"{NUMBER} cost {least:.4f} s of CPU, {2 * NUMBER} cost {most:.4f} s: {most / least:.1f} times as much")
