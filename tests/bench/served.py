"""For the bench of one file: the images, the servers that have them, and our commands that fetch them."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence

from tests.world import checkout, origin
from tests.world.ganesha import Ganesha

from directdownload.resources import jobs, quantities, zone

FETCH = [checkout.DIRECTDOWNLOAD, "fetch", "--quiet"]
JOB = [checkout.DIRECTDOWNLOAD, "job", "fetch"]
LOCAL = ["--allow-cidr", "127.0.0.0/8"]
_BLOCK = 1 << 20
_REPEATED_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    path: pathlib.Path
    digest: str
    size_bytes: int

    def fetch(self, *arguments: str) -> list[str]:
        """Our command that verifies its bytes; the output file is to follow."""
        return [*FETCH, "--checksum", f"sha256:{self.digest}", *arguments, "-o"]

    def job_environment(self, pool: pathlib.Path, url: str) -> dict[str, str]:
        """What the controller gives the pod of a download into `pool`, as `out`."""
        document = jobs.JobDocument(
            verb=jobs.Verb.FETCH,
            placement="bench",
            placement_uid="bench",
            template_uid="bench",
            host="bench",
            pool=jobs.JobPool(name="bench", path=str(pool), reserve="0"),
            file_name="out",
            url=url,
            checksum=f"sha256:{self.digest}",
            format="RAW",
            policy=zone.SourcePolicy(allowed_cidrs=("127.0.0.0/8",)),
            seal_directory="",
        )
        return {**os.environ, jobs.JOB_ENVIRONMENT_VARIABLE: document.model_dump_json(exclude_defaults=True)}


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """An image and its URLs; `ca` has the certificate of the https server."""

    image: Image
    http: str
    https: str
    ca: str
    nfs: str


@contextlib.contextmanager
def image(directory: pathlib.Path, size_bytes: int) -> Iterator[Served]:
    """Blocks that all differ, by http, https and nfs."""
    path = directory / "image.raw"
    try:
        made = _write(path, size_bytes, _random)
        with origin.Origin(directory) as http, origin.Origin(directory, tls=True) as https, Ganesha(directory) as nfs:
            yield Served(made, http.url(path.name), https.url(path.name), str(https.certificate), nfs.url(path.name))
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def packed(
    directory: pathlib.Path, size_bytes: int, packers: Sequence[Sequence[str]]
) -> Iterator[list[tuple[Image, str]]]:
    """An image that compresses well, packed by each of the commands, and the URL of each."""
    raw = directory / "image.raw"
    paths = [directory / f"image.{number}" for number in range(len(packers))]
    try:
        _write(raw, size_bytes, _compressible)
        for path, packer in zip(paths, packers, strict=True):
            with raw.open("rb") as source, path.open("wb") as file:
                subprocess.run(packer, stdin=source, stdout=file, check=True)
        raw.unlink()
        with origin.Origin(directory) as server:
            yield [(Image(path, _digest(path), path.stat().st_size), server.url(path.name)) for path in paths]
    finally:
        for path in (raw, *paths):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def slowly(directory: pathlib.Path, size_bytes: int) -> Iterator[tuple[Image, str, str]]:
    """An image and its URLs at two nginx, each behind its own link of 100 Mbit/s."""
    path = directory / "image.raw"
    try:
        made = _write(path, size_bytes, _random)
        with _linked(directory, "198.51.100", 1) as one, _linked(directory, "203.0.113", 2) as two:
            yield made, one.url(path.name), two.url(path.name)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _linked(directory: pathlib.Path, network: str, number: int) -> Iterator[origin.Origin]:
    """Run nginx in its own network namespace, behind a link of 100 Mbit/s."""
    name, inner, outer = f"ddbench-{number}", f"ddin{number}", f"ddout{number}"
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
        with origin.Origin(directory, f"{network}.2", port=80, prefix=("ip", "netns", "exec", name)) as server:
            yield server
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", outer], check=False, stderr=subprocess.DEVNULL)


def name_of(size_bytes: int) -> str:
    return quantities.size(size_bytes).replace(".0 ", " ")


def _write(path: pathlib.Path, size_bytes: int, block: Callable[[int], bytes]) -> Image:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size_bytes // _BLOCK):
            content = block(number)
            file.write(content)
            digest.update(content)
    return Image(path, digest.hexdigest(), size_bytes)


def _random(number: int) -> bytes:
    """A block of random bytes, the same in each run."""
    return random.Random(number).randbytes(_BLOCK)


def _compressible(number: int) -> bytes:
    """Random hexadecimal digits, each 32 of them twice."""
    digits = _random(number)[: _BLOCK // 4].hex().encode()
    pieces = (digits[start : start + _REPEATED_BYTES] for start in range(0, len(digits), _REPEATED_BYTES))
    return b"".join(piece * 2 for piece in pieces)


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
