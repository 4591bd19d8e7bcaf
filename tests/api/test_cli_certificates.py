"""`directdownload certificate` against a real API server: the test proves as agents do, counts as the controller."""

import collections.abc
import pathlib
import re
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import certificates
from tests.world.certificate_fleet import Fleet, days

from directdownload.cli import certificate_changes as changes
from directdownload.cli import session
from directdownload.cluster import kinds
from directdownload.resources import pem
from directdownload.resources.certificate import DirectDownloadCertificate


@pytest.fixture
def fleet(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> Fleet:
    return Fleet(definitions, tmp_path)


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
    assert fleet.get(kinds.CERTIFICATES, fleet.alias)["metadata"]["generation"] == 1


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
    assert fleet.get(kinds.CERTIFICATES, f"my-ca.{fleet.name}")["spec"]["alias"] == alias.lower()


def test_a_certificate_is_found_by_zone_and_alias_whatever_its_object_is_called(fleet: Fleet) -> None:
    name = f"other-{fleet.name}"
    spec = {"zone": fleet.name, "alias": fleet.alias.upper(), "certificate": certificates.pem()}
    fleet.apply(kinds.CERTIFICATES, name, spec=spec)
    assert fleet.certificate("revoke").returncode == 0
    assert fleet.get(kinds.CERTIFICATES, name)["spec"]["revoked"] is True


def test_a_name_that_another_zone_has_gets_the_zone_after_it(fleet: Fleet) -> None:
    zones = [f"{fleet.name}-{number}" for number in (1, 2, 3)]
    for zone in zones:
        fleet.apply(kinds.ZONES, zone, spec={"nodeSelector": {"matchLabels": {"zone": zone}}})
    path = fleet.file()
    for zone, name in ((zones[0], fleet.alias), (zones[1], f"{fleet.alias}-{zones[1]}")):
        done = fleet.run("certificate", "upload", "--name", fleet.alias, "--zone", zone, "--file", path)
        assert f"(object {name})" in done.stdout
        assert fleet.get(kinds.CERTIFICATES, name)["spec"]["zone"] == zone
    taken = {"zone": zones[0], "alias": "taken", "certificate": certificates.pem()}
    fleet.apply(kinds.CERTIFICATES, f"{fleet.alias}-{zones[2]}", spec=taken)
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
    fleet.apply(kinds.CERTIFICATES, fleet.alias, spec=spec)
    done = fleet.certificate("upload", "--file", fleet.file())
    assert done.returncode == 3
    assert "takes its bytes from the Secret images-ca (key ca.crt), not from a file: change them there" in done.stderr
    assert "certificate" not in fleet.spec()


def test_a_disabled_zone_is_told(fleet: Fleet) -> None:
    spec = {"nodeSelector": {"matchLabels": {"zone": fleet.name}}, "enabled": False}
    fleet.apply(kinds.ZONES, fleet.name, spec=spec)
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
    assert fleet.get(kinds.CERTIFICATES, fleet.alias)["metadata"]["generation"] == 4


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
    assert fleet.get(kinds.CERTIFICATES, fleet.alias)["metadata"]["generation"] == 1


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
    assert fleet.get(kinds.CERTIFICATES, fleet.alias)["metadata"]["generation"] == 1


def test_two_objects_with_one_alias_are_told_apart_by_a_person(fleet: Fleet) -> None:
    fleet.uploaded()
    spec = {"zone": fleet.name, "alias": fleet.alias.upper(), "certificate": certificates.pem()}
    fleet.apply(kinds.CERTIFICATES, f"{fleet.alias}-2", spec=spec)
    done = fleet.certificate("revoke")
    assert done.returncode == 3
    assert f"have the alias '{fleet.alias}': {fleet.alias}, {fleet.alias}-2. Delete all but one" in done.stderr


def test_one_that_is_being_deleted_is_left_alone(fleet: Fleet) -> None:
    path = fleet.uploaded()
    fleet.change(metadata={"finalizers": ["directdownload.dev/test"]})
    fleet.delete(kinds.CERTIFICATES, fleet.alias)
    done = fleet.certificate("upload", "--file", path)
    assert done.returncode == 1
    assert "is being deleted, which removes it from every host" in done.stderr
    fleet.change(metadata={"finalizers": None})


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
            fleet.change(spec=theirs)
        return changes.revoke("ours")(current)

    async with session.open_session(str(fleet.kubeconfig), None, None) as connection:
        written = await changes.write(connection, fleet.name, fleet.alias, decide)
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
        written = await changes.write(connection, fleet.name, fleet.alias, changes.upload(ours, None), new)
    assert written.before is not None
    assert fleet.spec()["certificate"] == ours.pem
    names = fleet.run("certificate", "list", "--zone", fleet.name, "-o", "name").stdout
    assert names == f"directdownloadcertificate.directdownload.dev/{fleet.alias}\n"


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
