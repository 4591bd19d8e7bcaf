"""The control plane that the other tests of this folder rely on keeps its promises."""

import json
import pathlib
import signal
import subprocess
import sys
import time
import uuid

from tests.cluster import harness
from tests.world import checkout


def _unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def test_namespaces_can_be_created(control_plane: harness.ControlPlane) -> None:
    name = _unique("made")
    control_plane.kubectl("create", "namespace", name, check=True)
    phase = control_plane.kubectl("get", "namespace", name, "-o", "jsonpath={.status.phase}", check=True)
    assert phase.stdout == "Active"


def test_a_user_without_rights_is_refused(control_plane: harness.ControlPlane) -> None:
    nobody = control_plane.kubeconfig("tenant", ("tenants",))
    refused = control_plane.kubectl("create", "namespace", _unique("refused"), kubeconfig=nobody)
    assert refused.returncode != 0
    assert 'User "tenant" cannot create resource "namespaces"' in refused.stderr


def test_a_token_bound_to_a_node_carries_its_name(control_plane: harness.ControlPlane) -> None:
    node, namespace = _unique("kvm"), _unique("agents")
    control_plane.kubectl("create", "namespace", namespace, check=True)
    control_plane.kubectl("create", "serviceaccount", "agent", "-n", namespace, check=True)
    manifest = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    control_plane.kubectl("create", "-f", "-", input=manifest, check=True)
    token = control_plane.service_account_token("agent", namespace, node=node)
    config = control_plane.token_kubeconfig(token, node)
    whoami = json.loads(control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=config, check=True).stdout)
    user = whoami["status"]["userInfo"]
    assert user["username"] == f"system:serviceaccount:{namespace}:agent"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == [node]


def test_the_audit_log_names_who_wrote_a_job(control_plane: harness.ControlPlane) -> None:
    name = _unique("job")
    control_plane.kubectl("create", "job", name, "--image", "localhost/none", check=True)
    control_plane.kubectl("get", "job", name, check=True)
    events = [
        event for event in harness.read_audit_log(control_plane.audit_log) if event["objectRef"].get("name") == name
    ]
    assert [(event["verb"], event["user"]["username"]) for event in events] == [("create", "admin")]


_PROGRAM = """
import os, sys
from tests.cluster import harness
running = harness.ControlPlane().start()
print(*[daemon.process.pid for daemon in running._daemons], flush=True)
sys.stdin.read()
"""


def test_its_processes_end_when_the_tests_are_killed(tmp_path: pathlib.Path) -> None:
    # TMPDIR: the killed process cannot remove its directory, pytest can.
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=harness.CLUSTER_DIRECTORY.parents[1],
        env=checkout.environment(TMPDIR=str(tmp_path)),
    )
    with child:
        assert child.stdout is not None
        pids = [int(pid) for pid in child.stdout.readline().split()]
        assert len(pids) == 2
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
