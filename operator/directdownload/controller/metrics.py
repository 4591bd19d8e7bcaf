"""The metrics of a controller; the tables of docs/metrics.md are made from this.

Reconcilers raise counters as things happen. `Collector` computes gauges from the world at each scrape; only a leader
registers it, as a standby does not know the world. Labels come from objects and enumerations, never from a URL or a
message; numbers reported by jobs are checked before they count, as nothing could undo a bad one.
"""

import collections
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from directdownload.controller import world as worlds
from directdownload.controller.queue import WorkQueue
from directdownload.observe import catalogue
from directdownload.observe.catalogue import ComputedGauge
from directdownload.planning.peers import PATIENCE
from directdownload.resources import quantities, urls
from directdownload.resources.base import ConditionStatus
from directdownload.resources.host import Host, HostStorage
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase, Role

EventDropCause = Literal["Throttled", "QueueFull", "Refused", "Unreachable"]

PROTOCOLS = ("HTTP", "HTTPS", "NFS")
#: for a URL with another scheme, or if the URL is no longer known
OTHER_PROTOCOL = "other"
#: the kinds of keys in the work queue
QUEUES = ("host", "zone", "pool", "template", "placement", "probe", "certificate")
HOST_STATES = ("Up", "Down", "Maintenance")
KEYSTORE_STATES = {
    ConditionStatus.TRUE: "Synced",
    ConditionStatus.FALSE: "NotSynced",
    ConditionStatus.UNKNOWN: "Unknown",
}
#: the counters in `status.hosts` of a certificate
CERTIFICATE_STATES = ("Uploaded", "Revoked", "Failed", "Pending", "Down")
#: From a small file on a fast network to the deadline of a large one.
_DOWNLOAD_SECONDS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
_RECONCILE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONGEST_SECONDS = 366 * 86400.0

CATALOGUE = catalogue.Catalogue()
LEADER = CATALOGUE.gauge(
    "leader",
    "1 for the leader: it holds the Lease, has read the cluster, and works; 0 for a standby, for a controller that "
    "waits for another installation, and for a leader that steps down or may have lost the Lease",
)
PLACEMENTS = CATALOGUE.computed_gauge(
    "placements",
    "copies of templates on hosts, by `status.phase`; a copy without a phase counts as Pending",
    *("zone", "phase"),
)
PLACEMENTS_LIMIT = CATALOGUE.computed_gauge(
    "placements_limit",
    "the most placements that the controller creates, by its memory and the number of hosts",
)
HOSTS = CATALOGUE.computed_gauge(
    "hosts", "hosts, by `status.state`; a host without a state counts as Down", "zone", "state"
)
HOST_DOWN_PLACEMENTS = CATALOGUE.computed_gauge(
    "host_down_placements", "copies that a Down host has or should get; other hosts have no series", "zone", "host"
)
KEYSTORES = CATALOGUE.computed_gauge(
    "keystores",
    "keystores of hosts, by the Host's condition KeystoreSynced: `Synced`, `NotSynced`, or `Unknown` until an agent "
    "has reported",
    *("zone", "state"),
)
JOBS_ACTIVE = CATALOGUE.computed_gauge(
    "jobs_active", "Jobs that have not ended: downloads, verifications, removals", "zone"
)
POOL_AVAILABLE_BYTES = CATALOGUE.computed_gauge(
    "pool_available_bytes",
    "free space of a storage pool as the host sees it; a shared pool has it once per host",
    *("zone", "pool", "host"),
)
POOL_CAPACITY_BYTES = CATALOGUE.computed_gauge(
    "pool_capacity_bytes",
    "size of the file system of a storage pool as the host sees it; a shared pool has it once per host",
    *("zone", "pool", "host"),
)
POOL_READY = CATALOGUE.computed_gauge(
    "pool_ready", "1 if the host can use the storage pool, 0 if it cannot", "zone", "pool", "host"
)
CERTIFICATE_HOSTS = CATALOGUE.computed_gauge(
    "certificate_hosts",
    "hosts of a published certificate's zone, by the state of the certificate there: `Uploaded`, `Revoked`, `Failed`, "
    "`Pending`, or `Down`",
    *("zone", "alias", "state"),
)
CERTIFICATE_NOT_AFTER = CATALOGUE.computed_gauge(
    "certificate_not_after_timestamp_seconds",
    "expiry of a published certificate",
    *("zone", "alias"),
)
UNREADABLE_OBJECTS = CATALOGUE.computed_gauge(
    "unreadable_objects",
    "objects that this version cannot read: the controller leaves them alone, and blocks work that they may concern",
    "kind",
)
QUEUE_DEPTH = CATALOGUE.computed_gauge(
    "queue_depth",
    "objects that wait for a reconcile or are being reconciled, by kind: " + ", ".join(f"`{kind}`" for kind in QUEUES),
    "queue",
)
DOWNLOAD_ATTEMPTS = CATALOGUE.counter(
    "download_attempts_total",
    "ended download attempts, by the reason of their result",
    *("zone", "reason"),
)
DOWNLOAD_BYTES = CATALOGUE.counter(
    "download_bytes_total",
    "size of the downloaded and published files; bytes of a failed attempt count once their file is complete",
    *("zone", "host", "protocol"),
)
DOWNLOAD_SECONDS = CATALOGUE.histogram(
    "download_duration_seconds",
    "duration of an attempt, with checks and publishing; a file that was there already does not count",
    *("zone", "protocol", "result"),
    buckets=_DOWNLOAD_SECONDS,
)
VERIFICATIONS = CATALOGUE.counter(
    "verifications_total",
    "ended checks of published files: `Verified`, `Altered`, `Missing`, or the reason why the check failed",
    *("zone", "reason"),
)
REPAIRS = CATALOGUE.counter(
    "repairs_total",
    "published files that were found `Missing` or `Altered` and are fetched again",
    *("zone", "reason"),
)
RECEIVED_BYTES = CATALOGUE.counter(
    "received_bytes_total",
    "bytes that ended downloads have received, where hosts read from each other: from `origin` (the source and its "
    "mirrors) or from `peers` (other hosts)",
    *("zone", "from"),
)
DOWNLOADS = CATALOGUE.computed_gauge(
    "downloads",
    "copies that are Downloading, where hosts read from each other, by the role of their Job: `Seed`, `Peer` or "
    "`Origin`",
    *("zone", "role"),
)
PEERS_UNAVAILABLE = CATALOGUE.computed_gauge(
    "peers_unavailable",
    "copies that read the source because other hosts could not be reached three times in a row",
    "zone",
)
RECONCILE_SECONDS = CATALOGUE.histogram(
    "reconcile_duration_seconds",
    "duration of one reconcile, with its writes; `kind` has the values of `queue`",
    *("kind", "result"),
    buckets=_RECONCILE_SECONDS,
)
EVENTS_DROPPED = CATALOGUE.counter(
    "events_dropped_total",
    "Kubernetes Events that were not posted: `Throttled` (too many of one object), `QueueFull`, `Refused` (by the API "
    "server) or `Unreachable` (it throttled, or did not answer)",
    "cause",
)


def attempt(zone: str, host: str, url: str, verb: Verb, result: JobResult) -> None:
    """A job has ended, and its result is being read: once per job. `url` is the template's."""
    if verb is Verb.VERIFY:
        VERIFICATIONS.labels(zone=zone, reason=result.reason).inc()
    if verb is not Verb.FETCH:
        return
    DOWNLOAD_ATTEMPTS.labels(zone=zone, reason=result.reason).inc()
    if result.reason is Reason.ALREADY_PRESENT:
        return
    # The source is the mirror that served; a failed attempt may have tried several.
    protocol = _protocol(result.source or url)
    seconds = result.seconds
    if seconds is not None and math.isfinite(seconds) and 0 <= seconds <= _LONGEST_SECONDS:
        outcome = "success" if result.done else "error"
        DOWNLOAD_SECONDS.labels(zone=zone, protocol=protocol, result=outcome).observe(seconds)
    if result.done and result.size_bytes is not None and 0 <= result.size_bytes <= quantities.LARGEST_INTEGER:
        DOWNLOAD_BYTES.labels(zone=zone, host=host, protocol=protocol).inc(result.size_bytes)


def received(zone: str, result: JobResult) -> None:
    """The bytes of a job that has ended: once per job."""
    for origin, number in (("origin", result.origin_bytes), ("peers", result.peer_bytes)):
        if 0 < number <= quantities.LARGEST_INTEGER:
            RECEIVED_BYTES.labels(zone, origin).inc(number)


def repair(zone: str, reason: Reason) -> None:
    """A published file was found `Missing` or `Altered`, and will be fetched again."""
    REPAIRS.labels(zone=zone, reason=reason).inc()


@contextlib.contextmanager
def reconciling(kind: str) -> Iterator[None]:
    """Times one reconcile of `kind`; a cancelled one counts nowhere."""
    started = time.monotonic()
    try:
        yield
    except Exception:
        RECONCILE_SECONDS.labels(kind=kind, result="error").observe(time.monotonic() - started)
        raise
    RECONCILE_SECONDS.labels(kind=kind, result="success").observe(time.monotonic() - started)


def event_dropped(cause: EventDropCause) -> None:
    EVENTS_DROPPED.labels(cause=cause).inc()


class Collector(PrometheusCollector):
    """The gauges of one leading controller; it lives as long as `world`."""

    def __init__(self, world: worlds.World, queue: WorkQueue, *, peers: bool = False) -> None:
        """`peers`: hosts read from each other."""
        self._world = world
        self._peers = peers
        self._queue = queue
        world.hosts.subscribe(_forget_host)

    @contextlib.contextmanager
    def registered(
        self, leads: Callable[[], bool] = lambda: True, registry: CollectorRegistry = REGISTRY
    ) -> Iterator[None]:
        """Serves the gauges while the caller works; each scrape asks whether it `leads`."""
        registry.register(self)
        LEADER.set_function(leads)
        try:
            yield
        finally:
            LEADER.set_function(lambda: False)
            registry.unregister(self)

    def describe(self) -> Iterable[Metric]:
        return (gauge.family() for gauge in COMPUTED)

    def collect(self) -> Iterator[Metric]:
        """One pass over each store; the world may change after each family.

        Known label values (queues, phases and states of zones) are 0, not absent.
        """
        for part in (
            self._placements,
            self._hosts,
            self._down,
            self._active_jobs,
            self._exchange,
            self._queues,
            self._certificates,
            self._ready,
            self._available,
            self._capacity,
        ):
            yield from part()

    def _placements(self) -> Iterable[Metric]:
        placements = self._counter(phase for phase in Phase if phase is not Phase.UNKNOWN)
        placements.update((p.zone, p.phase or Phase.PENDING) for p in self._world.placements)
        limit = PLACEMENTS_LIMIT.family()
        limit.add_metric((), self._world.usage().most)
        return _family(PLACEMENTS, placements), limit

    def _hosts(self) -> Iterable[Metric]:
        hosts, keystores = self._counter(HOST_STATES), self._counter(KEYSTORE_STATES.values())
        for host in self._world.hosts:
            hosts[host.spec.zone, _state(host)] += 1
            told = host.status.condition("KeystoreSynced")
            keystores[host.spec.zone, KEYSTORE_STATES[told.status if told else ConditionStatus.UNKNOWN]] += 1
        return _family(HOSTS, hosts), _family(KEYSTORES, keystores)

    def _down(self) -> Iterable[Metric]:
        down = {host.name for host in self._world.hosts if _state(host) == "Down"}
        held = ((p.zone, p.host) for p in self._world.placements if p.host in down)
        counts = collections.Counter[tuple[str, ...]](held)
        return (_family(HOST_DOWN_PLACEMENTS, counts),)

    def _active_jobs(self) -> Iterable[Metric]:
        jobs = self._counter()
        jobs.update((zone,) for zone in self._zones_of_active_jobs())
        return (_family(JOBS_ACTIVE, jobs),)

    def _exchange(self) -> Iterable[Metric]:
        if not self._peers:
            return ()
        downloads, unreached = self._counter(role for role in Role if role is not Role.UNKNOWN), self._counter()
        for placement in self._world.placements:
            told = placement.peers
            if told is not None:
                unreached[(placement.zone,)] += (told.unavailable or 0) >= PATIENCE
                if placement.counted is Phase.DOWNLOADING and told.role is not None:
                    downloads[placement.zone, told.role] += 1
        return _family(DOWNLOADS, downloads), _family(PEERS_UNAVAILABLE, unreached)

    def _queues(self) -> Iterable[Metric]:
        depths, depth = self._queue.depths(), QUEUE_DEPTH.family()
        for kind in QUEUES:
            depth.add_metric((kind,), depths[kind])
        unreadable = UNREADABLE_OBJECTS.family()
        for resource, store in self._world.ours.items():
            unreadable.add_metric((resource.kind,), len(store.unreadable))
        return depth, unreadable

    def _ready(self) -> Iterable[Metric]:
        return self._of_pools(POOL_READY, lambda storage: storage.reason in (None, Reason.READY))

    def _available(self) -> Iterable[Metric]:
        return self._of_pools(POOL_AVAILABLE_BYTES, lambda storage: storage.available_bytes)

    def _capacity(self) -> Iterable[Metric]:
        return self._of_pools(POOL_CAPACITY_BYTES, lambda storage: storage.capacity_bytes)

    def _of_pools(self, gauge: ComputedGauge, value_of: Callable[[HostStorage], int | None]) -> Iterable[Metric]:
        family = gauge.family()
        for host in self._world.hosts:
            for storage in host.status.storage:
                # Agents write these: only names of existing objects become labels.
                if storage.pool in self._world.pools and (value := value_of(storage)) is not None:
                    family.add_metric((host.spec.zone, storage.pool, host.name), value)
        return (family,)

    def _certificates(self) -> Iterable[Metric]:
        """Only published certificates count: of two objects with one alias one is published."""
        hosts, expiry = CERTIFICATE_HOSTS.family(), CERTIFICATE_NOT_AFTER.family()
        for certificate in self._world.certificates:
            status, labels = certificate.status, (certificate.spec.zone, certificate.spec.keystore_alias)
            if status.hosts is None or status.not_after is None:
                continue
            expiry.add_metric(labels, status.not_after.timestamp())
            for state in CERTIFICATE_STATES:
                hosts.add_metric((*labels, state), getattr(status.hosts, state.lower()))
        return hosts, expiry

    def _counter(self, *values: Iterable[str]) -> collections.Counter[tuple[str, ...]]:
        zones = [zone.name for zone in self._world.zones]
        return collections.Counter(dict.fromkeys(itertools.product(zones, *values), 0))

    def _zones_of_active_jobs(self) -> Iterator[str]:
        for job in self._world.jobs:
            placement = self._world.placements.get(job.labels.get(worlds.PLACEMENT_LABEL, ""))
            if placement is not None and not (job.succeeded or job.failed):
                yield placement.zone


#: Gauges that only a leader can compute.
COMPUTED = (
    *(PLACEMENTS, PLACEMENTS_LIMIT, HOSTS, HOST_DOWN_PLACEMENTS, KEYSTORES, JOBS_ACTIVE),
    *(POOL_AVAILABLE_BYTES, POOL_CAPACITY_BYTES, POOL_READY),
    *(DOWNLOADS, PEERS_UNAVAILABLE),
    *(CERTIFICATE_HOSTS, CERTIFICATE_NOT_AFTER, UNREADABLE_OBJECTS, QUEUE_DEPTH),
)


def _family(gauge: ComputedGauge, counts: Mapping[tuple[str, ...], int]) -> GaugeMetricFamily:
    family = gauge.family()
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def _state(host: Host) -> str:
    """A host without a state yet starts nothing either."""
    return host.status.state or "Down"


def _forget_host(_: str, old: Host | None, new: Host | None) -> None:
    """A Host that is gone, or in another zone, takes its series along: their number follows the fleet."""
    if old is not None and (new is None or new.spec.zone != old.spec.zone):
        for protocol in (*PROTOCOLS, OTHER_PROTOCOL):
            with contextlib.suppress(KeyError):
                DOWNLOAD_BYTES.remove(old.spec.zone, old.name, protocol)


def _protocol(url: str) -> str:
    found = urls.scheme(url).upper()
    return found if found in PROTOCOLS else OTHER_PROTOCOL
