"""`directdownload certificate … --wait` against a real API server: the test is the agents and the controller."""

import json
import os
import pathlib
import re
import signal
import subprocess

import pytest
from tests.cluster import harness
from tests.world import checkout, policies
from tests.world.certificate_fleet import GROUP, Fleet, rows
from tests.world.cli_world import condition

from directdownload.cluster import kinds
from directdownload.resources import pem


@pytest.fixture
def fleet(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> Fleet:
    return Fleet(definitions, tmp_path)


def test_wait_ends_when_every_up_host_has_proved_it(fleet: Fleet) -> None:
    first, second = fleet.host("1"), fleet.host("2")
    down = fleet.host("3", "Down", conditions=[condition("Ready", "False", "AgentNotReady")])
    resting = fleet.host("4", "Maintenance")
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until("0 of 4 hosts proved it")
        assert f"{first}  PENDING" in waiting.text
        assert f"{down}  SKIPPED  Down (AgentNotReady)" in waiting.text
        fleet.publish()
        fleet.prove(first)
        waiting.until(f"{first}  UPLOADED")
        fleet.prove(second)
        status, text = waiting.end()
    assert status == 0
    assert rows(text[text.index("HOST  ") :])[:5] == [
        ["HOST", "STATUS", "DETAILS"],
        [first, "UPLOADED"],
        [second, "UPLOADED"],
        [down, "SKIPPED", "Down (AgentNotReady)"],
        [resting, "PENDING"],
    ]
    assert f"{fleet.alias}: 2 of 4 hosts proved it, after " in text
    assert "1 host skipped: not Up; they follow when they return." in text


def test_neither_an_old_fingerprint_nor_an_old_look_of_the_controller_is_the_end(fleet: Fleet) -> None:
    host = fleet.host("1")
    fleet.uploaded()
    fleet.publish()
    fleet.prove(host)
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until(f"{host}  PENDING  it still has another certificate of this alias")
        fleet.prove(host)
        waiting.until(f"{host}  UPLOADED")
        waiting.until("1 of 1 host proved it")
        # shown only by who still waits
        fleet.prove(host, "Pending", reason="ZoneDisabled")
        waiting.until(f"{host}  PENDING  ZoneDisabled")
        fleet.prove(host)
        fleet.publish()
        assert waiting.end()[0] == 0


def test_what_waiting_prints_can_be_read_by_programs(fleet: Fleet) -> None:
    first = fleet.host("1")
    fleet.host("2", "Down", conditions=[condition("Ready", "False", "NodeNotReady")])
    path = fleet.uploaded()
    fleet.publish()
    fleet.prove(first)
    done = fleet.certificate("upload", "--file", path, "--wait", "-o", "json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["items"] == [
        {"hostName": first, "status": "UPLOADED", "details": ""},
        {"hostName": f"{fleet.name}-2", "status": "SKIPPED", "details": "Down (NodeNotReady)"},
    ]
    assert document["hosts"] == {"proved": 1, "failed": 0, "pending": 0, "skipped": 1}
    assert (document["name"], document["alias"], document["zone"]) == (fleet.alias, fleet.alias, fleet.name)
    assert document["fingerprintSHA256"] == pem.parse(pathlib.Path(path).read_text()).fingerprint_sha256
    fleet.host("1", "Up", certificates=[])
    now = json.loads(fleet.certificate("upload", "--file", path, "-o", "json").stdout)
    assert [item["status"] for item in now["items"]] == ["PENDING", "SKIPPED"]
    name = fleet.certificate("upload", "--file", path, "-o", "name").stdout
    assert name == f"directdownloadcertificate.directdownload.dev/{fleet.alias}\n"


def test_wait_ends_with_hosts_that_failed_and_says_why(fleet: Fleet) -> None:
    synced = condition("KeystoreSynced", "False", "KeystoreWriteFailed", message="/etc/x is read-only")
    good, store, own = fleet.host("1"), fleet.host("2", conditions=[synced]), fleet.host("3")
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until("0 of 3 hosts")
        fleet.publish()
        fleet.prove(good)
        fleet.prove(store, "Failed", reason="KeystoreWriteFailed")
        fleet.prove(own, "Failed", reason="AliasConflict", message="an entry\nof somebody else")
        status, text = waiting.end()
    assert status == 1
    assert [row[1:] for row in rows(text) if row[0] == store][-1] == [
        "FAILED",
        "KeystoreWriteFailed: /etc/x is read-only",
    ]
    assert [row[1:] for row in rows(text) if row[0] == own][-1] == [
        "FAILED",
        "AliasConflict: an entry of somebody else",
    ]
    assert f"Error: {fleet.alias}: 1 of 3 hosts proved it, 2 failed. Their agents keep trying." in text


def test_a_failure_that_goes_away_is_not_the_end(fleet: Fleet) -> None:
    host = fleet.host("1")
    path = fleet.uploaded()
    fleet.publish()
    fleet.prove(host, "Failed", reason="KeystoreUnreadable", message="damaged")
    with fleet.start(*fleet.arguments_of("upload", "--file", path, "--wait")) as waiting:
        waiting.until(f"{host}  FAILED  KeystoreUnreadable: damaged")
        fleet.prove(host)
        assert waiting.end()[0] == 0


def test_wait_ends_in_time(fleet: Fleet) -> None:
    host = fleet.host("1")
    done = fleet.certificate("upload", "--file", fleet.file(), "--wait", "--timeout", "1s")
    assert done.returncode == 1
    assert rows(done.stdout)[1:] == [["HOST", "STATUS", "DETAILS"], [host, "PENDING"]]
    assert f"Error: {fleet.alias} is not done after 1 s: 0 of 1 host proved it, 0 failed, 1 pending." in done.stderr


def test_wait_ends_when_the_certificate_has_stalled(fleet: Fleet) -> None:
    fleet.host("1")
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until("0 of 1 host ")
        fleet.stall("InvalidCertificate", "expected one certificate")
        status, text = waiting.end()
    assert status == 3
    assert f"Error: {fleet.alias} has stalled: InvalidCertificate: expected one certificate" in text


def test_revoke_waits_for_all_hosts_or_for_the_one_that_was_named(fleet: Fleet) -> None:
    first, second = fleet.host("1"), fleet.host("2")
    path = fleet.uploaded()
    fleet.publish()
    for host in (first, second):
        fleet.prove(host)
    with fleet.start(*fleet.arguments_of("revoke", "--host", first, "--wait")) as waiting:
        waiting.until(f"{first}  PENDING")
        fleet.prove(first, "Revoked")
        fleet.publish()
        status, text = waiting.end()
    assert (status, second in text) == (0, False)
    assert "1 of 1 host proved it" in text

    with fleet.start(*fleet.arguments_of("upload", "--file", path, "--host", first, "--wait")) as waiting:
        waiting.until(f"{first}  PENDING")
        fleet.publish()
        fleet.prove(first)
        assert waiting.end()[0] == 0

    with fleet.start(*fleet.arguments_of("revoke", "--wait")) as waiting:
        waiting.until("0 of 2 hosts")
        fleet.publish()
        fleet.prove(first, "Revoked")
        waiting.until("1 of 2 hosts")
        fleet.prove(second, "Revoked")
        status, text = waiting.end()
    assert status == 0
    assert [row for row in rows(text) if row[0] in (first, second)][-2:] == [[first, "REVOKED"], [second, "REVOKED"]]


def test_without_a_host_that_is_up_waiting_ends_without_success(fleet: Fleet) -> None:
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until("0 of 0 hosts")
        fleet.publish()
        status, text = waiting.end()
    assert status == 1
    assert f"Error: {fleet.alias}: no host of zone {fleet.name} is Up." in text
    fleet.host("1", "Down")
    with fleet.start(*fleet.arguments_of("revoke", "--wait")) as waiting:
        waiting.until("SKIPPED")
        fleet.publish()
        status, text = waiting.end()
    assert status == 1
    assert f"Error: {fleet.alias}: no host of zone {fleet.name} is Up." in text
    assert "1 host skipped: not Up" in text


def test_a_user_who_may_not_see_hosts_gets_counts(fleet: Fleet) -> None:
    resources = ["directdownloadcertificates", "zones"]
    verbs = ["get", "list", "watch", "create", "patch"]
    rules = [{"apiGroups": ["directdownload.dev"], "resources": resources, "verbs": verbs}]
    role = {"apiGroup": GROUP, "kind": "ClusterRole", "name": fleet.name}
    subjects = [{"apiGroup": GROUP, "kind": "User", "name": fleet.name}]
    fleet.apply(policies.CLUSTER_ROLES, fleet.name, rules=rules)
    fleet.apply(policies.CLUSTER_ROLE_BINDINGS, fleet.name, roleRef=role, subjects=subjects)
    user = fleet.control_plane.kubeconfig(fleet.name, [])
    fleet.host("1")
    path = fleet.file()
    assert fleet.certificate("upload", "--file", path, kubeconfig=user).returncode == 0
    failures = [{"host": "kvm-9", "reason": "KeystoreMissing", "message": "none there"}]
    fleet.publish(hosts={"desired": 4, "uploaded": 2, "failed": 1, "down": 1}, failures=failures)
    done = fleet.certificate("upload", "--file", path, "--wait", kubeconfig=user)
    assert done.returncode == 1
    assert rows(done.stdout)[1:] == [["HOST", "REASON", "MESSAGE"], ["kvm-9", "KeystoreMissing", "none there"]]
    assert "2 of 4 hosts proved it, 1 failed. Their agents keep trying." in done.stderr
    fleet.publish(hosts={"desired": 4, "uploaded": 3, "failed": 0, "down": 1}, failures=[])
    done = fleet.certificate("upload", "--file", path, "--wait", kubeconfig=user)
    assert done.returncode == 0
    assert "3 of 4 hosts proved it" in done.stderr
    refused = fleet.certificate("revoke", "--host", f"{fleet.name}-1", kubeconfig=user)
    assert refused.returncode == 3
    assert "may not get hosts.directdownload.dev" in refused.stderr


def test_ctrl_c_ends_the_watching_and_not_the_work(fleet: Fleet) -> None:
    fleet.host("1")
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until("0 of 1 host")
        waiting.process.send_signal(signal.SIGINT)
        status, text = waiting.end()
    assert status == 130
    assert f"The hosts go on; see them with: directdownload certificate list --zone {fleet.name} --hosts" in text
    assert fleet.spec()["revoked"] is False


def test_a_certificate_that_is_deleted_meanwhile(fleet: Fleet) -> None:
    fleet.host("1")
    with fleet.start(*fleet.arguments_of("upload", "--file", fleet.file(), "--wait")) as waiting:
        waiting.until("0 of 1 host")
        fleet.delete(kinds.CERTIFICATES, fleet.alias)
        assert waiting.end()[0] == 3
    assert f"certificate '{fleet.alias}' was deleted meanwhile" in waiting.text


def test_a_terminal_gets_a_live_table(fleet: Fleet, terminal: tuple[int, int]) -> None:
    master, slave = terminal
    host = fleet.host("1")
    path = fleet.uploaded()
    arguments = fleet.arguments(*fleet.arguments_of("upload", "--file", path, "--wait"))
    environment = checkout.environment(TERM="xterm", COLUMNS="120", LINES="30")
    process = subprocess.Popen(arguments, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while b"0 of 1 host proved it" not in shown:
        shown += os.read(master, 65536)
    assert re.search(rb"%b\s+PENDING" % host.encode(), shown)
    assert "━".encode() not in shown, "nothing here is measured in bytes"
    fleet.publish()
    fleet.prove(host)
    while b"1 of 1 host proved it, after" not in shown:
        shown += os.read(master, 65536)
    assert process.wait(timeout=120) == 0
    assert re.search(rb"HOST\s+STATUS\s+DETAILS\s+%b\s+UPLOADED" % host.encode(), shown)
