"""The files of examples/, applied as they stand: the controller takes all of them, and what they wish comes true."""

import pathlib

import pytest
import yaml
from tests.world import certificates, disks
from tests.world.checkout import REPOSITORY
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
#: What each kind's Ready says when all is well.
GOOD = {
    "Zone": "Ready",
    "StoragePool": "Ready",
    "Template": "Registered",
    "TemplateDeployment": "Converged",
    "DirectDownloadCertificate": "Provisioned",
}
KINDS = {
    "Zone": kinds.ZONES,
    "StoragePool": kinds.STORAGE_POOLS,
    "Template": kinds.TEMPLATES,
    "TemplateDeployment": kinds.TEMPLATE_DEPLOYMENTS,
    "DirectDownloadCertificate": kinds.CERTIFICATES,
}


def _documents() -> list[Object]:
    return [document for path in EXAMPLES for document in yaml.safe_load_all(path.read_text())]


def test_there_is_an_example_of_every_kind_that_people_create() -> None:
    assert sorted(document["kind"] for document in _documents()) == sorted(GOOD)


def test_what_the_examples_wish_for_comes_true(
    world: Simulation, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    documents = {document["kind"]: document for document in _documents()}
    # The server of the example serves what the example says.
    checksum = documents["Template"]["spec"]["checksum"]
    monkeypatch.setattr(disks.Origin, "digest", lambda _self, _url: checksum)
    labels = documents["Zone"]["spec"]["nodeSelector"]["matchLabels"]
    hosts = [world.add_host(f"kvm-{number}", labels=labels) for number in (1, 2)]
    reference = documents["DirectDownloadCertificate"]["spec"]["certificateRef"]
    authority = tmp_path / "ca.crt"
    authority.write_text(certificates.pem())
    plane = world.control_plane
    content = f"--from-file={reference['key']}={authority}"
    plane.kubectl("create", "configmap", reference["name"], content, "-n", world.namespace, check=True)
    world.start_controller()
    try:
        for path in EXAMPLES:
            plane.kubectl("apply", "--validate=strict", "-f", str(path), check=True)

        def said() -> dict[str, tuple[str, str]]:
            found = {}
            for kind, document in documents.items():
                metadata = document["metadata"]
                # checked against kstatus as well
                status = world.get(KINDS[kind], metadata["name"], metadata.get("namespace", "")).get("status", {})
                ready = [c for c in status.get("conditions", ()) if c["type"] == "Ready"]
                found[kind] = (ready[0]["status"], ready[0]["reason"]) if ready else ("", "")
            return found

        wanted = {kind: ("True", reason) for kind, reason in GOOD.items()}
        until("all examples to be Ready", lambda: said() == wanted)
        metadata = documents["TemplateDeployment"]["metadata"]
        status = world.get(kinds.TEMPLATE_DEPLOYMENTS, metadata["name"], metadata["namespace"])["status"]
        assert status["placements"]["ready"] == len(hosts)
        assert not status.get("failures")
        pool = documents["StoragePool"]["metadata"]["name"]
        assert [[file.digest for file in world.disk(host, pool).files.values()] for host in hosts] == [[checksum]] * 2
    finally:
        plane.kubectl("delete", "configmap", reference["name"], "-n", world.namespace)
