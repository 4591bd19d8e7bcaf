"""What a Template learns of its bytes, and from whom: a real controller against forged statuses and forged results."""

from tests.world.disks import digest_of
from tests.world.kube import Object
from tests.world.simulation import DIGEST, SIZE_BYTES, Simulation, succeed
from tests.world.steps import hang, hosts_of_a_zone, kill, settle, unchecked
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

FORGED = "sha256:" + "0" * 64


def template(world: Simulation) -> Object:
    status: Object = world.get(kinds.TEMPLATES, "debian").get("status", {})
    return status


def ours(world: Simulation, kind: kinds.Resource) -> list[Object]:
    return [each for each in unchecked(world, kind) if each["metadata"]["namespace"] == world.namespace]


def ended(world: Simulation) -> bool:
    """Whether the pod of the download has ended; the other one plays the agent."""
    return any(each.get("status", {}).get("phase") == "Succeeded" for each in ours(world, kinds.PODS))


def forge(world: Simulation, host: str) -> None:
    """A copy that is Ready, with a digest: by somebody who may write the status of placements."""
    placement = world.placement(host)
    file = {"path": placement["spec"]["path"], "digest": FORGED, "sizeBytes": 1, "verifiedTime": "2026-01-01T00:00:00Z"}
    with world.kube() as connection:
        name, status = placement["metadata"]["name"], {"status": {"phase": "Ready", "attempts": 1, "file": file}}
        connection.patch(kinds.TEMPLATE_PLACEMENTS, name, status, subresource="status").object()


def started(world: Simulation, number: int) -> None:
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy()
    until("the jobs", lambda: len(world.started) == number)


def test_a_forged_placement_teaches_nothing(world: Simulation) -> None:
    """Others are given no digest that stands in the status of a copy alone; what a job has found is."""
    first, second = hosts_of_a_zone(world, 2, maxParallel=1)
    documents: list[JobDocument] = []
    started(world, 1)
    ((host, _, _),) = world.started
    kill(world, world.controllers[-1])
    forge(world, host)

    def note(document: JobDocument) -> JobResult | None:
        documents.append(document)
        return succeed(document) if document.host != host else None

    world.behaviour = note
    world.start_controller()
    until("the other copy to teach", lambda: template(world).get("digest") == DIGEST)
    settle(world)
    assert {each.expected_digest for each in documents if each.host != host} == {""}
    assert {first, second} == {host, *(each.host for each in documents if each.host != host)}
    assert template(world)["digest"] == DIGEST


def test_what_a_job_found_is_learnt_also_if_the_controller_ends_before_it_is_written(world: Simulation) -> None:
    """The job ended and its result stands in the placement; the job is kept until it stands in the Template as well."""
    (host,) = hosts_of_a_zone(world, 1)
    started(world, 1)
    kill(world, world.controllers[-1])
    world.behaviour = succeed
    until("the job to end", lambda: ended(world))
    # As the first write of two would have left it, but for the digest: the job's word counts.
    forge(world, host)
    assert "digest" not in template(world)
    world.start_controller()
    until("the Template to learn", lambda: template(world).get("digest") == DIGEST)
    until("the job to go", lambda: not ours(world, kinds.JOBS))


def test_jobs_that_find_different_bytes_are_a_dispute(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 2)
    started(world, 2)
    world.behaviour = lambda document: JobResult(
        reason=Reason.DOWNLOADED, digest=digest_of(document.host), size_bytes=SIZE_BYTES, path="/p"
    )

    def disputed() -> Object | None:
        conditions = template(world).get("conditions", [])
        return next((each for each in conditions if each["type"] == "DigestDisputed"), None)

    condition = until("the dispute", disputed)
    assert (condition["status"], condition["reason"]) == ("True", "DigestsDiffer")
    assert all(digest_of(host) in condition["message"] for host in hosts)
    until("the jobs to go", lambda: not ours(world, kinds.JOBS))
    until(
        "the Event",
        lambda: [
            each
            for each in unchecked(world, kinds.EVENTS)
            if each["reason"] == "DigestsDiffer" and each["regarding"].get("namespace") == world.namespace
        ],
    )
    settle(world)
    assert "digest" not in template(world)
    # Nor is the next one learnt.
    world.behaviour = succeed
    world.add_host("kvm-9")
    world.converged(3)
    settle(world)
    assert "digest" not in template(world)
    assert disputed() == condition
