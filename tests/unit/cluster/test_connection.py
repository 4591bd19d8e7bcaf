"""Configurations that cannot work are refused with what to do, before anything is sent."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.world import checkout

from directdownload.cluster import client, connection, errors, kinds


def kubeconfig(path: Path, user: dict[str, Any], server: str = "https://127.0.0.1:1", namespace: str = "") -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "c",
    }
    path.write_text(json.dumps(document))
    return path


async def connect(path: Path, **options: Any) -> client.Api:
    return await client.Api.connect(kubeconfig=str(path), **options)


async def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"absent cannot be used: no such file; set KUBECONFIG"):
        await connect(tmp_path / "absent")


async def test_unknown_context(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"context 'other' cannot be used"):
        await connect(kubeconfig(tmp_path / "k", {"token": "t"}), context="other")


async def test_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("{")
    with pytest.raises(errors.ConfigurationError):
        await connect(tmp_path / "k")


@pytest.mark.parametrize("user", [{}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}}])
async def test_no_credentials_are_not_silently_anonymous(tmp_path: Path, user: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError, match="no credentials"):
        await connect(kubeconfig(tmp_path / "k", user))


async def test_namespace_of_the_context(tmp_path: Path) -> None:
    for namespace, expected in (("", "default"), ("tenant", "tenant")):
        api = await connect(kubeconfig(tmp_path / "k", {"token": "t"}, namespace=namespace))
        assert api.namespace == expected
        await api.close()


async def test_environment_names_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "absent", kubeconfig(tmp_path / "k", {"token": "t"}, namespace="tenant")
    monkeypatch.setenv("KUBECONFIG", f"{first}{os.pathsep}{second}")
    api = await client.Api.connect()
    assert api.namespace == "tenant"
    await api.close()


async def test_service_account_is_used_where_one_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("system")
    monkeypatch.setattr(connection, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    # the library looks where a pod has it, and this process is not in a pod
    with pytest.raises(errors.ConfigurationError, match=r"the service account in .* cannot be used"):
        await client.Api.connect()
    api = await connect(kubeconfig(tmp_path / "k", {"token": "t"}, namespace="tenant"))
    assert api.namespace == "tenant"
    await api.close()


async def test_nobody_listens(tmp_path: Path) -> None:
    counted: list[tuple[str, str, int]] = []
    api = await connect(kubeconfig(tmp_path / "k", {"token": "t"}), on_request=lambda *call: counted.append(call))
    with pytest.raises(errors.Unreachable, match="ConnectionFailed: GET /api/v1/nodes/a"):
        await api.get(kinds.NODES, "a")
    assert counted == [("get", "nodes", 0)]
    await api.close()


async def test_earlier_credentials_are_dropped_once_no_watch_can_run_over_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller whose token is renewed each hour must not grow by a client each time."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    link = await connection.Connection.open(str(kubeconfig(tmp_path / "k", {"token": "t"})), None, "test")
    connectors = []
    for _ in range(5):
        connectors.append(link._connector)
        now += 300
        assert await link.reload(link.generation)
    closed = [each.closed for each in connectors if each is not None]
    assert closed == [True, True, True, False, False]
    assert len(link._retired) == 2
    await link.close()
    assert all(each.closed for each in connectors if each is not None)


_WRITER = """
import asyncio, sys
from directdownload.cluster import client, kinds

async def main():
    api = await client.Api.connect(kubeconfig=sys.argv[1])
    await api.create(kinds.NODES, {"metadata": {"name": "a"}, "large": "x" * (64 << 20)})

asyncio.run(main())
"""


def test_what_a_process_has_not_delivered_when_it_ends_is_never_delivered(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", _WRITER, str(kubeconfig(tmp_path / "k", {"token": "t"}, address))]
        with subprocess.Popen(command, env=checkout.environment()) as process:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(20)
                assert peer.recv(100).startswith(b"POST /api/v1/nodes")
                # It has written all that the kernel takes, and waits for a peer that reads no more.
                _until_full(process.pid)
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=120)
                with pytest.raises(ConnectionResetError):
                    _read_to_the_end(peer)


def _read_to_the_end(peer: socket.socket) -> None:
    while peer.recv(1 << 20):
        pass


def _until_full(pid: int) -> None:
    """Until two looks in a row find the same number of bytes on their way from the process."""
    before, now = -1, 0
    while before != now or not now:
        time.sleep(0.1)
        before, now = now, sum(_queued(pid))


def _queued(pid: int) -> Iterator[int]:
    inodes = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[9]}]" in inodes:
            yield int(fields[4].partition(":")[0], 16)
