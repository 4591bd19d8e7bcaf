"""The help of every command: what it is for, and examples that its parser takes."""

import pathlib
import re
import shlex
import subprocess
from collections.abc import Iterator

import click
import pytest
from tests.world import certificates, checkout

from directdownload.cli import examples
from directdownload.cli.main import cli

#: From here on it is the shell's.
SHELL_WORDS = {">", "|", "&&"}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        assert found is not None
        yield from leaves(found, (*path, name))


COMMANDS = {" ".join(path): command for path, command in leaves(cli)}


def shown(help_text: str) -> list[list[str]]:
    """The examples at the end of a help, as words: continued lines are joined, variables before the program dropped."""
    text = help_text.partition("Examples:\n")[2]
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found = []
    for line in lines:
        words = shlex.split(line)
        while re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        found.append(words[: next((i for i, word in enumerate(words) if word in SHELL_WORDS), None)])
    return found


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that examples name, where the parser looks into them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_text(certificates.pem("ca"))
    (tmp_path / "job.yaml").touch()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_it_takes(name: str) -> None:
    help_text = COMMANDS[name].get_help(click.Context(COMMANDS[name]))
    found = shown(help_text)
    assert found, f"{name} has no examples"
    for words in found:
        assert words[0] == "directdownload"
        assert " ".join(words[1:]).startswith(f"{name} ") or " ".join(words[1:]) == name
        rest = words[1 + len(name.split()) :]
        # Parses and converts every value, and runs nothing; an error is one of usage.
        COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_is_for(name: str) -> None:
    command = COMMANDS[name]
    assert command.get_short_help_str(), name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


def test_examples_of_the_plugin_call_the_plugin() -> None:
    for arguments, first in (((), "template"), (("certificate", "revoke"), "certificate")):
        command = [checkout.PLUGIN, *arguments, "--help"]
        done = subprocess.run(
            command, env=checkout.environment(), capture_output=True, text=True, timeout=120, check=True
        )
        found = shown(done.stdout)
        assert found
        assert all(words[:3] == ["kubectl", "directdownload", first] or words[2] in COMMANDS for words in found)
        assert not any(words[0] == "directdownload" for words in found)


def test_long_examples_go_on_where_a_shell_takes_it() -> None:
    text = examples.of("directdownload x " + " ".join(f"--option-{number} {'v' * 20}" for number in range(4)))
    assert max(map(len, text.splitlines())) <= 80
    assert [len(words) for words in shown(text)] == [10]


def test_examples_that_are_renamed_twice_are_renamed_once() -> None:
    once = examples.renamed(examples.of("directdownload status"), "kubectl directdownload")
    assert once is not None
    assert once.endswith("  kubectl directdownload status")
    assert examples.renamed(once, "kubectl directdownload") == once
