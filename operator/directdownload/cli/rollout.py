"""The state of a deployment: placements, counts, bytes, and whether it is over. Pure: no I/O, no clock.

`status`, `deploy --wait` and `status --watch` look at a deployment through `snapshot`; `screen` and `table` show it.
`judged` reads the conditions of any object; `certificate_state` uses it for certificates.
"""

import datetime
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from directdownload.cli.view import output, units
from directdownload.cli.view.screen import Line, Mood, Screen
from directdownload.resources.base import ConditionStatus, ObjectMeta, Status
from directdownload.resources.reasons import Reason
from directdownload.resources.templatedeployment import PlacementFailure, TemplateDeployment, WaitingCopies
from directdownload.resources.templateplacement import Phase, TemplatePlacement


class End(enum.Enum):
    RUNNING = enum.auto()
    READY = enum.auto()
    STALLED = enum.auto()


@dataclass(frozen=True, slots=True)
class Rollout:
    """A deployment at one moment. `placements` is also empty if the user may not see them."""

    deployment: TemplateDeployment
    placements: tuple[TemplatePlacement, ...]
    end: End
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
    end, reason, message = judged(deployment.metadata, status)
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
        end=end,
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


def judged(metadata: ObjectMeta, status: Status) -> tuple[End, str, str]:
    """The end by the conditions of the current generation, with the deciding condition's reason and message."""
    generation = metadata.generation
    ready, stalled = status.condition("Ready"), status.condition("Stalled")
    shown = stalled if stalled is not None and stalled.status is ConditionStatus.TRUE else ready
    reason, message = (shown.reason.value, shown.message) if shown is not None else ("", "")
    if (status.observed_generation or 0) < generation or metadata.deletion_timestamp is not None:
        return End.RUNNING, reason, message
    for condition, end in ((stalled, End.STALLED), (ready, End.READY)):
        if condition is None or condition.status is not ConditionStatus.TRUE:
            continue
        # A condition can be older than the rest of the status; its observedGeneration shows that.
        if condition.observed_generation is None or condition.observed_generation >= generation:
            return end, reason, message
    return End.RUNNING, reason, message


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


def screen(state: Rollout, now: datetime.datetime) -> Screen:
    """One line per copy of a deployment."""
    return Screen(tuple(_placement_line(placement, now) for placement in state.placements), _total(state))


def screen_of_all(states: Sequence[Rollout]) -> Screen:
    """One line per deployment, from what its status sums up."""
    lines = tuple(_deployment_line(state) for state in states)
    sizes = [state.bytes_total for state in states if state.bytes_total]
    ready = sum(state.end is End.READY for state in states)
    stalled = sum(state.end is End.STALLED for state in states)
    rate = sum(state.bytes_per_second or 0 for state in states if state.end is End.RUNNING)
    downloaded = sum(state.bytes_downloaded for state in states)
    notes = [f"ETA {units.span(max(0, sum(sizes) - downloaded) / rate)}"] if rate and sizes else []
    notes += [f"{stalled} failed"] if stalled else []
    total = Line(
        labels=("total", ""),
        state=f"{ready} of {units.count(len(states), 'deployment')} ready",
        mood=Mood.FAILED if stalled else Mood.DONE if ready == len(states) else Mood.ACTIVE,
        downloaded_bytes=downloaded,
        total_bytes=sum(sizes) if sizes else None,
        bytes_per_second=rate or None,
        note=", ".join(notes),
    )
    return Screen(lines, total)


def _note(placement: TemplatePlacement, now: datetime.datetime) -> str:
    """A download's time left. For other copies that are not Ready, the reason and the next attempt."""
    phase, reason, status = phase_of(placement), reason_of(placement), placement.status
    if phase is Phase.READY:
        return ""
    if phase is Phase.DOWNLOADING:
        eta = status.progress.eta_seconds if status.progress else None
        return "" if eta is None else f"ETA {units.span(eta)}"
    if phase is Phase.PENDING and status.next_attempt_time is not None and status.next_attempt_time > now:
        return f"{reason}, next attempt in {units.span((status.next_attempt_time - now).total_seconds())}"
    return reason


def _placement_line(placement: TemplatePlacement, now: datetime.datetime) -> Line:
    phase = phase_of(placement)
    # A transient failure stands out as well while it waits for its next attempt.
    retrying = phase is Phase.PENDING and placement.status.next_attempt_time is not None
    mood = {
        Phase.PENDING: Mood.FAILED if retrying else Mood.WAITING,
        Phase.DOWNLOADING: Mood.ACTIVE,
        Phase.READY: Mood.DONE,
        Phase.FAILED: Mood.FAILED,
        Phase.REMOVING: Mood.WAITING,
        # written by another version
        Phase.UNKNOWN: Mood.WAITING,
    }[phase]
    return Line(
        labels=(placement.spec.host, placement.spec.pool),
        state=phase.value,
        mood=mood,
        downloaded_bytes=downloaded_of(placement),
        total_bytes=size_of(placement),
        bytes_per_second=placement.status.progress.bytes_per_second if placement.status.progress else None,
        note=_note(placement, now),
    )


def _total(state: Rollout) -> Line:
    mood = {
        End.READY: Mood.DONE,
        End.STALLED: Mood.FAILED,
        End.RUNNING: Mood.ACTIVE,
    }[state.end]
    notes = []
    if mood is Mood.ACTIVE and state.eta_seconds is not None:
        notes.append(f"ETA {units.span(state.eta_seconds)}")
    if state.failed:
        notes.append(f"{state.failed} failed")
    waits = state.end is End.RUNNING and not state.downloading
    if state.reason and (waits or not state.desired):
        notes.append(state.reason)
    return Line(
        labels=("total", ""),
        state=f"{state.ready} of {state.desired} ready",
        mood=mood,
        downloaded_bytes=state.bytes_downloaded,
        total_bytes=state.bytes_total,
        bytes_per_second=state.bytes_per_second,
        note=", ".join(notes),
    )


def _deployment_line(state: Rollout) -> Line:
    mood = {
        End.READY: Mood.DONE,
        End.STALLED: Mood.FAILED,
        End.RUNNING: Mood.ACTIVE if state.downloading else Mood.WAITING,
    }[state.end]
    metadata = state.deployment.metadata
    eta = state.eta_seconds if mood is Mood.ACTIVE else None
    return Line(
        labels=(metadata.namespace, metadata.name),
        state=f"{state.ready} of {state.desired} ready",
        mood=mood,
        downloaded_bytes=state.bytes_downloaded,
        total_bytes=state.bytes_total,
        bytes_per_second=state.bytes_per_second,
        note="" if mood is Mood.DONE else f"ETA {units.span(eta)}" if eta is not None else state.reason,
    )


def table(placements: Iterable[TemplatePlacement], now: datetime.datetime) -> str:
    """The copies, by zone, host and pool."""
    ordered = sorted(placements, key=lambda item: (item.spec.zone, item.spec.host, item.spec.pool))
    return output.table(
        ("host", "pool", "phase", "percent", "size", "rate", "note", "attempts", "path"),
        [_row(placement, now) for placement in ordered],
    )


def _row(placement: TemplatePlacement, now: datetime.datetime) -> tuple[str, ...]:
    phase, size_bytes = phase_of(placement), size_of(placement)
    progress = placement.status.progress
    rate = progress.bytes_per_second if progress and phase is Phase.DOWNLOADING else None
    return (
        placement.spec.host,
        placement.spec.pool,
        phase.value,
        units.percent(downloaded_of(placement), size_bytes),
        units.size(size_bytes),
        units.rate(rate),
        _note(placement, now) or units.UNKNOWN,
        str(placement.status.attempts or 0),
        placement.spec.path,
    )


def stalled_text(state: Rollout) -> str:
    """Why the deployment has stalled, with a table of failures."""
    name = state.deployment.name
    lines = [f"Error: {name} has stalled: {state.reason}" + (f": {state.message}" if state.message else "")]
    table = failure_table(state)
    if table:
        lines += ["", table, ""]
        lines.append(
            "Other copies continue. Remove the cause, then request a retry: "
            f"kubectl annotate dddeploy {name} -n {state.deployment.metadata.namespace} --overwrite "
            'directdownload.dev/requested-at="$(date +%s)"'
            "\nThe controller serves one request a minute; a copy that waits for its next attempt serves it then."
        )
    return "\n".join(lines)


def failure_table(state: Rollout) -> str:
    """Failures of the deployment's status, which holds ten at most, and of the placements that the user sees.

    A placement has the cause; the status has what tenants may read of it.
    """
    rows: dict[tuple[str, str], tuple[str, str]] = {
        (failure.host, failure.pool): (failure.reason.value, failure.message) for failure in state.failures
    }
    for placement in state.placements:
        if phase_of(placement) is Phase.FAILED:
            key = (placement.spec.host, placement.spec.pool)
            rows[key] = (reason_of(placement), message_of(placement))
    if not rows:
        return ""
    return output.table(("host", "pool", "reason", "message"), sorted((*key, *value) for key, value in rows.items()))
