"""The promises of the local cluster: up twice, up after a crash, up over another checkout's leftovers, gone after down.

Run by `make e2e` after the tests on the cluster, as each of these takes it down. One node is enough here.
"""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.cluster import harness

HERE = harness.CLUSTER_DIRECTORY
pytestmark = pytest.mark.timeout(300, func_only=True)


def script(name: str, directory: pathlib.Path = HERE) -> str:
    """Run a script of `directory` and return its output; on failure fail the test with it."""
    result = subprocess.run(
        [directory / name], env={**os.environ, "NODES": "1"}, capture_output=True, text=True, check=False, timeout=280
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


def kubectl(kubeconfig: pathlib.Path, *arguments: str) -> str:
    program = harness.state_root() / "bin" / "kubectl"
    command = [str(program), "--kubeconfig", str(kubeconfig), "--request-timeout=10s", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def node_uids(checkout: pathlib.Path) -> str:
    return kubectl(checkout / ".cluster" / "kubeconfig", "get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}")


def processes() -> list[str]:
    """The processes of the cluster, by the control groups that they started in."""
    return [pid for path in groups() for pid in (path / "cgroup.procs").read_text().split()]


def groups() -> list[pathlib.Path]:
    roots = (pathlib.Path("/sys/fs/cgroup/directdownload"), pathlib.Path("/sys/fs/cgroup/pids/directdownload"))
    return [procs.parent for root in roots if root.exists() for procs in root.rglob("cgroup.procs")]


@pytest.fixture(scope="module")
def checkout() -> Iterator[pathlib.Path]:
    harness.use_cluster_alone()
    subprocess.run([HERE / "tools.sh"], check=True)
    script("up.sh")
    yield HERE.parents[1]
    script("down.sh")


def test_bringing_it_up_twice_leaves_it_as_it_is(checkout: pathlib.Path) -> None:
    before = node_uids(checkout)
    assert before
    assert "already up" in script("up.sh")
    assert node_uids(checkout) == before


def test_it_comes_up_after_a_crash(checkout: pathlib.Path) -> None:
    before = node_uids(checkout)
    for pid in processes()[::2]:
        try:
            os.kill(int(pid), 9)
        except ProcessLookupError:
            # ended with its parent
            continue
    script("up.sh")
    assert node_uids(checkout) not in ("", before)


def test_it_takes_over_from_another_checkout(checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "checkout"
    shutil.copytree(HERE, other / "tests" / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    script("up.sh", other / "tests" / "cluster")
    theirs = node_uids(other)
    assert theirs
    assert not (checkout / ".cluster" / "kubeconfig").exists()
    script("up.sh")
    assert node_uids(checkout) not in ("", theirs)
    assert not (other / ".cluster" / "kubeconfig").exists()


def test_down_leaves_nothing(checkout: pathlib.Path) -> None:
    assert processes()
    script("down.sh")
    assert not processes()
    assert "kvm-" not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run(["ip", "link", "show", "ddbr0"], capture_output=True, check=False).returncode != 0
    assert str(harness.state_root() / "nodes") not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert not (checkout / ".cluster" / "kubeconfig").exists()
