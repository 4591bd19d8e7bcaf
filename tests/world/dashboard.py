"""Objects of a fleet as the API serves them, for tests of the dashboard: small, complete, and as many as one likes."""

import uuid
from typing import Any

from tests.world.kube import Object

from directdownload.cluster import kinds
from directdownload.resources import naming
from directdownload.resources.base import GROUP

RACK = "example.org/rack"
TIME = "2026-01-31T12:00:00Z"
SIZE_BYTES = 512 * 2**20
NAMESPACE, TEMPLATE, ZONE, POOL = "images", "debian-13", "zone-1", "local"
FINGERPRINT = "AA:BB"


def _uid(*words: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "/".join(words)))


def whole(
    kind: kinds.Resource, name: str, spec: Object, status: Object | None = None, namespace: str = "", **metadata: Any
) -> Object:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            **({"namespace": namespace} if namespace else {}),
            "uid": _uid(kind.plural, namespace, name),
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": TIME,
            **metadata,
        },
        "spec": spec,
        **({"status": status} if status is not None else {}),
    }


def condition(kind: str, status: str, reason: str, message: str = "words") -> Object:
    return {
        **{"type": kind, "status": status, "reason": reason, "message": message},
        **{"lastTransitionTime": TIME, "observedGeneration": 1},
    }


def zone(name: str = ZONE, hosts: int = 3) -> Object:
    status = {"hosts": {"total": hosts, "up": hosts}, "conditions": [condition("Ready", "True", "Ready")]}
    return whole(kinds.ZONES, name, {"nodeSelector": {"matchLabels": {"zone": name}}}, status)


def host(number: int, state: str = "Up", *, used: int = 40, proofs: list[Object] | None = None, **more: Any) -> Object:
    name = host_name(number)
    capacity = 10**12
    told: Object = {
        "state": state,
        "agentVersion": "0.2.0",
        "architecture": "x86_64",
        "conditions": [
            condition("Ready", "True" if state == "Up" else "False", "Up" if state == "Up" else "NodeNotReady"),
            condition("KeystoreSynced", "True", "KeystoreSynced"),
        ],
        "keystore": {
            **{"type": "JKS", "entries": 3, "managed": 1, "sha256": f"{number:064x}"},
            "lastVerifiedTime": TIME,
        },
        "certificates": proofs if proofs is not None else [proof()],
        "storage": [
            {
                **{"pool": POOL, "path": "/var/lib/libvirt/images", "capacityBytes": capacity},
                **{"availableBytes": capacity * (100 - used) // 100, "writable": True, "unplacedBytes": 0},
            }
        ],
        **more,
    }
    labels = {RACK: f"rack-{number % 10:02}", "kubernetes.io/hostname": name}
    return whole(kinds.HOSTS, name, {"nodeName": name, "zone": ZONE}, told, labels=labels)


def host_name(number: int) -> str:
    return f"kvm-{number:05}"


def proof(state: str = "Uploaded", name: str = "my-ca", **more: str) -> Object:
    told = {"fingerprintSHA256": FINGERPRINT} if state == "Uploaded" else {}
    return {"name": name, "state": state, **told, **more}


def pool(name: str = POOL) -> Object:
    status = {
        **{"capacityBytes": 3 * 10**12, "availableBytes": 18 * 10**11, "hosts": {"total": 3, "ready": 3}},
        "conditions": [condition("Ready", "True", "Ready")],
    }
    spec = {"zone": ZONE, "type": "Filesystem", "path": "/var/lib/libvirt/images"}
    return whole(kinds.STORAGE_POOLS, name, spec, status)


def template(name: str = TEMPLATE, namespace: str = NAMESPACE, **spec: Any) -> Object:
    told = {
        **{"sizeBytes": SIZE_BYTES, "size": "512.0 MiB", "placements": {"total": 3, "ready": 3}},
        "conditions": [condition("Ready", "True", "Registered")],
    }
    wanted = {"url": "https://images.example.org/debian-13.qcow2", "format": "QCOW2", **spec}
    return whole(kinds.TEMPLATES, name, wanted, told, namespace)


def deployment(
    name: str = "everywhere",
    namespace: str = NAMESPACE,
    *,
    of: str = TEMPLATE,
    desired: int = 3,
    ready: int = 0,
    reason: str = "Downloading",
    status: Object | None = None,
    **spec: Any,
) -> Object:
    done = ready == desired
    counts = {"desired": desired, "ready": ready, "downloading": 0, "pending": desired - ready, "failed": 0}
    told = {
        "observedGeneration": 1,
        "placements": counts,
        "bytes": {"total": SIZE_BYTES * desired, "downloaded": SIZE_BYTES * ready},
        "conditions": [condition("Ready", "True" if done else "False", "Converged" if done else reason)],
        **(status or {}),
    }
    wanted = {"templateRef": {"name": of}, "zone": ZONE, **spec}
    return whole(kinds.TEMPLATE_DEPLOYMENTS, name, wanted, told, namespace)


def copy(
    number: int,
    phase: str = "Ready",
    *,
    of: str = TEMPLATE,
    namespace: str = NAMESPACE,
    percent: int = 50,
    reason: str = "",
    message: str = "words",
    **status: Any,
) -> Object:
    """A placement of the template on host `number`."""
    uid, on = _uid(kinds.TEMPLATES.plural, namespace, of), host_name(number)
    name = naming.placement_name(of, uid, POOL, on)
    path = f"/var/lib/libvirt/images/{uid}"
    words = {"Ready": "Downloaded", "Downloading": "Downloading", "Pending": "WaitingForSlot"}
    ready = condition(
        "Ready", "True" if phase == "Ready" else "False", reason or words.get(phase, "ChecksumMismatch"), message
    )
    told: Object = {"observedGeneration": 1, "phase": phase, "attempts": 1, "conditions": [ready], **status}
    if phase == "Ready":
        digest = "sha256:" + "0123456789abcdef" * 4
        told["file"] = {
            **{"path": path, "sizeBytes": SIZE_BYTES, "digest": digest, "format": "QCOW2"},
            **{"verifiedTime": TIME, "revision": f"{number:012x}"},
        }
    if phase == "Downloading":
        told["progress"] = {
            **{"bytesDownloaded": SIZE_BYTES * percent // 100, "bytesTotal": SIZE_BYTES},
            **{"bytesPerSecond": 2**20, "percent": percent},
        }
    spec = {"templateRef": {"namespace": namespace, "name": of, "uid": uid}, "zone": ZONE, "pool": POOL}
    labels = {
        f"{GROUP}/template": naming.label_value(of),
        f"{GROUP}/template-namespace": naming.label_value(namespace),
        f"{GROUP}/deployment-namespace": namespace,
    }
    return whole(kinds.TEMPLATE_PLACEMENTS, name, {**spec, "host": on, "path": path}, told, labels=labels)


def certificate(name: str = "my-ca", *, hosts: int = 3, proved: int | None = None, **spec: Any) -> Object:
    uploaded = hosts if proved is None else proved
    told = {
        **{"observedGeneration": 1, "subject": "CN=my-ca", "issuer": "CN=my-ca", "fingerprintSHA256": FINGERPRINT},
        **{"notBefore": TIME, "notAfter": "2100-01-31T12:00:00Z"},
        "hosts": {
            **{"desired": hosts, "uploaded": uploaded, "revoked": 0, "failed": 0},
            **{"pending": hosts - uploaded, "down": 0},
        },
        "conditions": [
            condition("Ready", "True", "Provisioned")
            if uploaded == hosts
            else condition("Ready", "False", "Provisioning")
        ],
    }
    reference = {"certificateRef": {"kind": "Secret", "name": name, "key": "ca.crt"}}
    return whole(kinds.CERTIFICATES, name, {"zone": ZONE, "alias": name, **reference, **spec}, told)
