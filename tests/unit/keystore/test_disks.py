"""Disks that cannot be written: the error says why and what to do, the store stays, and nothing is left beside it."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest
from tests.unit.keystore import support, writing
from tests.world import checkout
from tests.world.faulty_fs import Fault, FaultyFileSystem

from directdownload.keystore import errors, store

READ_ONLY = 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"'
FULL = """
mkdir "$0/full"; mount -t tmpfs -o size=12k none "$0/full"; cp -p "$0/cloud.jks" "$0/full"
head -c 8k /dev/zero >> "$0/full/filler" || :
"""
IMMUTABLE = 'chattr +i "$0/cloud.jks"; trap "chattr -i $0/cloud.jks" EXIT'
IMPORT = """
import pathlib, sys
from directdownload.keystore import errors
from tests.unit.keystore import support, writing
path = pathlib.Path(sys.argv[1])
support.certificate("ours")
before, beside = writing.state(path), writing.beside(path)
try:
    writing.put_all(path, ["ours"])
except errors.WriteError as error:
    print(error)
assert writing.state(path) == before
assert writing.beside(path) <= beside | {writing.LOCK}
assert not writing.put_all(path, []).written
"""


def imported(path: pathlib.Path, before: str) -> str:
    """What is said of an import in a mount namespace of its own, after `before` was run there ($0: the directory)."""
    program = ["sh", "-ec", f'{before}\n"$@"', str(path.parent), sys.executable, "-c", IMPORT]
    if "full" in before:
        path = path.parent / "full" / path.name
    done = subprocess.run(
        ["unshare", "--mount", *program, str(path)],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize(
    ("before", "words"),
    [
        (READ_ONLY, "read-only file system; let this process write to its directory"),
        (FULL, "no space left on device; free space on its file system"),
        (IMMUTABLE, "operation not permitted; check that neither file nor directory is immutable (lsattr)"),
    ],
    ids=["read-only", "full", "immutable"],
)
def test_a_store_that_cannot_be_written_stays_and_is_told(tmp_path: pathlib.Path, before: str, words: str) -> None:
    path = writing.make(tmp_path)
    content = path.read_bytes()
    text = imported(path, before)
    assert str(tmp_path) in text
    assert words in text
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "fault",
    [
        Fault("create", errno.EIO, ".part"),
        Fault("write", errno.EIO, ".part"),
        Fault("write", errno.ENOSPC, ".part"),
        Fault("fsync", errno.EIO, ".part"),
        Fault("rename", errno.EIO, ".swap"),
    ],
    ids=lambda fault: f"{fault.operation} {errno.errorcode[fault.number]}",
)
def test_a_disk_that_fails_leaves_the_store_as_it_was(tmp_path: pathlib.Path, fault: Fault) -> None:
    with FaultyFileSystem(tmp_path) as disk:
        path = writing.make(disk.path)
        content = path.read_bytes()
        disk.fail(fault)
        with pytest.raises(errors.WriteError, match=os.strerror(fault.number).lower()):
            writing.put_all(path, ["ours"])
        assert path.read_bytes() == content
        assert writing.beside(path) == {writing.LOCK}


def test_a_file_system_that_cannot_exchange_files_is_told_and_nothing_written(tmp_path: pathlib.Path) -> None:
    with FaultyFileSystem(tmp_path) as disk:
        path = writing.make(disk.path)
        content = path.read_bytes()
        with pytest.raises(errors.WriteError, match=f"{path}: its file system cannot exchange two files in one step"):
            writing.put_all(path, ["ours"])
        assert path.read_bytes() == content
        assert writing.beside(path) == {writing.LOCK}
        new = path.with_name("new.jks")
        with pytest.raises(errors.WriteError, match="cannot exchange"):
            store.update(str(new), support.PASSWORD, writing.put("ours"), create="JKS")
        assert not new.exists()
