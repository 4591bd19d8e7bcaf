"""Upgrades from version 0.1.0, over what it left behind: `tests/recorded`."""

import asyncio
import collections.abc
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_world, jdks, kube, stores
from tests.world.agent_world import World
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.waiting import until_async

from directdownload.cluster import client, kinds
from directdownload.keystore import store
from directdownload.resources import pem
from directdownload.resources.base import AGENT, CONTROLLER

RECORDED = pathlib.Path(__file__).parent.parent / "recorded" / "0.1.0"
#: Fields of a Host's status by who wrote them.
_OF_CONTROLLER = ("state", "nodeUID", "observedGeneration")
UNREADABLE = {"no-issuer", "explicit-ec", "constraint"}
#: Java reads them, and they would not be taken today.
NOT_TAKEN = {"dsa", "weak-rsa"}
GOOD = {"ca-ec", "ca-ed", "ca-rsa", "san", "renewed"}


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


def listed(path: pathlib.Path) -> dict[str, str] | None:
    """Fingerprint of each entry, by alias, as keytool lists them; None where it cannot open the store."""
    command = ("keytool", *jdks.BRIEF_KEYTOOL, "-list", "-keystore", str(path), "-storepass", stores.PASSWORD)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    return dict(re.findall(r"^(\S+), .*\n.*\(SHA-256\): ([0-9A-F:]+)$", done.stdout, re.MULTILINE))


class Fleet:
    """Two hosts as 0.1.0 left them, by their type of keystore, in a control plane of their own."""

    def __init__(self, plane: harness.ControlPlane, api: client.Api, directory: pathlib.Path) -> None:
        self.api = api
        self.simulation = Simulation(plane, "kvm", kubelets=False)
        self.hosts: dict[str, World] = {}
        for store_type in ("jks", "pkcs12"):
            place = directory / store_type
            place.mkdir()
            host = World(api, plane.kubeconfig(), place)
            host.host, host.zone = f"kvm-{store_type}", "zone-1"
            source = RECORDED / host.host
            shutil.copy(source / "cloud.jks", host.files.path)
            ledger = (source / "keystores.json").read_text().replace("@AGENT@", str(host.files.directory))
            (host.state / "keystores.json").write_text(ledger)
            (host.state / "trust").mkdir()
            shutil.copy(source / "bundle.pem", host.state / "trust" / "bundle.pem")
            self.hosts[store_type] = host

    async def restore(self) -> None:
        document = recorded("certificates.json")
        for item in document["zones"]:
            await self._make(kinds.ZONES, item)
        for host in self.hosts.values():
            self.simulation.add_host(host.host.removeprefix("kvm-"), labels={"zone": "1"})
            (item,) = (each for each in document["hosts"] if each["metadata"]["name"] == host.host)
            item = json.loads(json.dumps(item).replace("@AGENT@", str(host.files.directory)))
            status = item.pop("status")
            await self._make(kinds.HOSTS, item)
            synced = [each for each in status["conditions"] if each["type"] == "KeystoreSynced"]
            ready = [each for each in status["conditions"] if each["type"] == "Ready"]
            told = {name: status.pop(name) for name in _OF_CONTROLLER if name in status}
            await self._tell(kinds.HOSTS, host.host, {**told, "conditions": ready}, CONTROLLER)
            await self._tell(kinds.HOSTS, host.host, {**status, "conditions": synced}, AGENT)
        for item in document["certificates"]:
            status = item.pop("status")
            await self._make(kinds.CERTIFICATES, item)
            await self._tell(kinds.CERTIFICATES, item["metadata"]["name"], status, CONTROLLER)

    async def _make(self, kind: kinds.Resource, item: Object) -> None:
        metadata = {name: item["metadata"][name] for name in ("name", "finalizers") if name in item["metadata"]}
        await self.api.create(kind, {**item, "metadata": metadata})

    async def _tell(self, kind: kinds.Resource, name: str, status: Object, manager: str) -> None:
        body = {"metadata": {"name": name}, "status": status}
        await self.api.apply(kind, body, manager=manager, subresource="status")

    @contextlib.asynccontextmanager
    async def agent(self, store_type: str) -> collections.abc.AsyncIterator[None]:
        host = self.hosts[store_type]
        async with agent_world.running(host.settings()):
            await until_async("the agent", host.ready)
            yield

    async def healed(self, store_type: str) -> None:
        """Java opens the store again, and has in it all that it can read of what 0.1.0 put there."""
        path = self.hosts[store_type].files.path

        async def reads() -> bool:
            found = await asyncio.to_thread(listed, path)
            return found is not None and set(found.values()) == self.readable(store_type)

        await until_async(f"{path} to be read by Java", reads)

    def readable(self, store_type: str) -> set[str]:
        """Fingerprints in the recorded store that Java reads."""
        source = str(RECORDED / f"kvm-{store_type}" / "cloud.jks")
        entries = store.read(source, stores.PASSWORD).entries.values()
        certificates = [pem.Certificate(each.certificate) for each in entries if each.certificate is not None]
        return {each.fingerprint_sha256 for each in certificates if each.unreadable is None}

    async def certificates(self) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in (await self.api.list(kinds.CERTIFICATES))[0]}

    async def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        """Status and reason by type."""
        found = (await self.certificates())[name]["status"]["conditions"]
        return {each["type"]: (each["status"], each["reason"]) for each in found}

    async def withdrawn(self) -> None:
        """The controller publishes nothing any more that Java cannot read, and all the rest as before."""

        async def done() -> bool:
            found = await self.certificates()
            published = {name for name, each in found.items() if "certificate" in each["status"]}
            return published == found.keys() - UNREADABLE

        await until_async("what Java cannot read to be withdrawn", done)
        for name in UNREADABLE:
            conditions = await self.conditions(name)
            assert conditions["Ready"] == ("False", "InvalidCertificate")
            assert conditions["Stalled"] == ("True", "InvalidCertificate")
        for name in NOT_TAKEN:
            assert (await self.conditions(name))["Accepted"] == ("False", "InvalidCertificate")
        for name in GOOD:
            assert "Accepted" not in await self.conditions(name)


@pytest_asyncio.fixture
async def fleet(tmp_path: pathlib.Path) -> collections.abc.AsyncIterator[Fleet]:
    with harness.ControlPlane() as plane:
        kube.install_definitions(plane)
        api = await client.Api.connect(kubeconfig=str(plane.kubeconfig()))
        found = Fleet(plane, api, tmp_path)
        try:
            with found.simulation:
                await found.restore()
                yield found
        finally:
            await api.close()


async def proves_all(fleet: Fleet, store_type: str) -> None:
    host = fleet.hosts[store_type]
    states = {
        **dict.fromkeys(GOOD | NOT_TAKEN, "Uploaded"),
        **dict.fromkeys(UNREADABLE | {"rotated"}, "Failed InvalidCertificate"),
        "revoked": "Revoked",
    }

    async def proven() -> bool:
        found = (await host.host_status()).get("certificates", [])
        return {
            each["name"]: " ".join([each["state"], *([each["reason"]] if "reason" in each else [])]) for each in found
        } == states

    await until_async(f"the proofs of {host.host}", proven)


def test_what_0_1_0_left_cannot_be_opened() -> None:
    """Otherwise the tests here show nothing."""
    assert listed(RECORDED / "kvm-jks" / "cloud.jks") is None
    assert listed(RECORDED / "kvm-pkcs12" / "cloud.jks") is None


async def test_agents_first(fleet: Fleet) -> None:
    """The old controller still publishes what Java cannot read; the new agents take it out, and say why."""
    for store_type in fleet.hosts:
        async with fleet.agent(store_type):
            await fleet.healed(store_type)
            await proves_all(fleet, store_type)
    fleet.simulation.start_controller()
    await fleet.withdrawn()
    for store_type in fleet.hosts:
        async with fleet.agent(store_type):
            await fleet.healed(store_type)


async def test_controller_first(fleet: Fleet) -> None:
    """What it withdraws, agents of any version take out: it is not published any more, and their ledger names it."""
    fleet.simulation.start_controller()
    await fleet.withdrawn()
    before = recorded("certificates.json")["certificates"]
    (rotated,) = (each["status"] for each in before if each["metadata"]["name"] == "rotated")
    # What hosts had before is what they keep, and no longer for a while only.
    found = (await fleet.certificates())["rotated"]["status"]
    assert found["certificate"] == rotated["previous"]["certificate"]
    assert "previous" not in found
    assert (await fleet.conditions("rotated"))["Ready"] == ("False", "InvalidCertificate")
    for store_type in fleet.hosts:
        async with fleet.agent(store_type):
            await fleet.healed(store_type)


async def test_half_of_each(fleet: Fleet) -> None:
    async with fleet.agent("jks"):
        await fleet.healed("jks")
        fleet.simulation.start_controller()
        await fleet.withdrawn()
        await fleet.healed("jks")
    # The other one's agent is the old one still.
    assert listed(fleet.hosts["pkcs12"].files.path) is None
    async with fleet.agent("pkcs12"):
        await fleet.healed("pkcs12")
