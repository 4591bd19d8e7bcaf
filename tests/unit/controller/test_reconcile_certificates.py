"""A certificate's reconcile: what it reads, what it writes and when, against an API that only keeps objects."""

import base64
import copy
import pathlib
from typing import Any, cast

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import Document
from tests.world import certificates

from directdownload.cluster import client, errors, kinds
from directdownload.controller import events, settings
from directdownload.controller.context import Context
from directdownload.controller.queue import WorkQueue
from directdownload.controller.reconcile import certificates as reconcile
from directdownload.controller.world import World
from directdownload.planning.observed import Revision
from directdownload.resources import base, pem

PEM = certificates.pem()
FINGERPRINT = pem.parse(PEM).fingerprint_sha256
HOSTS = 20


class Api:
    """One certificate and one Secret."""

    def __init__(self, spec: Document) -> None:
        self.document: Document = {
            "metadata": build.metadata("my-ca"),
            "spec": {"zone": "zone-1", "alias": "my-ca", **spec},
        }
        self.secret: Document | None = None
        self.reads = 0
        #: what was written: the status, or the finalizers
        self.writes: list[Any] = []

    def _version(self) -> Document:
        metadata = self.document["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return copy.deepcopy(self.document)

    async def apply(self, _: kinds.Resource, body: Document, **__: Any) -> Document:
        self.writes.append(body["status"])
        self.document["status"] = body["status"]
        return self._version()

    async def merge_patch(self, _: kinds.Resource, __: str, patch: Document, **___: Any) -> Document:
        assert patch["metadata"]["resourceVersion"] == self.document["metadata"]["resourceVersion"]
        self.writes.append(patch["metadata"]["finalizers"])
        self.document["metadata"]["finalizers"] = patch["metadata"]["finalizers"]
        return self._version()

    async def get(self, _: kinds.Resource, name: str, **__: Any) -> Document:
        self.reads += 1
        if self.secret is None:
            raise errors.NotFound(404, "NotFound", name)
        return self.secret


class Scene:
    def __init__(self, api: Api) -> None:
        async def nothing(_: object) -> None: ...

        self.api = api
        told = cast(client.Api, api)
        around = settings.Settings("operator", "pod", pathlib.Path("job.yaml"), ())
        self.world = World(())
        self.context = Context(told, self.world, WorkQueue(nothing), around, {}, events.Recorder(told, "pod"))
        self.context.observe(kinds.CERTIFICATES, api.document)
        self.world.zones.observe(build.zone())

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


def secret(version: int, text: str) -> Document:
    return {
        "metadata": {"name": "ca", "namespace": "operator", "uid": "u", "resourceVersion": str(version)},
        "data": {"ca.crt": base64.b64encode(text.encode()).decode()},
    }


async def test_it_is_held_before_it_is_published_and_the_last_proof_is_written_at_once() -> None:
    scene = Scene(Api({"certificate": PEM}))
    for number in range(HOSTS):
        scene.host(number, 1, proved=False)
    await scene.reconcile()
    finalizers, status = scene.api.writes
    assert finalizers == [base.FINALIZER]
    assert (status["certificate"], status["hosts"]["pending"]) == (PEM, HOSTS)
    for number in range(HOSTS):
        assert len(scene.api.writes) == 2, "a sum was written before its time"
        scene.host(number, 2, proved=True)
        await scene.reconcile()
    assert len(scene.api.writes) == 3
    assert scene.reason() == "Provisioned"
    await scene.reconcile()
    assert len(scene.api.writes) == 3


async def test_sums_are_written_when_their_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(Api({"certificate": PEM}))
    for number in range(HOSTS):
        scene.host(number, 1, proved=False)
    await scene.reconcile()
    monkeypatch.setattr(reconcile, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "WRITE_SECONDS_PER_HOST", 0.0)
    scene.host(0, 2, proved=True)
    await scene.reconcile()
    assert scene.api.writes[-1]["hosts"]["uploaded"] == 1


async def test_a_secret_is_read_once_for_each_of_its_versions_and_not_kept() -> None:
    api = Api({"certificateRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}})
    scene = Scene(api)
    await scene.reconcile()
    assert (scene.reason(), api.reads) == ("InvalidCertificate", 0)
    for version, text in ((5, certificates.private_key()), (6, PEM)):
        api.secret = secret(version, text)
        scene.world.secret_revisions.observe(Revision("operator/ca", "ca", "u", version))
        for _ in range(3):
            await scene.reconcile()
        assert api.reads == version - 4
        assert "PRIVATE KEY-----\n" not in repr(scene.world.sources)
    assert api.document["status"]["certificate"] == PEM
    # Deleted between the event and the reading.
    api.secret = None
    scene.world.secret_revisions.observe(Revision("operator/ca", "ca", "u", 7))
    await scene.reconcile()
    assert (api.reads, api.document["status"]["certificate"]) == (3, PEM)


async def test_its_deletion_is_let_go_when_nobody_holds_it() -> None:
    api = Api({"certificate": PEM})
    scene = Scene(api)
    scene.host(0, 1, proved=True)
    await scene.reconcile()
    api.document["metadata"]["deletionTimestamp"] = build.stamp(build.NOW)
    scene.context.observe(kinds.CERTIFICATES, api._version())
    await scene.reconcile()
    assert api.document["metadata"]["finalizers"] == [base.FINALIZER]
    scene.world.hosts.forget("kvm-0", 9)
    await scene.reconcile()
    assert api.writes[-1] == []
