"""The state of a deployment: placements, counts, bytes, and whether it is over. Pure: no I/O, no clock.

`status`, `deploy --wait` and `status --watch` all look at a deployment through `snapshot`; `boards` draws the result.
`judged` reads the conditions of any object; `proofs` uses it for certificates.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from directdownload.resources.base import ConditionStatus, ObjectMeta, Status
from directdownload.resources.reasons import Reason
from directdownload.resources.templatedeployment import PlacementFailure, TemplateDeployment, WaitingCopies
from directdownload.resources.templateplacement import Phase, TemplatePlacement


class Verdict(enum.Enum):
    RUNNING = enum.auto()
    READY = enum.auto()
    STALLED = enum.auto()


@dataclass(frozen=True, slots=True)
class Rollout:
    """A deployment at one moment. `placements` is also empty if the user may not see them."""

    deployment: TemplateDeployment
    placements: tuple[TemplatePlacement, ...]
    verdict: Verdict
    #: from condition Stalled if it is True, else from Ready
    reason: str
    message: str
    desired: int
    ready: int
    downloading: int
    pending: int
    failed: int
    bytes_downloaded: int
    #: None while no copy's size is known
    bytes_total: int | None
    bytes_per_second: int | None
    #: what the pending copies wait for, as the deployment's status says
    waiting: tuple[WaitingCopies, ...]
    failures: tuple[PlacementFailure, ...]

    @property
    def eta_seconds(self) -> int | None:
        if self.bytes_total is None or not self.bytes_per_second:
            return None
        return max(0, self.bytes_total - self.bytes_downloaded) // self.bytes_per_second


def snapshot(
    deployment: TemplateDeployment,
    placements: Iterable[TemplatePlacement] = (),
    host_labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Rollout:
    """`placements` may include those of other deployments. Without `host_labels`, hostSelector is ignored."""
    own = sorted(
        (placement for placement in placements if _belongs(placement, deployment, host_labels)),
        key=lambda placement: (placement.spec.host, placement.spec.pool),
    )
    status = deployment.status
    verdict, reason, message = judged(deployment.metadata, status)
    counts = status.placements
    staying = [placement for placement in own if phase_of(placement) is not Phase.REMOVING]
    if staying:
        phases = [_counted(placement) for placement in staying]
        ready, downloading = phases.count(Phase.READY), phases.count(Phase.DOWNLOADING)
        pending, failed = phases.count(Phase.PENDING), phases.count(Phase.FAILED)
        desired = max(len(staying), (counts.desired or 0) if counts else 0)
        downloaded, total = _bytes(staying, desired)
    else:
        ready, downloading = (counts.ready, counts.downloading) if counts else (0, 0)
        pending, failed = (counts.pending, counts.failed) if counts else (0, 0)
        desired = (counts.desired or 0) if counts else 0
        downloaded = status.bytes.downloaded if status.bytes else 0
        total = (status.bytes.total or None) if status.bytes else None
    rates = [rate for rate in map(_rate, staying) if rate is not None]
    return Rollout(
        deployment=deployment,
        placements=tuple(own),
        verdict=verdict,
        reason=reason,
        message=message,
        desired=desired,
        ready=ready,
        downloading=downloading,
        pending=pending,
        failed=failed,
        bytes_downloaded=downloaded,
        bytes_total=total,
        bytes_per_second=sum(rates) if rates else None,
        waiting=status.waiting,
        failures=status.failures,
    )


def phase_of(placement: TemplatePlacement) -> Phase:
    """Pending until the controller has set a phase; Removing as soon as the placement is being deleted."""
    if placement.deleting:
        return Phase.REMOVING
    return placement.status.phase or Phase.PENDING


def _counted(placement: TemplatePlacement) -> Phase:
    """Its phase in counts, as in those of the status: a download waits while its host is Down."""
    lost = phase_of(placement) is Phase.DOWNLOADING and reason_of(placement) == Reason.HOST_DOWN
    return Phase.PENDING if lost else phase_of(placement)


def reason_of(placement: TemplatePlacement) -> str:
    ready = placement.status.condition("Ready")
    return ready.reason.value if ready is not None else ""


def message_of(placement: TemplatePlacement) -> str:
    ready = placement.status.condition("Ready")
    return ready.message if ready is not None else ""


def downloaded_of(placement: TemplatePlacement) -> int:
    if phase_of(placement) is Phase.READY:
        return size_of(placement) or 0
    progress = placement.status.progress
    return (progress.bytes_downloaded or 0) if progress else 0


def size_of(placement: TemplatePlacement) -> int | None:
    """Bytes of this copy as served, as far as known."""
    file = placement.status.file
    if file is not None and file.size_bytes is not None:
        # A published file may be larger than the archive that it was unpacked from.
        return file.served_bytes or file.size_bytes
    return placement.status.progress.bytes_total if placement.status.progress else None


def _rate(placement: TemplatePlacement) -> int | None:
    if phase_of(placement) is not Phase.DOWNLOADING or placement.status.progress is None:
        return None
    return placement.status.progress.bytes_per_second


def _bytes(placements: list[TemplatePlacement], desired: int) -> tuple[int, int | None]:
    sizes = [size for size in map(size_of, placements) if size]
    downloaded = sum(map(downloaded_of, placements))
    # All are copies of the same bytes, so one known size is also the size of copies that have not started.
    total = sum(sizes) + max(sizes) * (desired - len(sizes)) if sizes else None
    return downloaded, total


def judged(metadata: ObjectMeta, status: Status) -> tuple[Verdict, str, str]:
    """The verdict of the conditions for the current generation, with the deciding condition's reason and message."""
    generation = metadata.generation
    ready, stalled = status.condition("Ready"), status.condition("Stalled")
    shown = stalled if stalled is not None and stalled.status is ConditionStatus.TRUE else ready
    reason, message = (shown.reason.value, shown.message) if shown is not None else ("", "")
    if (status.observed_generation or 0) < generation or metadata.deletion_timestamp is not None:
        return Verdict.RUNNING, reason, message
    for condition, verdict in ((stalled, Verdict.STALLED), (ready, Verdict.READY)):
        if condition is None or condition.status is not ConditionStatus.TRUE:
            continue
        # A condition can be older than the rest of the status; its observedGeneration shows that.
        if condition.observed_generation is None or condition.observed_generation >= generation:
            return verdict, reason, message
    return Verdict.RUNNING, reason, message


def _belongs(
    placement: TemplatePlacement,
    deployment: TemplateDeployment,
    host_labels: Mapping[str, Mapping[str, str]] | None,
) -> bool:
    spec = deployment.spec
    if placement.spec.template_ref.key != deployment.template_key or placement.spec.zone != spec.zone:
        return False
    if not spec.names(placement.spec.host):
        return False
    if spec.pools and placement.spec.pool not in spec.pools:
        return False
    return host_labels is None or spec.host_selector.matches(host_labels.get(placement.spec.host, {}))
