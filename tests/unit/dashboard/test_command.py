"""The command around the pages."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from tests.world import checkout
from tests.world.waiting import until

_WITHOUT_JINJA2 = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "jinja2":
            raise ModuleNotFoundError(f"No module named {name!r}", name="jinja2")
sys.meta_path.insert(0, Missing())
from directdownload.cli import main
sys.exit(main.run(sys.argv[1:]))
"""


@pytest.fixture
def kubeconfig(tmp_path: pathlib.Path) -> str:
    """Of a cluster that nobody asks."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],"
        " clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: a, user: {token: x}}]}"
    )
    return str(path)


def test_without_jinja2_the_command_says_what_to_install(kubeconfig: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_JINJA2, "dashboard", "--kubeconfig", kubeconfig, "--no-browser"],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "Error: the dashboard needs Jinja2: pip install 'direct-download-operator[dashboard]'"
    )


def test_a_port_that_is_taken_is_said_so(kubeconfig: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [checkout.DIRECTDOWNLOAD, "dashboard", "--kubeconfig", kubeconfig, "--no-browser", "--port", port],
            env=checkout.environment(os.environ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use" in done.stderr


def test_the_browser_is_opened_where_there_is_a_screen(kubeconfig: str, tmp_path: pathlib.Path) -> None:
    """By the program that $BROWSER names, with an address that is good; without a screen by none."""
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for variables, expected in (({}, False), ({"BROWSER": str(browser)}, True)):
        process = subprocess.Popen(
            [checkout.DIRECTDOWNLOAD, "dashboard", "--kubeconfig", kubeconfig],
            env=checkout.environment(bare, **variables),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("Dashboard: http://127.0.0.1:")
            if expected:
                until("the browser", opened.exists)
                assert opened.read_text().strip() == first.removeprefix("Dashboard: ").strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert opened.exists() == expected
