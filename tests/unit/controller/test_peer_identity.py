"""The Secret with the authority of peers, and what Hosts get of it: with an injected clock, on an API in memory."""

import asyncio
import base64
import datetime
import json
from typing import Any

import pytest
from cryptography import x509
from tests.unit.controller import scenes
from tests.unit.peer.test_answers import csr, request
from tests.unit.planning import build
from tests.world.api import Call

from directdownload.cluster import errors, kinds
from directdownload.controller import peer_identity
from directdownload.controller.context import dump
from directdownload.controller.reconcile import hosts
from directdownload.peer import certificates
from directdownload.peer.authority import BELIEVED, LIFE, ROTATION, SPREAD
from directdownload.peer.statements import Grant, Verifier
from directdownload.resources import peers
from directdownload.resources.peeridentity import PeerRequest
from directdownload.resources.reasons import Reason

START = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
SECRET = "peers"
_DAYS = 190


class Recorder:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, Reason, str]] = []

    def tell(self, kind: kinds.Resource, item: Any, _: str, reason: Reason, message: str, *__: str) -> None:
        if kind is kinds.SECRETS:
            self.told.append((kind.kind, item.key, reason, message))


class Scene(scenes.Scene):
    """A controller with peers, whose clock stands at `now` until the test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, on: bool = True) -> None:
        self.recorder = Recorder()
        super().__init__(recorder=self.recorder)
        self.now, self.seconds = START, 1000.0
        monkeypatch.setattr(type(self.context), "now", staticmethod(lambda: self.now))
        if on:
            self.registrar = self.make()
            object.__setattr__(self.context, "registrar", self.registrar)

    def make(self) -> peer_identity.Registrar:
        return peer_identity.Registrar(
            self.api,
            self.world,
            self.queue,
            self.recorder,  # type: ignore[arg-type]
            namespace="operator",
            secret=SECRET,
            port=10471,
            now=lambda: self.now,
            monotonic=lambda: self.seconds,
        )

    def restart(self) -> None:
        self.registrar = self.make()
        object.__setattr__(self.context, "registrar", self.registrar)

    def pass_(self, time: datetime.timedelta) -> None:
        self.now += time
        self.seconds += time.total_seconds()

    def ask(self, name: str = "kvm-1", asked: PeerRequest | None = None, held: dict[str, Any] | None = None) -> None:
        """As the agent of the host reports, where the controller has answered with `held` before."""
        status = {"peerRequest": dump(asked or request()), **({"peer": held} if held else {})}
        self.put(kinds.HOSTS, build.host_document(name, status=status))

    async def look(self, name: str = "kvm-1") -> dict[str, Any] | None:
        await hosts.reconcile(self.context, name)
        found = self.status(name).get("peer")
        assert found is None or isinstance(found, dict)
        return found

    def status(self, name: str = "kvm-1") -> dict[str, Any]:
        (found,) = [each for each in self.api.objects(kinds.HOSTS) if each["metadata"]["name"] == name]
        return dict(found.get("status", {}))

    def secret(self) -> dict[str, Any]:
        (found,) = self.api.objects(kinds.SECRETS)
        return found


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_the_secret_is_made_once_and_read_by_the_next_controller(scene: Scene) -> None:
    await scene.registrar.refresh()
    secret = scene.secret()
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (SECRET, "operator")
    assert secret["type"] == "directdownload.dev/peers"
    first = scene.context.peers
    assert first is not None
    scene.restart()
    await scene.registrar.refresh()
    assert scene.secret() == secret
    assert scene.context.peers is not None
    assert scene.context.peers.keys == first.keys
    assert scene.api.called("update") == []
    assert len(scene.api.called("create", kinds.SECRETS)) == 1


async def test_another_controller_that_made_it_meanwhile_is_read(scene: Scene) -> None:
    def meanwhile(call: Call) -> None:
        if call.verb == "create":
            scene.api.on_call = None
            scene.api.put(kinds.SECRETS, call.body)

    scene.api.on_call = meanwhile
    with pytest.raises(errors.AlreadyExists):
        await scene.registrar.refresh()
    assert scene.context.peers is None
    await scene.registrar.refresh()
    assert scene.context.peers is not None


async def test_jobs_get_grants_that_hosts_believe(scene: Scene) -> None:
    await scene.registrar.refresh()
    found = scene.context.peers
    assert found is not None
    assert (found.trust_domain, found.port) == ("operator.directdownload", 10471)
    grant = Grant("0" * 64, "zone-1", "kvm-1", int(START.timestamp()) + 3600)
    verifier = Verifier([base64.b64decode(key) for key in found.keys])
    assert verifier.grant(found.issuer.grant(grant), START.timestamp()) == grant


async def test_a_host_that_asks_gets_certificates_beside_the_other_fields_of_the_controller(scene: Scene) -> None:
    await scene.registrar.refresh()
    scene.ask()
    found = await scene.look()
    assert found is not None
    (written,) = scene.api.called("apply", kinds.HOSTS)
    assert written.body["status"]["peer"] == found
    assert {"state", "conditions"} <= written.body["status"].keys()
    assert "peerRequest" not in written.body["status"]
    certificate = certificates.certificate(found["serverCertificate"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [peers.spiffe("operator.directdownload", "kvm-1")]
    # Nothing is written again while nothing changes, also by the next controller.
    scene.restart()
    await scene.registrar.refresh()
    assert await scene.look() == found
    assert len(scene.api.called("apply", kinds.HOSTS)) == 1


async def test_a_host_is_looked_at_when_it_asks_and_when_its_answer_was_changed(scene: Scene) -> None:
    await scene.registrar.refresh()
    scene.put(kinds.HOSTS, build.host_document("kvm-1"))
    scene.queue._waiting.clear()
    scene.put(kinds.HOSTS, build.host_document("kvm-1", status={"agentVersion": "2"}))
    assert not scene.queue._waiting
    asked = request()
    scene.ask(asked=asked)
    assert list(scene.queue._waiting) == [("host", "kvm-1")]
    held = await scene.look()
    scene.queue._waiting.clear()
    scene.ask(asked=asked)
    assert list(scene.queue._waiting) == [("host", "kvm-1")]
    assert held is not None
    again = await scene.look()
    assert again is not None
    assert again["bundle"] == held["bundle"]


async def test_a_host_that_does_not_ask_gets_nothing(scene: Scene) -> None:
    await scene.registrar.refresh()
    scene.put(kinds.HOSTS, build.host_document("kvm-1"))
    assert await scene.look() is None


async def test_without_peers_a_request_is_not_answered_and_an_earlier_answer_goes(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    await scene.registrar.refresh()
    scene.ask()
    found = await scene.look()
    off = Scene(monkeypatch, on=False)
    off.ask(held=found)
    await off.look()
    (written,) = off.api.called("apply", kinds.HOSTS)
    assert "peer" not in written.body["status"]
    assert off.context.peers is None
    assert off.api.called("get", kinds.SECRETS) == []
    assert off.api.objects(kinds.SECRETS) == []


async def test_certificates_are_renewed_without_a_gap_through_all_rotations(scene: Scene) -> None:
    scene.ask()
    bundles, writes = set(), 0
    for hour in range(0, _DAYS * 24, 12):
        await scene.registrar.refresh()
        found = await scene.look()
        assert found is not None
        bundle = certificates.authorities(found["bundle"])
        for name, purpose in (("serverCertificate", certificates.SERVER), ("clientCertificate", certificates.CLIENT)):
            validity = certificates.check(
                certificates.certificate(found[name]),
                name="spiffe://operator.directdownload/host/kvm-1",
                purpose=purpose,
                authorities=bundle,
            )
            assert validity.covers(scene.now), hour
            # Until the next look at the latest it is renewed.
            assert validity.ends - scene.now >= LIFE / 2
        bundles.add(found["bundle"])
        writes = len(scene.api.called("apply", kinds.HOSTS))
        scene.pass_(datetime.timedelta(hours=12))
    # Two rotations, each with two generations for a while; two renewals a day and one write for each bundle.
    assert len(bundles) == 5
    assert writes <= _DAYS * 2 + len(bundles)


async def test_a_rotation_keeps_both_generations_for_a_day_and_longer(scene: Scene) -> None:
    await scene.registrar.refresh()
    scene.ask()
    before = scene.context.peers
    assert before is not None
    scene.pass_(ROTATION)
    await scene.registrar.refresh()
    rotated = scene.context.peers
    assert rotated is not None
    assert rotated.terms.authority.generations[0].certificate == before.terms.authority.generations[0].certificate
    assert len(rotated.terms.authority.generations) == 2
    assert rotated.keys == before.keys
    assert ("host", "kvm-1") in set(scene.queue._waiting)
    scene.pass_(SPREAD)
    await scene.registrar.refresh()
    switched = scene.context.peers
    assert switched is not None
    # What it has signed stands in the piece logs of copies that exist.
    assert (switched.keys, switched.issuer.public) == (before.keys, before.issuer.public)
    scene.pass_(BELIEVED)
    await scene.registrar.refresh()
    assert scene.context.peers is not None
    assert scene.context.peers.keys == before.keys
    (left,) = scene.context.peers.terms.authority.generations
    assert left.certificate == rotated.terms.authority.generations[1].certificate


async def test_a_lost_secret_is_a_new_authority_for_every_host(scene: Scene) -> None:
    await scene.registrar.refresh()
    scene.ask()
    before = await scene.look()
    scene.api.remove(kinds.SECRETS, SECRET, "operator")
    await scene.registrar.refresh()
    assert len(scene.api.objects(kinds.SECRETS)) == 1
    after = await scene.look()
    assert before is not None
    assert after is not None
    assert before["bundle"] != after["bundle"]
    assert before["serverCertificate"] != after["serverCertificate"]
    assert not set(before["keys"]) & set(after["keys"])


async def test_a_lost_secret_writes_to_fifty_hosts_a_second(scene: Scene) -> None:
    await scene.registrar.refresh()
    asked = request()
    names = [f"kvm-{number}" for number in range(260)]
    for name in names:
        scene.ask(name, asked=asked)
    served = []
    for _ in range(6):
        before = len(scene.api.called("apply", kinds.HOSTS))
        for name in names:
            if "peer" not in scene.status(name):
                await scene.look(name)
        served.append(sum("peer" in scene.status(name) for name in names))
        assert len(scene.api.called("apply", kinds.HOSTS)) >= before
        scene.pass_(datetime.timedelta(seconds=1))
    assert served == [50, 100, 150, 200, 250, 260]


BROKEN: dict[str, dict[str, Any]] = {
    "another type": {"type": "Opaque"},
    "no data": {"data": None},
    "another key": {"data": {"tls.key": "AAAA"}},
    "no base64": {"data": {"authority.json": "!"}},
    "no document": {"data": {"authority.json": base64.b64encode(b"\xff{").decode()}},
    "empty": {"data": {"authority.json": ""}},
    "another version": {"data": {"authority.json": base64.b64encode(json.dumps({"version": 9}).encode()).decode()}},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
async def test_a_broken_secret_is_reported_once_and_not_overwritten(scene: Scene, change: dict[str, Any]) -> None:
    await scene.registrar.refresh()
    scene.ask()
    held = await scene.look()
    broken = scene.api.put(kinds.SECRETS, {**scene.secret(), **change})
    for _ in range(3):
        await scene.registrar.refresh()
    ((kind, key, reason, message),) = scene.recorder.told
    assert (kind, key, reason) == ("Secret", "operator/peers", Reason.UNREADABLE)
    assert message.isprintable()
    assert scene.secret() == broken
    assert scene.context.peers is None
    # Hosts keep what they have; nobody gets anything new.
    scene.ask(asked=request(), held=held)
    assert await scene.look() == held
    scene.api.remove(kinds.SECRETS, SECRET, "operator")
    await scene.registrar.refresh()
    assert scene.context.peers is not None


async def test_a_request_that_cannot_be_read_is_said_once_and_leaves_what_is_there(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.registrar.refresh()
    scene.ask()
    held = await scene.look()
    for number in range(3):
        scene.ask(asked=request(f"nonsense {number}"), held=held)
        assert await scene.look() == held
    assert len([line for line in caplog.messages if "status.peerRequest is not served" in line]) == 1


async def test_a_host_that_changes_its_keys_all_the_time_gets_certificates_once_in_ten_minutes(scene: Scene) -> None:
    await scene.registrar.refresh()
    seen = set()
    found: dict[str, Any] | None = None
    for _ in range(6 * 30):
        scene.ask(asked=request(csr(), csr()), held=found)
        found = await scene.look()
        assert found is not None
        seen.add(found["serverCertificate"])
        scene.pass_(datetime.timedelta(seconds=10))
    assert len(seen) == 3


async def test_nothing_is_remembered_of_a_host_that_is_gone(scene: Scene) -> None:
    await scene.registrar.refresh()
    scene.ask()
    await scene.look()
    scene.world.hosts.forget("kvm-1", 10**9)
    for memory in (scene.registrar._turns, scene.registrar._requested, scene.registrar._held):
        assert "kvm-1" not in memory


async def test_a_controller_without_rights_begins_without_peers(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    def forbid(call: Call) -> None:
        raise errors.Forbidden(403, "Forbidden", call.name)

    scene.api.on_call = forbid
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        if scene.registrar.settled.is_set():
            raise InterruptedError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(InterruptedError):
        await scene.registrar.run()
    assert len(pauses) == 3
    assert scene.context.peers is None
