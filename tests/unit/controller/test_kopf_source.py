"""Complete lists beside kopf's watches."""

import asyncio
import gc
import weakref

import pytest
from tests.unit.controller.scenes import Scene
from tests.unit.planning import build
from tests.world.api import Call

from directdownload.cluster import kinds
from directdownload.controller import kopf_source


async def test_what_vanishes_before_kopf_begins_to_watch_is_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(kopf_source._EARLY_SECONDS) < kopf_source.RELIST_SECONDS / 10
    monkeypatch.setattr(kopf_source, "_EARLY_SECONDS", (0.01,))
    scene = Scene()
    api, context = scene.api, scene.context
    api.put(kinds.ZONES, {"metadata": {"name": "zone-1"}, "spec": {"nodeSelector": {"matchLabels": {"zone": "1"}}}})

    def vanish(call: Call) -> None:
        if call.resource is kinds.ZONES and len(api.called("list", kinds.ZONES)) == 2:
            api.remove(kinds.ZONES, "zone-1")

    api.on_call = vanish
    vanished = asyncio.Event()
    context.world.zones.subscribe(lambda _key, _old, new: vanished.set() if new is None else None)
    lists = kopf_source.Lists(api, context)
    running = asyncio.create_task(lists.run())
    await asyncio.wait_for(lists.synced.wait(), 10)
    assert len(context.world.zones) == 1
    await asyncio.wait_for(vanished.wait(), 10)
    assert len(context.world.zones) == 0
    running.cancel()


async def test_a_restored_etcd_replaces_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf_source, "_EARLY_SECONDS", (0.01,))
    scene = Scene()
    api, context = scene.api, scene.context

    def put(value: str) -> None:
        api.put(
            kinds.ZONES, {"metadata": {"name": "zone-1"}, "spec": {"nodeSelector": {"matchLabels": {"zone": value}}}}
        )

    def restore(call: Call) -> None:
        if call.resource is kinds.ZONES and len(api.called("list", kinds.ZONES)) == 2:
            api._version = 10
            put("earlier")

    put("later")
    api.on_call = restore
    changed = asyncio.Event()
    lists = kopf_source.Lists(api, context)
    running = asyncio.create_task(lists.run())
    await asyncio.wait_for(lists.synced.wait(), 10)
    context.world.zones.subscribe(lambda _key, _old, _new: changed.set())
    await asyncio.wait_for(changed.wait(), 10)
    (zone,) = context.world.zones
    assert zone.spec.node_selector.match_labels == {"zone": "earlier"}
    running.cancel()


async def test_hosts_are_listed_a_hundred_at_a_time() -> None:
    scene = Scene()
    for number in range(250):
        scene.api.put(kinds.HOSTS, build.host_document(f"kvm-{number}"))
    lists = kopf_source.Lists(scene.api, scene.context)
    running = asyncio.create_task(lists.run())
    await asyncio.wait_for(lists.synced.wait(), 10)
    running.cancel()
    assert len(scene.world.hosts) == 250
    assert len(scene.api.called("list", kinds.HOSTS)) == 3


class Entries(list[build.Document]):
    """Such as a Host's certificates; it can be seen to go."""


async def test_nothing_keeps_the_certificates_of_an_event() -> None:
    scene = Scene()
    entries = Entries([{"name": "ca-1", "state": "Uploaded"}])
    document = build.host_document("kvm-1", status={"certificates": entries})
    kept = weakref.ref(entries)
    await kopf_source._handler(kinds.HOSTS, scene.context)(event={"type": "MODIFIED", "object": document})
    del document, entries
    gc.collect()
    (host,) = scene.world.hosts
    assert host.proofs.keys() == {"ca-1"}
    assert kept() is None
