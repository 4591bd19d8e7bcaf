"""A real Prometheus finds controllers and agents as the chart's monitors describe, and reads all that is promised."""

import contextlib
import http.client
import pathlib
import ssl
from collections.abc import Iterator

import pytest
import yaml
from tests.e2e import prometheus
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, keystores, origin, promql
from tests.world.certificates import Certificate
from tests.world.checkout import CHART
from tests.world.cluster import NAMESPACE, RELEASE, Cluster, Object
from tests.world.evidence import HOSTS
from tests.world.waiting import until

from directdownload.observe import metrics_reference
from directdownload.peer import metrics as peer_metrics

MONITORS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
#: These need definitions that the cluster has not; what else comes with them is applied beside the release.
ENABLED = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.podMonitor.enabled=true",
    "prometheusRule.enabled=true",
)
#: Of what does not happen here: no host is down, no file is lost or checked, no Event is dropped, peers are off.
WITHOUT_SAMPLES = {
    "directdownload_host_down_placements",
    "directdownload_repairs_total",
    "directdownload_verifications_total",
    "directdownload_events_dropped_total",
    "directdownload_downloads",
    "directdownload_received_bytes_total",
    "directdownload_peers_unavailable",
    *peer_metrics.CATALOGUE.descriptions,
}
CONTROLLERS = 2
CERTIFICATE = "directdownloadcertificate"


@pytest.fixture
def activity(local: Cluster, server: origin.Origin, image: Image) -> Iterator[None]:
    """A template on every host, and a certificate."""
    for host in HOSTS:
        keystores.set_password(local, host, keystores.PASSWORD)
    local.apply(
        clusters.template("measured", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("measured"),
        keystores.certificate("measured", Certificate(authority=True)),
    )
    local.converged("measured", len(HOSTS))
    proven = ("True", "Provisioned")
    until("the proof", lambda: evidence.condition(local.get(CERTIFICATE, "measured"), "Ready") == proven)
    yield
    local.delete(CERTIFICATE, "measured")
    keystores.remove(local)


def rendered(cluster: Cluster, directory: pathlib.Path) -> list[Object]:
    """The chart with the values of the installed release, and monitors and alerts."""
    values = directory / "values.yaml"
    values.write_text(cluster.helm("get", "values", RELEASE, "-n", NAMESPACE, "-o", "yaml"))
    settings = [argument for value in ENABLED for argument in ("--set", value)]
    text = cluster.helm("template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values), *settings)
    return [each for each in yaml.safe_load_all(text) if each]


def added(cluster: Cluster, found: list[Object]) -> list[Object]:
    """What the release would have more, but for what the cluster has no definition of."""
    installed = yaml.safe_load_all(cluster.helm("get", "manifest", RELEASE, "-n", NAMESPACE))
    names = {(each["kind"], each["metadata"]["name"]) for each in installed if each}
    return [
        each
        for each in found
        if each["kind"] not in MONITORS
        and (each["kind"], each["metadata"]["name"]) not in names
        and "helm.sh/hook" not in each["metadata"].get("annotations", {})
    ]


@contextlib.contextmanager
def scraping(cluster: Cluster, directory: pathlib.Path) -> Iterator[prometheus.Prometheus]:
    """Prometheus, with the jobs and alerts of the chart."""
    found = rendered(cluster, directory)
    beside = added(cluster, found)
    cluster.apply(*beside)
    try:
        discovery = prometheus.Discovery(cluster, NAMESPACE, directory)
        jobs, rules = [], {}
        for each in found:
            if each["kind"] == "PrometheusRule":
                rules = each["spec"]
            elif each["kind"] in MONITORS:
                jobs += prometheus.scrape_config(cluster, each, directory)
        assert len(jobs) == 2
        until("the addresses of the Service", lambda: len(service_addresses(cluster)) == CONTROLLERS)
        discovery.write()
        with prometheus.Prometheus(directory, jobs, rules) as running:
            yield running
    finally:
        cluster.kubectl(
            "delete", "serviceaccount,role,rolebinding", prometheus.ACCOUNT, "-n", NAMESPACE, "--ignore-not-found"
        )
        manifest = yaml.safe_dump_all(beside)
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", input=manifest)


def service_addresses(cluster: Cluster) -> set[str]:
    found = [each for each in cluster.list("endpoints", NAMESPACE) if each["metadata"]["name"] == f"{RELEASE}-metrics"]
    return {
        address["ip"] for each in found for subset in each.get("subsets", ()) for address in subset.get("addresses", ())
    }


def addresses(cluster: Cluster, component: str) -> set[str]:
    return {pod["status"]["podIP"] for pod in evidence.pods(cluster, component)}


def assert_scraped(cluster: Cluster, running: prometheus.Prometheus, scheme: str, ports: dict[str, int]) -> None:
    """Each pod is a target, is up, and there is no other."""
    expected = {
        f"{scheme}://{address}:{port}/metrics"
        for component, port in ports.items()
        for address in addresses(cluster, component)
    }
    assert len(expected) == CONTROLLERS + len(HOSTS)

    def found() -> dict[str, tuple[str, str]]:
        return {target["scrapeUrl"]: (target["health"], target["lastError"]) for target in running.targets()}

    with contextlib.suppress(AssertionError):
        until("all targets to be up", lambda: found() == dict.fromkeys(expected, ("up", "")))
    assert found() == dict.fromkeys(expected, ("up", ""))


def test_prometheus_finds_every_pod_and_reads_every_metric(
    local: Cluster, activity: None, tmp_path: pathlib.Path
) -> None:
    with scraping(local, tmp_path) as running:
        assert_scraped(local, running, "http", {"controller": 8080, "agent": 8081})
        until("a leader", lambda: running.value("sum(directdownload_leader)") == 1)
        for name, metric in metrics_reference.descriptions().items():
            shown = running.series(f"{name}_count" if metric.type == "histogram" else name)
            assert bool(shown) is (name not in WITHOUT_SAMPLES), name
            for labels in shown:
                own = labels.keys() - promql.TARGET_LABELS - {"__name__"}
                assert own == set(metric.labels), name
                assert labels["namespace"] == NAMESPACE
                assert labels["pod"].startswith(f"{RELEASE}-")
                assert labels["node"] in HOSTS
        # Which part, which host.
        assert {each["host"] for each in running.series("directdownload_pool_capacity_bytes")} == set(HOSTS)
        drift = running.series("directdownload_keystore_drift_total")
        assert {(each["host"], each["node"]) for each in drift} == {(host, host) for host in HOSTS}
        agents = running.series('directdownload_build_info{container="agent"}')
        assert {each["node"] for each in agents} == set(HOSTS)
        jobs = {each["job"] for each in running.series("directdownload_build_info")}
        assert jobs == {f"{RELEASE}-metrics", f"{NAMESPACE}/{RELEASE}-agent"}
        # What they say.
        ready = 'directdownload_placements{phase="Ready"}'
        assert running.value(f"sum({ready})") == len(HOSTS)
        assert running.value('sum(directdownload_hosts{state="Up"})') == len(HOSTS)
        proved = 'directdownload_certificate_hosts{alias="measured",state="Uploaded"}'
        assert running.value(f"sum({proved})") == len(HOSTS)
        assert running.value('sum(directdownload_keystores{state="Synced"})') == len(HOSTS)
        # The alerts of the chart are evaluated without an error over real series, and none of them is critical here.
        rules = [rule for group in running.ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 10
        until("all alerts to be evaluated", lambda: all_healthy(running))
        firing = [alert["labels"] for alert in running.ask("alerts")["alerts"] if alert["state"] == "firing"]
        assert not [labels for labels in firing if labels["severity"] == "critical"]


def all_healthy(running: prometheus.Prometheus) -> bool:
    return all(rule["health"] == "ok" for group in running.ask("rules")["groups"] for rule in group["rules"])


@pytest.fixture
def authenticated(local: Cluster) -> Iterator[Cluster]:
    """The release with authentication; as it was afterwards."""
    settings = "metrics.authentication=true,crds.upgrade=false"
    local.helm("upgrade", RELEASE, str(CHART), "-n", NAMESPACE, "--reuse-values", "--set", settings)
    rolled_out(local)
    yield local
    local.helm("rollback", RELEASE, "-n", NAMESPACE)
    rolled_out(local)


def rolled_out(cluster: Cluster) -> None:
    for name in (f"deployment/{RELEASE}-controller", f"daemonset/{RELEASE}-agent"):
        cluster.kubectl("rollout", "status", name, "-n", NAMESPACE, "--timeout=180s")

    def settled() -> bool:
        pods = [*evidence.pods(cluster, "controller"), *evidence.pods(cluster, "agent")]
        return len(pods) == CONTROLLERS + len(HOSTS) and all(map(evidence.is_ready, pods))

    until("the pods before to be gone", settled)


def status(address: str, port: int, path: str, token: str | None = None, *, tls: bool = True) -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = http.client.HTTPConnection(address, port, timeout=120)
    connection = http.client.HTTPSConnection(address, port, timeout=120, context=context) if tls else plain
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token is not None else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_with_authentication_only_those_with_the_right_read_them(
    authenticated: Cluster, tmp_path: pathlib.Path
) -> None:
    ports = {"controller": 8443, "agent": 8444}
    with scraping(authenticated, tmp_path) as running:
        assert_scraped(authenticated, running, "https", ports)
        until("a leader", lambda: running.value("sum(directdownload_leader)") == 1)
        assert {each["host"] for each in running.series("directdownload_pool_capacity_bytes")} == set(HOSTS)
        refused = 'directdownload_api_requests_total{resource=~"tokenreviews|subjectaccessreviews",code!="201"}'
        assert running.series(refused) == []
        # Prometheus' own account may look around in the namespace; that is not the right to read metrics.
        stranger = authenticated.kubectl("create", "token", prometheus.ACCOUNT, "-n", NAMESPACE).strip()
        for component, port in ports.items():
            for address in addresses(authenticated, component):
                assert status(address, port, "/metrics") == 401
                assert status(address, port, "/metrics", "nonsense") == 401
                assert status(address, port, "/metrics", stranger) == 403
                # At the health port there are none any more.
                health = {"controller": 8080, "agent": 8081}[component]
                assert status(address, health, "/metrics", tls=False) == 404
                assert status(address, health, "/healthz", tls=False) == 200
    logs = "".join(
        authenticated.kubectl("logs", pod["metadata"]["name"], "-n", NAMESPACE)
        for component in ports
        for pod in evidence.pods(authenticated, component)
    )
    assert stranger not in logs
