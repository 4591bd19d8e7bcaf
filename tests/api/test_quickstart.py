"""The quick start's own blocks, word for word, in one shell: what a newcomer pastes leads to a template on every host.

Real are the API server, the controller and the command line; the hosts are simulated. The page marks the blocks.
"""

import os
import pathlib
import re
import socket
import subprocess

import pytest
from tests import docs
from tests.api import disks
from tests.api.kube import Kube
from tests.api.simulation import Simulation

from directdownload.cluster import kinds

_PAGE = (docs.DOCS / "quickstart.md").read_text()
_BLOCK = re.compile(r"^<!-- tests run this block(?P<dry> as a dry run)? -->\n```sh\n(?P<text>.*?)^```$", re.M | re.S)
_SERVED = pathlib.Path("/var/tmp/quickstart")
#: The page's own server is on the bridge of the local cluster.
_ADDRESS = "address=10.89.0.1 port=8000\n"
_DRY = """
helm() { command helm "$@" --dry-run=server > rendered.yaml; }
"""


def _script() -> str:
    """All marked blocks in their order; the installation without its effects."""
    return "\n".join(
        f"{_DRY}{block['text']}\nunset -f helm\n" if block["dry"] else block["text"] for block in _BLOCK.finditer(_PAGE)
    )


@pytest.mark.timeout(240)
def test_a_newcomer_gets_a_template_onto_every_host_by_copy_and_paste(
    world: Simulation, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    # The server of the page serves what the page says.
    with Kube(world.control_plane.kubeconfig()) as kube:

        def digest(_: disks.Origin, __: str) -> str:
            return str(kube.get(kinds.TEMPLATES, "debian-13", "default").object()["spec"]["checksum"])

        monkeypatch.setattr(disks.Origin, "digest", digest)
        hosts = [
            world.add_host(f"kvm-{number}", labels={"topology.kubernetes.io/zone": "zone-1"}) for number in (1, 2, 3)
        ]
        world.start_controller()
        # A checkout as the page finds it after `make venv cluster-up`.
        (tmp_path / ".cluster").mkdir()
        (tmp_path / ".cluster" / "kubeconfig").symlink_to(world.control_plane.kubeconfig())
        for name in (".venv", "charts"):
            (tmp_path / name).symlink_to(docs.REPOSITORY / name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        script = _script()
        assert script.count(_ADDRESS) == 1
        script = script.replace(_ADDRESS, f"address=127.0.0.1 port={port}\n")
        unset = ("KUBECONFIG", "IMAGE", "TAG", "URL", "CHECKSUM")
        result = subprocess.run(
            # What a block has started ends with the shell, also when a later one fails.
            ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name not in unset},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    output = result.stdout
    assert f"debian-13-everywhere: ready, {len(hosts)} copies" in output
    assert re.search(r"/var/lib/libvirt/images/[0-9a-f-]{36} should have sha256:[0-9a-f]{64}$", output, re.M)
    for host in hosts:
        assert re.search(rf"^debian-13-\S+ .*\b{host} .*\bReady\b", output, re.M), host
        assert not world.disk(host, "local").files
    assert "kind: DaemonSet" in (tmp_path / "rendered.yaml").read_text()
    # the page's clean-up has left nothing
    assert not world.control_plane.kubectl("get", "ddtemplate,dddeploy,ddplacement", "-A").stdout
    assert not _SERVED.exists()
