"""The map of all hosts, and one host: its copies, storage, keystore proofs and Events. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from directdownload.cluster import kinds
from directdownload.dashboard import advice, commands, texts
from directdownload.dashboard.advice import Advice
from directdownload.dashboard.copies import Copy
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common, fleet, heatmap
from directdownload.dashboard.views.common import Frame, Link, Said
from directdownload.dashboard.views.heatmap import HeatMap
from directdownload.planning.observed import ObservedHost
from directdownload.resources.templateplacement import Phase

#: Copies and proofs of one host.
MOST_COPIES = 500
_OF_STATE = {"Up": "up", "Down": "dn", "Maintenance": "mt"}


@dataclasses.dataclass(frozen=True)
class HostsPage:
    frame: Frame
    states: Sequence[tuple[str, int]]
    #: None: the user may not read hosts
    map: HeatMap | None
    commands: Sequence[str]


class CopyRow(NamedTuple):
    template: Link
    pool: str
    phase: str
    percent: int | None
    size_bytes: int | None
    bytes_per_second: int
    reason: str
    message: str
    attempts: int
    next_attempt: str
    verified: str
    path: str
    advice: Advice | None


class StorageRow(NamedTuple):
    pool: str
    path: str
    capacity_bytes: int | None
    available_bytes: int | None
    percent: int | None
    full: bool
    reason: str
    advice: Advice | None
    unplaced_bytes: int | None
    missing_options: str
    command: str


class ProofRow(NamedTuple):
    certificate: Link
    state: str
    reason: str
    message: str
    fingerprint: str


class EventRow(NamedTuple):
    last_seen: str
    type: str
    reason: str
    message: str
    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Events:
    """Events of one object. `refusal`: why there are none to see; `pending`: they have been asked for."""

    rows: Sequence[EventRow] = ()
    refusal: str = ""
    pending: bool = True


@dataclasses.dataclass(frozen=True)
class HostPage:
    name: str
    frame: Frame
    facts: Sequence[tuple[str, str]]
    state: str
    conditions: Sequence[Said]
    copies: Sequence[CopyRow]
    more_copies: int
    copies_known: bool
    storage: Sequence[StorageRow]
    keystore: Sequence[tuple[str, str]]
    proofs: Sequence[ProofRow]
    more_proofs: int
    events: Events
    commands: Sequence[str]


def listing(picture: Picture, by: str | None) -> HostsPage:
    cells = {host.name: _OF_STATE.get(str(host.status.state or ""), "u") for host in picture.hosts}
    known = picture.feeds[kinds.HOSTS].known
    return HostsPage(
        common.frame(picture),
        fleet.states(picture),
        heatmap.build(cells, picture.hosts_by_name, picture.labels, by) if known else None,
        commands.hosts(picture.zone),
    )


def page(picture: Picture, name: str, events: Events) -> HostPage | None:
    """None: there is no such Host, or none to see."""
    host = picture.hosts.get(name)
    if host is None:
        return None
    status = host.status
    copies = sorted(picture.copies_on(name).values(), key=lambda copy: (copy.template, copy.pool))
    facts = [
        ("Zone", host.spec.zone),
        ("Allocation", host.spec.allocation_state),
        ("Architecture", str(status.architecture or "")),
        ("Agent", status.agent_version or ""),
        ("Volumes of pods", str(sum(demand.volumes for demand in status.demands))),
        ("Created", texts.moment(host.metadata.creation_timestamp)),
    ]
    proofs = _proofs(host)
    return HostPage(
        name=name,
        frame=common.frame(picture),
        facts=[(label, text) for label, text in facts if text],
        state=str(status.state or "not reported"),
        conditions=common.conditions(status),
        copies=[_copy(copy) for copy in copies[:MOST_COPIES]],
        more_copies=max(0, len(copies) - MOST_COPIES),
        copies_known=picture.feeds[kinds.TEMPLATE_PLACEMENTS].known,
        storage=_storage(host),
        keystore=_keystore(host),
        proofs=proofs[:MOST_COPIES],
        more_proofs=max(0, len(proofs) - MOST_COPIES),
        events=events,
        commands=commands.host(name, host.spec.zone),
    )


def _copy(copy: Copy) -> CopyRow:
    fine = copy.phase is Phase.READY
    return CopyRow(
        template=common.template_link(copy.template),
        pool=copy.pool,
        phase=copy.phase.value,
        percent=copy.percent,
        size_bytes=copy.size_bytes,
        bytes_per_second=copy.bytes_per_second,
        reason=copy.reason,
        message="" if fine else copy.message,
        attempts=copy.attempts,
        next_attempt=copy.next_attempt,
        verified=copy.verified,
        path=copy.path,
        advice=None if fine else advice.of(copy.reason),
    )


def _storage(host: ObservedHost) -> list[StorageRow]:
    rows = []
    for each in host.status.storage:
        used = fleet.used_percent(each.capacity_bytes, each.available_bytes)
        reason = each.reason.value if each.reason else ""
        rows.append(
            StorageRow(
                each.pool,
                each.path or "",
                each.capacity_bytes,
                each.available_bytes,
                used,
                (used or 0) >= fleet.FULL_PERCENT,
                reason,
                advice.of(reason),
                each.unplaced_bytes,
                ", ".join(each.missing_mount_options),
                commands.pool(each.pool, host.name),
            )
        )
    return rows


def _keystore(host: ObservedHost) -> list[tuple[str, str]]:
    keystore = host.status.keystore
    if keystore is None:
        return []
    drift = keystore.last_drift
    facts = [
        ("Path", host.spec.keystore.path),
        ("Type", str(keystore.type or "")),
        ("Entries", f"{keystore.entries or 0}, of them {keystore.managed or 0} by the agent"),
        ("Read back", texts.moment(keystore.last_verified_time)),
        ("SHA-256", keystore.sha256 or ""),
        ("Last repair", f"{drift.kind} {drift.alias or ''}, {texts.moment(drift.time)}" if drift else ""),
    ]
    return [(label, text) for label, text in facts if text]


def _proofs(host: ObservedHost) -> list[ProofRow]:
    rows = [
        ProofRow(
            common.certificate_link(each.name),
            str(each.state),
            each.reason.value if each.reason else "",
            each.message or "",
            each.fingerprint_sha256 or "",
        )
        for each in host.proofs.values()
    ]
    return sorted(rows, key=lambda row: (row.state != "Failed", row.state == "Uploaded", row.certificate.text))


def events_of(documents: Sequence[Mapping[str, Any]]) -> Events:
    """From Events of the core API, the newest first. One that cannot be read is left out."""
    rows = []
    for document in documents:
        try:
            series = document.get("series") or {}
            seen = series.get("lastObservedTime") or document.get("lastTimestamp") or document.get("eventTime") or ""
            count = series.get("count") or document.get("count") or 1
            kind, reason, message = (str(document.get(name) or "") for name in ("type", "reason", "message"))
            rows.append(EventRow(str(seen), kind, reason, message, int(count)))
        except (AttributeError, TypeError, ValueError):
            continue
    rows.sort(key=lambda row: row.last_seen, reverse=True)
    return Events(rows[: common.MOST_ROWS], pending=False)
