"""Changing and checking a keystore of 150 entries, against keytool.

keytool makes the store: a private key, the rest certificates; PKCS#12 with keytool's encryption. The ways of a table
take turns, so that other load of the machine affects all of them. Our way is the agent's, in its process: lock, read,
change, verify, sync, exchange, read back; keytool does not sync.
"""

import dataclasses
import functools
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

from tests.cluster import harness
from tests.unit.keystore import support, writing
from tests.world import checkout

from directdownload.keystore import store
from directdownload.keystore.entries import StoreType
from directdownload.resources import pem

ENTRIES = 150
ROUNDS = 9
_COMMAND = checkout.DIRECTDOWNLOAD


def measure() -> str:
    """Markdown tables."""
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name:
        works = [_Work(pathlib.Path(name), store_type) for store_type in writing.TYPES]
        header = [
            f"| {ENTRIES} entries, median of {ROUNDS} rounds | ms | against | ms | times as fast | aim |",
            "|---|---|---|---|---|---|",
        ]
        adding = [row for work in works for row in _adding(work)]
        checks = ["| check | JKS, ms | PKCS12, ms | aim, ms |", "|---|---|---|---|"]
        return "\n".join([*header, *adding, "", *checks, *_checks(works)])


@dataclasses.dataclass(frozen=True)
class _Work:
    directory: pathlib.Path
    store_type: StoreType

    @property
    def original(self) -> pathlib.Path:
        path = self.directory / f"original.{self.store_type}"
        if not path.exists():
            writing.make(self.directory, self.store_type).rename(path)
            writing.put_all(path, [f"server-{number}" for number in range(ENTRIES - 3)])
            # keytool adds the last one, and rewrites all of them in its own form
            writing.keytool_import(path, "last")
            assert len(writing.aliases(path)) == ENTRIES
        return path

    def copy(self) -> pathlib.Path:
        return shutil.copyfile(self.original, self.directory / "cloud.jks")


def _adding(work: _Work) -> list[str]:
    der, file, password = work.directory / "new.der", work.directory / "new.pem", work.directory / "password"
    der.write_bytes(support.certificate("new"))
    file.write_text(pem.Certificate(support.certificate("new")).pem)
    password.write_text(support.PASSWORD)
    keytool = ("keytool", "-importcert", "-noprompt", "-storepass", support.PASSWORD, "-alias", "new", "-file", der)
    ours = (_COMMAND, "keystore", "import", "--alias", "new", "--file", file, "--password-file", password)
    ways: dict[str, Callable[[pathlib.Path], object]] = {
        "store.update": lambda path: writing.put_all(path, ["new"]),
        "keystore import": lambda path: support.command(*ours, "--keystore", path),
        "keytool": lambda path: support.command(*keytool, "-keystore", path),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            path = work.copy()
            found[way].append(_milliseconds(functools.partial(run, path)))
            assert "new" in writing.aliases(path)
    medians = {way: statistics.median(times) for way, times in found.items()}
    aims = {"store.update": "≥ 5", "keystore import": ""}
    return [
        f"| {work.store_type}: add a certificate, `{way}` | {medians[way]:.1f} | `keytool -importcert` "
        f"| {medians['keytool']:.0f} | {medians['keytool'] / medians[way]:.1f} | {aim} |"
        for way, aim in aims.items()
    ]


def _checks(works: list[_Work]) -> list[str]:
    checks: dict[str, tuple[str, Callable[[str], object]]] = {
        "unchanged, by `stamp`": ("< 1", store.stamp),
        "unchanged, by `sha256` of the file": ("< 1", store.sha256),
        f"full read-back of {ENTRIES} entries": ("< 50", lambda path: store.read(path, support.PASSWORD)),
    }
    paths = [str(work.original) for work in works]
    return [
        f"| {what} | {' | '.join(f'{_median(check, path):.3f}' for path in paths)} | {aim} |"
        for what, (aim, check) in checks.items()
    ]


def _median(check: Callable[[str], object], path: str) -> float:
    return statistics.median(_milliseconds(functools.partial(check, path)) for _ in range(5 * ROUNDS))


def _milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000
