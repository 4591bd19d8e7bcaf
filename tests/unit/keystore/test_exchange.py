"""Others who write to the store at the same moment, and know of no lock: what they wrote stays, and ours comes to it.

keytool writes in place: it empties the file and writes it anew. Other tools write beside it and rename.
"""

import functools
import logging
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest
from tests.unit.keystore import support, writing

from directdownload.keystore import errors, exchange, store
from directdownload.keystore.entries import Changes, Entry

PASSWORD = support.PASSWORD
Write = Callable[[pathlib.Path], None]


def in_place(path: pathlib.Path) -> None:
    """As keytool does."""
    path.write_bytes(writing.written_by_another(path, "theirs"))


def by_rename(path: pathlib.Path) -> None:
    new = path.with_name("theirs.new")
    new.write_bytes(writing.written_by_another(path, "theirs"))
    new.rename(path)


def by_keytool(path: pathlib.Path) -> None:
    writing.keytool_import(path, "theirs")


class Between:
    """Writes just before the real exchange of that number: after all that is looked at before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **writes: Callable[[], object]) -> None:
        self.count = 0
        self._real = exchange._rename
        self._writes = writes
        monkeypatch.setattr(exchange, "_rename", self)

    def __call__(self, source: str, target: str, flags: int) -> None:
        self.count += 1
        self._writes.get(f"before_{self.count}", lambda: None)()
        self._real(source, target, flags)
        self._writes.get(f"after_{self.count}", lambda: None)()


@pytest.mark.parametrize("write", [in_place, by_rename, by_keytool])
def test_a_write_between_reading_and_writing_is_merged(path: pathlib.Path, write: Write) -> None:
    calls: list[set[str]] = []

    def decide(found: Mapping[str, Entry]) -> Changes:
        calls.append(set(found))
        if len(calls) == 2:  # the first is made without the lock
            write(path)
        return writing.put("ours")(found)

    assert store.update(str(path), PASSWORD, decide, create=None).written
    assert "theirs" in calls[-1]
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "ours", "theirs"}
    assert writing.beside(path) == {writing.LOCK, writing.BACKUP}


@pytest.mark.parametrize("write", [in_place, by_rename])
def test_a_write_at_the_very_moment_of_the_exchange_is_merged(
    path: pathlib.Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = Between(monkeypatch, before_1=lambda: write(path))
    assert writing.put_all(path, ["ours"]).written
    assert between.count == 3, "in, back, and in again"
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "ours", "theirs"}
    assert writing.beside(path) == {writing.LOCK, writing.BACKUP}


@pytest.fixture
def slow_writer(path: pathlib.Path) -> Iterator[threading.Timer]:
    """Has opened the store and will write it a moment after it was started."""
    theirs = writing.written_by_another(path, "theirs")
    with path.open("r+b", buffering=0) as file:
        timer = threading.Timer(0.2, file.write, [theirs])
        yield timer
        timer.join()


def test_a_writer_in_the_middle_of_writing_is_waited_for(
    path: pathlib.Path, slow_writer: threading.Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin() -> None:
        os.truncate(path, 0)
        slow_writer.start()

    def look() -> None:
        assert path.read_bytes() == b"", "the store is under its name again, empty"

    Between(monkeypatch, before_1=begin, after_2=look)
    assert writing.put_all(path, ["ours"]).written
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "ours", "theirs"}


def test_a_store_is_read_when_it_is_whole(path: pathlib.Path, slow_writer: threading.Timer) -> None:
    os.truncate(path, 0)
    slow_writer.start()
    assert writing.aliases(path) == {"cloud", "cloudca", "theirs"}


def test_a_third_writer_within_the_same_instant_loses_nothing(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    third = path.with_name("third")
    third.write_bytes(writing.written_by_another(path, "third"))
    Between(monkeypatch, before_1=lambda: in_place(path), after_1=lambda: third.rename(path))
    with caplog.at_level(logging.WARNING):
        assert writing.put_all(path, ["ours"]).written
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "ours", "third"}
    rescued = path.with_name(path.name + writing.RESCUED)
    assert writing.aliases(rescued) == {"cloud", "cloudca", "theirs"}
    assert str(rescued) in caplog.text


def test_what_was_rescued_before_is_kept(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rescued = path.with_name(path.name + writing.RESCUED)
    for number in (1, 2, 3):
        third = path.with_name("third")
        third.write_bytes(writing.written_by_another(path, f"third-{number}"))
        theirs = writing.written_by_another(path, f"theirs-{number}")
        with monkeypatch.context() as patch:
            Between(
                patch,
                before_1=functools.partial(path.write_bytes, theirs),
                after_1=functools.partial(third.rename, path),
            )
            assert writing.put_all(path, [f"ours-{number}"]).written
        kept = [rescued, *(path.with_name(f"{rescued.name}-{each}") for each in range(2, number + 1))]
        assert [f"theirs-{each}" in writing.aliases(file) for each, file in enumerate(kept, 1)] == [True] * number


def test_a_new_password_between_reading_and_writing_is_respected(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = writing.make(tmp_path)
    Between(monkeypatch, before_1=lambda: support.jdks()[0].keytool("-storepasswd", "-new", "changed", store=path))
    with pytest.raises(errors.PasswordWrongError):
        writing.put_all(path, ["ours"])
    assert set(store.read(str(path), "changed").entries) == {"cloud", "cloudca"}
    assert writing.beside(path) == {writing.LOCK}


def test_a_store_that_is_removed_between_is_made_anew(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Between(monkeypatch, before_1=path.unlink)
    assert store.update(str(path), PASSWORD, writing.put("ours"), create="JKS").written
    assert writing.keytool_aliases(path) == {"ours"}


def test_a_store_that_is_made_between_is_kept(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cloud.jks"
    Between(monkeypatch, before_1=lambda: writing.make(tmp_path, "PKCS12"))
    result = store.update(str(path), PASSWORD, writing.put("ours"), create="JKS")
    assert result.snapshot is not None
    assert result.snapshot.type == "PKCS12"
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "ours"}


def test_a_directory_in_place_of_the_store_is_put_back(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace() -> None:
        path.unlink()
        path.mkdir()
        (path / "kept").touch()

    Between(monkeypatch, before_1=replace)
    with pytest.raises(errors.UnreadableError):
        writing.put_all(path, ["ours"])
    assert (path / "kept").exists()
    assert writing.beside(path) == {writing.LOCK}


def test_someone_who_never_stops_writing_is_told(tmp_path: pathlib.Path) -> None:
    path = writing.make(tmp_path)
    count = 0

    def decide(found: Mapping[str, Entry]) -> Changes:
        nonlocal count
        count += 1
        path.write_bytes(writing.written_by_another(path, f"theirs-{count}"))
        return writing.put("ours")(found)

    with pytest.raises(errors.WriteError, match="was changed by others 20 times in a row"):
        store.update(str(path), PASSWORD, decide, create=None)
    assert {f"theirs-{number}" for number in range(1, count + 1)} <= writing.keytool_aliases(path)


def test_what_is_written_right_after_ours_is_merged(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exchange.replace

    def replace(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(exchange, "replace", real)
        path.write_bytes(pathlib.Path(f"{path}{writing.BACKUP}").read_bytes())

    monkeypatch.setattr(exchange, "replace", replace)
    assert writing.put_all(path, ["ours"]).written
    assert writing.aliases(path) == {"cloud", "cloudca", "ours"}
