"""The program in processes that are forked from one that has imported what its commands need.

Controllers and commands import for half a second and more before they do anything, and the tests start hundreds of
them. What runs is the program as its command line starts it: its arguments, its environment, its input and output.
Only the interpreter is not started anew. Benchmarks and tests of the start itself use `subprocess`, and so does all
that `make coverage` measures, which counts on the start and the end of an interpreter.
"""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from unittest import mock

from tests.world import checkout

_CONTEXT = multiprocessing.get_context("forkserver")
_IMPORTED = [
    *("directdownload.controller.main", "directdownload.controller.settings"),
    *(f"directdownload.cli.{name}" for name in ("pods", "template", "deployment", "plan", "fleet", "certificate")),
]
_TIMEOUT_SECONDS = 120
POSSIBLE = "COVERAGE_PROCESS_CONFIG" not in os.environ


class Forked:
    """A running process; what it has works as in `subprocess.Popen`."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        output: pathlib.Path,
        error: pathlib.Path | None = None,
        given: pathlib.Path = pathlib.Path(os.devnull),
    ) -> None:
        """`command`: the path of the program and its arguments; `output`: also of errors, without `error`."""
        files = [given, output, error or output]
        for file in files[1:]:
            file.write_bytes(b"")
        _CONTEXT.set_forkserver_preload(_IMPORTED)
        with mock.patch.dict(os.environ, checkout.environment()):
            forkserver.ensure_running()
        arguments = (list(command), dict(environment), [str(file) for file in files])
        # A daemon: it ends with the tests, however they end.
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[str], environment: Mapping[str, str], input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run`, which captures both streams as text."""
    if not POSSIBLE:
        return subprocess.run(
            command, env=environment, input=input, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    with tempfile.TemporaryDirectory() as name:
        given, output, error = (pathlib.Path(name) / each for each in ("given", "output", "error"))
        given.write_text(input or "")
        process = Forked(command, environment, output=output, error=error, given=given)
        try:
            status = process.wait(_TIMEOUT_SECONDS)
        finally:
            process.kill()
        return subprocess.CompletedProcess(list(command), status, output.read_text(), error.read_text())


def _run(command: list[str], environment: dict[str, str], files: list[str]) -> None:
    for descriptor, (path, mode) in enumerate(zip(files, ("rb", "ab", "ab"), strict=True)):
        with open(path, mode, buffering=0) as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    # for a program that starts again in its own place
    sys.orig_argv = [sys.executable, *command]
    from directdownload.cli.main import main

    main()
