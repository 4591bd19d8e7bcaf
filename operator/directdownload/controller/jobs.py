"""The manifest of a download Job: the chart's template, filled in for this attempt."""

import copy
import hashlib
import pathlib
import posixpath
from collections.abc import Mapping
from typing import Any

import yaml

from directdownload.controller import world
from directdownload.hostfiles import mountinfo
from directdownload.planning import slots
from directdownload.planning.observed import PlacementView
from directdownload.planning.plans import Surroundings
from directdownload.resources import headers, jobs, naming, urls
from directdownload.resources.base import GROUP, REQUESTED_AT, VERSION
from directdownload.resources.host import Host
from directdownload.resources.naming import MOST_CONNECTIONS
from directdownload.resources.storagepool import PoolFile
from directdownload.resources.template import Template
from directdownload.resources.zone import DownloadLimits, Downloads, SourcePolicy, Timeouts, Zone

CONTAINER = "download"
_HEADERS_VOLUME, _IDENTITY_VOLUME = "origin-headers", "peer-identity"
#: Lets a process without capabilities bind a port below 1024. Kubernetes counts it as safe (since 1.22): it is the
#: pod's own.
_LOW_PORTS = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
#: The same for a pod without a network of its own: the API server refuses the sysctl there.
_LOW_PORTS_OF_HOST = "NET_BIND_SERVICE"
#: Needed to give up the other capabilities before foreign bytes come in.
_TO_BECOME_NOBODY = ("SETUID", "SETGID")
#: The chart's name for the volumes of `agent.poolRoots`: no other host path is left out of a Job.
_POOL_ROOT_VOLUME, _SEALS_VOLUME = "pool-root-", "seals"
#: The agent's directory of certificates that downloads trust; the chart mounts it.
TRUST_BUNDLE = "/var/lib/directdownload/trust/bundle.pem"
_SHORTEST_PROGRESS_SECONDS = 2.0
#: Added to the deadline, for scheduling and for pulling the image before the job itself starts to count.
_DEADLINE_GRACE_SECONDS = 600
#: From this size on a Seed may open further connections: they cost the source some MiB each, of one read per zone.
_FURTHER_CONNECTIONS_BYTES = 2 << 30
#: A few requests, each within the zone's timeouts.
_PROBE_DEADLINE_SECONDS = 120.0


def load_template(path: pathlib.Path) -> dict[str, Any]:
    """The chart's Job manifest; raises ValueError that names the file if it is none."""
    document = yaml.safe_load(path.read_text())
    try:
        containers = document["spec"]["template"]["spec"]["containers"]
        if document["kind"] != "Job" or CONTAINER not in [container["name"] for container in containers]:
            raise KeyError(CONTAINER)
    except (KeyError, TypeError):
        raise ValueError(f"{path}: expected a batch/v1 Job with a container named {CONTAINER}") from None
    return dict(document)


def document(
    placement: PlacementView,
    around: Surroundings,
    verb: jobs.Verb,
    active: int,
    peers: jobs.JobPeers | None = None,
) -> jobs.JobDocument:
    """The job's input. `active` downloads in the cluster pace its progress reports (architecture, rule 6).

    `peers`: how it shares the file with other hosts, if it does.
    """
    template, zone, pool = around.template, around.zone, around.pool
    pace = max(_SHORTEST_PROGRESS_SECONDS, active / 50)
    directory, file_name = posixpath.split(placement.path)
    published = placement.file if verb is jobs.Verb.VERIFY else None
    return jobs.JobDocument(
        verb=verb,
        placement=placement.key,
        placement_uid=placement.uid,
        template_uid=placement.template_uid,
        host=placement.host,
        pool=jobs.JobPool(
            name=placement.pool,
            path=directory,
            shared=around.shared,
            roots=around.pool_roots,
            reserve=pool.spec.reserve if pool is not None else "0",
            file=pool.spec.file if pool is not None else PoolFile(),
        ),
        file_name=file_name,
        url=template.spec.url if template is not None else "",
        mirrors=template.spec.mirrors if template is not None else (),
        checksum=(template.spec.checksum or "") if template is not None else "",
        expected_digest=(template.status.digest or "") if template is not None else "",
        published_digest=(published.published_digest or "") if published is not None else "",
        published_revision=(published.revision or "")
        if published is not None and not published.published_digest
        else "",
        remove_mentioned=placement.remove_mentioned and verb is jobs.Verb.REMOVE,
        format=template.spec.format if template is not None else "QCOW2",
        timeouts=zone.spec.timeouts if zone is not None else Timeouts(),
        limits=_limits(
            zone.spec.downloads if zone is not None else Downloads(),
            progress_interval_seconds=pace,
            connections=_connections(template, zone, peers),
        ),
        policy=zone.spec.source_policy if zone is not None else SourcePolicy(),
        trust_bundle=TRUST_BUNDLE,
        headers_directory=_headers_directory(template) if verb is jobs.Verb.FETCH and not _is_peer(peers) else "",
        peers=peers,
    )


def _is_peer(peers: jobs.JobPeers | None) -> bool:
    """Whether a job with this reads no source."""
    return peers is not None and peers.role is jobs.PeerRole.PEER


def probe_document(template: Template, zone: Zone, host: str) -> jobs.JobDocument:
    """The input of a probe, which has no pool."""
    deadline = min(zone.spec.downloads.deadline_seconds or _PROBE_DEADLINE_SECONDS, _PROBE_DEADLINE_SECONDS)
    return jobs.JobDocument(
        verb=jobs.Verb.PROBE,
        template_uid=template.uid,
        host=host,
        url=template.spec.url,
        mirrors=template.spec.mirrors,
        checksum=template.spec.checksum or "",
        format=template.spec.format,
        timeouts=zone.spec.timeouts,
        limits=_limits(zone.spec.downloads, deadline_seconds=deadline),
        policy=zone.spec.source_policy,
        trust_bundle=TRUST_BUNDLE,
        headers_directory=_headers_directory(template),
    )


def _headers_directory(template: Template | None) -> str:
    return headers.DIRECTORY if template is not None and template.spec.headers_secret_ref is not None else ""


def _connections(template: Template | None, zone: Zone | None, peers: jobs.JobPeers | None) -> int:
    """The lower one of both counts that are given; 0: automatic.

    A Seed of a small file has one: what the source sends on a connection whose rest another one takes over is lost.
    """
    counts = (
        template.spec.connections_per_source if template is not None else 0,
        zone.spec.downloads.connections_per_source if zone is not None else 0,
    )
    given = [min(count, MOST_CONNECTIONS) for count in counts if count]
    size = template.status.size_bytes if template is not None else None
    small = peers is not None and (size is None or size < _FURTHER_CONNECTIONS_BYTES)
    return min(given, default=1 if small else 0)


def _limits(downloads: Downloads, **differing: float) -> jobs.Limits:
    common = {name: getattr(downloads, name) for name in DownloadLimits.model_fields}
    share = downloads.bandwidth_per_host // max(downloads.max_parallel_per_host, 1)
    return jobs.Limits(bandwidth_bytes_per_second=share, **{**common, **differing})


def manifest(
    skeleton: Mapping[str, Any],
    namespace: str,
    placement: PlacementView,
    job_document: jobs.JobDocument,
    attempt: int,
    groups: tuple[slots.Group, ...],
    epoch: int = 0,
) -> dict[str, Any]:
    """The Job of one attempt, pinned to the placement's host and owned by the placement. `epoch`: of the latest Seed of
    the content that it shares."""
    labels = {
        world.PLACEMENT_LABEL: placement.key,
        f"{GROUP}/pool": naming.label_value(placement.pool),
        **_common_labels(placement.host, placement.zone, placement.template_key),
    }
    annotations = {
        world.PLACEMENT_UID_ANNOTATION: placement.uid,
        world.GROUPS_ANNOTATION: " ".join(group.name for group in groups),
        **({REQUESTED_AT: placement.requested_at} if placement.requested_at else {}),
        **_shared(job_document.peers, epoch),
    }
    body = _completed(skeleton, namespace, placement.key, job_document, attempt, labels, annotations)
    _mount_roots(body, posixpath.dirname(placement.path))
    if job_document.peers is not None:
        _mount_identity(body, job_document.peers.directory)
    body["metadata"]["ownerReferences"] = [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TemplatePlacement",
            "name": placement.key,
            "uid": placement.uid,
            "controller": True,
        }
    ]
    return body


def probe_manifest(
    skeleton: Mapping[str, Any],
    namespace: str,
    template: Template,
    host: Host,
    job_document: jobs.JobDocument,
    attempt: int,
    inputs: str,
) -> dict[str, Any]:
    """The Job of one probe. It has no owner: a Template in another namespace cannot be one. It gets no pool, nor the
    capabilities that pools need."""
    name = naming.probe_name(template.name, template.uid)
    labels = {world.PROBE_LABEL: name, **_common_labels(host.name, host.spec.zone, template.key)}
    annotations = {
        world.GROUPS_ANNOTATION: slots.PROBES.name,
        world.HOST_ANNOTATION: host.name,
        world.INPUTS_ANNOTATION: inputs,
        **({REQUESTED_AT: request} if (request := template.status.last_handled_request) else {}),
    }
    body = _completed(skeleton, namespace, name, job_document, attempt, labels, annotations)
    _mount_roots(body, None)
    _, container = _pod_and_container(body)
    capabilities = container.get("securityContext", {}).get("capabilities", {})
    kept = [name for name in capabilities.pop("add", ()) if name in (*_TO_BECOME_NOBODY, _LOW_PORTS_OF_HOST)]
    if kept:
        capabilities["add"] = kept
    return body


def _mount_roots(body: Mapping[str, Any], pool: str | None) -> None:
    """Keeps of the pool roots only the innermost one that contains the directory `pool`; None: none, and no seals.

    The root and not the pool: a mount of the pool's own path would follow a link that a writer of the root has put
    there, to anywhere on the host. Another root may be absent here, and would keep the pod from starting.
    """
    pod, container = _pod_and_container(body)
    volumes = pod.get("volumes", [])
    paths = {v["name"]: v.get("hostPath", {}).get("path", "") for v in volumes}
    roots = {name: path.rstrip("/") or "/" for name, path in paths.items() if name.startswith(_POOL_ROOT_VOLUME)}
    own = mountinfo.root_of(pool, roots.values()) if pool is not None else None
    dropped = {name for name, root in roots.items() if root != own}
    if pool is None:
        dropped.add(_SEALS_VOLUME)
    pod["volumes"] = [volume for volume in volumes if volume["name"] not in dropped]
    container["volumeMounts"] = [m for m in container.get("volumeMounts", []) if m["name"] not in dropped]


def _shared(peers: jobs.JobPeers | None, epoch: int) -> dict[str, str]:
    if peers is None:
        return {}
    return {
        world.ROLE_ANNOTATION: str(peers.role),
        world.CONTENT_ANNOTATION: peers.content,
        world.EPOCH_ANNOTATION: str(epoch),
    }


def _mount_identity(body: Mapping[str, Any], directory: str) -> None:
    """The certificate by which the job reads as its host, and can do nothing else."""
    pod, container = _pod_and_container(body)
    # Not made if it is absent: the agent makes it, with the right mode.
    volume = {"name": _IDENTITY_VOLUME, "hostPath": {"path": directory, "type": "Directory"}}
    mount = {"name": _IDENTITY_VOLUME, "mountPath": directory, "readOnly": True}
    pod["volumes"] = [*pod.get("volumes", ()), volume]
    container["volumeMounts"] = [*container.get("volumeMounts", ()), mount]


def headers_secret_name(job: str, owner_uid: str) -> str:
    """The name of the copy of the headers for the Job of this name.

    `owner_uid` makes it differ from that of an earlier owner of this name, which may still exist.
    """
    return f"{job}-{hashlib.sha256(owner_uid.encode()).hexdigest()[:6]}"


def _common_labels(host: str, zone: str, template_key: str) -> dict[str, str]:
    namespace, _, name = template_key.partition("/")
    return {
        world.MANAGED_BY_LABEL: world.PRODUCT,
        world.COMPONENT_LABEL: "job",
        f"{GROUP}/host": naming.label_value(host),
        f"{GROUP}/zone": naming.label_value(zone),
        f"{GROUP}/template": naming.label_value(name),
        f"{GROUP}/template-namespace": namespace,
    }


def _pod_and_container(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = body["spec"]["template"]["spec"]
    return pod, next(container for container in pod["containers"] if container["name"] == CONTAINER)


def _completed(
    skeleton: Mapping[str, Any],
    namespace: str,
    owner: str,
    job_document: jobs.JobDocument,
    attempt: int,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """The parts of every Job: name, labels on itself and its pod, the host that it is pinned to, its verb and input."""
    body: dict[str, Any] = copy.deepcopy(dict(skeleton))
    metadata = body.setdefault("metadata", {})
    metadata["name"] = naming.job_name(owner, job_document.verb, attempt)
    metadata["namespace"] = namespace
    metadata["labels"] = metadata.get("labels", {}) | labels
    metadata["annotations"] = metadata.get("annotations", {}) | {
        world.VERB_ANNOTATION: str(job_document.verb),
        world.ATTEMPT_ANNOTATION: str(attempt),
        **annotations,
    }
    if job_document.limits.deadline_seconds:
        # The job ends itself at its deadline. This is for one that cannot, because a file system does not answer.
        body["spec"]["activeDeadlineSeconds"] = int(job_document.limits.deadline_seconds) + _DEADLINE_GRACE_SECONDS
    pod_metadata = body["spec"]["template"].setdefault("metadata", {})
    pod_metadata["labels"] = pod_metadata.get("labels", {}) | labels
    # By name and not by nodeName: the scheduler then keeps count of resources. The controller alone decides whether
    # a host may start work, so the template tolerates everything.
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [job_document.host]}]}
    pod, container = _pod_and_container(body)
    pod["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    }
    container["args"] = ["job", str(job_document.verb)]
    container["env"] = [
        *container.get("env", ()),
        {"name": jobs.JOB_ENVIRONMENT_VARIABLE, "value": job_document.model_dump_json(exclude_defaults=True)},
    ]
    if job_document.headers_directory:
        secret = headers_secret_name(metadata["name"], job_document.placement_uid or job_document.template_uid)
        metadata["annotations"][world.HEADERS_ANNOTATION] = secret
        pod["volumes"] = [
            *pod.get("volumes", ()),
            {"name": _HEADERS_VOLUME, "secret": {"secretName": secret, "defaultMode": 0o400}},
        ]
        container["volumeMounts"] = [
            *container.get("volumeMounts", ()),
            {"name": _HEADERS_VOLUME, "mountPath": job_document.headers_directory, "readOnly": True},
        ]
    if _may_use_nfs(job_document):
        _allow_low_ports(pod, container)
    return body


def _allow_low_ports(pod: dict[str, Any], container: dict[str, Any]) -> None:
    if pod.get("hostNetwork"):
        capabilities = container.setdefault("securityContext", {}).setdefault("capabilities", {})
        capabilities["add"] = [*capabilities.get("add", ()), _LOW_PORTS_OF_HOST]
    else:
        context = pod.setdefault("securityContext", {})
        context["sysctls"] = [*(s for s in context.get("sysctls", ()) if s["name"] != _LOW_PORTS["name"]), _LOW_PORTS]


def _may_use_nfs(job_document: jobs.JobDocument) -> bool:
    """Whether it may talk to an NFS server: many accept requests only from ports below 1024.

    A metalink may name one. Not all Jobs: a cluster whose policies forbid the sysctl need not change them for http.
    """
    policy = job_document.policy
    allowed = "NFS" in policy.protocols and policy.nfs_exports != () and not _is_peer(job_document.peers)
    if not allowed or job_document.verb not in (jobs.Verb.FETCH, jobs.Verb.PROBE):
        return False
    return any(map(_may_lead_to_nfs, (job_document.url, *job_document.mirrors)))


def _may_lead_to_nfs(url: str) -> bool:
    try:
        found = urls.Url.parse(url)
    except urls.URLError:
        # The job refuses it, and reports why.
        return False
    return found.scheme == "nfs" or found.is_metalink
