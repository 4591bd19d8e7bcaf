"""Probes: from which host and when a source is asked before anybody deploys it, and what the answer sets in the status.

A probe runs in the background: a Template is Ready without it, and it counts as no attempt of any placement.
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping

from directdownload.planning import attempts, disclosure, startup
from directdownload.planning.conditions import condition
from directdownload.planning.observed import Job
from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.host import Host
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import PERMANENT, Reason
from directdownload.resources.template import Template, TemplateProbe
from directdownload.resources.zone import Retry, Zone

CONDITION = "SourceReachable"
#: Jitter takes up to a quarter off: the shortest pause is a minute.
RETRY = Retry(initial=80, maximum=3600)
#: Reasons that say nothing about the source.
_OF_THE_JOB = frozenset(
    {Reason.INTERRUPTED, Reason.POD_BLOCKED, Reason.WRITE_FAILED, Reason.INTERNAL_ERROR, Reason.POOL_NOT_READY}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """An existing probe: its job, its host, and the request and inputs that it was created for."""

    job: Job
    host: str
    request: str
    inputs: str


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The changes that an ended probe makes to the Template's status; `result` is not for tenants."""

    record: TemplateProbe
    condition: Condition
    result: JobResult


def hosts_for(
    template: Template,
    zones: Iterable[Zone],
    hosts: Iterable[Host],
    namespaces: Mapping[str, Mapping[str, str]],
) -> list[Host]:
    """Up hosts of the zones where the Template's own namespace may deploy it."""
    labels = namespaces.get(template.metadata.namespace, {})
    names = {
        zone.name
        for zone in zones
        if zone.spec.enabled
        and not zone.deleting
        and (not template.spec.zones or zone.name in template.spec.zones)
        and zone.spec.template_namespaces.matches(labels)
    }
    return [host for host in hosts if host.spec.zone in names and host.status.state == "Up" and not host.deleting]


def choose(template: Template, hosts: Iterable[Host], attempt: int) -> Host | None:
    """The same host for the same attempt; another attempt may reach the source another way."""

    def rank(host: Host) -> bytes:
        return hashlib.sha256(f"{template.uid}/{attempt}/{host.name}".encode()).digest()

    return min(hosts, key=rank, default=None)


def inputs_of(template: Template, zones: Iterable[Zone]) -> str:
    """A hash of all that people wrote and that decides how a probe ends; over all zones, as any may be asked from."""
    spec = template.spec
    policies = {zone.name: zone.spec.source_policy.model_dump(mode="json") for zone in zones}
    told = [spec.url, spec.mirrors, spec.checksum, str(spec.headers_secret_ref), policies]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]


def wanted(template: Template) -> bool:
    """Whether its source may be asked at all."""
    ready = template.status.condition("Ready")
    return not template.deleting and ready is not None and ready.status == "True"


def next_attempt(template: Template) -> int:
    return attempts.one_more(template.status.probe.attempts if template.status.probe is not None else 0)


def look_again(probe: Probe, now: datetime.datetime) -> datetime.datetime | None:
    """When there may be news of a probe that has not started."""
    return startup.look_again(probe.job, now)


def due(template: Template, inputs: str, now: datetime.datetime) -> datetime.datetime | None:
    """When the source is to be asked; None: not before a request, or a change of the last probe's inputs."""
    before = template.status.probe
    # The Template's own status limits requests: it hands on one in each interval.
    request = template.status.last_handled_request
    if before is None or (request and request != before.last_handled_request):
        return now
    reachable = template.status.condition(CONDITION)
    if reachable is not None and reachable.status == "True":
        return None
    return now if before.observed_inputs != inputs else before.next_attempt_time


def result_of(probe: Probe, host: Host | None, now: datetime.datetime) -> JobResult | None:
    """How it ended; None while it runs. A probe on a Down host is given up: another host may answer sooner."""
    result = attempts.result_of(probe.job, now)
    if result is not None and result.done and result.reason is not Reason.SOURCE_REACHABLE:
        return JobResult(reason=Reason.INTERRUPTED, message=f"expected the result of a probe, found {result.reason}")
    if result is None and (host is None or host.status.state == "Down"):
        return JobResult(reason=Reason.INTERRUPTED, message=f"host {probe.host} went Down")
    return result


def outcome(template: Template, probe: Probe | None, host: Host | None, now: datetime.datetime) -> Outcome | None:
    """The changes to write; None: nothing new. `host` is the one that the probe runs on."""
    if probe is None or template.deleting or probe.job.attempt < next_attempt(template):
        return None
    result = result_of(probe, host, now)
    if result is None:
        return None
    before = template.status.probe
    shown = disclosure.shown(result, "the log of the controller")
    reachable = shown.reason is Reason.SOURCE_REACHABLE
    failures = 0 if reachable else attempts.one_more(before.recent_failures or 0 if before is not None else 0)
    again = None
    if not reachable and shown.reason not in PERMANENT:
        name = f"{template.uid}/probe"
        pause = attempts.retry_pause_seconds(name, failures, RETRY, result.retry_after_seconds)
        again = (now + datetime.timedelta(seconds=pause + 1)).replace(microsecond=0)
    record = TemplateProbe(
        attempts=probe.job.attempt,
        recent_failures=failures or None,
        next_attempt_time=again,
        last_handled_request=probe.request or None,
        observed_inputs=probe.inputs,
    )
    if reachable:
        status = ConditionStatus.TRUE
    else:
        status = ConditionStatus.UNKNOWN if shown.reason in _OF_THE_JOB else ConditionStatus.FALSE
    told = condition(
        CONDITION,
        status,
        shown.reason,
        f"asked from host {probe.host}: {_words(shown)}",
        template.status.conditions,
        template.metadata.generation,
        now,
    )
    return Outcome(record, told, result)


def _words(result: JobResult) -> str:
    if result.reason is not Reason.SOURCE_REACHABLE:
        return result.message or f"the probe ended with {result.reason}"
    facts = [f"{result.size_bytes} bytes" if result.size_bytes is not None else "of unknown size", result.media_type]
    if result.ranges is False:
        facts.append("without ranges: an interrupted download starts over")
    return f"{result.message or 'the source answers'}: {', '.join(filter(None, facts))}"
