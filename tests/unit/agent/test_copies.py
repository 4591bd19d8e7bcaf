"""What journals and records on disk come to: read by the real child, written by the real writers."""

import datetime
import os
import pathlib
from typing import Any

import pytest
from tests.unit.agent import support

from directdownload.agent import copies, prober, storage
from directdownload.resources.naming import WORK_DIRECTORY

HOUR = datetime.timedelta(hours=1)


class Pool:
    """A pool on disk and the book that is kept of it."""

    def __init__(self, path: pathlib.Path, *, shared: bool = False) -> None:
        self.path = path
        self.book = copies.PoolBook(storage.Target("pool-1", str(path), shared), support.HOST)
        self._scanner = prober.Scanner(str(path))

    def wanted(self, later: datetime.timedelta = datetime.timedelta()) -> dict[str, copies.Wanted]:
        self.book.take(**self._scanner.scan(WORK_DIRECTORY, list(copies.SUFFIXES)))
        self.book.look(prober.look(str(self.path), self.book.file_names()))
        return {wanted.placement: wanted for wanted in self.book.wanted(support.now() + later)}


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> Pool:
    return Pool(tmp_path)


def test_a_running_download_is_told_with_the_interval_of_its_journal(pool: Pool) -> None:
    place = support.make_place(pool.path, "t1")
    support.write_journal(place, "p1", "u1", 250, progress_interval_seconds=7)
    wanted = pool.wanted()["p1"]
    assert wanted.uid == "u1"
    assert wanted.interval_seconds == 7
    assert wanted.status["progress"] | {"updatedTime": ""} == {
        "bytesDownloaded": 250,
        "bytesTotal": 1000,
        "bytesPerSecond": 0,
        "percent": 25,
        "source": "images.example.org",
        "updatedTime": "",
    }
    assert wanted.status["observed"] == {"present": False}
    assert pool.book.active(support.now())
    assert not pool.book.active(support.now() + HOUR)


def test_a_published_copy_is_told_whole_and_what_the_file_is_like(pool: Pool) -> None:
    place = support.make_place(pool.path, "t1")
    support.write_journal(place, "p1", "u1", 3)
    pool.wanted()
    support.publish(place, "p1", "u1", b"12345")
    os.utime(place.final, ns=(0, 1_769_860_800_123_456_789))
    known = pathlib.Path(place.final).stat()
    support.publish(place, "p1", "u1", b"12345", mtime_ns=known.st_mtime_ns)
    os.utime(place.final, ns=(0, known.st_mtime_ns))
    wanted = pool.wanted()["p1"]
    assert wanted.settled
    assert wanted.status["observed"] == {"present": True, "sizeBytes": 5, "mtime": "2026-01-31T12:00:00Z"}
    progress = wanted.status["progress"]
    assert (progress["bytesDownloaded"], progress["bytesTotal"], progress["percent"]) == (5, 5, 100)
    assert pool.wanted()["p1"] is wanted, "nothing is made anew while nothing changes"
    assert not pool.book.active(support.now())
    assert not pool.book.unsettled(support.now())


def test_a_record_is_no_finding_before_its_file_has_its_name(pool: Pool) -> None:
    place = support.make_place(pool.path, "t1")
    support.publish(place, "p1", "u1", b"12345")
    os.rename(place.final, place.part)
    assert pool.wanted() == {}
    assert pool.book.unsettled(support.now())
    assert pool.book.placements() == {"p1"}
    os.rename(place.part, place.final)
    assert pool.wanted()["p1"].status["observed"]["present"] is True


@pytest.mark.parametrize("how", ["removed", "replaced by a link", "truncated", "touched"])
def test_a_file_lost_or_changed_is_observed_as_it_is(pool: Pool, how: str) -> None:
    place = support.make_place(pool.path, "t1")
    support.publish(place, "p1", "u1", b"12345")
    final = pathlib.Path(place.final)
    match how:
        case "removed":
            final.unlink()
        case "replaced by a link":
            final.rename(pool.path / "else")
            final.symlink_to("else")
        case "truncated":
            final.write_bytes(b"1")
        case "touched":
            os.utime(final, ns=(0, 10**18))
    status = pool.wanted(later=HOUR)["p1"].status
    assert "progress" not in status
    observed: dict[str, dict[str, Any]] = {
        "removed": {"present": False},
        "replaced by a link": {"present": False},
        "truncated": {"present": True, "sizeBytes": 1},
        "touched": {"present": True, "sizeBytes": 5, "mtime": "2001-09-09T01:46:40Z"},
    }
    assert status["observed"].items() >= observed[how].items()
    assert not pool.book.unsettled(support.now() + HOUR), "looked at only once in a while"


def test_a_download_that_began_after_the_record_counts(pool: Pool) -> None:
    place = support.make_place(pool.path, "t1")
    support.publish(place, "p1", "u1", b"12345")
    support.write_journal(place, "p1", "u1", 10, started_time=support.now() - HOUR)
    assert pool.wanted()["p1"].settled, "a journal that was left behind"
    support.write_journal(place, "p1", "u1", 20, started_time=support.now() + HOUR)
    wanted = pool.wanted()["p1"]
    assert not wanted.settled
    assert wanted.status["progress"]["bytesDownloaded"] == 20
    assert wanted.status["observed"]["sizeBytes"] == 5, "every apply carries what is observed as well"


def test_a_download_that_was_given_up_takes_its_progress_back(pool: Pool) -> None:
    place = support.make_place(pool.path, "t1")
    support.write_journal(place, "p1", "u1", 10)
    assert not pool.wanted()["p1"].ended
    os.unlink(place.journal)
    wanted = pool.wanted()["p1"]
    assert wanted.ended
    assert wanted.status == {"observed": {"present": False}}
    support.write_journal(place, "p1", "u1", 0)
    assert not pool.wanted()["p1"].ended


def test_journals_of_other_hosts_are_theirs(tmp_path: pathlib.Path) -> None:
    pool = Pool(tmp_path, shared=True)
    for host in ("kvm-2", "x.kvm-1", "kvm-1.example.org", ""):
        support.write_journal(support.make_place(pool.path, "t1", host), "p1", "u1", 10)
    assert pool.wanted() == {}
    support.write_journal(support.make_place(pool.path, "t1"), "p1", "u1", 10)
    assert not pool.wanted()["p1"].shared, "the name of a journal says whose it is"
    support.publish(support.make_place(pool.path, "t2"), "p2", "u2", b"12345")
    assert pool.wanted()["p2"].shared, "that of a record does not"


@pytest.mark.parametrize(
    "fields",
    [
        {"placement": ""},
        {"placement": "../../namespaces/x"},
        {"placement": ".."},
        {"placement": "Upper"},
        {"placement": "a" * 300},
        {"placement_uid": ""},
        {"placement_uid": "a b"},
        {"bytes_on_disk": -1},
        {"unknown": 1},
        {"version": 2},
    ],
)
def test_what_is_no_proper_journal_is_nobodys(pool: Pool, fields: dict[str, Any]) -> None:
    place = support.make_place(pool.path, "t1")
    written = support.write_journal(place, "p1", "u1", 10)
    assert pool.wanted()
    pathlib.Path(place.journal).write_text(written.model_copy(update=fields).model_dump_json())
    if "unknown" in fields:
        pathlib.Path(place.journal).write_text(written.model_dump_json().replace("{", '{"unknown":1,', 1))
    wanted = pool.wanted()
    assert all(item.ended for item in wanted.values())
    assert not pool.book.active(support.now())


@pytest.mark.parametrize("path", ["/etc/shadow", "{pool}/../x", "{pool}/a/b", "{pool}", "{pool}/", "x", "{pool}/.."])
def test_a_record_names_a_file_of_its_own_pool_only(pool: Pool, path: str) -> None:
    place = support.make_place(pool.path, "t1")
    known = support.publish(place, "p1", "u1", b"12345")
    known.model_copy(update={"path": path.format(pool=pool.path)}).write(place.record)
    assert pool.wanted(later=HOUR) == {}
    assert pool.book.file_names() == []


def test_times_that_no_calendar_has_are_left_out() -> None:
    state = copies.FileState(size_bytes=1, mtime_ns=10**30, inode=1)
    assert state.observed.model_dump(exclude_none=True) == {"present": True, "sizeBytes": 1}
