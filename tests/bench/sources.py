"""`directdownload fetch` against what a user would use instead, and against what the machine can do at best.

Images from nginx and nfs-ganesha on the same machine with a warm page cache, to disk. All ways to an image take turns
(`ways.py`). SOURCES_SIZES (such as `64Mi,1Gi`, multiples of 8 MiB) and SOURCES_ROUNDS make it smaller. Needs root:
ganesha, and links of limited speed.
"""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping

from tests.bench import footprint, served, ways
from tests.bench.served import Served
from tests.bench.ways import Comparison, Table, Way, Work, longer, reference
from tests.cluster import harness

from directdownload.download.transfer.journal import Journal, read_journal
from directdownload.resources import quantities

SIZES = sorted(map(quantities.parse_quantity, os.environ.get("SOURCES_SIZES", "256Mi,1Gi,4Gi").split(",")))
ROUNDS = int(os.environ.get("SOURCES_ROUNDS", "5"))
#: Of the rows that one size is enough for.
MIDDLE = SIZES[len(SIZES) // 2]
SLOW_BYTES = min(192 << 20, SIZES[-1])
#: Below it, the start of the process counts more than the bytes.
_LONG_BYTES = 1 << 30
_ARIA_CONNECTIONS = (1, 4)

_CURL = "`curl -o`"
_SYNC = "`curl -o`, then `sync`"
_NULL = "`curl -o /dev/null`"
_DD = "`dd oflag=direct`"
_BOTH = "both halves at once"


@dataclasses.dataclass(frozen=True, slots=True)
class Packing:
    """A program that packs, the one that unpacks, and the largest image that is not too slow for a bench."""

    name: str
    pack: tuple[str, ...]
    unpack: str
    largest_bytes: int = 1 << 40


PACKINGS = (
    Packing("gz", ("gzip", "-1", "-c"), "gunzip"),
    Packing("xz", ("xz", "-0", "-T1", "-c"), "xz -d", largest_bytes=1 << 30),
    Packing("zst", ("zstd", "-q", "-c"), "zstd -q -d"),
)


def measure() -> str:
    """Markdown tables."""
    if any(size % (8 << 20) for size in SIZES):
        raise ValueError("SOURCES_SIZES: expected multiples of 8Mi, such as 64Mi,1Gi")
    tables: dict[str, list[Table]] = {}
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name:
        root = pathlib.Path(name)
        # servers do not run as root
        root.chmod(0o755)
        directory, work = root / "served", Work(root / "work")
        directory.mkdir()
        work.directory.mkdir()
        for size in SIZES:
            with served.image(directory, size) as source:
                tables[served.name_of(size)] = [_image(source, work)]
                if size == SIZES[-1]:
                    memory = footprint.memory(source, work)
            tables[served.name_of(size)] += _archives(directory, size, work)
        rows = [row for of_size in tables.values() for table in of_size for row in table.rows()]
        rows += _mirrors(directory, work).rows()
    return "\n".join([*ways.header(ROUNDS), *rows, "", *ways.costs(tables), "", *memory, "", *footprint.start(ROUNDS)])


def _image(source: Served, work: Work) -> Table:
    """An image that is stored as it is served."""
    size = source.image.size_bytes
    with _first_half(source, work) as half:
        found: dict[str, Way] = {
            "fetch http": work.to_disk(*source.image.fetch(*served.LOCAL, source.http)),
            _CURL: work.to_disk("curl", "-s", source.http, "-o"),
            _SYNC: work.shell(f"curl -s {source.http} -o out; sync out"),
            _NULL: work.run(["curl", "-s", source.http, "-o", "/dev/null"]),
            _DD: work.shell(f"dd if={source.image.path} of=out bs=4M oflag=direct status=none"),
            "`sha256sum`": work.run(["sha256sum", str(source.image.path)]),
            "`openssl dgst -sha256`": work.run(["openssl", "dgst", "-sha256", str(source.image.path)]),
            "fetch https": work.to_disk(*source.image.fetch(*served.LOCAL, "--ca", source.ca, source.https)),
            "`curl https -o`": work.to_disk("curl", "-s", "--cacert", source.ca, source.https, "-o"),
            "fetch nfs": work.to_disk(*source.image.fetch(source.nfs)),
            "`nfs-cp`": work.to_disk("nfs-cp", source.nfs),
            "fetch of the second half": lambda: _resume(source, work),
            _BOTH: work.shell(_both_halves(source, half)),
            **(_others(source, work) if size == MIDDLE else {}),
        }
        rounds = ways.in_turn(found, ROUNDS)
    return Table(rounds, _comparisons(size))


def _others(source: Served, work: Work) -> Mapping[str, Way]:
    """Ways that are measured at one size only."""
    aria = ["aria2c", "-q", "--allow-overwrite=true", "--file-allocation=falloc", f"--dir={work.directory}"]
    aria += ["--out=out", f"--checksum=sha-256={source.image.digest}", f"--ca-certificate={source.ca}"]
    return {
        "job http": work.run(served.JOB, source.image.job_environment(work.directory, source.http)),
        "`curl -o`, then `sha256sum`": work.shell(f"curl -s {source.http} -o out; sha256sum out"),
        **{
            _aria(scheme, count): work.run([*aria, f"-x{count}", f"-s{count}", url])
            for scheme, url in (("http", source.http), ("https", source.https))
            for count in _ARIA_CONNECTIONS
        },
    }


def _aria(scheme: str, connections: int) -> str:
    return f"`aria2c` {scheme}, {connections} {'connection' if connections == 1 else 'connections'}"


def _comparisons(size: int) -> list[Comparison]:
    name = served.name_of(size)
    bounds = longer(reference(_DD), reference(_NULL))
    found = [
        Comparison(f"http, {name}", "fetch http", reference(_CURL), 1.0),
        Comparison(f"http, {name}", "fetch http", reference(_SYNC)),
        Comparison(f"http, {name}", "fetch http", bounds, 1.25 if size >= _LONG_BYTES else "≤ 1.25 plus the start"),
        Comparison(f"http, {name}", "fetch http", reference("`openssl dgst -sha256`")),
        Comparison(f"https, {name}", "fetch https", reference("`curl https -o`"), 1.1),
        Comparison(f"nfs, {name}", "fetch nfs", longer(reference("`nfs-cp`", 0.6), reference(_DD, 1.1)), 1.0),
        Comparison(f"resume at 50 %, {name}", "fetch of the second half", reference(_BOTH), 1.25),
    ]
    if size == MIDDLE:
        found += [
            Comparison(f"http, {name}", "fetch http", reference("`curl -o`, then `sha256sum`"), 0.35),
            *(
                Comparison(f"{scheme}, {name}", f"fetch {scheme}", reference(_aria(scheme, count)), 0.75)
                for scheme in ("http", "https")
                for count in _ARIA_CONNECTIONS
            ),
            Comparison(f"download job, two processes, {name}", "job http", reference("fetch http"), 1.05),
        ]
    return found


def _archives(directory: pathlib.Path, size: int, work: Work) -> list[Table]:
    """An image that is unpacked while it arrives; `size` is that of the unpacked one."""
    packings = [each for each in PACKINGS if size <= each.largest_bytes]
    found = []
    with served.packed(directory, size, [each.pack for each in packings]) as sources:
        for packing, (archive, url) in zip(packings, sources, strict=True):
            ours, theirs = f"fetch {packing.name}", f"`curl`, `{packing.unpack}`"
            both: dict[str, Way] = {
                ours: work.to_disk(*archive.fetch(*served.LOCAL, "--format", "RAW", url)),
                theirs: work.shell(f"curl -s {url} | {packing.unpack} > out"),
            }
            comparison = Comparison(
                f"{packing.name} image, unpacked, {served.name_of(size)}", ours, reference(theirs), 1.0
            )
            found.append(Table(ways.in_turn(both, ROUNDS), [comparison]))
    return found


def _mirrors(directory: pathlib.Path, work: Work) -> Table:
    """Two mirrors behind links of 100 Mbit/s each, against one of them."""
    with served.slowly(directory, SLOW_BYTES) as (image, one, two):
        found: dict[str, Way] = {
            "fetch from two": work.to_disk(*image.fetch("--mirror", two, one)),
            "fetch from one": work.to_disk(*image.fetch(one)),
        }
        rounds = ways.in_turn(found, ROUNDS)
    what = f"two mirrors of 100 Mbit/s, {served.name_of(SLOW_BYTES)}"
    return Table(rounds, [Comparison(what, "fetch from two", reference("fetch from one"), 0.6)])


@contextlib.contextmanager
def _first_half(source: Served, work: Work) -> Iterator[pathlib.Path]:
    """A copy on disk and not in the page cache, as an interrupted fetch leaves it."""
    path = work.directory / "half"
    count = source.image.size_bytes // 2
    command = ["dd", f"if={source.image.path}", f"of={path}", f"count={count}", "iflag=count_bytes", "bs=4M"]
    subprocess.run([*command, "oflag=direct", "status=none"], check=True)
    try:
        yield path
    finally:
        path.unlink()


def _both_halves(source: Served, half: pathlib.Path) -> str:
    """What a resume cannot do without: read and hash the first half, and at the same time write the second one."""
    skip = source.image.size_bytes // 2
    read = f"dd if={half} bs=4M iflag=direct status=none | openssl dgst -sha256"
    write = f"dd if={source.image.path} of=out bs=4M skip={skip} iflag=skip_bytes oflag=direct status=none"
    return f"{read} & {write}; wait $!"


def _resume(source: Served, work: Work) -> ways.Cost:
    """An attempt that continues at half of the file. The interrupted one before it is not measured."""
    half = source.image.size_bytes // 2
    command = [*source.image.fetch(*served.LOCAL, source.http), str(work.out)]
    kept = work.directory / ".out.journal"
    limited = [*command, "--limit-rate", str(half // 4)]
    with subprocess.Popen(limited, stderr=subprocess.DEVNULL) as process:
        while (journal := read_journal(str(kept))) is None or journal.bytes_on_disk < half:
            if process.poll() is not None:
                raise RuntimeError("the fetch that was to be interrupted has ended")
            time.sleep(0.01)
        process.terminate()
    _trim(kept, half)
    try:
        return ways.timed(command, work.directory)
    finally:
        work.out.unlink(missing_ok=True)


def _trim(kept: pathlib.Path, size: int) -> None:
    """Trim the kept bytes to exactly half, as the interruption came a little later."""
    journal: Journal | None = read_journal(str(kept))
    if journal is None or journal.ranges[0][0] != 0 or journal.ranges[0][1] < size:
        raise RuntimeError("the interrupted fetch has not left its first half")
    journal.model_copy(update={"ranges": ((0, size),), "bytes_on_disk": size}).write(str(kept))
