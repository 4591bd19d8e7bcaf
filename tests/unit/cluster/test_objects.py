"""Projections of nodes, pods and jobs, from what a real cluster reports at each stage."""

from datetime import UTC, datetime
from typing import Any

import pytest

from directdownload.cluster import objects

CREATED = "2026-01-02T03:04:05Z"
CREATED_TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def metadata(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7", "creationTimestamp": CREATED, **fields}


def pod(status: dict[str, Any], **spec: Any) -> objects.PodView:
    return objects.project_pod({"metadata": metadata(), "spec": spec, "status": status})


def test_node() -> None:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": CREATED}
    document = {
        "metadata": {"name": "kvm-1", "uid": "u", "resourceVersion": "7", "labels": {"zone": "z"}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, condition]},
    }
    view = objects.project_node(document)
    assert (view.key, view.resource_version, view.labels) == ("kvm-1", 7, {"zone": "z"})
    assert (view.ready, view.ready_since, view.unschedulable) == (True, CREATED_TIME, True)
    condition["status"] = "Unknown"
    assert not objects.project_node(document).ready


def test_objects_that_nobody_has_reported_on_yet() -> None:
    node = objects.project_node({"metadata": metadata()})
    assert (node.ready, node.ready_since, node.unschedulable) == (False, None, False)
    view = objects.project_pod({"metadata": metadata()})
    assert (view.key, view.node, view.phase, view.started, view.waiting_reason) == ("ns/a", "", "", False, "")
    job = objects.project_job({"metadata": metadata()})
    assert (job.succeeded, job.failed, job.active, job.deleting) == (False, False, 0, False)


def test_a_pod_that_is_ready_has_started_though_nobody_reports_its_containers() -> None:
    assert pod({"conditions": [{"type": "Ready", "status": "True"}]}).started
    assert not pod({"conditions": [{"type": "Ready", "status": "False"}]}).started


def test_pod_that_waits() -> None:
    pulling = pod({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]})
    assert (pulling.started, pulling.waiting_reason) == (False, "ImagePullBackOff")
    unplaced = pod({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]})
    assert unplaced.waiting_reason == "Unschedulable"


def test_pod_that_waits_says_why() -> None:
    waiting = {"reason": "ErrImagePull", "message": "no such host"}
    view = pod({"containerStatuses": [{"state": {"waiting": waiting}}]}, nodeName="kvm-1")
    assert (view.waiting_reason, view.waiting_message) == ("ErrImagePull", "no such host")
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    view = pod({"conditions": [scheduled]})
    assert (view.waiting_reason, view.waiting_message, view.prepared) == ("Unschedulable", "0/3 nodes", False)
    long = pod({"containerStatuses": [{"state": {"waiting": {"reason": "X", "message": "x" * 9000}}}]})
    assert len(long.waiting_message) == 1024


@pytest.mark.parametrize(("status", "prepared"), [("True", True), ("False", False), (None, True)])
def test_pod_whose_volumes_and_network_are_there(status: str | None, prepared: bool) -> None:
    condition = {"type": "PodReadyToStartContainers", "status": status}
    assert pod({"conditions": [condition] if status else []}, nodeName="kvm-1").prepared is prepared
    assert not pod({"conditions": [condition]}).prepared


def test_pod_that_runs() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": CREATED}
    status = {"phase": "Running", "conditions": [ready], "containerStatuses": [{"state": {"running": {}}}]}
    view = pod(status, nodeName="kvm-1")
    assert (view.node, view.phase, view.ready, view.started) == ("kvm-1", "Running", True, True)
    assert (view.ready_changed, view.created, view.exit_code) == (CREATED_TIME, CREATED_TIME, None)


def test_pod_that_ended() -> None:
    ended = {"exitCode": 3, "reason": "Error", "message": '{"reason": "Truncated"}'}
    view = pod({"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]})
    assert (view.started, view.exit_code, view.termination_reason) == (True, 3, "Error")
    assert view.termination_message == '{"reason": "Truncated"}'
    killed = pod({"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]})
    assert (killed.exit_code, killed.termination_reason, killed.termination_message) == (137, "OOMKilled", None)


def test_pod_that_the_kubelet_refused_has_the_reason_of_the_pod() -> None:
    view = pod({"phase": "Failed", "reason": "OutOfcpu"})
    assert (view.started, view.termination_reason, view.exit_code) == (False, "OutOfcpu", None)


def test_job() -> None:
    conditions = [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]
    document = {
        "metadata": metadata(deletionTimestamp=CREATED, annotations={"x": "y"}),
        "status": {"active": 1, "conditions": conditions},
    }
    view = objects.project_job(document)
    assert (view.failed, view.failure_reason, view.succeeded) == (True, "DeadlineExceeded", False)
    assert (view.active, view.deleting, view.annotations, view.suspended) == (1, True, {"x": "y"}, None)
    conditions.append({"type": "Suspended", "status": "True", "message": "Job suspended"})
    assert objects.project_job(document).suspended == "Job suspended"
    conditions[1] = {"type": "Suspended", "status": "True"}
    assert objects.project_job(document).suspended == ""
    conditions[1] = {"type": "Suspended", "status": "False", "message": "Job resumed"}
    assert objects.project_job(document).suspended is None
    conditions[0] = {"type": "Complete", "status": "True"}
    assert objects.project_job(document).succeeded


def test_equal_labels_are_one_object_and_read_only() -> None:
    first, second = objects.shared({"a": "1", "b": "2"}), objects.shared({"b": "2", "a": "1"})
    assert first is second
    assert not hasattr(first, "__setitem__")


def test_micro_times() -> None:
    assert objects.parse_time("2026-01-02T03:04:05.123456Z") == CREATED_TIME.replace(microsecond=123456)
    assert objects.parse_time(None) is None


@pytest.mark.parametrize("moment", ["0000-01-01T00:00:00Z", "10000-01-01T22:59:59Z"])
def test_a_time_that_python_has_not_counts_as_not_reported(moment: str) -> None:
    """Whoever may write the status of a Pod or a Node may write it; the API server takes it."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": moment}
    view = pod({"conditions": [ready]})
    assert (view.ready, view.ready_changed) == (True, None)
    node = objects.project_node({"metadata": metadata(), "status": {"conditions": [ready]}})
    assert (node.ready, node.ready_since) == (True, None)
