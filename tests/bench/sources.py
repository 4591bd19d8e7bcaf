"""`directdownload fetch` against a user's alternatives: curl, aria2c, gunzip, nfs-cp.

One image of 2 GiB from nginx (and nfs-ganesha) on the same machine with a warm page cache, to disk. The ways of a table
take turns, so that other load of the machine affects all of them. Needs root: ganesha, and links of limited speed.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.cluster import harness
from tests.world import checkout, origin
from tests.world.ganesha import Ganesha

from directdownload.resources import jobs, zone

ROUNDS = 5
SIZE_BYTES = 2 << 30
SLOW_BYTES = 192 << 20
_BLOCK = 1 << 20
_FETCH = [checkout.DIRECTDOWNLOAD, "fetch", "--quiet"]
_JOB = [checkout.DIRECTDOWNLOAD, "job", "fetch"]
_LOCAL = ["--allow-cidr", "127.0.0.0/8"]


@dataclasses.dataclass(frozen=True)
class Image:
    path: pathlib.Path
    digest: str

    @property
    def checksum(self) -> list[str]:
        return ["--checksum", f"sha256:{self.digest}"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The measured way, the reference, and the aimed ratio."""

    what: str
    ours: str
    theirs: str
    aim: float


def measure() -> str:
    """Markdown tables."""
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name:
        root = pathlib.Path(name)
        root.chmod(0o755)
        served = root / "served"
        served.mkdir()
        image = _image(served / "image.raw", SIZE_BYTES)
        work = root / "work"
        work.mkdir()
        tables = [_http(served, image, work), _gzip(served, work), _nfs(served, image, work), _mirrors(work)]
        rows = [row for table in tables for row in table]
        header = [
            "| work, median of 5 rounds | seconds | against | seconds | ratio | aim |",
            "|---|---|---|---|---|---|",
        ]
        return "\n".join([*header, *rows, "", *_footprint(served, image, work)])


def _http(served: pathlib.Path, image: Image, work: pathlib.Path) -> list[str]:
    with origin.Origin(served) as plain, origin.Origin(served, tls=True) as tls:
        http, https = plain.url("image.raw"), tls.url("image.raw")
        half = Image(served / "half.raw", _copy_half(image.path, served / "half.raw"))
        aria = ["aria2c", "-q", "--allow-overwrite=true", "--file-allocation=falloc", f"--dir={work}", "--out=out"]
        aria += [f"--checksum=sha-256={image.digest}", f"--ca-certificate={tls.certificate}"]
        ca = ["--ca", str(tls.certificate)]
        ways: dict[str, Callable[[], float]] = {
            "fetch http": _to_disk(work, [*_FETCH, *_LOCAL, *image.checksum, http, "-o"]),
            "job http": _run(work, _JOB, env=_job_environment(work, image, http)),
            "fetch https": _to_disk(work, [*_FETCH, *_LOCAL, *image.checksum, *ca, https, "-o"]),
            "curl http": _to_disk(work, ["curl", "-s", http, "-o"]),
            "curl https": _to_disk(work, ["curl", "-s", "--cacert", str(tls.certificate), https, "-o"]),
            "curl http, then sha256sum": _shell(work, f"curl -s {http} -o out && sha256sum out"),
            **{
                f"aria2c {scheme}, {count} connections": _run(work, [*aria, f"-x{count}", f"-s{count}", url])
                for scheme, url in (("http", http), ("https", https))
                for count in (1, 4)
            },
            "fetch of the second half": lambda: _resume(work, image, http),
            "fetch of a file of that size": _to_disk(
                work, [*_FETCH, *_LOCAL, *half.checksum, plain.url("half.raw"), "-o"]
            ),
        }
        medians = _medians(ways)
    comparisons = [
        Comparison("http", "fetch http", "curl http", 1.0),
        Comparison("http", "fetch http", "curl http, then sha256sum", 0.35),
        *(
            Comparison(scheme, f"fetch {scheme}", f"aria2c {scheme}, {count} connections", 0.75)
            for scheme in ("http", "https")
            for count in (1, 4)
        ),
        Comparison("https", "fetch https", "curl https", 1.25),
        Comparison("download job, two processes", "job http", "fetch http", 1.05),
        Comparison("resume at 50 %", "fetch of the second half", "fetch of a file of that size", 1.3),
    ]
    return [_row(comparison, medians) for comparison in comparisons]


def _gzip(served: pathlib.Path, work: pathlib.Path) -> list[str]:
    raw = _image(work / "raw", SIZE_BYTES, compressible=True)
    archive = served / "image.raw.gz"
    with raw.path.open("rb") as source, gzip.open(archive, "wb", compresslevel=1) as file:
        while block := source.read(_BLOCK):
            file.write(block)
    raw.path.unlink()
    digest = _digest(archive)
    with origin.Origin(served) as server:
        url = server.url(archive.name)
        checksum = ["--checksum", f"sha256:{digest}", "--format", "RAW"]
        ways = {
            "fetch gz": _to_disk(work, [*_FETCH, *_LOCAL, *checksum, url, "-o"]),
            "curl, gunzip": _shell(work, f"curl -s {url} | gunzip > out"),
        }
        medians = _medians(ways)
    archive.unlink()
    return [_row(Comparison("gz image, unpacked", "fetch gz", "curl, gunzip", 1.1), medians)]


def _nfs(served: pathlib.Path, image: Image, work: pathlib.Path) -> list[str]:
    with Ganesha(served) as server:
        url = server.url("image.raw")
        ways = {
            "fetch nfs": _to_disk(work, [*_FETCH, *image.checksum, url, "-o"]),
            "nfs-cp": _to_disk(work, ["nfs-cp", url]),
        }
        medians = _medians(ways)
    return [_row(Comparison("nfs", "fetch nfs", "nfs-cp", 0.6), medians)]


def _mirrors(work: pathlib.Path) -> list[str]:
    """Two mirrors behind links of 100 Mbit/s each, against one of them."""
    served = work / "slow"
    served.mkdir()
    image = _image(served / "image.raw", SLOW_BYTES)
    with _slow_server(served, 1) as one, _slow_server(served, 2) as two:
        ways = {
            "two mirrors": _to_disk(work, [*_FETCH, *image.checksum, "--mirror", two, one, "-o"]),
            "one": _to_disk(work, [*_FETCH, *image.checksum, one, "-o"]),
        }
        medians = _medians(ways)
    what = "two mirrors of 100 Mbit/s (192 MiB)"
    return [_row(Comparison(what, "two mirrors", "one", 0.6), medians)]


def _footprint(served: pathlib.Path, image: Image, work: pathlib.Path) -> list[str]:
    imports = "import directdownload.cli.fetch, directdownload.download.engine, directdownload.download.probe, rich"
    base = _peak_bytes([sys.executable, "-c", imports])
    lines = ["| peak memory of a fetch of 2 GiB, MiB | whole | over the imports | aim |", "|---|---|---|---|"]
    lines.append(f"| the interpreter's own imports | {base >> 20} | | |")
    with origin.Origin(served) as plain, origin.Origin(served, tls=True) as tls, Ganesha(served) as nfs:
        kinds = {
            "http": [*_LOCAL, plain.url("image.raw")],
            "http, 4 connections": [*_LOCAL, "--connections", "4", plain.url("image.raw")],
            "https": [*_LOCAL, "--ca", str(tls.certificate), tls.url("image.raw")],
            "nfs": [nfs.url("image.raw")],
        }
        for kind, arguments in kinds.items():
            peak = _peak_bytes([*_FETCH, *image.checksum, *arguments, "-o", str(work / "out")])
            lines.append(f"| {kind} | {peak >> 20} | {(peak - base) >> 20} | ≤ 64 |")
            (work / "out").unlink()
        peak = _peak_of_both(_JOB, _job_environment(work, image, plain.url("image.raw")))
        lines.append(f"| http, download job, both processes | {peak >> 20} | {(peak - base) >> 20} | ≤ 64 |")
        (work / "out").unlink()
    seconds = statistics.median(_seconds_to_first_byte(work) for _ in range(ROUNDS))
    return [*lines, "", f"From the start of the process to the first byte asked: {seconds:.2f} s (aim: ≤ 0.4 s)."]


def _row(comparison: Comparison, medians: dict[str, float]) -> str:
    ours, theirs = medians[comparison.ours], medians[comparison.theirs]
    return (
        f"| {comparison.what} | {ours:.2f} | {comparison.theirs} | {theirs:.2f} | {ours / theirs:.2f} "
        f"| ≤ {comparison.aim:g} |"
    )


def _medians(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            found[way].append(run())
    return {way: statistics.median(seconds) for way, seconds in found.items()}


def _to_disk(work: pathlib.Path, command: Sequence[str]) -> Callable[[], float]:
    """`command` with a fresh file as its last argument."""
    return _run(work, [*command, str(work / "out")])


def _shell(work: pathlib.Path, script: str) -> Callable[[], float]:
    return _run(work, ["bash", "-o", "pipefail", "-ec", script])


def _job_environment(work: pathlib.Path, image: Image, url: str) -> dict[str, str]:
    """The environment that the controller gives the pod of a download; its pool is the work directory."""
    document = jobs.JobDocument(
        verb=jobs.Verb.FETCH,
        placement="bench",
        placement_uid="bench",
        template_uid="bench",
        host="bench",
        pool=jobs.JobPool(name="bench", path=str(work), reserve="0"),
        file_name="out",
        url=url,
        checksum=f"sha256:{image.digest}",
        format="RAW",
        policy=zone.SourcePolicy(allowed_cidrs=("127.0.0.0/8",)),
        seal_directory="",
    )
    return {**os.environ, jobs.JOB_ENVIRONMENT_VARIABLE: document.model_dump_json(exclude_defaults=True)}


def _run(work: pathlib.Path, command: Sequence[str], env: Mapping[str, str] | None = None) -> Callable[[], float]:
    def run() -> float:
        (work / "out").unlink(missing_ok=True)
        os.sync()
        started = time.monotonic()
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL, timeout=600, env=env)
        seconds = time.monotonic() - started
        (work / "out").unlink()
        return seconds

    return run


def _resume(work: pathlib.Path, image: Image, url: str) -> float:
    """The seconds of an attempt that continues at half of the file."""
    out = work / "out"
    command = [*_FETCH, *_LOCAL, *image.checksum, url, "-o", str(out)]
    part, kept = work / ".out.part", work / ".out.journal"
    with subprocess.Popen([*command, "--limit-rate", "256Mi"]) as process:
        while not (kept.exists() and _on_disk(kept) >= SIZE_BYTES // 2):
            if process.poll() is not None:
                raise RuntimeError("the fetch that was to be interrupted has ended")
            time.sleep(0.01)
        process.terminate()
    if not part.exists():
        raise RuntimeError("the interrupted fetch has left no part")
    _trim(kept, SIZE_BYTES // 2)
    os.sync()
    started = time.monotonic()
    subprocess.run(command, check=True, timeout=600)
    seconds = time.monotonic() - started
    out.unlink()
    return seconds


def _on_disk(kept: pathlib.Path) -> int:
    from directdownload.download.transfer.journal import read_journal

    journal = read_journal(str(kept))
    return journal.bytes_on_disk if journal is not None else 0


def _trim(kept: pathlib.Path, size: int) -> None:
    """Trim the kept bytes to exactly half, as the interruption came a little later."""
    from directdownload.download.transfer.journal import read_journal

    journal = read_journal(str(kept))
    if journal is None or journal.ranges[0][0] != 0 or journal.ranges[0][1] < size:
        raise RuntimeError("the interrupted fetch has not left its first half")
    journal.model_copy(update={"ranges": ((0, size),), "bytes_on_disk": size}).write(str(kept))


def _peak_bytes(command: Sequence[str]) -> int:
    """The kernel's peak of the running process; wait(2) would include the parent's memory from before exec."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status = pathlib.Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.poll() is None:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return peak


def _peak_of_both(command: Sequence[str], env: Mapping[str, str]) -> int:
    """The peak of a process and its child: shared pages count once."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    tree = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            shares = [
                re.search(r"^Pss:\s+(\d+) kB", pathlib.Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
                for each in (str(process.pid), *tree.read_text().split())
            ]
            peak = max(peak, sum(int(share[1]) * 1024 for share in shares if share))
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return peak


def _seconds_to_first_byte(work: pathlib.Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/image"
        started = time.monotonic()
        process = subprocess.Popen([*_FETCH, *_LOCAL, url, "-o", str(work / "none")], stderr=subprocess.DEVNULL)
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            seconds = time.monotonic() - started
            process.terminate()
            process.wait(timeout=20)
    return seconds


@contextlib.contextmanager
def _slow_server(served: pathlib.Path, number: int) -> Iterator[str]:
    """Run nginx in its own network namespace, behind a link of 100 Mbit/s; yield its URL."""
    name, inner, outer = f"ddbench-{number}", f"ddin{number}", f"ddout{number}"
    network = ("198.51.100", "203.0.113")[number - 1]
    commands = [
        f"ip netns add {name}",
        f"ip link add {outer} type veth peer name {inner} netns {name}",
        f"ip addr add {network}.1/24 dev {outer}",
        f"ip link set {outer} up",
        f"ip -n {name} addr add {network}.2/24 dev {inner}",
        f"ip -n {name} link set {inner} up",
        f"ip netns exec {name} tc qdisc add dev {inner} root tbf rate 100mbit burst 256kb latency 100ms",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        with origin.Origin(served, f"{network}.2", port=80, prefix=("ip", "netns", "exec", name)) as server:
            yield server.url("image.raw")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", outer], check=False, stderr=subprocess.DEVNULL)


def _image(path: pathlib.Path, size: int, *, compressible: bool = False) -> Image:
    """An image whose blocks all differ; `compressible` repeats half of each, like images with text and programs."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // _BLOCK):
            seed = hashlib.shake_256(number.to_bytes(8, "big"))
            block = seed.digest(_BLOCK // 2) if compressible else seed.digest(64) * (_BLOCK // 64)
            block = b"".join(block[i : i + 64] * 2 for i in range(0, len(block), 64)) if compressible else block
            file.write(block)
            digest.update(block)
    return Image(path, digest.hexdigest())


def _copy_half(source: pathlib.Path, target: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as whole, target.open("wb") as file:
        for _ in range(SIZE_BYTES // 2 // _BLOCK):
            block = whole.read(_BLOCK)
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
