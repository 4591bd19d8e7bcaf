"""Programs of the tests that are forks behave as those that an interpreter starts."""

import os
import pathlib
import signal
import subprocess

import pytest
from tests.world import checkout, forked

pytestmark = pytest.mark.skipif(not forked.POSSIBLE, reason="coverage measures interpreters alone")


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        (("--version",), None),
        (("nonsense",), None),
        (("template", "register", "--help"), None),
        (("keystore", "list", "/nowhere/cloud.jks"), None),
        (("keystore", "import", "/nowhere/cloud.jks", "--alias", "a", "-"), "no certificate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_says_and_returns_the_same(arguments: tuple[str, ...], input: str | None) -> None:
    command = [checkout.DIRECTDOWNLOAD, *arguments]
    # the width of help
    environment = checkout.environment(COLUMNS="60")
    plain = subprocess.run(command, env=environment, input=input, capture_output=True, text=True, check=False)
    assert "Traceback" not in plain.stderr, "a command that ends by itself is asked for"
    found = forked.run(command, environment, input)
    assert (found.returncode, found.stdout, found.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def test_a_process_is_followed_and_ended_as_one_of_popen(tmp_path: pathlib.Path) -> None:
    environment = checkout.pod_environment(tmp_path, tmp_path / "kubeconfig")
    # Nobody writes to it: the process waits.
    os.mkfifo(tmp_path / "given")
    command = [checkout.DIRECTDOWNLOAD, "--version"]
    process = forked.Forked(command, environment, output=tmp_path / "log", given=tmp_path / "given")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    assert (process.poll(), process.returncode) == (None, None)
    process.kill()
    assert (process.wait(60), process.poll(), process.returncode) == (-signal.SIGKILL,) * 3
    process.send_signal(signal.SIGTERM)
