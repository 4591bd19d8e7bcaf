"""What `helm test` runs, under the rights that the chart gives it: it says what it does or why not, and cleans up.

Hosts and downloads are simulated here: by default a download brings bytes that the test never served. With real Jobs on
real nodes it runs in tests/e2e/test_chart.py.
"""

import hashlib
import pathlib
import signal
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
import yaml
from tests.world import checkout, kube
from tests.world.kube import Object
from tests.world.simulation import Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import jobs
from directdownload.resources.reasons import Reason

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

NAME = "release-direct-download-operator-test"
MADE = (kinds.TEMPLATES, kinds.TEMPLATE_DEPLOYMENTS, kinds.ZONES, kinds.STORAGE_POOLS)


class Runner:
    """The pod of the chart: its arguments and its account, as a process of this machine."""

    def __init__(self, world: Simulation) -> None:
        manifests = kube.rendered("release", world.namespace, hooks=True)
        found = [each for each in yaml.safe_load_all(manifests) if each and each["metadata"]["name"] == NAME]
        rights = [each for each in found if each["kind"] != "Pod"]
        world.control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(rights), check=True)
        (pod,) = (each["spec"] for each in found if each["kind"] == "Pod")
        token = world.control_plane.service_account_token(pod["serviceAccountName"], world.namespace)
        access = ["--kubeconfig", str(world.control_plane.token_kubeconfig(token, NAME)), "-n", world.namespace]
        # Of two equal options the last one counts: a free port.
        self._command = [checkout.DIRECTDOWNLOAD, *pod["containers"][0]["args"], "--port=0", *access]
        self._world = world

    def start(self, *arguments: str) -> "Running":
        # A name: a zone refuses the address that it stands for before any job is made.
        environment = checkout.environment(POD_IP="localhost", PYTHONUNBUFFERED="1")
        return Running([*self._command, *arguments], environment, self._world.control_plane.directory / "selftest.log")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Its exit status and what it has said; whatever happened, nothing of it is left."""
        return self.end(self.start(*arguments))

    def end(self, running: "Running") -> tuple[int, str, str]:
        status, told, error = running.end()
        assert "Traceback" not in error, error
        assert [kind.plural for kind in MADE if not self._world.gone(kind, NAME)] == [], told
        assert self._world.placements() == []
        return status, told, error


class Running:
    def __init__(self, command: list[str], environment: dict[str, str], log: pathlib.Path) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True, env=environment)

    def told(self) -> str:
        return self._log.read_text()

    def end(self) -> tuple[int, str, str]:
        try:
            error = self.process.communicate(timeout=120)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, self.told(), error


@pytest.fixture
def runner(world: Simulation) -> Iterator[Runner]:
    made = Runner(world)
    world.start_controller()
    yield made
    for kind in ("clusterrole", "clusterrolebinding"):
        world.control_plane.kubectl("delete", kind, NAME, check=True)


def with_host(world: Simulation, **spec: Object) -> None:
    world.create_zone(**spec)
    host = world.add_host("kvm-1")

    def reported() -> bool:
        return not world.gone(kinds.HOSTS, host) and bool(world.get(kinds.HOSTS, host).get("status", {}).get("storage"))

    until("a host with storage", reported)


def test_a_zone_that_does_not_admit_the_namespace_is_said(world: Simulation, runner: Runner) -> None:
    with_host(world, templateNamespaces={"matchLabels": {"images": "yes"}})
    status, told, error = runner.run()
    assert status == 3
    assert f"TemplateDeployment {NAME}: NamespaceNotAllowed: " in error
    assert "Hint: templateNamespaces of the Zone must select the release's namespace" in error
    assert f"Removing TemplateDeployment {NAME}, Template {NAME}." in told


def test_a_source_policy_that_refuses_the_url_is_said(world: Simulation, runner: Runner) -> None:
    with_host(world, sourcePolicy={"allowedHosts": ["images.example.org"]})
    status, _, error = runner.run()
    assert status == 3
    assert f"TemplateDeployment {NAME}: URLNotAllowed: " in error
    assert "Hint: sourcePolicy.allowedHosts and allowedCIDRs of the Zone" in error


def test_a_source_policy_that_refuses_is_said(world: Simulation, runner: Runner) -> None:
    def refuse(document: jobs.JobDocument) -> jobs.JobResult:
        return fail(Reason.URL_NOT_ALLOWED) if document.verb is jobs.Verb.FETCH else succeed(document)

    with_host(world)
    world.behaviour = refuse
    status, _, error = runner.run()
    assert status == 3
    assert "Failed, URLNotAllowed: simulated URLNotAllowed" in error
    assert "Hint: sourcePolicy.allowedHosts and allowedCIDRs of the Zone" in error


def test_a_copy_of_other_bytes_is_no_success(world: Simulation, runner: Runner) -> None:
    with_host(world)
    status, told, error = runner.run()
    assert status == 3
    assert "Failed, ChecksumMismatch: " in error
    assert "The test has failed: " in told
    assert "succeeded" not in told


def from_the_test_itself(url: str) -> str:
    """The digest of what the test serves at this very moment."""
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310 - a server of this machine
        return f"sha256:{hashlib.sha256(answer.read()).hexdigest()}"


def test_without_a_usable_host_it_tells_what_there_is(world: Simulation, runner: Runner) -> None:
    with_host(world)
    host = f"{world.prefix}-kvm-1"
    world.power_off(host)
    until("the host to be down", lambda: world.get(kinds.HOSTS, host)["status"].get("state") == "Down")
    status, _, error = runner.run()
    assert status == 1
    assert "no host is Up with a usable pool in an enabled zone" in error
    assert f"Host {host}: Down" in error


def test_in_a_fresh_cluster_zone_pool_and_host_are_its_own(
    world: Simulation, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.origin, "digest", from_the_test_itself)
    host = world.add_host("kvm-1", labels={"kubernetes.io/hostname": "one"})
    other = world.add_host("kvm-2", labels={"kubernetes.io/hostname": "two"})
    assert "none of 0 agents is ready yet" in runner.run()[2]
    for each in (host, other):
        labels = {"metadata": {"labels": {"app.kubernetes.io/instance": "release"}}}
        with world.kube() as connection:
            connection.patch(kinds.PODS, f"agent-{each}", labels, world.namespace).object()
    status, told, error = runner.run()
    assert (status, error) == (0, "")
    assert told.endswith("The test has succeeded: a file was downloaded, verified and removed again.\n")
    assert f"There is no Zone yet: creating one of node {host}, with a pool at /var/lib/libvirt/images." in told
    assert f"Deploying it to pool {NAME} of host {host} in zone {NAME}." in told
    assert world.gone(kinds.HOSTS, host)
    assert world.gone(kinds.HOSTS, other)


def test_ended_from_outside_it_cleans_up(world: Simulation, runner: Runner) -> None:
    """As by the kubelet, when the pod is deleted or took too long; what a killed one leaves, the next one removes."""
    with_host(world)

    def endless(document: jobs.JobDocument) -> jobs.JobResult | None:
        return None if document.verb is jobs.Verb.FETCH else succeed(document)

    world.behaviour = endless
    killed = runner.start()
    until("the copy to be planned", world.placements)
    killed.process.kill()
    killed.end()
    running = runner.start()
    until("its own copy", lambda: "  copy " in running.told())
    running.process.send_signal(signal.SIGTERM)
    status, told, error = runner.end(running)
    assert status == 1
    assert error == "Error: terminated before it was done\n"
    both = f"TemplateDeployment {NAME}, Template {NAME}."
    assert told.startswith(f"Removing objects of an earlier test: {both}\n")
    assert told.endswith(f"Removing {both}\n")


def test_it_says_what_it_waits_for_when_time_is_up(world: Simulation, runner: Runner) -> None:
    def unreachable(document: jobs.JobDocument) -> jobs.JobResult:
        return fail(Reason.SOURCE_UNREACHABLE) if document.verb is jobs.Verb.FETCH else succeed(document)

    with_host(world)
    world.behaviour = unreachable
    for seconds in (3, 60):
        status, _, error = runner.run(f"--timeout={seconds}s")
        assert status == 1
        assert error.startswith(f"Error: not done within {seconds} s: no progress:\n")
        # a machine under load may not have come so far within the first
        if "SourceUnreachable" in error:
            break
    assert "SourceUnreachable: simulated SourceUnreachable" in error
    assert "Hint: downloads do not reach this pod: check network policies, proxy.noProxy, job.hostNetwork" in error
