"""The keystore file: what a change leaves as it was, and what is said when it cannot be made."""

import dataclasses
import fcntl
import os
import pathlib
import stat
import struct
import subprocess
import sys

import pytest
from tests.unit.keystore import support, writing
from tests.world import checkout

from directdownload.keystore import errors, files, formats, passwords, store
from directdownload.keystore.entries import SIZE_LIMIT_BYTES, Changes, Keystore, StoreType

PASSWORD = support.PASSWORD
#: user::rw- user:1234:r-- group::r-- mask::r-- other::---, as the kernel's posix_acl_xattr.h has it
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHi", *entry) for entry in ((1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1))
)


def test_a_certificate_is_put_and_read_back(path: pathlib.Path, store_type: StoreType) -> None:
    result = writing.put_all(path, ["a", "b"])
    assert result.written
    assert result.snapshot == store.read(str(path), PASSWORD)
    assert result.snapshot is not None
    assert result.snapshot.type == store_type
    assert result.snapshot.entries["a"].trusts(support.certificate("a"))
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "a", "b"}


def test_a_certificate_is_removed(path: pathlib.Path) -> None:
    writing.put_all(path, ["a", "b"])
    assert store.update(str(path), PASSWORD, writing.remove("a", "absent"), create=None).written
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "b"}


def test_the_entries_of_others_stay_as_they_were(path: pathlib.Path, reader: support.StoreReader) -> None:
    def found() -> dict[str, support.JavaEntry]:
        # PKCS#12 has no date of a certificate: Java takes that of its reading
        entries = reader.entries(path)
        return {alias: dataclasses.replace(entry, created=support.NOW) for alias, entry in entries.items()}

    before = found()
    writing.put_all(path, ["a"])
    after = found()
    assert after.pop("a").chain == (support.certificate("a"),)
    assert after == before
    assert before["cloud"].key is not None


def test_unchanged_content_keeps_its_bytes_and_mtime(path: pathlib.Path) -> None:
    writing.put_all(path, ["a"])
    before, beside = writing.state(path), writing.beside(path)
    for decide in (writing.put("a"), writing.remove("absent"), lambda _: Changes()):
        result = store.update(str(path), PASSWORD, decide, create="JKS")
        assert not result.written
        assert result.snapshot == store.read(str(path), PASSWORD)
    assert writing.state(path) == before
    assert writing.beside(path) == beside


def test_a_store_that_needs_no_change_may_lie_where_nothing_can_be_written(tmp_path: pathlib.Path) -> None:
    path = writing.make(tmp_path)
    store.update(str(path), PASSWORD, writing.remove("absent"), create=None)
    assert writing.beside(path) == set()


def test_a_missing_store_is_made_for_its_owner_alone(tmp_path: pathlib.Path, store_type: StoreType) -> None:
    path = tmp_path / "cloud.jks"
    result = store.update(str(path), PASSWORD, writing.put("a"), create=store_type)
    assert (result.written, result.snapshot) == (True, store.read(str(path), PASSWORD))
    assert result.snapshot is not None
    assert result.snapshot.type == store_type
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert writing.keytool_aliases(path) == {"a"}
    assert writing.beside(path) == {writing.LOCK}


def test_a_missing_store_is_not_made_for_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "no-directory" / "cloud.jks"
    assert store.update(str(path), PASSWORD, lambda _: Changes(), create="JKS") == store.Result(None, written=False)
    assert store.update(str(path), PASSWORD, writing.remove("a"), create=None) == store.Result(None, written=False)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_store_that_is_not_to_be_made_is_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cloud.jks"
    with pytest.raises(errors.MissingError, match=f"{path} does not exist"):
        writing.put_all(path, ["a"])
    with pytest.raises(errors.MissingError, match=f"{path} does not exist"):
        store.read(str(path), PASSWORD)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "no-directory" / "cloud.jks"
    with pytest.raises(errors.WriteError, match="no such file or directory; create its directory"):
        store.update(str(path), PASSWORD, writing.put("a"), create="JKS")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away and sets labels")
def test_owner_mode_label_and_access_list_are_kept(path: pathlib.Path) -> None:
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    os.setxattr(path, "system.posix_acl_access", ACL)
    os.setxattr(path, "security.selinux", b"system_u:object_r:cert_t:s0\0")
    before = path.stat()
    assert writing.put_all(path, ["a"]).written
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino
    assert os.getxattr(path, "system.posix_acl_access") == ACL
    assert os.getxattr(path, "security.selinux") == b"system_u:object_r:cert_t:s0\0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_two_capabilities_are_enough_for_a_store_of_another_user(path: pathlib.Path) -> None:
    """CHOWN and DAC_OVERRIDE, as the chart says; FOWNER is not given."""
    os.setxattr(path, "system.posix_acl_access", ACL)
    path.chmod(0o640)
    for each in (path.parent, path):
        os.chown(each, 1234, 2345)
    before, acl = path.stat(), os.getxattr(path, "system.posix_acl_access")
    script = (
        "import pathlib, sys\nfrom tests.unit.keystore import writing\n"
        "assert writing.put_all(pathlib.Path(sys.argv[1]), ['a']).written"
    )
    caps = ("--bounding-set=-all,+chown,+dac_override", "--inh-caps=-all")
    done = subprocess.run(
        ["setpriv", *caps, sys.executable, "-c", script, path],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "a" in writing.aliases(path)
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert os.getxattr(path, "system.posix_acl_access") == acl


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_bits_that_giving_away_takes_are_set_again(path: pathlib.Path) -> None:
    os.chown(path, 1234, 2345)
    path.chmod(0o6750)
    assert writing.put_all(path, ["a"]).written
    assert stat.S_IMODE(path.stat().st_mode) == 0o6750


def test_a_path_that_no_file_can_have_is_unreadable(tmp_path: pathlib.Path) -> None:
    path = f"{tmp_path}/a\0b"
    for call in (
        lambda: store.stamp(path),
        lambda: store.sha256(path),
        lambda: store.read(path, PASSWORD),
        lambda: store.update(path, PASSWORD, writing.put("a"), create="JKS"),
        lambda: files.read(path),
    ):
        with pytest.raises(errors.UnreadableError, match=r"a\\x00b' cannot be read: expected a path without NUL"):
            call()
    with pytest.raises(errors.PasswordMissingError, match="expected a path without NUL"):
        passwords.from_file(path)


def test_the_version_before_is_the_only_backup(path: pathlib.Path) -> None:
    path.chmod(0o640)
    for alias in ("a", "b", "c"):
        before = path.read_bytes()
        writing.put_all(path, [alias])
        backup = path.with_name(path.name + writing.BACKUP)
        assert backup.read_bytes() == before
        assert stat.S_IMODE(backup.stat().st_mode) == 0o640
        assert writing.beside(path) == {writing.LOCK, writing.BACKUP}


def test_a_symbolic_link_stays_one(path: pathlib.Path) -> None:
    directory = path.parent / "links"
    directory.mkdir()
    link = directory / "cloud.jks"
    link.symlink_to(path)
    assert writing.put_all(link, ["a"]).written
    assert link.is_symlink()
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "a"}
    assert list(directory.iterdir()) == [link]
    assert store.stamp(str(link)) == store.stamp(str(path))


def test_stamp_and_digest_tell_of_a_change(path: pathlib.Path) -> None:
    name = str(path)
    stamp, digest = store.stamp(name), store.sha256(name)
    assert digest == store.read(name, PASSWORD).sha256
    assert (store.stamp(name), store.sha256(name)) == (stamp, digest)
    result = writing.put_all(path, ["a"])
    assert result.snapshot is not None
    assert store.stamp(name) != stamp
    assert store.sha256(name) == result.snapshot.sha256 != digest
    path.unlink()
    assert (store.stamp(name), store.sha256(name)) == (None, None)


# What cannot be read


def damage(path: pathlib.Path, data: bytes) -> None:
    path.write_bytes(data)
    # damaged for long: it is not waited for
    os.utime(path, (0, 0))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"hello", "neither JKS nor PKCS#12"),
        (b"\xce\xce\xce\xce" + bytes(30), "JCEKS"),
        (b"\xfe\xed\xfe\xed" + bytes(3), "cannot be read"),
        (b"0\x82" + bytes(30), "cannot be read"),
        (bytes(SIZE_LIMIT_BYTES + 1), "expected at most 8388608 bytes, found more"),
    ],
)
def test_what_is_no_store_is_told_and_left(tmp_path: pathlib.Path, data: bytes, words: str) -> None:
    path = tmp_path / "cloud.jks"
    damage(path, data)
    before = writing.state(path)
    for attempt in (lambda: store.read(str(path), PASSWORD), lambda: writing.put_all(path, ["a"])):
        with pytest.raises(errors.UnreadableError, match=words):
            attempt()
    assert writing.state(path) == before
    assert writing.beside(path) == set()


def test_a_store_that_was_cut_off_is_told_and_left(path: pathlib.Path) -> None:
    damage(path, path.read_bytes()[:-30])
    before = writing.state(path)
    with pytest.raises(errors.UnreadableError, match=str(path)):
        writing.put_all(path, ["a"])
    assert writing.state(path) == before
    assert writing.beside(path) == set()


def test_a_wrong_password_is_told_and_the_store_left(path: pathlib.Path) -> None:
    before = writing.state(path)
    for attempt in (
        lambda: store.read(str(path), "wrong-secret"),
        lambda: writing.put_all(path, ["a"], "wrong-secret"),
    ):
        with pytest.raises(errors.PasswordWrongError, match=str(path)) as caught:
            attempt()
        assert "wrong-secret" not in str(caught.value)
    assert writing.state(path) == before
    assert writing.beside(path) == set()


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "socket"])
def test_what_is_no_regular_file_is_told_and_never_waited_for(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "cloud.jks"
    support.no_file(path, kind)
    for attempt in (
        lambda: store.read(str(path), PASSWORD),
        lambda: store.sha256(str(path)),
        lambda: store.update(str(path), PASSWORD, writing.put("a"), create="JKS"),
    ):
        with pytest.raises(errors.UnreadableError, match=str(path)):
            attempt()
    assert writing.beside(path) == set()


# What cannot be written


def test_a_key_is_never_replaced_or_removed(path: pathlib.Path) -> None:
    before = writing.state(path)
    for decide in (writing.put("cloud"), writing.remove("cloud")):
        with pytest.raises(errors.ForeignEntryError):
            store.update(str(path), PASSWORD, decide, create=None)
    assert writing.state(path) == before
    assert writing.beside(path) <= {writing.LOCK}


def test_a_lock_that_another_holds_is_waited_for_and_then_named(path: pathlib.Path) -> None:
    lock = path.with_name(f".{path.name}.directdownload.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.WriteError, match=f"{lock} was locked .* more than 0.1 s"):
            store.update(str(path), PASSWORD, writing.put("a"), create=None, lock_seconds=0.1)
        assert not store.update(str(path), PASSWORD, writing.remove("a"), create=None, lock_seconds=0.1).written
    assert writing.put_all(path, ["a"]).written


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_lock_that_is_no_file_is_told(path: pathlib.Path, kind: str) -> None:
    lock = path.with_name(f".{path.name}.directdownload.lock")
    if kind == "directory":
        lock.mkdir()
    else:
        lock.symlink_to(path)
    before = writing.state(path)
    with pytest.raises(errors.WriteError, match=str(lock)):
        writing.put_all(path, ["a"])
    assert writing.state(path) == before


def test_a_backup_that_cannot_be_kept_is_told_before_anything_is_written(path: pathlib.Path) -> None:
    backup = path.with_name(path.name + writing.BACKUP)
    backup.mkdir()
    before = writing.state(path)
    with pytest.raises(errors.WriteError, match=f"{backup} is not a regular file"):
        writing.put_all(path, ["a"])
    assert writing.state(path) == before
    assert writing.beside(path) == {writing.LOCK, writing.BACKUP}


def test_a_new_version_that_is_not_as_it_should_be_never_gets_the_name(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = writing.state(path), formats.Opener.load

    def is_blind_to_changes(self: formats.Opener, _data: bytes, *, name: str) -> Keystore:
        return real(self, path.read_bytes(), name=name)

    monkeypatch.setattr(formats.Opener, "load", is_blind_to_changes)
    with pytest.raises(errors.WriteError, match="the new version is not as planned"):
        writing.put_all(path, ["a"])
    monkeypatch.undo()
    assert writing.state(path) == before
    assert writing.beside(path) == {writing.LOCK}
