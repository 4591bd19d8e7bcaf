"""The list of certificates, and one of them: each host's proof. Pure."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import NamedTuple

from directdownload.cli import certificate_state
from directdownload.cli.certificate_state import ProofState, State
from directdownload.cluster import kinds
from directdownload.dashboard import commands, texts
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common, fleet, heatmap
from directdownload.dashboard.views.common import Frame, Link, Said
from directdownload.dashboard.views.fleet import CertificateRow
from directdownload.dashboard.views.heatmap import HeatMap

MOST_CERTIFICATES = 1000
_CELLS = {
    State.UPLOADED: "cu",
    State.REVOKED: "cr",
    State.FAILED: "cf",
    State.SKIPPED: "cs",
    State.PENDING: "cp",
}


@dataclasses.dataclass(frozen=True)
class CertificatesPage:
    frame: Frame
    rows: Sequence[CertificateRow]
    more: int
    commands: Sequence[str]


class ProofRow(NamedTuple):
    host: Link
    state: str
    details: str


@dataclasses.dataclass(frozen=True)
class CertificatePage:
    name: str
    frame: Frame
    facts: Sequence[tuple[str, str]]
    concern: str
    end: ProofState
    conditions: Sequence[Said]
    proved: int
    failed: int
    pending: int
    skipped: int
    total: int
    #: hosts without a proof
    rows: Sequence[ProofRow]
    more: int
    #: None: the user may not read hosts
    map: HeatMap | None
    commands: Sequence[str]

    @property
    def percent(self) -> int:
        return self.proved * 100 // self.total if self.total else 0


def listing(picture: Picture, now: datetime.datetime) -> CertificatesPage:
    ordered = sorted(picture.certificates, key=lambda each: each.name)
    rows = sorted((fleet.certificate_row(each, now) for each in ordered), key=lambda row: not row.concern)
    return CertificatesPage(
        common.frame(picture),
        rows[:MOST_CERTIFICATES],
        max(0, len(rows) - MOST_CERTIFICATES),
        commands.certificates(picture.zone),
    )


def page(picture: Picture, name: str, by: str | None, now: datetime.datetime) -> CertificatePage | None:
    """None: there is no such certificate, or none to see."""
    certificate = picture.certificates.get(name)
    if certificate is None:
        return None
    known = picture.feeds[kinds.HOSTS].known
    state = certificate_state.snapshot(certificate, picture.hosts if known else None)
    status, spec = certificate.status, certificate.spec
    facts = [
        ("Zone", spec.zone),
        ("Alias", spec.alias),
        ("Revoked", "yes" if spec.revoked else ", ".join(spec.revoked_hosts[: common.SAMPLES])),
        ("Subject", status.subject or ""),
        ("Issuer", status.issuer or ""),
        ("Serial number", status.serial_number or ""),
        ("SHA-256", status.fingerprint_sha256 or ""),
        ("Valid from", texts.moment(status.not_before) if status.not_before else ""),
        ("Valid until", texts.moment(status.not_after) if status.not_after else ""),
    ]
    proofs = state.hosts or ()
    missing = [each for each in proofs if each.state not in certificate_state.PROVED]
    missing.sort(key=lambda each: (each.state is not State.FAILED, each.state is State.SKIPPED, each.host))
    if state.hosts is None:
        rows = [
            ProofRow(common.host_link(each.host), State.FAILED.value, f"{each.reason.value}: {each.message}")
            for each in state.failures
        ]
    else:
        rows = [ProofRow(common.host_link(each.host), each.state.value, each.details) for each in missing]
    cells = {each.host: _CELLS[each.state] for each in proofs}
    return CertificatePage(
        name=name,
        frame=common.frame(picture),
        facts=[(label, text) for label, text in facts if text],
        concern=fleet.certificate_row(certificate, now).concern,
        end=state.end,
        conditions=common.conditions(status),
        proved=state.proved,
        failed=state.failed,
        pending=state.pending,
        skipped=state.skipped,
        total=state.total,
        rows=rows[: common.MOST_ROWS],
        more=max(0, len(rows) - common.MOST_ROWS),
        map=heatmap.build(cells, picture.hosts_by_name, picture.labels, by) if known else None,
        commands=commands.certificate(name, spec.zone),
    )
