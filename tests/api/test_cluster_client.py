"""`client.Api` against a real kube-apiserver."""

import base64
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import kubernetes.aio.config.incluster_config
import pytest
import yaml
from tests.cluster import harness
from tests.world.cluster_support import THINGS, proxied, thing

from directdownload.cluster import client, connection, errors, kinds

SERVICE_ACCOUNTS = kinds.Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)


async def token_of(api: client.Api, namespace: str, account: str) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = await api.request(
        "POST", SERVICE_ACCOUNTS, account, namespace=namespace, subresource="token", body=body, verb="create"
    )
    return str(answer["status"]["token"])


async def account_without_rights(api: client.Api, namespace: str) -> str:
    await api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "nobody"}}, namespace=namespace)
    return await token_of(api, namespace, "nobody")


def kubeconfig_with_token_file(source: Path, target: Path, token_file: Path) -> Path:
    document = yaml.safe_load(source.read_text())
    cluster = document["clusters"][0]["cluster"]
    if "certificate-authority" in cluster:
        cluster["certificate-authority"] = str((source.parent / cluster["certificate-authority"]).resolve())
    document["users"][0]["user"] = {"tokenFile": str(token_file)}
    target.write_text(json.dumps(document))
    return target


@pytest.mark.parametrize("spec", [{"unknown": 1}, {"number": "text"}])
async def test_fields_the_schema_refuses_are_permanent(api: client.Api, namespace: str, spec: dict[str, Any]) -> None:
    await api.create(THINGS, thing("t"), namespace=namespace)
    with pytest.raises(errors.Invalid):
        await api.apply(THINGS, thing("t", **spec), manager="m", namespace=namespace)
    with pytest.raises(errors.Invalid):
        await api.create(THINGS, thing("other", **spec), namespace=namespace)
    with pytest.raises(errors.Invalid):
        await api.merge_patch(THINGS, "t", {"spec": spec}, namespace=namespace)


async def test_forbidden(control_plane: harness.ControlPlane, api: client.Api, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(await account_without_rights(api, namespace))
    path = kubeconfig_with_token_file(control_plane.kubeconfig(), tmp_path / "k", tmp_path / "token")
    nobody = await client.Api.connect(kubeconfig=str(path))
    try:
        with pytest.raises(errors.Forbidden, match=f"system:serviceaccount:{namespace}:nobody"):
            await nobody.list(THINGS, namespace=namespace)
    finally:
        await nobody.close()


async def test_refused_credentials_are_loaded_anew(
    control_plane: harness.ControlPlane,
    api: client.Api,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("expired")
    path = kubeconfig_with_token_file(control_plane.kubeconfig(), tmp_path / "k", token_file)
    nobody = await client.Api.connect(kubeconfig=str(path))
    try:
        token_file.write_text(await account_without_rights(api, namespace))
        with pytest.raises(errors.Forbidden) as refused:
            await nobody.list(THINGS, namespace=namespace)
        assert refused.value.status == 401, "loaded a moment ago, so not again"
        monkeypatch.setattr(connection, "_RELOAD_INTERVAL_SECONDS", 0)
        with pytest.raises(errors.Forbidden) as refused:
            await nobody.list(THINGS, namespace=namespace)
        assert refused.value.status == 403, "known now, and has no rights"
    finally:
        await nobody.close()


async def test_in_cluster(
    control_plane: harness.ControlPlane,
    api: client.Api,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = yaml.safe_load(control_plane.kubeconfig().read_text())["clusters"][0]["cluster"]
    if "certificate-authority-data" in cluster:
        authority = base64.b64decode(cluster["certificate-authority-data"])
    else:
        authority = (control_plane.kubeconfig().parent / cluster["certificate-authority"]).read_bytes()
    (tmp_path / "ca.crt").write_bytes(authority)
    (tmp_path / "token").write_text(await account_without_rights(api, namespace))
    (tmp_path / "namespace").write_text(namespace)
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(connection, "_SERVICE_ACCOUNT", tmp_path)
    library = kubernetes.aio.config.incluster_config
    monkeypatch.setattr(library, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(library, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    inside = await client.Api.connect()
    try:
        assert inside.namespace == namespace
        with pytest.raises(errors.Forbidden, match=f"system:serviceaccount:{namespace}:nobody"):
            await inside.list(THINGS, namespace=namespace)
    finally:
        await inside.close()


async def test_every_request_is_counted(control_plane: harness.ControlPlane, namespace: str) -> None:
    calls: list[tuple[str, str, int]] = []
    api = await client.Api.connect(
        kubeconfig=str(control_plane.kubeconfig()), on_request=lambda *call: calls.append(call)
    )
    with contextlib.suppress(errors.NotFound):
        await api.get(THINGS, "absent", namespace=namespace)
    await api.create(THINGS, thing("t"), namespace=namespace)
    await api.apply(THINGS, thing("t", number=1), manager="m", namespace=namespace)
    await api.delete(THINGS, "t", namespace=namespace)
    await api.close()
    expected = [("get", 404), ("create", 201), ("apply", 200), ("delete", 200)]
    assert calls == [(verb, "things", code) for verb, code in expected]


async def test_server_that_falls_silent(control_plane: harness.ControlPlane, namespace: str, tmp_path: Path) -> None:
    async with proxied(control_plane.kubeconfig(), tmp_path) as (proxy, path):
        api = await client.Api.connect(kubeconfig=str(path), request_timeout_seconds=0.5)
        await api.list(THINGS, namespace=namespace)
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(errors.Unreachable, match="Timeout: GET"):
            await api.get(THINGS, "t", namespace=namespace)
        with pytest.raises(errors.Unreachable, match="Timeout: WATCH"):
            async for _ in api.watch(THINGS, resource_version="1", namespace=namespace):
                pass
        assert time.monotonic() - began < 5
        proxy.heal()
        await api.list(THINGS, namespace=namespace)
        await api.close()


async def test_watch_that_falls_silent_or_is_cut(
    control_plane: harness.ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WATCH_SILENCE_SECONDS", 0)
    async with proxied(control_plane.kubeconfig(), tmp_path) as (proxy, path):
        api = await client.Api.connect(kubeconfig=str(path))
        for disturb, reason in ((proxy.stall, "Timeout"), (proxy.cut, "ConnectionFailed")):
            proxy.heal()
            _, version = await api.list(THINGS, namespace=namespace)
            await api.create(THINGS, thing(f"t-{reason.lower()}"), namespace=namespace)
            events = api.watch(THINGS, resource_version=version, namespace=namespace, timeout_seconds=1)
            assert (await anext(events))[0] == "ADDED"
            disturb()
            with pytest.raises(errors.Unreachable, match=reason):
                await anext(events)
        await api.close()


@pytest.mark.parametrize(
    ("text", "stored"),
    [("a\udcff", "a\\xff"), ("\ud83d", "\\ud83d"), ("😀", "😀"), ("\\ud83d\\ude00\x7f\x85\u2028\0", "")],
    ids=["a byte that is no text", "half a character", "beyond U+FFFF", "all else"],
)
async def test_no_character_keeps_an_apply_from_being_written(
    api: client.Api, namespace: str, text: str, stored: str
) -> None:
    """JSON of ASCII writes pairs of surrogates, and the API server reads what is applied as YAML, which has none."""
    applied = await api.apply(THINGS, thing("t", text=text), manager="m", namespace=namespace)
    assert applied["spec"]["text"] == (stored or text)
