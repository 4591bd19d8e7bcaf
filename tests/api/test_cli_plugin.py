"""Installed by pip, the command line works without a cluster, and as a plugin of kubectl: found, run and completed."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import sysconfig

import pytest
from tests.cluster import harness
from tests.world import docs, origin
from tests.world.checkout import REPOSITORY
from tests.world.cli_world import Cluster
from tests.world.waiting import until

from directdownload.cluster import kinds


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A fresh environment into which pip has installed the product; its dependencies are those of this one."""
    directory = tmp_path_factory.mktemp("pip")
    environment, source = directory / "venv", directory / "source"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    [site] = (environment / "lib").glob("python3*/site-packages")
    # A path by itself: what is installed there is found, and its editable product is not.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    source.mkdir()
    # It is built in its tree: not in this one.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY / "operator", source / "operator", ignore=unwanted)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(directory)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, timeout=120, capture_output=True)
    [wheel] = directory.glob("*.whl")
    pip = [str(environment / "bin" / "pip"), "--disable-pip-version-check", "install", "-q", "--no-index", "--no-deps"]
    # What the caller's path holds counts as installed for pip.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, str(wheel)], check=True, timeout=120, env=alone)
    return environment / "bin"


def kubectl(
    installed: pathlib.Path, *arguments: str, kubeconfig: pathlib.Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{installed}:{harness.state_root() / 'bin'}:{os.defpath}",
        "HOME": str(installed),
        "KUBECONFIG": str(kubeconfig or "/nonexistent"),
    }
    return subprocess.run(
        ["kubectl", *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_the_readme_fetches_a_file_without_a_cluster(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # As written, but for a directory and a port that nobody else uses.
    port = str(origin.free_port())
    served = tmp_path / "served"
    serve, fetch = (
        block.replace("/tmp/served", str(served)).replace("8000", port)
        for block in docs.blocks(REPOSITORY / "README.md", "sh")
        if "http.server" in block or "directdownload fetch" in block
    )
    environment = {"PATH": f"{installed}:{os.defpath}", "HOME": str(tmp_path)}
    # The last command replaces the shell, so that ending it ends the server.
    *prepare, server = serve.strip().splitlines()
    script = "\n".join([*prepare, f"exec {server}"])
    with subprocess.Popen(
        ["bash", "-euc", script], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as running:
        try:
            until("the server to listen", lambda: _answers(int(port)))
            done = subprocess.run(
                ["bash", "-euc", fetch],
                capture_output=True,
                text=True,
                env=environment,
                cwd=tmp_path,
                timeout=60,
                check=False,
            )
        finally:
            running.kill()
    assert done.returncode == 0, done
    assert (tmp_path / "disk.img").read_bytes() == (served / "disk.img").read_bytes()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_kubectl_finds_and_runs_the_plugin(installed: pathlib.Path) -> None:
    listed = kubectl(installed, "plugin", "list")
    assert listed.returncode == 0, listed
    assert f"{installed}/kubectl-directdownload" in listed.stdout.split()
    assert "warning" not in listed.stderr.lower()
    version = kubectl(installed, "directdownload", "--version")
    assert (version.returncode, version.stdout) == (0, "directdownload 0.2.0\n")
    # It is the installed one that runs, not the one of the source tree.
    where = subprocess.run(
        [str(installed / "python"), "-c", "import directdownload; print(directdownload.__file__)"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert where.stdout.startswith(str(installed.parent))
    assert kubectl(installed, "directdownload", "plan", "--help").stdout.startswith(
        "Usage: kubectl directdownload plan"
    )
    assert kubectl(installed, "directdownload", "deploy").returncode == 2


@pytest.fixture(scope="module")
def cluster(definitions: harness.ControlPlane) -> Cluster:
    found = Cluster(definitions)
    found.template("debian")
    found.template("fedora")
    other = f"{found.name}-b"
    found.apply(kinds.ZONES, other, spec={"nodeSelector": {"matchLabels": {"zone": other}}})
    for host, zone in (("1", found.name), ("2", other)):
        name = f"{found.name}-{host}"
        found.apply(kinds.HOSTS, name, spec={"nodeName": name, "zone": zone})
    found.apply(kinds.STORAGE_POOLS, f"{found.name}-pool", spec={"zone": found.name, "path": "/srv/x"})
    return found


def completed(installed: pathlib.Path, cluster: Cluster, *words: str) -> tuple[list[str], str]:
    """The candidates and the directive that kubectl gives its shell."""
    done = kubectl(installed, "__complete", "directdownload", *words, kubeconfig=cluster.kubeconfig)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    return [line.partition("\t")[0] for line in lines[:-1]], lines[-1]


def test_kubectl_completes_commands_and_names(installed: pathlib.Path, cluster: Cluster) -> None:
    def expect(words: tuple[str, ...], names: list[str], directive: str = ":4") -> None:
        # A machine that is too busy may run out of patience, as its user would not.
        until(f"{names} for {words}", lambda: completed(installed, cluster, *words) == (names, directive))

    expect(("dep",), ["deploy"])
    expect(("template", "describe", "-n", cluster.name, ""), ["debian", "fedora"])
    zone = ("deploy", "debian", "--zone", cluster.name)
    expect(zone, [cluster.name, f"{cluster.name}-b"])
    # Only those of the zone that was named.
    expect((*zone, "--host", cluster.name), [f"{cluster.name}-1"])
    expect((*zone, "--pool", "cli-"), [f"{cluster.name}-pool"])
    expect(("certificate", "upload", "--file", ""), [], ":0")


def test_whoever_may_see_nothing_is_offered_nothing(installed: pathlib.Path, cluster: Cluster) -> None:
    nobody = cluster.control_plane.kubeconfig("nobody", [])
    done = kubectl(installed, "__complete", "directdownload", "deploy", "", kubeconfig=nobody)
    assert done.stdout == ":4\n"
