"""The rights that the chart gives are enough: the real controller under its own service account."""

import base64
import collections
import pathlib
import subprocess

import pytest
import yaml
from tests.cluster import harness
from tests.world import certificates, checkout, kube
from tests.world.simulation import POOL_PATH, Simulation, fail, succeed
from tests.world.steps import until_state
from tests.world.stuck import Stuck
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)


def _events(connection: kube.Kube) -> set[tuple[str, int]]:
    """Reason and count of those that lie where cluster-scoped objects have them."""
    items = connection.request("GET", kinds.EVENTS.path(None, "default")).object()["items"]
    return {(item["reason"], item.get("series", {}).get("count", 1)) for item in items}


def _until_ready(fleet: Simulation, name: str) -> None:
    until(f"{name} on every host", lambda: fleet.ready_reason(kinds.CERTIFICATES, name) == "Provisioned")


def _until_gone(fleet: Simulation, name: str) -> None:
    until(f"{name} to be gone", lambda: fleet.gone(kinds.CERTIFICATES, name))


def test_the_controller_needs_no_more_than_the_chart_gives(own: harness.ControlPlane, tmp_path: pathlib.Path) -> None:
    """From the first host to the last file removed: nothing is forbidden."""
    with Simulation(own, "rights", agents=True) as fleet:
        manifests = kube.rendered("release", fleet.namespace)
        own.kubectl("apply", "-f", "-", input=manifests, check=True)
        found = [each for each in yaml.safe_load_all(manifests) if each]
        (template,) = (each["data"]["job.yaml"] for each in found if each["kind"] == "ConfigMap")
        (tmp_path / "job.yaml").write_text(template)
        (deployment,) = (each for each in found if each["kind"] == "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        arguments = [each.replace("/etc/directdownload", str(tmp_path)) for each in container["args"]]
        # Of two equal options the last one counts: a free port.
        arguments.append("--health-port=0")
        assert f"--pool-root={POOL_PATH}" in arguments
        account = str(deployment["metadata"]["name"])
        token = own.service_account_token(account, fleet.namespace)
        pod = {"POD_NAME": "controller-0", "POD_NAMESPACE": fleet.namespace}
        environment = checkout.pod_environment(tmp_path, own.token_kubeconfig(token, "controller"), **pod)
        fleet.create_zone(downloads={"retry": {"initial": "1s", "maximum": "1s"}})
        hosts = [fleet.add_host(f"kvm-{number}") for number in (1, 2)]
        attempts: collections.Counter[str] = collections.Counter()

        def fail_twice(document: JobDocument) -> JobResult:
            attempts[document.host] += 1
            return fail(Reason.SOURCE_UNAVAILABLE) if attempts[document.host] <= 2 else succeed(document)

        fleet.behaviour = fail_twice
        quota = "exceeded quota: none"
        blocked = {hosts[0]: Stuck(pod=False, events=(("Warning", "FailedCreate", quota),))}
        fleet.kubelets.stuck = lambda document: blocked.get(document.host)
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [checkout.DIRECTDOWNLOAD, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            fleet.create_template()
            fleet.deploy()
            placement = until_state(fleet, hosts[0], "Pending", "PodBlocked")
            # Only an Event tells it.
            assert quota in placement["status"]["conditions"][0]["message"]
            blocked.clear()
            fleet.converged(len(hosts))
            source = {"metadata": {"name": "ca"}, "data": {"ca.crt": certificates.pem()}}
            reference = {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}
            names = [
                fleet.create_certificate("inline", certificates.pem()),
                fleet.create_certificate("config-map", certificateRef=reference),
                fleet.create_certificate("secret", certificateRef={**reference, "kind": "Secret"}),
            ]
            with fleet.kube() as connection:
                connection.create(kinds.CONFIG_MAPS, source, fleet.namespace).object()
                encoded = {key: base64.b64encode(text.encode()).decode() for key, text in source["data"].items()}
                connection.create(kinds.SECRETS, {**source, "data": encoded}, fleet.namespace).object()
                for name in names:
                    _until_ready(fleet, name)
                for name in names:
                    connection.delete(kinds.CERTIFICATES, name).object()
                for name in names:
                    _until_gone(fleet, name)
            with fleet.kube() as connection:
                connection.delete(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", fleet.namespace).object()
                until("the placements to be gone", lambda: not fleet.placements())
                connection.delete(kinds.TEMPLATES, "debian", fleet.namespace).object()
                until("the template to be gone", lambda: fleet.gone(kinds.TEMPLATES, "debian"))
                # A new Event is a create, one more of its kind is a patch.
                until("Events", lambda: {("SourceUnavailable", 2), ("Removed", 1)} <= _events(connection))
        finally:
            process.terminate()
            status = process.wait(timeout=120)
        text = log.read_text()
        assert status == 0, text[-2000:]
        assert "forbidden" not in text.lower(), text
        assert {job for job in fleet.started if job[1] == "remove"}, "no file was removed"
