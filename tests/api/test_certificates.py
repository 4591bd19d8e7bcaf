"""Certificates on a real API server with the real controller: from an object to the proof of every host, and back."""

import base64
import datetime
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import certificates
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import pem
from directdownload.resources.reasons import Reason

PEM, NEW = certificates.pem(), certificates.pem("new.example.org")
FINGERPRINT, NEW_FINGERPRINT = (pem.parse(each).fingerprint_sha256 for each in (PEM, NEW))


def begin(world: Simulation, count: int = 3, **zone: Any) -> list[str]:
    """So many hosts that are Up, and a controller."""
    world.create_zone(**zone)
    hosts = [world.add_host(f"kvm-{number:02}") for number in range(1, count + 1)]
    world.start_controller()
    until("Up hosts", lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts", {}).get("up") == count)
    return hosts


def status(world: Simulation, name: str) -> Object:
    return dict(world.get(kinds.CERTIFICATES, name).get("status", {}))


def shown(world: Simulation, name: str, condition: str = "Ready") -> tuple[str, str]:
    conditions = status(world, name).get("conditions", ())
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == condition), ("", ""))


def message(world: Simulation, name: str) -> str:
    return next(str(c["message"]) for c in status(world, name)["conditions"] if c["type"] == "Ready")


def until_ready(world: Simulation, name: str, reason: str = "Provisioned", seconds: float = 120) -> None:
    until(f"{name} to be {reason}", lambda: shown(world, name) == ("True", reason), seconds)


def until_not_ready(world: Simulation, name: str, reason: str) -> None:
    until(f"{name} to be {reason}", lambda: shown(world, name) == ("False", reason))


def change(world: Simulation, name: str, **spec: Any) -> None:
    with world.kube() as kube:
        kube.patch(kinds.CERTIFICATES, name, {"spec": spec}).object()


def delete(world: Simulation, name: str) -> None:
    with world.kube() as kube:
        kube.delete(kinds.CERTIFICATES, name).object()


def trusted(world: Simulation, host: str) -> dict[str, str]:
    """Fingerprints by alias in the host's keystore."""
    return dict(world.keystore(host).entries)


def everywhere(world: Simulation, hosts: list[str], entries: dict[str, str]) -> Callable[[], bool]:
    return lambda: all(trusted(world, host) == entries for host in hosts)


def put_source(world: Simulation, kind: kinds.Resource, data: dict[str, str], type: str = "", name: str = "ca") -> None:
    """A Secret or ConfigMap of the operator's namespace."""
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    body = {
        "apiVersion": "v1",
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": world.namespace},
        "data": encoded if kind is kinds.SECRETS else data,
        **({"type": type} if type else {}),
    }
    with world.kube() as kube:
        kube.apply(kind, body, "cert-manager", world.namespace).object()


def events(world: Simulation, name: str) -> set[tuple[str, str]]:
    with world.kube() as kube:
        items = kube.request("GET", kinds.EVENTS.path(None, "default")).object()["items"]
    return {(item["type"], item["reason"]) for item in items if item["regarding"]["name"] == name}


# --- upload and revoke


def test_a_certificate_reaches_every_up_host(world: Simulation) -> None:
    hosts = begin(world)
    name = world.create_certificate("my-ca", PEM.replace("\n", "\r\n"), alias="My-CA")
    until_ready(world, name)
    assert everywhere(world, hosts, {"my-ca": FINGERPRINT})()
    found = status(world, name)
    assert (found["certificate"], found["fingerprintSHA256"]) == (PEM, FINGERPRINT)
    assert (found["subject"], found["issuer"], found["serialNumber"]) == (
        *("CN=images.example.org", "CN=images.example.org"),
        "1234abcd",
    )
    assert found["hosts"] == {"desired": 3, "uploaded": 3, "revoked": 0, "failed": 0, "pending": 0, "down": 0}
    until("an event", lambda: ("Normal", "Provisioned") in events(world, name))


def test_a_zone_revoke_removes_it_everywhere_and_taking_it_back_uploads_it_again(world: Simulation) -> None:
    hosts = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    change(world, name, revoked=True)
    until_ready(world, name, "Revoked")
    assert everywhere(world, hosts, {})()
    assert status(world, name)["hosts"]["revoked"] == 3
    change(world, name, revoked=False)
    until_ready(world, name)
    assert everywhere(world, hosts, {"my-ca": FINGERPRINT})()


def test_a_host_revoke_removes_it_there_alone_until_it_is_taken_off_the_list(world: Simulation) -> None:
    first, *others = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    change(world, name, revokedHosts=[first])
    until("one host less", lambda: status(world, name)["hosts"].get("revoked") == 1)
    until_ready(world, name)
    assert trusted(world, first) == {}
    assert everywhere(world, others, {"my-ca": FINGERPRINT})()
    change(world, name, revokedHosts=[])
    until("all hosts again", lambda: status(world, name)["hosts"]["uploaded"] == 3)
    until_ready(world, name)
    assert trusted(world, first) == {"my-ca": FINGERPRINT}


def test_a_host_that_is_added_later_gets_every_certificate(world: Simulation) -> None:
    begin(world)
    names = [world.create_certificate(f"ca-{number}", certificates.pem(f"ca-{number}")) for number in range(3)]
    for name in names:
        until_ready(world, name)
    late = world.add_host("late")
    for name in names:
        until("its proof", lambda name=name: status(world, name)["hosts"]["uploaded"] == 4)  # type: ignore[misc]
        until_ready(world, name)
    assert set(trusted(world, late)) == {"ca-0", "ca-1", "ca-2"}


def test_one_failing_host_does_not_hold_the_others_and_says_why(world: Simulation) -> None:
    bad, *good = begin(world)
    world.keystore(bad).fault = Reason.KEYSTORE_WRITE_FAILED
    name = world.create_certificate("my-ca", PEM)
    until("two proofs", lambda: status(world, name).get("hosts", {}).get("uploaded") == 2)
    until_not_ready(world, name, "ProvisioningFailed")
    assert everywhere(world, good, {"my-ca": FINGERPRINT})()
    assert status(world, name)["failures"] == [
        {"host": bad, "reason": "KeystoreWriteFailed", "message": "/etc/cloudstack/agent: Read-only file system"}
    ]
    assert shown(world, name, "Reconciling")[0] == "True"
    until("an event", lambda: ("Warning", "ProvisioningFailed") in events(world, name))
    world.keystore(bad).fault = None
    until_ready(world, name)
    assert status(world, name)["failures"] == []


def test_a_host_that_is_down_holds_nothing_and_is_put_right_when_it_returns(world: Simulation) -> None:
    first, second, _ = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    world.power_off(first)
    until("its count", lambda: status(world, name)["hosts"]["down"] == 1)
    until_ready(world, name)
    delete(world, name)
    until("the deletion", lambda: world.gone(kinds.CERTIFICATES, name))
    assert trusted(world, first) == {"my-ca": FINGERPRINT}
    assert trusted(world, second) == {}
    world.restore(first)
    until("its removal", lambda: trusted(world, first) == {})


def test_a_deletion_waits_for_every_host_that_is_not_down_and_says_for_which(world: Simulation) -> None:
    first, second, _ = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    for host in (first, second):
        world.keystore(host).fault = Reason.KEYSTORE_PASSWORD_WRONG
    delete(world, name)
    words = f"the deletion waits for {first}, {second} to prove the removal"
    until("the names of those who hold it", lambda: words in message(world, name))
    world.keystore(first).fault = None
    until("one less", lambda: f"waits for {second} to" in message(world, name))
    world.power_off(second)
    until("the deletion", lambda: world.gone(kinds.CERTIFICATES, name))
    assert trusted(world, first) == {}


def test_a_certificate_without_hosts_is_deleted_at_once(world: Simulation) -> None:
    begin(world, 0)
    name = world.create_certificate("my-ca", PEM)
    until_not_ready(world, name, "Provisioning")
    assert message(world, name) == f"no host of Zone {world.zone} is Up"
    delete(world, name)
    until("the deletion", lambda: world.gone(kinds.CERTIFICATES, name))


def test_a_zone_that_goes_does_not_hold_a_deletion(world: Simulation) -> None:
    begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    with world.kube() as kube:
        kube.delete(kinds.ZONES, world.zone).object()
    until_not_ready(world, name, "ZoneNotFound")
    delete(world, name)
    until("the deletion", lambda: world.gone(kinds.CERTIFICATES, name))


def test_nothing_is_added_in_a_disabled_zone(world: Simulation) -> None:
    hosts = begin(world)
    before = world.create_certificate("before", PEM)
    until_ready(world, before)
    with world.kube() as kube:
        kube.patch(kinds.ZONES, world.zone, {"spec": {"enabled": False}}).object()
    name = world.create_certificate("my-ca", NEW)
    until_not_ready(world, name, "ZoneDisabled")
    until_ready(world, before)
    assert everywhere(world, hosts, {"before": FINGERPRINT})()
    with world.kube() as kube:
        kube.patch(kinds.ZONES, world.zone, {"spec": {"enabled": True}}).object()
    until_ready(world, name)


def test_a_host_that_moves_to_another_zone_loses_the_certificates_of_the_old_one(world: Simulation) -> None:
    first, *_ = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    other = world.add_zone("other")
    there = world.create_certificate("other-ca", NEW, zone=other)
    world.relabel(first, simulated_zone=other)
    until_ready(world, there)
    until("one host less", lambda: status(world, name)["hosts"]["desired"] == 2)
    assert trusted(world, first) == {"other-ca": NEW_FINGERPRINT}


# --- what may be published


def test_an_invalid_change_keeps_the_one_that_is_published(world: Simulation) -> None:
    hosts = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    for text, words in ((PEM + NEW, "expected one certificate, found 2"), (PEM + "XXXX", "found text after it")):
        change(world, name, certificate=text)
        until("the words", lambda words=words: words in message(world, name))  # type: ignore[misc]
        assert shown(world, name) == ("False", "InvalidCertificate")
        assert shown(world, name, "Stalled")[0] == "True"
        assert status(world, name)["certificate"] == PEM
    assert everywhere(world, hosts, {"my-ca": FINGERPRINT})()
    until("an event", lambda: ("Warning", "InvalidCertificate") in events(world, name))
    change(world, name, certificate=PEM)
    until_ready(world, name)


def test_an_alias_belongs_to_the_older_object_until_that_is_gone(world: Simulation) -> None:
    hosts = begin(world)
    older = world.create_certificate("my-ca", PEM)
    until_ready(world, older)
    # Ages are compared in whole seconds.
    made = world.get(kinds.CERTIFICATES, older)["metadata"]["creationTimestamp"]
    until("the next second", lambda: datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") != made)
    younger = world.create_certificate("another", NEW, alias="MY-CA")
    until_not_ready(world, younger, "AliasConflict")
    assert f"DirectDownloadCertificate {older}, which is older, has the alias my-ca" in message(world, younger)
    assert "certificate" not in status(world, younger)
    until("an event", lambda: ("Warning", "AliasConflict") in events(world, younger))
    assert everywhere(world, hosts, {"my-ca": FINGERPRINT})()
    delete(world, older)
    until_ready(world, younger)
    assert everywhere(world, hosts, {"my-ca": NEW_FINGERPRINT})()


@pytest.mark.parametrize("kind", [kinds.SECRETS, kinds.CONFIG_MAPS], ids=["Secret", "ConfigMap"])
def test_a_reference_is_followed(world: Simulation, kind: kinds.Resource) -> None:
    hosts = begin(world)
    put_source(world, kind, {"unrelated": "x"}, name="other")
    reference = {"kind": kind.kind, "name": "ca", "key": "ca.crt"}
    name = world.create_certificate("my-ca", certificateRef=reference, keepPrevious="0s")
    until_not_ready(world, name, "InvalidCertificate")
    assert f"there is no {kind.kind} {world.namespace}/ca" in message(world, name)
    # What it refers to is waited for.
    assert shown(world, name, "Reconciling")[0] == "True"
    put_source(world, kind, {"other.crt": PEM})
    until("the words", lambda: f"{world.namespace}/ca has no key ca.crt" in message(world, name))
    put_source(world, kind, {"ca.crt": PEM})
    until_ready(world, name)
    put_source(world, kind, {"ca.crt": NEW})
    until("the new one", everywhere(world, hosts, {"my-ca": NEW_FINGERPRINT}))
    until_ready(world, name)
    with world.kube() as kube:
        kube.delete(kind, "ca", world.namespace).object()
    until_not_ready(world, name, "InvalidCertificate")
    assert status(world, name)["certificate"] == NEW
    put_source(world, kind, {"ca.crt": NEW})
    until_ready(world, name)


def test_a_secret_of_cert_manager_is_followed_without_its_key(world: Simulation) -> None:
    hosts = begin(world)
    key = certificates.private_key()
    put_source(world, kinds.SECRETS, {"tls.crt": PEM, "tls.key": key, "ca.crt": NEW}, "kubernetes.io/tls")
    leaf = world.create_certificate("leaf", certificateRef={"kind": "Secret", "name": "ca", "key": "tls.crt"})
    ca = world.create_certificate("ca", certificateRef={"kind": "Secret", "name": "ca", "key": "ca.crt"})
    wrong = world.create_certificate("wrong", certificateRef={"kind": "Secret", "name": "ca", "key": "tls.key"})
    until_ready(world, leaf)
    until_ready(world, ca)
    until_not_ready(world, wrong, "InvalidCertificate")
    assert everywhere(world, hosts, {"leaf": FINGERPRINT, "ca": NEW_FINGERPRINT})()
    assert "found a block that begins with -----BEGIN PRIVATE KEY" in message(world, wrong)
    body = "".join(key.splitlines()[1:-1])
    told = f"{status(world, wrong)}{[log.log.read_text() for log in world.controllers]}"
    assert not any(body[at : at + 12] in told for at in range(len(body) - 12))


# --- validity and rotation


def test_a_certificate_is_published_when_its_validity_begins_and_its_end_is_told(world: Simulation) -> None:
    hosts = begin(world, certificates={"expiryWarning": "3s"})
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = now + datetime.timedelta(seconds=3), now + datetime.timedelta(seconds=12)
    text = certificates.pem("brief", begins=begins, ends=ends)
    name = world.create_certificate("my-ca", text)
    until_not_ready(world, name, "NotYetValid")
    assert everywhere(world, hosts, {})()
    until_ready(world, name)
    assert shown(world, name, "Expiring") == ("False", "NotExpiring")
    until("a warning", lambda: shown(world, name, "Expiring") == ("True", "ExpiringSoon"))
    assert shown(world, name) == ("True", "Provisioned")
    until_not_ready(world, name, "Expired")
    assert shown(world, name, "Expiring") == ("True", "Expired")
    # It is told, and not taken away.
    assert everywhere(world, hosts, {"my-ca": pem.parse(text).fingerprint_sha256})()
    wanted = {("Normal", "Provisioned"), ("Warning", "ExpiringSoon"), ("Warning", "Expired")}
    until("the events", lambda: wanted <= events(world, name))
    late = world.create_certificate("late", text)
    until_not_ready(world, late, "Expired")
    assert "certificate" not in status(world, late)
    change(world, name, certificate=PEM)
    until_ready(world, name)


def test_a_change_keeps_the_one_before_for_as_long_as_it_is_told_to(world: Simulation) -> None:
    hosts = begin(world)
    name = world.create_certificate("my-ca", PEM, keepPrevious="5s")
    until_ready(world, name)
    change(world, name, certificate=NEW)
    until("both", everywhere(world, hosts, {"my-ca": NEW_FINGERPRINT, "my-ca-previous": FINGERPRINT}))
    until_ready(world, name)
    previous = status(world, name)["previous"]
    assert (previous["certificate"], previous["fingerprintSHA256"]) == (PEM, FINGERPRINT)
    until("the end of the one before", lambda: "previous" not in status(world, name))
    until("its removal", everywhere(world, hosts, {"my-ca": NEW_FINGERPRINT}))
    until_ready(world, name)


def test_what_was_revoked_does_not_come_back_as_the_one_before(world: Simulation) -> None:
    hosts = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    change(world, name, revoked=True)
    until_ready(world, name, "Revoked")
    assert status(world, name)["revoked"]
    change(world, name, revoked=False, certificate=NEW)
    until("the new one", lambda: status(world, name)["fingerprintSHA256"] == NEW_FINGERPRINT)
    until_ready(world, name)
    assert everywhere(world, hosts, {"my-ca": NEW_FINGERPRINT})()
    found = status(world, name)
    assert (found.get("previous"), found["revoked"]) == (None, False)


# --- restarts, writes, drift


def test_a_controller_that_is_restarted_in_mid_way_goes_on(world: Simulation) -> None:
    hosts = begin(world)
    for host in hosts[1:]:
        world.keystore(host).idle = True
    name = world.create_certificate("my-ca", PEM)
    until("one proof", lambda: status(world, name).get("hosts", {}).get("uploaded") == 1)
    world.controllers[-1].kill()
    for host in hosts[1:]:
        world.keystore(host).idle = False
    until("all proofs", everywhere(world, hosts, {"my-ca": FINGERPRINT}))
    world.start_controller("second")
    # The Lease of one that was killed has to run out.
    until_ready(world, name, seconds=120)
    delete(world, name)
    assert world.controllers[-1].stop() == 0
    until("the removals", everywhere(world, hosts, {}))
    world.start_controller("third")
    until("the deletion", lambda: world.gone(kinds.CERTIFICATES, name))


def status_writes(world: Simulation, name: str) -> list[dict[str, Any]]:
    written = harness.read_audit_log(world.control_plane.audit_log)
    return [
        event
        for event in written
        if event["objectRef"].get("name") == name
        and event["objectRef"].get("subresource") == "status"
        and event["objectRef"]["resource"] == kinds.CERTIFICATES.plural
        and event["verb"] == "patch"
    ]


def test_fifty_hosts_that_prove_one_by_one_cost_few_writes(world: Simulation) -> None:
    hosts = begin(world, 50)
    for host in hosts:
        world.keystore(host).idle = True
    name = world.create_certificate("my-ca", PEM)
    until("its publication", lambda: "certificate" in status(world, name))
    began = time.monotonic()
    for number, host in enumerate(hosts, 1):
        world.keystore(host).idle = False
        until("one more", lambda number=number: sum(bool(trusted(world, h)) for h in hosts) >= number)  # type: ignore[misc]
    until_ready(world, name)
    seconds = time.monotonic() - began
    # The publication, one at most every two seconds, and the last proof of all at once.
    assert 2 <= len(status_writes(world, name)) <= seconds / 2 + 3
    assert status(world, name)["hosts"]["uploaded"] == 50


def test_a_repaired_keystore_is_told_once(world: Simulation) -> None:
    first, second, _ = begin(world)
    name = world.create_certificate("my-ca", PEM)
    until_ready(world, name)
    world.keystore(first).wipe()
    until("the repair", lambda: trusted(world, first) == {"my-ca": FINGERPRINT})

    def repairs(host: str) -> list[Object]:
        with world.kube() as kube:
            items = kube.request("GET", kinds.EVENTS.path(None, "default")).object()["items"]
        return [i for i in items if (i["regarding"]["name"], i["reason"]) == (host, "KeystoreRepaired")]

    (event,) = until("an event", lambda: repairs(first))
    assert (event["type"], event["action"]) == ("Warning", "EntryMissing")
    assert "my-ca" in event["note"]
    # Another controller does not tell it again, but what happens now.
    assert world.controllers[-1].stop() == 0
    world.start_controller("second")
    until("its look at the hosts", lambda: b"Synced" in world.controllers[-1].log.read_bytes())
    world.keystore(second).wipe()
    until("an event", lambda: repairs(second))
    (event,) = repairs(first)
    assert event.get("series", {}).get("count", 1) == 1
