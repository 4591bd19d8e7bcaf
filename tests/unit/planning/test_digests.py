"""What fetches teach of a Template's bytes: whose word counts, how long a job stays, and what a contradiction does."""

import itertools
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import DIGEST, NOW

from directdownload.planning import digests
from directdownload.planning.observed import Job
from directdownload.planning.placements import plan_placement
from directdownload.planning.templates import plan_template
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template

OTHER = "sha256:" + "cd" * 32
CHECKSUMS = Checksum.parse(DIGEST), Checksum.parse(OTHER)


def fetched(digest: str = DIGEST, reason: Reason = Reason.DOWNLOADED, **fields: Any) -> Job:
    result = JobResult(reason=reason, digest=digest, size_bytes=4096)
    known = {"name": "j", "verb": Verb.FETCH, "attempt": 1, "created": NOW, "finished": True, "result": result}
    return Job(**dict[str, Any](known | fields))


@pytest.mark.parametrize(
    ("job", "taught"),
    [
        (fetched(), True),
        (fetched(DIGEST.upper().replace("SHA256", "{SHA-256}").replace(":", "")), True),
        (None, False),
        (fetched(finished=False), False),
        (fetched(result=None), False),
        # Another host's word, out of a record in a pool that others may write.
        (fetched(reason=Reason.ALREADY_PRESENT), False),
        (fetched(reason=Reason.CHECKSUM_MISMATCH), False),
        (fetched(reason=Reason.VERIFIED, verb=Verb.VERIFY), False),
        (fetched(verb=None), False),
        (fetched(digest=""), False),
        (fetched(digest="sha256:short"), False),
        (fetched(digest="md5:" + "ab" * 16), False),
        (fetched(digest="sha512:" + "ab" * 64), False),
    ],
)
def test_whose_word_counts(job: Job | None, taught: bool) -> None:
    assert digests.lesson(build.template(), job) == (CHECKSUMS[0] if taught else None)


@pytest.mark.parametrize(
    ("checksum", "taught"),
    [
        (DIGEST, True),
        ("{SHA-256}" + "AB" * 32, True),
        (OTHER, False),
        ("sha512:" + "ab" * 64, True),
        ("ab" * 16, True),
        # Nobody knows what was meant.
        ("nonsense", True),
    ],
)
def test_a_digest_that_contradicts_the_checksum_is_not_learnt(checksum: str, taught: bool) -> None:
    found = digests.lesson(build.template(spec={"checksum": checksum}), fetched())
    assert found == (CHECKSUMS[0] if taught else None)


def with_digest(digest: str | None) -> Template:
    return build.template(status={"digest": digest} if digest else {})


@pytest.mark.parametrize(
    ("known", "lessons", "digest", "disputed"),
    [
        (None, (), None, False),
        (None, CHECKSUMS[:1], DIGEST, False),
        (None, CHECKSUMS[:1] * 2, DIGEST, False),
        (None, CHECKSUMS, None, True),
        (DIGEST, (), DIGEST, False),
        (DIGEST, CHECKSUMS[:1], DIGEST, False),
        (DIGEST, CHECKSUMS[1:], None, True),
        # of 0.1.0, whatever it is
        ("sha256:first", (), "sha256:first", False),
    ],
)
def test_what_is_learnt_in_any_order(
    known: str | None, lessons: tuple[Checksum, ...], digest: str | None, disputed: bool
) -> None:
    template = with_digest(known)
    for order in itertools.permutations(lessons):
        status = plan_template(template, (), [], NOW, lessons=order)
        condition = status.condition("DigestDisputed")
        assert (status.digest, condition is not None) == (digest, disputed)
        build.check_resource(template, status)
        if condition is not None:
            assert (condition.status, condition.reason) == ("True", Reason.DIGESTS_DIFFER)
            assert DIGEST in condition.message
            assert OTHER in condition.message


def test_after_a_dispute_nothing_is_learnt_any_more_and_it_goes_on_saying_so() -> None:
    template = with_digest(DIGEST)
    first = plan_template(template, (), [], NOW, lessons=CHECKSUMS[1:])
    template = template.model_copy(update={"status": first})
    for lessons in ((), CHECKSUMS[:1], CHECKSUMS):
        again = plan_template(template, (), [], NOW + build.seconds(60), lessons=lessons)
        assert (again.digest, again.condition("DigestDisputed")) == (None, first.condition("DigestDisputed"))


def ended(template: Template | None, job: Job, **status: Any) -> tuple[bool, bool]:
    placement = build.placement(phase="Downloading", status={"attempts": 1, **status})
    plan = plan_placement(placement, build.around(template=template), job, NOW)
    return plan.drop_job, plan.teaches


def test_a_job_stays_until_what_it_teaches_stands_in_the_template() -> None:
    """Also where its result stands in the placement already: the controller may have ended between the two writes."""
    kept, dropped = (False, True), (True, False)
    assert ended(with_digest(None), fetched()) == kept
    assert ended(with_digest(OTHER), fetched()) == kept
    assert ended(with_digest(DIGEST), fetched()) == dropped
    written = build.placement(phase="Ready", status={"attempts": 1, **build.file_status()})
    for template, expected in ((with_digest(None), kept), (with_digest(DIGEST), dropped)):
        plan = plan_placement(written, build.around(template=template), fetched(), NOW)
        assert (plan.status, plan.drop_job, plan.teaches) == (None, *expected)


def test_no_job_stays_for_nothing() -> None:
    disputed = {"conditions": [build.condition("DigestDisputed", "True", Reason.DIGESTS_DIFFER)]}
    for template in (None, build.template(status=disputed), build.template(deleting=True)):
        assert ended(template, fetched()) == (True, False)
    for job in (fetched(reason=Reason.ALREADY_PRESENT), fetched(digest=""), fetched(reason=Reason.TOO_LARGE)):
        assert ended(with_digest(None), job) == (True, False)
    assert ended(build.template(spec={"checksum": OTHER}), fetched()) == (True, False)
