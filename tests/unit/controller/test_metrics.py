"""Metrics: what jobs and reconciles leave in them, what a scrape says of a world, and that the page says the same."""

import asyncio
import dataclasses
import math
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import get_args

import prometheus_client
import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from tests.unit.controller import build as objects
from tests.unit.planning import build
from tests.world import checkout

from directdownload.agent import metrics as agent_metrics
from directdownload.cluster import kinds
from directdownload.controller import main, metrics, world
from directdownload.controller.queue import Key, WorkQueue
from directdownload.observe import health, metrics_reference
from directdownload.peer import metrics as peer_metrics
from directdownload.planning import quotas
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import Reason

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
MIRROR = "https://mirror.example.org/debian.qcow2"
ORIGIN = "http://images.example.org/debian.qcow2"


async def never(_: Key) -> None:
    """A queue whose work nobody does."""


def families(registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY) -> list[Metric]:
    """What Prometheus would read, of the product."""
    text = prometheus_client.generate_latest(registry).decode()
    return [f for f in parser.text_string_to_metric_families(text) if f.name.startswith("directdownload_")]


def value(name: str, **labels: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(f"directdownload_{name}", labels)


def gauges(found: world.World, queue: WorkQueue | None = None) -> dict[tuple[str, ...], float]:
    """What a scrape says of `found`: name, then label values in the order of the labels' names."""
    registry = prometheus_client.CollectorRegistry()
    with metrics.Collector(found, queue or WorkQueue(never)).registered(registry=registry):
        return {
            (s.name.removeprefix("directdownload_"), *(s.labels[name] for name in sorted(s.labels))): s.value
            for family in families(registry)
            for s in family.samples
        }


def a_world(*, zones: Iterable[str] = ("zone-1",)) -> world.World:
    found = world.World((build.ROOT,))
    for name in zones:
        found.zones.observe(build.zone(name))
    return found


# What jobs leave


def test_a_download_counts_as_attempt_with_its_bytes_and_time() -> None:
    done = JobResult(reason=Reason.DOWNLOADED, size_bytes=5000, source=MIRROR, seconds=7.0, resumed_from=2000)
    metrics.attempt("zone-d", "kvm-1", ORIGIN, Verb.FETCH, done)
    assert value("download_attempts_total", zone="zone-d", reason="Downloaded") == 1
    assert value("download_bytes_total", zone="zone-d", host="kvm-1", protocol="HTTPS") == 5000
    labels = {"zone": "zone-d", "protocol": "HTTPS", "result": "success"}
    assert value("download_duration_seconds_sum", **labels) == 7
    assert value("download_duration_seconds_bucket", **labels, le="5.0") == 0
    assert value("download_duration_seconds_bucket", **labels, le="10.0") == 1


def test_a_failed_attempt_counts_with_its_time_and_without_bytes() -> None:
    failed = JobResult(reason=Reason.CHECKSUM_MISMATCH, size_bytes=5000, seconds=60)
    metrics.attempt("zone-f", "kvm-1", ORIGIN, Verb.FETCH, failed)
    assert value("download_attempts_total", zone="zone-f", reason="ChecksumMismatch") == 1
    assert value("download_bytes_total", zone="zone-f", host="kvm-1", protocol="HTTP") is None
    assert value("download_duration_seconds_sum", zone="zone-f", protocol="HTTP", result="error") == 60


def test_a_file_that_was_there_already_is_an_attempt_and_no_download() -> None:
    there = JobResult(reason=Reason.ALREADY_PRESENT, size_bytes=5000, seconds=60)
    metrics.attempt("zone-a", "kvm-1", ORIGIN, Verb.FETCH, there)
    assert value("download_attempts_total", zone="zone-a", reason="AlreadyPresent") == 1
    assert value("download_bytes_total", zone="zone-a", host="kvm-1", protocol="HTTP") is None
    assert value("download_duration_seconds_count", zone="zone-a", protocol="HTTP", result="success") is None


def test_verifications_and_removals_are_no_downloads() -> None:
    altered = JobResult(reason=Reason.ALTERED, size_bytes=5000, seconds=60)
    metrics.attempt("zone-v", "kvm-1", ORIGIN, Verb.VERIFY, altered)
    metrics.attempt("zone-v", "kvm-1", ORIGIN, Verb.REMOVE, JobResult(reason=Reason.REMOVED, seconds=1))
    metrics.repair("zone-v", altered.reason)
    assert value("verifications_total", zone="zone-v", reason="Altered") == 1
    assert value("repairs_total", zone="zone-v", reason="Altered") == 1
    of_the_zone = {s.name for f in families() for s in f.samples if s.labels.get("zone") == "zone-v"}
    assert of_the_zone == {"directdownload_verifications_total", "directdownload_repairs_total"}


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 1e300])
@pytest.mark.parametrize("size_bytes", [-1, 2**63, 10**400])
def test_numbers_that_cannot_be_true_do_not_count(seconds: float, size_bytes: int) -> None:
    result = JobResult(reason=Reason.DOWNLOADED, seconds=seconds, size_bytes=size_bytes)
    metrics.attempt("zone-n", "kvm-1", ORIGIN, Verb.FETCH, result)
    assert value("download_bytes_total", zone="zone-n", host="kvm-1", protocol="HTTP") is None
    assert value("download_duration_seconds_count", zone="zone-n", protocol="HTTP", result="success") is None


@pytest.mark.parametrize(
    ("url", "source", "protocol"),
    [
        (ORIGIN, "", "HTTP"),
        (ORIGIN, MIRROR, "HTTPS"),
        ("nfs://10.0.0.1/export/debian.qcow2", "", "NFS"),
        ("", "", "other"),
        (ORIGIN, "javascript:alert(1)", "other"),
        ("no colon at all", "", "other"),
    ],
)
def test_a_url_becomes_one_of_few_protocols(url: str, source: str, protocol: str) -> None:
    zone = f"zone-{protocol}-{len(url)}-{len(source)}"
    metrics.attempt(zone, "kvm-1", url, Verb.FETCH, JobResult(reason=Reason.DOWNLOADED, size_bytes=1, source=source))
    assert value("download_bytes_total", zone=zone, host="kvm-1", protocol=protocol) == 1


# What reconciles leave


def test_reconciles_are_timed_by_kind_and_result() -> None:
    with metrics.reconciling("good"):
        time.sleep(0.02)
    with pytest.raises(KeyError), metrics.reconciling("bad"):
        raise KeyError
    with pytest.raises(asyncio.CancelledError), metrics.reconciling("cancelled"):
        raise asyncio.CancelledError
    assert value("reconcile_duration_seconds_count", kind="good", result="success") == 1
    assert 0.02 <= (value("reconcile_duration_seconds_sum", kind="good", result="success") or 0) < 2
    assert value("reconcile_duration_seconds_count", kind="bad", result="error") == 1
    kinds = {s.labels["kind"] for f in families() for s in f.samples if "kind" in s.labels}
    assert "cancelled" not in kinds


# What a scrape says


def test_a_world_without_anything_says_zero_for_each_queue_and_zone_and_nothing_else() -> None:
    queues: dict[tuple[str, ...], float] = {("queue_depth", kind): 0.0 for kind in main.RECONCILERS}
    queues |= {("unreadable_objects", kind.kind): 0.0 for kind in kinds.OURS}
    queues["placements_limit",] = 0.0
    assert gauges(a_world(zones=())) == queues
    found = gauges(a_world())
    phases = ("Pending", "Downloading", "Ready", "Failed", "Removing")
    expected: dict[tuple[str, ...], float] = {("jobs_active", "zone-1"): 0}
    expected |= {("placements", phase, "zone-1"): 0 for phase in phases}
    expected |= {("hosts", state, "zone-1"): 0 for state in ("Up", "Down", "Maintenance")}
    expected |= {("keystores", state, "zone-1"): 0 for state in ("Synced", "NotSynced", "Unknown")}
    assert found == expected | queues


def test_the_limit_of_placements_follows_memory_and_hosts() -> None:
    found = world.World((build.ROOT,), 2**30)
    assert gauges(found)["placements_limit",] == quotas.most_placements(2**30, 0) > 0
    found.hosts.observe(build.host())
    assert gauges(found)["placements_limit",] == quotas.most_placements(2**30, 1)


def test_placements_are_counted_by_zone_and_phase() -> None:
    found = a_world()
    for number, phase in enumerate(["Ready", "Ready", "Failed", None, "Pending"]):
        found.placements.observe(build.placement(host=f"kvm-{number}", phase=phase))
    found.placements.observe(build.placement(host="kvm-9", zone="gone", phase="Removing"))
    counted = {key[1:]: count for key, count in gauges(found).items() if key[0] == "placements" and count}
    assert counted == {
        ("Ready", "zone-1"): 2,
        ("Failed", "zone-1"): 1,
        ("Pending", "zone-1"): 2,
        ("Removing", "gone"): 1,
    }


def test_hosts_are_counted_by_zone_and_state() -> None:
    found = a_world()
    for number, state in enumerate(["Up", "Up", "Maintenance", "Down", None]):
        found.hosts.observe(build.host(f"kvm-{number}", state))
    counted = {key[1:]: count for key, count in gauges(found).items() if key[0] == "hosts"}
    assert counted == {("Up", "zone-1"): 2, ("Down", "zone-1"): 2, ("Maintenance", "zone-1"): 1}


def test_space_is_told_of_pools_that_exist() -> None:
    found = a_world()
    found.pools.observe(build.pool("local"))
    found.pools.observe(build.pool("lost"))
    facts = [
        build.facts("local", availableBytes=400, capacityBytes=1000),
        build.facts("invented"),
        {"pool": "lost", "reason": "NotMounted"},
    ]
    found.hosts.observe(build.host("kvm-1", storage=facts))
    told = {key: count for key, count in gauges(found).items() if key[0].startswith("pool_")}
    assert told == {
        ("pool_available_bytes", "kvm-1", "local", "zone-1"): 400,
        ("pool_capacity_bytes", "kvm-1", "local", "zone-1"): 1000,
        ("pool_ready", "kvm-1", "local", "zone-1"): 1,
        ("pool_ready", "kvm-1", "lost", "zone-1"): 0,
    }


def test_copies_of_hosts_that_are_down_are_told_by_host() -> None:
    found = a_world()
    for number, state in enumerate(["Up", "Down", "Down", "Maintenance", None]):
        found.hosts.observe(build.host(f"kvm-{number}", state))
    for host, template in (("kvm-0", "a"), ("kvm-1", "a"), ("kvm-1", "b"), ("kvm-3", "a"), ("kvm-4", "a")):
        copy = build.placement(host=host)
        found.placements.observe(dataclasses.replace(copy, key=f"{template}-{host}"))
    told = {key[1:]: count for key, count in gauges(found).items() if key[0] == "host_down_placements"}
    # kvm-2 has none, the others are not down
    assert told == {("kvm-1", "zone-1"): 2, ("kvm-4", "zone-1"): 1}


def test_keystores_are_counted_by_what_hosts_say_of_them() -> None:
    found = a_world()
    for number, status in enumerate(["True", "True", "False", "Unknown"]):
        found.hosts.observe(build.host(f"kvm-{number}", status={"conditions": [synced(status)]}))
    found.hosts.observe(build.host("kvm-9"))
    told = {key[1:]: count for key, count in gauges(found).items() if key[0] == "keystores"}
    assert told == {("Synced", "zone-1"): 2, ("NotSynced", "zone-1"): 1, ("Unknown", "zone-1"): 2}


def synced(status: str) -> dict[str, str]:
    reason = "KeystoreSynced" if status == "True" else "KeystoreUnreadable"
    return {"type": "KeystoreSynced", "status": status, "reason": reason, "lastTransitionTime": build.stamp(build.NOW)}


PUBLISHED = {
    "notAfter": build.stamp(build.NOW),
    "hosts": {"desired": 9, "uploaded": 5, "revoked": 1, "failed": 2, "pending": 3, "down": 4},
}


def test_certificates_are_told_once_for_each_alias_and_gone_with_their_object() -> None:
    found = a_world(zones=())
    found.certificates.observe(build.certificate(status=PUBLISHED))
    # Of two with one alias one alone is published.
    found.certificates.observe(build.certificate("another", spec={"alias": "my-ca"}))
    told = {key: count for key, count in gauges(found).items() if key[0].startswith("certificate")}
    assert told == {
        ("certificate_hosts", "my-ca", "Uploaded", "zone-1"): 5,
        ("certificate_hosts", "my-ca", "Revoked", "zone-1"): 1,
        ("certificate_hosts", "my-ca", "Failed", "zone-1"): 2,
        ("certificate_hosts", "my-ca", "Pending", "zone-1"): 3,
        ("certificate_hosts", "my-ca", "Down", "zone-1"): 4,
        ("certificate_not_after_timestamp_seconds", "my-ca", "zone-1"): build.NOW.timestamp(),
    }
    found.certificates.forget("my-ca", 9)
    assert not [key for key in gauges(found) if key[0].startswith("certificate")]


def test_jobs_are_active_until_they_end() -> None:
    found = a_world()
    copies = [build.placement(host=f"kvm-{number}", zone="zone-1") for number in range(4)]
    for copy in copies[:3]:
        found.placements.observe(copy)
    found.jobs.observe(objects.job(copies[0], "fetch"))
    found.jobs.observe(objects.job(copies[0], "verify"))
    found.jobs.observe(objects.job(copies[1], ended="Complete"))
    found.jobs.observe(objects.job(copies[2], ended="Failed"))
    # a job whose placement is gone
    found.jobs.observe(objects.job(copies[3]))
    assert gauges(found)["jobs_active", "zone-1"] == 2


async def test_the_queue_is_told_by_kind() -> None:
    working, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: Key) -> None:
        working.set()
        await go_on.wait()

    queue = WorkQueue(work)
    for key in (Key("placement", "a"), Key("placement", "b"), Key("host", "a")):
        queue.add(key)
    queue.add_later(Key("zone", "a"), 3600)
    registry = prometheus_client.CollectorRegistry()
    with metrics.Collector(a_world(zones=()), queue).registered(registry=registry):

        def depths() -> dict[str, float]:
            return {s.labels["queue"]: s.value for f in families(registry) for s in f.samples if s.value}

        assert depths() == {"placement": 2, "host": 1}
        task = asyncio.create_task(queue.run(1))
        await working.wait()
        # One is in the hands of the worker.
        assert depths() == {"placement": 2, "host": 1}
        go_on.set()
        async with asyncio.timeout(10):
            while len(queue):  # noqa: ASYNC110 - an empty queue tells nobody
                await asyncio.sleep(0)
        assert depths() == {}
        task.cancel()
        await asyncio.wait((task,))


def test_a_standby_serves_no_gauges_and_says_that_it_does_not_lead() -> None:
    registry = prometheus_client.CollectorRegistry()
    collector = metrics.Collector(a_world(), WorkQueue(never))
    assert value("leader") == 0
    with collector.registered(registry=registry):
        assert families(registry)
        assert value("leader") == 1
    assert not families(registry)
    assert value("leader") == 0
    with collector.registered(registry=registry):
        assert families(registry)


def test_a_leader_that_steps_down_or_may_have_lost_the_lease_says_at_once_that_it_does_not_lead() -> None:
    leads = True
    with metrics.Collector(a_world(), WorkQueue(never)).registered(
        lambda: leads, prometheus_client.CollectorRegistry()
    ):
        assert value("leader") == 1
        leads = False
        assert value("leader") == 0


@pytest.mark.parametrize("zone", [None, "zone-y"], ids=["deleted", "in another zone"])
def test_a_host_takes_its_bytes_along_when_it_leaves(zone: str | None) -> None:
    found = a_world()
    with metrics.Collector(found, WorkQueue(never)).registered(registry=prometheus_client.CollectorRegistry()):
        for name in ("kvm-1", "kvm-2"):
            found.hosts.observe(build.host(name, zone="zone-x"))
            done = JobResult(reason=Reason.DOWNLOADED, size_bytes=1)
            metrics.attempt("zone-x", name, ORIGIN, Verb.FETCH, done)
        if zone is None:
            found.hosts.forget("kvm-1", 2)
        else:
            found.hosts.observe(build.host("kvm-1", zone=zone, resourceVersion="2"))
        # Still there, but with other facts.
        found.hosts.observe(build.host("kvm-2", "Down", zone="zone-x", resourceVersion="2"))
    assert value("download_bytes_total", zone="zone-x", host="kvm-1", protocol="HTTP") is None
    assert value("download_bytes_total", zone="zone-x", host="kvm-2", protocol="HTTP") == 1
    metrics.DOWNLOAD_BYTES.remove("zone-x", "kvm-2", "HTTP")


def test_a_scrape_of_a_large_fleet_is_quick() -> None:
    """50,000 placements on 1,000 hosts: the event loop stands still for as long as this takes."""
    found = a_world()
    found.pools.observe(build.pool("local"))
    copy = build.placement(phase="Ready")
    for number in range(50_000):
        found.placements.observe(dataclasses.replace(copy, key=f"p-{number}"))
    for number in range(1000):
        found.hosts.observe(build.host(f"kvm-{number}", storage=[build.facts("local")]))
    collector = metrics.Collector(found, WorkQueue(never))
    started = time.process_time()
    list(collector.collect())
    assert time.process_time() - started < 0.25


# Names


def promtool(*arguments: str, input: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=input, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def exposition() -> str:
    """What Prometheus reads of a controller and an agent in one, once each metric has a sample."""
    metrics.attempt("zone-1", "kvm-1", ORIGIN, Verb.FETCH, JobResult(reason=Reason.DOWNLOADED, size_bytes=1, seconds=1))
    metrics.attempt("zone-1", "kvm-1", ORIGIN, Verb.VERIFY, JobResult(reason=Reason.VERIFIED))
    metrics.received("zone-1", JobResult(reason=Reason.DOWNLOADED, origin_bytes=1))
    metrics.repair("zone-1", Reason.MISSING)
    metrics.event_dropped("Throttled")
    agent_metrics.begin("kvm-1")
    # as of an agent with a CSI plugin
    agent_metrics.VOLUMES.labels(host="kvm-1", state="waiting").set(0)
    for gauge in (agent_metrics.VOLUME_WAITING_SECONDS, agent_metrics.CSI_CONNECTED):
        gauge.labels(host="kvm-1").set(0)
    # as of a peer server
    peer_metrics.UPLOADS.labels(result="sent").inc(0)
    peer_metrics.REFUSALS.labels(reason="Full").inc(0)
    peer_metrics.CONNECTIONS.labels(kind="client").set(0)
    with metrics.reconciling("placement"):
        pass
    health.count_request("list", "pods", 200)
    found = a_world()
    found.pools.observe(build.pool("local"))
    found.hosts.observe(build.host("kvm-1", "Down", storage=[build.facts("local")]))
    found.placements.observe(build.placement(host="kvm-1"))
    found.certificates.observe(build.certificate(status=PUBLISHED))
    with metrics.Collector(found, WorkQueue(never), peers=True).registered():
        return prometheus_client.generate_latest().decode()


@pytest.fixture(scope="module")
def everything(exposition: str) -> dict[str, Metric]:
    """Each metric of the product, with at least one sample."""
    found = parser.text_string_to_metric_families(exposition)
    return {family.name: family for family in found if family.name.startswith("directdownload_")}


def test_every_metric_is_described_with_its_type_and_labels_and_no_other(everything: dict[str, Metric]) -> None:
    served = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels if label != "le"},
            family.documentation,
        )
        for family in everything.values()
    }
    described = metrics_reference.descriptions().values()
    assert served == {each.name: (each.type, set(each.labels), each.meaning) for each in described}


def test_an_agent_begins_at_zero_for_every_kind_of_drift() -> None:
    agent_metrics.begin("kvm-7")
    for kind in ("EntryMissing", "EntryReplaced", "StoreMissing"):
        assert value("keystore_drift_total", host="kvm-7", kind=kind) == 0


def test_the_tables_of_the_page_are_current() -> None:
    page = PAGE.read_text()
    assert metrics_reference.filled(page) == page, "run `make docs`"


def test_a_page_with_another_table_is_stale_and_is_made_anew(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "metrics.md"
    stale = PAGE.read_text().replace("| `zone`, `phase` |", "| `zone` |")
    page.write_text(stale)
    assert metrics_reference.main([str(page), "--check"]) == 1
    assert page.read_text() == stale
    assert metrics_reference.main([str(page)]) == 0
    assert page.read_text() == PAGE.read_text()
    assert metrics_reference.main([str(page), "--check"]) == 0
    with pytest.raises(ValueError, match="expected one place for each of controller, agent, both, peer"):
        metrics_reference.filled(stale.replace("metrics of agent", "metrics of both"))


def test_promtool_finds_nothing_to_say_of_the_exposition(exposition: str) -> None:
    """All of it, with figures of Python and of the process."""
    checked = promtool("check", "metrics", input=exposition)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    unfit = exposition.replace("directdownload_repairs_total", "directdownload_repairs")
    assert promtool("check", "metrics", input=unfit).returncode == 3


def test_a_process_serves_the_help_of_all_families_before_any_has_a_sample() -> None:
    """In processes of their own, where nothing has counted yet; only a leader's gauges come later."""
    serve = "import prometheus_client; print(prometheus_client.generate_latest().decode())"
    for part, module in (("controller", "controller.metrics"), ("agent", "agent.metrics")):
        program = f"from directdownload.observe import health; import directdownload.{module}; {serve}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=checkout.environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        expected = {
            each.name
            for name in (part, "both")
            for each in metrics_reference.PARTS[name].descriptions.values()
            if each not in [metrics.CATALOGUE.descriptions[gauge.name] for gauge in metrics.COMPUTED]
        }
        shown = set(re.findall(r"^# TYPE (directdownload_\w+)", done.stdout, re.MULTILINE))
        assert shown == expected
        assert promtool("check", "metrics", input=done.stdout).returncode == 0


def test_words_that_the_page_lists_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    causes = get_args(metrics.EventDropCause)
    for word in (*metrics.PROTOCOLS, metrics.OTHER_PROTOCOL, *main.RECONCILERS, *causes):
        assert f"`{word}`" in page, word


def test_expressions_of_the_page_name_metrics_and_labels_that_exist() -> None:
    known = {each.name: set(each.labels) for each in metrics_reference.descriptions().values()}
    expressions = re.findall(r"^\| [^|]*\? \| `(.*)` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(expressions) > 5
    for expression in expressions:
        names = re.findall(r"directdownload_\w+", expression)
        assert names
        labels = {*re.findall(r"[{,](\w+)[=!]", expression)} | {
            label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")
        }
        for name in names:
            assert labels <= known[name], expression


def test_names_follow_the_rules_of_prometheus(everything: dict[str, Metric]) -> None:
    """Those that `promtool check metrics` knows, and https://prometheus.io/docs/practices/naming/."""
    for family in everything.values():
        names = {sample.name for sample in family.samples}
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name), "camelCase, or reserved characters"
        assert family.documentation, f"{family.name} has no help text"
        assert (family.type == "counter") == all(name.endswith("_total") for name in names), family.name
        assert not any(name.endswith("_created") for name in names), "would double the number of series"
        if family.type != "histogram":
            assert not any(name.endswith(("_count", "_sum", "_bucket")) for name in names)
        assert not re.search(r"_(gauge|counter|histogram|summary)(_|$)", family.name), "the type is no part of a name"
        assert not re.search(r"(^|_)(s|ms|us|ns|sec|b|kb|mb|gb|kib|mib|milliseconds|minutes|hours)(_|$)", family.name)
        base = family.name.removesuffix("_total")
        for unit in ("bytes", "seconds"):
            assert f"_{unit}" not in base or base.endswith(f"_{unit}"), f"{family.name}: the unit comes last"
        labels = {label for sample in family.samples for label in sample.labels}
        assert not labels & {"quantile", "instance", "job", "url"}
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in labels)


def test_buckets_reach_from_seconds_to_the_longest_download(everything: dict[str, Metric]) -> None:
    samples = everything["directdownload_download_duration_seconds"].samples
    bounds = sorted({float(s.labels["le"]) for s in samples if "le" in s.labels})
    assert bounds[0] <= 1
    assert bounds[-2] >= 12 * 3600, "the default of Zone.spec.downloads.deadline"
    assert len(bounds) < 20
