"""What Prometheus reads from a controller; docs/metrics.md is its reference, compared with this by a test.

Counters are raised by reconcilers as things happen. Gauges are computed from the world at each scrape by `Collector`,
which only a leader registers: a standby does not know the world. Labels come from objects and enumerations, never from
a URL or a message; numbers of jobs are checked before they count, as nothing could take a bad one back.
"""

import collections
import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from directdownload.controller import world as worlds
from directdownload.controller.queue import WorkQueue
from directdownload.resources.host import Host
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase

EventDropCause = Literal["Throttled", "QueueFull", "Refused", "Unreachable"]

PROTOCOLS = ("HTTP", "HTTPS", "NFS")
#: of a URL with another scheme, or when nothing is known of the URL any more
OTHER_PROTOCOL = "other"
#: the kinds of keys in the work queue
QUEUES = ("host", "zone", "pool", "template", "placement", "probe", "certificate")
HOST_STATES = ("Up", "Down", "Maintenance")
#: as `status.hosts` of a certificate counts them
CERTIFICATE_STATES = ("Uploaded", "Revoked", "Failed", "Pending", "Down")
#: From a small file on a fast network to the deadline of a large one.
_DOWNLOAD_SECONDS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
_RECONCILE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: The API's integers have 64 bits.
_LARGEST_BYTES = 2**63
_LONGEST_SECONDS = 366 * 86400.0

DOWNLOAD_BYTES = Counter(
    "directdownload_download_bytes",
    "Bytes of the files that were downloaded and published.",
    ["zone", "host", "protocol"],
)
DOWNLOAD_SECONDS = Histogram(
    "directdownload_download_duration_seconds",
    "How long an attempt to download took; result is success or error.",
    ["zone", "protocol", "result"],
    buckets=_DOWNLOAD_SECONDS,
)
DOWNLOAD_ATTEMPTS = Counter(
    "directdownload_download_attempts", "Attempts to download that ended, by how they ended.", ["zone", "reason"]
)
REPAIRS = Counter(
    "directdownload_repairs", "Published files that were lost or altered and are fetched again.", ["zone", "reason"]
)
VERIFICATIONS = Counter(
    "directdownload_verifications", "Checks of published files that ended, by what they found.", ["zone", "reason"]
)
RECONCILE_SECONDS = Histogram(
    "directdownload_reconcile_duration_seconds",
    "How long one look at an object took; result is success or error.",
    ["kind", "result"],
    buckets=_RECONCILE_SECONDS,
)
EVENTS_DROPPED = Counter("directdownload_events_dropped", "Kubernetes Events that were not posted.", ["cause"])


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
    if result.done and result.size_bytes is not None and 0 <= result.size_bytes < _LARGEST_BYTES:
        DOWNLOAD_BYTES.labels(zone=zone, host=host, protocol=protocol).inc(result.size_bytes)


def repair(zone: str, reason: Reason) -> None:
    """A published file was found `Missing` or `Altered`, and will be fetched again."""
    REPAIRS.labels(zone=zone, reason=reason).inc()


@contextlib.contextmanager
def reconciling(kind: str) -> Iterator[None]:
    """Times one reconcile of `kind`; one that is cancelled counts nowhere."""
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

    def __init__(self, world: worlds.World, queue: WorkQueue) -> None:
        self._world = world
        self._queue = queue
        world.hosts.subscribe(_forget_host)

    @contextlib.contextmanager
    def registered(self, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
        """Serves the gauges while the caller leads."""
        registry.register(self)
        try:
            yield
        finally:
            registry.unregister(self)

    def describe(self) -> Iterable[Metric]:
        return _families().values()

    def collect(self) -> Iterable[Metric]:
        """One pass over each store. What is known beforehand (queues, phases and states of zones) is 0, not absent."""
        world, families = self._world, _families()
        zones = [zone.name for zone in world.zones]
        placements = collections.Counter(dict.fromkeys(itertools.product(zones, Phase), 0))
        placements.update((p.zone, p.phase or Phase.PENDING) for p in world.placements)
        hosts = collections.Counter(dict.fromkeys(itertools.product(zones, HOST_STATES), 0))
        # One that nothing is known of yet starts nothing either.
        hosts.update((h.spec.zone, h.status.state or "Down") for h in world.hosts)
        jobs = collections.Counter({(zone,): 0 for zone in zones})
        jobs.update((zone,) for zone in self._zones_of_active_jobs())
        for name, counts in (("placements", placements), ("hosts", hosts), ("jobs_active", jobs)):
            for labels, count in counts.items():
                families[name].add_metric(labels, count)
        depths = self._queue.depths()
        for kind in QUEUES:
            families["queue_depth"].add_metric((kind,), depths[kind])
        self._collect_certificates(families)
        for host in world.hosts:
            for storage in host.status.storage:
                # Agents write these: only names that someone made become labels.
                if storage.available_bytes is not None and storage.pool in world.pools:
                    families["pool_available_bytes"].add_metric(
                        (host.spec.zone, storage.pool, host.name), storage.available_bytes
                    )
        return families.values()

    def _collect_certificates(self, families: dict[str, GaugeMetricFamily]) -> None:
        """Of those that are published: of two objects with one alias only one is."""
        for certificate in self._world.certificates:
            status, labels = certificate.status, (certificate.spec.zone, certificate.spec.keystore_alias)
            if status.hosts is None or status.not_after is None:
                continue
            families["certificate_not_after_timestamp_seconds"].add_metric(labels, status.not_after.timestamp())
            for state in CERTIFICATE_STATES:
                families["certificate_hosts"].add_metric((*labels, state), getattr(status.hosts, state.lower()))

    def _zones_of_active_jobs(self) -> Iterator[str]:
        for job in self._world.jobs:
            placement = self._world.placements.get(job.labels.get(worlds.PLACEMENT_LABEL, ""))
            if placement is not None and not (job.succeeded or job.failed):
                yield placement.zone


def _families() -> dict[str, GaugeMetricFamily]:
    described = (
        ("placements", "Copies of templates on hosts, by phase.", ("zone", "phase")),
        ("hosts", "Hosts, by state.", ("zone", "state")),
        ("jobs_active", "Jobs that have not ended: downloads, checks, removals.", ("zone",)),
        ("pool_available_bytes", "Free space of a storage pool as a host sees it.", ("zone", "pool", "host")),
        ("certificate_hosts", "Hosts of a certificate's zone, by what they say of it.", ("zone", "alias", "state")),
        ("certificate_not_after_timestamp_seconds", "When a certificate's validity ends.", ("zone", "alias")),
        ("queue_depth", "Objects that wait for a reconcile or are in one, by kind.", ("queue",)),
    )
    return {name: GaugeMetricFamily(f"directdownload_{name}", text, labels=labels) for name, text, labels in described}


def _forget_host(_: str, old: Host | None, new: Host | None) -> None:
    """A Host that is gone, or in another zone, takes its series along: their number follows the fleet."""
    if old is not None and (new is None or new.spec.zone != old.spec.zone):
        for protocol in (*PROTOCOLS, OTHER_PROTOCOL):
            with contextlib.suppress(KeyError):
                DOWNLOAD_BYTES.remove(old.spec.zone, old.name, protocol)


def _protocol(url: str) -> str:
    scheme = url.partition(":")[0].upper()
    return scheme if scheme in PROTOCOLS else OTHER_PROTOCOL
