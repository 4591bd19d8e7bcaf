"""A real Prometheus on this machine that scrapes the local cluster as a ServiceMonitor and a PodMonitor describe.

`scrape_config` translates them as the Prometheus operator does (pkg/prometheus/promcfg.go: keep by labels, keep by the
port's name, target labels, then the monitor's own relabelings); `Prometheus` runs what comes out of it.

Debian builds Prometheus without discovery by Kubernetes. So `Discovery` asks the API server, with the token of an
account that has the rights of kube-prometheus, and writes what Prometheus' own discovery makes of the answers (roles
`pod` and `endpoints`, with the same `__meta_kubernetes_` labels) into files that Prometheus follows. Which of these
targets are scraped, where, how, and with which labels, is left to Prometheus and to the translated monitor.
"""

import base64
import json
import pathlib
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import yaml
from tests.world.cluster import Cluster, Object
from tests.world.waiting import until

ACCOUNT = "prometheus"
#: What kube-prometheus gives to Prometheus in each namespace that it watches.
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": ACCOUNT},
    "rules": [{"apiGroups": [""], "resources": ["services", "endpoints", "pods"], "verbs": ["get", "list", "watch"]}],
}
#: Field of a relabeling in a monitor → in Prometheus' configuration.
_RELABELING = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def scrape_config(cluster: Cluster, monitor: Object, directory: pathlib.Path) -> list[Object]:
    """A job for each endpoint of `monitor`, of the targets that `Discovery` writes into `directory`."""
    kind, metadata, spec = monitor["kind"], monitor["metadata"], monitor["spec"]
    pods = kind == "PodMonitor"
    jobs = []
    for number, endpoint in enumerate(spec["podMetricsEndpoints" if pods else "endpoints"]):
        job: Object = {
            "job_name": f"{kind[0].lower()}{kind[1:]}/{metadata['namespace']}/{metadata['name']}/{number}",
            "metrics_path": endpoint["path"],
            "scheme": endpoint["scheme"],
            "file_sd_configs": [{"files": [f"{'pod' if pods else 'endpoints'}.json"]}],
            "relabel_configs": [
                _keep("namespace", *spec["namespaceSelector"]["matchNames"]),
                *_selected(spec["selector"]["matchLabels"], "pod" if pods else "service"),
                _keep("pod_container_port_name" if pods else "endpoint_port_name", endpoint["port"]),
                *(_pod_labels(metadata, endpoint) if pods else _service_labels(endpoint)),
                *({_RELABELING.get(key, key): each[key] for key in each} for each in endpoint["relabelings"]),
            ],
        }
        for field, name in (("interval", "scrape_interval"), ("scrapeTimeout", "scrape_timeout")):
            if field in endpoint:
                job[name] = endpoint[field]
        if "tlsConfig" in endpoint:
            job["tls_config"] = _tls(cluster, endpoint["tlsConfig"], metadata["namespace"], directory)
        if "authorization" in endpoint:
            credentials = _secret(cluster, endpoint["authorization"]["credentials"], metadata["namespace"])
            job["authorization"] = {"type": endpoint["authorization"]["type"], "credentials": credentials.decode()}
        jobs.append(job)
    return jobs


def _selected(labels: dict[str, str], of: str) -> list[Object]:
    return [_keep(f"{of}_label_{_sanitized(key)}", value) for key, value in labels.items()]


def _sanitized(name: str) -> str:
    return re.sub("[^a-zA-Z0-9_]", "_", name)


def _keep(source: str, *values: str) -> Object:
    regex = "|".join(map(re.escape, values))
    return {"source_labels": [f"__meta_kubernetes_{source}"], "regex": regex, "action": "keep"}


def _copy(source: str, target: str) -> Object:
    return {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}


def _fixed(target: str, value: str) -> Object:
    return {"target_label": target, "replacement": value}


_COMMON = (_copy("namespace", "namespace"), _copy("pod_container_name", "container"), _copy("pod_name", "pod"))


def _service_labels(endpoint: Object) -> list[Object]:
    service = [_copy("service_name", name) for name in ("service", "job")]
    return [*_COMMON, *service, _fixed("endpoint", endpoint["port"])]


def _pod_labels(metadata: Object, endpoint: Object) -> list[Object]:
    return [
        *_COMMON,
        _fixed("job", f"{metadata['namespace']}/{metadata['name']}"),
        _fixed("endpoint", endpoint["port"]),
    ]


def _tls(cluster: Cluster, config: Object, namespace: str, directory: pathlib.Path) -> Object:
    result: Object = {"insecure_skip_verify": config.get("insecureSkipVerify", False)}
    if "serverName" in config:
        result["server_name"] = config["serverName"]
    if "ca" in config:
        path = directory / "monitor-ca.pem"
        path.write_bytes(_secret(cluster, config["ca"]["secret"], namespace))
        result["ca_file"] = str(path)
    return result


def _secret(cluster: Cluster, reference: Object, namespace: str) -> bytes:
    """Waits for it: Kubernetes fills a token in."""

    def filled() -> str | None:
        data = cluster.get("secret", reference["name"], namespace).get("data") or {}
        return data.get(reference["key"])

    return base64.b64decode(until(f"the key {reference['key']} of Secret {reference['name']}", filled))


class Discovery:
    """What Prometheus' discovery by Kubernetes would find in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str, directory: pathlib.Path) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace}}
        binding = {
            "apiVersion": ROLE["apiVersion"],
            "kind": "RoleBinding",
            "metadata": {"name": ACCOUNT, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        }
        cluster.apply(account, {**ROLE, "metadata": {"name": ACCOUNT, "namespace": namespace}}, binding)
        self._namespace = namespace
        self._directory = directory
        self._token = cluster.kubectl("create", "token", ACCOUNT, "-n", namespace).strip()
        self._cluster = cluster

    def write(self) -> None:
        """What there is now."""
        with self._cluster.bearer(self._token, self._directory) as connection:
            pods, services, endpoints = (
                connection.request("GET", f"/api/v1/namespaces/{self._namespace}/{kind}").object()["items"]
                for kind in ("pods", "services", "endpoints")
            )
        targets = [target for pod in pods for target in _targets_of_pod(pod)]
        (self._directory / "pod.json").write_text(json.dumps(targets))
        targets = [target for each in endpoints for target in _targets_of_endpoints(each, services, pods)]
        (self._directory / "endpoints.json").write_text(json.dumps(targets))


def _target(address: str, labels: dict[str, str]) -> Object:
    return {"targets": [address], "labels": {f"__meta_kubernetes_{key}": value for key, value in labels.items()}}


def _labels(of: str, found: Object) -> dict[str, str]:
    return {f"{of}_label_{_sanitized(key)}": value for key, value in found["metadata"].get("labels", {}).items()}


def _pod(pod: Object) -> dict[str, str]:
    return {
        "namespace": pod["metadata"]["namespace"],
        "pod_name": pod["metadata"]["name"],
        "pod_ip": pod["status"].get("podIP", ""),
        "pod_phase": pod["status"]["phase"],
        "pod_node_name": pod["spec"].get("nodeName", ""),
        **_labels("pod", pod),
    }


def _targets_of_pod(pod: Object) -> Iterator[Object]:
    """One for each port of each container, as role `pod`."""
    if address := pod["status"].get("podIP"):
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                own = {"pod_container_name": container["name"], "pod_container_port_name": port.get("name", "")}
                yield _target(f"{address}:{port['containerPort']}", {**_pod(pod), **own})


def _targets_of_endpoints(endpoints: Object, services: list[Object], pods: list[Object]) -> Iterator[Object]:
    """One for each address and port of a Service, as role `endpoints`."""
    metadata = endpoints["metadata"]
    (service,) = (each for each in services if each["metadata"]["name"] == metadata["name"])
    of_service = {"namespace": metadata["namespace"], "service_name": metadata["name"], **_labels("service", service)}
    for subset in endpoints.get("subsets", ()):
        for address in (*subset.get("addresses", ()), *subset.get("notReadyAddresses", ())):
            (pod,) = (each for each in pods if each["metadata"]["name"] == address["targetRef"]["name"])
            for port in subset["ports"]:
                own = {"endpoint_port_name": port.get("name", "")}
                for container in pod["spec"]["containers"]:
                    if port["port"] in [each["containerPort"] for each in container.get("ports", ())]:
                        own["pod_container_name"] = container["name"]
                yield _target(f"{address['ip']}:{port['port']}", {**of_service, **_pod(pod), **own})


class Prometheus:
    """One process; as a context manager. Scrapes and evaluates every second unless a job says otherwise."""

    def __init__(self, directory: pathlib.Path, jobs: list[Object], rules: Object) -> None:
        self._directory = directory
        (directory / "rules.yaml").write_text(yaml.safe_dump(rules))
        often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": often, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
        self._config = directory / "prometheus.yaml"
        self._config.touch(mode=0o600)
        self._config.write_text(yaml.safe_dump(config))
        self._log = directory / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        subprocess.run(["promtool", "check", "config", str(self._config)], check=True, capture_output=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "prometheus", f"--config.file={self._config}"),
                    *(f"--storage.tsdb.path={self._directory / 'data'}", f"--web.listen-address={self._address}"),
                ],
                stdout=log,
                stderr=log,
            )
        until("Prometheus to be ready", self._ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=120)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of the HTTP API, version 1."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=120) as answer:
            return json.load(answer)["data"]

    def targets(self) -> list[Object]:
        return list(self.ask("targets", state="active")["activeTargets"])

    def series(self, metric: str) -> list[dict[str, str]]:
        """The label sets that `metric` has now."""
        return [each["metric"] for each in self.ask("query", query=metric)["result"]]

    def value(self, expression: str) -> float | None:
        """Of an expression that has one result; None while it has none."""
        result = self.ask("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None
