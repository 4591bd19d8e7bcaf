"""`directdownload certificate` against a real API server: the test proves as agents do, counts as the controller."""

import collections.abc
import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import certificates, checkout
from tests.world.cli_world import API_VERSION, Cluster, condition

from directdownload.cli import aliases, session, trust
from directdownload.resources import pem
from directdownload.resources.certificate import DirectDownloadCertificate

GROUP = "rbac.authorization.k8s.io"


def days(number: int) -> datetime.datetime:
    """From now."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(number)


class Fleet(Cluster):
    """A zone whose hosts prove what the test says. Objects are cluster-scoped: each test has an alias of its own."""

    def __init__(self, control_plane: harness.ControlPlane, directory: pathlib.Path) -> None:
        super().__init__(control_plane)
        self.alias = f"ca-{self.name}"
        self.directory = directory
        self.proofs: dict[str, list[dict[str, Any]]] = {}

    def file(self, text: str | bytes | None = None, name: str = "ca.pem") -> str:
        path = self.directory / name
        text = certificates.pem() if text is None else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def arguments_of(self, verb: str, *more: str) -> tuple[str, ...]:
        return ("certificate", verb, "--name", self.alias, "--zone", self.name, *more)

    def certificate(self, verb: str, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(*self.arguments_of(verb, *more), **options)

    def uploaded(self, text: str | None = None) -> str:
        """The path of the file whose certificate every host of the zone shall have."""
        path = self.file(text)
        done = self.certificate("upload", "--file", path)
        assert done.returncode == 0, done.stderr
        return path

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.get("ddcert", self.alias)["spec"]
        return spec

    def patch(self, **patch: Any) -> None:
        """As anybody may, at any time."""
        body = json.dumps(patch)
        self.control_plane.kubectl("patch", "ddcert", self.alias, "--type=merge", "-p", body, check=True)

    def publish(self, **status: Any) -> None:
        """As the controller does."""
        document = self.get("ddcert", self.alias)
        found = pem.parse(document["spec"]["certificate"])
        published = {
            "observedGeneration": document["metadata"]["generation"],
            "certificate": found.pem,
            "fingerprintSHA256": found.fingerprint_sha256,
            "notAfter": found.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.status("ddcert", self.alias, published | status)

    def stall(self, reason: str, message: str) -> None:
        conditions = [condition(kind, truth, reason, message=message) for kind, truth in _STALLED]
        self.status("ddcert", self.alias, {"observedGeneration": 1, "conditions": conditions})

    def host(self, name: str, state: str = "Up", zone: str | None = None, **status: Any) -> str:
        """Named after the zone as well; `name` is what distinguishes it."""
        full = f"{self.name}-{name}"
        self.apply(API_VERSION, "Host", full, spec={"nodeName": full, "zone": zone or self.name})
        self.status("ddhost", full, {"state": state} | status)
        return full

    def prove(self, host: str, state: str = "Uploaded", **entry: Any) -> None:
        """As the agent does; Uploaded with the fingerprint of what the spec says now, unless given."""
        if state == "Uploaded":
            entry = {"fingerprintSHA256": pem.parse(self.spec()["certificate"]).fingerprint_sha256, **entry}
        self.status("ddhost", host, {"certificates": [{"name": self.alias, "state": state, **entry}]})


_STALLED = (("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True"))


@pytest.fixture
def fleet(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> Fleet:
    return Fleet(definitions, tmp_path)


def rows(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in text.splitlines()]


# Upload


def test_upload_creates_the_certificate_for_the_whole_zone(fleet: Fleet) -> None:
    text = certificates.pem()
    one_line = "".join(text.split("\n")[1:-2])
    done = fleet.certificate("upload", "--file", fleet.file(one_line))
    assert done.returncode == 0
    assert done.stdout == (
        f"Certificate {fleet.alias} created (object {fleet.alias}): it goes to every host of {fleet.name}.\n"
    )
    assert f"Follow it with: directdownload certificate list --zone {fleet.name} --hosts" in done.stderr
    spec = fleet.spec()
    assert (spec["zone"], spec["alias"], spec["certificate"]) == (fleet.name, fleet.alias, text)
    assert (spec["revoked"], "revokedHosts" in spec) == (False, False)


def test_upload_of_the_same_bytes_changes_nothing(fleet: Fleet) -> None:
    path = fleet.uploaded()
    crlf = fleet.file(pathlib.Path(path).read_text().replace("\n", "\r\n"), "crlf.pem")
    done = fleet.certificate("upload", "--file", crlf)
    assert done.stdout == f"Certificate {fleet.alias} of {fleet.name} already has these bytes: nothing to change.\n"
    assert fleet.get("ddcert", fleet.alias)["metadata"]["generation"] == 1


def test_upload_of_other_bytes_is_a_rotation(fleet: Fleet) -> None:
    fleet.uploaded()
    fleet.publish()
    second = certificates.pem()
    done = fleet.certificate("upload", "--file", fleet.file(second))
    assert done.stdout == (
        f"Certificate {fleet.alias} changed: every host of {fleet.name} takes the new one. "
        f"The previous certificate stays trusted as {fleet.alias}-previous for 1d0h.\n"
    )
    assert fleet.spec()["certificate"] == second


def test_upload_to_the_zone_ends_every_revocation(fleet: Fleet) -> None:
    path = fleet.uploaded()
    host = fleet.host("1")
    fleet.certificate("revoke", "--host", host)
    done = fleet.certificate("upload", "--file", path)
    assert done.stdout == f"Certificate {fleet.alias} goes back to {host}; the other hosts of {fleet.name} keep it.\n"
    assert fleet.spec()["revokedHosts"] == []
    fleet.certificate("revoke", "--host", host)
    fleet.certificate("revoke")
    assert fleet.spec() | {"revoked": True, "revokedHosts": [host]} == fleet.spec()
    done = fleet.certificate("upload", "--file", path)
    assert done.stdout == f"Certificate {fleet.alias} is no longer revoked: it goes to every host of {fleet.name}.\n"
    assert fleet.spec() | {"revoked": False, "revokedHosts": []} == fleet.spec()


def test_an_alias_is_the_same_in_any_case_and_its_object_has_a_name(fleet: Fleet) -> None:
    alias = f"My_CA.{fleet.name}"
    arguments = ("certificate", "upload", "--zone", fleet.name, "--file", fleet.file())
    done = fleet.run(*arguments, "--name", alias)
    assert done.stdout.startswith(f"Certificate {alias.lower()} created (object my-ca.{fleet.name})")
    again = fleet.run(*arguments, "--name", alias.upper())
    assert "already has these bytes" in again.stdout
    assert fleet.get("ddcert", f"my-ca.{fleet.name}")["spec"]["alias"] == alias.lower()


def test_a_certificate_is_found_by_zone_and_alias_whatever_its_object_is_called(fleet: Fleet) -> None:
    name = f"other-{fleet.name}"
    spec = {"zone": fleet.name, "alias": fleet.alias.upper(), "certificate": certificates.pem()}
    fleet.apply(API_VERSION, "DirectDownloadCertificate", name, spec=spec)
    assert fleet.certificate("revoke").returncode == 0
    assert fleet.get("ddcert", name)["spec"]["revoked"] is True


def test_a_name_that_another_zone_has_gets_the_zone_after_it(fleet: Fleet) -> None:
    zones = [f"{fleet.name}-{number}" for number in (1, 2, 3)]
    for zone in zones:
        fleet.apply(API_VERSION, "Zone", zone, spec={"nodeSelector": {"matchLabels": {"zone": zone}}})
    path = fleet.file()
    for zone, name in ((zones[0], fleet.alias), (zones[1], f"{fleet.alias}-{zones[1]}")):
        done = fleet.run("certificate", "upload", "--name", fleet.alias, "--zone", zone, "--file", path)
        assert f"(object {name})" in done.stdout
        assert fleet.get("ddcert", name)["spec"]["zone"] == zone
    taken = {"zone": zones[0], "alias": "taken", "certificate": certificates.pem()}
    fleet.apply(API_VERSION, "DirectDownloadCertificate", f"{fleet.alias}-{zones[2]}", spec=taken)
    done = fleet.run("certificate", "upload", "--name", fleet.alias, "--zone", zones[2], "--file", path)
    assert done.returncode == 3
    assert f"the names '{fleet.alias}' and '{fleet.alias}-{zones[2]}' belong to other certificates" in done.stderr
    assert "Choose another alias with --name" in done.stderr


_BAD: dict[str, tuple[str | bytes, str]] = {
    "two": (certificates.pem() + certificates.pem(), "found 2: create one object for each"),
    "key": (certificates.private_key(), "found a block that begins with -----BEGIN PRIVATE KEY"),
    "key-beside": (
        certificates.pem() + certificates.private_key(),
        "found a block that begins with -----BEGIN PRIVATE KEY",
    ),
    "expired": (certificates.pem(begins=days(-9), ends=days(-1)), "the certificate expired at 20"),
    "early": (certificates.pem(begins=days(1)), "the certificate is not valid before 20"),
    "cut off": (certificates.der()[:-1], "found bytes of something else"),
    "trailing": (certificates.pem() + "XXXX", "found text after it"),
    "nothing": ("", "found nothing"),
    "endless": ("A" * 1_000_000, "found 65537 characters (at most 65536)"),
}


@pytest.mark.parametrize("bad", _BAD)
def test_what_is_not_one_valid_certificate_is_refused_before_anything_is_sent(
    fleet: Fleet, bad: str, tmp_path: pathlib.Path
) -> None:
    text, words = _BAD[bad]
    path = fleet.file(text)
    # of an API server that does not answer: had anything been asked of it, that would be the error
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", fleet.kubeconfig.read_text()))
    assert "cannot reach the API server" in fleet.run("certificate", "list", kubeconfig=kubeconfig).stderr
    done = fleet.certificate("upload", "--file", path, kubeconfig=kubeconfig)
    assert done.returncode == 3
    assert done.stderr.startswith(f"Error: {path}: ")
    assert words in done.stderr
    assert len(done.stderr) < 400, "the text of the file is not repeated"


def test_a_file_that_cannot_be_read(fleet: Fleet) -> None:
    done = fleet.certificate("upload", "--file", "/nonexistent/ca.pem")
    assert done.returncode == 3
    assert done.stderr == "Error: /nonexistent/ca.pem: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("alias", ["cloud", "CloudCA", "cloudca-old", "my-ca-previous"])
def test_reserved_aliases_are_refused_in_the_words_of_the_crd(fleet: Fleet, alias: str) -> None:
    done = fleet.run("certificate", "upload", "--name", alias, "--zone", fleet.name, "--file", fleet.file())
    assert done.returncode == 3
    assert done.stderr == (
        "Error: refused, nothing was created or changed:\n  spec.alias: cloud, cloudca… and …-previous are reserved in "
        f'any case; expected another alias, for example my-ca (given: "{alias.lower()}")\n'
    )


def test_an_alias_with_other_characters_is_refused_in_the_words_of_the_crd(fleet: Fleet) -> None:
    done = fleet.run("certificate", "upload", "--name", "my ca!", "--zone", fleet.name, "--file", fleet.file())
    assert done.returncode == 3
    assert "spec.alias: expected letters, digits, '-', '.' and '_', for example my-ca" in done.stderr


def test_the_bytes_of_a_reference_are_not_replaced(fleet: Fleet) -> None:
    reference = {"kind": "Secret", "name": "images-ca", "key": "ca.crt"}
    spec = {"zone": fleet.name, "alias": fleet.alias, "certificateRef": reference}
    fleet.apply(API_VERSION, "DirectDownloadCertificate", fleet.alias, spec=spec)
    done = fleet.certificate("upload", "--file", fleet.file())
    assert done.returncode == 3
    assert "takes its bytes from the Secret images-ca (key ca.crt), not from a file: change them there" in done.stderr
    assert "certificate" not in fleet.spec()


def test_a_disabled_zone_is_told(fleet: Fleet) -> None:
    spec = {"nodeSelector": {"matchLabels": {"zone": fleet.name}}, "enabled": False}
    fleet.apply(API_VERSION, "Zone", fleet.name, spec=spec)
    done = fleet.certificate("upload", "--file", fleet.file())
    assert done.returncode == 0
    assert (
        f"Note: zone {fleet.name} is disabled: its hosts take the certificate once the zone is enabled." in done.stderr
    )


# One host: upload --host, provision, revoke --host


def test_revoke_takes_it_from_the_zone_or_from_one_host_and_twice_is_fine(fleet: Fleet) -> None:
    fleet.uploaded()
    first, second = fleet.host("1"), fleet.host("2")
    for host, hosts in ((first, [first]), (second, [first, second])):
        done = fleet.certificate("revoke", "--host", host)
        assert done.stdout == f"Certificate {fleet.alias} is revoked on {host}: the host removes it.\n"
        assert fleet.spec() | {"revoked": False, "revokedHosts": hosts} == fleet.spec()
    again = fleet.certificate("revoke", "--host", first)
    assert (again.returncode, again.stdout) == (0, f"Certificate {fleet.alias} was already revoked on {first}.\n")
    done = fleet.certificate("revoke")
    assert done.stdout == f"Certificate {fleet.alias} is revoked: every host of {fleet.name} removes it.\n"
    assert fleet.spec()["revoked"] is True
    again = fleet.certificate("revoke")
    assert (again.returncode, again.stdout) == (0, f"Certificate {fleet.alias} of {fleet.name} was already revoked.\n")
    assert fleet.get("ddcert", fleet.alias)["metadata"]["generation"] == 4


def test_upload_to_a_host_and_provision_give_it_back(fleet: Fleet) -> None:
    path = fleet.uploaded()
    first, second = fleet.host("1"), fleet.host("2")
    for verb in (
        fleet.arguments_of("upload", "--file", path, "--host", first),
        ("certificate", "provision", "--name", fleet.alias.upper(), "--host", first),
    ):
        for host in (first, second):
            fleet.certificate("revoke", "--host", host)
        done = fleet.run(*verb)
        assert (done.returncode, done.stdout) == (0, f"Certificate {fleet.alias} goes back to {first}.\n")
        assert fleet.spec()["revokedHosts"] == [second]
        again = fleet.run(*verb)
        assert again.returncode == 0
        assert "was not revoked on" in again.stdout


def test_while_the_zone_is_revoked_one_host_cannot_have_it(fleet: Fleet) -> None:
    path = fleet.uploaded()
    host = fleet.host("1")
    fleet.certificate("revoke", "--host", host)
    fleet.certificate("revoke")
    for arguments in (
        fleet.arguments_of("upload", "--file", path, "--host", host),
        ("certificate", "provision", "--name", fleet.alias, "--host", host),
    ):
        done = fleet.run(*arguments)
        assert done.returncode == 3
        assert f"'{fleet.alias}' is revoked in all of zone {fleet.name}: {host} alone cannot have it" in done.stderr
        assert f"certificate upload --name {fleet.alias} --zone {fleet.name} --file FILE" in done.stderr
    assert fleet.spec() | {"revoked": True, "revokedHosts": [host]} == fleet.spec()


def test_one_host_alone_gets_no_new_certificate_and_no_other_bytes(fleet: Fleet) -> None:
    host = fleet.host("1")
    done = fleet.certificate("upload", "--file", fleet.file(), "--host", host)
    assert done.returncode == 3
    assert f"zone {fleet.name} has no certificate '{fleet.alias}'; its certificates: none yet" in done.stderr
    assert "A certificate belongs to a whole zone; --host only restores it on a host." in done.stderr
    assert fleet.run("certificate", "list", "--zone", fleet.name, "-o", "name").stdout == ""
    fleet.uploaded()
    done = fleet.certificate("upload", "--file", fleet.file(name="other.pem"), "--host", host)
    assert done.returncode == 3
    assert "differs from the file, and all hosts of a zone have the same certificate" in done.stderr
    assert fleet.get("ddcert", fleet.alias)["metadata"]["generation"] == 1


def test_what_does_not_exist_is_named(fleet: Fleet) -> None:
    path = fleet.uploaded()
    here, elsewhere = fleet.host("1"), fleet.host("2", zone="elsewhere")
    upload, revoke = fleet.arguments_of("upload", "--file", path), fleet.arguments_of("revoke")
    provision = ("certificate", "provision", "--name", fleet.alias, "--host")
    foreign = f"host '{elsewhere}' is in zone elsewhere, not in {fleet.name}"
    for arguments, words in (
        ((*upload, "--host", "absent"), "there is no host 'absent'"),
        ((*revoke, "--host", "absent"), "there is no host 'absent'"),
        ((*provision, "absent"), "there is no host 'absent'"),
        ((*upload, "--host", elsewhere), foreign),
        ((*revoke, "--host", elsewhere), foreign),
        ((*provision, elsewhere), "there is no zone 'elsewhere'; zones of this cluster: "),
        (
            ("certificate", "provision", "--name", "absent", "--host", here),
            f"zone {fleet.name} has no certificate 'absent'; its certificates: {fleet.alias}",
        ),
        (
            ("certificate", "revoke", "--name", "absent", "--zone", fleet.name),
            f"zone {fleet.name} has no certificate 'absent'; its certificates: {fleet.alias}",
        ),
        (
            ("certificate", "upload", "--name", "a", "--zone", "absent", "--file", path),
            "there is no zone 'absent'; zones of this cluster: ",
        ),
        (("certificate", "revoke", "--name", "a", "--zone", "absent"), "there is no zone 'absent'; zones of"),
    ):
        done = fleet.run(*arguments)
        assert (done.returncode, words in done.stderr) == (3, True), done.stderr
    assert fleet.get("ddcert", fleet.alias)["metadata"]["generation"] == 1


def test_two_objects_with_one_alias_are_told_apart_by_a_person(fleet: Fleet) -> None:
    fleet.uploaded()
    spec = {"zone": fleet.name, "alias": fleet.alias.upper(), "certificate": certificates.pem()}
    fleet.apply(API_VERSION, "DirectDownloadCertificate", f"{fleet.alias}-2", spec=spec)
    done = fleet.certificate("revoke")
    assert done.returncode == 3
    assert f"have the alias '{fleet.alias}': {fleet.alias}, {fleet.alias}-2. Delete all but one" in done.stderr


def test_one_that_is_being_deleted_is_left_alone(fleet: Fleet) -> None:
    path = fleet.uploaded()
    fleet.patch(metadata={"finalizers": ["directdownload.dev/test"]})
    fleet.control_plane.kubectl("delete", "ddcert", fleet.alias, "--wait=false", check=True)
    done = fleet.certificate("upload", "--file", path)
    assert done.returncode == 1
    assert "is being deleted, which removes it from every host" in done.stderr
    fleet.patch(metadata={"finalizers": None})


def test_changes_at_the_same_time_lose_nothing(fleet: Fleet) -> None:
    fleet.uploaded()
    hosts = [fleet.host(str(number)) for number in range(6)]
    running = [fleet.start(*fleet.arguments_of("revoke", "--host", host)) for host in hosts]
    for one in running:
        with one:
            status, text = one.end()
            assert status == 0, text
    assert sorted(fleet.spec()["revokedHosts"]) == hosts


async def test_what_another_changes_between_read_and_write_is_kept(fleet: Fleet) -> None:
    fleet.uploaded()
    seen = []

    def decide(current: DirectDownloadCertificate) -> collections.abc.Mapping[str, Any]:
        seen.append(current.spec.revoked_hosts)
        if len(seen) <= 2:
            theirs = {"revokedHosts": [f"theirs-{number}" for number in range(len(seen))]}
            fleet.patch(spec=theirs)
        return trust.revoke("ours")(current)

    async with session.open_session(str(fleet.kubeconfig), None, None) as connection:
        written = await aliases.write(connection, fleet.name, fleet.alias, decide)
    assert seen == [(), ("theirs-0",), ("theirs-0", "theirs-1")]
    assert fleet.spec()["revokedHosts"] == ["theirs-0", "theirs-1", "ours"]
    assert written.after.spec.revoked_hosts == ("theirs-0", "theirs-1", "ours")


async def test_an_upload_that_another_was_a_moment_before_changes_that_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = pem.parse(certificates.pem())
    new = {"zone": fleet.name, "alias": fleet.alias, "certificate": ours.pem}
    async with session.open_session(str(fleet.kubeconfig), None, None) as connection:
        create = connection.api.create

        async def create_late(*arguments: Any, **options: Any) -> Any:
            monkeypatch.undo()
            fleet.uploaded()
            return await create(*arguments, **options)

        monkeypatch.setattr(connection.api, "create", create_late)
        written = await aliases.write(connection, fleet.name, fleet.alias, trust.upload(ours, None), new)
    assert written.before is not None
    assert fleet.spec()["certificate"] == ours.pem
    names = fleet.run("certificate", "list", "--zone", fleet.name, "-o", "name").stdout
    assert names == f"directdownloadcertificate.directdownload.dev/{fleet.alias}\n"


# Waiting


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
    fleet.apply(f"{GROUP}/v1", "ClusterRole", fleet.name, rules=rules)
    fleet.apply(f"{GROUP}/v1", "ClusterRoleBinding", fleet.name, roleRef=role, subjects=subjects)
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
        fleet.control_plane.kubectl("delete", "ddcert", fleet.alias, check=True)
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


# Lists


def test_certificates_are_listed(fleet: Fleet) -> None:
    fleet.uploaded()
    listed = fleet.run("certificate", "list", "--zone", fleet.name)
    assert rows(listed.stdout) == [
        ["ZONE", "ALIAS", "NAME", "HOSTS", "READY", "EXPIRES", "FINGERPRINT"],
        [fleet.name, fleet.alias, fleet.alias, "-", "-", "-", "-"],
    ]
    conditions = [condition("Ready", "False", "ProvisioningFailed")]
    fleet.publish(hosts={"desired": 3, "uploaded": 2, "failed": 1}, conditions=conditions)
    row = rows(fleet.run("certificate", "list", "--zone", fleet.name).stdout)[1]
    fingerprint = pem.parse(fleet.spec()["certificate"]).fingerprint_sha256
    assert row[:5] == [fleet.name, fleet.alias, fleet.alias, "2/3", "ProvisioningFailed"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \(in 36(49|50)d\)", row[5])
    assert row[6] == fingerprint
    everywhere = json.loads(fleet.run("certificate", "list", "-o", "json").stdout)["items"]
    assert fleet.alias in [item["spec"]["alias"] for item in everywhere]
    nothing = fleet.run("certificate", "list", "--zone", "absent")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "Upload one with `directdownload certificate upload`" in nothing.stderr


def test_certificates_are_listed_by_host(fleet: Fleet) -> None:
    good, bad, away = fleet.host("1"), fleet.host("2"), fleet.host("3", "Down")
    fleet.host("4", zone="elsewhere")
    fleet.uploaded()
    fleet.publish()
    fleet.prove(good)
    fleet.prove(bad, "Failed", reason="KeystoreMissing", message="none there")
    arguments = ("certificate", "list", "--zone", fleet.name, "--hosts")
    assert rows(fleet.run(*arguments).stdout) == [
        ["ZONE", "ALIAS", "HOST", "STATUS", "DETAILS"],
        [fleet.name, fleet.alias, good, "UPLOADED"],
        [fleet.name, fleet.alias, bad, "FAILED", "KeystoreMissing: none there"],
        [fleet.name, fleet.alias, away, "SKIPPED", "Down (-)"],
    ]
    items = json.loads(fleet.run(*arguments, "-o", "json").stdout)["items"]
    where = {"zone": fleet.name, "alias": fleet.alias, "name": fleet.alias}
    assert items[1] == where | {"hostName": bad, "status": "FAILED", "details": "KeystoreMissing: none there"}
    assert fleet.run(*arguments, "-o", "name").stdout.splitlines()[0] == f"{good}:{fleet.alias}"
    assert "No certificate" in fleet.run("certificate", "list", "--zone", "absent", "--hosts").stderr


def test_hosts_are_listed_with_the_state_of_their_keystore(fleet: Fleet) -> None:
    fleet.host("1", conditions=[condition("KeystoreSynced", "True", "KeystoreSynced")])
    fleet.host("2", conditions=[condition("KeystoreSynced", "False", "KeystorePasswordWrong")])
    fleet.host("3")
    listed = rows(fleet.run("host", "list", "--zone", fleet.name).stdout)
    assert listed[0][4] == "KEYSTORE"
    assert [row[4] for row in listed[1:]] == ["synced", "KeystorePasswordWrong", "-"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("upload", "--name", "a", "--zone", "z"),
        ("upload", "--name", "a", "--file", "f"),
        ("revoke", "--name", "a"),
        ("revoke", "--name", "a", "--zone", "z", "--timeout", "5s"),
        ("provision", "--name", "a"),
        ("provision", "--host", "h", "--zone", "z"),
        ("provision", "--name", "a", "--host", ""),
        ("revoke", "--name", "a", "--zone", ""),
        ("revoke", "--name", "a", "--zone", "z", "--host", ""),
        ("revoke", "--name", "", "--zone", "z"),
    ],
)
def test_options_that_are_missing_or_do_not_go_together_are_a_usage_error(
    fleet: Fleet, arguments: tuple[str, ...]
) -> None:
    assert fleet.run("certificate", *arguments).returncode == 2
