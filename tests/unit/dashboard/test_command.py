"""The command around the pages."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest
from tests.world import checkout

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
