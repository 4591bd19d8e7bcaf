"""The status of a deployment: how many of its copies are Ready, what the others wait for, and which failed.

Called with what `deployments` has planned for it.
"""

import dataclasses
import datetime
import heapq
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from directdownload.planning import disclosure, quotas, requests, rights, unserved, waits
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.observed import PlacementView
from directdownload.planning.selection import Fleet, Skipped, Target, select
from directdownload.planning.templates import count
from directdownload.planning.waits import Wait
from directdownload.resources import quantities
from directdownload.resources.reasons import DONE, WAITING, Reason
from directdownload.resources.template import PlacementCounts, Template
from directdownload.resources.templatedeployment import (
    DeploymentBytes,
    PlacementFailure,
    TemplateDeployment,
    TemplateDeploymentStatus,
    WaitingCopies,
)
from directdownload.resources.templateplacement import Phase

FAILURE_SAMPLES = 10


@dataclasses.dataclass(frozen=True, slots=True)
class _Copies:
    """The wanted copies of a deployment. Those that are being removed count as still to come."""

    there: Sequence[PlacementView]
    leaving: Sequence[PlacementView] = ()
    #: without a placement
    unmade: Sequence[Target] = ()
    #: why no placements are created for them
    short: Verdict | None = None
    #: on hosts of another architecture; they are not wanted
    skipped: Sequence[Skipped] = ()

    @property
    def desired(self) -> int:
        return len(self.there) + len(self.leaving) + len(self.unmade)

    @property
    def missing(self) -> int:
        return len(self.leaving) + len(self.unmade)

    def counts(self) -> PlacementCounts:
        found = count(self.there)
        update = {
            "total": None,
            "desired": self.desired,
            "skipped": len(self.skipped) or None,
            "pending": found.pending + self.missing,
        }
        return found.model_copy(update=update)


def plan_deployment(
    deployment: TemplateDeployment,
    template: Template | None,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    now: datetime.datetime,
    *,
    held: bool = False,
    unreadable: Container[str] = (),
) -> TemplateDeploymentStatus:
    """The status of one deployment; `existing` are the placements of its template by name.

    `held`, `unreadable`: as for `plan_placements`; if held, the copies that it no longer selects are still to be
    removed.
    """
    before, generation = deployment.status, deployment.metadata.generation
    may = rights.standing(deployment, template, fleet) if template is not None else None
    refused = may.refused if may is not None else rights.refusal(deployment, None, fleet)
    copies = _copies(deployment, template, fleet, existing, unreadable, may)
    waiting = waits.counted(_waits(deployment, copies, refused, unreadable))
    counts = copies.counts()
    verdict = refused or _verdict(deployment, fleet, counts, copies, waiting)
    status = TemplateDeploymentStatus(
        observed_generation=generation,
        **requests.served(deployment, now).fields(),
        observed_selection=before.observed_selection if refused is not None or held else rights.selection(deployment),
        granted=before.granted,
        conditions=conditions(verdict, before.conditions, generation, now),
    )
    if may is None or not may.sees:
        return status
    update: dict[str, Any] = {
        "placements": counts,
        "bytes": _bytes(copies, template.status.size_bytes or 0 if template is not None else 0),
        "failures": _failures(copies.there, copies.skipped if deployment.spec.hosts else ()),
    }
    if waiting:
        update["waiting"] = waiting
    if refused is None and template is not None and not deployment.deleting:
        newest = max((p.created for p in copies.there if p.created), default=None)
        update["granted"] = rights.grant(deployment, template, newest, now)
    return status.model_copy(update=update)


def _copies(
    deployment: TemplateDeployment,
    template: Template | None,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    unreadable: Container[str],
    may: rights.Standing | None,
) -> _Copies:
    if template is None or may is None or not may.decides:
        return _Copies(())
    chosen = select(deployment, template, fleet, existing, unreadable)
    wanted = chosen.wanted
    found = [p for name in wanted if (p := existing.get(name)) is not None]
    there = [p for p in found if p.phase is not Phase.REMOVING]
    if may.refused is not None and not may.votes:
        # It gets no new copies: only those that it has count, and none that others have.
        return _Copies([p for p in there if may.has(p)])
    unmade = [target for name, target in wanted.items() if name not in existing]
    namespace, zone = deployment.metadata.namespace, deployment.spec.zone
    short = quotas.shortage(namespace, zone, fleet.zones, fleet.usage) if unmade else None
    leaving = [p for p in found if p.phase is Phase.REMOVING]
    skipped = sorted(chosen.skipped.values(), key=lambda each: (each.host.name, each.pool))
    return _Copies(there, leaving, unmade, short, skipped)


def _waits(
    deployment: TemplateDeployment, copies: _Copies, refused: Verdict | None, unreadable: Container[str]
) -> Iterator[Wait]:
    """One for each copy that counts as pending."""
    obstacle = refused or copies.short or Verdict(False, Reason.PREPARING)
    for target in copies.unmade:
        if target.name in unreadable:
            yield Wait(Reason.UNREADABLE, target.host)
        else:
            yield Wait(obstacle.reason, target.host, obstacle.message)
    for placement in copies.leaving:
        yield waits.wait_of(placement, deployment)
    for placement in copies.there:
        if placement.counted not in (Phase.READY, Phase.DOWNLOADING, Phase.FAILED):
            yield waits.wait_of(placement, deployment)


def _bytes(copies: _Copies, size_bytes: int) -> DeploymentBytes:
    """`size_bytes`: of each copy that says nothing else; 0: unknown."""
    sizes = (*(_total_bytes(p) or size_bytes for p in copies.there), copies.missing * size_bytes)
    total, downloaded = quantities.total(sizes), quantities.total(map(_downloaded_bytes, copies.there))
    words = f"{quantities.size(downloaded)} of {quantities.size(total)}" if total else None
    return DeploymentBytes(total=total, downloaded=downloaded, progress=words)


def _total_bytes(placement: PlacementView) -> int:
    """Bytes in all, as the download counts them: of the file as served."""
    file = placement.file
    return ((file.served_bytes or file.size_bytes) if file is not None else None) or placement.bytes_total


def _downloaded_bytes(placement: PlacementView) -> int:
    return _total_bytes(placement) if placement.phase is Phase.READY else placement.bytes_downloaded


def _verdict(
    deployment: TemplateDeployment,
    fleet: Fleet,
    counts: PlacementCounts,
    copies: _Copies,
    waiting: Sequence[WaitingCopies],
) -> Verdict:
    spec, desired = deployment.spec, copies.desired
    missing = unserved.names_unserved(deployment, fleet)
    names = f"; {missing.words}" if missing.reason is not None else ""
    skipped = copies.skipped
    mismatch = bool(skipped and spec.hosts)
    if not desired and skipped:
        message = f"no host that it selects is of the Template's architecture, for example {skipped[0].message}"
        return Verdict(False, Reason.ARCHITECTURE_MISMATCH, message + names, stalled=mismatch)
    if not desired:
        return _nothing(deployment, fleet, names)
    progress = f"{counts.ready} of {desired} copies are verified"
    if skipped:
        progress += f", {len(skipped)} skipped on hosts of another architecture"
    if counts.ready == desired and not mismatch:
        return Verdict(missing.reason is None, missing.reason or Reason.CONVERGED, progress + names)
    failed = f", {counts.failed} failed (see status.failures)" if counts.failed else ""
    if copies.short is not None:
        lacking = f", {len(copies.unmade)} are not created: {copies.short.message}"
        return dataclasses.replace(copies.short, message=progress + failed + lacking + names)
    wait = f"; waiting: {waits.words(waiting)}" if waiting else ""
    if counts.failed:
        settled = counts.ready + counts.failed == desired
        advice = "; to try again set the annotation directdownload.dev/requested-at"
        return Verdict(False, Reason.PLACEMENTS_FAILED, progress + failed + wait + names + advice, stalled=settled)
    if mismatch:
        message = f"{progress}: spec.hosts names them, see status.failures{wait}{names}"
        return Verdict(False, Reason.ARCHITECTURE_MISMATCH, message, stalled=counts.ready == desired)
    if not fleet.zones[spec.zone].spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, f"{progress}; Zone {spec.zone} is disabled{wait}{names}")
    if spec.rollout.paused:
        return Verdict(False, Reason.PAUSED, f"{progress}; spec.rollout.paused is true{wait}{names}")
    reason = Reason.DOWNLOADING if counts.downloading else waits.leading(waiting)
    return Verdict(False, reason, progress + wait + names)


def _nothing(deployment: TemplateDeployment, fleet: Fleet, names: str) -> Verdict:
    """There is nothing to deploy to."""
    spec = deployment.spec
    if any(pool.spec.zone == spec.zone and (not spec.pools or pool.name in spec.pools) for pool in fleet.pools):
        message = f"no host of Zone {spec.zone} matches hostSelector and hosts{names}"
        return Verdict(False, Reason.NO_MATCHING_HOSTS, message)
    return Verdict(False, Reason.NO_MATCHING_POOLS, f"no StoragePool of Zone {spec.zone} matches spec.pools{names}")


def _has_failed(placement: PlacementView) -> bool:
    """Whether its last attempt failed, or its pod did not start, which is no attempt."""
    reason = placement.reason
    tried = placement.attempts > 0 or reason is Reason.POD_BLOCKED
    return tried and reason is not None and reason not in WAITING | DONE


def _failures(placements: Sequence[PlacementView], never: Sequence[Skipped]) -> tuple[PlacementFailure, ...]:
    """A sample: permanent failures first, then copies that are `never` made, then those that are tried again."""
    failing = [p for p in placements if p.phase is Phase.FAILED or (p.phase is Phase.PENDING and _has_failed(p))]
    first = heapq.nsmallest(FAILURE_SAMPLES, failing, key=lambda p: (p.phase is not Phase.FAILED, p.host, p.pool))
    permanent = sum(p.phase is Phase.FAILED for p in first)
    told = [disclosure.failure(p, p.reason) for p in first if p.reason is not None]
    refused = [
        PlacementFailure(host=each.host.name, pool=each.pool, reason=Reason.ARCHITECTURE_MISMATCH, message=each.message)
        for each in never[:FAILURE_SAMPLES]
    ]
    return tuple([*told[:permanent], *refused, *told[permanent:]][:FAILURE_SAMPLES])
