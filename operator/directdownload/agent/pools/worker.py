"""One killable child process per pool, which answers requests within a time limit.

Used by `monitor`. A system call on a hung network file system may never return, and its process may be unkillable. So
every wait for a child is bounded, and a pool gets no second child before the first is gone.
"""

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

from directdownload.agent.pools import prober

#: A scan sends contents within their budget, and each name twice: 8 MiB; the rest is for punctuation.
_ANSWER_LIMIT_BYTES = 10 * 1024 * 1024
_CLOSE_SECONDS = 1


class NoAnswerError(Exception):
    """The pool did not answer in time, or the child process of an earlier request still hangs."""


class OverBudgetError(Exception):
    """The pool answers, but its work directory is over its budget."""


class PoolWorker:
    """Answers requests about the pool at `path`. End it with `close`."""

    def __init__(self, path: str, *, timeout_seconds: float) -> None:
        self.path = path
        self._timeout_seconds = timeout_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._dying: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        """The answer of `operation`, one of `prober.main`. Raises NoAnswerError and OverBudgetError."""
        async with self._turn:
            process = await self._ready()
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    answer = await _exchange(process, {"operation": operation, **arguments})
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                self._discard()
                detail = f"no answer within {self._timeout_seconds:g} s" if isinstance(error, TimeoutError) else error
                raise NoAnswerError(f"{operation} of {self.path}: {detail or type(error).__name__}") from error
            except BaseException:
                # cancelled between request and answer: the next request would read this answer
                self._discard()
                raise
        if "over_budget" in answer:
            raise OverBudgetError(answer["over_budget"])
        if "failed" in answer:
            raise NoAnswerError(f"{operation} of {self.path}: {answer['failed']}")
        return answer

    async def close(self) -> None:
        """Kills the child; does not wait for one that cannot die."""
        self._discard()
        if self._dying is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dying.wait(), _CLOSE_SECONDS)

    async def _ready(self) -> asyncio.subprocess.Process:
        if self._dying is not None:
            if self._dying.returncode is None:
                raise NoAnswerError(f"{self.path}: the child process {self._dying.pid} of the last request still hangs")
            self._dying = None
        if self._process is not None and self._process.returncode is not None:
            self._process = None
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                prober.__name__,
                self.path,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
                # signals of a terminal reach only the parent, which ends its children itself
                start_new_session=True,
            )
        return self._process

    def _discard(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._dying, self._process = self._process, None


async def _exchange(process: asyncio.subprocess.Process, request: dict[str, object]) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the child was started without pipes")
    process.stdin.write(json.dumps(request).encode() + b"\n")
    await process.stdin.drain()
    (length,) = prober.LENGTH.unpack(await process.stdout.readexactly(prober.LENGTH.size))
    if length > _ANSWER_LIMIT_BYTES:
        raise ValueError(f"an answer of {length} bytes")
    answer: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
    return answer
