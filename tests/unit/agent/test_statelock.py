"""One agent at a time works with a state directory, and the others say which."""

import asyncio
import contextlib
import logging
import os
import pathlib
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.world import agent_files, checkout

from directdownload.agent import statelock
from directdownload.agent.settings import Settings
from directdownload.agent.statelock import StateLock

POLL_SECONDS = 0.02


def lock(state: pathlib.Path, pod: str = "agent-1") -> "Counting":
    settings = Settings(
        node_name="kvm-1", pool_roots=(), state_directory=str(state), pod_name=pod, pod_namespace="team-a"
    )
    return Counting(settings, poll_seconds=POLL_SECONDS)


class Counting(StateLock):
    tries = 0

    def _try(self) -> bool:
        self.tries += 1
        return super()._try()


async def until_waiting(waiting: StateLock, words: str) -> None:
    async with asyncio.timeout(10):
        while words not in waiting.problem:  # noqa: ASYNC110 - what people are told is no event
            await asyncio.sleep(0.01)


async def test_the_second_waits_names_the_first_and_goes_on_when_that_has_ended(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = lock(tmp_path), lock(tmp_path, "agent-2")
    with caplog.at_level(logging.INFO):
        await first.acquire()
        assert first.problem == ""
        waiting = asyncio.create_task(second.acquire())
        whom = f"state directory {tmp_path} of this host: pod team-a/agent-1 on node kvm-1, process {os.getpid()};"
        await until_waiting(second, whom)
        while second.tries < 10:  # noqa: ASYNC110 - tries set no event
            await asyncio.sleep(POLL_SECONDS)
        assert not waiting.done()
        first.release()
        await asyncio.wait_for(waiting, 10)
    assert second.problem == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    third = lock(tmp_path, "agent-3")
    waiting = asyncio.create_task(third.acquire())
    await until_waiting(third, "pod team-a/agent-2")
    waiting.cancel()
    await asyncio.wait([waiting])
    second.release()
    await asyncio.wait_for(lock(tmp_path).acquire(), 10)


@contextlib.contextmanager
def holding(state: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock and has a child."""
    program = (
        "import asyncio, subprocess, sys; from tests.unit.agent import test_statelock as t; import pathlib\n"
        "held = t.lock(pathlib.Path(sys.argv[1])); asyncio.run(held.acquire())\n"
        "subprocess.Popen(['sleep', '60']); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=checkout.environment(),
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


async def test_a_process_that_was_killed_holds_nothing_and_its_children_neither(tmp_path: pathlib.Path) -> None:
    with holding(tmp_path) as process:
        second = lock(tmp_path, "agent-2")
        waiting = asyncio.create_task(second.acquire())
        await until_waiting(second, f"process {process.pid}")
        process.kill()
        await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"x" * 100_000, b'{"pod": "p", "unknown": 1}', b'{"pid": "x"}', b"\xff\xfe"],
    ids=["empty", "cut off", "large", "of another version", "no number", "no text"],
)
async def test_a_note_that_cannot_be_read_names_nobody(tmp_path: pathlib.Path, content: bytes) -> None:
    first, second = lock(tmp_path), lock(tmp_path)
    await first.acquire()
    (tmp_path / statelock.FILE_NAME).write_bytes(content)
    waiting = asyncio.create_task(second.acquire())
    await until_waiting(second, "of this host; this agent waits")
    waiting.cancel()
    await asyncio.wait([waiting])
    first.release()


async def test_a_hostile_note_is_shown_escaped_and_bounded(tmp_path: pathlib.Path) -> None:
    first, second = lock(tmp_path), lock(tmp_path)
    await first.acquire()
    note = '{"node": "\\u001b[2J\\n", "pod": "' + "p" * 5000 + '", "namespace": "n", "pid": 1}'
    (tmp_path / statelock.FILE_NAME).write_text(note)
    waiting = asyncio.create_task(second.acquire())
    await until_waiting(second, "\\x1b[2J\\n")
    assert second.problem.isprintable()
    assert len(second.problem) < 1000
    waiting.cancel()
    await asyncio.wait([waiting])
    first.release()


async def test_a_file_that_was_replaced_counts_and_not_the_one_that_was_opened(tmp_path: pathlib.Path) -> None:
    first, second = lock(tmp_path), lock(tmp_path)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await until_waiting(second, "agent-1")
    (tmp_path / statelock.FILE_NAME).unlink()
    await asyncio.wait_for(waiting, 10)
    third = lock(tmp_path)
    waiting = asyncio.create_task(third.acquire())
    await until_waiting(third, "agent-1")
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_only_root_can_open_the_file_and_so_hold_the_lock(tmp_path: pathlib.Path) -> None:
    held = lock(tmp_path)
    await held.acquire()
    assert stat.S_IMODE((tmp_path / statelock.FILE_NAME).stat().st_mode) == 0o600
    held.release()
    assert (tmp_path / statelock.FILE_NAME).read_bytes() == b"", "who has ended is named by nobody"


@pytest.mark.parametrize("what", ["absent directory", "link", "directory", "pipe"])
async def test_where_there_can_be_no_lock_the_agent_works_without(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    path = tmp_path / statelock.FILE_NAME
    if what == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    held = lock(tmp_path / "absent" if what == "absent directory" else tmp_path)
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(held.acquire(), 10)
    held.release()
    assert "running without the lock: make sure that no other agent runs on this host" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


FULL_AND_READ_ONLY = """
import asyncio, json, os, pathlib, subprocess, sys
from tests.unit.agent import test_statelock as t

state = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "state", str(state)], check=True)
(state / "filler").write_bytes(b"x" * 4096)
said = {}

async def second():
    waiting = t.lock(state, "agent-2")
    task = asyncio.create_task(waiting.acquire())
    await t.until_waiting(waiting, "another agent")
    task.cancel()
    await asyncio.wait([task])
    return waiting.problem

async def main():
    for what in ("full", "read-only"):
        first = t.lock(state)
        await first.acquire()
        said[what] = (await second()).partition(" of this host")[2].partition(" this agent")[0]
        first.release()
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)

asyncio.run(main())
print(json.dumps(said))
"""


def test_a_full_or_read_only_disk_can_be_locked_all_the_same(tmp_path: pathlib.Path) -> None:
    assert agent_files.in_namespace(FULL_AND_READ_ONLY, str(tmp_path)) == {"full": ";", "read-only": ";"}
