"""What lies where the copy of a Job's headers belongs, on a real API server: no Job is ever given another one's."""

import base64
from typing import Any

import pytest
from tests.world import steps
from tests.world.header_secrets import TOKEN, begin, copies
from tests.world.kube import Object
from tests.world.simulation import Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import client, errors, kinds
from directdownload.cluster.objects import JobView, project_job
from directdownload.controller import job_secrets, jobs, world
from directdownload.planning.header_secrets import Headers
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

NAME = "the-copy"
FRESH, STALE = (base64.b64encode(text).decode() for text in (TOKEN.encode(), b"Bearer of-yesterday"))


async def make_job(api: client.Api, namespace: str, name: str = "a-job") -> JobView:
    pod = {"restartPolicy": "Never", "containers": [{"name": "download", "image": "localhost/none"}]}
    labels = {world.MANAGED_BY_LABEL: world.PRODUCT, world.COMPONENT_LABEL: "job"}
    metadata = {"name": name, "labels": labels, "annotations": {world.HEADERS_ANNOTATION: NAME}}
    body = {"metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}
    return project_job(await api.create(kinds.JOBS, body, namespace=namespace))


async def delete_job(api: client.Api, job: JobView) -> None:
    await api.delete(kinds.JOBS, job.name, namespace=job.namespace)


def manifest(namespace: str, name: str = "a-job") -> Object:
    return {"metadata": {"name": name, "namespace": namespace, "annotations": {world.HEADERS_ANNOTATION: NAME}}}


def of(value: str) -> Headers:
    return Headers(None, {"Authorization": value})


async def there(api: client.Api, namespace: str) -> tuple[str, str]:
    """Value and uid of the owner."""
    found = await api.get(kinds.SECRETS, NAME, namespace=namespace)
    return found["data"]["Authorization"], found["metadata"].get("ownerReferences", [{"uid": ""}])[0]["uid"]


@pytest.mark.parametrize("remade", [False, True], ids=["its Job is gone", "another Job has its name"])
async def test_what_an_earlier_job_left_is_replaced(api: client.Api, namespace: str, remade: bool) -> None:
    earlier = await make_job(api, namespace, "a-job" if remade else "earlier")
    await job_secrets.copy_for(api, earlier, of(STALE))
    await delete_job(api, earlier)
    job = await make_job(api, namespace)
    await job_secrets.copy_for(api, job, of(FRESH))
    assert await there(api, namespace) == (FRESH, job.uid)


async def test_what_an_earlier_job_left_makes_way_before_the_next_job_is_made(api: client.Api, namespace: str) -> None:
    """A pod takes whatever has the name, and keeps it: it is never there together with the Job."""
    await job_secrets.make_way(api, manifest(namespace))
    earlier = await make_job(api, namespace)
    await job_secrets.copy_for(api, earlier, of(STALE))
    await job_secrets.make_way(api, manifest(namespace))
    assert await there(api, namespace) == (STALE, earlier.uid), "its Job is there, and is going to be adopted"
    await delete_job(api, earlier)
    await job_secrets.make_way(api, manifest(namespace))
    with pytest.raises(errors.NotFound):
        await there(api, namespace)


async def test_the_copy_of_the_same_job_is_left_as_it_is(api: client.Api, namespace: str) -> None:
    job = await make_job(api, namespace)
    await job_secrets.copy_for(api, job, of(STALE))
    await job_secrets.copy_for(api, job, of(FRESH))
    assert await there(api, namespace) == (STALE, job.uid), "its pod may have read it"


FOREIGN: dict[str, Object] = {
    "nobody's": {},
    "with our labels": {"metadata": {"labels": {world.MANAGED_BY_LABEL: world.PRODUCT}}},
    "of our type": {"type": "directdownload.dev/headers", "immutable": True},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
async def test_what_somebody_else_put_there_is_neither_used_nor_deleted(
    api: client.Api, namespace: str, fields: dict[str, Any]
) -> None:
    body = {**fields, "metadata": {"name": NAME, **fields.get("metadata", {})}, "data": {"Authorization": STALE}}
    await api.create(kinds.SECRETS, body, namespace=namespace)
    job = await make_job(api, namespace)
    for call in (job_secrets.make_way(api, manifest(namespace)), job_secrets.copy_for(api, job, of(FRESH))):
        with pytest.raises(errors.Conflict, match=f"Secret {namespace}/{NAME}.*for Job a-job.*delete that Secret"):
            await call
    assert (await there(api, namespace))[0] == STALE


async def test_the_copy_of_another_job_that_is_there_is_not_taken_away(api: client.Api, namespace: str) -> None:
    other, job = await make_job(api, namespace, "other"), await make_job(api, namespace)
    await job_secrets.copy_for(api, other, of(STALE))
    with pytest.raises(errors.Conflict, match="belongs to something else"):
        await job_secrets.copy_for(api, job, of(FRESH))
    assert await there(api, namespace) == (STALE, other.uid)


def test_a_download_never_starts_with_what_lies_there_before(world: Simulation) -> None:
    in_the_way: list[str] = []
    values: list[str] = []

    def run(document: JobDocument) -> JobResult:
        """The first attempt puts something where the copy of the second belongs."""
        if not in_the_way:
            in_the_way.append(jobs.headers_secret_name(f"{document.placement}-fetch-2", document.placement_uid))
            body = {"metadata": {"name": in_the_way[0]}, "data": {"Authorization": STALE}}
            with world.kube() as kube:
                kube.create(kinds.SECRETS, body, world.namespace).object()
            return fail(Reason.SOURCE_UNAVAILABLE)
        (copy,) = (each for each in copies(world) if each["metadata"]["name"] == in_the_way[0])
        values.append(base64.b64decode(copy["data"]["Authorization"]).decode())
        return succeed(document)

    world.behaviour = run
    controller = begin(world, secret=True)
    until("the warning", lambda: "SecretInTheWay" in controller.log.read_text())
    steps.settle(world)
    assert len(world.started) == 1, "the second would begin with the wrong headers"
    assert world.jobs() == []
    with world.kube() as kube:
        kube.delete(kinds.SECRETS, in_the_way[0], world.namespace).object()
    world.converged(1)
    assert values == [TOKEN]
    assert [entry[1:] for entry in world.started] == [("fetch", 1), ("fetch", 2)]
