"""The list of templates, and one of them: its source, its copies by zone, its rollouts, what fails. Pure."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from directdownload.dashboard import commands, texts
from directdownload.dashboard.copies import Tally
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common
from directdownload.dashboard.views.common import Frame, Link, Problem, Row, Said
from directdownload.resources import urls
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase

MOST_TEMPLATES = 1000


class TemplateRow(NamedTuple):
    link: Link
    format: str
    size_bytes: int | None
    copies: int
    ready: int
    status: str


@dataclasses.dataclass(frozen=True)
class TemplatesPage:
    frame: Frame
    rows: Sequence[TemplateRow]
    more: int
    commands: Sequence[str]


class ZoneRow(NamedTuple):
    zone: str
    copies: int
    ready: int
    failing: int


@dataclasses.dataclass(frozen=True)
class TemplatePage:
    name: str
    namespace: str
    frame: Frame
    #: label and text; URLs have neither user nor query
    facts: Sequence[tuple[str, str]]
    status: str
    conditions: Sequence[Said]
    zones: Sequence[ZoneRow]
    rollouts: Sequence[Row]
    problems: Sequence[Problem]
    commands: Sequence[str]


def listing(picture: Picture) -> TemplatesPage:
    rows = [_row(each) for each in sorted(picture.templates, key=lambda each: each.key)]
    return TemplatesPage(
        common.frame(picture), rows[:MOST_TEMPLATES], max(0, len(rows) - MOST_TEMPLATES), commands.templates()
    )


def page(picture: Picture, key: str) -> TemplatePage | None:
    """`key`: `namespace/name`. None: there is no such Template, or none to see."""
    template = picture.templates.get(key)
    if template is None:
        return None
    spec, status = template.spec, template.status
    facts = [
        ("Description", spec.display_text),
        ("URL", urls.redact(spec.url)),
        ("Mirrors", ", ".join(map(urls.redact, spec.mirrors))),
        ("Format", spec.format),
        ("Type", spec.type),
        ("Architecture", spec.architecture),
        ("Checksum", spec.checksum or ""),
        ("Digest of the copies", status.digest or ""),
        ("Size", status.size or ""),
        ("Virtual size", status.virtual_size or ""),
        ("Zones", ", ".join(spec.zones)),
        ("Created", texts.moment(template.metadata.creation_timestamp)),
    ]
    rollouts = [each for each in picture.rollouts() if each.template_key == key]
    return TemplatePage(
        name=template.name,
        namespace=template.metadata.namespace,
        frame=common.frame(picture),
        facts=[(label, text) for label, text in facts if text],
        status=common.ready_word(status),
        conditions=common.conditions(status),
        zones=[_zone(zone, tally) for zone, tally in sorted(_tallies(picture, key).items())],
        rollouts=[common.row(picture, each) for each in sorted(rollouts, key=lambda each: each.key)],
        problems=common.problems(picture.copies_of(key).values()),
        commands=commands.template(template.metadata.namespace, template.name),
    )


def _tallies(picture: Picture, key: str) -> dict[str, Tally]:
    return {zone: tally for (template, zone), tally in picture.tallies.items() if template == key and tally.phases}


def _zone(zone: str, tally: Tally) -> ZoneRow:
    return ZoneRow(zone, tally.staying, tally.phases.get(Phase.READY, 0), sum(tally.failing.values()))


def _row(template: Template) -> TemplateRow:
    status, counts = template.status, template.status.placements
    return TemplateRow(
        common.template_link(template.key),
        template.spec.format,
        status.size_bytes,
        (counts.total or 0) if counts else 0,
        counts.ready if counts else 0,
        common.ready_word(status),
    )
