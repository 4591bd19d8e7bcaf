"""The child that touches a pool: what it reads, and what becomes of it when the pool hangs."""

import asyncio
import json
import os
import pathlib
import signal
from typing import Any

import pytest
from tests.world import agent_files, waiting

from directdownload.agent.pools import book, prober, worker
from directdownload.resources.naming import WORK_DIRECTORY

FACTS = {"work_directory": WORK_DIRECTORY, "record_suffix": ".record"}


async def test_facts_of_a_directory_are_those_of_its_file_system(tmp_path: pathlib.Path) -> None:
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=10)
    answer = await child.ask("facts", **FACTS)
    await child.close()
    state = os.statvfs(tmp_path)
    assert answer["directory"] is True
    assert answer["device"] == os.stat(tmp_path).st_dev
    assert answer["real_path"] == str(tmp_path)
    assert answer["capacity_bytes"] == state.f_blocks * state.f_frsize


async def test_a_stopped_child_is_killed_after_the_time_limit_and_replaced(tmp_path: pathlib.Path) -> None:
    # long enough for a child to start on a busy machine
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=2)
    await asyncio.wait_for(_answers(child), waiting.DEADLINE_SECONDS)
    stopped = child.pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(worker.NoAnswerError, match="no answer within"):
        await child.ask("facts", **FACTS)
    await asyncio.wait_for(_answers(child), waiting.DEADLINE_SECONDS)
    assert child.pid not in (None, stopped)
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)
    await child.close()


async def test_a_child_that_died_is_replaced_and_one_that_was_asked_in_vain_is_not_listened_to(
    tmp_path: pathlib.Path,
) -> None:
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=10)
    await child.ask("facts", **FACTS)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    await asyncio.wait_for(_answers(child), waiting.DEADLINE_SECONDS)
    os.kill(child.pid, signal.SIGSTOP)
    question = asyncio.create_task(child.ask("facts", **FACTS))
    await asyncio.sleep(0)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    await asyncio.wait_for(_answers(child), waiting.DEADLINE_SECONDS)
    assert "files" in await child.ask("files", device=os.stat(tmp_path).st_dev, names=[])
    await child.close()


async def _answers(child: worker.PoolWorker) -> None:
    while True:
        try:
            await child.ask("facts", **FACTS)
        except worker.NoAnswerError:
            await asyncio.sleep(0.02)
        else:
            return


HUNG = """
import asyncio, ctypes, json, os, struct, subprocess, sys, threading, time
from directdownload.agent.pools import worker

# A file system in user space that answers the first request, INIT, and then nothing: whoever looks into it sleeps where
# no signal reaches, as on a network file system whose server went away.
path, question = sys.argv[1], json.loads(sys.argv[2])
device = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
unanswered = threading.Event()

def serve():
    request = os.read(device, 1 << 20)
    (unique,) = struct.unpack_from("<Q", request, 8)
    (major, minor) = struct.unpack_from("<II", request, 40)
    init = struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0)
    os.write(device, struct.pack("<IiQ", 16 + len(init), 0, unique) + init)
    os.read(device, 1 << 20)
    unanswered.set()

async def main():
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
    ticker = asyncio.create_task(tick())
    child = worker.PoolWorker(path, timeout_seconds=30)
    said, children, facts = [], set(), {"work_directory": ".directdownload", "record_suffix": ".record"}
    started = None
    while started is None:
        try:
            started = await child.ask("facts", **facts)
        except worker.NoAnswerError:
            await asyncio.sleep(0.02)
    assert libc.mount(b"hung", path.encode(), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    threading.Thread(target=serve, daemon=True).start()
    # it has started: what it is asked from now on has no answer, however long that is waited for
    child._timeout_seconds = 1
    for _ in range(3):
        try:
            await child.ask(**question)
        except worker.NoAnswerError as error:
            said.append(str(error))
        children |= set(open(f"/proc/self/task/{os.getpid()}/children").read().split())
    status, deadline = "", time.monotonic() + 60
    # killed already, it has to fall asleep again
    while status != "D" and time.monotonic() < deadline:
        status = open(f"/proc/{next(iter(children))}/stat").read().rpartition(")")[2].split()[0]
        await asyncio.sleep(0.01)
    hung_ticks = ticks
    # the server is gone for good: the kernel gives up, and with it the child
    os.close(device)
    child._timeout_seconds = 30
    after = None
    while after is None:
        try:
            after = await child.ask("facts", **facts)
        except worker.NoAnswerError:
            await asyncio.sleep(0.02)
    await child.close()
    ticker.cancel()
    print(json.dumps({"said": said, "children": len(children), "state": status, "ticks": hung_ticks, "after": after,
                      "reached": unanswered.is_set()}))

asyncio.run(main())
"""


QUESTIONS: dict[str, dict[str, Any]] = {
    "facts": FACTS,
    "scan": {"device": 0, "work_directory": WORK_DIRECTORY, "suffixes": [".record"]},
    "files": {"device": 0, "names": ["x"]},
    "leftovers": {"device": 0, "work_directory": WORK_DIRECTORY, "suffixes": [".part"], "idle_seconds": 0},
    "sweep": {"device": 0, "work_directory": WORK_DIRECTORY, "leftovers": [], "before": 0},
}


@pytest.mark.parametrize("operation", QUESTIONS)
def test_a_hung_file_system_freezes_one_child_only_and_no_second_is_sent_after_it(
    tmp_path: pathlib.Path, operation: str
) -> None:
    question = json.dumps({"operation": operation, **QUESTIONS[operation]})
    outcome = agent_files.in_namespace(HUNG, str(tmp_path), question)
    assert outcome["reached"]
    assert outcome["state"] == "D", "the child cannot even be killed"
    assert "no answer within 1 s" in outcome["said"][0]
    assert all("still hangs" in text for text in outcome["said"][1:])
    assert outcome["children"] == 1
    assert outcome["ticks"] > 50, "the agent's loop went on"
    assert outcome["after"]["error_number"] > 0, "once the kernel gives up, the pool is asked again"


async def test_a_scan_tells_changes_once_and_follows_no_link(tmp_path: pathlib.Path) -> None:
    pool, outside = tmp_path / "pool", tmp_path / "outside"
    pool.mkdir()
    outside.mkdir()
    (outside / "x.kvm-1.journal").write_text("secret")
    child = worker.PoolWorker(str(pool), timeout_seconds=10)

    async def scan() -> dict[str, Any]:
        device = os.stat(pool).st_dev
        suffixes = list(book.SUFFIXES)
        return await child.ask("scan", device=device, work_directory=WORK_DIRECTORY, suffixes=suffixes)

    nothing = {"present": [], "changed": {}, "complete": True}
    assert await scan() == nothing
    place = agent_files.make_place(pool, "t1")
    work = pool / WORK_DIRECTORY
    (work / "link.kvm-1.journal").symlink_to(outside / "x.kvm-1.journal")
    (work / "large.kvm-1.journal").write_bytes(b"x" * 100_000)
    os.mkfifo(work / "fifo.record")
    (work / "other").write_text("x")
    os.close(os.open(os.fsencode(work) + b"/\xff.record", os.O_CREAT))
    written = agent_files.write_journal(place, "p", "u", 10)
    first = await scan()
    assert first["changed"].pop("t1.kvm-1.journal") == written.model_dump_json()
    assert set(first["changed"].values()) == {""}
    assert len(first["present"]) == 5
    assert (await scan())["changed"] == {}
    agent_files.write_journal(place, "p", "u", 20)
    assert list((await scan())["changed"]) == ["t1.kvm-1.journal"]
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    work.symlink_to(outside)
    assert await scan() == nothing
    await child.close()


LIMITS = {
    "names": prober.Budget(names=2000),
    "bytes of names": prober.Budget(content_bytes=200_000),
    "bytes of journals and records": prober.Budget(content_bytes=600_000),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_more_than_the_budget_is_refused_and_told_anew_once_it_is_gone(
    tmp_path: pathlib.Path, limit: str
) -> None:
    """2,001 names of 98 bytes are too many by the first and the second, four fat records by the last."""
    agent_files.publish(agent_files.make_place(tmp_path, "t1"), "p1", "u1", b"12345")
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=30)
    work, budget = tmp_path / WORK_DIRECTORY, LIMITS[limit]
    fixed = {"device": os.stat(tmp_path).st_dev, "work_directory": WORK_DIRECTORY, "suffixes": list(book.SUFFIXES)}
    assert list((await child.ask("scan", **fixed, budget=budget))["changed"]) == ["t1.record"]
    added = [work / f"{number:091d}.record" for number in range(4 if "records" in limit else 2000)]
    for path in added:
        # six bytes of JSON for each
        path.write_bytes(b"\0" * 40_000 if "records" in limit else b"")
    with pytest.raises(worker.OverBudgetError, match=f"more than .*{limit}"):
        await child.ask("scan", **fixed, budget=budget)
    if "records" not in limit:
        with pytest.raises(worker.OverBudgetError, match=f"more than .*{limit}"):
            await child.ask("leftovers", **fixed, budget=budget, idle_seconds=0)
    assert (await child.ask("facts", **FACTS))["recorded"], "it still is the pool's own directory"
    for path in added:
        path.unlink()
    assert list((await child.ask("scan", **fixed, budget=budget))["changed"]) == ["t1.record"]
    await child.close()


async def test_what_has_not_changed_counts_as_well(tmp_path: pathlib.Path) -> None:
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=30)
    work = tmp_path / WORK_DIRECTORY
    work.mkdir()
    fixed = {"device": os.stat(tmp_path).st_dev, "work_directory": WORK_DIRECTORY, "suffixes": list(book.SUFFIXES)}
    budget = prober.Budget(content_bytes=100_000)
    for number in range(2):
        (work / f"{number}.record").write_text("x" * 40_000)
        await child.ask("scan", **fixed, budget=budget)
    (work / "2.record").write_text("x" * 40_000)
    with pytest.raises(worker.OverBudgetError, match="more than 100000 bytes of journals and records"):
        await child.ask("scan", **fixed, budget=budget)
    await child.close()


async def test_two_thousand_copies_are_within_the_budget(tmp_path: pathlib.Path) -> None:
    """With names as long as they get, and a part, a journal and a lock of each."""
    known = agent_files.publish(agent_files.make_place(tmp_path, "t1"), "p" * 253, "u" * 36, b"12345", host="h" * 253)
    text = known.model_copy(update={"checksum": f"sha512:{'0' * 128}"}).model_dump_json()
    work = tmp_path / WORK_DIRECTORY
    for number in range(2000):
        stem = work / f"{number:036d}"
        stem.with_suffix(".record").write_text(text)
        for suffix in (".lock", ".kvm-1.part", ".kvm-1.out"):
            stem.with_suffix(suffix).touch()
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=30)
    fixed = {"device": os.stat(tmp_path).st_dev, "work_directory": WORK_DIRECTORY, "suffixes": list(book.SUFFIXES)}
    answer = await child.ask("scan", **fixed)
    assert (len(answer["changed"]), answer["complete"]) == (2001, True)
    await child.close()


async def test_what_lies_on_another_file_system_than_was_judged_is_not_looked_at(tmp_path: pathlib.Path) -> None:
    agent_files.publish(agent_files.make_place(tmp_path, "t1"), "p1", "u1", b"12345")
    child = worker.PoolWorker(str(tmp_path), timeout_seconds=10)
    device = os.stat(tmp_path).st_dev
    scan = {"work_directory": WORK_DIRECTORY, "suffixes": list(book.SUFFIXES)}
    for operation, arguments in (
        ("scan", scan),
        ("files", {"names": ["t1"]}),
        ("leftovers", {**scan, "idle_seconds": 0}),
        ("sweep", {"work_directory": WORK_DIRECTORY, "leftovers": [], "before": 0}),
    ):
        with pytest.raises(worker.NoAnswerError, match="another file system"):
            await child.ask(operation, device=device + 1, **arguments)
    # what was refused does not count as told
    assert list((await child.ask("scan", device=device, **scan))["changed"]) == ["t1.record"]
    await child.close()


def test_a_look_survives_names_that_no_file_system_takes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    names = ["file", "link", "absent", "n" * 300, "nul\0", "\ud800"]
    pool = os.open(tmp_path, os.O_PATH)
    found = prober.look(pool, names)["files"]
    os.close(pool)
    state = (tmp_path / "file").stat()
    assert found == {**dict.fromkeys(names), "file": [5, state.st_mtime_ns, state.st_ino]}
