"""A 1 GiB template onto three hosts at once: through the operator, by three `directdownload fetch`, by three `curl -o`.

All on one machine, from one nginx with a warm page cache, with the local cluster of tests/cluster.
"""

import hashlib
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable

from tests.cluster import harness
from tests.world import checkout, origin
from tests.world import cluster as clusters
from tests.world.cluster import Cluster
from tests.world.waiting import until

SIZE_BYTES = 1 << 30
ROUNDS = 3
NAME = "bench"


def measure() -> str:
    """A Markdown table: the median of some rounds, the three ways in turn."""
    with Cluster.acquired() as cluster:
        return _measure(cluster)


def _measure(cluster: Cluster) -> str:
    cluster.install()
    cluster.apply(clusters.zone(), clusters.pool())
    cluster.await_hosts(3)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        checksum = _image(directory / "image.raw")
        with origin.Origin(directory, cluster.origin_host) as server:
            url = server.url("image.raw")
            fetch = [checkout.DIRECTDOWNLOAD, "fetch", "--quiet", url]
            fetch += ["--checksum", checksum, "--format", "RAW", "-o"]
            ways: dict[str, Callable[[], float]] = {
                "operator: `kubectl apply` of the deployment until every placement is Ready": lambda: _deploy(
                    cluster, url, checksum
                ),
                "three `directdownload fetch` with the same checksum at once": lambda: _three(fetch),
                "three `curl -o` at once, nothing verified": lambda: _three(["curl", "-s", url, "-o"]),
            }
            found: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, run in ways.items():
                    found[way].append(run())
    medians = {way: sorted(seconds)[ROUNDS // 2] for way, seconds in found.items()}
    base = list(medians.values())[1]
    rows = [f"| {way} | {median:.1f} | {median / base:.2f} | {median - base:+.1f} |" for way, median in medians.items()]
    header = "| 1 GiB onto three hosts, median of three rounds | seconds | ratio to fetch | difference |"
    return "\n".join((header, "|---|---|---|---|", *rows))


def _image(path: pathlib.Path) -> str:
    block = hashlib.sha256(b"directdownload").digest() * (1 << 15)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(SIZE_BYTES // len(block)):
            varied = number.to_bytes(8, "big") + block[8:]
            file.write(varied)
            digest.update(varied)
    return f"sha256:{digest.hexdigest()}"


def _deploy(cluster: Cluster, url: str, checksum: str) -> float:
    cluster.apply(clusters.template(NAME, url, checksum=checksum))
    until("a ready Template", lambda: "status" in cluster.get("template", NAME, "default"))
    started = time.monotonic()
    cluster.apply(clusters.deployment(NAME))
    cluster.kubectl(*("wait", "--for=condition=Ready", "--timeout=300s", "-n", "default", f"templatedeployment/{NAME}"))
    seconds = time.monotonic() - started
    cluster.kubectl("delete", "templatedeployment,template", NAME, "-n", "default", "--timeout=60s")
    until("the files to go", lambda: not cluster.placements(NAME), 120)
    return seconds


def _three(command: list[str]) -> float:
    """The seconds of three parallel runs of `command`, each with its own file on the hosts' file system as argument."""
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name:
        started = time.monotonic()
        running = [subprocess.Popen([*command, f"{name}/{number}.raw"]) for number in range(3)]
        statuses = [process.wait(timeout=300) for process in running]
        seconds = time.monotonic() - started
    if any(statuses):
        raise clusters.CommandError(f"{command[0]} ended with {statuses}")
    return seconds
