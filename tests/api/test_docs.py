"""Every YAML example of the documentation is accepted by a real API server, to the letter of its schema."""

import pathlib
import subprocess

import pytest
import yaml
from tests.cluster import harness
from tests.world import docs, kube
from tests.world.checkout import REPOSITORY


def _examples() -> list[tuple[str, str]]:
    """Name and text of each example: the files of examples/, and the fenced blocks of every page."""
    found = [
        (str(path.relative_to(REPOSITORY)), path.read_text())
        for path in sorted((REPOSITORY / "examples").glob("*.yaml"))
    ]
    for path in docs.PAGES:
        for number, block in enumerate(docs.manifests(path), start=1):
            found.append((f"{docs.name(path)}#{number}", block))
    return found


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def cluster(control_plane: harness.ControlPlane) -> harness.ControlPlane:
    kube.install_definitions(control_plane)
    # Of pods, which no controller makes here.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(account), check=True)
    return control_plane


def test_there_are_examples_of_every_kind_that_people_write() -> None:
    kinds = {
        document["kind"] for _, text in EXAMPLES for document in yaml.safe_load_all(text) if "kind" in (document or {})
    }
    written = {"Zone", "Host", "StoragePool", "Template", "TemplateDeployment", "DirectDownloadCertificate"}
    assert written <= kinds


@pytest.mark.parametrize("text", [text for _, text in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_an_example_applies_cleanly(cluster: harness.ControlPlane, tmp_path: pathlib.Path, text: str) -> None:
    result = _apply(cluster, tmp_path, text)
    assert result.returncode == 0, result.stderr
    # deprecations and unknown fields come as warnings
    assert not result.stderr, result.stderr
    assert len(result.stdout.splitlines()) == len(list(yaml.safe_load_all(text)))


def test_an_example_with_a_mistake_would_be_noticed(cluster: harness.ControlPlane, tmp_path: pathlib.Path) -> None:
    good = next(text for name, text in EXAMPLES if name == "examples/template.yaml")
    for bad in (good.replace("format: QCOW2", "format: QCOW3"), good.replace("displayText:", "display:")):
        assert bad != good
        assert _apply(cluster, tmp_path, bad).returncode != 0


def _apply(cluster: harness.ControlPlane, directory: pathlib.Path, text: str) -> subprocess.CompletedProcess[str]:
    path = directory / "example.yaml"
    path.write_text(text)
    return cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))
