"""The chart's manifests, parts of them, and the Jobs that the controller makes of its template."""

import pathlib
import tempfile
from typing import Any

import yaml
from tests.cluster import harness
from tests.world import kube, samples
from tests.world.kube import Kube, Object, unique

from directdownload.cluster.kinds import HOSTS, NAMESPACES, TEMPLATE_PLACEMENTS, TEMPLATES, ZONES, Resource
from directdownload.controller import jobs as controller_jobs
from directdownload.planning import observed
from directdownload.resources import host, jobs, template, zone

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
    "volumes": ["--set", "csi.enabled=true,csi.kubeletDirectory=/data/kubelet,networkPolicy.enabled=true"],
    "peers": ["--set", "peers.enabled=true,peers.nodeCIDRs={10.0.0.0/8},networkPolicy.enabled=true"],
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
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)


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
NFS: dict[str, Any] = {"url": "nfs://nas/e/a", "policy": zone.SourcePolicy(nfs_exports=("nas:/e",))}


def job_of(found: list[Object], pool: str = "/var/lib/libvirt/images", **fields: Any) -> Object:
    """The Job that the controller makes of the chart's template, by the controller's own code."""
    spec = {**samples.FULL[TEMPLATE_PLACEMENTS], "path": f"{pool}/f"}
    metadata = {"name": "debian-0123456789", "uid": "u", "resourceVersion": "1", "generation": 1}
    placement = observed.Views().placement({"metadata": metadata, "spec": spec})
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
