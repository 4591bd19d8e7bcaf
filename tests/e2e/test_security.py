"""What a thief gets on a host: an agent's token from the kubelet's directory, the inside of a download's pod, a pool.

Of the other threats `tests/api/test_security.py` says where they are tested.
"""

import json
import pathlib
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, Cluster
from tests.world.evidence import HOSTS
from tests.world.kube import Kube, Object, resource
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.download.sandbox import confinement
from directdownload.download.store.record import Record
from directdownload.resources.naming import WORK_DIRECTORY

SERVICE_ACCOUNTS = kinds.Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
REVIEWS = kinds.Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
#: Run inside of a download's pod: which credentials it finds, and what the API server tells it without any.
_STEAL = """
import json, os, ssl, urllib.error, urllib.request
found = [p for p in ("/var/run/secrets/kubernetes.io", "/etc/cloudstack", "/etc/kubernetes") if os.path.exists(p)]
for folder, _, names in os.walk("/var/run"):
    found += [os.path.join(folder, name) for name in names]
answers = {}
server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
unverified = ssl._create_unverified_context()
for path in ("/api/v1/secrets", "/api/v1/namespaces", "/apis/directdownload.dev/v1alpha1/templateplacements"):
    try:
        answers[path] = urllib.request.urlopen(server + path, context=unverified, timeout=120).status
    except urllib.error.HTTPError as error:
        answers[path] = error.code
print(json.dumps({"found": found, "answers": answers, "environment": dict(os.environ)}))
"""


def steal_token(cluster: Cluster, host: str) -> str:
    """As root of the host does it: from where the kubelet keeps it for the agent's pod."""
    (pod,) = (pod for pod in evidence.pods(cluster, "agent") if pod["spec"]["nodeName"] == host)
    uid = pod["metadata"]["uid"]
    pattern = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/*/token"
    return cluster.node("exec", host, "sh", "-c", f"cat {pattern}").strip()


@pytest.fixture
def thief(local: Cluster, tmp_path: pathlib.Path) -> Iterator[Kube]:
    with local.bearer(steal_token(local, HOSTS[0]), tmp_path) as connection:
        yield connection


def test_a_stolen_token_of_an_agent_speaks_for_its_own_host_only(
    local: Cluster, server: origin.Origin, image: Image, thief: Kube
) -> None:
    local.apply(
        clusters.template("fenced", server.url(image.path.name), checksum=image.checksum), clusters.deployment("fenced")
    )
    local.converged("fenced", len(HOSTS))
    host, other_host = HOSTS[:2]
    placements = local.placements("fenced")
    mine, other = (placements[name]["metadata"]["name"] for name in (host, other_host))
    progress: Object = {"status": {"progress": {"percent": 100}}}
    version: Object = {"status": {"agentVersion": "0.1.0"}}
    for allowed in (
        thief.patch(kinds.HOSTS, host, version, subresource="status"),
        thief.patch(kinds.TEMPLATE_PLACEMENTS, mine, progress, subresource="status"),
    ):
        assert allowed.ok, allowed.message
    # The fence: the rights would allow these, the policy does not. Its words tell it from a refusal of RBAC.
    for fenced in (
        thief.patch(kinds.HOSTS, other_host, version, subresource="status"),
        thief.patch(kinds.TEMPLATE_PLACEMENTS, other, progress, subresource="status"),
        # Not even what says nothing, and not what is made to look like one's own by the same request.
        thief.patch(kinds.TEMPLATE_PLACEMENTS, other, {"status": {}}, subresource="status"),
        thief.patch(kinds.TEMPLATE_PLACEMENTS, other, {"spec": {"host": host}, **progress}, subresource="status"),
    ):
        assert (fenced.code, host in fenced.message, other_host in fenced.message) == (403, True, True), fenced
    refused = {
        "own spec": thief.patch(kinds.HOSTS, host, {"spec": {"allocationState": "Maintenance"}}),
        "a placement's host": thief.patch(kinds.TEMPLATE_PLACEMENTS, mine, {"spec": {"host": other_host}}),
        "delete": thief.delete(kinds.HOSTS, host),
        "delete a placement": thief.delete(kinds.TEMPLATE_PLACEMENTS, mine),
        "delete all": thief.request("DELETE", kinds.TEMPLATE_PLACEMENTS.path()),
        "create a host": thief.create(kinds.HOSTS, resource(kinds.HOSTS, "forged", {"nodeName": "forged"})),
        "create a placement": thief.create(kinds.TEMPLATE_PLACEMENTS, resource(kinds.TEMPLATE_PLACEMENTS, "f", {})),
        "list placements": thief.request("GET", kinds.TEMPLATE_PLACEMENTS.path()),
        "list templates": thief.request("GET", kinds.TEMPLATES.path()),
        "a job": thief.create(kinds.JOBS, {"metadata": {"name": "forged"}}, NAMESPACE),
        "a pod": thief.create(kinds.PODS, {"metadata": {"name": "forged"}}, NAMESPACE),
        "a namespace": thief.create(kinds.NAMESPACES, {"metadata": {"name": "forged"}}),
        "a secret": thief.create(kinds.SECRETS, {"metadata": {"name": "forged"}}, NAMESPACE),
        "secrets here": thief.request("GET", kinds.SECRETS.path(None, NAMESPACE)),
        "secrets everywhere": thief.request("GET", kinds.SECRETS.path()),
        "config maps": thief.request("GET", kinds.CONFIG_MAPS.path(None, NAMESPACE)),
        "the controller's lease": thief.request("GET", kinds.LEASES.path(None, NAMESPACE)),
        "its node": thief.patch(kinds.NODES, host, {"metadata": {"labels": {"stolen": "yes"}}}),
        "its node's status": thief.patch(kinds.NODES, host, {"status": {}}, subresource="status"),
        "a certificate": thief.create(kinds.CERTIFICATES, resource(kinds.CERTIFICATES, "forged", {})),
        **{
            f"a token of the {component}": thief.request(
                "POST", SERVICE_ACCOUNTS.path(f"{clusters.RELEASE}-{component}", NAMESPACE, "token"), {}
            )
            for component in ("controller", "agent")
        },
        **{
            f"into {pod['metadata']['name']}": thief.request(
                "POST", kinds.PODS.path(pod["metadata"]["name"], NAMESPACE, "exec"), query={"command": "python3"}
            )
            for pod in evidence.pods(local, "controller")
        },
    }
    assert {what: answer.code for what, answer in refused.items() if answer.code != 403} == {}
    for kind in ("users", "groups", "serviceaccounts"):
        attributes = {"verb": "impersonate", "resource": kind}
        asked = {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, "spec": {"resourceAttributes": attributes}}
        assert thief.request("POST", REVIEWS.path(), asked).object()["status"]["allowed"] is False
    assert local.reasons("fenced") == dict.fromkeys(HOSTS, ("Ready", "Downloaded"))


def test_a_stolen_token_of_an_agent_ends_with_its_pod(local: Cluster, thief: Kube) -> None:
    (pod,) = (pod for pod in evidence.pods(local, "agent") if pod["spec"]["nodeName"] == HOSTS[0])
    assert thief.request("GET", kinds.HOSTS.path(HOSTS[0])).ok
    local.delete("pod", pod["metadata"]["name"], namespace=NAMESPACE)
    until("the token to end", lambda: thief.request("GET", kinds.HOSTS.path(HOSTS[0])).code == 401)
    until(
        "the next agent",
        lambda: any(
            each["spec"].get("nodeName") == HOSTS[0] and evidence.is_ready(each)
            for each in evidence.pods(local, "agent")
        ),
        60,
    )


def test_the_pod_of_a_download_holds_nothing_worth_stealing(local: Cluster, slow_server: origin.Origin) -> None:
    image = Image(slow_server.directory, "held.raw", 48 << 20)
    local.apply(
        clusters.template("held", slow_server.url("held.raw"), checksum=image.checksum),
        clusters.deployment("held", hosts=[HOSTS[0]]),
    )
    pod = until("a download", lambda: evidence.running_pod(local, HOSTS[0]))
    until("it to run", lambda: evidence.downloaded(local, "held", HOSTS[0]) > 0)
    given = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"}
    assert evidence.confinement(local, pod) == evidence.Confinement(0, given)
    # The one that meets the foreign bytes has nothing of that.
    assert [confinement.NOBODY] * 4 + [0, 1] in evidence.processes(local, pod)
    stolen = json.loads(local.kubectl("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", _STEAL))
    assert stolen["found"] == []
    # Names are public to whoever is on the network; nothing behind them is, without a token.
    assert {path: code for path, code in stolen["answers"].items() if code not in (401, 403)} == {}
    words = ("TOKEN", "PASSWORD", "SECRET", "CREDENTIAL", "KUBECONFIG")
    assert [name for name in stolen["environment"] if any(word in name.upper() for word in words)] == []
    local.converged("held", 1)


def test_whoever_writes_a_pool_decides_nothing(local: Cluster, server: origin.Origin, image: Image) -> None:
    """Another file with a record of it, and a file of the host's own under the name of a part."""
    host = HOSTS[0]
    local.apply(clusters.template("pooled", server.url(image.path.name)), clusters.deployment("pooled", hosts=[host]))
    local.converged("pooled", 1)
    placement = local.placements("pooled")[host]
    name, before = placement["metadata"]["name"], placement["status"]["file"]
    published = local.file(host, placement["spec"]["path"])
    work = published.parent / WORK_DIRECTORY
    published.write_bytes(b"evil")
    path, digest = placement["spec"]["path"], f"sha256:{clusters.sha256(published)}"
    forged = Record.of(published.stat(), path=path, digest=digest, checksum="")
    owner = {"placement": name, "placement_uid": placement["metadata"]["uid"], "host": host, "format": "RAW"}
    (record,) = work.glob("*.record")
    forged.model_copy(update={**owner, "served_digest": before["digest"]}).write(str(record))
    local.kubectl("annotate", "templateplacement", name, "directdownload.dev/requested-at=now")
    until("the image again", lambda: published.read_bytes() == image.path.read_bytes())
    local.converged("pooled", 1)
    template = local.get("template", "pooled", "default")
    assert template["status"]["digest"] == before["digest"] == before["publishedDigest"]

    precious = published.parent / "precious.raw"
    precious.write_bytes(b"precious")
    precious.chmod(0o600)
    local.apply(clusters.template("linked", server.url(image.path.name), checksum=image.checksum))
    uid = local.get("template", "linked", "default")["metadata"]["uid"]
    (work / f"{uid}.{host}.part").hardlink_to(precious)
    state = precious.stat()
    local.apply(clusters.deployment("linked", hosts=[host]))
    local.converged("linked", 1)
    after = precious.stat()
    assert precious.read_bytes() == b"precious"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (state.st_mode, state.st_uid, state.st_mtime_ns)
    assert clusters.sha256(local.file(host, local.placements("linked")[host]["spec"]["path"])) == image.sha256
    precious.unlink()
