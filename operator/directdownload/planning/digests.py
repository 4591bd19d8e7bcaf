"""The digest of a Template's bytes, learnt from fetches: which results count, when two contradict, when it is durable.

Called by `placements`, which keeps an ended job until its digest stands in the Template, and by `templates`, which
decides what stands there. Only the result of a job that has hashed what it received counts: neither the status of a
placement nor a record in a pool. Pure.
"""

import dataclasses
from collections.abc import Iterable

from directdownload.planning.observed import Job
from directdownload.planning.plans import PlacementPlan
from directdownload.resources.base import ConditionStatus
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template

#: Condition of a Template. It stays True: once two copies differed, later ones can be held to no digest.
CONDITION = "DigestDisputed"


def lesson(template: Template, job: Job | None) -> Checksum | None:
    """The SHA-256 of the file as served, as `job` found it; None if the job teaches none.

    A file that was there already is known from a record, which others may have written. A digest that contradicts
    `spec.checksum` does not count: the Template's author decides.
    """
    if job is None or job.verb is not Verb.FETCH or not job.finished or job.result is None:
        return None
    if job.result.reason is not Reason.DOWNLOADED:
        return None
    found = _parsed(job.result.digest)
    if found is None or found.algorithm is not Algorithm.SHA256:
        return None
    expected = _parsed(template.spec.checksum or "")
    contradicts = expected is not None and expected.algorithm is found.algorithm and expected != found
    return None if contradicts else found


def disputed(template: Template) -> bool:
    condition = template.status.condition(CONDITION)
    return condition is not None and condition.status is ConditionStatus.TRUE


def hold(plan: PlacementPlan, template: Template | None, job: Job) -> PlacementPlan:
    """`plan`, but its job is left until its lesson stands in the Template: it is known nowhere else."""
    if not plan.drop_job or template is None or template.deleting or disputed(template):
        return plan
    found = lesson(template, job)
    if found is None or template.status.digest == str(found):
        return plan
    return dataclasses.replace(plan, drop_job=False, teaches=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Learnt:
    """`digest`: what later copies are held to. `contradiction`: why there is none, if copies differ."""

    digest: str | None
    contradiction: str = ""


def learn(template: Template, lessons: Iterable[Checksum]) -> Learnt:
    """The Template's digest after `lessons`, in any order."""
    if disputed(template):
        return Learnt(None)
    known = template.status.digest
    digests = sorted({str(each) for each in lessons} | ({known} if known else set()))
    if len(digests) > 1:
        return Learnt(
            None,
            f"verified copies have different digests: {', '.join(digests[:3])}; no digest is expected of later copies; "
            "find out which one is right, and register it as another Template, with its checksum",
        )
    return Learnt(digests[0] if digests else None)


def _parsed(text: str) -> Checksum | None:
    try:
        return Checksum.parse(text)
    except ValueError:
        return None
