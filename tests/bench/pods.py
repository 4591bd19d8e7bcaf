"""How many pods of Jobs come into being per second: what bounds a rollout to many hosts, whoever serves the bytes.

A real API server and the Job controller of Kubernetes with its default flags. No kubelet runs the pods: hosts start
theirs side by side, and the Job controller makes all of them.
"""

import datetime
import os

from tests.cluster import harness
from tests.world.kube import Kube, Object
from tests.world.waiting import until

from directdownload.cluster.kinds import JOBS, PODS, Resource

JOBS_CREATED = int(os.environ.get("PODS_JOBS", "600"))
_NAMESPACE = "default"


def measure() -> str:
    """A Markdown table."""
    with harness.ControlPlane(controller_manager=True) as plane, Kube(plane.kubeconfig()) as kube:
        for number in range(JOBS_CREATED):
            kube.create(JOBS, _job(number), _NAMESPACE).object()
        jobs = _created(kube, JOBS)
        until("a pod of each Job", lambda: len(_created(kube, PODS)) == JOBS_CREATED, 600, 1)
        pods = _created(kube, PODS)
    # The first pods come from a burst.
    half = JOBS_CREATED // 2
    steady = (JOBS_CREATED - half) / (pods[-1] - pods[half - 1]).total_seconds()
    created = (jobs[-1] - jobs[0]).total_seconds()
    seconds = (pods[-1] - jobs[0]).total_seconds()
    return "\n".join(
        (
            "| Jobs | seconds to create them | seconds until the last pod | pods per second, second half |",
            "|---|---|---|---|",
            f"| {JOBS_CREATED} | {created:.0f} | {seconds:.0f} | {steady:.1f} |",
        )
    )


def _created(kube: Kube, resource: Resource) -> list[datetime.datetime]:
    """When, of all objects of a kind, in order."""
    items = kube.request("GET", resource.path(None, _NAMESPACE)).object()["items"]
    return sorted(datetime.datetime.fromisoformat(item["metadata"]["creationTimestamp"]) for item in items)


def _job(number: int) -> Object:
    container = {"name": "download", "image": "none.example.org/none"}
    spec = {"restartPolicy": "Never", "nodeName": f"kvm-{number}", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"download-{number}", "namespace": _NAMESPACE},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }
