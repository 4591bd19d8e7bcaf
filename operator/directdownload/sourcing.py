"""The objections of a Zone's policy to the sources of a Template, by the engine's own rules, before any job is created.

Used by the controller and by `plan`. Judged by the URLs alone: hosts resolve the names later.
"""

from dataclasses import dataclass

from directdownload.download.checksum import expected_checksums
from directdownload.download.errors import RequestError
from directdownload.download.sources import policy as engine
from directdownload.download.sources.urls import Url
from directdownload.planning.conditions import Verdict
from directdownload.resources.template import Template
from directdownload.resources.urls import redact, scheme
from directdownload.resources.zone import SourcePolicy, Zone


@dataclass(frozen=True, slots=True)
class Source:
    """`url` without user, password and query. `problem`: why it is not used; empty if it is."""

    url: str
    protocol: str
    metalink: bool
    problem: str = ""


def refusal(template: Template, zone: Zone) -> Verdict | None:
    """Why every job of `template` would fail for good in `zone`, in the job's words; None: it would not."""
    return judged(template, zone.spec.source_policy)[1]


def reachable(address: str) -> bool:
    """Whether a job may connect to `address` as to another host: none of the ranges that are always denied."""
    return engine.denied(address) is None


def judged(template: Template, policy: SourcePolicy) -> tuple[list[Source], Verdict | None]:
    """The sources of `template` in order, and the policy's objection to its checksum, or to all of them."""
    spec = template.spec
    sources: list[Source] = []
    problems: list[RequestError] = []
    for text in (spec.url, *spec.mirrors):
        shown = redact(text)
        protocol, metalink = scheme(text).upper(), False
        try:
            url = Url.parse(text)
            protocol, metalink = url.protocol, url.is_metalink
            engine.check_url(url, policy)
        except RequestError as error:
            sources.append(Source(shown, protocol, metalink, error.message))
            problems.append(error)
        else:
            sources.append(Source(shown, protocol, metalink))
    refused = problems[0] if len(problems) == len(sources) else None
    try:
        expected_checksums(spec.checksum or "", "", policy)
    except RequestError as error:
        # A job checks this first.
        refused = error
    verdict = Verdict(False, refused.reason, refused.message, stalled=True) if refused is not None else None
    return sources, verdict
