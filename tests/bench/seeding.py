"""A fleet of thousands of hosts in seconds: one host is made by the real parts, the others are its copies.

A real controller and a simulated agent (`tests/world/simulation.py`) write the first host's Host and placements; its
Node and Pod are as from a kubelet. etcd's content is then copied under other names, uids and times, by etcd's own API:
through the API server this would take a quarter of an hour. All names have the same length, so that the API server's
encoding of objects does not matter.
"""

import base64
import datetime
import functools
import hashlib
import http.client
import json
import math
import random
import re
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from tests.world.certificates import pem
from tests.world.kube import Kube, Object
from tests.world.machines import Machine
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import naming

POOL_PATH = "/var/lib/libvirt/images"
#: So long that no copy becomes due for verification during a measurement; see also `_undue_uid`.
VERIFY_INTERVAL = 8760 * 3600
RACKS = 10
_RACK_LABEL = "example.org/rack"
_QUIET_SECONDS = 4 * 3600
_SPREAD_SECONDS = 3000
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
#: etcd accepts 1.5 MB in one request and 128 operations in one transaction.
_BATCH_BYTES, _BATCH_OPERATIONS = 1_000_000, 100


def host_name(number: int) -> str:
    return f"kvm-{number:05}"


def rack(number: int) -> str:
    return f"rack-{number % RACKS:02}"


class Etcd:
    """Its JSON gateway."""

    def __init__(self, url: str) -> None:
        address = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, key: str) -> bytes:
        (found,) = self._call("range", {"key": _base64(key.encode())})["kvs"]
        return base64.b64decode(found["value"])

    def put(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        batch: list[Object] = []
        size = 0
        for key, value in pairs:
            if batch and (len(batch) >= _BATCH_OPERATIONS or size + len(value) > _BATCH_BYTES):
                self._call("txn", {"success": batch})
                batch, size = [], 0
            batch.append({"requestPut": {"key": _base64(key.encode()), "value": _base64(value)}})
            size += len(value)
        if batch:
            self._call("txn", {"success": batch})

    def _call(self, method: str, body: Object) -> Object:
        self._connection.request("POST", f"/v3/kv/{method}", json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer: Object = json.loads(response.read())
        assert response.status == 200, answer
        return answer


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def wish(world: Simulation, templates: int, certificates: int) -> None:
    """Create the users' objects: a zone with a pool, templates for all hosts, certificates."""
    # One server, one namespace.
    shares = {"maxParallelPerSource": 0, "maxParallelPerNamespace": 0}
    world.create_zone(downloads={"maxParallel": 200, "maxParallelPerHost": 2, **shares})
    with world.kube() as kube:
        kube.patch(kinds.STORAGE_POOLS, world.pool, {"spec": {"verifyInterval": f"{VERIFY_INTERVAL}s"}}).object()
    for number in range(templates):
        world.create_template(f"template-{number}", url=f"http://images.example.org/{number}.qcow2")
        world.deploy(f"everywhere-{number}", f"template-{number}")
    for number in range(certificates):
        name = f"ca-{number:03}"
        # A typical length of an organisation's name.
        world.create_certificate(f"{name}.certificates.example.org", pem(name), alias=name)


def first_host(world: Simulation, agent: Mapping[str, Any]) -> None:
    """Create Node and agent Pod (`agent` is the template in the chart's DaemonSet), as large as from a kubelet."""
    name = host_name(0)
    world.kubelets.machines[name] = Machine(name)
    with world.kube() as kube:
        kube.create(kinds.NODES, {"metadata": {"name": name, **_node_metadata(world, name)}}).object()
        kube.patch(kinds.NODES, name, {"status": _node_status(name)}, subresource="status").object()
        spec = {**agent["spec"], "nodeName": name}
        metadata = {**agent["metadata"], "name": f"agent-{name}"}
        kube.create(kinds.PODS, {"metadata": metadata, "spec": spec}, world.namespace).object()
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": _now()}
        status = {"phase": "Running", "conditions": [ready], "podIP": "10.0.0.1"}
        kube.patch(kinds.PODS, metadata["name"], {"status": status}, world.namespace, subresource="status").object()


def _node_metadata(world: Simulation, name: str) -> Object:
    labels = {
        "simulated-zone": world.zone,
        _RACK_LABEL: rack(0),
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": "kvm.large",
        "topology.kubernetes.io/region": "region-1",
        "topology.kubernetes.io/zone": "zone-1",
    }
    return {"labels": labels, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}


def _condition(name: str, status: str) -> Object:
    times = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
    return {"type": name, "status": status, "reason": "Simulated", "message": "the kubelet says so", **times}


def node_conditions() -> list[Object]:
    pressures = ("MemoryPressure", "DiskPressure", "PIDPressure")
    return [*(_condition(name, "False") for name in pressures), _condition("Ready", "True")]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _node_status(name: str) -> Object:
    amounts = {"cpu": "64", "memory": "528280588Ki", "pods": "110", "ephemeral-storage": "460402916Ki"}
    digest = "sha256:" + "0123456789abcdef" * 4
    # A kubelet reports the fifty largest.
    images = [
        {
            "names": [
                f"registry.example.org/team-{number}/service-{number}@{digest}",
                f"registry.example.org/team-{number}/service-{number}:v1.{number}.0",
            ],
            "sizeBytes": 100_000_000 - number,
        }
        for number in range(50)
    ]
    information = {
        "architecture": "amd64",
        "bootID": str(uuid.uuid4()),
        "containerRuntimeVersion": "containerd://2.1.4",
        "kernelVersion": "6.12.48-amd64",
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.35.0",
        "machineID": uuid.uuid4().hex,
        "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 13 (trixie)",
        "systemUUID": str(uuid.uuid4()),
    }
    return {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": node_conditions(),
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": information,
        "images": images,
    }


def settled(world: Simulation, templates: int, certificates: int) -> None:
    """Wait until the first host is complete, and all statuses report it."""

    def complete() -> bool:
        if world.gone(kinds.HOSTS, host_name(0)):
            return False
        placements = [each.get("status", {}) for each in world.placements()]
        told = [each for each in placements if each.get("phase") == "Ready" and "observed" in each]
        status = world.get(kinds.HOSTS, host_name(0)).get("status", {})
        uploaded = [each for each in status.get("certificates", ()) if each["state"] == "Uploaded"]
        return len(told) == templates and len(uploaded) == certificates and not world.jobs()

    until("the first host", complete, 180)


def multiply(world: Simulation, hosts: int) -> None:
    """Copy the first host until there are `hosts`."""
    first = host_name(0)
    with Etcd(world.control_plane.etcd_url) as etcd, world.kube() as kube:
        originals = list(_originals(kube, world, first))
        node_uid = originals[0][1]["metadata"]["uid"]
        for key, document in originals:
            value = etcd.get(key)
            etcd.put(_copies(key, value, document, hosts, node_uid))
        for kind in (kinds.NODES, kinds.PODS, kinds.HOSTS, kinds.TEMPLATE_PLACEMENTS):
            until(f"the API server to have all {kind.plural}", functools.partial(_has, kube, kind, hosts), 600)


def _originals(kube: Kube, world: Simulation, first: str) -> Iterator[tuple[str, Object]]:
    yield f"/registry/minions/{first}", kube.get(kinds.NODES, first).object()
    pod = f"agent-{first}"
    yield f"/registry/pods/{world.namespace}/{pod}", kube.get(kinds.PODS, pod, world.namespace).object()
    for kind in (kinds.HOSTS, kinds.TEMPLATE_PLACEMENTS):
        for document in kube.request("GET", kind.path()).object()["items"]:
            yield (
                f"/registry/{kind.group}/{kind.plural}/{document['metadata']['name']}",
                {"kind": kind.kind, **document},
            )


def _has(kube: Kube, kind: kinds.Resource, count: int) -> bool:
    """Whether a list has all copies. Until the API server's cache has them it refuses lists, or is slow."""
    answer = kube.request("GET", kind.path(), query={"limit": "1"})
    return answer.ok and 1 + int(answer.body["metadata"].get("remainingItemCount", 0)) >= count


def _copies(key: str, value: bytes, document: Object, hosts: int, node_uid: str) -> Iterator[tuple[str, bytes]]:
    metadata, first = document["metadata"], host_name(0)
    custom = document.get("apiVersion", "").startswith(kinds.HOSTS.group)
    name = metadata["name"]
    sha256 = document.get("status", {}).get("keystore", {}).get("sha256", "")
    for number in range(1, hosts):
        chance = random.Random(number)
        host = host_name(number)
        shift = datetime.timedelta(seconds=chance.randrange(_SPREAD_SECONDS))
        changes = {first: host, metadata["uid"]: str(uuid.uuid4()), node_uid: _node_uid(number), rack(0): rack(number)}
        copy = name.replace(first, host)
        if document["kind"] == kinds.TEMPLATE_PLACEMENTS.kind:
            reference, pool = document["spec"]["templateRef"], document["spec"]["pool"]
            copy = naming.placement_name(reference["name"], reference["uid"], pool, host)
            changes |= {name: copy, metadata["uid"]: _undue_uid()}
        if sha256:
            changes[sha256] = f"{chance.getrandbits(256):064x}"
        text = value
        for old, new in changes.items():
            assert len(old) == len(new), (old, new)
            text = text.replace(old.encode(), new.encode())
        yield key.replace(name, copy), _TIME.sub(functools.partial(_earlier, shift), text) if custom else text


def _node_uid(number: int) -> str:
    """The uid of a Node's copy. A Host names its Node's uid, so both copies must use the same one."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, host_name(number)))


def _earlier(shift: datetime.timedelta, found: re.Match[bytes]) -> bytes:
    moment = datetime.datetime.fromisoformat(found[0].decode()) - shift
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def _undue_uid() -> str:
    """The uid of a copy that is not due for verification in the next hours (`planning/repair.py`)."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    while True:
        uid = str(uuid.uuid4())
        fraction = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big") / 2**32
        next_due = (math.floor(fraction * VERIFY_INTERVAL) - now + 2 * _SPREAD_SECONDS) % VERIFY_INTERVAL
        if next_due > _QUIET_SECONDS:
            return uid
