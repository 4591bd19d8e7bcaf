"""The image holds what the product runs and nothing else, and its pods cannot change it."""

import json
import re
import subprocess
from typing import Any

import pytest
from image import archive
from tests.e2e import evidence
from tests.e2e.cluster import NAMESPACE, REPOSITORY, Cluster

_SITE_PACKAGES = re.compile(r"/opt/directdownload/lib/python3\.\d+/site-packages/")
_SOURCE = re.compile(r"(?P<folder>.*)/(?P<name>[^/]*)\.py")
#: Header of byte code (PEP 552): bit 0 says that it is identified by a hash, bit 1 that its source must be looked at.
_UNCHECKED_HASH = 1

#: What a pod says of itself: whether anything outside of its mounts can be written, and with which rights it runs.
_LOOK = """
import json, os
refused = {}
for path in ("/new", "/usr/bin/new", "/etc/passwd", "/opt/directdownload/bin/directdownload"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        refused[path] = ""
    except OSError as error:
        refused[path] = error.strerror
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "refused": refused, "user": os.getuid(), "capabilities": int(status["CapBnd"], 16),
    "no new privileges": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
}))
"""


@pytest.fixture(autouse=True)
def clean() -> None:
    """Nothing is deployed here."""


@pytest.fixture(scope="module")
def image(local: Cluster) -> archive.Image:
    """As it runs on the nodes."""
    wanted = ("/etc/passwd", "/var/lib/dpkg/status")
    return archive.read(
        REPOSITORY / ".cluster" / "images" / "direct-download-operator.tar",
        lambda path: path in wanted or (path.endswith(".pyc") and "/directdownload/download/" in path),
    )


def test_python_and_the_product_are_the_only_programs(image: archive.Image) -> None:
    programs = {
        re.sub(r"python3\.\d+", "python3.x", entry.path)
        for entry in image.entries.values()
        if entry.is_file and entry.mode & 0o111 and ".so" not in entry.path.rpartition("/")[2]
    }
    ours = {f"/opt/directdownload/bin/{name}" for name in ("directdownload", "kubectl-directdownload")}
    assert programs == {"/usr/bin/python3.x", *ours}
    assert [path for path in image.entries if path.rpartition("/")[2] in {"sh", "bash", "dash", "busybox"}] == []


def test_nothing_gives_rights_or_can_be_written_by_everybody(image: archive.Image) -> None:
    kept = [entry for entry in image.entries.values() if entry.kind != "link"]
    assert {entry.kind for entry in kept} == {"file", "directory"}
    assert [entry.path for entry in kept if entry.mode & 0o6000] == []
    assert {entry.path: oct(entry.mode) for entry in kept if entry.mode & 0o022} == {"/tmp": "0o1777"}


def test_it_runs_as_nobody_unless_told_otherwise(image: archive.Image) -> None:
    assert (image.config["User"], image.config["Entrypoint"]) == ("65532:65532", ["directdownload"])
    assert not [line for line in image.text("/etc/passwd").splitlines() if not line.endswith("/nologin")]
    labels = image.config["Labels"]
    head = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert labels["org.opencontainers.image.revision"] == (head or "unknown")


def test_nothing_in_it_is_half_there(image: archive.Image) -> None:
    """Each link leads somewhere, and scanners find the record of each package that has a file here."""
    assert [e.path for e in image.entries.values() if e.kind == "link" and image.resolve(e.path) is None] == []
    packages = set(re.findall(r"^Package: (.*)$", image.text("/var/lib/dpkg/status"), re.MULTILINE))
    assert {"libc6", "libnfs14", "libssl3t64", "ca-certificates"} <= packages
    assert not {"bash", "dash", "coreutils", "dpkg", "apt", "perl-base", "tar", "mount", "login"} & packages
    lists = [entry.path for entry in image.entries.values() if entry.path.endswith(".list")]
    assert {path.rpartition("/")[2].removesuffix(".list").partition(":")[0] for path in lists} == packages
    for package in packages:
        assert image.resolve(f"/usr/share/doc/{package}/copyright"), f"{package} without its copyright"


def test_no_pod_compiles_anything_when_it_starts(image: archive.Image) -> None:
    """Every module has its byte code, which is taken as it is: a read-only root could not keep a new one."""
    compiled = re.compile(r".*/__pycache__/.*\.pyc")
    missing = []
    for path in image.entries:
        found = _SOURCE.fullmatch(path)
        if found and (_SITE_PACKAGES.match(path) or path.startswith("/usr/lib/python3.")):
            pattern = f"{found['folder']}/__pycache__/{found['name']}.cpython-"
            if not any(f"{pattern}{version}.pyc" in image.entries for version in ("311", "312", "313", "314")):
                missing.append(path)
    assert missing == []
    flags = {
        int.from_bytes(e.content[4:8], "little")
        for e in image.entries.values()
        if e.content and compiled.fullmatch(e.path)
    }
    assert flags == {_UNCHECKED_HASH}


@pytest.mark.parametrize(("component", "user"), [("controller", 65532), ("agent", 0)])
def test_a_running_pod_cannot_change_what_it_runs(cluster: Cluster, component: str, user: int) -> None:
    """The download job's pod: test_security.py."""
    pod = evidence.pods(cluster, component)[0]["metadata"]["name"]
    found: dict[str, Any] = json.loads(cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", _LOOK))
    assert set(found["refused"].values()) == {"Read-only file system"}
    assert (found["user"], found["capabilities"]) == (user, 0)
    assert (found["no new privileges"], found["seccomp"]) == ("1", "2")
