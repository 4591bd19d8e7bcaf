"""A writer that is killed at any moment: the old or the new store is there, and the next one ends what was begun."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.unit.keystore import support, writing
from tests.world import checkout
from tests.world.soak import EACH_ROUND, seed_of

from directdownload.keystore import store

pytestmark = pytest.mark.long

#: Of stores of both types together.
KILLS = 50
#: Puts a certificate and takes it away again, for ever; a dot for each change.
TOGGLES = """
import sys
from directdownload.keystore import store
from directdownload.keystore.entries import Changes
password, der, path = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
while True:
    for changes in Changes(put={"ours": der}), Changes(remove=["ours"]):
        store.update(path, password, lambda found: changes, create="JKS")
        print(end=".", flush=True)
"""
#: Of the system calls of one change, the process dies at that number, before it or after; a process for each store.
DIES_AT_A_STEP = """
import os, pathlib, signal, sys
from directdownload.keystore import exchange, store
from directdownload.keystore.entries import Changes
password, der, *paths = sys.argv[1:]
changes = Changes(put={"ours": bytes.fromhex(der)})
def change(path, number, after):
    count, theirs, unlink = 0, f"{path}.theirs", os.unlink
    def dies(real):
        def called(*arguments, **options):
            nonlocal count
            count += 1
            mine = count
            if real is exchange_files and os.path.exists(theirs):
                # someone else writes at the very moment of the exchange
                pathlib.Path(path).write_bytes(pathlib.Path(theirs).read_bytes())
                unlink(theirs)
            if mine == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **options)
            finally:
                if mine == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        return called
    exchange_files = exchange._rename
    for name in ("open", "write", "fchmod", "fchown", "fsync", "rename", "unlink", "listdir", "lstat"):
        setattr(os, name, dies(getattr(os, name)))
    exchange._rename = dies(exchange_files)
    store.update(path, password, lambda found: changes, create="JKS")
for path in paths:
    number, _, after = os.path.basename(os.path.dirname(path)).partition("-")
    child = os.fork()
    if not child:
        try:
            change(path, int(number), after == "after")
        finally:
            os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
#: More than there are.
STEPS = 60


def start(program: str, *paths: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, support.PASSWORD, support.certificate("ours").hex(), *paths],
        env=checkout.environment(),
        stdout=subprocess.PIPE,
    )


def check_that_the_next_one_ends_it(path: pathlib.Path) -> None:
    """It changes what it wants, and leaves nothing but lock and backup."""
    writing.put_all(path, ["next"])
    store.update(str(path), support.PASSWORD, writing.remove("next", "ours"), create=None)
    assert writing.beside(path) == {writing.LOCK, writing.BACKUP}


@pytest.mark.soak
@pytest.mark.parametrize("number", EACH_ROUND)
def test_killed_at_fifty_random_moments_of_writing_the_store_is_old_or_new(path: pathlib.Path, number: int) -> None:
    chance = random.Random(seed_of(number))
    contents = set()
    for _ in range(KILLS // len(writing.TYPES)):
        with start(TOGGLES, str(path)) as process:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"."
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found = writing.aliases(path)
        assert found in ({"cloud", "cloudca"}, {"cloud", "cloudca", "ours"})
        contents.add(len(found))
        check_that_the_next_one_ends_it(path)
        assert writing.aliases(path) == {"cloud", "cloudca"}
    assert contents == {2, 3}, "it was never killed between two changes"
    assert writing.keytool_aliases(path) == {"cloud", "cloudca"}


@pytest.mark.parametrize("with_another", [False, True], ids=["alone", "while another writes"])
def test_killed_at_any_step_nothing_is_lost(tmp_path: pathlib.Path, with_another: bool) -> None:
    """Also what another wrote at the moment of the exchange, which then lies in a hidden file only."""
    paths = []
    for name in (f"{number}-{when}" for number in range(1, STEPS) for when in ("before", "after")):
        (tmp_path / name).mkdir()
        paths.append(writing.make(tmp_path / name))
        if with_another:
            theirs_of(paths[-1]).write_bytes(writing.written_by_another(paths[-1], "theirs"))
    with start(DIES_AT_A_STEP, *map(str, paths)) as process:
        statuses = [int(line) for line in process.communicate()[0].split()]
    assert process.returncode == 0
    killed = statuses.count(-signal.SIGKILL)
    assert statuses == [-signal.SIGKILL] * killed + [0] * (len(paths) - killed)
    assert 30 < killed < len(paths)
    seen = [check_what_is_left(path, with_another) for path in paths]
    assert {"cloud", "cloudca"} in seen
    assert {"cloud", "cloudca", "ours"} in seen
    if with_another:
        assert {"cloud", "cloudca", "theirs"} in seen
        assert {"cloud", "cloudca", "ours", "theirs"} in seen


def theirs_of(path: pathlib.Path) -> pathlib.Path:
    """What another is going to write; it is not there any more when it was written."""
    return path.with_name(f"{path.name}.theirs")


def check_what_is_left(path: pathlib.Path, with_another: bool) -> set[str]:
    """The aliases of a whole store; the next writer finds all that was written."""
    written = {"theirs"} if with_another and not theirs_of(path).exists() else set()
    theirs_of(path).unlink(missing_ok=True)
    found = writing.aliases(path)
    assert {"cloud", "cloudca"} <= found <= {"cloud", "cloudca", "ours"} | written
    writing.put_all(path, ["ours"])
    assert writing.aliases(path) == {"cloud", "cloudca", "ours"} | written, path
    assert writing.beside(path) <= {writing.LOCK, writing.BACKUP}
    check_that_the_next_one_ends_it(path)
    return found


def test_a_part_of_a_killed_writer_goes_with_the_next_look(tmp_path: pathlib.Path) -> None:
    path = writing.make(tmp_path)
    path.with_name(f".{path.name}.directdownload.part").write_bytes(b"half")
    assert not store.update(str(path), support.PASSWORD, writing.remove("absent"), create=None).written
    assert writing.beside(path) == {writing.LOCK}
