"""No command raises on what the definitions admit, nor on one object that nobody can read: whole commands, about
objects that are drawn from the schemas. A failure names its seed. What a table says is tested elsewhere.
"""

import contextlib
import datetime
import io
import traceback
from collections.abc import AsyncIterator, Sequence
from typing import Any

import click.testing
import pytest
import rich.console
from tests.world.admitted import KINDS, NAMES, NAMESPACES, Document, Draw
from tests.world.api import FakeApi

from directdownload.cli import certificate_changes, certificate_state, main, rollout, session
from directdownload.cli.view import progress
from directdownload.cli.view.screen import Mood
from directdownload.cli.watch import certificates
from directdownload.cluster import kinds
from directdownload.resources.templateplacement import TemplatePlacement

NOW = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.UTC)
_SEEDS = 40
_COMMANDS: tuple[Sequence[str], ...] = (
    *(("zone", "list"), ("host", "list"), ("pool", "list"), ("template", "list", "-A"), ("status", "-A")),
    *(("certificate", "list"), ("certificate", "list", "--hosts"), ("pool", "files", "NAME"), ("volume", "list")),
    *(("template", "describe", "NAME"), ("status", "NAME"), ("plan", "NAME", "--zone", "NAME")),
)


def documents(draw: Draw) -> dict[str, list[Document]]:
    """Two objects of each kind, of one namespace, that name one another."""
    draw.names = draw.sample(NAMES, 2)
    found = {kind.plural: [draw.document(kind, name) for name in draw.names] for kind in kinds.OURS}
    for each in (item for items in found.values() for item in items):
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = NAMESPACES[0]
    reference = {"namespace": NAMESPACES[0], "name": draw.names[0]}
    for placement in found[kinds.TEMPLATE_PLACEMENTS.plural]:
        placement["spec"]["templateRef"] |= reference
        placement["spec"]["zone"] = draw.names[0]
    for deployment in found[kinds.TEMPLATE_DEPLOYMENTS.plural]:
        deployment["spec"] |= {"templateRef": reference, "zone": draw.names[0], "hosts": [], "pools": []}
    return found


def run(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, list[Document]], command: Sequence[str]
) -> click.testing.Result:
    @contextlib.asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[session.Session]:
        api = FakeApi(namespace=NAMESPACES[0], selects=False)
        for kind in kinds.OURS:
            for document in found[kind.plural]:
                api.put(kind, document)
        yield session.Session(api, NAMESPACES[0])

    monkeypatch.setattr(session, "open_session", opened)
    return click.testing.CliRunner().invoke(main.cli, list(command))


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: " ".join(command))
def test_a_command_shows_whatever_is_admitted(monkeypatch: pytest.MonkeyPatch, command: Sequence[str]) -> None:
    for seed in range(_SEEDS):
        draw = Draw(seed)
        found = documents(draw)
        how = draw.choice(("table", "table", "json", "yaml", "name"))
        named = [draw.names[0] if word == "NAME" else word for word in command]
        result = run(monkeypatch, found, [*named, "-o", how])
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            seed,
            "".join(traceback.format_exception(result.exception)),
        )
        # `plan` says by its status whether it could go on.
        assert result.exit_code == 0 or command[0] == "plan", (seed, result.output)
        assert "Warning: " not in result.stderr, (seed, result.stderr)


@pytest.mark.parametrize(
    ("command", "plural"),
    [
        (("zone", "list"), "zones"),
        (("host", "list"), "hosts"),
        (("pool", "list"), "storagepools"),
        (("template", "list"), "templates"),
        (("status",), "templatedeployments"),
        (("certificate", "list"), "directdownloadcertificates"),
        (("certificate", "list", "--hosts"), "directdownloadcertificates"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("spoilt", [{}, {"spec": {}}, {"spec": {"zone": 7, "alias": None}, "status": "x"}])
def test_an_object_that_nobody_can_read_costs_the_sight_of_no_other(
    monkeypatch: pytest.MonkeyPatch, command: Sequence[str], plural: str, spoilt: Document
) -> None:
    found = documents(Draw(1))
    good, bad = found[plural]
    metadata = {**good["metadata"], "name": "spoilt"}
    found[plural] = [good, {"kind": bad["kind"], "metadata": metadata, **spoilt}]
    # one host at least has something to say of what is good
    found["hosts"][0]["spec"]["zone"] = good["spec"].get("zone", "")
    result = run(monkeypatch, found, command)
    assert result.exit_code == 0, result.output
    assert f"Warning: {bad['kind']}/" in result.output
    assert "spoilt cannot be read: " in result.output
    assert len(result.stdout.splitlines()) >= (2 if "--hosts" in command else 3), "the other one is not shown"


def test_what_is_followed_is_drawn() -> None:
    """Screens, bars and endings, which a command shows only while something goes on."""
    for seed in range(_SEEDS):
        draw = Draw(seed)
        models: dict[str, list[Any]] = {
            plural: [KINDS[plural].model_validate(each) for each in items] for plural, items in documents(draw).items()
        }
        copies = models[kinds.TEMPLATE_PLACEMENTS.plural]
        states = [
            rollout.snapshot(deployment, copies if shown else (), None)
            for deployment in models[kinds.TEMPLATE_DEPLOYMENTS.plural]
            for shown in (True, False)
        ]
        drawn = [rollout.screen_of_all(states), *(rollout.screen(state, NOW) for state in states)]
        for certificate in models[kinds.CERTIFICATES.plural]:
            for hosts in (None, models[kinds.HOSTS.plural]):
                proved = certificate_state.snapshot(certificate, hosts)
                certificates._ending(proved, "5 s")
                drawn.append(certificate_state.screen(proved))
            for before in (None, *models[kinds.CERTIFICATES.plural]):
                assert certificate_changes.uploaded_text(before, certificate)
        console = rich.console.Console(file=io.StringIO(), width=100)
        for screen in drawn:
            console.print(progress.bars(screen, 5))
            progress.Lines(console).update(screen)
        for state in states:
            rollout.failure_table(state)


def test_a_copy_of_a_phase_of_another_version_has_a_line() -> None:
    document = Draw(0).document(kinds.TEMPLATE_PLACEMENTS)
    document["metadata"].pop("deletionTimestamp", None)
    placement = TemplatePlacement.model_validate({**document, "status": {"phase": "OfTomorrow"}})
    line = rollout._placement_line(placement, NOW)
    assert (line.state, line.mood) == ("Unknown", Mood.WAITING)
