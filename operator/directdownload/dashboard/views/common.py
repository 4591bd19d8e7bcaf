"""What several pages show: rows of rollouts, failures with advice, and what is said on every page. Pure."""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from directdownload.cli import rollout
from directdownload.cli.rollout import End
from directdownload.cli.view import units
from directdownload.dashboard import advice, feeds, texts
from directdownload.dashboard.advice import Advice
from directdownload.dashboard.copies import Copy, Tally, tallied
from directdownload.dashboard.picture import Picture
from directdownload.resources.base import ConditionStatus, Status
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase

#: Rows of a table: what there are more is counted.
MOST_ROWS = 100
#: Names of hosts beside a reason.
SAMPLES = 5


class Link(NamedTuple):
    text: str
    address: str


class Problem(NamedTuple):
    """Copies, or hosts, that have one reason in common."""

    reason: str
    #: 0: only that there are some
    number: int
    advice: Advice | None
    hosts: tuple[Link, ...] = ()
    message: str = ""


class Said(NamedTuple):
    """One condition of an object."""

    type: str
    status: str
    reason: str
    message: str
    since: str
    advice: Advice | None


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout is: of all copies if the user may read them, else by the counts of its status."""

    desired: int
    counts: Mapping[Phase, int]
    downloaded_bytes: int
    total_bytes: int | None
    bytes_per_second: int
    failing: Mapping[str, int]

    @property
    def ready(self) -> int:
        return self.counts.get(Phase.READY, 0)

    @property
    def percent(self) -> int:
        return units.whole_percent(self.ready, self.desired) or 0

    @property
    def failed(self) -> int:
        return self.counts.get(Phase.FAILED, 0)

    @property
    def seconds_left(self) -> int | None:
        if self.total_bytes is None or not self.bytes_per_second:
            return None
        return max(0, self.total_bytes - self.downloaded_bytes) // self.bytes_per_second


class Row(NamedTuple):
    """A rollout in a list."""

    link: Link
    template: Link
    zone: str
    progress: Progress
    end: End
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """What every page says: what is not shown, and whether what is shown is current."""

    notes: Sequence[str]
    #: `12:03:05`; empty: all is live
    as_of: str
    reconnecting: bool


def frame(picture: Picture) -> Frame:
    found = feeds.notes(picture.all_feeds)
    for resource, store in picture.stores.items():
        if number := len(store.unreadable):
            found.append(f"{number} of {resource.plural} cannot be read by this version, and are not shown.")
    since = feeds.lost_since(picture.all_feeds)
    return Frame(tuple(found), texts.clock(since) if since else "", feeds.unreachable(picture.all_feeds))


def host_link(name: str) -> Link:
    return Link(name, texts.path("hosts", name))


def template_link(key: str) -> Link:
    return Link(key, texts.path("templates", *key.split("/", 1)))


def rollout_link(key: str) -> Link:
    return Link(key, texts.path("rollouts", *key.split("/", 1)))


def certificate_link(name: str) -> Link:
    return Link(name, texts.path("certificates", name))


def copies_of(picture: Picture, deployment: TemplateDeployment) -> dict[str, Copy]:
    """Its copies among those of its template; hosts whose labels are not known count as selected."""
    spec, found = deployment.spec, picture.copies_of(deployment.template_key)
    if not _selective(deployment):
        return {key: copy for key, copy in found.items() if copy.zone == spec.zone}
    pools = frozenset(spec.pools)

    def belongs(copy: Copy) -> bool:
        if copy.zone != spec.zone or (pools and copy.pool not in pools) or not spec.names(copy.host):
            return False
        host = picture.hosts.get(copy.host)
        return host is None or spec.host_selector.matches(host.metadata.labels)

    return {key: copy for key, copy in found.items() if belongs(copy)}


def _selective(deployment: TemplateDeployment) -> bool:
    """Whether it wants only some of its template's copies in its zone."""
    spec = deployment.spec
    selector = spec.host_selector
    return bool(spec.hosts or spec.pools or selector.match_labels or selector.match_expressions)


def progress(picture: Picture, deployment: TemplateDeployment, copies: Mapping[str, Copy] | None = None) -> Progress:
    """Without `copies` none is counted, as for each row of a list that would take too long: of a deployment that
    selects some of its template's copies only its status has the counts then, which is a few seconds old."""
    if not picture.copies_known:
        return _from_status(deployment)
    if not _selective(deployment):
        tally = picture.tally(deployment.template_key, deployment.spec.zone)
    elif copies is not None:
        tally = tallied(copies)
    else:
        return _from_status(deployment)
    return of_tally(deployment, tally) if tally.staying else _from_status(deployment)


def of_tally(deployment: TemplateDeployment, tally: Tally) -> Progress:
    counts = deployment.status.placements
    desired = max(tally.staying, (counts.desired or 0) if counts else 0)
    total = tally.expected_bytes(desired)
    return Progress(
        desired, dict(tally.phases), tally.downloaded_bytes, total, tally.bytes_per_second, dict(tally.failing)
    )


def _from_status(deployment: TemplateDeployment) -> Progress:
    counts, sums = deployment.status.placements, deployment.status.bytes
    phases: dict[Phase, int] = {}
    if counts is not None:
        phases = {
            Phase.READY: counts.ready,
            Phase.DOWNLOADING: counts.downloading,
            Phase.PENDING: counts.pending,
            Phase.FAILED: counts.failed,
        }
    failing: dict[str, int] = {}
    for failure in deployment.status.failures:
        failing[failure.reason.value] = failing.get(failure.reason.value, 0) + 1
    desired = (counts.desired or 0) if counts else 0
    downloaded, total = (sums.downloaded, sums.total or None) if sums else (0, None)
    return Progress(desired, phases, downloaded, total, 0, failing)


def row(picture: Picture, deployment: TemplateDeployment) -> Row:
    end, reason, _ = rollout.judged(deployment.metadata, deployment.status)
    return Row(
        link=rollout_link(deployment.key),
        template=template_link(deployment.template_key),
        zone=deployment.spec.zone,
        progress=progress(picture, deployment),
        end=end,
        reason=reason,
    )


def problems(copies: Iterable[Copy]) -> list[Problem]:
    """The failing copies by reason, the most frequent first."""
    found: dict[str, list[Copy]] = {}
    for copy in copies:
        if copy.failing:
            found.setdefault(copy.reason, []).append(copy)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Problem(
            reason,
            len(failing),
            advice.of(reason),
            tuple(host_link(host) for host in sorted({copy.host for copy in failing})[:SAMPLES]),
            min(failing, key=lambda copy: copy.host).message,
        )
        for reason, failing in ordered
    ]


def conditions(status: Status) -> list[Said]:
    return [
        Said(
            each.type,
            each.status.value,
            each.reason.value,
            each.message,
            texts.moment(each.last_transition_time),
            advice.of(each.reason.value),
        )
        for each in status.conditions
    ]


def ready_word(status: Status) -> str:
    """`Ready`, or the reason why it is not."""
    condition = status.condition("Ready")
    if condition is None:
        return "not reported"
    return "Ready" if condition.status is ConditionStatus.TRUE else condition.reason.value


def chart(samples: Sequence[tuple[datetime.datetime, int, int]], now: datetime.datetime) -> str:
    """Points of a line in a box of 600 by 100: the share of Ready copies over the time since the first sample."""
    if len(samples) < 2:
        return ""
    first, end = samples[0][0], max(now, samples[-1][0])
    width = max(1.0, (end - first).total_seconds())
    level = 100.0
    points: list[str] = []
    for time, ready, desired in samples:
        left = 600 * (time - first).total_seconds() / width
        points.append(f"{left:.1f},{level:.1f}" if points else "")
        level = 100 - 100 * ready / desired if desired else 100.0
        points.append(f"{left:.1f},{level:.1f}")
    return " ".join(filter(None, [*points, f"600,{level:.1f}"]))
