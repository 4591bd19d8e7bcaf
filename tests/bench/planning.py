"""The speed of planning placements and creating their Jobs, and the memory of the controller meanwhile.

500 hosts without kubelets in a zone without limits, a real kube-apiserver with etcd on the same machine.
"""

import datetime
import pathlib

from tests.cluster import harness
from tests.world import kube as api
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds

HOSTS = 500
LIMITS = ("maxParallel", "maxParallelPerHost", "maxParallelPerSource", "maxParallelPerNamespace")


def measure() -> str:
    """A Markdown table."""
    with harness.ControlPlane() as control_plane:
        api.install_definitions(control_plane)
        with Simulation(control_plane, "bench", kubelets=False, forked=False) as world:
            world.create_zone(downloads=dict.fromkeys(LIMITS, 0))
            for number in range(HOSTS):
                world.add_host(f"kvm-{number}")
            controller = world.start_controller()
            world.create_template()
            until("Up hosts", lambda: _up(world) == HOSTS, 120)
            world.deploy()
            until("a Job for each", lambda: len(world.jobs()) == HOSTS, 120)
            until("the counts", lambda: _downloading(world) == HOSTS, 30)
            memory = _peak_bytes(controller.process.pid) / 2**20
            cpu = _cpu_seconds(controller.process.pid)
            seconds = _seconds(world)
    return "\n".join(
        (
            f"| {HOSTS} placements on hosts without kubelets | |",
            "|---|---|",
            f"| from the deployment's creation to the last Job's, seconds | {seconds:.1f} |",
            f"| Jobs created per second | {HOSTS / seconds:.0f} |",
            f"| controller: CPU seconds since its start | {cpu:.1f} |",
            f"| controller: peak resident memory, MiB | {memory:.0f} |",
        )
    )


def _up(world: Simulation) -> int:
    status = world.get(kinds.ZONES, world.zone).get("status", {})
    return int(status.get("hosts", {}).get("up", 0))


def _downloading(world: Simulation) -> int:
    return int(world.deployment().get("status", {}).get("placements", {}).get("downloading", 0))


def _seconds(world: Simulation) -> float:
    """The time between the creation of the deployment and of the last Job, from the audit log."""
    created: dict[str, datetime.datetime] = {}
    for event in harness.read_audit_log(world.control_plane.audit_log):
        resource = event["objectRef"]["resource"]
        if event["verb"] == "create" and resource in ("templatedeployments", "jobs"):
            created[resource] = datetime.datetime.fromisoformat(event["stageTimestamp"])
    return (created["jobs"] - created["templatedeployments"]).total_seconds()


def _peak_bytes(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def _cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
