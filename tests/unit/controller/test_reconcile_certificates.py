"""A certificate's reconcile: what it reads, what it writes and when, against an API that only keeps objects."""

import base64
from typing import Any

import pytest
from tests.unit.controller import scenes
from tests.unit.planning import build
from tests.unit.planning.build import Document
from tests.world import certificates

from directdownload.cluster import kinds
from directdownload.controller.reconcile import certificates as reconcile
from directdownload.planning.observed import Revision
from directdownload.resources import base, pem

PEM = certificates.pem()
FINGERPRINT = pem.parse(PEM).fingerprint_sha256
HOSTS = 20


class Scene(scenes.Scene):
    """One certificate, for `HOSTS` hosts."""

    def __init__(self, spec: Document) -> None:
        super().__init__()
        self.put(kinds.CERTIFICATES, build.certificate(spec={"alias": "my-ca", **spec}))
        self.world.zones.observe(build.zone())

    @property
    def writes(self) -> list[Any]:
        """What was written: the status, or the finalizers."""
        called = [call for call in self.api.calls if call.verb in ("apply", "patch")]
        return [call.body.get("status") or call.body["metadata"]["finalizers"] for call in called]

    @property
    def reads(self) -> int:
        return len(self.api.called("get", kinds.SECRETS))

    def published(self) -> str:
        (document,) = self.api.objects(kinds.CERTIFICATES)
        return str(document["status"]["certificate"])

    def host(self, number: int, version: int, *, proved: bool) -> None:
        entries = [{"name": "my-ca", "state": "Uploaded", "fingerprintSHA256": FINGERPRINT}] if proved else []
        status = {"keystore": {"type": "JKS"}, "certificates": entries}
        self.world.hosts.observe(build.host(f"kvm-{number}", status=status, resourceVersion=str(version)))

    async def reconcile(self) -> None:
        await reconcile.reconcile(self.context, "my-ca")

    def reason(self) -> str:
        found = self.world.certificates.get("my-ca")
        ready = found.status.condition("Ready") if found is not None else None
        return ready.reason if ready is not None else ""


def secret(text: str) -> Document:
    data = {"ca.crt": base64.b64encode(text.encode()).decode()}
    return {"metadata": {"name": "ca", "namespace": "operator", "uid": "u"}, "data": data}


async def test_it_is_held_before_it_is_published_and_the_last_proof_is_written_at_once() -> None:
    scene = Scene({"certificate": PEM})
    for number in range(HOSTS):
        scene.host(number, 1, proved=False)
    await scene.reconcile()
    finalizers, status = scene.writes
    assert finalizers == [base.FINALIZER]
    assert (status["certificate"], status["hosts"]["pending"]) == (PEM, HOSTS)
    for number in range(HOSTS):
        assert len(scene.writes) == 2, "a sum was written before its time"
        scene.host(number, 2, proved=True)
        await scene.reconcile()
    assert len(scene.writes) == 3
    assert scene.reason() == "Provisioned"
    await scene.reconcile()
    assert len(scene.writes) == 3


async def test_sums_are_written_when_their_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene({"certificate": PEM})
    for number in range(HOSTS):
        scene.host(number, 1, proved=False)
    await scene.reconcile()
    monkeypatch.setattr(reconcile, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "WRITE_SECONDS_PER_HOST", 0.0)
    scene.host(0, 2, proved=True)
    await scene.reconcile()
    assert scene.writes[-1]["hosts"]["uploaded"] == 1


async def test_a_secret_is_read_once_for_each_of_its_versions_and_not_kept() -> None:
    scene = Scene({"certificateRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}})
    await scene.reconcile()
    assert (scene.reason(), scene.reads) == ("InvalidCertificate", 0)
    for number, text in enumerate((certificates.private_key(), PEM), 1):
        version = int(scene.api.put(kinds.SECRETS, secret(text))["metadata"]["resourceVersion"])
        scene.world.secret_revisions.observe(Revision("operator/ca", "ca", "u", version))
        for _ in range(3):
            await scene.reconcile()
        assert scene.reads == number
        assert "PRIVATE KEY-----\n" not in repr(scene.world.sources)
    assert scene.published() == PEM
    # Deleted between the event and the reading.
    scene.api.remove(kinds.SECRETS, "ca", "operator")
    scene.world.secret_revisions.observe(Revision("operator/ca", "ca", "u", version + 1))
    await scene.reconcile()
    assert (scene.reads, scene.published()) == (3, PEM)


async def test_its_deletion_is_let_go_when_nobody_holds_it() -> None:
    scene = Scene({"certificate": PEM})
    scene.host(0, 1, proved=True)
    await scene.reconcile()
    await scene.api.delete(kinds.CERTIFICATES, "my-ca")
    (deleted,) = scene.api.objects(kinds.CERTIFICATES)
    scene.context.observe(kinds.CERTIFICATES, deleted)
    await scene.reconcile()
    assert [each["metadata"]["finalizers"] for each in scene.api.objects(kinds.CERTIFICATES)] == [[base.FINALIZER]]
    scene.world.hosts.forget("kvm-0", 9)
    await scene.reconcile()
    assert scene.writes[-1] == []
    assert scene.api.objects(kinds.CERTIFICATES) == []
