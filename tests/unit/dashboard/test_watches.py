"""What the watches bring into the picture: against an API in memory."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from tests.world import dashboard as fleet
from tests.world.api import Call, FakeApi
from tests.world.kube import Object

from directdownload.cluster import errors, kinds, reflector
from directdownload.dashboard import feeds, watches
from directdownload.dashboard.events import HostEvents
from directdownload.dashboard.feeds import State
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.watches import Watches

FORBIDDEN = errors.Forbidden(403, "Forbidden", "no")


async def until(what: str, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert condition(), what


class Watched(FakeApi):
    """Notes which kinds are watched."""

    def __init__(self) -> None:
        super().__init__(namespace=fleet.NAMESPACE)
        self.watched: list[str] = []

    async def watch(self, resource: kinds.Resource, **options: Any) -> AsyncGenerator[tuple[str, Object], None]:
        self.watched.append(resource.plural)
        async for event in super().watch(resource, **options):
            yield event


class World:
    def __init__(self) -> None:
        self.api = Watched()
        self.picture = Picture()
        for kind, document in (
            *((kinds.ZONES, each) for each in (fleet.zone(), fleet.zone("zone-2"))),
            *((kinds.HOSTS, fleet.host(number)) for number in range(3)),
            (kinds.STORAGE_POOLS, fleet.pool()),
            (kinds.TEMPLATES, fleet.template()),
            *((kinds.TEMPLATE_DEPLOYMENTS, fleet.deployment(namespace=name)) for name in (fleet.NAMESPACE, "others")),
            *((kinds.TEMPLATE_PLACEMENTS, fleet.copy(number)) for number in range(3)),
            (kinds.CERTIFICATES, fleet.certificate()),
        ):
            self.api.put(kind, document)
        self.refused: set[tuple[kinds.Resource, str | None]] = set()
        self.away = False
        self.api.on_call = self._called
        self._task: asyncio.Task[None] | None = None

    def _called(self, call: Call) -> None:
        if self.away:
            raise errors.Unreachable(0, "ConnectionFailed", "away")
        if (call.resource, call.namespace) in self.refused:
            raise FORBIDDEN

    def start(self, namespace: str | None = None) -> Watches:
        found = Watches(self.api, self.picture, namespace, fleet.NAMESPACE)
        self._task = asyncio.create_task(found.run())
        return found

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def settled(self) -> None:
        await until("all kinds", lambda: all(feed.settled for feed in self.picture.all_feeds))


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(watches, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(watches, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(feeds, "OPEN_SECONDS", 0.1)
    monkeypatch.setattr(reflector.Reflector, "_pause", _no_long_pause)
    found = World()
    yield found
    await found.stop()


async def _no_long_pause(self: reflector.Reflector[Any], error: errors.ApiError) -> None:
    self._on_attempt(error)
    await asyncio.sleep(0.02)


async def test_everything_comes_in_by_one_watch_per_kind(world: World) -> None:
    world.start()
    await world.settled()
    assert [len(store) for store in world.picture.stores.values()] == [2, 3, 1, 1, 2, 3, 1]
    assert all(feed.state is State.LIVE for feed in world.picture.all_feeds)
    await until("watches", lambda: len(world.api.watched) >= len(kinds.OURS))
    assert sorted(world.api.watched) == sorted(kind.plural for kind in kinds.OURS)
    assert {call.verb for call in world.api.calls} <= {"get", "list"}


async def test_a_change_comes_in(world: World) -> None:
    world.start()
    await world.settled()
    version = world.picture.version
    world.api.put(kinds.HOSTS, fleet.host(1, "Down"))
    await until("the host", lambda: world.picture.host_states[fleet.ZONE, "Down"] == 1)
    assert world.picture.version > version


async def test_a_forbidden_kind_is_known_as_such_and_the_others_come_in(world: World) -> None:
    world.refused = {(kinds.HOSTS, None), (kinds.TEMPLATE_PLACEMENTS, None)}
    world.start()
    await world.settled()
    assert world.picture.feeds[kinds.HOSTS].state is State.FORBIDDEN
    assert len(world.picture.pools) == 1
    world.refused = set()
    await until("the hosts", lambda: world.picture.feeds[kinds.HOSTS].state is State.LIVE)
    assert len(world.picture.hosts) == 3


async def test_what_may_not_be_read_any_more_is_shown_no_more_until_it_may_again(world: World) -> None:
    world.start()
    await world.settled()
    world.refused = {(kinds.HOSTS, None)}
    for number in (8, 9):
        world.api.put(kinds.HOSTS, fleet.host(number))
    # the watch has missed something: only a new list helps, which is refused
    world.api.forget_history()
    feed = world.picture.feeds[kinds.HOSTS]
    await until("the refusal", lambda: feed.state is State.FORBIDDEN)
    assert (len(world.picture.hosts), feed.known) == (0, False)
    assert not +world.picture.host_states
    world.refused = set()
    await until("the hosts", lambda: feed.state is State.LIVE)
    assert len(world.picture.hosts) == 5


async def test_a_user_of_one_namespace_gets_that_one(world: World) -> None:
    world.refused = {(kind, None) for kind in kinds.OURS}
    world.start()
    await world.settled()
    assert [each.key for each in world.picture.deployments] == [f"{fleet.NAMESPACE}/everywhere"]
    feed = world.picture.feeds[kinds.TEMPLATE_DEPLOYMENTS]
    assert (feed.state, feed.namespace, feed.narrowed) == (State.LIVE, fleet.NAMESPACE, True)
    assert world.picture.feeds[kinds.ZONES].state is State.FORBIDDEN


async def test_a_namespace_that_was_asked_for_is_the_only_one(world: World) -> None:
    world.start("others")
    await world.settled()
    assert [each.key for each in world.picture.deployments] == ["others/everywhere"]
    assert not [call for call in world.api.calls if call.resource.namespaced and call.namespace != "others"]


async def test_an_api_server_that_goes_away_is_noticed_and_its_return_too(world: World) -> None:
    world.start()
    await world.settled()
    before = datetime.datetime.now(datetime.UTC)
    world.away = True
    await until("the loss", lambda: all(feed.state is State.LOST for feed in world.picture.all_feeds))
    since = feeds.lost_since(world.picture.all_feeds)
    assert since is not None
    assert since <= datetime.datetime.now(datetime.UTC)
    assert len(world.picture.hosts) == 3
    world.away = False
    await until("the return", lambda: all(feed.state is State.LIVE for feed in world.picture.all_feeds))
    assert feeds.lost_since(world.picture.all_feeds) is None
    assert min(feed.as_of for feed in world.picture.all_feeds if feed.as_of) > before


async def test_the_first_view_waits_for_no_copies_and_not_for_ever(world: World) -> None:
    world.away = True
    started = world.start()
    await asyncio.wait_for(started.first_view(0.01), 30)
    world.away = False
    await until("the hosts", lambda: len(world.picture.hosts) == 3)


async def test_events_of_a_host_are_asked_for_once_in_a_while(world: World) -> None:
    world.start()
    await world.settled()
    events, name = HostEvents(world.api, world.picture), fleet.host_name(1)
    event = fleet.whole(kinds.CORE_EVENTS, "e", {}, None, "default")
    del event["spec"]
    event |= {"reason": "KeystoreRepaired", "message": "words", "type": "Normal", "count": 2}
    world.api.put(kinds.CORE_EVENTS, event)
    assert events.known(name).pending
    await asyncio.gather(*(events.refresh(name) for _ in range(5)))
    assert [row.reason for row in events.known(name).rows] in ([], ["KeystoreRepaired"])
    assert len([call for call in world.api.calls if call.resource == kinds.CORE_EVENTS]) == 1
    world.refused = {(kinds.CORE_EVENTS, "default")}
    other = fleet.host_name(2)
    await events.refresh(other)
    assert "403" in events.known(other).refusal
    await events.refresh("nobody")
    assert events.known("nobody").pending
