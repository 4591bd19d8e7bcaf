"""What `directdownload fetch` takes by itself: memory, and the time until it asks for the first byte.

Used by the bench of one file. The imports that take most of that time are those that Python itself measures
(`-X importtime`): it makes imports slower, so their shares count, not their sums.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

from tests.bench import served, ways
from tests.bench.served import Served

_IMPORTS = "import directdownload.cli.fetch, directdownload.download.engine, directdownload.download.probe, rich"
_AIM_MIB = 64
_AIM_SECONDS = 0.13
_COSTLIEST = 10
_LIMIT_SECONDS = 60
_LOG_BYTES = 1 << 20
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)")
#: Packages that belong together; each other one is a family of its own.
_FAMILIES = {
    "email, http, urllib": ("email", "http", "urllib"),
    "pydantic": ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
    "typing, dataclasses, enum": ("typing", "dataclasses", "enum", "inspect", "ast", "dis", "opcode"),
}
_FAMILY = {package: family for family, packages in _FAMILIES.items() for package in packages}


def memory(source: Served, work: ways.Work) -> list[str]:
    """A Markdown table: the peak of each kind of fetch."""
    base = _peak([sys.executable, "-c", _IMPORTS])
    size = served.name_of(source.image.size_bytes)
    lines = [f"| peak memory of a fetch of {size}, MiB | whole | over the imports | aim | |", "|---|---|---|---|---|"]
    lines.append(f"| the interpreter's own imports | {base >> 20} | | | |")
    kinds = {
        "http": (*served.LOCAL, source.http),
        "http, 4 connections": (*served.LOCAL, "--connections", "4", source.http),
        "https": (*served.LOCAL, "--ca", source.ca, source.https),
        "nfs": (source.nfs,),
    }
    peaks = {}
    for kind, arguments in kinds.items():
        peaks[kind] = _peak([*source.image.fetch(*arguments), str(work.out)])
        work.out.unlink()
    environment = source.image.job_environment(work.directory, source.http)
    peaks["http, download job, both processes"] = _peak_of_both(served.JOB, environment)
    work.out.unlink()
    for kind, peak in peaks.items():
        over = (peak - base) >> 20
        lines.append(f"| {kind} | {peak >> 20} | {over} | {' | '.join(ways.verdict(over, _AIM_MIB))} |")
    return lines


def start(rounds: int) -> list[str]:
    """Markdown tables: the seconds until the first byte is asked, and the costliest imports until then."""
    command = [*served.FETCH, *served.LOCAL]
    first, bare = [], []
    for _ in range(rounds):
        first.append(_seconds_to_first_byte(command))
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.monotonic() - began)
    aim = " | ".join(ways.verdict(statistics.median(first), _AIM_SECONDS))
    return [
        f"| start, median of {rounds} rounds | seconds | min to max | aim | |",
        "|---|---|---|---|---|",
        f"| process to the first byte asked | {statistics.median(first):.2f} | {ways.spread(first)} | {aim} |",
        f"| of that, an interpreter that does nothing | {statistics.median(bare):.2f} | {ways.spread(bare)} | | |",
        "",
        *import_rows(
            min((_imports(command) for _ in range(rounds)), key=lambda found: sum(each.own for each in found))
        ),
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class Import:
    """Of one module, in microseconds: `own` is without the modules that it imports, `total` with them."""

    name: str
    depth: int
    own: int
    total: int

    @property
    def family(self) -> str:
        package = self.name.split(".")[0].lstrip("_")
        return _FAMILY.get(package, package)


def parse_imports(text: str) -> list[Import]:
    """The lines of `python -X importtime`: a module comes after those that it imports, which are further indented."""
    return [Import(name, len(indent) // 2, int(own), int(total)) for own, total, indent, name in _LINE.findall(text)]


def import_rows(imports: Sequence[Import]) -> list[str]:
    """A Markdown table of the costliest families, and of all together."""
    own: dict[str, int] = {}
    modules: dict[str, int] = {}
    total: dict[str, int] = {}
    for each in imports:
        own[each.family] = own.get(each.family, 0) + each.own
        modules[each.family] = modules.get(each.family, 0) + 1
    for each in _outermost(imports):
        total[each.family] = total.get(each.family, 0) + each.total
    costliest = sorted(total, key=lambda family: total[family], reverse=True)[:_COSTLIEST]
    return [
        "| imports until then, ms | modules | alone | with all that they import |",
        "|---|---|---|---|",
        *(f"| {each} | {modules[each]} | {own[each] / 1000:.1f} | {total[each] / 1000:.1f} |" for each in costliest),
        f"| all | {len(imports)} | {sum(own.values()) / 1000:.1f} | |",
    ]


def _outermost(imports: Sequence[Import]) -> Iterable[Import]:
    """The modules that no module of their family imports, at any distance: the others are in their totals."""
    above: list[str] = []
    for each in reversed(imports):
        del above[each.depth :]
        if each.family not in above:
            yield each
        above.append(each.family)


def _imports(command: Sequence[str]) -> list[Import]:
    measured = [sys.executable, "-X", "importtime", *command]
    with tempfile.TemporaryFile() as log, _until_asked(measured, log):
        # without a move of the position, which the process shares
        return parse_imports(os.pread(log.fileno(), _LOG_BYTES, 0).decode())


def _seconds_to_first_byte(command: Sequence[str]) -> float:
    with _until_asked(command, subprocess.DEVNULL) as seconds:
        return seconds


@contextlib.contextmanager
def _until_asked(command: Sequence[str], stderr: IO[bytes] | int) -> Iterator[float]:
    """Run `command` with a URL until it has asked for the first byte, and yield the seconds until then."""
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_LIMIT_SECONDS)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/image"
        began = time.monotonic()
        with subprocess.Popen([*command, url, "-o", f"{directory}/out"], stderr=stderr) as process:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1)
                    yield time.monotonic() - began
            finally:
                process.terminate()


def _peak(command: Sequence[str]) -> int:
    """The kernel's peak of the running process; wait(2) would include the parent's memory from before exec."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        status = pathlib.Path(f"/proc/{process.pid}/status")
        peak = 0
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            peak = max(peak, int(found[1]) * 1024 if found else 0)
            time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak


def _peak_of_both(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The peak of a process and its child: shared pages count once."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        peak = 0
        while process.poll() is None:
            with contextlib.suppress(OSError):
                shares = [
                    re.search(r"^Pss:\s+(\d+) kB", pathlib.Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
                    for each in (str(process.pid), *children.read_text().split())
                ]
                peak = max(peak, sum(int(share[1]) * 1024 for share in shares if share))
            time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak
