"""Placements of a template: reads and lists them, also for users who may not see placements."""

import datetime
from collections.abc import Iterable

from directdownload.cli import boards, output, reading, rollout, units
from directdownload.cli.session import Session
from directdownload.cluster import errors, kinds
from directdownload.resources import naming
from directdownload.resources.base import GROUP
from directdownload.resources.templateplacement import Phase, TemplatePlacement


def selector(template_namespace: str, template_name: str) -> str:
    """Selects by the controller's labels. Long names are cut to prefix and hash, so compare the full key as well."""
    return (
        f"{GROUP}/template={naming.label_value(template_name)},"
        f"{GROUP}/template-namespace={naming.label_value(template_namespace)}"
    )


async def of_template(session: Session, template_namespace: str, template_name: str) -> list[TemplatePlacement] | None:
    """None if the user may not list placements, which are for administrators of hosts."""
    try:
        documents, _ = await session.api.list(
            kinds.TEMPLATE_PLACEMENTS, label_selector=selector(template_namespace, template_name)
        )
    except errors.Forbidden:
        return None
    found = reading.readable(TemplatePlacement.model_validate, documents)
    key = f"{template_namespace}/{template_name}"
    return [placement for placement in found if placement.spec.template_ref.key == key]


def table(placements: Iterable[TemplatePlacement]) -> str:
    now = datetime.datetime.now(datetime.UTC)
    ordered = sorted(placements, key=lambda item: (item.spec.zone, item.spec.host, item.spec.pool))
    return output.table(
        ("host", "pool", "phase", "percent", "size", "rate", "note", "attempts", "path"),
        [_row(placement, now) for placement in ordered],
    )


def _row(placement: TemplatePlacement, now: datetime.datetime) -> tuple[str, ...]:
    phase, size_bytes = rollout.phase_of(placement), rollout.size_of(placement)
    progress = placement.status.progress
    rate = progress.bytes_per_second if progress and phase is Phase.DOWNLOADING else None
    return (
        placement.spec.host,
        placement.spec.pool,
        phase.value,
        units.percent(rollout.downloaded_of(placement), size_bytes),
        units.size(size_bytes),
        units.rate(rate),
        boards.placement_note(placement, now) or units.UNKNOWN,
        str(placement.status.attempts or 0),
        placement.spec.path,
    )
