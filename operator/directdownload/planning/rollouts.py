"""The status of a deployment: how many of its copies are Ready, and which failed.

Called with what `deployments` has planned for it.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from directdownload.planning import quotas, requests, rights
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.deployments import Fleet, targets
from directdownload.planning.observed import PlacementView
from directdownload.planning.templates import count
from directdownload.resources import quantities
from directdownload.resources.reasons import DONE, WAITING, Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import (
    DeploymentBytes,
    PlacementFailure,
    TemplateDeployment,
    TemplateDeploymentStatus,
)
from directdownload.resources.templateplacement import Phase

FAILURE_SAMPLES = 10


def plan_deployment(
    deployment: TemplateDeployment,
    template: Template | None,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    now: datetime.datetime,
    *,
    held: bool = False,
) -> TemplateDeploymentStatus:
    """The status of one deployment; `existing` are the placements of its template by name.

    `held`: as for `plan_placements`; the copies that it no longer selects are still to be removed.
    """
    before, generation = deployment.status, deployment.metadata.generation
    may = rights.standing(deployment, template, fleet) if template is not None else None
    refused = may.refused if may is not None else rights.refusal(deployment, None, fleet)
    wanted = targets(deployment, template, fleet) if template is not None and may is not None and may.decides else {}
    # A copy that is being removed counts as still to come.
    placements = [p for name in wanted if (p := existing.get(name)) is not None and p.phase is not Phase.REMOVING]
    entitled = refused is None or (may is not None and may.votes)
    if not entitled:
        # It gets no new copies: only those that it has count, and none that others have.
        placements = [p for p in placements if may is not None and may.has(p)]
    desired = len(wanted) if entitled else len(placements)
    there = sum(name in existing for name in wanted) if entitled else desired
    verdict = refused or _verdict(deployment, fleet, desired, placements, desired - there)
    told = conditions(verdict, before.conditions, generation, now)
    status = TemplateDeploymentStatus(
        observed_generation=generation,
        **requests.served(deployment, now).fields(),
        observed_selection=before.observed_selection if refused is not None or held else rights.selection(deployment),
        granted=before.granted,
        conditions=told,
    )
    if may is None or not may.sees:
        return status
    counts = count(placements)
    missing = desired - (counts.total or 0)
    size = template.status.size_bytes or 0 if template is not None else 0
    update: dict[str, Any] = {
        "placements": counts.model_copy(
            update={"total": None, "desired": desired, "pending": counts.pending + missing}
        ),
        "bytes": _bytes(placements, missing, size),
        "failures": _failures(placements),
    }
    if refused is None and template is not None and not deployment.deleting:
        update["granted"] = rights.grant(
            deployment, template, max((p.created for p in placements if p.created), default=None), now
        )
    return status.model_copy(update=update)


def _bytes(placements: Sequence[PlacementView], missing: int, size_bytes: int) -> DeploymentBytes:
    """`size_bytes`: of each copy that says nothing else; 0: unknown."""
    sizes = (*(_total_bytes(p) or size_bytes for p in placements), missing * size_bytes)
    total, downloaded = quantities.total(sizes), quantities.total(map(_downloaded_bytes, placements))
    words = f"{quantities.size(downloaded)} of {quantities.size(total)}" if total else None
    return DeploymentBytes(total=total, downloaded=downloaded, progress=words)


def _total_bytes(placement: PlacementView) -> int:
    """Bytes in all, as the download counts them: of the file as served."""
    file = placement.file
    return ((file.served_bytes or file.size_bytes) if file is not None else None) or placement.bytes_total


def _downloaded_bytes(placement: PlacementView) -> int:
    return _total_bytes(placement) if placement.phase is Phase.READY else placement.bytes_downloaded


def _verdict(
    deployment: TemplateDeployment, fleet: Fleet, desired: int, placements: list[PlacementView], unmade: int
) -> Verdict:
    """`unmade`: wanted copies without a placement."""
    spec = deployment.spec
    if not desired:
        if any(pool.spec.zone == spec.zone and (not spec.pools or pool.name in spec.pools) for pool in fleet.pools):
            return Verdict(
                False, Reason.NO_MATCHING_HOSTS, f"no host of Zone {spec.zone} matches hostSelector and hosts"
            )
        return Verdict(False, Reason.NO_MATCHING_POOLS, f"no StoragePool of Zone {spec.zone} matches spec.pools")
    counts = count(placements)
    if counts.ready == desired:
        return Verdict(True, Reason.CONVERGED, f"{desired} of {desired} copies are verified")
    progress = f"{counts.ready} of {desired} copies are verified"
    short = quotas.shortage(deployment.metadata.namespace, spec.zone, fleet.zones, fleet.usage) if unmade else None
    if short is not None:
        failed = f", {counts.failed} failed (see status.failures)" if counts.failed else ""
        return dataclasses.replace(short, message=f"{progress}{failed}, {unmade} are not created: {short.message}")
    if counts.failed:
        settled = counts.ready + counts.failed == desired
        message = f"{progress}, {counts.failed} failed: see status.failures; to try again set the annotation "
        return Verdict(False, Reason.PLACEMENTS_FAILED, message + "directdownload.dev/requested-at", stalled=settled)
    if not fleet.zones[spec.zone].spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, f"{progress}; Zone {spec.zone} is disabled")
    if spec.rollout.paused:
        return Verdict(False, Reason.PAUSED, f"{progress}; spec.rollout.paused is true")
    return Verdict(False, Reason.DOWNLOADING, progress)


def _has_failed(placement: PlacementView) -> bool:
    """Whether its last attempt failed, or its pod did not start, which is no attempt."""
    reason = placement.reason
    tried = placement.attempts > 0 or reason is Reason.POD_BLOCKED
    return tried and reason is not None and reason not in WAITING | DONE


def _failures(placements: list[PlacementView]) -> tuple[PlacementFailure, ...]:
    """A sample: permanent failures first, then those that are tried again."""
    failing = [p for p in placements if p.phase is Phase.FAILED or (p.phase is Phase.PENDING and _has_failed(p))]
    failing.sort(key=lambda p: (p.phase is not Phase.FAILED, p.host, p.pool))
    return tuple(
        PlacementFailure(host=p.host, pool=p.pool, reason=p.reason, message=p.message[:500])
        for p in failing[:FAILURE_SAMPLES]
        if p.reason is not None
    )
