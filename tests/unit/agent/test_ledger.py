"""What is remembered over a restart."""

import dataclasses
import logging
import pathlib

import pytest

from directdownload.agent import copies, ledger
from directdownload.agent.ledger import Ledger, Outcome
from directdownload.resources.templateplacement import Observed

WANTED = copies.Wanted("p1", "u1", "pool-1", False, None, Observed(present=True, size_bytes=5), settled=True)


async def test_what_was_told_is_known_after_a_restart_and_a_change_is_not(tmp_path: pathlib.Path) -> None:
    book = Ledger.load(str(tmp_path))
    assert book.outcome(WANTED) is None
    book.note(WANTED, Outcome.PUBLISHED)
    await book.save()
    again = Ledger.load(str(tmp_path))
    assert again.outcome(WANTED) is Outcome.PUBLISHED
    assert again.outcome(dataclasses.replace(WANTED, uid="u2")) is None
    assert again.outcome(dataclasses.replace(WANTED, observed=Observed(present=False))) is None


async def test_only_what_has_a_record_is_kept(tmp_path: pathlib.Path) -> None:
    book = Ledger.load(str(tmp_path))
    for name, pool in (("p1", "pool-1"), ("p2", "pool-1"), ("p3", "pool-2")):
        book.note(dataclasses.replace(WANTED, placement=name, pool=pool), Outcome.GONE)
    book.keep("pool-1", {"p2"})
    await book.save()
    assert set(Ledger.load(str(tmp_path)).entries) == {"p2", "p3"}


async def test_nothing_is_written_while_nothing_changes(tmp_path: pathlib.Path) -> None:
    book = Ledger.load(str(tmp_path))
    book.note(WANTED, Outcome.PUBLISHED)
    await book.save()
    (tmp_path / ledger.FILE_NAME).unlink()
    book.note(WANTED, Outcome.PUBLISHED)
    await book.save()
    assert not (tmp_path / ledger.FILE_NAME).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"placements":{"p":1}}', '{"version":2}', "\0" * 100])
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / ledger.FILE_NAME).write_text(content)
    assert Ledger.load(str(tmp_path)).entries == {}


async def test_a_state_directory_that_cannot_be_written_is_complained_about_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Ledger.load(str(tmp_path / "absent"))
    with caplog.at_level(logging.WARNING):
        for uid in ("u1", "u2"):
            book.note(dataclasses.replace(WANTED, uid=uid), Outcome.PUBLISHED)
            await book.save()
    assert len(caplog.records) == 1
    assert "a restart tells all again" in caplog.text
