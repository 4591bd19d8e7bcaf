"""What shells and kubectl are told while a command is being typed."""

import os
import pathlib
import subprocess
import sys

import pytest
from tests.unit.cli.test_start import directdownload, imported
from tests.world import checkout

from directdownload.cli import completion
from directdownload.cli.main import COMMANDS


def values(*words: str) -> list[str]:
    """What kubectl is told, without descriptions; the last one is the directive."""
    return [line.partition("\t")[0] for line in completion.for_kubectl(list(words)).splitlines()]


def test_commands_for_people_are_offered() -> None:
    of_pods = ("selftest", "job", "controller", "agent", "csi", "peer")
    assert values("") == [*(name for name in COMMANDS if name not in of_pods), ":4"]
    assert values("te") == ["template", ":4"]
    assert completion.for_kubectl(["sta"]) == f"status\t{COMMANDS['status'][2]}\n:4\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("template", "de"), ["delete", "describe", ":4"]),
        (("deploy", "--zo"), ["--zone", ":4"]),
        (("deploy", "x", "--deletion-policy", ""), ["Delete", "Retain", ":4"]),
        (("template", "register", "x", "--format", "v"), ["VMDK", "VHD", "VHDX", ":4"]),
        (("zone", "list", "-o", "j"), ["json", ":4"]),
        (("completion", "b"), ["bash", ":4"]),
        (("certificate", "upload", "--file", "x"), [":0"]),
        (("--kubeconfig", "x"), [":0"]),
        (("frobnicate", "x"), [":4"]),
        # No cluster: nothing to offer, and nothing to complain about.
        (("--kubeconfig", "/nonexistent", "deploy", "x", "--zone", ""), [":4"]),
        ((), values("")),
    ],
)
def test_words(words: tuple[str, ...], expected: list[str]) -> None:
    assert values(*words) == expected


def in_bash(line: str, tmp_path: pathlib.Path) -> list[str]:
    """What bash itself finds for the words of `line`, the last one unfinished, with the script that we print."""
    words = line.split(" ")
    commands = tmp_path / "complete.sh"
    commands.write_text(
        f"source <({words[0]} completion bash)\n"
        f"COMP_WORDS=({' '.join(word or repr('') for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n"
        f"COMP_LINE='{line}'\n"
        "set -- $(complete -p " + words[0] + ")\n"
        "while [ $# -gt 0 ] && [ $1 != -F ]; do shift; done\n"
        f'$2 {words[0]}; printf "%s\\n" "${{COMPREPLY[@]}}"\n'
    )
    path = f"{checkout.PROGRAMS}:{os.defpath}"
    done = subprocess.run(
        ["bash", "--norc", str(commands)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=checkout.environment({"PATH": path, "HOME": "/nonexistent"}),
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("program", ["directdownload", "kubectl-directdownload"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [("pl", ["plan"]), ("pool files --ho", ["--host"]), ("keystore list -o ya", ["yaml"])],
)
def test_bash_completes(program: str, words: str, expected: list[str], tmp_path: pathlib.Path) -> None:
    assert in_bash(f"{program} {words}", tmp_path) == expected


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("bash", ["-F _directdownload_completion directdownload", "kubectl-directdownload"]),
        (
            "zsh",
            ["#compdef directdownload kubectl-directdownload", "compdef _directdownload_completion directdownload"],
        ),
        ("fish", ["--command directdownload ", "--command kubectl-directdownload "]),
    ],
)
def test_scripts_are_for_all_names_of_the_program(shell: str, lines: list[str]) -> None:
    done = directdownload("completion", shell, PATH=f"{checkout.PROGRAMS}:{os.defpath}")
    assert (done.returncode, done.stderr) == (0, "")
    for line in lines:
        assert line in done.stdout
    assert "_DIRECTDOWNLOAD_COMPLETE" in done.stdout


def test_a_shell_that_is_not_known_is_a_usage_error() -> None:
    assert directdownload("completion", "tcsh").returncode == 2


def test_completing_a_command_loads_nothing_heavy() -> None:
    assert imported("completion", "--help") == []
    script = (
        "import sys\nfrom directdownload.cli import completion\ncompletion.for_kubectl([''])\n"
        "print([m for m in ('kubernetes', 'rich', 'kopf', 'directdownload.cluster') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "[]\n"
