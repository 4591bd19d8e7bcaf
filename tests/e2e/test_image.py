"""The image holds what the product runs and nothing else, and its pods cannot change it."""

import json
import re
import subprocess
import tomllib

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from image import archive, sbom
from tests.world import evidence
from tests.world.checkout import REPOSITORY
from tests.world.cluster import Cluster

_SITE_PACKAGES = re.compile(r"/opt/directdownload/lib/python3\.\d+/site-packages/")
_SOURCE = re.compile(r"(?P<folder>.*)/(?P<name>[^/]*)\.py")
_OUR_BYTE_CODE = re.compile(r".*/site-packages/directdownload/.*/__pycache__/.*\.pyc")
_DIST_INFO = re.compile(rf"{_SITE_PACKAGES.pattern}(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info")
#: Header of byte code (PEP 552): bit 0 says that it is identified by a hash, bit 1 that its source must be looked at.
_UNCHECKED_HASH = 1


@pytest.fixture(autouse=True)
def clean() -> None:
    """Nothing is deployed here."""


@pytest.fixture(scope="module")
def image(local: Cluster) -> archive.Image:
    """As it runs on the nodes."""

    def wanted(path: str) -> bool:
        return path == "/etc/passwd" or sbom.wanted(path) or bool(_OUR_BYTE_CODE.fullmatch(path))

    return archive.read(REPOSITORY / ".cluster" / "images" / "direct-download-operator.tar", wanted)


def test_python_and_the_product_are_the_only_programs(image: archive.Image) -> None:
    programs = {
        re.sub(r"python3\.\d+", "python3.x", entry.path)
        for entry in image.entries.values()
        if entry.is_file and entry.mode & 0o111 and ".so" not in entry.path.rpartition("/")[2]
    }
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    ours = {f"/opt/directdownload/bin/{name}" for name in scripts}
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
    missing = []
    for path in image.entries:
        found = _SOURCE.fullmatch(path)
        if found and (_SITE_PACKAGES.match(path) or path.startswith("/usr/lib/python3.")):
            pattern = f"{found['folder']}/__pycache__/{found['name']}.cpython-"
            if not any(f"{pattern}{version}.pyc" in image.entries for version in ("311", "312", "313", "314")):
                missing.append(path)
    assert missing == []
    flags = {
        int.from_bytes(entry.content[4:8], "little")
        for path, entry in image.entries.items()
        if _OUR_BYTE_CODE.fullmatch(path)
    }
    assert flags == {_UNCHECKED_HASH}


def test_the_bill_of_materials_names_every_package(image: archive.Image) -> None:
    text = sbom.document(image)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert sbom.document(image) == text, "the same image, the same document"
    bill = json.loads(text)
    debian = set(
        re.findall(r"^Package: (.*)\n(?:.*\n)*?Version: (.*)$", image.text("/var/lib/dpkg/status"), re.MULTILINE)
    )
    python = {
        (match["name"].replace("_", "-").lower(), match["version"])
        for match in map(_DIST_INFO.fullmatch, image.entries)
        if match
    }
    listed: dict[str, set[tuple[str, str]]] = {"deb": set(), "pypi": set()}
    for component in bill["components"]:
        listed[component["purl"].partition("/")[0].removeprefix("pkg:")].add((component["name"], component["version"]))
    assert ("direct-download-operator", bill["metadata"]["component"]["version"]) in python
    assert {name.replace(".", "-") for name, _ in listed["pypi"]} == {name.replace(".", "-") for name, _ in python}
    assert {version for _, version in listed["pypi"]} == {version for _, version in python}
    assert listed["deb"] == debian
    assert bill["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}
    ]
    (of_image,) = (entry["dependsOn"] for entry in bill["dependencies"] if entry["ref"] == image.digest)
    assert set(of_image) == {component["bom-ref"] for component in bill["components"]}


@pytest.mark.parametrize(("component", "user"), [("controller", 65532), ("agent", 0)])
def test_a_running_pod_cannot_change_what_it_runs(cluster: Cluster, component: str, user: int) -> None:
    """The download job's pod: test_security.py."""
    pod = evidence.pods(cluster, component)[0]["metadata"]["name"]
    found = evidence.confinement(cluster, pod)
    assert found == evidence.Confinement(user)
