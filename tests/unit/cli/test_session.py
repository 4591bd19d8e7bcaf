"""Between a command and the cluster: an API server that is busy for a while."""

import asyncio
import json
import pathlib

import pytest
from aiohttp import web
from tests.world.api import FakeApi

from directdownload.cli import session
from directdownload.cluster import errors, kinds


async def _served(busy: int, tmp_path: pathlib.Path) -> tuple[list[str], int]:
    """The names of the zones that a server has which first is busy so many times, and how often it was asked."""
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked <= busy:
            status = {"kind": "Status", "reason": "TooManyRequests", "message": "storage is (re)initializing"}
            return web.json_response(status, status=429, headers={"Retry-After": "0"})
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "z"}}]})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "c", "cluster": {"server": f"http://{host}:{port}"}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        async with session.open_session(str(kubeconfig), None, None) as opened:
            documents, _ = await opened.api.list(kinds.ZONES)
        return [document["metadata"]["name"] for document in documents], asked
    finally:
        await runner.cleanup()


def test_a_busy_api_server_is_waited_for(tmp_path: pathlib.Path) -> None:
    assert asyncio.run(_served(2, tmp_path)) == (["z"], 3)


def test_one_that_stays_busy_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.TooManyRequests):
        asyncio.run(_served(100, tmp_path))


class _Patient(session._PatientApi, FakeApi):
    pass


async def test_writes_are_waited_for_too_for_as_long_as_the_server_asks_and_no_longer_than_some_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    api = _Patient()
    # its own way to let others run
    monkeypatch.setattr(asyncio, "sleep", pause)
    api.busy = [1, 300]
    await api.create(kinds.ZONES, {"metadata": {"name": "z"}, "spec": {}})
    assert [seconds for seconds in pauses if seconds] == [1, session._LONGEST_PAUSE_SECONDS]
    assert [item["metadata"]["name"] for item in api.objects(kinds.ZONES)] == ["z"]
