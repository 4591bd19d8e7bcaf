"""What journals and records on disk come to: read by the real child, written by the real writers."""

import datetime
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from tests.world import agent_files

from directdownload.agent import copies
from directdownload.agent.cluster_view import Target
from directdownload.agent.pools import book, prober
from directdownload.resources.naming import WORK_DIRECTORY

HOUR = datetime.timedelta(hours=1)
NOTHING = datetime.timedelta()


class Pool:
    """A pool on disk and the book that is kept of it."""

    def __init__(
        self, path: pathlib.Path, *, shared: bool = False, remembered: tuple[copies.Remembered, ...] = ()
    ) -> None:
        self.path = path
        self.book = book.PoolBook(Target("pool-1", str(path), shared), agent_files.HOST, remembered)
        self._scanner = prober.Scanner()

    def wanted(self, later: datetime.timedelta = NOTHING) -> dict[str, copies.Wanted]:
        """`later` than the scan."""
        descriptor = os.open(self.path, os.O_PATH)
        try:
            scan = self._scanner.scan(descriptor, WORK_DIRECTORY, list(book.SUFFIXES))
            self.book.take(scan["present"], scan["changed"], agent_files.now(), complete=scan["complete"])
            self.book.look(prober.look(descriptor, self.book.file_names())["files"])
        finally:
            os.close(descriptor)
        return {wanted.placement: wanted for wanted in self.book.wanted(agent_files.now() + later)}

    def observed(self, placement: str, later: datetime.timedelta = HOUR) -> dict[str, Any]:
        observed: dict[str, Any] = self.wanted(later)[placement].status["observed"]
        return observed


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> Pool:
    return Pool(tmp_path)


def test_a_running_download_is_told_with_the_interval_of_its_journal(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.write_journal(place, "p1", "u1", 250, progress_interval_seconds=7)
    wanted = pool.wanted()["p1"]
    assert wanted.uid == "u1"
    assert wanted.template_uid == "t1", "a volume that waits for the Template shows this progress"
    assert wanted.interval_seconds == 7
    assert wanted.status["progress"] | {"updatedTime": ""} == {
        "bytesDownloaded": 250,
        "downloaded": "250 B",
        "total": "1000 B",
        "rate": "0 B/s",
        "bytesTotal": 1000,
        "bytesPerSecond": 0,
        "percent": 25,
        "source": "images.example.org",
        "updatedTime": "",
    }
    assert "observed" not in wanted.status, "nothing was published yet"
    assert pool.book.active(agent_files.now())
    assert not pool.book.active(agent_files.now() + HOUR)


def test_a_published_copy_is_told_whole_and_what_the_file_is_like(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.write_journal(place, "p1", "u1", 3)
    pool.wanted()
    agent_files.publish(place, "p1", "u1", b"12345")
    os.utime(place.final, ns=(0, 1_769_860_800_123_456_789))
    known = pathlib.Path(place.final).stat()
    revision = agent_files.publish(place, "p1", "u1", b"12345", mtime_ns=known.st_mtime_ns).revision
    os.utime(place.final, ns=(0, known.st_mtime_ns))
    wanted = pool.wanted()["p1"]
    assert wanted.settled
    assert (wanted.file_name, wanted.writer) == ("t1", agent_files.HOST)
    expected = {"present": True, "sizeBytes": 5, "size": "5 B", "mtime": "2026-01-31T12:00:00Z", "revision": revision}
    assert wanted.status["observed"] == expected
    progress = wanted.status["progress"]
    assert (progress["bytesDownloaded"], progress["bytesTotal"], progress["percent"]) == (5, 5, 100)
    assert pool.wanted()["p1"] is wanted, "nothing is made anew while nothing changes"
    assert not pool.book.active(agent_files.now())
    assert not pool.book.unsettled(agent_files.now())


def test_an_unpacked_copy_is_told_with_the_bytes_of_its_archive(pool: Pool) -> None:
    """As its download was told: the sums of a deployment must not jump once it is published."""
    place = agent_files.make_place(pool.path, "t1")
    agent_files.write_journal(place, "p1", "u1", 1000)
    downloading = pool.wanted()["p1"].status["progress"]
    agent_files.publish(place, "p1", "u1", b"x" * 5000, served_digest="sha256:11", served_bytes=1000)
    progress = pool.wanted(HOUR)["p1"].status["progress"]
    assert (progress["bytesDownloaded"], progress["bytesTotal"], progress["percent"]) == (1000, 1000, 100)
    assert downloading["bytesTotal"] == progress["bytesTotal"]


def test_a_record_is_no_finding_before_its_file_has_its_name(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.publish(place, "p1", "u1", b"12345")
    os.rename(place.final, place.part)
    assert pool.wanted() == {}
    assert pool.book.unsettled(agent_files.now())
    assert pool.book.placements() == {"p1": "u1"}
    os.rename(place.part, place.final)
    assert pool.wanted()["p1"].status["observed"]["present"] is True


@pytest.mark.parametrize("how", ["removed", "replaced by a link", "truncated", "touched"])
def test_a_file_lost_or_changed_is_observed_as_it_is(pool: Pool, how: str) -> None:
    place = agent_files.make_place(pool.path, "t1")
    revision = agent_files.publish(place, "p1", "u1", b"12345").revision
    assert not pool.wanted()["p1"].wrong
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
    wanted = pool.wanted()["p1"]
    assert wanted.wrong, "told at once: it was seen in its place before"
    assert "progress" not in wanted.status
    expected: dict[str, dict[str, Any]] = {
        "removed": {"present": False},
        "replaced by a link": {"present": False},
        "truncated": {"present": True, "changed": True, "sizeBytes": 1, "size": "1 B"},
        "touched": {"present": True, "changed": True, "sizeBytes": 5, "size": "5 B", "mtime": "2001-09-09T01:46:40Z"},
    }
    observed = wanted.status["observed"]
    assert observed.items() >= {**expected[how], "revision": revision}.items()
    assert observed.keys() - {"mtime"} == {*expected[how], "revision"} - {"mtime"}
    assert not pool.book.unsettled(agent_files.now()), "looked at only once in a while"


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_changed(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    known = agent_files.publish(place, "p1", "u1", b"12345")
    assert not pool.wanted()["p1"].wrong
    other = pool.path / "other"
    other.write_bytes(b"abcde")
    os.utime(other, ns=(0, known.mtime_ns))
    other.rename(place.final)
    assert pool.observed("p1")["changed"] is True


def _own(path: pathlib.Path) -> None:
    os.chown(path, os.geteuid(), os.getegid())
    if os.geteuid() == 0:
        os.chown(path, 107, 107)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_own, id="owner"),
        pytest.param(lambda path: path.chmod(0o600), id="mode"),
        pytest.param(lambda path: os.setxattr(path, "user.label", b"svirt"), id="label"),
        pytest.param(lambda path: os.link(path, path.with_name("link")), id="links"),
        pytest.param(lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns)), id="access"),
    ],
)
def test_owner_mode_and_label_are_libvirts(pool: Pool, change: Callable[[pathlib.Path], None]) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.publish(place, "p1", "u1", b"12345")
    before = pool.wanted()["p1"]
    final = pathlib.Path(place.final)
    inode_changed = final.stat().st_ctime_ns
    while final.stat().st_ctime_ns == inode_changed:
        change(final)
        final.with_name("link").unlink(missing_ok=True)
    assert pool.wanted(later=HOUR)["p1"] is before, "nothing to tell anew"


def test_a_verification_takes_the_change_back_with_a_new_revision(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    known = agent_files.publish(place, "p1", "u1", b"12345")
    pool.wanted()
    os.utime(place.final, ns=(0, 10**18))
    assert pool.observed("p1") | {"mtime": ""} == {
        "present": True,
        "sizeBytes": 5,
        "size": "5 B",
        "mtime": "",
        "changed": True,
        "revision": known.revision,
    }
    verified = known.model_copy(update={"mtime_ns": 10**18, "verified_time": agent_files.now()})
    verified.write(place.record)
    observed = pool.observed("p1", later=NOTHING)
    assert "changed" not in observed
    assert observed["revision"] == verified.revision != known.revision


@pytest.mark.parametrize(
    "how", ["record", "work directory", "pool", "garbage", "of no placement", "work directory a link"]
)
def test_a_copy_whose_record_is_lost_is_not_forgotten(pool: Pool, how: str) -> None:
    place = agent_files.make_place(pool.path, "t1")
    revision = agent_files.publish(place, "p1", "u1", b"12345").revision
    assert not pool.wanted()["p1"].wrong
    work, record = pool.path / WORK_DIRECTORY, pathlib.Path(place.record)
    match how:
        case "record":
            record.unlink()
        case "garbage":
            record.write_bytes(b"\0" * 100)
        case "of no placement":
            record.write_text(record.read_text().replace('"p1"', '""'))
        case "work directory":
            shutil.rmtree(work)
        case "work directory a link":
            work.rename(pool.path / "elsewhere")
            work.symlink_to("elsewhere")
        case "pool":
            shutil.rmtree(work)
            os.unlink(place.final)
    assert "p1" not in pool.wanted(), "a removal takes the record before the placement goes"
    assert pool.book.placements() == {"p1": "u1"}
    wanted = pool.wanted(later=HOUR)["p1"]
    assert wanted.settled
    assert "progress" not in wanted.status
    if how == "pool":
        assert wanted.status["observed"] == {"present": False, "revision": revision}
    else:
        assert wanted.status["observed"].items() >= {"present": True, "changed": True, "revision": revision}.items()
    assert pool.wanted(later=HOUR)["p1"] is wanted, "nothing is made anew while nothing changes"


def test_a_copy_lost_while_nobody_looked_is_remembered(tmp_path: pathlib.Path) -> None:
    known = copies.Remembered("p1", "u1", "t1", "r1")
    pool = Pool(tmp_path, remembered=(known, copies.Remembered("p2", "u2", "../t2", "r2")))
    assert pool.wanted() == {}
    assert pool.observed("p1") == {"present": False, "revision": "r1"}
    assert pool.book.file_names() == ["t1"], "a name that leads out of the pool is none"
    (tmp_path / "t1").write_bytes(b"12345")
    assert pool.observed("p1").items() >= {"present": True, "changed": True, "revision": "r1"}.items()
    verified = agent_files.publish(agent_files.make_place(tmp_path, "t1"), "p1", "u1", b"12345")
    assert pool.observed("p1", later=NOTHING)["revision"] == verified.revision


def test_a_lost_copy_whose_placement_is_gone_is_forgotten_and_no_other(pool: Pool) -> None:
    for template in ("t1", "t2", "t3"):
        place = agent_files.make_place(pool.path, template)
        agent_files.publish(place, template.replace("t", "p"), template.replace("t", "u"), b"12345")
        pool.wanted()
        if template != "t3":
            os.unlink(place.record)
    pool.wanted()
    pool.book.forget(lambda key: key in {("p1", "u1"), ("p2", "another"), ("p3", "u3")})
    assert pool.book.placements() == {"p2": "u2", "p3": "u3"}
    assert set(pool.wanted(later=HOUR)) == {"p2", "p3"}


@pytest.mark.parametrize(
    ("field", "longest"), [("digest", 512), ("checksum", 512), ("served_digest", 512), ("format", 64), ("host", 253)]
)
def test_a_record_with_longer_fields_than_a_copy_has_is_none(pool: Pool, field: str, longest: int) -> None:
    agent_files.publish(agent_files.make_place(pool.path, "t1"), "p1", "u1", b"12345", **{field: "x" * longest})
    agent_files.publish(agent_files.make_place(pool.path, "t2"), "p2", "u2", b"12345", **{field: "x" * (longest + 1)})
    assert set(pool.wanted()) == {"p1"}


def test_a_scan_that_did_not_see_everything_loses_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.publish(place, "p1", "u1", b"12345")
    before = pool.wanted()["p1"]
    monkeypatch.setattr(prober, "ENTRY_LIMIT", 2)
    for name in ("a", "b"):
        agent_files.publish(agent_files.make_place(pool.path, name), f"p-{name}", "u", b"12345")
    wanted = pool.wanted(later=HOUR)
    assert wanted["p1"] is before
    assert set(wanted) == {"p1", "p-a", "p-b"}


def test_a_download_of_a_lost_copy_counts_and_what_an_earlier_one_left_does_not(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.publish(place, "p1", "u1", b"12345")
    agent_files.write_journal(
        place, "p1", "u1", 10, started_time=agent_files.now() - HOUR, updated_time=agent_files.now() - HOUR
    )
    pool.wanted()
    os.unlink(place.record)
    pool.wanted()
    assert pool.wanted(later=HOUR)["p1"].wrong
    agent_files.write_journal(place, "p1", "u1", 20, started_time=agent_files.now() + HOUR)
    status = pool.wanted(later=HOUR)["p1"].status
    assert status["progress"]["bytesDownloaded"] == 20
    assert "observed" not in status


def test_a_download_that_began_after_the_record_counts(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.publish(place, "p1", "u1", b"12345")
    agent_files.write_journal(place, "p1", "u1", 10, started_time=agent_files.now() - HOUR)
    assert pool.wanted()["p1"].settled, "a journal that was left behind"
    agent_files.write_journal(place, "p1", "u1", 20, started_time=agent_files.now() + HOUR)
    wanted = pool.wanted()["p1"]
    assert not wanted.settled
    assert wanted.status["progress"]["bytesDownloaded"] == 20
    assert wanted.status["observed"].items() >= {"sizeBytes": 5, "present": True}.items(), "every apply carries all"


def test_a_download_that_was_given_up_takes_its_progress_back(pool: Pool) -> None:
    place = agent_files.make_place(pool.path, "t1")
    agent_files.write_journal(place, "p1", "u1", 10)
    assert not pool.wanted()["p1"].ended
    os.unlink(place.journal)
    wanted = pool.wanted()["p1"]
    assert wanted.ended
    assert wanted.status == {}
    agent_files.write_journal(place, "p1", "u1", 0)
    assert not pool.wanted()["p1"].ended


def test_journals_of_other_hosts_are_theirs(tmp_path: pathlib.Path) -> None:
    pool = Pool(tmp_path, shared=True)
    for host in ("kvm-2", "x.kvm-1", "kvm-1.example.org", ""):
        agent_files.write_journal(agent_files.make_place(pool.path, "t1", host), "p1", "u1", 10)
    assert pool.wanted() == {}
    agent_files.write_journal(agent_files.make_place(pool.path, "t1"), "p1", "u1", 10)
    assert pool.wanted()["p1"].writer == agent_files.HOST
    assert pool.book.journals()["t1.kvm-2.journal"] == ("p1", "u1"), "theirs to tell, not to hide"
    agent_files.publish(agent_files.make_place(pool.path, "t2", "kvm-2"), "p2", "u2", b"12345")
    assert (pool.wanted()["p2"].shared, pool.wanted()["p2"].writer) == (True, "kvm-2")


def test_files_whose_placement_is_gone_are_listed(pool: Pool) -> None:
    for template in ("t1", "t2", "t3"):
        place = agent_files.make_place(pool.path, template)
        agent_files.publish(place, template.replace("t", "p"), template.replace("t", "u"), b"12345")
    os.unlink(pool.path / "t3")
    pool.wanted()

    def gone(key: copies.Key) -> bool:
        return key in {("p1", "u1"), ("p3", "u3")}

    (listed,) = pool.book.unplaced(gone)
    assert (listed.name, listed.size_bytes, listed.state) == ("t1", 5, "Published")
    assert pool.book.records_without_file(gone) == {"t3.record"}
    assert pool.book.unplaced(lambda _: False) == []
    assert pool.book.records_without_file(lambda _: False) == set()


def test_the_name_of_a_file_of_nobody_is_shown_escaped(pool: Pool) -> None:
    agent_files.publish(
        agent_files.make_place(pool.path, "t1"), "p1", "u1", b"12345", path=f"{pool.path}/t1\x1b[2J\u202e"
    )
    os.rename(pool.path / "t1", pool.path / "t1\x1b[2J\u202e")
    pool.wanted()
    assert [file.name for file in pool.book.unplaced(lambda _: True)] == ["t1\\x1b[2J\\u202e"]


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
        {"version": 1},
    ],
)
def test_what_is_no_proper_journal_is_nobodys(pool: Pool, fields: dict[str, Any]) -> None:
    place = agent_files.make_place(pool.path, "t1")
    written = agent_files.write_journal(place, "p1", "u1", 10)
    assert pool.wanted()
    pathlib.Path(place.journal).write_text(written.model_copy(update=fields).model_dump_json())
    if "unknown" in fields:
        pathlib.Path(place.journal).write_text(written.model_dump_json().replace("{", '{"unknown":1,', 1))
    wanted = pool.wanted()
    assert all(item.ended for item in wanted.values())
    assert not pool.book.active(agent_files.now())


@pytest.mark.parametrize("path", ["/etc/shadow", "{pool}/../x", "{pool}/a/b", "{pool}", "{pool}/", "x", "{pool}/.."])
def test_a_record_names_a_file_of_its_own_pool_only(pool: Pool, path: str) -> None:
    place = agent_files.make_place(pool.path, "t1")
    known = agent_files.publish(place, "p1", "u1", b"12345")
    known.model_copy(update={"path": path.format(pool=pool.path)}).write(place.record)
    assert pool.wanted(later=HOUR) == {}
    assert pool.book.file_names() == []


def test_times_that_no_calendar_has_are_left_out() -> None:
    assert book.FileState(size_bytes=1, mtime_ns=10**30, inode=1).mtime is None
    assert book.FileState(size_bytes=1, mtime_ns=10**9, inode=1).mtime is not None
