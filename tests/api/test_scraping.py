"""Who may read metrics is the API server's word: real tokens of real service accounts, with the rights of the chart."""

import asyncio
import contextlib
import logging
import pathlib
import uuid
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import yaml
from tests.cluster import harness
from tests.world import kube

from directdownload.cluster import client
from directdownload.observe import scraping
from directdownload.observe.servingcertificate import ServingCertificate

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

RELEASE = "scraped"
SETTINGS = ("--set", "metrics.authentication=true,metrics.podMonitor.enabled=true")
#: what the API server has no definition of here
MONITORS = ("ServiceMonitor", "PodMonitor")


@pytest.fixture(scope="module")
def namespace(control_plane: harness.ControlPlane) -> Iterator[str]:
    """With what the chart installs there, agents with their rights included, and an account of a passer-by."""
    name = f"scraping-{uuid.uuid4().hex[:8]}"
    kube.install_definitions(control_plane)
    control_plane.kubectl("create", "namespace", name, check=True)
    manifests = [each for each in yaml.safe_load_all(kube.rendered(RELEASE, name, *SETTINGS)) if each]
    installed = yaml.safe_dump_all([each for each in manifests if each["kind"] not in MONITORS])
    control_plane.kubectl("apply", "-f", "-", input=installed, check=True)
    control_plane.kubectl("create", "serviceaccount", "passer-by", "-n", name, check=True)
    yield name
    control_plane.kubectl("delete", "-f", "-", "--wait=false", input=installed, check=True)


@pytest.fixture
def agent(control_plane: harness.ControlPlane, namespace: str) -> pathlib.Path:
    """A kubeconfig of the agent's own account."""
    token = control_plane.service_account_token(f"{RELEASE}-direct-download-operator-agent", namespace)
    return control_plane.token_kubeconfig(token, "agent")


@contextlib.asynccontextmanager
async def server(kubeconfig: pathlib.Path) -> AsyncIterator[str]:
    """The URL of the metrics of a process that holds `kubeconfig`."""
    api = await client.Api.connect(kubeconfig=str(kubeconfig))
    try:
        gate = scraping.Gate(scraping.asks(api))
        async with scraping.ScrapeServer(0, gate=gate, certificate=ServingCertificate(None)) as running:
            yield f"https://127.0.0.1:{running.port}/metrics"
    finally:
        await api.close()


async def get(url: str, token: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=False, headers={"Authorization": f"Bearer {token}"}) as answer,
    ):
        return answer.status, await answer.text()


async def test_the_right_to_get_metrics_decides(
    control_plane: harness.ControlPlane, namespace: str, agent: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reader = control_plane.service_account_token(f"{RELEASE}-direct-download-operator-metrics-reader", namespace)
    passer_by = control_plane.service_account_token("passer-by", namespace)
    async with server(agent) as url:
        status, text = await get(url, reader)
        assert (status, "directdownload_build_info" in text) == (200, True)
        assert await get(url, passer_by) == (403, "this user may not get the non-resource URL /metrics")
        for bad in ("nonsense", passer_by[:-5] + "aaaaa", "\x80" * 20):
            assert (await get(url, bad))[0] == 401
    for token in (reader, passer_by):
        assert token not in caplog.text


async def test_a_right_comes_and_goes_with_its_binding(
    control_plane: harness.ControlPlane, namespace: str, agent: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "ALLOWED_SECONDS", 0.0)
    monkeypatch.setattr(scraping, "REFUSED_SECONDS", 0.0)
    control_plane.kubectl("create", "serviceaccount", "guest", "-n", namespace, check=True)
    guest = control_plane.service_account_token("guest", namespace)
    role = f"--clusterrole={RELEASE}-direct-download-operator-metrics-reader"
    binding = f"guest-of-{namespace}"
    async with server(agent) as url:
        assert (await get(url, guest))[0] == 403
        control_plane.kubectl(
            "create", "clusterrolebinding", binding, role, f"--serviceaccount={namespace}:guest", check=True
        )
        await reaches(url, guest, 200)
        control_plane.kubectl("delete", "clusterrolebinding", binding, check=True)
        await reaches(url, guest, 403)
        control_plane.kubectl("delete", "serviceaccount", "guest", "-n", namespace, check=True)
        await reaches(url, guest, 401)


async def reaches(url: str, token: str, status: int) -> None:
    """The API server learns of a binding a moment later."""
    async with asyncio.timeout(20):
        while (await get(url, token))[0] != status:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.02)


async def test_a_token_ends_with_its_account(
    control_plane: harness.ControlPlane, namespace: str, agent: pathlib.Path
) -> None:
    control_plane.kubectl("create", "serviceaccount", "gone", "-n", namespace, check=True)
    token = control_plane.service_account_token("gone", namespace)
    control_plane.kubectl("delete", "serviceaccount", "gone", "-n", namespace, check=True)
    async with server(agent) as url:
        assert (await get(url, token))[0] == 401


async def test_a_process_without_the_right_to_ask_lets_nobody_in(
    control_plane: harness.ControlPlane, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is when authentication is switched on by hand, without the chart's rights."""
    token = control_plane.service_account_token("passer-by", namespace)
    async with server(control_plane.token_kubeconfig(token, "passer-by")) as url:
        assert await get(url, token) == (503, "the API server cannot be asked")
    assert "Cannot ask the API server who may read metrics: Forbidden (403)" in caplog.text
    assert token not in caplog.text
