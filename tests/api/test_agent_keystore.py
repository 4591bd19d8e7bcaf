"""The agent keeps its host's keystore: real files, a real kube-apiserver, certificates as they are published."""

import asyncio
import datetime
import json
import os
import pathlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import prometheus_client
import pytest
import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_world, kube, stores
from tests.world.agent_world import World, running
from tests.world.waiting import until_async

from directdownload.agent import retry
from directdownload.cluster import kinds
from directdownload.download.sources import tls

A, B, C, FOREIGN = (stores.certificate(name) for name in ("a", "b", "c", "foreign"))
PA, PB, PC = (each.fingerprint_sha256 for each in (A, B, C))


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        await made.create_zone()
        yield made


def drift(world: World, kind: str) -> float:
    labels = {"host": world.host, "kind": kind}
    return prometheus_client.REGISTRY.get_sample_value("directdownload_keystore_drift_total", labels) or 0


def bundle(world: World) -> frozenset[bytes]:
    """As a download job reads it."""
    return tls.trust(str(world.state / "trust" / "bundle.pem")).certificates


def soon(**delta: float) -> str:
    """A time of the API, in whole seconds."""
    return f"{datetime.datetime.now(datetime.UTC) + datetime.timedelta(**delta):%Y-%m-%dT%H:%M:%SZ}"


async def holds(world: World, **fingerprints: str) -> None:
    """Waits until the store holds just these, with `_` for `-`."""
    wanted = {alias.replace("_", "-"): fingerprint for alias, fingerprint in fingerprints.items()}

    async def same() -> bool:
        return await asyncio.to_thread(world.files.fingerprints) == wanted

    await until_async(f"the store to hold {wanted}", same)


@pytest.mark.parametrize("store_type", ["JKS", "PKCS12"])
async def test_a_certificate_is_put_into_the_hosts_store_and_proven(world: World, store_type: Any) -> None:
    await world.create_host()
    world.files.put(store_type, theirs=FOREIGN)
    async with running(world.settings()):
        await until_async("ready", world.ready)
        assert await world.proofs() == {}
        await world.create_certificate("My-CA", A)
        await world.prove(my_ca="Uploaded")
        assert world.files.fingerprints() == {"theirs": FOREIGN.fingerprint_sha256, "my-ca": PA}
        status = await world.host_status()
        (certificate,) = status["certificates"]
        assert certificate == {"name": f"my-ca-{world.id}", "fingerprintSHA256": PA, "state": "Uploaded"}
        assert status["keystore"].items() >= {"type": store_type, "entries": 2, "managed": 1}.items()
        condition = await world.synced()
        assert (condition["status"], condition["observedGeneration"]) == ("True", 1)
        assert bundle(world) == {A.der, FOREIGN.der}


async def test_a_host_without_a_store_gets_one_with_everything_and_one_that_comes_later_too(world: World) -> None:
    await world.create_certificate("ca", A)
    await world.create_certificate("cb", B)
    async with running(world.settings()):
        await until_async("ready without a Host", world.ready)
        assert not world.files.path.exists()
        await world.create_host()
        await world.prove(ca="Uploaded", cb="Uploaded")
    assert world.files.fingerprints() == {"ca": PA, "cb": PB}


async def test_what_the_controller_has_not_published_is_no_matter_for_hosts(world: World) -> None:
    await world.create_host()
    spec = {"zone": world.zone, "alias": "raw", "certificate": A.pem}
    await world.api.create(kinds.CERTIFICATES, kube.resource(kinds.CERTIFICATES, f"raw-{world.id}", spec))
    async with running(world.settings()):
        await world.create_certificate("cb", B)
        await world.prove(cb="Uploaded")
    assert world.files.fingerprints() == {"cb": PB}


async def test_revoked_everywhere_or_here_and_uploaded_again(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    await world.create_certificate("cb", B)
    async with running(world.settings()):
        await world.prove(ca="Uploaded", cb="Uploaded")
        await world.change(name, revoked=True)
        await world.prove(ca="Revoked", cb="Uploaded")
        assert world.files.fingerprints() == {"cb": PB}
        assert bundle(world) == {B.der}
        await world.change(name, revoked=False)
        await world.prove(ca="Uploaded", cb="Uploaded")
        await world.change(name, revokedHosts=["kvm-other", world.host])
        await world.prove(ca="Revoked", cb="Uploaded")
        assert world.files.fingerprints() == {"cb": PB}
        await world.change(name, revokedHosts=["kvm-other"])
        await world.prove(ca="Uploaded", cb="Uploaded")
        assert world.files.fingerprints() == {"ca": PA, "cb": PB}


async def test_a_host_made_anew_is_told_everything_again_with_times_of_its_own(world: World) -> None:
    await world.create_host()
    await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        before = (await world.synced())["lastTransitionTime"]

        async def later() -> bool:
            return bool(soon() > before)

        await until_async("another second", later)
        await world.api.delete(kinds.HOSTS, world.host)
        created = (await world.create_host())["metadata"]["creationTimestamp"]
        await world.prove(ca="Uploaded")
        assert before < created <= (await world.synced())["lastTransitionTime"]


async def test_a_deletion_is_proven_while_it_is_held_back_and_forgotten_after(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    await world.api.merge_patch(kinds.CERTIFICATES, name, {"metadata": {"finalizers": ["example.org/hold"]}})
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        await world.api.delete(kinds.CERTIFICATES, name)
        await world.prove(ca="Revoked")
        assert world.files.fingerprints() == {}
        await world.api.merge_patch(kinds.CERTIFICATES, name, {"metadata": {"finalizers": []}})
        await world.prove()
        # without anything that holds it back
        name = await world.create_certificate("cb", B)
        await world.prove(cb="Uploaded")
        await world.api.delete(kinds.CERTIFICATES, name)
        await world.prove()
        assert world.files.fingerprints() == {}


async def test_a_host_that_moves_to_another_zone_takes_the_certificates_of_that_one(world: World) -> None:
    other = f"other-{world.id}"
    await world.create_zone(other)
    await world.create_host()
    await world.create_certificate("ca", A)
    await world.create_certificate("cb", B, zone=other)
    await world.create_certificate("cc", C, zone=f"third-{world.id}")
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        await world.api.merge_patch(kinds.HOSTS, world.host, {"spec": {"zone": other}})
        await world.prove(cb="Uploaded")
        assert world.files.fingerprints() == {"cb": PB}
        # a zone that does not exist (yet)
        await world.api.merge_patch(kinds.HOSTS, world.host, {"spec": {"zone": f"third-{world.id}"}})
        await world.prove(cc="Pending ZoneNotFound")
        assert world.files.fingerprints() == {}
        await world.create_zone(f"third-{world.id}")
        await world.prove(cc="Uploaded")


async def test_a_certificate_that_moves_to_another_zone_leaves_the_hosts_of_the_old_one(
    world: World, definitions: harness.ControlPlane, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "other").mkdir()
    async with agent_world.one(definitions, tmp_path / "other") as other:
        await other.create_zone()
        await other.create_host()
        await world.create_host()
        name = await world.create_certificate("ca", A)
        await world.create_certificate("cb", B)
        with agent_world.quick_process(other):
            async with running(world.settings()):
                await world.prove(ca="Uploaded", cb="Uploaded")
                await world.change(name, zone=other.zone)
                await world.prove(cb="Uploaded")
                assert world.files.fingerprints() == {"cb": PB}
                assert bundle(world) == {B.der}
                await holds(other, ca=PA)


async def test_revoked_and_then_another_uploaded_the_revoked_one_is_not_trusted_again(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        await world.change(name, revoked=True)
        await world.prove(ca="Revoked")
        # as a controller that forgot about the revocation would
        await world.publish(name, B, A, soon(hours=1))
        await world.change(name, certificate=B.pem, revoked=False)
        await world.prove(ca="Uploaded")
        assert world.files.fingerprints() == {"ca": PB}
        assert bundle(world) == {B.der}
    # a host that comes late gets both
    os.unlink(world.state / "keystores.json")
    async with running(world.settings()):
        await holds(world, ca=PB, ca_previous=PA)


async def test_revoked_here_and_then_another_uploaded_in_one_change_nothing_of_the_old_one_comes_back(
    world: World,
) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A, revokedHosts=[world.host])
    await world.create_certificate("cb", C)
    async with running(world.settings()):
        await world.prove(ca="Revoked", cb="Uploaded")
        await world.change(name, looked_at=False, certificate=B.pem, revokedHosts=[])
        # what comes after it has been seen: so has it
        await world.create_certificate("cc", FOREIGN)
        await world.prove(ca="Revoked", cb="Uploaded", cc="Uploaded")
        await world.publish(name, B, A, soon(hours=1))
        await world.prove(ca="Uploaded", cb="Uploaded", cc="Uploaded")
        assert world.files.fingerprints() == {"ca": PB, "cb": PC, "cc": FOREIGN.fingerprint_sha256}


async def test_a_backup_that_is_restored_after_a_deletion_does_not_bring_the_certificate_back(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    await world.create_certificate("cb", B)
    async with running(world.settings()):
        await world.prove(ca="Uploaded", cb="Uploaded")
        backup = world.files.path.read_bytes()
        await world.api.delete(kinds.CERTIFICATES, name)
        await world.prove(cb="Uploaded")
        await holds(world, cb=PB)
        world.files.path.write_bytes(backup)
        await holds(world, cb=PB)
        world.files.path.write_bytes(backup)
    async with running(world.settings()):
        await until_async("ready", world.ready)
        assert world.files.fingerprints() == {"cb": PB}
        assert bundle(world) == {B.der}


async def test_a_ledger_that_cannot_be_read_is_told_and_read_when_it_can_be(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
    ledger, aside = world.state / "keystores.json", world.state / "aside"
    content = world.files.path.read_bytes()
    ledger.rename(aside)
    ledger.mkdir()
    await world.api.delete(kinds.CERTIFICATES, name)
    await world.create_certificate("cb", B)
    async with running(world.settings()):
        await world.prove(cb="Failed KeystoreWriteFailed")
        assert str(ledger) in (await world.synced())["message"]
        assert world.files.path.read_bytes() == content
        ledger.rmdir()
        aside.rename(ledger)
        await world.prove(cb="Uploaded")
        assert world.files.fingerprints() == {"cb": PB}


async def test_nothing_is_added_in_a_disabled_zone_but_removals_are_done(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    rotated = await world.create_certificate("cb", B)
    async with running(world.settings()):
        await world.prove(ca="Uploaded", cb="Uploaded")
        await world.api.merge_patch(kinds.ZONES, world.zone, {"spec": {"enabled": False}})
        await world.create_certificate("cc", C)
        await world.prove(ca="Uploaded", cb="Uploaded", cc="Pending ZoneDisabled")
        await world.publish(rotated, FOREIGN, B, soon(hours=1))
        await world.change(name, revoked=True)
        await world.prove(ca="Revoked", cb="Pending ZoneDisabled", cc="Pending ZoneDisabled")
        assert world.files.fingerprints() == {"cb": PB}
        world.files.remove("cb")
        await holds(world)
        await world.api.merge_patch(kinds.ZONES, world.zone, {"spec": {"enabled": True}})
        await world.prove(ca="Revoked", cb="Uploaded", cc="Uploaded")
        assert world.files.fingerprints() == {"cb": FOREIGN.fingerprint_sha256, "cb-previous": PB, "cc": PC}


async def test_a_rotation_keeps_the_certificate_before_until_its_time_is_over(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        await world.publish(name, B, A, soon(seconds=3))
        await holds(world, ca=PB, ca_previous=PA)

        async def rotated() -> bool:
            (proof,) = (await world.host_status())["certificates"]
            return bool(proof.get("fingerprintSHA256") == PB)

        await until_async("the proof of the new one", rotated)
        # by the clock alone: nothing changes in the cluster
        await holds(world, ca=PB)

        async def shrunk() -> bool:
            return bool((await world.host_status())["keystore"]["entries"] == 1)

        await until_async("the status", shrunk)
        assert bundle(world) == {B.der}


async def test_a_foreign_entry_keeps_its_alias_and_the_certificate_says_so(world: World) -> None:
    await world.create_host()
    world.files.put(ca=FOREIGN)
    name = await world.create_certificate("ca", A)
    await world.create_certificate("cb", B)
    async with running(world.settings()):
        await world.prove(ca="Failed AliasConflict", cb="Uploaded")
        (failed, _) = (await world.host_status())["certificates"]
        assert "alias ca is held by an entry that the agent did not import" in failed["message"]
        await world.change(name, revoked=True)
        await world.prove(ca="Revoked", cb="Uploaded")
        assert world.files.fingerprints() == {"ca": FOREIGN.fingerprint_sha256, "cb": PB}
        # whoever put it there takes it away: the alias is free
        await world.change(name, revoked=False)
        world.files.remove("ca")
        await world.prove(ca="Uploaded", cb="Uploaded")
    assert drift(world, "EntryMissing") == 0, "it was not ours"


async def test_a_foreign_entry_that_is_the_certificate_is_adopted_also_to_be_revoked(world: World) -> None:
    await world.create_host()
    world.files.put(ca=A, cb=B)
    content = world.files.path.read_bytes()
    name = await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        assert world.files.path.read_bytes() == content, "adopting writes nothing"
        assert (await world.host_status())["keystore"]["managed"] == 1
        await world.create_certificate("cb", B, revoked=True)
        await world.prove(ca="Uploaded", cb="Revoked")
        await world.api.delete(kinds.CERTIFICATES, name)
        await world.prove(cb="Revoked")
    assert world.files.fingerprints() == {}


async def test_drift_is_repaired_within_seconds_counted_and_told(world: World) -> None:
    await world.create_host()
    await world.create_certificate("ca", A)
    await world.create_certificate("cb", B)
    both = {"ca": PA, "cb": PB}

    async def told(kind: str) -> bool:
        last = (await world.host_status())["keystore"].get("lastDrift", {})
        return bool(last.get("kind") == kind and drift(world, kind) > 0)

    async with running(world.settings()):
        await world.prove(ca="Uploaded", cb="Uploaded")
        world.files.remove("ca")
        await until_async("the missing entry", lambda: told("EntryMissing"), 5)
        assert world.files.fingerprints() == both
        world.files.put(cb=FOREIGN)
        await until_async("the replaced entry", lambda: told("EntryReplaced"), 5)
        assert world.files.fingerprints() == both
        world.files.path.unlink()
        await until_async("the store", lambda: told("StoreMissing"), 5)
        assert world.files.fingerprints() == both
        assert [drift(world, kind) for kind in ("EntryMissing", "EntryReplaced", "StoreMissing")] == [1, 1, 1]
        # a host that is added again: another password, another store, one after the other
        world.files.set_password("quite another one")
        os.unlink(world.files.path)
        world.files.put("PKCS12", theirs=FOREIGN)
        await holds(world, **both, theirs=FOREIGN.fingerprint_sha256)
        await world.prove(ca="Uploaded", cb="Uploaded")

        async def type_told() -> bool:
            return bool((await world.host_status())["keystore"]["type"] == "PKCS12")

        await until_async("the new store in the status", type_told)
        assert (await world.synced())["status"] == "True"


async def test_the_store_is_checked_by_sync_interval_and_foreign_changes_stay(world: World) -> None:
    await world.api.merge_patch(kinds.ZONES, world.zone, {"spec": {"certificates": {"syncInterval": "1s"}}})
    await world.create_host()
    await world.create_certificate("ca", A)
    # the files are not looked at in between
    async with running(world.settings(keystore_poll_seconds=0.5)):
        await world.prove(ca="Uploaded")
        before = prometheus_client.REGISTRY.get_sample_value("directdownload_keystore_sync_duration_seconds_count") or 0

        async def synced_again() -> bool:
            count = prometheus_client.REGISTRY.get_sample_value("directdownload_keystore_sync_duration_seconds_count")
            return (count or 0) >= before + 3

        await until_async("more checks", synced_again)
        world.files.put(theirs=FOREIGN)

        async def seen() -> bool:
            return bool((await world.host_status())["keystore"]["entries"] == 2)

        await until_async("the foreign entry in the status", seen)
    assert world.files.fingerprints() == {"ca": PA, "theirs": FOREIGN.fingerprint_sha256}


async def test_a_wrong_password_is_told_and_tried_again_when_it_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "pause_seconds", lambda *_: 3600.0)
    await world.create_host()
    world.files.put(theirs=FOREIGN)
    right = world.files.password
    world.files.set_password("wrong")
    await world.create_certificate("ca", A)
    async with running(world.settings()):
        await until_async("ready, whatever became of the keystore", world.ready)
        await world.prove(ca="Failed KeystorePasswordWrong")
        (failed,) = (await world.host_status())["certificates"]
        assert "message" not in failed, "told once, in the condition"
        condition = await world.synced()
        assert (condition["status"], condition["reason"]) == ("False", "KeystorePasswordWrong")
        assert str(world.files.path) in condition["message"]
        assert not {"wrong", right} & set(condition["message"].split())
        world.files.set_password(right)
        await world.prove(ca="Uploaded")
        assert (await world.synced())["status"] == "True"
        # while the store stays as it is
        world.files.set_password("wrong again")
        await world.prove(ca="Failed KeystorePasswordWrong")


async def test_a_failure_that_no_file_tells_the_end_of_is_tried_again(world: World) -> None:
    await world.create_host()
    obstacle = world.state / "keystores.json.tmp"
    obstacle.mkdir()
    await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Failed KeystoreWriteFailed")
        assert not world.files.path.exists(), "the ledger is written before the store"
        obstacle.rmdir()
        await world.prove(ca="Uploaded")


async def test_another_keystore_in_the_spec_is_used_and_the_old_one_left(world: World) -> None:
    await world.create_host()
    await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
        await world.change_keystore(path="/srv/cloud.jks")
        await world.prove(ca="Failed KeystoreUnreadable")
        assert "agent.keystoreRoots" in (await world.synced())["message"]
        new = world.files.directory / "new.p12"
        await world.change_keystore(path=str(new), type="PKCS12")
        await world.prove(ca="Uploaded")
        assert (await world.host_status())["keystore"]["type"] == "PKCS12"
        assert (await world.synced())["observedGeneration"] == 3
    assert world.files.fingerprints() == {}
    world.files.path = new
    assert world.files.fingerprints() == {"ca": PA}


async def test_nothing_is_changed_before_zone_and_certificates_are_listed(
    world: World, definitions: harness.ControlPlane
) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    async with running(world.settings()):
        await world.prove(ca="Uploaded")
    content = world.files.path.read_bytes()
    watched = ["hosts", "storagepools", "zones"]
    writing = agent_world.rule(["patch"], "hosts/status")
    async with agent_world.restricted(
        world, definitions, [agent_world.rule(["get", "list", "watch"], *watched), writing]
    ) as allow:
        refused = {"verb": "list", "resource": "directdownloadcertificates", "code": "403"}

        async def refused_twice() -> bool:
            return (prometheus_client.REGISTRY.get_sample_value("directdownload_api_requests_total", refused) or 0) >= 2

        async with running(world.settings()):
            await until_async("the second refusal", refused_twice)
            assert await world.answer("readyz") == (
                500,
                "waiting for the API server: Zone and certificates are not read yet",
            )
            assert world.files.path.read_bytes() == content
            watched.append("directdownloadcertificates")
            await allow([agent_world.rule(["get", "list", "watch"], *watched), writing])
            await until_async("ready", world.ready)
            assert world.files.path.read_bytes() == content
            await world.change(name, revoked=True)
            await world.prove(ca="Revoked")


async def test_a_host_that_fails_does_not_hold_up_the_others(
    world: World, definitions: harness.ControlPlane, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "other").mkdir()
    async with agent_world.one(definitions, tmp_path / "other") as other:
        other.zone = world.zone
        await world.create_host()
        await other.create_host()
        world.files.put(theirs=FOREIGN)
        world.files.set_password("wrong")
        await world.create_certificate("ca", A)
        with agent_world.quick_process(world):
            async with running(other.settings()):
                await world.prove(ca="Failed KeystorePasswordWrong")

                async def proven() -> bool:
                    found = (await other.host_status()).get("certificates", [])
                    return [each["state"] for each in found] == ["Uploaded"]

                await until_async("the proof of the other", proven)
    assert other.files.fingerprints() == {"ca": PA}


async def test_a_revoke_that_the_host_missed_is_done_before_it_is_ready(world: World) -> None:
    await world.create_host()
    name = await world.create_certificate("ca", A)
    gone = await world.create_certificate("cb", B)
    async with running(world.settings()):
        await world.prove(ca="Uploaded", cb="Uploaded")
    await world.change(name, revoked=True)
    await world.api.delete(kinds.CERTIFICATES, gone)
    async with running(world.settings()):
        await until_async("ready", world.ready)
        assert world.files.fingerprints() == {}
        assert await world.proofs() == {"ca": "Revoked"}
        assert bundle(world) == frozenset()


async def test_each_change_costs_one_write_and_nothing_else_does(world: World) -> None:
    await world.create_host()
    await world.create_pool("local")
    name = await world.create_certificate("ca", A)
    async with running(world.settings()):
        await until_async("ready", world.ready)
        await world.prove(ca="Uploaded")
        before = agent_world.applies("hosts")
        transitions = []
        for number, state in enumerate(["Revoked", "Uploaded", "Revoked"], start=1):
            await world.change(name, revoked=state == "Revoked")
            await world.prove(ca=state)
            # as the controller counts; and a change that is none
            await world.publish(name, A, hosts={"desired": number})
            await world.api.merge_patch(kinds.ZONES, world.zone, {"metadata": {"labels": {"n": str(number)}}})
            os.utime(world.files.path)
            transitions.append((await world.host_status())["certificates"][0].get("lastTransitionTime"))
            await agent_world.wrote(before, number, "hosts")
        shown = await world.host_status()
    before = agent_world.applies("hosts")
    async with running(world.settings()):
        await until_async("ready", world.ready)
        await agent_world.wrote(before, 1, "hosts")
        again = await world.host_status()
        assert again["certificates"] == shown["certificates"], "times too"
        assert again["keystore"] == shown["keystore"]
        assert again["conditions"] == shown["conditions"]


async def test_a_read_only_directory_is_told_and_put_right_when_it_can_be_written(world: World) -> None:
    await world.create_host()
    world.files.put(theirs=FOREIGN)
    await world.create_certificate("ca", A)
    directory = str(world.files.directory)
    read_only = (f"mount --bind {directory} {directory}", f"mount -o remount,bind,ro {directory}")
    with agent_world.quick_process(world, *read_only):
        await until_async("ready", world.ready)
        await world.prove(ca="Failed KeystoreWriteFailed")
        assert directory in (await world.synced())["message"]
        assert bundle(world) == frozenset(), "nothing is trusted that was not read from the store"
    with agent_world.process(world) as agent:
        await world.prove(ca="Uploaded")
        agent.send_signal(signal.SIGTERM)
        log = (await asyncio.to_thread(agent.communicate, timeout=120))[1]
    assert agent.returncode == 0, log
    assert f"put {PA} under ca" in log
    assert world.files.password not in log
    assert bundle(world) == {A.der, FOREIGN.der}


async def test_every_line_of_the_log_is_json_that_names_its_object_and_holds_no_password(world: World) -> None:
    """At debug, with a password that is wrong and then right; the controller's log: `test_logs.py`."""
    await world.create_host()
    await world.create_pool("local")
    world.files.put(theirs=FOREIGN)
    right, wrong = world.files.password, "planted-password-4711"
    world.files.set_password(wrong)
    await world.create_certificate("ca", A)
    with agent_world.process(world, options=("--log-level", "debug")) as agent:
        await world.prove(ca="Failed KeystorePasswordWrong")
        world.files.set_password(right)
        await world.prove(ca="Uploaded")
        agent.send_signal(signal.SIGTERM)
        log = (await asyncio.to_thread(agent.communicate, timeout=120))[1]
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    about = [line for line in lines if line.get("object", {}) == {"kind": "Host", "name": world.host}]
    assert "KeystorePasswordWrong" in {line.get("reason") for line in about}, log
    assert {"kind": "StoragePool", "name": f"local-{world.id}"} in [line.get("object") for line in lines]
    status = json.dumps(await world.host_status())
    assert not [secret for secret in (right, wrong) if secret in log or secret in status]
