"""Many writers at once: nothing of ours is lost, and nothing of keytool's, but what keytool itself writes over."""

import pathlib
import subprocess
import sys
import threading

import pytest
from tests.unit.keystore import support, writing
from tests.world import checkout

from directdownload.keystore.entries import StoreType

pytestmark = pytest.mark.long

WRITERS = 100
#: Processes that begin at the same moment; each puts one certificate.
FORKS = """
import os, pathlib, sys, traceback
from directdownload.keystore import store
from directdownload.keystore.entries import Changes
path, password, ders = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).read_text().split()
begin, hold = os.pipe()
children = []
for number, der in enumerate(ders):
    child = os.fork()
    if not child:
        os.close(hold)
        os.read(begin, 1)
        try:
            changes = Changes(put={f"ours-{number}": bytes.fromhex(der)})
            written = store.update(path, password, lambda _: changes, create="JKS", lock_seconds=50).written
        except BaseException:
            traceback.print_exc()
            written = False
        os._exit(not written)
    children.append(child)
os.close(hold)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
#: Converges to the certificates for as long as its standard input is open, and then once more.
CONVERGES = """
import pathlib, select, sys
from directdownload.keystore import store
from directdownload.keystore.entries import Changes
path, password, ders = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).read_text().split()
wanted = {f"ours-{number}": bytes.fromhex(der) for number, der in enumerate(ders)}
shown, rounds = 0, 0
while not select.select([sys.stdin], [], [], 0)[0]:
    # more of them in each round, and none again, so that there is always something to write
    shown = (shown + 1) % (len(wanted) + 1)
    some = dict(list(wanted.items())[:shown])
    others = [alias for alias in wanted if alias not in some]
    rounds += store.update(path, password, lambda _: Changes(some, others), create="JKS").written
store.update(path, password, lambda _: Changes(wanted), create="JKS")
print(rounds)
"""


def start(program: str, path: pathlib.Path, ders: pathlib.Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path), support.PASSWORD, str(ders)],
        env=checkout.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("store_type", writing.TYPES)
def test_a_hundred_writers_at_once_lose_nothing(tmp_path: pathlib.Path, store_type: StoreType, existing: bool) -> None:
    directory = tmp_path / "keystore"
    directory.mkdir()
    path = writing.make(directory, store_type) if existing else directory / "cloud.jks"
    ders = tmp_path / "ders"
    ders.write_text(" ".join(support.certificate(f"ours-{number}").hex() for number in range(WRITERS)))
    with start(FORKS, path, ders) as process:
        pass
    assert process.returncode == 0
    ours = {f"ours-{number}" for number in range(WRITERS)}
    assert writing.keytool_aliases(path) == ours | ({"cloud", "cloudca"} if existing else set())
    assert writing.beside(path) == {writing.LOCK, writing.BACKUP}


@pytest.mark.parametrize("store_type", writing.TYPES)
def test_writers_and_keytool_mixed_lose_nothing_of_either(tmp_path: pathlib.Path, store_type: StoreType) -> None:
    """keytool locks nothing: it writes over what we put while it runs, which the next round puts back. So one keytool
    runs at a time, and what it wrote must be there from then on, whatever our writers do in between."""
    directory = tmp_path / "keystore"
    directory.mkdir()
    path = writing.make(directory, store_type)
    ders = tmp_path / "ders"
    ders.write_text(" ".join(support.certificate(f"ours-{number}").hex() for number in range(5)))
    writers = [start(CONVERGES, path, ders) for _ in range(2)]
    theirs: set[str] = set()
    for number in range(6):
        alias = f"theirs-{number}"
        writing.keytool_import(path, alias)
        theirs.add(alias)
        assert theirs <= writing.aliases(path)
    rounds = [int(writer.communicate(b"end", timeout=60)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(rounds) > 20, "our writers hardly wrote"
    ours = {f"ours-{number}" for number in range(5)}
    assert writing.keytool_aliases(path) == {"cloud", "cloudca"} | ours | theirs
    assert writing.beside(path) <= {writing.LOCK, writing.BACKUP}


def test_threads_of_one_process_wait_for_one_another(tmp_path: pathlib.Path) -> None:
    path = writing.make(tmp_path)
    aliases = [f"ours-{number}" for number in range(16)]
    threads = [threading.Thread(target=writing.put_all, args=(path, [alias])) for alias in aliases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writing.aliases(path) == {"cloud", "cloudca", *aliases}
