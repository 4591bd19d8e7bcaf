"""What is remembered over a restart."""

import dataclasses
import datetime
import errno
import hashlib
import json
import logging
import pathlib
import time

import pytest
from tests.world import agent_files
from tests.world.faulty_fs import Fault, FaultyFileSystem

from directdownload.agent import copies
from directdownload.agent.pools import progress
from directdownload.agent.status import told
from directdownload.agent.status.told import Outcome, Told
from directdownload.resources.templateplacement import Observed

SEEN = Observed(present=True, size_bytes=5, revision="r1")
WANTED = copies.Wanted("p1", "u1", "pool-1", False, None, SEEN, settled=True, file_name="t1")


async def test_what_was_told_is_known_after_a_restart_and_a_change_is_not(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    assert book.outcome(WANTED) is None
    book.note(WANTED, Outcome.PUBLISHED)
    await book.save()
    again = Told.load(str(tmp_path))
    assert again.outcome(WANTED) is Outcome.PUBLISHED
    assert again.outcome(dataclasses.replace(WANTED, uid="u2")) is None
    assert again.outcome(dataclasses.replace(WANTED, observed=Observed(present=False))) is None


async def test_words_for_people_are_no_reason_to_publish_again(tmp_path: pathlib.Path) -> None:
    """Version 0.1.0 published none: an upgrade must not cost a write for each of thousands of copies."""
    wanted = dataclasses.replace(WANTED, progress=progress.complete(5, datetime.datetime.now(datetime.UTC)))
    assert wanted.status["observed"]["size"] == wanted.status["progress"]["total"] == "5 B"
    written = {"observed": SEEN, "progress": wanted.progress}
    before = {
        name: part.model_dump(by_alias=True, exclude_none=True, mode="json")
        for name, part in written.items()
        if part is not None
    }
    assert told.digest(wanted.status) == told.digest(before)
    assert told.digest(before) == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:16]


async def test_what_was_about_to_be_told_is_remembered_and_told_again_after_a_restart(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    book.note_pool("pool-1", "/pools/a", own_mount=False)
    book.intend(WANTED)
    await book.save()
    again = Told.load(str(tmp_path))
    assert again.outcome(WANTED) is Outcome.INTENDED
    assert again.remembered("pool-1", "/pools/a") == [copies.Remembered("p1", "u1", "t1", "r1")]
    again.note(WANTED, Outcome.FOREIGN)
    again.intend(WANTED)
    assert again.outcome(WANTED) is Outcome.FOREIGN, "what became of it is known"


async def test_only_what_has_a_record_is_kept(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    for name, pool in (("p1", "pool-1"), ("p2", "pool-1"), ("p3", "pool-2")):
        book.note(dataclasses.replace(WANTED, placement=name, pool=pool), Outcome.GONE)
    book.keep("pool-1", {"p2"})
    await book.save()
    assert set(Told.load(str(tmp_path)).entries) == {"p2", "p3"}


async def test_copies_are_remembered_with_what_is_needed_to_miss_them(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    book.note_pool("pool-1", "/pools/a", own_mount=False)
    book.note(WANTED, Outcome.PUBLISHED)
    book.note(dataclasses.replace(WANTED, placement="p2", file_name="t2"), Outcome.GONE)
    book.note(dataclasses.replace(WANTED, placement="p3", pool="pool-2"), Outcome.PUBLISHED)
    book.note(dataclasses.replace(WANTED, placement="p4", observed=Observed(present=False)), Outcome.PUBLISHED)
    await book.save()
    again = Told.load(str(tmp_path))
    assert again.remembered("pool-1", "/pools/a") == [copies.Remembered("p1", "u1", "t1", "r1")]
    assert again.remembered("pool-1", "/pools/b") == [], "another pool of the same name"
    assert again.remembered("pool-2", "/pools/a") == []


async def test_how_a_pool_was_mounted_is_remembered_for_its_path(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    assert not book.own_mount("pool-1", "/pools/a")
    book.note_pool("pool-1", "/pools/a", own_mount=True)
    await book.save()
    again = Told.load(str(tmp_path))
    assert again.own_mount("pool-1", "/pools/a")
    assert not again.own_mount("pool-1", "/pools/b")
    again.note_pool("pool-1", "/pools/a", own_mount=False)
    assert not again.own_mount("pool-1", "/pools/a")


def test_a_placement_that_is_gone_is_gone_whatever_there_is_to_tell_until_it_is_back(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    book.note(WANTED, Outcome.PUBLISHED)
    book.note_gone(("p1", "another"), True)
    book.note_gone(("p2", "u1"), True)
    assert not book.gone(("p1", "u1"))
    book.note_gone(("p1", "u1"), True)
    assert book.gone(("p1", "u1"))
    assert not book.gone(("p1", "another"))
    book.note_gone(("p1", "u1"), False)
    assert book.entries == {}, "nothing was told to it yet"


async def test_a_ledger_of_an_earlier_version_is_understood(tmp_path: pathlib.Path) -> None:
    entry = '{"uid": "u1", "pool": "pool-1", "outcome": "published", "digest": "x"}'
    (tmp_path / told.FILE_NAME).write_text('{"version": 1, "placements": {"p1": ' + entry + "}}")
    book = Told.load(str(tmp_path))
    assert set(book.entries) == {"p1"}
    assert book.remembered("pool-1", "/pools/a") == []


async def test_nothing_is_written_while_nothing_changes(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path))
    book.note(WANTED, Outcome.PUBLISHED)
    await book.save()
    (tmp_path / told.FILE_NAME).unlink()
    book.note(WANTED, Outcome.PUBLISHED)
    await book.save()
    assert not (tmp_path / told.FILE_NAME).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"placements":{"p":1}}', '{"version":2}', "\0" * 100])
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / told.FILE_NAME).write_text(content)
    assert Told.load(str(tmp_path)).entries == {}


async def test_a_state_directory_that_cannot_be_written_is_complained_about_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Told.load(str(tmp_path / "absent"))
    with caplog.at_level(logging.WARNING):
        for uid in ("u1", "u2"):
            book.note(dataclasses.replace(WANTED, uid=uid), Outcome.PUBLISHED)
            book.retry_monotonic = 0
            assert not await book.save()
    assert len(caplog.records) == 1
    assert "copies are not reported before it can be written" in caplog.text


FULL_DISK = """
import asyncio, json, os, subprocess, sys
from directdownload.agent import copies
from directdownload.agent.status.told import Outcome, Told
from directdownload.resources.templateplacement import Observed

state = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "state", state], check=True)
seen = Observed(present=True, size_bytes=5, revision="r1")
one = copies.Wanted("p1", "u1", "pool-1", False, None, seen, settled=True, file_name="t1")
other = copies.Wanted("p2", "u2", "pool-1", False, None, seen, settled=True, file_name="t2")

def fill():
    with open(f"{state}/filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass

async def main():
    said = {}
    book = Told.load(state)
    book.note(one, Outcome.PUBLISHED)
    said["saved"] = await book.save()
    fill()
    book.note(other, Outcome.INTENDED)
    said["full"] = await book.save(), book.durable(one), book.durable(other)
    first = book.retry_monotonic
    said["not before the pause"] = await book.save(), book.retry_monotonic == first
    said["as it was"] = sorted(Told.load(state).entries), sorted(os.listdir(state))
    os.unlink(f"{state}/filler")
    said["nothing new to note"] = book.outcome(other)
    book.retry_monotonic = 0
    said["freed"] = await book.save(), book.durable(one), book.durable(other)
    again = Told.load(state)
    said["again"] = sorted(again.entries), again.durable(other)
    print(json.dumps(said))

asyncio.run(main())
"""


def test_what_a_full_disk_refuses_stays_to_be_written_and_is_tried_again(tmp_path: pathlib.Path) -> None:
    assert agent_files.in_namespace(FULL_DISK, str(tmp_path)) == {
        "saved": True,
        "full": [False, True, False],
        "not before the pause": [False, True],
        "as it was": [["p1"], ["filler", "placements.json"]],
        "nothing new to note": "intended",
        "freed": [True, True, True],
        "again": [["p1", "p2"], True],
    }


async def test_what_is_not_durable_does_not_count_as_written(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file has its name, but the directory could not be synced: after a crash it may be the one before."""
    with FaultyFileSystem(tmp_path) as disk, caplog.at_level(logging.INFO):
        book = Told.load(str(disk.path))
        book.note(WANTED, Outcome.INTENDED)
        disk.fail(Fault("fsyncdir", errno.EIO))
        assert (await book.save(), book.durable(WANTED)) == (False, False)
        disk.fail()
        book.retry_monotonic = 0
        assert (await book.save(), book.durable(WANTED)) == (True, True)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_pauses_grow_while_nothing_can_be_written(tmp_path: pathlib.Path) -> None:
    book = Told.load(str(tmp_path / "absent"))
    book.note(WANTED, Outcome.INTENDED)
    pauses = []
    for _ in range(8):
        now, book.retry_monotonic = time.monotonic(), 0
        assert not await book.save()
        pauses.append(book.retry_monotonic - now)
    assert pauses[0] < 1
    assert 10 < pauses[-1] <= 31
