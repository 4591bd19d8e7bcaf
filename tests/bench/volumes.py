"""The time from the creation of a pod until its container runs: with a template as its volume, and with a hostPath.

On three nodes of the local cluster. The template of 64 MiB is there already, or the host fetches it first.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile
import time

from tests.world import cluster as clusters
from tests.world import origin, volumes
from tests.world.cluster import POOL_ROOT, Cluster, Object
from tests.world.volumes import pod, volume
from tests.world.waiting import until

ROUNDS = 5
HOST = "kvm-1"
_BYTES = 64 << 20


def measure() -> str:
    """A Markdown table: the median and the longest of some rounds of each kind of volume."""
    with Cluster.acquired() as cluster, tempfile.TemporaryDirectory(prefix="bench-volumes-") as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        (directory / "image.raw").write_bytes(os.urandom(_BYTES))
        cluster.install("csi.enabled=true")
        namespace = volumes.namespace()
        # A hostPath is for privileged namespaces only.
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
        cluster.apply(namespace, volumes.zone(keep="0s"), clusters.pool())
        cluster.await_hosts()
        with origin.Origin(directory, cluster.origin_host) as server:
            template = clusters.template("disk", server.url("image.raw"))
            cluster.apply({**template, "metadata": {"name": "disk", "namespace": "vms"}})
            return _measure(cluster)


def _measure(cluster: Cluster) -> str:
    path = {"name": "image", "hostPath": {"path": POOL_ROOT, "type": "Directory"}}
    rows = [_row("hostPath", cluster, path)]
    rows.append(_row("template that is not there: fetched, verified, mounted", cluster, volume("disk"), alone=True))
    cluster.apply(pod("holder", HOST, volume("disk")))
    volumes.await_phase(cluster, "Running", "holder")
    rows.append(_row("template that is there", cluster, volume("disk")))
    volumes.delete(cluster, "holder")
    header = f"| volume of the pod | seconds until it runs, median of {ROUNDS} | longest |"
    return "\n".join((header, "|---|---|---|", *rows))


def _row(name: str, cluster: Cluster, source: Object, *, alone: bool = False) -> str:
    found = sorted(_seconds(cluster, source, alone) for _ in range(ROUNDS))
    return f"| {name} | {statistics.median(found):.1f} | {found[-1]:.1f} |"


def _seconds(cluster: Cluster, source: Object, alone: bool) -> float:
    """`alone`: the copy goes again afterwards."""
    made = pod("timed", HOST, source)
    began = time.monotonic()
    cluster.apply(made)
    until("it to run", lambda: volumes.phase(cluster, "timed") == "Running")
    seconds = time.monotonic() - began
    volumes.delete(cluster, "timed")
    if alone:
        until("the copy to go", lambda: not cluster.placements("disk"))
        until("the demand to go", lambda: not volumes.demands(cluster, HOST))
    with contextlib.suppress(clusters.CommandError):
        cluster.kubectl("delete", "events", "--all", "-n", "vms")
    return seconds
