"""Header Secrets on a real API server: copied for each Job, owned by it, and by nobody seen but the Job."""

import base64
import json
import pathlib
import subprocess

import pytest
import yaml
from tests.cluster import harness
from tests.world import checkout, steps, weather
from tests.world import kube as api
from tests.world.controllers import Controller
from tests.world.header_secrets import TOKEN, WITH_HEADERS, begin, copies, create_secret, delete_secret, tenant
from tests.world.kube import Kube, Object
from tests.world.simulation import Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import client, kinds
from directdownload.cluster.objects import project_job
from directdownload.controller import job_secrets
from directdownload.planning.header_secrets import Headers
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason


def ready(world: Simulation) -> tuple[str, str]:
    conditions = world.get(kinds.TEMPLATES, "debian", tenant(world)).get("status", {}).get("conditions", ())
    return next(((c["reason"], c["message"]) for c in conditions if c["type"] == "Ready"), ("", ""))


def reasons_of_events(world: Simulation) -> set[str]:
    """Of the Events beside the Template."""
    with world.kube() as kube:
        items = kube.request("GET", kinds.EVENTS.path(None, tenant(world))).object()["items"]
    return {item["reason"] for item in items}


def until_ready(world: Simulation, reason: str) -> str:
    """Waits for that reason, and returns the message."""
    until(f"the template to say {reason}", lambda: ready(world)[0] == reason)
    return ready(world)[1]


def test_each_job_has_its_own_copy_which_goes_with_it(world: Simulation) -> None:
    seen: dict[str, Object] = {}

    def look(document: JobDocument) -> JobResult | None:
        """Runs while its copy is there to be looked at."""
        (job,) = (j for j in world.jobs() if j["metadata"]["labels"]["directdownload.dev/host"] == document.host)
        name = job["metadata"]["annotations"]["directdownload.dev/headers-secret"]
        (copy,) = (secret for secret in copies(world) if secret["metadata"]["name"] == name)
        seen[document.host] = {"copy": copy, "job": job, "directory": document.headers_directory}
        return succeed(document)

    world.behaviour = look
    controller = begin(world, 2, secret=True)
    world.converged(2)
    assert len(seen) == 2
    assert len({found["copy"]["metadata"]["name"] for found in seen.values()}) == 2
    for found in seen.values():
        copy, job = found["copy"], found["job"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        }
        assert copy["metadata"]["ownerReferences"] == [owner]
        assert (copy["type"], copy["immutable"]) == ("directdownload.dev/headers", True)
        assert {name: base64.b64decode(value).decode() for name, value in copy["data"].items()} == {
            "Authorization": TOKEN
        }
        pod = job["spec"]["template"]["spec"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert (mount["mountPath"], mount["readOnly"]) == (found["directory"], True)
        text = json.dumps(job)
        assert TOKEN not in text
        assert base64.b64encode(TOKEN.encode()).decode() not in text
    until("the jobs to be deleted", lambda: not world.jobs() and not world.probes())
    until("their copies to go", lambda: not copies(world))
    nowhere(world, controller)


def nowhere(world: Simulation, controller: Controller) -> None:
    """The value is in no log and in no object that the controller writes."""
    texts = {"log": controller.log.read_text()}
    with world.kube() as kube:
        for kind in (kinds.TEMPLATES, kinds.TEMPLATE_PLACEMENTS, kinds.TEMPLATE_DEPLOYMENTS, kinds.EVENTS, kinds.JOBS):
            texts[kind.plural] = json.dumps(kube.request("GET", kind.path()).object())
    for where, text in texts.items():
        for value in (TOKEN, TOKEN.split()[1], base64.b64encode(TOKEN.encode()).decode()):
            assert value not in text, where


def test_nothing_starts_before_there_is_a_secret_and_then_all_goes_on(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path
) -> None:
    with weather.Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy:
        controller = begin(world, kubeconfig=proxy.kubeconfig)
        message = until_ready(world, "SecretNotFound")
        assert f"{tenant(world)}/token" in message
        _nothing_starts_and_it_looks_again(world, proxy)
        create_secret(world)
        world.converged(1)
        assert until_ready(world, "Registered")
        until("the probe as well", lambda: world.kubelets.probed)
    nowhere(world, controller)


def _nothing_starts_and_it_looks_again(world: Simulation, proxy: weather.Proxy) -> None:
    until("the deployment", lambda: world.ready_reason(kinds.TEMPLATE_DEPLOYMENTS, "everywhere") == "TemplateNotReady")
    # Nobody tells it: it looks by itself, after pauses of 5 seconds at first.
    until("a third look", lambda: proxy.count(lambda call: (call.verb, call.resource) == ("get", "secrets")) > 2)
    assert [*world.started, *world.kubelets.probed, *world.placements()] == []
    assert reasons_of_events(world) >= {"SecretNotFound"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "Opaque"}, "expected type directdownload.dev/headers"),
        ({"origins": "http://evil.example.org"}, "to list http://images.example.org"),
        ({"metadata": {"name": "token"}}, "to list http://images.example.org"),
        ({"value": f"{TOKEN}\r\nX-Evil: 1"}, "key 'Authorization': expected a value of visible ASCII"),
        ({"data": {"Range": base64.b64encode(b"bytes=0-").decode()}}, "key 'Range': the download sets this header"),
    ],
    ids=["type", "origin", "no origins", "line break", "the engine's own"],
)
def test_a_secret_that_may_not_be_used_is_not_used(world: Simulation, fields: Object, words: str) -> None:
    controller = begin(world)
    until_ready(world, "SecretNotFound")
    create_secret(world, **fields)
    steps.ask(world, kinds.TEMPLATES, "debian", tenant(world))
    assert words in until_ready(world, "SecretForbidden")
    steps.settle(world)
    assert [*world.started, *world.kubelets.probed, *copies(world)] == []
    nowhere(world, controller)


def test_a_secret_that_vanishes_holds_up_the_next_download_only(world: Simulation) -> None:
    world.behaviour = lambda _: fail(Reason.SOURCE_UNAVAILABLE)
    begin(world, secret=True)
    until("a first attempt", lambda: world.started)
    delete_secret(world)
    (host,) = world.kubelets.machines
    placement = steps.until_state(world, host, "Pending", "SecretNotFound")
    assert f"{tenant(world)}/token" in placement["status"]["conditions"][0]["message"]
    until_ready(world, "SecretNotFound")
    steps.settle(world)
    number = len(world.started)
    world.behaviour = succeed
    steps.settle(world)
    assert len(world.started) == number
    create_secret(world)
    world.converged(1)
    assert len(world.started) == number + 1


def test_a_copy_that_is_ready_stays_so_without_its_secret(world: Simulation) -> None:
    begin(world, secret=True)
    world.converged(1)
    delete_secret(world)
    steps.ask(world, kinds.TEMPLATES, "debian", tenant(world))
    until_ready(world, "SecretNotFound")
    steps.settle(world)
    (placement,) = world.placements()
    assert steps.phase_and_reason(placement)[0] == "Ready"


def test_the_next_job_sees_what_has_changed_in_the_secret(world: Simulation) -> None:
    values: list[str] = []

    def look(_: JobDocument) -> JobResult | None:
        jobs = {job["metadata"]["uid"] for job in world.jobs()}
        (copy,) = (c for c in copies(world) if c["metadata"]["ownerReferences"][0]["uid"] in jobs)
        values.append(base64.b64decode(copy["data"]["Authorization"]).decode())
        return fail(Reason.SOURCE_UNAVAILABLE) if values[-1] == TOKEN else succeed(_)

    world.behaviour = look
    begin(world, secret=True)
    until("a first attempt", lambda: values)
    with world.kube() as kube:
        data = {"Authorization": base64.b64encode(b"Bearer another").decode()}
        kube.patch(kinds.SECRETS, "token", {"data": data}, tenant(world)).object()
    world.converged(1)
    assert (values[0], values[-1]) == (TOKEN, "Bearer another")


@pytest.mark.parametrize("restart", [False, True], ids=["the same controller", "another controller"])
def test_a_copy_that_could_not_be_made_is_made_later_for_the_same_job(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path, restart: bool
) -> None:
    kubeconfig = fleet.kubeconfig(f"{world.prefix}-controller")
    with weather.Proxy(kubeconfig, tmp_path) as proxy:
        with proxy.fault(
            weather.refusal(500, "InternalError"), lambda c: (c.verb, c.resource) == ("create", "secrets")
        ):
            controller = begin(world, secret=True, kubeconfig=proxy.kubeconfig)
            (job,) = until("the job", world.jobs)
            until("some refusals", lambda: proxy.count(lambda c: (c.verb, c.resource) == ("create", "secrets")) > 2)
            assert [*world.started, *copies(world)] == [], "its pod waits"
            if restart:
                steps.kill(world, controller)
        if restart:
            world.start_controller("second")
        world.converged(1)
    assert [entry[1:] for entry in world.started] == [("fetch", 1)]
    assert {p["status"]["attempts"] for p in world.placements()} == {1}
    assert not [j for j in world.jobs() if j["metadata"]["uid"] == job["metadata"]["uid"]]


def test_with_the_rights_of_the_chart_only_listed_namespaces_are_read(tmp_path: pathlib.Path) -> None:
    """The real controller under its own service account."""
    with harness.ControlPlane() as control_plane, Simulation(control_plane, "rights") as fleet:
        api.install_definitions(control_plane)
        fleet.create_namespace("tenant")
        other = fleet.create_namespace("other")
        values = ("--set", f"headerSecrets.namespaces={{{tenant(fleet)}}}")
        manifests = api.rendered("release", fleet.namespace, *values)
        control_plane.kubectl("apply", "-f", "-", input=manifests, check=True)
        found = [each for each in yaml.safe_load_all(manifests) if each]
        (template,) = (each["data"]["job.yaml"] for each in found if each["kind"] == "ConfigMap")
        (tmp_path / "job.yaml").write_text(template)
        account = "release-direct-download-operator-controller"
        token = control_plane.service_account_token(account, fleet.namespace)
        kubeconfig = control_plane.token_kubeconfig(token, "controller")
        create_secret(fleet)
        with Kube(kubeconfig) as own:
            until("the rights", lambda: own.get(kinds.SECRETS, "token", tenant(fleet)).ok)
            allowed = {
                ("GET", "token", tenant(fleet)): True,
                ("GET", None, tenant(fleet)): False,
                ("DELETE", "token", tenant(fleet)): False,
                ("GET", "token", other): False,
                # To follow what certificates refer to; only administrators decide what lies there.
                ("GET", None, fleet.namespace): True,
                ("DELETE", "token", other): False,
                ("GET", None, None): False,
            }
            for (method, name, namespace), expected in allowed.items():
                answer = own.request(method, kinds.SECRETS.path(name, namespace))
                assert answer.code == (200 if expected else 403), (method, name, namespace)
        fleet.create_zone()
        fleet.add_host("kvm-1")
        pod = {"POD_NAME": "controller-0", "POD_NAMESPACE": fleet.namespace}
        environment = checkout.pod_environment(tmp_path, kubeconfig, **pod)
        options = ("--job-template", str(tmp_path / "job.yaml"), "--health-port", "0", "--log-format", "json")
        arguments = [checkout.DIRECTDOWNLOAD, "controller", *options, "--pool-root", "/var/lib/libvirt/images"]
        arguments += ["--lease-name", "release-direct-download-operator-controller"]
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            for namespace in (tenant(fleet), other):
                fleet.create_template(namespace=namespace, allowedNamespaces={}, **WITH_HEADERS)
                fleet.deploy(namespace, templateRef={"name": "debian", "namespace": namespace})
            fleet.converged(1, tenant(fleet))

            def refused() -> str:
                conditions = fleet.get(kinds.TEMPLATES, "debian", other).get("status", {}).get("conditions", ())
                return next((c["message"] for c in conditions if c["reason"] == "SecretForbidden"), "")

            assert "headerSecrets.namespaces" in until("the refusal", refused)
            assert fleet.ready_reason(kinds.TEMPLATE_DEPLOYMENTS, other) == "TemplateNotReady"
            until("the jobs to be deleted", lambda: not fleet.jobs())
        finally:
            process.terminate()
            status = process.wait(timeout=120)
        assert (status, TOKEN in log.read_text()) == (0, False), log.read_text()[-2000:]
        mine = [
            (event["objectRef"]["resource"], event["verb"], event["responseStatus"]["code"])
            for event in harness.read_audit_log(control_plane.audit_log)
            if event["user"]["username"] == f"system:serviceaccount:{fleet.namespace}:{account}"
        ]
        written = [entry for entry in mine if entry[0] == "secrets" and entry[2] != 403]
        made = [entry for entry in mine if entry == ("jobs", "create", 201)]
        assert written == [("secrets", "create", 201)] * len(made), "one more write for each Job"


async def test_kubernetes_collects_the_copy_with_its_job() -> None:
    """With Kubernetes' own collector of garbage, and the very request that makes a copy."""
    with harness.ControlPlane(controller_manager=True) as control_plane, Kube(control_plane.kubeconfig()) as admin:
        pod = {"restartPolicy": "Never", "containers": [{"name": "download", "image": "localhost/none"}]}
        annotations = {"directdownload.dev/headers-secret": "the-copy"}
        body = {
            "metadata": {"name": "a-job", "annotations": annotations},
            "spec": {"suspend": True, "template": {"spec": pod}},
        }
        job = project_job(admin.create(kinds.JOBS, body, "default").object())
        connected = await client.Api.connect(kubeconfig=str(control_plane.kubeconfig()))
        try:
            found = Headers(None, {"Authorization": base64.b64encode(TOKEN.encode()).decode()})
            await job_secrets.copy_for(connected, job, found)
            assert admin.get(kinds.SECRETS, "the-copy", "default").ok
            await connected.delete(kinds.JOBS, job.name, namespace="default", uid=job.uid)
        finally:
            await connected.close()
        until("the copy to be gone", lambda: admin.get(kinds.SECRETS, "the-copy", "default").code == 404)
