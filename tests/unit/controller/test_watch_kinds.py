"""Complete lists beside kopf's watches."""

import asyncio
import pathlib
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import Document

from directdownload.cluster import client, kinds
from directdownload.controller import events, settings, watch_kinds
from directdownload.controller.context import Context
from directdownload.controller.queue import WorkQueue
from directdownload.controller.world import World


class Api:
    """Lists one Zone the first time, and nothing from then on."""

    def __init__(self) -> None:
        self.listed = 0

    async def pages(self, resource: kinds.Resource) -> AsyncGenerator[tuple[list[Document], str], None]:
        found: list[Document] = []
        if resource is kinds.ZONES:
            self.listed += 1
            spec: dict[str, Any] = {"nodeSelector": {"matchLabels": {"zone": "1"}}}
            found = [{"metadata": build.metadata("zone-1", resourceVersion="5"), "spec": spec}][self.listed - 1 :]
        yield found, str(10 * self.listed)


async def test_what_vanishes_before_kopf_begins_to_watch_is_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: object) -> None: ...

    assert max(watch_kinds._EARLY_SECONDS) < watch_kinds.RELIST_SECONDS / 10
    monkeypatch.setattr(watch_kinds, "_EARLY_SECONDS", (0.01,))
    told = cast(client.Api, Api())
    around = settings.Settings("operator", "pod", pathlib.Path("job.yaml"), ())
    context = Context(told, World(()), WorkQueue(nothing), around, {}, events.Recorder(told, "pod"))
    vanished = asyncio.Event()
    context.world.zones.subscribe(lambda _key, _old, new: vanished.set() if new is None else None)
    lists = watch_kinds.Lists(told, context)
    running = asyncio.create_task(lists.run())
    await asyncio.wait_for(lists.synced.wait(), 10)
    assert len(context.world.zones) == 1
    await asyncio.wait_for(vanished.wait(), 10)
    assert len(context.world.zones) == 0
    running.cancel()
