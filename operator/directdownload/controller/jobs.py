"""The manifest of a download Job: the chart's template with what this attempt needs filled in."""

import copy
import pathlib
import posixpath
from collections.abc import Mapping
from typing import Any

import yaml

from directdownload.controller import world
from directdownload.planning import slots
from directdownload.planning.observed import PlacementView
from directdownload.planning.plans import Surroundings
from directdownload.resources import jobs, naming
from directdownload.resources.base import GROUP, VERSION
from directdownload.resources.storagepool import PoolFile
from directdownload.resources.zone import Downloads, SourcePolicy, ZoneTimeouts

CONTAINER = "download"
#: Where the agent keeps the certificates that downloads trust; the chart mounts the directory.
TRUST_BUNDLE = "/var/lib/directdownload/trust/bundle.pem"
_SHORTEST_PROGRESS_SECONDS = 2.0
#: Beyond the deadline, and for scheduling and pulling the image before it begins to count in the job itself.
_DEADLINE_GRACE_SECONDS = 600


def load_template(path: pathlib.Path) -> dict[str, Any]:
    """The chart's Job manifest; raises ValueError that names the file when it is none."""
    document = yaml.safe_load(path.read_text())
    try:
        containers = document["spec"]["template"]["spec"]["containers"]
        if document["kind"] != "Job" or CONTAINER not in [container["name"] for container in containers]:
            raise KeyError(CONTAINER)
    except (KeyError, TypeError):
        raise ValueError(f"{path}: expected a batch/v1 Job with a container named {CONTAINER}") from None
    return dict(document)


def document(placement: PlacementView, around: Surroundings, verb: jobs.Verb, active: int) -> jobs.JobDocument:
    """The job's input. `active` downloads in the cluster pace its progress reports (architecture, rule 6)."""
    template, pool = around.template, around.pool
    downloads = around.zone.spec.downloads if around.zone is not None else Downloads()
    timeouts = around.zone.spec.timeouts if around.zone is not None else ZoneTimeouts()
    policy = around.zone.spec.source_policy if around.zone is not None else SourcePolicy()
    directory, file_name = posixpath.split(placement.path)
    owner = pool.spec.file if pool is not None else PoolFile()
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
            file=jobs.FileMode(uid=owner.uid, gid=owner.gid, mode=owner.mode),
        ),
        file_name=file_name,
        url=template.spec.url if template is not None else "",
        mirrors=template.spec.mirrors if template is not None else (),
        checksum=(template.spec.checksum or "") if template is not None else "",
        expected_digest=(template.status.digest or "") if template is not None else "",
        format=template.spec.format if template is not None else "QCOW2",
        timeouts=jobs.Timeouts(
            connect_seconds=timeouts.connect,
            socket_seconds=timeouts.socket,
            connection_request_seconds=timeouts.connection_request,
        ),
        limits=jobs.Limits(
            bandwidth_bytes_per_second=downloads.bandwidth_per_host // max(downloads.max_parallel_per_host, 1),
            deadline_seconds=downloads.deadline,
            max_size_bytes=downloads.max_size,
            max_virtual_size_bytes=downloads.max_virtual_size,
            progress_interval_seconds=max(_SHORTEST_PROGRESS_SECONDS, active / 50),
        ),
        policy=jobs.Policy(
            protocols=policy.protocols,
            allowed_hosts=policy.allowed_hosts,
            allowed_cidrs=policy.allowed_cidrs,
            max_redirects=policy.max_redirects,
            require_checksum=policy.require_checksum,
            require_direct=policy.require_direct,
            minimum_checksum=policy.minimum_checksum,
        ),
        trust_bundle=TRUST_BUNDLE,
    )


def manifest(
    skeleton: Mapping[str, Any],
    namespace: str,
    placement: PlacementView,
    job_document: jobs.JobDocument,
    attempt: int,
    groups: tuple[slots.Group, ...],
) -> dict[str, Any]:
    """The Job of one attempt, pinned to the placement's host and owned by the placement."""
    body: dict[str, Any] = copy.deepcopy(dict(skeleton))
    labels = {
        world.MANAGED_BY_LABEL: world.PRODUCT,
        world.COMPONENT_LABEL: "job",
        world.PLACEMENT_LABEL: placement.key,
        f"{GROUP}/host": naming.label_value(placement.host),
        f"{GROUP}/zone": naming.label_value(placement.zone),
        f"{GROUP}/pool": naming.label_value(placement.pool),
        f"{GROUP}/template": naming.label_value(placement.template_key.partition("/")[2]),
        f"{GROUP}/template-namespace": placement.template_key.partition("/")[0],
    }
    metadata = body.setdefault("metadata", {})
    metadata["name"] = naming.job_name(placement.key, job_document.verb, attempt)
    metadata["namespace"] = namespace
    metadata["labels"] = metadata.get("labels", {}) | labels
    metadata["annotations"] = metadata.get("annotations", {}) | {
        world.VERB_ANNOTATION: str(job_document.verb),
        world.ATTEMPT_ANNOTATION: str(attempt),
        world.PLACEMENT_UID_ANNOTATION: placement.uid,
        world.GROUPS_ANNOTATION: " ".join(group.name for group in groups),
    }
    metadata["ownerReferences"] = [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TemplatePlacement",
            "name": placement.key,
            "uid": placement.uid,
            "controller": True,
        }
    ]
    if job_document.limits.deadline_seconds:
        # The job ends itself at its deadline. This is for one that cannot, because a file system does not answer.
        body["spec"]["activeDeadlineSeconds"] = int(job_document.limits.deadline_seconds) + _DEADLINE_GRACE_SECONDS
    pod = body["spec"]["template"]
    pod_metadata = pod.setdefault("metadata", {})
    pod_metadata["labels"] = pod_metadata.get("labels", {}) | labels
    # By name and not by nodeName: the scheduler then keeps count of resources. The controller alone decides whether
    # a host may start work, so the template tolerates everything.
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [placement.host]}]}
    pod["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    }
    container = next(container for container in pod["spec"]["containers"] if container["name"] == CONTAINER)
    container["args"] = ["job", str(job_document.verb)]
    container["env"] = [
        *container.get("env", ()),
        {"name": jobs.JOB_ENVIRONMENT_VARIABLE, "value": job_document.model_dump_json(exclude_defaults=True)},
    ]
    return body
