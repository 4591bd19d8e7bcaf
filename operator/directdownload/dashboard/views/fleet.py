"""The first page: zones, hosts, rollouts under way, failures by reason, certificates, pools by fill. Pure."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import NamedTuple

from directdownload.cli.rollout import End
from directdownload.cluster import kinds
from directdownload.dashboard import advice, commands, texts
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common
from directdownload.dashboard.views.common import Frame, Link, Problem, Row
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool

#: A pool this full, in percent, stands out.
FULL_PERCENT = 85
#: States of hosts in the order of the page.
STATES = ("Up", "Maintenance", "Down", "Unknown")


class ZoneRow(NamedTuple):
    name: str
    enabled: bool
    hosts: int
    #: in the order of `STATES`
    states: tuple[int, ...]
    status: str


class CertificateRow(NamedTuple):
    link: Link
    zone: str
    alias: str
    proved: int
    hosts: int
    failed: int
    expires: str
    #: empty: proved everywhere, and far from its end
    concern: str


class PoolRow(NamedTuple):
    name: str
    zone: str
    kind: str
    usable: str
    capacity_bytes: int | None
    available_bytes: int | None
    #: None: not reported
    percent: int | None
    #: of the fullest host; None: not reported, or no hosts are known
    fullest_percent: int | None
    fullest: Link | None
    full: bool
    status: str


@dataclasses.dataclass(frozen=True)
class FleetPage:
    frame: Frame
    zones: Sequence[ZoneRow]
    host_states: Sequence[tuple[str, int]]
    #: under way or failing, the others are counted
    rollouts: Sequence[Row]
    more_rollouts: int
    converged: int
    ready: int
    desired: int
    downloaded_bytes: int
    total_bytes: int
    bytes_per_second: int
    seconds_left: int | None
    problems: Sequence[Problem]
    #: whether `problems` has all copies, or the samples of statuses
    counted: bool
    certificates: Sequence[CertificateRow]
    certificates_fine: int
    pools: Sequence[PoolRow]
    commands: Sequence[str]
    #: kinds that may be read, by plural
    known: frozenset[str]

    @property
    def percent(self) -> int:
        return self.ready * 100 // self.desired if self.desired else 0


def page(picture: Picture, now: datetime.datetime) -> FleetPage:
    rows = [common.row(picture, each) for each in sorted(picture.rollouts(), key=lambda each: each.key)]
    moving = [row for row in rows if row.end is not End.READY or row.progress.failing]
    moving.sort(key=lambda row: (row.end is not End.STALLED, not row.progress.failing, row.progress.percent))
    under_way = [row.progress for row in rows if row.end is End.RUNNING]
    # Of those whose size is known: the time that is left would otherwise be of others as well.
    sized = [each for each in under_way if each.total_bytes is not None]
    total, downloaded = sum(each.total_bytes or 0 for each in sized), sum(each.downloaded_bytes for each in sized)
    rate = sum(each.bytes_per_second for each in under_way)
    certificates = [certificate_row(each, now) for each in sorted(picture.certificates, key=lambda each: each.name)]
    return FleetPage(
        frame=common.frame(picture),
        zones=_zones(picture),
        host_states=states(picture),
        rollouts=moving[: common.MOST_ROWS],
        more_rollouts=max(0, len(moving) - common.MOST_ROWS),
        converged=len(rows) - len(moving),
        ready=sum(each.ready for each in under_way),
        desired=sum(each.desired for each in under_way),
        downloaded_bytes=downloaded,
        total_bytes=total,
        bytes_per_second=rate,
        seconds_left=max(0, total - downloaded) // rate if rate and total else None,
        problems=_problems(picture, rows),
        counted=picture.copies_known,
        certificates=[row for row in certificates if row.concern][: common.MOST_ROWS],
        certificates_fine=sum(not row.concern for row in certificates),
        pools=_pools(picture),
        commands=commands.fleet(picture.zone),
        known=frozenset(resource.plural for resource, feed in picture.feeds.items() if feed.known),
    )


def _zones(picture: Picture) -> list[ZoneRow]:
    rows = []
    for zone in sorted(picture.zones, key=lambda each: each.name):
        if picture.zone not in (None, zone.name):
            continue
        states = tuple(picture.host_states[zone.name, state] for state in STATES)
        counts = zone.status.hosts
        hosts = sum(states) if picture.feeds[kinds.HOSTS].known else counts.total if counts else 0
        rows.append(ZoneRow(zone.name, zone.spec.enabled, hosts, states, common.ready_word(zone.status)))
    return rows


def states(picture: Picture) -> list[tuple[str, int]]:
    sums = dict.fromkeys(STATES, 0)
    for (_, state), number in picture.host_states.items():
        sums[state] += number
    return list(sums.items())


def _problems(picture: Picture, rows: Sequence[Row]) -> list[Problem]:
    found: dict[str, int] = {}
    if picture.copies_known:
        for tally in picture.tallies.values():
            for reason, number in tally.failing.items():
                found[reason] = found.get(reason, 0) + number
    else:
        for row in rows:
            for reason, number in row.progress.failing.items():
                found[reason] = found.get(reason, 0) + number
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [Problem(reason, number, advice.of(reason)) for reason, number in ordered]


def certificate_row(certificate: DirectDownloadCertificate, now: datetime.datetime) -> CertificateRow:
    status = certificate.status
    hosts = status.hosts
    proved, failed = (hosts.uploaded + hosts.revoked, hosts.failed) if hosts else (0, 0)
    desired = hosts.desired if hosts else 0
    concern = ""
    expiring = status.condition("Expiring")
    if status.not_after is not None and status.not_after <= now and not certificate.spec.revoked:
        concern = Reason.EXPIRED.value
    elif expiring is not None and expiring.status == "True":
        concern = expiring.reason.value
    elif hosts is None or proved + hosts.down < desired or failed:
        concern = common.ready_word(status)
        concern = "not proven everywhere" if concern == "Ready" else concern
    elif (ready := status.condition("Ready")) is not None and ready.status != "True":
        concern = ready.reason.value
    return CertificateRow(
        common.certificate_link(certificate.name),
        certificate.spec.zone,
        certificate.spec.alias,
        proved,
        desired,
        failed,
        texts.moment(status.not_after),
        concern,
    )


def _pools(picture: Picture) -> list[PoolRow]:
    fullest: dict[str, tuple[int, str]] = {}
    for host in picture.hosts:
        for storage in host.status.storage:
            if (used := used_percent(storage.capacity_bytes, storage.available_bytes)) is not None:
                held = fullest.get(storage.pool)
                if held is None or used > held[0]:
                    fullest[storage.pool] = (used, host.name)
    rows = [_pool(each, fullest.get(each.name)) for each in picture.pools]
    return sorted(rows, key=lambda row: (-(row.fullest_percent or row.percent or 0), row.name))[: common.MOST_ROWS]


def _pool(pool: StoragePool, fullest: tuple[int, str] | None) -> PoolRow:
    status, hosts = pool.status, pool.status.hosts
    percent = used_percent(status.capacity_bytes, status.available_bytes)
    most, name = fullest if fullest is not None else (None, "")
    return PoolRow(
        name=pool.name,
        zone=pool.spec.zone,
        kind=pool.spec.type,
        usable=f"{hosts.ready} of {hosts.total}" if hosts else "",
        capacity_bytes=status.capacity_bytes,
        available_bytes=status.available_bytes,
        percent=percent,
        fullest_percent=most,
        fullest=common.host_link(name) if name else None,
        full=max(percent or 0, most or 0) >= FULL_PERCENT,
        status=common.ready_word(status),
    )


def used_percent(capacity_bytes: int | None, available_bytes: int | None) -> int | None:
    """Rounded up, so that 0 means empty."""
    if not capacity_bytes or available_bytes is None:
        return None
    return min(100, max(0, -((available_bytes - capacity_bytes) * 100 // capacity_bytes)))
