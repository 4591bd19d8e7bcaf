"""What of a pool's work directory belongs to nobody: decided by tables, listed and removed by the real child's code."""

import fcntl
import os
import pathlib
import threading
from collections.abc import Iterator

import pytest
from tests.world import agent_files

from directdownload.agent.copies import Owner
from directdownload.agent.pools import leftovers, prober
from directdownload.agent.pools.leftovers import Leftover
from directdownload.download.guard import Guard
from directdownload.download.store import place
from directdownload.resources.host import UNPLACED_LIMIT, UnplacedFile
from directdownload.resources.naming import WORK_DIRECTORY

NOW = 1_700_000_000.0
DAY = 86_400
KEY = ("p1", "u1")
GONE = Owner(exists=False)


def attempt(*, host: str = "kvm-1", held: bool = False, named: bool = True, modified: float = NOW) -> Leftover:
    names = ("t1.kvm-1.journal", "t1.kvm-1.out", "t1.kvm-1.part")
    sizes = {names[0]: 4096, names[1]: 70_000, names[2]: 50_000}
    return Leftover(names, sizes, modified, names[2], held, host, KEY if named else None)


def single(name: str, *, held: bool = False, needed_record: bool = False) -> Leftover:
    return Leftover((name,), {name: 1}, 0, "t1.lock", held=held, needed_record=needed_record)


def owner(phase: str, host: str = "kvm-1") -> Owner:
    return Owner(exists=True, host=host, phase=phase)


NOBODYS = [
    ("no journal that can be read", attempt(named=False), None, True),
    ("the same, but held", attempt(named=False, held=True), None, False),
    ("its placement is not known yet", attempt(), None, False),
    ("its placement is gone", attempt(), GONE, True),
    ("gone, but held", attempt(held=True), GONE, False),
    ("waits for its next attempt", attempt(), owner("Pending"), False),
    ("a placement that is new", attempt(), owner(""), False),
    ("downloads", attempt(), owner("Downloading"), False),
    ("failed, and may be asked for again", attempt(), owner("Failed"), False),
    ("the copy is there", attempt(), owner("Ready"), True),
    ("another host has its copy", attempt(), owner("Ready", "kvm-2"), True),
    ("another host fetches it now", attempt(), owner("Downloading", "kvm-2"), True),
    ("another host waits for its turn", attempt(), owner("Pending", "kvm-2"), True),
    ("another host's, which fetches it", attempt(host="kvm-2"), owner("Downloading", "kvm-2"), False),
    ("is being removed", attempt(), owner("Removing"), False),
    ("is being removed by another host", attempt(), owner("Removing", "kvm-2"), False),
    ("a record without file and placement", single("t1.record"), None, True),
    ("a record", single("t1.record", needed_record=True), None, False),
    ("a half-written record", single("t1.record.tmp"), None, True),
    ("a lock", single("t1.lock", held=True), None, False),
    ("a lock of a process that died", single("t1.lock"), None, True),
]


@pytest.mark.parametrize(("each", "known", "expected"), [c[1:] for c in NOBODYS], ids=[c[0] for c in NOBODYS])
def test_what_belongs_to_nobody(each: Leftover, known: Owner | None, expected: bool) -> None:
    asked = []

    def owner_of(key: tuple[str, str]) -> Owner | None:
        asked.append(key)
        return known

    assert leftovers.nobodys(each, owner_of) is expected
    assert set(asked) <= {KEY}


@pytest.mark.parametrize(
    ("age_seconds", "listed", "swept"), [(0, 0, 0), (59, 0, 0), (60, 2, 0), (DAY - 1, 2, 0), (DAY, 2, 1)]
)
def test_age_decides_what_is_listed_and_what_is_swept(age_seconds: int, listed: int, swept: int) -> None:
    found = [attempt(modified=NOW - age_seconds), attempt(modified=NOW - age_seconds, held=True)]
    assert len(leftovers.partial(found, lambda _: GONE, NOW)) == listed
    assert len(leftovers.swept(found, lambda _: GONE, NOW)) == swept
    assert not leftovers.partial(found, lambda _: None, NOW)
    assert not leftovers.swept(found, lambda _: None, NOW)
    assert leftovers.asked_for(found, NOW) == ({KEY} if listed else set())


def test_bytes_are_listed_and_small_files_are_not() -> None:
    files = leftovers.partial([attempt(modified=NOW - DAY)], lambda _: GONE, NOW)
    assert [(file.name, file.size_bytes, file.state) for file in files] == [
        (f"{WORK_DIRECTORY}/t1.kvm-1.out", 70_000, "Partial"),
        (f"{WORK_DIRECTORY}/t1.kvm-1.part", 50_000, "Partial"),
    ]
    assert leftovers.partial([single("t1.record.tmp")], lambda _: GONE, NOW) == []


def test_a_name_that_is_no_text_is_shown_escaped_and_swept_by_its_true_name() -> None:
    true = os.fsdecode(b"\xff\x1b" + "😀".encode() * 62 + b".part")
    (each,) = leftovers.group({true: (4096, NOW - DAY, False)}, {}, ())
    (file,) = leftovers.partial([each], lambda _: GONE, NOW)
    assert file.name == f"{WORK_DIRECTORY}/\\xff\\x1b" + "😀" * 62 + ".part"
    assert leftovers.swept([each], lambda _: GONE, NOW)[0].names == (true,)
    (long,) = leftovers.group({os.fsdecode(b"\xff" * 250 + b".part"): (4096, NOW - DAY, False)}, {}, ())
    (file,) = leftovers.partial([long], lambda _: GONE, NOW)
    assert (len(file.name), file.name[-1]) == (300, "…")


def test_sizes_that_the_api_cannot_hold_are_cut() -> None:
    name = "t1.kvm-1.part"
    huge = Leftover((name,), {name: 2**70}, NOW - DAY, name)
    files = leftovers.partial([huge], lambda _: GONE, NOW)
    assert files[0].size_bytes == 2**63 - 1
    assert leftovers.report(files * 2)[1] == 2**63 - 1


def test_times_that_no_calendar_has_are_left_out() -> None:
    (file, _) = leftovers.partial([attempt(modified=-1e30)], lambda _: GONE, NOW)
    assert file.modified_time is None


def test_the_largest_are_reported_and_all_are_counted() -> None:
    files = [UnplacedFile(name=f"{number:03}", size_bytes=number // 2, state="Published") for number in range(100)]
    listed, unplaced_bytes = leftovers.report(files)
    assert len(listed) == UNPLACED_LIMIT
    assert [file.name for file in listed[:4]] == ["098", "099", "096", "097"]
    assert unplaced_bytes == sum(number // 2 for number in range(100))
    assert leftovers.report([]) == ((), 0)


def test_files_of_one_attempt_belong_together() -> None:
    listed = {
        "t1.kvm-1.journal": (10, 100.0, False),
        "t1.kvm-1.journal.tmp": (10, 101.0, False),
        "t1.kvm-1.part": (20, 300.0, True),
        "t1.kvm-1.out": (30, 200.0, False),
        "t1.kvm-2.example.org.part": (40, 50.0, False),
        "t1.record": (1, 1.0, False),
        "t2.record": (1, 2.0, False),
        "t1.record.tmp": (1, 3.0, False),
        "t2.lock": (0, 4.0, True),
        # no job writes such a thing
        "t1.tmp": (1, 3.0, False),
    }
    found = {each.names[0]: each for each in leftovers.group(listed, {"t1.kvm-1.journal": KEY}, {"t2.record"})}
    first = found.pop("t1.kvm-1.journal")
    assert first.names == ("t1.kvm-1.journal", "t1.kvm-1.journal.tmp", "t1.kvm-1.out", "t1.kvm-1.part")
    assert (first.modified, first.held, first.lock, first.host) == (300.0, True, "t1.kvm-1.part", "kvm-1")
    assert (first.placement, dict(first.size_bytes)["t1.kvm-1.out"]) == (KEY, 30)
    second = found.pop("t1.kvm-2.example.org.part")
    assert (second.host, second.placement, second.held) == ("kvm-2.example.org", None, False)
    assert {name: (each.lock, each.needed_record, each.held) for name, each in found.items()} == {
        "t1.record": ("t1.lock", True, False),
        "t2.record": ("t2.lock", False, False),
        "t1.record.tmp": ("t1.lock", False, False),
        "t2.lock": ("t2.lock", False, True),
    }
    assert not any(each.of_attempt for each in found.values())


def test_a_piece_log_goes_with_its_part_and_stays_with_its_record() -> None:
    attempted = {"t1.kvm-1.part": (20, 1.0, False), "t1.kvm-1.pieces": (10, 2.0, False)}
    published = {"t2.record": (1, 1.0, False), "t2.kvm-1.pieces": (10, 2.0, False)}
    alone = {"t3.kvm-1.pieces": (10, 2.0, False), "t3.kvm-1.pieces.tmp": (10, 2.0, False)}
    found = {each.names for each in leftovers.group({**attempted, **published, **alone}, {}, ())}
    assert found == {
        ("t1.kvm-1.pieces", "t1.kvm-1.part"),
        ("t2.record",),
        ("t3.kvm-1.pieces", "t3.kvm-1.pieces.tmp"),
    }


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> Iterator[int]:
    """The pool at `tmp_path` as the child opens it."""
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def make(directory: pathlib.Path, *names: str, days: float = 2) -> list[str]:
    work = directory / WORK_DIRECTORY
    work.mkdir(exist_ok=True)
    for name in names:
        (work / name).write_bytes(b"x" * 5000)
        os.utime(work / name, (NOW - days * DAY, NOW - days * DAY))
    return list(names)


def sweep(pool: int, names: list[str], lock: str) -> list[str]:
    answer = prober.sweep(pool, WORK_DIRECTORY, [{"names": names, "lock": lock}], NOW - DAY)
    assert answer["error"] == ""
    removed: list[str] = answer["removed"]
    return removed


def left(directory: pathlib.Path) -> set[str]:
    return {path.name for path in (directory / WORK_DIRECTORY).iterdir()}


def test_what_lies_there_is_listed(tmp_path: pathlib.Path, pool: int) -> None:
    assert prober.list_leftovers(pool, WORK_DIRECTORY, list(leftovers.SUFFIXES), 60) == {"leftovers": {}}
    make(
        tmp_path,
        "a.h.part",
        "b.h.part",
        "c.h.part",
        "a.h.journal",
        "a.h.out",
        "x.record",
        "x.record.tmp",
        "x.lock",
        "notes.txt",
    )
    work = tmp_path / WORK_DIRECTORY
    (work / "link.part").symlink_to("a.h.part")
    (work / "directory.part").mkdir()
    os.mkfifo(work / "fifo.part")
    os.truncate(work / "b.h.part", 10**9)
    with (work / "b.h.part").open("rb") as held, (work / "c.h.part").open("rb") as young:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.utime(work / "c.h.part")
        listed = prober.list_leftovers(pool, WORK_DIRECTORY, list(leftovers.SUFFIXES), 60)["leftovers"]
        assert young.readable()
    assert {name: entry[2] for name, entry in listed.items()} == {
        "a.h.journal": False,
        "a.h.out": False,
        "a.h.part": False,
        # asking would make a download wait, so a young one counts as held
        "c.h.part": True,
        "x.record": False,
        "x.record.tmp": False,
        "b.h.part": True,
        "x.lock": False,
    }
    state = (work / "a.h.part").stat()
    assert listed["a.h.part"][:2] == (state.st_blocks * 512, state.st_mtime)
    assert listed["b.h.part"][0] < 10**8, "what it takes, not how long it is"


def test_leftovers_are_removed_under_the_lock_of_their_part(tmp_path: pathlib.Path, pool: int) -> None:
    names = make(tmp_path, "a.h.journal", "a.h.out", "a.h.part")
    make(tmp_path, "other.h.part")
    with (tmp_path / WORK_DIRECTORY / "a.h.part").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert sweep(pool, names, "a.h.part") == []
    assert sweep(pool, names, "a.h.part") == names
    assert left(tmp_path) == {"other.h.part"}
    assert sweep(pool, names, "a.h.part") == [], "another agent of a shared pool was faster"
    assert left(tmp_path) == {"other.h.part"}


def test_a_journal_without_part_is_removed_under_the_lock_of_one(tmp_path: pathlib.Path, pool: int) -> None:
    names = make(tmp_path, "a.h.journal")
    assert sweep(pool, names, "a.h.part") == names
    assert left(tmp_path) == set()
    # a download began meanwhile
    make(tmp_path, "a.h.journal", "a.h.part")
    assert sweep(pool, names, "a.h.part") == []
    assert left(tmp_path) == {"a.h.journal", "a.h.part"}


def test_what_changed_since_it_was_listed_stays(tmp_path: pathlib.Path, pool: int) -> None:
    names = make(tmp_path, "a.h.journal", "a.h.part")
    os.utime(tmp_path / WORK_DIRECTORY / "a.h.journal", (NOW, NOW))
    assert sweep(pool, names, "a.h.part") == []
    (record,) = make(tmp_path, "t.record", days=0.5)
    assert sweep(pool, [record], "t.lock") == []
    assert left(tmp_path) == {*names, record}


def test_what_changed_just_before_it_was_locked_stays(
    tmp_path: pathlib.Path, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, flock = make(tmp_path, "a.h.journal", "a.h.part"), fcntl.flock

    def a_download_ends(descriptor: int, operation: int) -> None:
        os.utime(tmp_path / WORK_DIRECTORY / "a.h.journal", (NOW, NOW))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", a_download_ends)
    assert sweep(pool, names, "a.h.part") == []
    assert left(tmp_path) == set(names)


def test_a_record_is_removed_under_the_lock_of_its_template(tmp_path: pathlib.Path, pool: int) -> None:
    names = make(tmp_path, "t.record")
    (lock,) = make(tmp_path, "t.lock")
    assert sweep(pool, names, lock) == [], "a job has it, or had it and died"
    with (tmp_path / WORK_DIRECTORY / lock).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sweep(pool, [lock], lock) == []
    assert sweep(pool, [lock], lock) == [lock]
    assert sweep(pool, names, lock) == names
    assert left(tmp_path) == set()


def test_nothing_outside_of_the_work_directory_is_removed(tmp_path: pathlib.Path, pool: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.h.part").write_bytes(b"x")
    os.utime(outside / "a.h.part", (0, 0))
    (tmp_path / WORK_DIRECTORY).symlink_to("outside")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        prober.sweep(pool, WORK_DIRECTORY, [{"names": ["a.h.part"], "lock": "a.h.part"}], NOW)
    (tmp_path / WORK_DIRECTORY).unlink()
    make(tmp_path)
    (tmp_path / WORK_DIRECTORY / "a.h.part").symlink_to(outside / "a.h.part")
    os.utime(tmp_path / WORK_DIRECTORY / "a.h.part", (0, 0), follow_symlinks=False)
    assert sweep(pool, ["a.h.part"], "a.h.part") == []
    assert (outside / "a.h.part").exists()
    assert left(tmp_path) == {"a.h.part"}


def test_a_download_that_waits_for_the_swept_part_begins_anew(tmp_path: pathlib.Path, pool: int) -> None:
    where = agent_files.make_place(tmp_path, "a", "h")
    names = make(tmp_path, "a.h.journal", "a.h.part")
    opened = os.open(where.part, os.O_RDWR)
    try:
        assert sweep(pool, names, "a.h.part") == names
        with place.Part.acquire(where, Guard.start(threading.Event(), 5)) as part:
            assert os.fstat(part.descriptor).st_size == 0
            assert not os.path.samestat(os.fstat(part.descriptor), os.fstat(opened))
    finally:
        os.close(opened)


def test_a_pool_that_takes_nothing_is_said(tmp_path: pathlib.Path) -> None:
    outcome = agent_files.in_namespace(READ_ONLY, str(tmp_path))
    assert outcome["removed"] == []
    assert "Read-only file system" in outcome["error"]


READ_ONLY = """
import json, os, subprocess, sys
from directdownload.agent.pools import prober

pool = sys.argv[1]
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "disk", pool], check=True)
os.mkdir(os.path.join(pool, ".directdownload"))
open(os.path.join(pool, ".directdownload", "a.h.part"), "w").close()
subprocess.run(["mount", "-o", "remount,ro", pool], check=True)
descriptor = os.open(pool, os.O_PATH)
print(json.dumps(prober.sweep(descriptor, ".directdownload", [{"names": ["a.h.part"], "lock": "a.h.part"}], 1e12)))
"""
