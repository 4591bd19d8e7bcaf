"""Header Secrets of Templates: read in the tenant's namespace, and copied for one Job at a time.

Called by the reconcilers of templates, placements and probes. A value is held only from the reading of a Secret to the
writing of its copy, and is in no log, event, status or argument. The copy is in the operator's namespace and belongs to
its Job: it is deleted with it. It is created after the Job, whose pod waits for it: the next look at a Job that has not
started repairs whatever happens between the two. A pod takes any Secret of the right name: so an existing one is
deleted before the Job is created, and only a copy that belongs to the Job itself counts.
"""

import datetime
import logging
from collections.abc import Mapping
from typing import Any

from directdownload.cluster import client, errors, kinds
from directdownload.cluster.objects import JobView
from directdownload.controller import world
from directdownload.controller.context import Context
from directdownload.planning import header_secrets
from directdownload.planning.conditions import Verdict
from directdownload.resources import headers
from directdownload.resources.template import Template

logger = logging.getLogger(__name__)


_LABELS = (world.MANAGED_BY_LABEL, world.COMPONENT_LABEL, world.PLACEMENT_LABEL, world.PROBE_LABEL)


async def read(context: Context, template: Template) -> header_secrets.Headers:
    """The present content of the Secret that `template` must name; the finding is remembered, but no value."""
    reference, namespace = template.spec.headers_secret_ref, template.metadata.namespace
    if reference is None:
        raise ValueError(f"Template {template.key} names no Secret")
    try:
        secret = await context.api.get(kinds.SECRETS, reference.name, namespace=namespace)
    except errors.NotFound:
        found = header_secrets.missing(template)
    except errors.Forbidden as error:
        if error.status != 403:
            raise
        found = header_secrets.forbidden(template)
    else:
        found = header_secrets.judge(template, secret)
    secrets = context.world.secrets
    secrets[template.uid] = header_secrets.followed(secrets.get(template.uid), template, found, context.now())
    return found


async def problem(context: Context, template: Template, now: datetime.datetime) -> Verdict | None:
    """Why the Secret may not be used, by a look that is recent enough at `now`; None: it may."""
    if template.spec.headers_secret_ref is None or template.deleting:
        return None
    last = context.world.secrets.get(template.uid)
    until = header_secrets.good_until(template, last, now)
    if last is None or until is None or until <= now:
        return (await read(context, template)).problem
    return last.problem


async def equip(context: Context, job: JobView, template: Template | None) -> None:
    """Gives a Job that has not started the copy that its pod waits for, unless it has it already."""
    if template is None or template.spec.headers_secret_ref is None or not _waits(context, job):
        return
    found = await read(context, template)
    if found.problem is not None:
        # It never starts, and counts as interrupted in time; the next one waits until the Secret may be used.
        logger.warning("Job %s: %s", job.name, found.problem.message, extra={"job": job.name})
        return
    await give(context, job, found)


async def give(context: Context, job: JobView, found: header_secrets.Headers) -> None:
    """Creates the copy of `found` for `job`, if its pod waits for one, and remembers that it exists."""
    if _waits(context, job):
        await copy_for(context.api, job, found)
        context.world.equipped[job.uid] = True


def _waits(context: Context, job: JobView) -> bool:
    """A Job that was created before the Template named a Secret, and was adopted, waits for none."""
    return world.HEADERS_ANNOTATION in job.annotations and not (job.deleting or job.uid in context.world.equipped)


async def make_way(api: client.Api, manifest: Mapping[str, Any]) -> None:
    """Before the Job of `manifest` is created: makes sure that no Secret has the name of its copy of the headers.

    A copy that an earlier Job has left is deleted. Raises Conflict if the Secret is somebody else's: no Job is created
    then.
    """
    metadata = manifest["metadata"]
    name = metadata["annotations"].get(world.HEADERS_ANNOTATION)
    if name is None:
        return
    there = await _find(api, metadata["namespace"], name)
    if there is not None and not await _belongs_to_living_job(api, there):
        await _clear_away(api, there, metadata["name"])


async def copy_for(api: client.Api, job: JobView, found: header_secrets.Headers) -> None:
    """Creates the Secret that the pod of `job` waits for, unless it exists; it belongs to the Job.

    Raises Conflict if a Secret of that name is not the Job's, and cannot be deleted.
    """
    name = job.annotations[world.HEADERS_ANNOTATION]
    labels = {label: job.labels[label] for label in _LABELS if label in job.labels}
    owner = {"apiVersion": kinds.JOBS.api_version, "kind": kinds.JOBS.kind, "name": job.name, "uid": job.uid}
    body = {
        "apiVersion": kinds.SECRETS.api_version,
        "kind": kinds.SECRETS.kind,
        "metadata": {"name": name, "namespace": job.namespace, "labels": labels, "ownerReferences": [owner]},
        "type": headers.SECRET_TYPE,
        "immutable": True,
        "data": dict(found.data),
    }
    try:
        await api.create(kinds.SECRETS, body, namespace=job.namespace)
        return
    except errors.AlreadyExists:
        there = await _find(api, job.namespace, name)
    if there is not None and _ours(there) and [each["uid"] for each in _owners(there)] == [job.uid]:
        # Created before a restart, or by a request whose answer was lost.
        logger.debug("Job %s: its Secret is there", job.name)
        return
    if there is not None:
        await _clear_away(api, there, job.name)
    # One that another request has created since is looked at next time.
    await api.create(kinds.SECRETS, body, namespace=job.namespace)


async def _find(api: client.Api, namespace: str, name: str) -> client.Object | None:
    try:
        return await api.get(kinds.SECRETS, name, namespace=namespace)
    except errors.NotFound:
        return None


def _owners(secret: client.Object) -> list[dict[str, Any]]:
    return list(secret["metadata"].get("ownerReferences") or ())


def _ours(secret: client.Object) -> bool:
    """Whether it is a copy of headers that this product has made."""
    labels = secret["metadata"].get("labels") or {}
    made = labels.get(world.MANAGED_BY_LABEL) == world.PRODUCT and secret.get("immutable") is True
    owners = _owners(secret)
    of_job = bool(owners) and all(owner.get("kind") == kinds.JOBS.kind for owner in owners)
    return made and of_job and secret.get("type") == headers.SECRET_TYPE


async def _belongs_to_living_job(api: client.Api, secret: client.Object) -> bool:
    """Whether it is a copy of ours whose Job still exists."""
    if not _ours(secret):
        return False
    for owner in _owners(secret):
        try:
            job = await api.get(kinds.JOBS, owner["name"], namespace=secret["metadata"]["namespace"])
        except errors.NotFound:
            continue
        if job["metadata"]["uid"] == owner["uid"]:
            return True
    return False


async def _clear_away(api: client.Api, secret: client.Object, job: str) -> None:
    """Deletes a copy whose Job is gone. Raises Conflict for anything else."""
    metadata = secret["metadata"]
    if not _ours(secret) or await _belongs_to_living_job(api, secret):
        raise errors.Conflict(
            409,
            "SecretInTheWay",
            f"Secret {metadata['namespace']}/{metadata['name']}: expected none, or the copy of the headers for Job "
            f"{job}; it belongs to something else, and the download waits: delete that Secret",
        )
    logger.info("Job %s: deleting Secret %s, which an earlier Job left", job, metadata["name"], extra={"job": job})
    await api.delete(kinds.SECRETS, metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"])
