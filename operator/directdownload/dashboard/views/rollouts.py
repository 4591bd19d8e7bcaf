"""The list of rollouts, and one of them: how far it is, a cell per host, what fails and what to do. Pure."""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from directdownload.cli import rollout
from directdownload.cli.rollout import End
from directdownload.cluster import kinds
from directdownload.dashboard import advice, commands, texts
from directdownload.dashboard.advice import Advice
from directdownload.dashboard.copies import Copy
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common, heatmap
from directdownload.dashboard.views.common import Frame, Link, Problem, Progress, Row
from directdownload.dashboard.views.heatmap import HeatMap
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase

#: Rows of the list of all.
MOST_ROLLOUTS = 1000
#: Phases in the order of the page.
PHASES = (Phase.READY, Phase.DOWNLOADING, Phase.PENDING, Phase.FAILED, Phase.REMOVING, Phase.UNKNOWN)


@dataclasses.dataclass(frozen=True)
class RolloutsPage:
    frame: Frame
    rows: Sequence[Row]
    more: int
    commands: Sequence[str]


class FailingRow(NamedTuple):
    host: Link
    pool: str
    phase: str
    reason: str
    message: str
    attempts: int
    next_attempt: str


class WaitingRow(NamedTuple):
    reason: str
    number: int
    message: str
    advice: Advice | None


@dataclasses.dataclass(frozen=True)
class RolloutPage:
    name: str
    namespace: str
    frame: Frame
    template: Link
    zone: str
    end: End
    reason: str
    message: str
    advice: Advice | None
    paused: bool
    progress: Progress
    counts: Sequence[tuple[str, int]]
    chart: str
    since: str
    problems: Sequence[Problem]
    failing: Sequence[FailingRow]
    more_failing: int
    waiting: Sequence[WaitingRow]
    #: None: the user may neither read hosts nor copies
    map: HeatMap | None
    #: the user may read copies: otherwise the cells say only which hosts are selected
    copies_known: bool
    commands: Sequence[str]


def listing(picture: Picture) -> RolloutsPage:
    rows = [common.row(picture, each) for each in sorted(picture.rollouts(), key=lambda each: each.key)]
    return RolloutsPage(
        common.frame(picture), rows[:MOST_ROLLOUTS], max(0, len(rows) - MOST_ROLLOUTS), commands.rollouts()
    )


def page(picture: Picture, key: str, by: str | None, now: datetime.datetime) -> RolloutPage | None:
    """`key`: `namespace/name`; `by`: the label that groups the map. None: there is no such rollout, or none to see."""
    deployment = picture.deployments.get(key)
    if deployment is None:
        return None
    copies = common.copies_of(picture, deployment)
    progress = common.progress(picture, deployment, copies)
    end, reason, message = rollout.judged(deployment.metadata, deployment.status)
    failing, more_failing = _failing(copies.values()) if copies else _from_status(deployment)
    samples = picture.history.of(key)
    namespace, template = deployment.template_key.split("/", 1)
    return RolloutPage(
        name=deployment.name,
        namespace=deployment.metadata.namespace,
        frame=common.frame(picture),
        template=common.template_link(deployment.template_key),
        zone=deployment.spec.zone,
        end=end,
        reason=reason,
        message=message,
        advice=advice.of(reason),
        paused=deployment.spec.rollout.paused,
        progress=progress,
        counts=[(phase.value, progress.counts.get(phase, 0)) for phase in PHASES if progress.counts.get(phase)],
        chart=common.chart(samples, now),
        since=texts.clock(samples[0].time) if samples else "",
        problems=common.problems(copies.values()) if copies else _status_problems(deployment),
        failing=failing,
        more_failing=more_failing,
        waiting=[
            WaitingRow(each.reason.value, each.count, each.message, advice.of(each.reason.value))
            for each in deployment.status.waiting
        ],
        map=_map(picture, deployment, copies, by),
        copies_known=picture.feeds[kinds.TEMPLATE_PLACEMENTS].known,
        commands=commands.rollout(deployment.metadata.namespace, deployment.name, namespace, template),
    )


def _map(picture: Picture, deployment: TemplateDeployment, copies: dict[str, Copy], by: str | None) -> HeatMap | None:
    hosts, placements = picture.feeds[kinds.HOSTS], picture.feeds[kinds.TEMPLATE_PLACEMENTS]
    if not hosts.known and not copies:
        return None
    spec = deployment.spec
    selected = (
        host.name
        for host in picture.hosts
        if host.spec.zone == spec.zone and spec.selects(host.name, host.metadata.labels)
    )
    cells = heatmap.of_copies(copies.values(), selected, loading=not placements.complete)
    if not placements.known and not copies:
        failed = {failure.host for failure in deployment.status.failures}
        cells = {host: "f" if host in failed else "l" if placements.state.name == "LOADING" else "u" for host in cells}
    return heatmap.build(cells, picture.hosts_by_name, picture.labels, by)


def _failing(copies: Iterable[Copy]) -> tuple[list[FailingRow], int]:
    """Rows, and how many more there are."""
    found = [copy for copy in copies if copy.failing]
    found.sort(key=lambda copy: (copy.phase is not Phase.FAILED, copy.host, copy.pool))
    rows = [
        FailingRow(
            common.host_link(copy.host),
            copy.pool,
            copy.phase.value,
            copy.reason,
            copy.message,
            copy.attempts,
            copy.next_attempt,
        )
        for copy in found[: common.MOST_ROWS]
    ]
    return rows, len(found) - len(rows)


def _from_status(deployment: TemplateDeployment) -> tuple[list[FailingRow], int]:
    """What tenants may read of failures: up to ten."""
    rows = [
        FailingRow(common.host_link(each.host), each.pool, "", each.reason.value, each.message, 0, "")
        for each in deployment.status.failures
    ]
    return rows, 0


def _status_problems(deployment: TemplateDeployment) -> list[Problem]:
    reasons = dict.fromkeys(each.reason.value for each in deployment.status.failures)
    return [Problem(reason, 0, advice.of(reason)) for reason in reasons]
