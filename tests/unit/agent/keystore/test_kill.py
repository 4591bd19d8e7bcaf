"""SIGKILL while the keystore is changed: the store loads, the ledger names all that is ours, and it converges."""

import datetime
import functools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.world import checkout, stores
from tests.world.stores import HostFiles
from tests.world.waiting import until

from directdownload.agent.keystore.sync import KeystoreSync, Wishes
from directdownload.keystore import store
from directdownload.planning.keystores import Previous, Published
from directdownload.resources.host import KeystoreSpec
from directdownload.resources.pem import Certificate

pytestmark = pytest.mark.long

KILLS = 50
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ALIASES = ("ca", "cb", "cc", "cd")

#: Imported once, forked for each life: a life begins in milliseconds.
_NURSERY = """
import json, os, sys
from tests.unit.agent.keystore import test_kill as lives
arguments = json.loads(sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        lives.live(seed=int(line), **arguments)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def wishes(spec: dict[str, Any], certificates: list[Certificate], choose: random.Random) -> Wishes:
    """Some state of the cluster: certificates revoked, gone, changed, with and without the one before."""
    published = []
    for alias in ALIASES:
        current, before = choose.sample(certificates, 2)
        previous = Previous(before, NOW + datetime.timedelta(hours=choose.choice([-1, 1])))
        each = Published(alias, NOW, "z", alias, current, choose.choice([None, previous]), choose.random() < 0.3)
        if choose.random() < 0.8:
            published.append(each)
    return Wishes("kvm-1", "z", choose.random() < 0.9, 0, KeystoreSpec.model_validate(spec), tuple(published), 1)


def live(*, seed: int, root: str, state: str, spec: dict[str, Any], certificates: list[str]) -> None:
    """One change after the other, for as long as it is let."""
    choose = random.Random(seed)
    known = [Certificate(bytes.fromhex(each)) for each in certificates]
    sync = KeystoreSync((root,), state)
    while True:
        synced = sync.sync(wishes(spec, known, choose), NOW)
        if synced.error is not None:
            os._exit(1)


def _differs(files: HostFiles, before: tuple[int, ...] | None) -> bool:
    return store.stamp(str(files.path)) != before


@pytest.mark.parametrize("store_type", ["JKS", "PKCS12"])
def test_killed_at_any_moment_the_store_loads_the_ledger_names_what_is_ours_and_it_converges(
    tmp_path: pathlib.Path, store_type: Any
) -> None:
    files, state = HostFiles(tmp_path / "agent"), tmp_path / "state"
    state.mkdir()
    certificates = [stores.certificate(f"kill-{number}") for number in range(5)]
    foreign = stores.certificate("foreign")
    files.put(store_type, theirs=foreign, ours_too=foreign)
    arguments = {
        "root": str(files.directory),
        "state": str(state),
        "spec": files.spec,
        "certificates": [each.der.hex() for each in certificates],
    }
    choose = random.Random(f"kills {store_type}")
    with subprocess.Popen(
        [sys.executable, "-c", _NURSERY, json.dumps(arguments)],
        env=checkout.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for number in range(KILLS):
            before = store.stamp(str(files.path))
            print(number, file=nursery.stdin, flush=True)
            child = int(nursery.stdout.readline())
            # in the middle of its work, at whatever point
            until("a change", functools.partial(_differs, files, before))
            time.sleep(choose.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(int(nursery.stdout.readline())) == signal.SIGKILL, (
                "it had ended by itself: a sync failed"
            )

            found = files.fingerprints()
            assert {found.pop(alias) for alias in ("theirs", "ours-too")} == {foreign.fingerprint_sha256}
            ledger_file = state / "keystores.json"
            known = json.loads(ledger_file.read_text())["stores"] if ledger_file.exists() else {}
            entries = known.get(str(files.path), {}).get("entries", {})
            for alias, fingerprint in found.items():
                assert fingerprint in entries[alias]["fingerprints"], "an entry of ours that nobody owns"
        nursery.stdin.close()

    sync = KeystoreSync((str(files.directory),), str(state))
    last = wishes(files.spec, certificates, random.Random("last"))
    assert sync.sync(last, NOW).error is None
    remembered = json.loads((state / "keystores.json").read_text())["taken"]
    taken = {(each["alias"], each["fingerprint"]) for each in remembered}
    wanted = {"theirs": foreign.fingerprint_sha256, "ours-too": foreign.fingerprint_sha256}
    for each in last.published:
        if not each.revoked:
            wanted[each.alias] = each.certificate.fingerprint_sha256
            previous = each.previous
            if previous is None or previous.until <= NOW:
                continue
            if (each.alias, previous.certificate.fingerprint_sha256) not in taken:
                wanted[f"{each.alias}-previous"] = previous.certificate.fingerprint_sha256
    assert last.enabled
    assert files.fingerprints() == wanted
    again = sync.sync(last, NOW)
    assert (again.error, again.drift) == (None, ())
    left = {path.name for path in files.directory.iterdir()} | {path.name for path in state.iterdir()}
    assert not [name for name in left if name.endswith((".tmp", ".new"))], "nothing is left behind"
