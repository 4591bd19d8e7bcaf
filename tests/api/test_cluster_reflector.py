"""`reflector.Reflector` against a real kube-apiserver: the store is what the cluster holds, come what may."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import harness
from tests.world.cluster_support import THINGS, proxied, thing, until

from directdownload.cluster import client, errors, kinds, objects, reflector


@dataclass(frozen=True, slots=True)
class Thing:
    key: str
    resource_version: int
    uid: str
    number: int


def project(document: dict[str, Any]) -> Thing:
    metadata = document["metadata"]
    number = document["spec"].get("number", 0)
    return Thing(objects.key_of(metadata), int(metadata["resourceVersion"]), metadata["uid"], number)


def name_of(key: str) -> str:
    return key.rpartition("/")[2]


class Followed:
    """A running reflector, its store and what it told."""

    def __init__(self, api: client.Api, namespace: str, **options: Any) -> None:
        self.store: reflector.Store[Thing] = reflector.Store()
        self.changes: list[tuple[str, int | None, int | None]] = []
        self.projected: list[int] = []
        self.reflector = reflector.Reflector(
            api, THINGS, self._project, self.store, namespace=namespace, on_change=self._record, **options
        )

    def _project(self, document: dict[str, Any]) -> Thing:
        """Negative numbers cannot be read."""
        item = project(document)
        self.projected.append(item.number)
        if item.number < 0:
            raise ValueError(item.number)
        return item

    def _record(self, key: str, old: Thing | None, new: Thing | None) -> None:
        self.changes.append((name_of(key), old.number if old else None, new.number if new else None))

    def numbers(self) -> dict[str, int]:
        return {name_of(item.key): item.number for item in self.store}


@contextlib.asynccontextmanager
async def following(api: client.Api, namespace: str, **options: Any) -> AsyncIterator[Followed]:
    followed = Followed(api, namespace, **options)
    task = asyncio.create_task(followed.reflector.run())
    try:
        yield followed
        assert not task.done(), "a reflector runs for ever"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def create(api: client.Api, namespace: str, **numbers: int) -> None:
    for name, number in numbers.items():
        await api.create(THINGS, thing(name, number=number), namespace=namespace)


async def test_follows_adds_changes_and_deletes(api: client.Api, namespace: str) -> None:
    await create(api, namespace, a=1)
    async with following(api, namespace) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        assert followed.numbers() == {"a": 1}
        await create(api, namespace, b=1)
        await api.merge_patch(THINGS, "a", {"spec": {"number": 2}}, namespace=namespace)
        await api.delete(THINGS, "b", namespace=namespace)
        await until(lambda: len(followed.changes) == 4)
    assert followed.changes == [("a", None, 1), ("b", None, 1), ("a", 1, 2), ("b", 1, None)]
    assert followed.numbers() == {"a": 2}


async def test_lists_page_by_page(api: client.Api, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(api, namespace, **{f"t{number}": number for number in range(7)})
    pages = 0
    original = client.Api.pages

    async def counted(*arguments: Any, **options: Any) -> AsyncGenerator[tuple[list[Any], str], None]:
        nonlocal pages
        async for page in original(*arguments, **options):
            pages += 1
            yield page

    monkeypatch.setattr(client.Api, "pages", counted)
    async with following(api, namespace, page_size=3) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        assert followed.numbers() == {f"t{number}": number for number in range(7)}
    assert pages == 3


class LateApi(client.Api):
    """Its first watch starts so late that the server no longer knows the version, and `a` is gone meanwhile."""

    late = True

    async def watch(
        self, resource: kinds.Resource, *, resource_version: str, namespace: str | None = None, **options: Any
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        if self.late:
            self.late = False
            await self.delete(resource, "a", namespace=namespace)
            resource_version = "1"
        async for event in super().watch(resource, resource_version=resource_version, namespace=namespace, **options):
            yield event


async def test_reports_what_vanished_before_a_410(
    control_plane: harness.ControlPlane, api: client.Api, namespace: str
) -> None:
    await create(api, namespace, a=1, b=1)
    late = await LateApi.connect(kubeconfig=str(control_plane.kubeconfig()))
    async with following(late, namespace) as followed:
        await until(lambda: ("a", 1, None) in followed.changes)
        assert followed.numbers() == {"b": 1}
        await create(api, namespace, c=1)
        await until(lambda: "c" in followed.numbers())
    await late.close()


async def test_keeps_the_store_while_the_server_is_away(
    control_plane: harness.ControlPlane, api: client.Api, namespace: str, tmp_path: Path
) -> None:
    await create(api, namespace, a=1, b=1)
    async with proxied(control_plane.kubeconfig(), tmp_path) as (proxy, path):
        far = await client.Api.connect(kubeconfig=str(path), request_timeout_seconds=1)
        async with following(far, namespace) as followed:
            await asyncio.wait_for(followed.reflector.synced.wait(), 20)
            listed = followed.reflector.last_relist_monotonic
            proxy.cut()
            await api.delete(THINGS, "a", namespace=namespace)
            with pytest.raises(errors.Unreachable):
                await far.list(THINGS, namespace=namespace)
            assert followed.numbers() == {"a": 1, "b": 1}
            proxy.heal()
            await until(lambda: followed.numbers() == {"b": 1})
            assert followed.reflector.last_relist_monotonic == listed, "the watch went on from where it was"
        await far.close()


async def test_write_through_is_seen_at_once_and_told_once(api: client.Api, namespace: str) -> None:
    async with following(api, namespace) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        written = await api.create(THINGS, thing("a", number=1), namespace=namespace)
        followed.store.observe(project(written))
        assert followed.numbers() == {"a": 1}
        patched = await api.merge_patch(THINGS, "a", {"spec": {"number": 2}}, namespace=namespace)
        await until(lambda: followed.numbers() == {"a": 2})
        followed.store.observe(project(written))
        assert followed.numbers() == {"a": 2}
        await api.delete(THINGS, "a", namespace=namespace)
        await until(lambda: not followed.numbers())
        followed.store.observe(project(patched))
        assert followed.numbers() == {}, "a late write-through does not bring it back"
    assert followed.changes == [("a", None, 1), ("a", 1, 2), ("a", 2, None)]


async def test_lists_again_when_it_is_due(api: client.Api, namespace: str) -> None:
    async with following(api, namespace, relist_seconds=0.1) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        first = followed.reflector.last_relist_monotonic
        await until(lambda: followed.reflector.last_relist_monotonic > first)
        assert time.monotonic() - first < 20


async def test_what_has_not_changed_is_not_projected_again(api: client.Api, namespace: str) -> None:
    await create(api, namespace, a=1, b=2)
    async with following(api, namespace, relist_seconds=0.1) as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        first = followed.reflector.last_relist_monotonic
        await until(lambda: followed.reflector.last_relist_monotonic > first)
        await api.merge_patch(THINGS, "a", {"spec": {"number": 3}}, namespace=namespace)
        await until(lambda: followed.numbers() == {"a": 3, "b": 2})
        assert followed.projected == [1, 2, 3]


async def test_what_cannot_be_read_is_there(api: client.Api, namespace: str) -> None:
    await create(api, namespace, a=1, b=-1)
    async with following(api, namespace, relist_seconds=0.1) as followed:
        unread = followed.store.unreadable
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        assert (followed.numbers(), [name_of(each.key) for each in unread]) == ({"a": 1}, ["b"])
        await api.merge_patch(THINGS, "a", {"spec": {"number": -2}}, namespace=namespace)
        await until(lambda: -2 in followed.projected)
        listed = followed.reflector.last_relist_monotonic
        await until(lambda: followed.reflector.last_relist_monotonic > listed)
        assert (followed.numbers(), len(unread)) == ({}, 2)
        assert followed.projected.count(-2) == 1, "what has not changed is not read again"
        await api.merge_patch(THINGS, "b", {"spec": {"number": 2}}, namespace=namespace)
        await until(lambda: followed.numbers() == {"b": 2})
        await api.delete(THINGS, "a", namespace=namespace)
        await until(lambda: len(unread) == 0)


async def test_label_selector(api: client.Api, namespace: str) -> None:
    def labels(value: str) -> dict[str, Any]:
        return {"metadata": {"labels": {"side": value}}}

    await create(api, namespace, a=1, b=1)
    await api.merge_patch(THINGS, "a", labels("left"), namespace=namespace)
    async with following(api, namespace, label_selector="side=left") as followed:
        await asyncio.wait_for(followed.reflector.synced.wait(), 20)
        assert followed.numbers() == {"a": 1}
        await api.merge_patch(THINGS, "b", labels("left"), namespace=namespace)
        await api.merge_patch(THINGS, "a", labels("right"), namespace=namespace)
        await until(lambda: followed.numbers() == {"b": 1})


async def test_nodes_are_projected_as_the_server_shows_them(api: client.Api) -> None:
    name = f"kvm-{time.monotonic_ns()}"
    body = {"metadata": {"name": name, "labels": {"zone": "z"}}, "spec": {"unschedulable": True}}
    created = await api.create(kinds.NODES, body)
    view = objects.project_node(created)
    await api.delete(kinds.NODES, name)
    assert (view.key, view.uid, view.unschedulable, view.ready) == (name, created["metadata"]["uid"], True, False)
    assert view.labels["zone"] == "z"
