"""A file on several hosts at once: each host reads the origin, or they serve each other. As root.

Every host has a network namespace and a link of PEERS_RATE (100mbit) in each direction, and so has the origin; on each
run opener, server and download job of the product. PEERS_HOSTS (8) and PEERS_SIZE (128Mi) are options. All hosts share
the cores of this machine, so the rate must be low enough for the links to decide.
"""

import dataclasses
import os
import pathlib
import statistics
import tempfile

from tests.cluster import harness
from tests.world import peernet
from tests.world.peernet import Network, Usage

from directdownload.resources import quantities

HOSTS = int(os.environ.get("PEERS_HOSTS", "8"))
SIZE = quantities.parse_quantity(os.environ.get("PEERS_SIZE", "128Mi"))
RATE = os.environ.get("PEERS_RATE", "100mbit")


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    name: str
    seconds: float
    origin_copies: float
    client: Usage
    server: Usage | None


def measure() -> str:
    """A Markdown table; raises RuntimeError if a job fails or a file is wrong."""
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        with peernet.network(directory, SIZE, hosts=HOSTS, rate=RATE) as network:
            alone = _run(network, "one host alone", shared=False, hosts=1)
            runs = [alone, _run(network, "each from the origin", shared=False), _run(network, "from each other")]
    size = quantities.size(SIZE).replace(".0 ", " ")
    head = f"| {size}, {RATE}, {HOSTS} hosts | seconds until the last | against one alone | copies from the origin "
    head += "| CPU s of a client | most memory of one | CPU s of a server | most memory of one |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *(_row(run, alone.seconds) for run in runs)])


def _row(run: _Run, alone_seconds: float) -> str:
    server = _words(run.server) if run.server is not None else " | "
    return (
        f"| {run.name} | {run.seconds:.1f} | {run.seconds / alone_seconds:.2f} | {run.origin_copies:.2f} "
        f"| {_words(run.client)} | {server} |"
    )


def _words(usage: Usage) -> str:
    return f"{usage.cpu_seconds:.2f} | {usage.most_bytes / 2**20:.0f} MiB"


def _run(network: Network, name: str, *, shared: bool = True, hosts: int | None = None) -> _Run:
    read = network.origin_bytes
    before = {host.name: network.server_usage(host) for host in network.hosts}
    ends = network.fetch(shared=shared, hosts=hosts)
    network.check(ends)
    after = {host.name: network.server_usage(host) for host in network.hosts}
    served = [after[host].cpu_seconds - before[host].cpu_seconds for host in after]
    found = _Run(
        name,
        max(end.seconds for end in ends),
        (network.origin_bytes - read) / SIZE,
        _median([end.usage for end in ends]),
        Usage(statistics.median(served), max(usage.most_bytes for usage in after.values())) if shared else None,
    )
    network.forget()
    return found


def _median(found: list[Usage]) -> Usage:
    """The median of CPU times, and the most memory."""
    return Usage(statistics.median(each.cpu_seconds for each in found), max(each.most_bytes for each in found))
