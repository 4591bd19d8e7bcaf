"""Texts of tenants, servers and hosts send no control sequence to the terminal of whoever lists them."""

import json
import os
import pty
import re
import subprocess
import threading
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import certificates, checkout, cli_world
from tests.world.cli_world import Cluster

from directdownload.cluster import kinds

#: A window's title, a colour, C1's way to begin a sequence, a line that overwrites itself, text that reads backwards.
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2Jgone\rover\u202ebackwards\x7f"
#: What a terminal may obey; it turns our own line ends into \r\n.
_OBEYED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]|\r(?!\n)")


@pytest.fixture(scope="module")
def cluster(definitions: harness.ControlPlane) -> Cluster:
    """Every text that somebody else decides is hostile."""
    made = Cluster(definitions)
    conditions = [
        cli_world.condition(kind, "False", "SourceRefused", message=HOSTILE)
        for kind in ("Ready", "Reconciling", "Stalled", "SourceReachable", "KeystoreSynced")
    ]
    spec = {"url": "https://images.example.org/x.qcow2", "format": "QCOW2", "displayText": HOSTILE}
    made.apply(kinds.TEMPLATES, "debian", spec={**spec, "details": {"note": HOSTILE}})
    made.status(kinds.TEMPLATES, "debian", {"conditions": conditions[:1], "etag": HOSTILE})
    reference = {"templateRef": {"name": "debian"}, "zone": made.name}
    made.apply(kinds.TEMPLATE_DEPLOYMENTS, "debian", spec=reference)
    failures = [{"host": "kvm-1", "pool": "local", "reason": "SourceRefused", "message": HOSTILE}]
    made.status(kinds.TEMPLATE_DEPLOYMENTS, "debian", {"conditions": conditions[:3], "failures": failures})
    placement = made.placement("kvm-1")
    progress = {"source": HOSTILE, "percent": 3, "bytesDownloaded": 3, "bytesTotal": 100}
    made.status(
        kinds.TEMPLATE_PLACEMENTS, placement, {"phase": "Failed", "conditions": conditions[:3], "progress": progress}
    )
    host = {"nodeName": made.name, "zone": made.name}
    made.apply(kinds.HOSTS, made.name, spec=host)
    proof = {"name": made.name, "state": "Failed", "reason": "KeystoreUnreadable", "message": HOSTILE}
    status = {"state": "Up", "agentVersion": HOSTILE, "conditions": [conditions[0], conditions[4]]}
    made.status(kinds.HOSTS, made.name, {**status, "certificates": [{**proof, "fingerprintSHA256": ""}]})
    made.apply(kinds.STORAGE_POOLS, made.name, spec={"zone": made.name, "path": "/p"})
    made.status(kinds.STORAGE_POOLS, made.name, {"conditions": conditions[:1]})
    made.status(kinds.ZONES, made.name, {"conditions": conditions[:1]})
    certificate = {"zone": made.name, "alias": "ca", "certificate": certificates.pem()}
    made.apply(kinds.CERTIFICATES, made.name, spec=certificate)
    problem = [{"host": made.name, "reason": "KeystoreUnreadable", "message": HOSTILE}]
    made.status(kinds.CERTIFICATES, made.name, {"conditions": conditions[:3], "failures": problem})
    return made


def on_a_terminal(arguments: list[str]) -> str:
    """What the program sends to a terminal; click takes some sequences out of a pipe by itself."""
    controller, terminal = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        # the terminal's end answers with EIO when the program has closed the other one
        try:
            while part := os.read(controller, 65536):
                parts.append(part)
        except OSError:
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    environment = checkout.environment(TERM="xterm", COLUMNS="200")
    ended = subprocess.run(arguments, stdout=terminal, stderr=terminal, env=environment, timeout=60, check=False)
    os.close(terminal)
    reader.join(timeout=120)
    os.close(controller)
    text = b"".join(parts).decode()
    assert "Traceback" not in text, text
    # 1: what `plan` looks at is blocked
    assert (ended.returncode in (0, 1), "Compare the version" in text) == (True, False), text
    return text


@pytest.mark.parametrize(
    "command",
    [
        "template list",
        "template describe debian",
        "status",
        "status debian",
        "zone list",
        "host list",
        "pool list",
        "pool files {name}",
        "certificate list --hosts",
        "plan debian --zone {name}",
        "template list -o json",
        "template list -o yaml",
        "host list -o json",
        "status debian -o yaml",
    ],
)
def test_nothing_that_is_listed_commands_the_terminal(cluster: Cluster, command: str) -> None:
    text = on_a_terminal(cluster.arguments(*command.format(name=cluster.name).split()))
    assert _OBEYED.findall(text) == [], repr(text)


def test_what_is_hidden_is_shown_and_json_stays_json(cluster: Cluster) -> None:
    assert "\\u001b]0;owned" in cluster.run("status", "debian").stdout
    listed: dict[str, Any] = json.loads(cluster.run("template", "list", "-o", "json").stdout)
    assert [item["spec"]["displayText"] for item in listed["items"]] == [HOSTILE]
