"""The Helm chart against a real API server: values install or are refused in words, and nothing collides."""

import ipaddress
import json
import pathlib
import re
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml
from tests import denied_networks
from tests.cluster import harness
from tests.world import kube, samples
from tests.world.checkout import CHART, REPOSITORY
from tests.world.kube import Kube, Object

from directdownload.cli import agent, controller
from directdownload.cluster.kinds import (
    HOSTS,
    JOBS,
    NAMESPACES,
    PODS,
    TEMPLATE_PLACEMENTS,
    TEMPLATES,
    ZONES,
    Resource,
)
from directdownload.controller import jobs as controller_jobs
from directdownload.download import policy
from directdownload.planning import observed
from directdownload.resources import host, jobs, template, zone

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
DIGEST = "sha256:" + "0123456789abcdef" * 4
#: Arguments of helm, each set of which must make valid manifests.
MATRIX: dict[str, list[str]] = {
    "defaults": [],
    "image by tag": ["--set", "image.repository=images.example.org/x/ddo,image.tag=v2,image.pullPolicy=Always"],
    "image by digest": ["--set", f"image.digest={DIGEST}"],
    "pull secrets": ["--set", "imagePullSecrets[0].name=registry"],
    "three controllers": ["--set", "controller.replicas=3,controller.priorityClassName=system-cluster-critical"],
    "pool roots": ["--set-json", 'agent.poolRoots=["/srv/pools","/mnt/a b","/data/.hidden"]'],
    "SELinux": ["--set", "seLinuxOptions.type=spc_t,seLinuxOptions.level=s0"],
    "placed": [
        "--set-json",
        'controller.nodeSelector={"a":"b"}',
        "--set-json",
        'controller.tolerations=[{"key":"k","operator":"Equal","value":"v","effect":"NoExecute","tolerationSeconds":5}]',
        "--set-json",
        'controller.affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":'
        '{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"Exists"}]}]}}}',
        "--set-json",
        'agent.nodeSelector={"example.org/kvm":"true"}',
        "--set-json",
        "agent.tolerations=[]",
    ],
    "agents": [
        "--set",
        "agent.capabilities={CHOWN,DAC_OVERRIDE,DAC_READ_SEARCH,FOWNER},agent.maxUnavailable=3,agent.priorityClassName=system-node-critical",
        "--set-string",
        "agent.podAnnotations.example\\.org/a=true",
    ],
    "jobs": ["--set-json", "job.capabilities=[]", "--set", "job.priorityClassName=low,job.resources.limits.memory=1Gi"],
    "logs": ["--set", "log.format=text,log.level=debug"],
    "header Secrets": ["--set", "headerSecrets.namespaces={default,kube-public}"],
    "a proxy": [
        "--set",
        "proxy.http=http://proxy:3128,proxy.https=http://[fd00::1]:3128,proxy.noProxy=.x\\,10.0.0.0/8",
    ],
    "a proxy with a password": ["--set", "proxy.secretName=proxy,proxy.http=http://other:3128/"],
    "metrics with authentication": ["--set", "metrics.authentication=true,metrics.tls.secretName=metrics-tls"],
    "jobs on the hosts' network": ["--set", "job.hostNetwork=true"],
    "no hook, no roles": ["--set", "crds.upgrade=false,rbac.createUserRoles=false"],
    "roles that do not aggregate": ["--set", "rbac.aggregate=false"],
    "one controller": ["--set", "controller.replicas=1"],
    "none": ["--set", "controller.replicas=0"],
    "a budget in percent": ["--set", "controller.podDisruptionBudget.maxUnavailable=50%"],
    "spread": [
        "--set-json",
        'controller.topologySpreadConstraints=[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone",'
        '"whenUnsatisfiable":"ScheduleAnyway"},{"maxSkew":1,"topologyKey":"rack","whenUnsatisfiable":"DoNotSchedule",'
        '"labelSelector":{"matchLabels":{"a":"b"}}}]',
        "--set-json",
        'agent.affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":'
        '{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"DoesNotExist"}]}]}}}',
    ],
    "labels": [
        "--set",
        "commonLabels.team=storage,controller.podLabels.a=b,agent.podLabels.c=d,job.podLabels.e=f,job.podAnnotations.g=h",
    ],
    "network policies": ["--set", "networkPolicy.enabled=true"],
    "narrow network policies": [
        "--set",
        "networkPolicy.enabled=true,networkPolicy.apiServer.ports={6443},networkPolicy.dns.ports={53,5353}",
        "--set-json",
        'networkPolicy.apiServer.to=[{"ipBlock":{"cidr":"192.0.2.1/32"}},{"ipBlock":{"cidr":"fd00::1/128"}}]',
        "--set-json",
        'networkPolicy.dns.to=[{"namespaceSelector":{},"podSelector":{"matchLabels":{"k8s-app":"kube-dns"}}}]',
        "--set-json",
        'networkPolicy.metrics.from=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"m"}}}]',
        "--set-json",
        'networkPolicy.job.to=[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]',
    ],
    "much at once": [
        "--set",
        "job.hostNetwork=true,networkPolicy.enabled=true,metrics.authentication=true,dashboard.enabled=true,"
        "seLinuxOptions.type=spc_t,imagePullSecrets[0].name=registry,headerSecrets.namespaces={default},"
        "proxy.secretName=proxy,commonLabels.team=storage,controller.priorityClassName=system-cluster-critical,"
        "agent.priorityClassName=system-node-critical,job.priorityClassName=system-node-critical",
        "--set-json",
        'controller.nodeSelector={"a":"b"}',
        "--set-json",
        'controller.tolerations=[{"operator":"Exists"}]',
    ],
    "little": [
        "--set",
        "crds.upgrade=false,rbac.createUserRoles=false,controller.replicas=1,controller.podDisruptionBudget.enabled=false",
        "--set-json",
        "agent.keystoreRoots=[]",
        "--set-json",
        "job.capabilities=[]",
        "--set-json",
        "job.resources={}",
        "--set-json",
        "agent.tolerations=[]",
    ],
    "names": ["--set", "nameOverride=ddo,fullnameOverride=direct"],
    "global values of a parent chart": ["--set", "global.anything=1"],
}
#: (arguments, what helm must say)
REFUSED: list[tuple[str, str]] = [
    ("nonsense=1", "additional properties 'nonsense' not allowed"),
    ("agent.nonsense=1", "at '/agent': additional properties 'nonsense' not allowed"),
    ("agent.poolRoots=null", "at '/agent': missing property 'poolRoots'"),
    ("agent.poolRoots={}", "at '/agent/poolRoots/0': '' does not match pattern"),
    ("agent.poolRoots[0]=pools", "at '/agent/poolRoots/0': 'pools' does not match pattern"),
    ("agent.poolRoots[0]=/", "at '/agent/poolRoots/0': '/' does not match pattern"),
    ("agent.poolRoots[0]=/a/../b", "at '/agent/poolRoots/0': '/a/../b' does not match pattern"),
    ("agent.poolRoots[0]=/a/", "at '/agent/poolRoots/0': '/a/' does not match pattern"),
    ("agent.poolRoots={/a,/a}", "at '/agent/poolRoots': items at 0 and 1 are equal"),
    ("agent.capabilities[0]=SYS_ADMIN", "at '/agent/capabilities/0': value must be"),
    ("agent.maxUnavailable=0", "at '/agent/maxUnavailable'"),
    ("job.capabilities[0]=SYS_ADMIN", "at '/job/capabilities/0': value must be one of 'CHOWN'"),
    ("controller.replicas=-1", "at '/controller/replicas': minimum: got -1, want 0"),
    ("controller.replicas=two", "at '/controller/replicas': got string, want integer"),
    ("controller.resources.limits.memory=lots", "at '/controller/resources/limits/memory': 'lots' does not match"),
    ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
    ("image.repository=", "at '/image/repository': minLength: got 0, want 1"),
    ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always'"),
    ("log.level=loud", "at '/log/level': value must be one of 'debug'"),
    ("log.format=xml", "at '/log/format': value must be one of 'json', 'text'"),
    ("imagePullSecrets[0]=registry", "at '/imagePullSecrets/0': got string, want object"),
    ("seLinuxOptions.kind=x", "at '/seLinuxOptions': additional properties 'kind' not allowed"),
    ("headerSecrets.namespaces[0]=", "at '/headerSecrets/namespaces/0': '' does not match pattern"),
    ("headerSecrets.namespaces={a,a}", "at '/headerSecrets/namespaces': items at 0 and 1 are equal"),
    ("headerSecrets.namespaces[0]=*", "at '/headerSecrets/namespaces/0': '*' does not match pattern"),
    ("proxy.http=http://user:word@proxy:3128", "at '/proxy/http'"),
    ("proxy.https=https://proxy:3128", "at '/proxy/https'"),
    ("proxy.https=proxy:3128", "at '/proxy/https'"),
    ("proxy.noProxy=$(id)", "at '/proxy/noProxy'"),
    ("proxy.secretName=Proxy", "at '/proxy/secretName'"),
    ("metrics.authentication=maybe", "at '/metrics/authentication': got string, want boolean"),
    ("metrics.serviceMonitor.interval=often", "at '/metrics/serviceMonitor/interval': 'often' does not match pattern"),
    ("metrics.podMonitor.labels.a=1", "at '/metrics/podMonitor/labels/a': got number, want string"),
    ("metrics.tokenSecret.key=", "at '/metrics/tokenSecret/key': '' does not match pattern"),
    ("crds.upgrade=maybe", "at '/crds/upgrade': got string, want boolean"),
    ("rbac.create=true", "at '/rbac': additional properties 'create' not allowed"),
    ("controller.podDisruptionBudget.maxUnavailable=0", "at '/controller/podDisruptionBudget/maxUnavailable'"),
    ("controller.topologySpreadConstraints[0].maxSkew=1", "at '/controller/topologySpreadConstraints/0': missing prop"),
    ("commonLabels.app\\.kubernetes\\.io/name=x", "at '/commonLabels/app.kubernetes.io~1name': false schema"),
    (
        "controller.podLabels.app\\.kubernetes\\.io/component=x",
        "at '/controller/podLabels/app.kubernetes.io~1component'",
    ),
    ("job.podLabels.a=b c", "at '/job/podLabels/a': 'b c' does not match pattern"),
    ("job.hostNetwork=1", "at '/job/hostNetwork': got number, want boolean"),
    ("networkPolicy.job.to[0].ipBlock.cidr=10.0.0.1", "at '/networkPolicy/job/to/0/ipBlock/cidr'"),
    ("networkPolicy.job.to[0]=10.0.0.0/8", "at '/networkPolicy/job/to/0': got string, want object"),
    ("networkPolicy.metrics.to=x", "at '/networkPolicy/metrics': additional properties 'to' not allowed"),
    ("networkPolicy.apiServer.ports={}", "at '/networkPolicy/apiServer/ports/0'"),
    ("networkPolicy.dns.ports[0]=0", "at '/networkPolicy/dns/ports/0': minimum: got 0, want 1"),
    ("fullnameOverride=Direct_Download", "at '/fullnameOverride': 'Direct_Download' does not match pattern"),
]


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def api(control_plane: harness.ControlPlane) -> Iterator[Kube]:
    kube.install_definitions(control_plane)
    with Kube(control_plane.kubeconfig()) as connection:
        yield connection


@pytest.fixture(scope="module")
def namespace(api: Kube) -> str:
    return new_namespace(api)


def new_namespace(api: Kube, **labels: str) -> str:
    metadata = {"name": unique("chart"), "labels": {f"pod-security.kubernetes.io/{key}": labels[key] for key in labels}}
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).object()
    return str(metadata["name"])


def documents(release: str, namespace: str, *arguments: str, hooks: bool = False) -> list[Object]:
    return [each for each in yaml.safe_load_all(kube.rendered(release, namespace, *arguments, hooks=hooks)) if each]


def tried(control_plane: harness.ControlPlane, found: list[Object]) -> str:
    """What the API server says to all of them, without keeping them; a pod needs an account that is really there."""
    accounts = [each for each in found if each["kind"] == "ServiceAccount"]
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(accounts), check=True)
    arguments = ["--dry-run=server", "--validate=strict", "-f", "-"]
    applied = control_plane.kubectl("apply", *arguments, input=yaml.safe_dump_all(found))
    assert applied.returncode == 0, applied.stderr
    return applied.stderr


def one(found: list[Object], kind: str, component: str = "") -> Object:
    (match,) = (
        each
        for each in found
        if each["kind"] == kind and each["metadata"]["name"].endswith(f"-{component}" * bool(component))
    )
    return match


def skeleton_of(found: list[Object]) -> Object:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(one(found, "ConfigMap", "job-template")["data"]["job.yaml"])
        file.flush()
        return controller_jobs.load_template(pathlib.Path(file.name))


#: A Job that may read from it is made for NFS.
NFS: dict[str, Any] = {"url": "nfs://nas/e/a", "policy": jobs.Policy(nfs_exports=("nas:/e",))}


def job_of(found: list[Object], pool: str = "/var/lib/libvirt/images", **fields: Any) -> Object:
    """The Job that the controller makes of the chart's template, by the controller's own code."""
    spec = {**samples.FULL[TEMPLATE_PLACEMENTS], "path": f"{pool}/f"}
    metadata = {"name": "debian-0123456789", "uid": "u", "resourceVersion": "1", "generation": 1}
    placement = observed.project_placement({"metadata": metadata, "spec": spec})
    document = jobs.JobDocument(
        verb=jobs.Verb.FETCH,
        placement=placement.key,
        placement_uid=placement.uid,
        template_uid=placement.template_uid,
        host=placement.host,
        pool=jobs.JobPool(name="local", path=pool),
        file_name="f",
        **{"url": "https://images.example.org/debian-13.qcow2", **fields},
    )
    namespace = one(found, "ConfigMap", "job-template")["metadata"]["namespace"]
    return controller_jobs.manifest(skeleton_of(found), namespace, placement, document, 1, ())


def probe_of(found: list[Object]) -> Object:
    """The same of a probe."""
    metadata = {"name": "debian-13", "namespace": "default", "uid": "u"}
    spec = {**samples.MINIMAL[TEMPLATES], "headersSecretRef": {"name": "token"}}
    made = template.Template.model_validate({"metadata": metadata, "spec": spec})
    where = host.Host.model_validate({"metadata": {"name": "kvm-1"}, "spec": samples.MINIMAL[HOSTS]})
    document = controller_jobs.probe_document(
        made, zone.Zone.model_validate({"spec": samples.MINIMAL[ZONES]}), where.name
    )
    namespace = one(found, "ConfigMap", "job-template")["metadata"]["namespace"]
    return controller_jobs.probe_manifest(skeleton_of(found), namespace, made, where, document, 1, "told")


def test_lint() -> None:
    kube.helm("lint", "--strict", str(CHART))


def test_definitions_are_current() -> None:
    made = {path.name: path.read_text() for path in (REPOSITORY / "crds").glob("*.yaml")}
    assert made
    assert {path.name: path.read_text() for path in (CHART / "crds").iterdir()} == made


@pytest.mark.parametrize("arguments", MATRIX.values(), ids=MATRIX.keys())
def test_values_make_valid_manifests(
    control_plane: harness.ControlPlane, api: Kube, namespace: str, arguments: list[str]
) -> None:
    found = documents("release", namespace, *arguments, hooks=True)
    assert "Warning" not in tried(control_plane, found)
    everything = {**NFS, "headers_directory": "/var/run/directdownload/headers"}
    for job in (job_of(found), job_of(found, **everything), probe_of(found)):
        api.create(JOBS, job, namespace, dry=True).object()


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=[value for value, _ in REFUSED])
def test_bad_values_are_refused_in_words(value: str, words: str) -> None:
    result = kube.helm("template", "release", str(CHART), "--set", value, check=False)
    assert result.returncode != 0
    assert words in result.stderr, result.stderr


def test_values_arrive(namespace: str) -> None:
    found = documents(
        "release",
        namespace,
        *("--set-json", 'agent.poolRoots=["/srv/a","/srv/b"]', "--set", f"image.digest={DIGEST},image.repository=r/x"),
        *("--set", "seLinuxOptions.type=spc_t,imagePullSecrets[0].name=registry,log.level=debug,controller.replicas=3"),
    )
    pods = {
        "controller": one(found, "Deployment")["spec"]["template"]["spec"],
        "agent": one(found, "DaemonSet")["spec"]["template"]["spec"],
        "job": job_of(found, pool="/srv/b/pool")["spec"]["template"]["spec"],
    }
    assert one(found, "Deployment")["spec"]["replicas"] == 3
    for component, pod in pods.items():
        (container,) = pod["containers"]
        assert container["image"] == f"r/x@{DIGEST}"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["securityContext"].get("seLinuxOptions") == (
            None if component == "controller" else {"type": "spc_t"}
        )
        roots = {
            mount["mountPath"]: (mount["mountPropagation"], mount.get("readOnly", False))
            for mount in container["volumeMounts"]
            if mount["name"].startswith("pool-root")
        }
        paths = {
            volume["hostPath"]["path"]: volume["hostPath"]["type"]
            for volume in pod["volumes"]
            if volume["name"].startswith("pool-root")
        }
        if component == "controller":
            assert roots == paths == {}
        else:
            # a download sees its own pool's root alone
            wanted = ("/srv/a", "/srv/b") if component == "agent" else ("/srv/b",)
            assert roots == dict.fromkeys(wanted, ("HostToContainer", False))
            assert paths == dict.fromkeys(wanted, "Directory")
        if component != "job":
            assert {"--pool-root=/srv/a", "--pool-root=/srv/b", "--log-level=debug"} <= set(container["args"])
    (download,) = job_of(found)["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value") for each in download["env"]}
    expected = {"DIRECTDOWNLOAD_LOG_FORMAT": "json", "DIRECTDOWNLOAD_LOG_LEVEL": "debug"}
    assert expected.items() <= given.items()


def test_the_job_template_keeps_the_contract_with_the_controller(namespace: str) -> None:
    found = documents("release", namespace)
    job = job_of(found)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["metadata"]["namespace"], container["name"]) == (namespace, "download")
    assert {key: job["spec"][key] for key in ("backoffLimit", "ttlSecondsAfterFinished")} == {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 86400,
    }
    expected = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "tolerations": [{"operator": "Exists"}],
        "serviceAccountName": "release-direct-download-operator-job",
    }
    assert {key: pod[key] for key in expected} == expected
    assert container["terminationMessagePolicy"] == "File"
    assert container["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"],
    }
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    state = "/var/lib/directdownload"
    assert mounts == {
        **{f"{state}/trust": True, f"{state}/seals": False},
        **{"/tmp": False, "/var/lib/libvirt/images": False},
    }
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels == job["metadata"]["labels"]
    expected = {"name": "direct-download-operator", "component": "job", "instance": "release"}
    assert {key: labels[f"app.kubernetes.io/{key}"] for key in expected} == expected
    mounted = one(found, "Deployment")["spec"]["template"]["spec"]
    assert {
        "name": "job-template",
        "configMap": {"name": one(found, "ConfigMap", "job-template")["metadata"]["name"]},
    } in mounted["volumes"]
    assert "--job-template=/etc/directdownload/job.yaml" in mounted["containers"][0]["args"]


def test_a_probe_keeps_of_the_job_template_what_it_needs(namespace: str) -> None:
    (container,) = probe_of(documents("release", namespace))["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SETUID", "SETGID"]}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    trust, headers = "/var/lib/directdownload/trust", "/var/run/directdownload/headers"
    assert mounts == {trust: True, headers: True, "/tmp": False}


def test_a_proxy_is_for_downloads_only_and_its_password_in_no_manifest(namespace: str) -> None:
    found = documents("release", namespace, *MATRIX["a proxy"])
    address = {"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://[fd00::1]:3128", "NO_PROXY": ".x,10.0.0.0/8"}
    (container,) = job_of(found)["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert {name: given[name] for name in address} == address
    for kind in ("Deployment", "DaemonSet"):
        assert "PROXY" not in yaml.safe_dump(one(found, kind))
    found = documents("release", namespace, *MATRIX["a proxy with a password"])
    (container,) = job_of(found)["spec"]["template"]["spec"]["containers"]
    assert {"name": "HTTP_PROXY", "value": "http://other:3128/"} in container["env"]
    reference = {"secretKeyRef": {"name": "proxy", "key": "url"}}
    assert {"name": "HTTPS_PROXY", "valueFrom": reference} in container["env"]
    (container,) = job_of(documents("release", namespace))["spec"]["template"]["spec"]["containers"]
    assert not [each["name"] for each in container["env"] if "PROXY" in each["name"]]


@pytest.mark.parametrize("command", [controller.controller, agent.agent], ids=["controller", "agent"])
def test_the_programs_take_the_arguments_of_the_chart(
    command: click.Command, namespace: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed by the command itself, with the environment that the manifest gives it."""
    found = documents("release", namespace, *MATRIX["pool roots"], *MATRIX["logs"])
    kind = "Deployment" if command is controller.controller else "DaemonSet"
    (container,) = one(found, kind)["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], "value")
    (tmp_path / "job.yaml").write_text(one(found, "ConfigMap", "job-template")["data"]["job.yaml"])
    name, *arguments = (each.replace("/etc/directdownload", str(tmp_path)) for each in container["args"])
    assert name == command.name
    given = command.make_context(name, arguments).params
    assert given["pool_roots"] == ("/srv/pools", "/mnt/a b", "/data/.hidden")
    assert (given["log_format"], given["log_level"]) == ("text", "debug")
    assert {"name": "health", "containerPort": given["health_port"]} in container["ports"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    if kind == "Deployment":
        assert given["lease_name"] == "release-direct-download-operator-controller"


def test_a_changed_job_template_restarts_the_controller(namespace: str) -> None:
    def annotations(*arguments: str) -> Any:
        return one(documents("release", namespace, *arguments), "Deployment")["spec"]["template"]["metadata"][
            "annotations"
        ]

    assert annotations() == annotations()
    assert annotations() != annotations("--set", "job.resources.limits.memory=1Gi")
    assert annotations() == annotations("--set", "agent.maxUnavailable=3")


def pods_of(namespace: str, *arguments: str) -> dict[str, Object]:
    """Every pod of the product by what it is; those of Helm's hooks too."""
    found = documents("release", namespace, *arguments, hooks=True)
    (test,) = (each for each in found if each["kind"] == "Pod")
    templates = {
        "controller": one(found, "Deployment")["spec"]["template"],
        "definitions": one(found, "Job")["spec"]["template"],
        "test": test,
        "agent": one(found, "DaemonSet")["spec"]["template"],
        "job": job_of(found)["spec"]["template"],
        "job for NFS": job_of(found, **NFS)["spec"]["template"],
        "probe": probe_of(found)["spec"]["template"],
    }
    head = {"apiVersion": "v1", "kind": "Pod"}
    return {
        name: {**head, "metadata": {"name": name.lower().replace(" ", "-")}, "spec": each["spec"]}
        for name, each in templates.items()
    }


#: They need no host, so the strictest Pod Security standard admits them.
RESTRICTED = {"controller", "definitions", "test"}
DOCUMENTED = (REPOSITORY / "docs" / "install.md").read_text()


def judged(api: Kube, level: str, *arguments: str) -> dict[str, str]:
    """What the API server's own Pod Security says to each pod in a namespace of this level; empty: admitted."""
    namespace = new_namespace(api, enforce=level)
    answers = {}
    for component, pod in pods_of(namespace, *arguments).items():
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": pod["spec"]["serviceAccountName"]},
        }
        api.create(SERVICE_ACCOUNTS, account, namespace)
        answer = api.create(PODS, pod, namespace, dry=True)
        answers[component] = "" if answer.ok else answer.message.partition("violates PodSecurity ")[2]
    return answers


def test_security_contexts(api: Kube) -> None:
    """Controller and hooks are restricted; agents and downloads baseline but for host directories."""
    restricted, baseline, privileged = (judged(api, level) for level in ("restricted", "baseline", "privileged"))
    assert {component for component, refusal in restricted.items() if not refusal} == RESTRICTED
    assert {component for component, refusal in baseline.items() if not refusal} == RESTRICTED
    assert set(privileged.values()) == {""}
    for component in baseline.keys() - RESTRICTED:
        assert re.fullmatch(r'"baseline:latest": hostPath volumes \([^)]*\)', baseline[component]), component
        for words in re.findall(r"[a-zA-Z ]+(?= \(|$)", restricted[component].partition(": ")[2]):
            assert f"`{words.strip()}`" in DOCUMENTED, f"{component}: {words}"
    for component, pod in pods_of("default").items():
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, component
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, component
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], component
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, component
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys(), component


def test_downloads_on_the_network_of_the_hosts(api: Kube) -> None:
    """With NFS a capability takes the place of the sysctl, which the API server refuses there."""
    setting = ("--set", "job.hostNetwork=true")
    for component, refusal in judged(api, "baseline", *setting).items():
        assert ("host namespaces (hostNetwork=true)" in refusal) is (component in ("job", "job for NFS", "probe"))
        assert "capabilit" not in refusal, "baseline admits NET_BIND_SERVICE"
    pods = pods_of("default", *setting)
    for component in ("job", "job for NFS", "probe"):
        assert pods[component]["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
        assert "sysctls" not in pods[component]["spec"]["securityContext"]
    (container,) = pods["job for NFS"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"]["add"][-1] == "NET_BIND_SERVICE"
    assert "hostNetwork" not in pods["controller"]["spec"].keys() | pods["agent"]["spec"].keys()


# --- disruptions and the network


@pytest.mark.parametrize(("replicas", "expected"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_a_budget_only_where_it_keeps_something(replicas: int, expected: int) -> None:
    """With one replica it would have nothing to keep; a controller that is ill anyway holds no drain up."""
    found = documents("release", "default", "--set", f"controller.replicas={replicas}")
    budgets = [each for each in found if each["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == expected
    for budget in budgets:
        pods = one(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= pods.items()
        assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_a_spread_without_selector_is_of_the_controllers() -> None:
    deployment = one(documents("release", "default", *MATRIX["spread"]), "Deployment")["spec"]["template"]
    zones, racks = deployment["spec"]["topologySpreadConstraints"]
    assert zones["labelSelector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()
    assert racks["labelSelector"] == {"matchLabels": {"a": "b"}}


def policies(*arguments: str) -> dict[str, Object]:
    """The NetworkPolicies by component, each of which selects just the pods of it."""
    found = documents("release", "default", "--set", "networkPolicy.enabled=true", *arguments, hooks=True)
    labels = {
        "controller": one(found, "Deployment")["spec"]["template"]["metadata"]["labels"],
        "agent": one(found, "DaemonSet")["spec"]["template"]["metadata"]["labels"],
        "job": job_of(found)["spec"]["template"]["metadata"]["labels"],
        "crds": one(found, "Job")["spec"]["template"]["metadata"]["labels"],
        "test": next(each for each in found if each["kind"] == "Pod")["metadata"]["labels"],
    }
    made = [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]
    by_component = {
        component: [each for each in made if each["podSelector"]["matchLabels"].items() <= given.items()]
        for component, given in labels.items()
    }
    assert [len(matching) for matching in by_component.values()] == [1] * len(made)
    assert all(each["policyTypes"] == ["Ingress", "Egress"] for each in made)
    return {component: matching[0] for component, matching in by_component.items()}


def denied_by(blocks: dict[str, list[str]], address: str) -> list[str]:
    """The exceptions, by the block, that keep an address from being reached."""
    parsed = ipaddress.ip_address(address)
    return [each for exceptions in blocks.values() for each in exceptions if parsed in ipaddress.ip_network(each)]


def test_network_policies_let_no_more_through_than_is_needed() -> None:
    """What they say; that a plugin enforces them cannot be seen here."""
    assert not [each for each in documents("release", "default", hooks=True) if each["kind"] == "NetworkPolicy"]
    found = policies()
    ports = [[443, 6443], [53, 53]]
    for component in ("controller", "agent", "crds", "test"):
        assert [[port["port"] for port in rule["ports"]] for rule in found[component]["egress"]] == ports
    assert [component for component, policy in found.items() if "ingress" in policy] == ["test"]
    everywhere, dns = found["job"]["egress"]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in everywhere["to"] if "ipBlock" in peer}
    # What the source policy denies by itself, and no private range.
    made = denied_networks.networks()
    assert blocks == {"0.0.0.0/0": made["ipv4"], "::/0": made["ipv6"]}
    assert {str(network) for _, network in policy.DENIED} <= {*made["ipv4"], *made["ipv6"]}
    for source in ("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:1"):
        assert not denied_by(blocks, source), source
    for refused in ("169.254.1.1", "127.0.0.1", "fe80::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::"):
        assert denied_by(blocks, refused), refused
    assert {port["port"] for port in dns["ports"]} == {53}
    # What `helm test` serves is reached by downloads, and by nobody else.
    (rule,) = found["test"]["ingress"]
    assert rule["from"] == [{"podSelector": found["job"]["podSelector"]}]
    assert {"podSelector": found["test"]["podSelector"]} in everywhere["to"]


def test_network_policies_as_narrow_as_they_are_told() -> None:
    found = policies(*MATRIX["narrow network policies"])
    to_api, dns = found["controller"]["egress"]
    assert [peer["ipBlock"]["cidr"] for peer in to_api["to"]] == ["192.0.2.1/32", "fd00::1/128"]
    assert [port["port"] for port in to_api["ports"]] == [6443]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert dns["to"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "m"}}}
    for component in ("controller", "agent"):
        (rule,) = found[component]["ingress"]
        assert rule == {"ports": [{"protocol": "TCP", "port": "health"}], "from": [monitoring]}
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    assert found["job"]["egress"][0]["to"] == [block, {"podSelector": found["test"]["podSelector"]}]
    # Where metrics have a port of their own, it is that one.
    (rule,) = policies(*MATRIX["narrow network policies"], "--set", "metrics.authentication=true")["agent"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["metrics"]
    # Who leaves open where downloads go keeps them from the API server, where its addresses are given.
    addresses = [{"ipBlock": {"cidr": cidr}} for cidr in ("192.0.2.1/32", "198.51.100.0/24", "fd00::1/128")]
    given = [*addresses, {"podSelector": {}}]
    open_to = policies("--set-json", f"networkPolicy.apiServer.to={json.dumps(given)}")["job"]["egress"][0]["to"]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in open_to if "ipBlock" in peer}
    assert denied_by(blocks, "192.0.2.1") == ["192.0.2.1/32"]
    assert denied_by(blocks, "fd00::1") == ["fd00::1/128"]
    # In a wider range there may be servers of images.
    assert not denied_by(blocks, "198.51.100.1")
    # Downloads on the network of a host come from addresses that no selector knows.
    (rule,) = policies("--set", "job.hostNetwork=true")["test"]["ingress"]
    assert "from" not in rule


def test_labels_arrive_and_select_nothing() -> None:
    found = documents("release", "default", *MATRIX["labels"], hooks=True)
    assert [each for each in found if each["metadata"]["labels"].get("team") != "storage"] == []
    for kind, label in (("Deployment", "a"), ("DaemonSet", "c")):
        spec = one(found, kind)["spec"]
        assert label in spec["template"]["metadata"]["labels"]
        assert spec["selector"] == one(documents("release", "default"), kind)["spec"]["selector"]
    template = job_of(found)["spec"]["template"]["metadata"]
    assert (template["labels"]["e"], template["annotations"]["g"]) == ("f", "h")


def identities(found: list[Object]) -> set[tuple[str, str, str]]:
    return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in found}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "b"),
        ("direct-download-operator", "direct-download-operator-2"),
        ("x" * 52 + "a", "x" * 52 + "b"),
        ("1", "2"),
    ],
    ids=["short", "chart's name", "long", "digits"],
)
def test_two_releases_share_no_name(
    control_plane: harness.ControlPlane, namespace: str, first: str, second: str
) -> None:
    every = ("--set", "networkPolicy.enabled=true")
    one_release, other = (documents(release, namespace, *every, hooks=True) for release in (first, second))
    assert not identities(one_release) & identities(other)
    for found in (one_release, other):
        # Their names become label values.
        assert max(len(name) for kind, _, name in identities(found) if kind in ("Deployment", "DaemonSet")) <= 63
        tried(control_plane, found)


def test_install_upgrade_uninstall_of_two_releases(control_plane: harness.ControlPlane, tmp_path: pathlib.Path) -> None:
    """By Helm itself, which refuses to touch what another release owns; afterwards only the definitions are left."""
    releases = {unique("one"): unique("ns"), unique("two"): unique("ns")}
    access = ["--kubeconfig", str(control_plane.kubeconfig())]
    notes = ""
    for release, namespace in releases.items():
        where = ["--namespace", namespace, *access]
        # Without nodes no hook would ever end.
        notes = kube.helm("install", release, str(CHART), "--create-namespace", "--no-hooks", *where).stdout
    for release, namespace in releases.items():
        changes = ["--set", "controller.replicas=3", "--namespace", namespace, *access]
        kube.helm("upgrade", release, str(CHART), "--no-hooks", *changes)
    for release, namespace in releases.items():
        name = f"{release}-direct-download-operator-controller"
        shown = ["get", "deployment", name, "-n", namespace, "-o", "jsonpath={.spec.replicas}"]
        assert control_plane.kubectl(*shown, check=True).stdout == "3"
        kube.helm("uninstall", release, "--no-hooks", "--namespace", namespace, *access)
        kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
        left = control_plane.kubectl(
            "get", kinds, "-l", f"app.kubernetes.io/instance={release}", "-o", "name", check=True
        )
        assert left.stdout == ""
    # The command that the notes tell next does what it says.
    manifest = re.search(r"<<EOF\n(.*?)^EOF$", notes, re.DOTALL | re.MULTILINE)
    assert manifest is not None, notes
    control_plane.kubectl("apply", "--dry-run=server", "-f", "-", input=manifest[1], check=True)


def test_the_notes_tell_what_comes_next_and_what_the_values_mean() -> None:
    def notes(*settings: str) -> str:
        dry = ["--dry-run=client", "--namespace", "images", *(word for each in settings for word in ("--set", each))]
        return kube.helm("install", "mine", str(CHART), *dry).stdout.partition("NOTES:")[2]

    usual = notes()
    name = "mine-direct-download-operator"
    assert f"kubectl -n images rollout status deployment/{name}-controller" in usual
    assert "kubectl label namespace images pod-security.kubernetes.io/enforce=privileged" in usual
    assert "helm test mine --namespace images" in usual
    assert f"has the role {name}-system-templates" in usual
    assert "helm uninstall keeps files on hosts, keystores and all custom resources" in usual
    depending = {
        "crds.upgrade=false": "directdownload crds print | kubectl apply",
        "networkPolicy.enabled=true": "Network policies are on: nobody may read metrics",
        "job.hostNetwork=true": "NetworkPolicies do not apply to them",
    }
    assert [words for words in depending.values() if words in usual] == []
    told = notes(*depending, "rbac.createUserRoles=false")
    assert [words for words in depending.values() if words not in told] == []
    assert "has the role" not in told


def test_every_rule_of_rbac_has_its_reason() -> None:
    """A comment right above each rule, in the source of the templates."""
    given, without = 0, []
    for path in sorted((CHART / "templates").rglob("*.yaml")):
        lines = path.read_text().splitlines()
        rules = [number for number, line in enumerate(lines) if re.match(r"- (apiGroups|nonResourceURLs):", line)]
        given += len(rules)
        without += [
            f"{path.name}, line {number + 1}: {lines[number]}"
            for number in rules
            if not re.match(r"# \w.{15,}", lines[number - 1])
        ]
    settings = "headerSecrets.namespaces={images},metrics.authentication=true"
    rendered = documents("release", "default", "--set", settings, hooks=True)
    assert given == sum(len(each.get("rules", ())) for each in rendered if each["kind"] in ("ClusterRole", "Role"))
    assert given
    assert without == []


def test_no_rule_of_rbac_has_a_wildcard_and_none_of_the_cluster_secrets() -> None:
    for role in documents("release", "default", hooks=True):
        forbidden = {"*", "escalate", "bind", "impersonate", *(("secrets",) if role["kind"] == "ClusterRole" else ())}
        for rule in role.get("rules", ()) if role["kind"] in ("ClusterRole", "Role") else ():
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & forbidden, f"{role['metadata']['name']}: {rule}"


def test_secrets_are_read_in_the_own_namespace_and_those_that_are_listed_and_nowhere_else() -> None:
    found = documents("release", "operator", "--set", "headerSecrets.namespaces={images,team}", hooks=True)
    about_secrets = {
        (each["kind"], each["metadata"].get("namespace"), tuple(rule["verbs"]), "resourceNames" in rule)
        for each in found
        if each["kind"] in ("ClusterRole", "Role")
        for rule in each["rules"]
        if "secrets" in rule["resources"]
    }
    assert about_secrets == {
        ("Role", "images", ("get",), False),
        ("Role", "team", ("get",), False),
        ("Role", "operator", ("create", "delete"), False),
        ("Role", "operator", ("get", "list", "watch"), False),
    }
    for each in found:
        if each["kind"] == "RoleBinding" and each["metadata"]["namespace"] != "operator":
            (subject,) = each["subjects"]
            assert (subject["name"], subject["namespace"]) == (
                "release-direct-download-operator-controller",
                "operator",
            )


def test_every_value_has_a_comment() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r" *(\w+):", line)
        # A group, whose values follow, may do without.
        group = line.endswith(":") and re.match(r" +(#|\w+:)", lines[number + 1])
        if key is None or key[1] in ("requests", "limits") or (group and key[1] != "resources"):
            continue
        assert lines[number - 1].strip().startswith("# "), f"values.yaml, line {number + 1}: {line}"
