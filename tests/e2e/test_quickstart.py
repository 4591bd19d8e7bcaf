"""The quick start's own blocks, word for word, in one shell: what a newcomer pastes leads to a verified template."""

import os
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.e2e import conftest
from tests.world import checkout, docs
from tests.world import cluster as clusters
from tests.world.cluster import Cluster

_PAGE = (docs.DOCS / "quickstart.md").read_text()
_BLOCK = re.compile(r"^<!-- tests run this block(?P<dry> as a dry run)? -->\n```sh\n(?P<text>.*?)^```$", re.M | re.S)
_SERVED = pathlib.Path("/var/tmp/quickstart")
#: The operator is there already.
_DRY = """
helm() { command helm "$@" --dry-run=server > "$RENDERED"; }
"""


@pytest.fixture
def own_fleet(local: Cluster) -> Iterator[Cluster]:
    """The quick start's zone and pool have the names of everybody's here; these come back afterwards."""
    usual = harness.state_root() == pathlib.Path("/var/tmp/directdownload-cluster")
    assert usual, "the page names the usual state root: unset DIRECTDOWNLOAD_CLUSTER_ROOT"
    yield local
    local.apply(conftest.usual_zone(), clusters.pool())


def _script() -> str:
    """All marked blocks in their order; the installation without its effects."""
    return "\n".join(
        f"{_DRY}{block['text']}\nunset -f helm\n" if block["dry"] else block["text"] for block in _BLOCK.finditer(_PAGE)
    )


def test_a_newcomer_gets_to_a_verified_template_by_copy_and_paste(own_fleet: Cluster, tmp_path: pathlib.Path) -> None:
    # A newcomer's environment: what the blocks need they must export themselves.
    unset = ("KUBECONFIG", "IMAGE", "TAG", "URL", "CHECKSUM")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    rendered = tmp_path / "rendered.yaml"
    result = subprocess.run(
        # What a block has started ends with the shell, also when a later one fails.
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{_script()}"],
        cwd=checkout.REPOSITORY,
        env=checkout.environment(environment, RENDERED=str(rendered)),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    output, hosts = result.stdout, sorted(own_fleet.hosts())
    assert f"debian-13-everywhere: ready, {len(hosts)} copies" in output
    ((path, digest),) = re.findall(r"^(/\S+) should have sha256:([0-9a-f]{64})$", output, re.M)
    assert sorted(re.findall(rf"^{digest}  \S+/nodes/([^/]+)/host{re.escape(path)}$", output, re.M)) == hosts
    assert "kind: DaemonSet" in rendered.read_text()
    assert clusters.LOCAL_IMAGE in rendered.read_text()
    # The page's clean-up has left nothing.
    assert not any(own_fleet.file(host, path).exists() for host in hosts)
    assert not own_fleet.list("templates")
    assert not _SERVED.exists()
