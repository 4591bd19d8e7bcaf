"""A host's keys and certificates for its peers: real files in a directory of the host, answers of a real authority."""

import asyncio
import contextlib
import datetime
import os
import pathlib
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.peer.test_answers import csr
from tests.unit.planning import build
from tests.world import checkout
from tests.world.api import FakeApi
from tests.world.waiting import until_async

import directdownload
from directdownload.agent.peers import PeerKeeper, Wishes, served
from directdownload.agent.settings import Settings
from directdownload.agent.supervisor import Supervisor
from directdownload.cluster import kinds
from directdownload.peer import answers, certificates, credentials
from directdownload.peer.authority import LIFE, advanced
from directdownload.peer.config import Config
from directdownload.resources import peers
from directdownload.resources.peeridentity import PeerRequest

NOW = datetime.datetime.now(datetime.UTC)
TERMS = answers.Terms(advanced(None, NOW), "system.directdownload", 10471)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group")


class Machine:
    """A host's directory of state, and its keeper, whose clock stands at `now`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.state, self.now = directory, NOW
        self.server, self.client = directory / "peer" / "server", directory / "peer" / "client"
        self.settings = Settings("kvm-1", ("/pools",), state_directory=str(directory), peers=True)
        self.keeper = self.start()

    def start(self) -> PeerKeeper:
        return PeerKeeper(self.settings, on_request=lambda: None, now=lambda: self.now)

    def asked(self) -> PeerRequest:
        assert self.keeper.request is not None
        return self.keeper.request

    def answer(self, host: str = "kvm-1", terms: answers.Terms = TERMS, **changes: Any) -> dict[str, Any]:
        """As the controller writes it for `host`."""
        found = answers.issue(terms, host, answers.requested(self.asked()), self.now)
        return {**found.model_dump(by_alias=True, mode="json"), **changes}

    def look(self, said: dict[str, Any] | None = None, pools: tuple[str, ...] = ("/pools/a",)) -> None:
        self.keeper.look(Wishes("kvm-1", "zone-1", pools, said))

    def files(self) -> dict[str, bytes]:
        found = (path for path in (self.state / "peer").rglob("*") if path.is_file())
        return {str(path.relative_to(self.state / "peer")): path.read_bytes() for path in found}


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


KEYS = {"server/tls.key", "server/signing.key", "client/tls.key"}
ALL = {
    *KEYS,
    *("server/tls.crt", "server/ca.crt", "server/config.json", "client/tls.crt", "client/ca.crt"),
}


def test_the_directories_are_those_that_the_others_read() -> None:
    keeper = PeerKeeper(Settings("kvm-1", ()), on_request=lambda: None)
    assert (keeper._server, keeper._client) == (peers.SERVER_DIRECTORY, peers.CLIENT_DIRECTORY)


def test_keys_are_made_once_and_asked_for_and_their_private_parts_stay(machine: Machine) -> None:
    machine.look()
    files, request = machine.files(), machine.asked()
    assert files.keys() == KEYS
    keys = answers.requested(request)
    assert keys.server == certificates.elliptic(files["server/tls.key"]).public_key()
    assert keys.client == certificates.elliptic(files["client/tls.key"]).public_key()
    signing = certificates.edwards(files["server/signing.key"]).public_key()
    assert request.signing_key == certificates.text_of_key(signing)
    assert "PRIVATE" not in request.model_dump_json()
    machine.look()
    assert machine.asked() is request
    # The next agent has the same keys.
    machine.keeper = machine.start()
    machine.look()
    assert machine.files() == files
    assert answers.requested(machine.asked()) == keys


def test_modes_and_owners_of_all_files(machine: Machine) -> None:
    machine.look()
    machine.look(machine.answer())
    found = {
        str(path.relative_to(machine.state)): (oct(stat.S_IMODE(s.st_mode)), s.st_uid, s.st_gid)
        for path in machine.state.rglob("*")
        for s in [path.lstat()]
    }
    group = peers.SERVER_UID
    assert found == {
        "peer": ("0o755", 0, 0),
        "peer/server": ("0o750", 0, group),
        **{f"peer/{name}": ("0o640", 0, group) for name in ALL if name.startswith("server/")},
        "peer/client": ("0o755", 0, 0),
        **{f"peer/{name}": ("0o400", 0, 0) for name in ALL if name.startswith("client/")},
    }


def test_an_agent_without_capabilities_gives_the_server_its_files(machine: Machine) -> None:
    """As the chart runs it: root with no capability at all, in the group of the server."""
    look = "PeerKeeper(Settings('kvm-1', (), state_directory=sys.argv[1]), on_request=lambda: None).look(None)"
    program = f"import sys; from directdownload.agent.peers import PeerKeeper, Settings; {look}"
    rights = ("--reuid=0", "--regid=0", "--bounding-set=-all", "--no-new-privs")
    command = [shutil.which("setpriv") or "setpriv", *rights, f"--groups={peers.SERVER_UID}"]
    for _ in range(2):
        command_line = [*command, sys.executable, "-c", program, str(machine.state)]
        subprocess.run(command_line, env=checkout.environment(), check=True)
        key = (machine.server / "tls.key").stat()
        assert (key.st_uid, key.st_gid, stat.S_IMODE(key.st_mode)) == (0, peers.SERVER_UID, 0o640)
        # The next look repairs it all the same.
        (machine.server / "tls.key").chmod(0o600)
        machine.server.chmod(0o700)
    before = machine.files()
    machine.look()
    assert machine.files() == before


def test_certificates_are_written_when_they_come_and_the_server_takes_them(machine: Machine) -> None:
    machine.look()
    assert machine.files().keys() == KEYS
    machine.look(machine.answer())
    assert machine.files().keys() == ALL
    # Those of the server as the server reads them, those of downloads as OpenSSL does.
    shown = credentials.Credentials.load(str(machine.server))
    keys = [certificates.key_of_text(text).public_bytes_raw() for text in TERMS.authority.keys]
    assert shown.config == Config("kvm-1", "zone-1", "system.directdownload", tuple(keys), ("/pools/a",), 10471)
    assert shown.public_key == certificates.key_of_text(machine.asked().signing_key).public_bytes_raw()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(machine.client / "tls.crt", machine.client / "tls.key")
    context.load_verify_locations(machine.client / "ca.crt")


def test_nothing_is_written_while_nothing_changes(machine: Machine) -> None:
    machine.look()
    said = machine.answer()
    machine.look(said)
    before = {path: path.stat().st_mtime_ns for path in machine.state.rglob("*")}
    machine.look(said)
    assert {path: path.stat().st_mtime_ns for path in machine.state.rglob("*")} == before


def test_other_pools_and_another_generation_are_passed_on(machine: Machine) -> None:
    machine.look()
    said = machine.answer()
    machine.look(said)
    certificate = (machine.server / "tls.crt").read_bytes()
    both = advanced(TERMS.authority, NOW + datetime.timedelta(days=90))
    keys = [*both.keys, *advanced(None, NOW).keys]
    machine.look({**said, "bundle": both.bundle, "keys": keys}, pools=("/pools/a", "/pools/b"))
    shown = credentials.Credentials.load(str(machine.server))
    assert len(shown.config.keys) == 2
    assert shown.config.pools == ("/pools/a", "/pools/b")
    assert (machine.server / "tls.crt").read_bytes() == certificate
    assert (machine.client / "ca.crt").read_text() == both.bundle


def test_pools_that_other_hosts_have_too_are_not_served() -> None:
    assert served({"/b": False, "/a": False, "/shared": True, "/odd/": False}) == ("/a", "/b")


# --- what is refused


def _others_key(machine: Machine) -> dict[str, Any]:
    request = PeerRequest(csr=csr(), client_csr=machine.asked().client_csr, signing_key=machine.asked().signing_key)
    found = answers.issue(TERMS, "kvm-1", answers.requested(request), NOW)
    return found.model_dump(by_alias=True, mode="json")


def _of(now: datetime.datetime) -> Callable[[Machine], dict[str, Any]]:
    def made(machine: Machine) -> dict[str, Any]:
        found = answers.issue(TERMS, "kvm-1", answers.requested(machine.asked()), now)
        return found.model_dump(by_alias=True, mode="json")

    return made


def _swapped(machine: Machine) -> dict[str, Any]:
    said = machine.answer()
    return {**said, "serverCertificate": said["clientCertificate"], "clientCertificate": said["serverCertificate"]}


def _of_another_authority(machine: Machine) -> dict[str, Any]:
    terms = answers.Terms(advanced(None, NOW), TERMS.trust_domain, TERMS.port)
    return machine.answer(terms=terms, bundle=TERMS.authority.bundle)


REFUSED: dict[str, Callable[[Machine], dict[str, Any]]] = {
    "for another host": lambda machine: machine.answer("kvm-2"),
    "for another domain": lambda machine: machine.answer(trustDomain="other.directdownload"),
    "for another key": _others_key,
    "for another purpose": _swapped,
    "of another authority": _of_another_authority,
    "expired": _of(NOW - LIFE),
    "not yet valid": _of(NOW + datetime.timedelta(hours=2)),
    "no certificate": lambda machine: machine.answer(serverCertificate="nonsense"),
    "an empty certificate": lambda machine: machine.answer(clientCertificate=""),
    "no bundle": lambda machine: machine.answer(bundle=""),
    "a bundle of no authority": lambda machine: machine.answer(bundle=machine.answer()["serverCertificate"]),
    "three authorities": lambda machine: machine.answer(bundle=TERMS.authority.bundle * 3),
    "a key that is none": lambda machine: machine.answer(keys=["AAAA"]),
    "no keys": lambda machine: machine.answer(keys=[]),
    "a domain with a path": lambda machine: machine.answer(trustDomain="a/../b"),
    "no domain": lambda machine: machine.answer(trustDomain=""),
    "port 0": lambda machine: machine.answer(port=0),
    "a port of another type": lambda machine: machine.answer(port={"a": 1}),
    "fields that are missing": lambda _: {"port": 1},
    "of another version": lambda machine: machine.answer(notAfter="tomorrow"),
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED)
def test_what_is_not_for_this_host_and_its_keys_is_not_written(
    machine: Machine, said: Callable[[Machine], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    machine.look()
    machine.look(machine.answer())
    before = machine.files()
    for _ in range(3):
        machine.look(said(machine))
    assert machine.files() == before
    (line,) = [line for line in caplog.messages if "is not used" in line]
    assert line.isprintable()


def test_bytes_beside_a_certificate_do_not_reach_the_files(machine: Machine) -> None:
    machine.look()
    said = machine.answer()
    machine.look({name: f"# a\x1b[2J\n{value}x" if "ertificate" in name else value for name, value in said.items()})
    assert (machine.server / "tls.crt").read_text() == said["serverCertificate"]


# --- what was lost or broken


@pytest.mark.parametrize("name", sorted(KEYS))
@pytest.mark.parametrize("damage", ["removed", "empty", "cut", "another kind", "a link", "a pipe"])
def test_a_broken_key_is_made_anew_and_asked_for(machine: Machine, name: str, damage: str) -> None:
    machine.look()
    machine.look(machine.answer())
    before, path = machine.files(), machine.state / "peer" / name
    asked = machine.asked()
    elsewhere = machine.state / "elsewhere"
    elsewhere.write_bytes(before[name])
    if damage in ("removed", "a link", "a pipe"):
        path.unlink()
    if damage == "a link":
        path.symlink_to(elsewhere)
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(before[name][:100])
    elif damage == "another kind":
        path.write_bytes(before["server/signing.key" if name != "server/signing.key" else "server/tls.key"])
    machine.look()
    elsewhere.unlink()
    after = machine.files()
    assert not path.is_symlink()
    assert after[name] != before[name]
    assert machine.asked() != asked
    # No pair that does not fit: the certificate of the old key is gone.
    certificate = name.replace("tls.key", "tls.crt")
    assert certificate == name or certificate not in after
    assert {key for key in KEYS if after[key] != before[key]} == {name}
    machine.look(machine.answer())
    credentials.Credentials.load(str(machine.server))


@pytest.mark.parametrize("what", ["server", "client", ""])
def test_a_lost_directory_is_made_anew(machine: Machine, what: str) -> None:
    machine.look()
    machine.look(machine.answer())
    path = machine.state / "peer" / what
    path.rename(machine.state / "gone")
    if what:
        path.symlink_to(machine.state / "gone")
    machine.look()
    assert not path.is_symlink()
    machine.look(machine.answer())
    assert machine.files().keys() == ALL


def test_modes_that_others_have_changed_are_put_right(machine: Machine) -> None:
    machine.look()
    said = machine.answer()
    machine.look(said)
    before = machine.files()
    for name in ALL:
        (machine.state / "peer" / name).chmod(0o666)
    os.chown(machine.server / "tls.key", 1000, 1000)
    machine.server.chmod(0o777)
    machine.look(said)
    assert machine.files() == before
    assert stat.S_IMODE(machine.server.stat().st_mode) == 0o750
    for name in ALL:
        status = (machine.state / "peer" / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o640 if name.startswith("server") else 0o400, 0)


# --- in the agent


@contextlib.asynccontextmanager
async def agent(directory: pathlib.Path, *, on: bool) -> AsyncIterator[tuple[FakeApi, Machine]]:
    """An agent that has reported once, of a host that the cluster knows."""
    api, machine = FakeApi(), Machine(directory)
    document = build.host_document("kvm-1")
    api.put(kinds.HOSTS, document)
    api.put(kinds.ZONES, {"metadata": {"name": "zone-1"}, "spec": {}})
    settings = Settings("kvm-1", ("/pools",), state_directory=str(directory), peers=on)
    running = asyncio.create_task(Supervisor(settings, api).run())
    try:
        await until_async("the first report", lambda: api.called("apply", kinds.HOSTS))
        yield api, machine
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_without_peers_the_agent_reports_no_request_and_makes_no_directory(tmp_path: pathlib.Path) -> None:
    async with agent(tmp_path, on=False) as (api, machine):
        (written,) = api.called("apply", kinds.HOSTS)
        assert "peerRequest" not in written.body["status"]
        assert written.body["status"]["agentVersion"] == directdownload.__version__
        assert not (machine.state / "peer").exists()


async def test_the_first_report_has_the_request_and_its_answer_is_kept(tmp_path: pathlib.Path) -> None:
    async with agent(tmp_path, on=True) as (api, machine):
        (written,) = api.called("apply", kinds.HOSTS)
        request = PeerRequest.model_validate(written.body["status"]["peerRequest"])
        identity = answers.issue(TERMS, "kvm-1", answers.requested(request), NOW)
        (host,) = api.objects(kinds.HOSTS)
        answer = {"peer": identity.model_dump(by_alias=True, mode="json")}
        api.put(kinds.HOSTS, {**host, "status": {**host["status"], **answer}})
        await until_async("the files", lambda: (machine.client / "tls.crt").exists())
        # The certificates cost the agent no write.
        assert len(api.called("apply", kinds.HOSTS)) == 1


async def test_a_report_without_the_request_is_not_written_while_the_keys_are_made(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the certificates of a host away whose agent starts again."""
    going, look = threading.Event(), PeerKeeper.look
    monkeypatch.setattr(PeerKeeper, "look", lambda *given: (going.wait(), look(*given)))
    api = FakeApi()
    api.put(kinds.HOSTS, build.host_document("kvm-1"))
    api.put(kinds.ZONES, {"metadata": {"name": "zone-1"}, "spec": {}})
    supervisor = Supervisor(Settings("kvm-1", ("/pools",), state_directory=str(tmp_path), peers=True), api)
    running = asyncio.create_task(supervisor.run())
    try:
        await until_async("all else", lambda: supervisor._keystore.report is not None)
        assert supervisor._reporter._wanted is None
        going.set()
        await until_async("the first report", lambda: api.called("apply", kinds.HOSTS))
        assert "peerRequest" in api.called("apply", kinds.HOSTS)[0].body["status"]
    finally:
        going.set()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_host_without_room_for_keys_reports_all_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "server").mkdir()
    (tmp_path / "peer" / "server" / "tls.key").mkdir()
    async with agent(tmp_path, on=True) as (api, _):
        (written,) = api.called("apply", kinds.HOSTS)
        assert "peerRequest" not in written.body["status"]


def test_the_keys_of_two_hosts_differ(tmp_path: pathlib.Path) -> None:
    seen = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        machine = Machine(tmp_path / name)
        machine.look()
        key = answers.requested(machine.asked()).server
        assert isinstance(key, ec.EllipticCurvePublicKey)
        seen.add(key.public_numbers())
    assert len(seen) == 2
