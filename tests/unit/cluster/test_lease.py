"""`lease.LeaderElection` by a clock that jumps: at most one leads at any moment, and when another may.

That the same works with a real API server, in real time, is shown in tests/api/test_cluster_lease.py.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from tests.world import clock
from tests.world.api import FakeApi
from tests.world.cluster_support import background, lead

from directdownload.cluster import client, errors, kinds, lease
from directdownload.cluster.client import Object
from directdownload.cluster.kinds import Resource

LEASE_SECONDS, DEADLINE_SECONDS, RETRY_SECONDS, TIMEOUT_SECONDS = 15.0, 8.0, 2.0, 3.0
#: Looks are a hundredth of a second apart.
INSTANT_SECONDS = 0.1
NAMESPACE = "direct-download"


class Line(client.Api):
    """One candidate's connection. `silent`: nothing is answered; `away`: refused; each answer takes `seconds`."""

    def __init__(self, server: FakeApi) -> None:
        self._server = server
        self.silent = self.away = self.unwatched = False
        self.seconds = 0.0
        self.writes: list[float] = []

    async def request(
        self,
        method: str,
        resource: Resource,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        **kwargs: Any,
    ) -> Object:
        assert timeout_seconds == TIMEOUT_SECONDS
        if self.silent or self.seconds > timeout_seconds:
            await asyncio.sleep(timeout_seconds)
            raise errors.Unreachable(0, "Timeout", "no answer")
        await asyncio.sleep(self.seconds)
        if self.away:
            raise errors.Unreachable(0, "Unreachable", "refused")
        if method != "GET":
            self.writes.append(now())
        return await self._server.request(method, resource, name, query=query, **kwargs)

    async def watch(self, resource: Resource, **kwargs: Any) -> AsyncGenerator[tuple[str, Object], None]:
        if self.unwatched or self.silent or self.away:
            raise errors.Forbidden(403, "Forbidden", "no watch")
        async for event in self._server.watch(resource, **kwargs):
            if not self.silent:
                yield event


class Scene:
    """Candidates of one Lease, which is looked at every hundredth of a second: two leaders are never seen."""

    def __init__(self) -> None:
        self.server = FakeApi()
        self.elections: list[lease.LeaderElection] = []
        self.most_leaders = 0

    def candidate(self, name: str, **times: float) -> tuple[lease.LeaderElection, Line]:
        line = Line(self.server)
        election = lease.LeaderElection(line, NAMESPACE, "controller", name, clock=now, **times)
        self.elections.append(election)
        return election, line

    @property
    def spec(self) -> Object:
        (found,) = self.server.objects(kinds.LEASES)
        return dict(found["spec"])

    async def look(self) -> None:
        while True:
            self.most_leaders = max(self.most_leaders, sum(election.is_leader for election in self.elections))
            await asyncio.sleep(0.01)


def now() -> float:
    return asyncio.get_running_loop().time()


async def leads(election: lease.LeaderElection) -> float:
    """Waits until it leads; the second when it began to."""
    while not election.is_leader:  # noqa: ASYNC110 - nothing of it is an event
        await asyncio.sleep(0.01)
    return now()


def play(act: Any) -> None:
    """Runs `act(scene)` by the clock that jumps."""

    async def main() -> None:
        scene = Scene()
        async with background(scene.look()):
            await act(scene)
        assert scene.most_leaders == 1

    clock.run(main())


def test_one_of_three_leads_for_as_long_as_it_lives() -> None:
    async def act(scene: Scene) -> None:
        all_three = [scene.candidate(name)[0] for name in "abc"]
        async with background(*map(lead, all_three)):
            await asyncio.sleep(1)
            first = [election.is_leader for election in all_three]
            assert sum(first) == 1
            for _ in range(20):
                await asyncio.sleep(LEASE_SECONDS)
                assert [election.is_leader for election in all_three] == first
        assert scene.spec["leaseTransitions"] == 0
        assert scene.spec["leaseDurationSeconds"] == LEASE_SECONDS

    play(act)


@pytest.mark.parametrize("lived", [1.0, 5.9, 6.1, 47.3])
def test_another_takes_over_from_a_dead_leader_when_the_lease_is_over_and_at_once_then(lived: float) -> None:
    async def act(scene: Scene) -> None:
        (dead, line), (heir, _) = scene.candidate("dead"), scene.candidate("heir")
        async with background(lead(dead)):
            await leads(dead)
            async with background(lead(heir)):
                await asyncio.sleep(lived)
                line.silent = True
                last = line.writes[-1]
                took = await leads(heir)
                assert LEASE_SECONDS <= took - last <= LEASE_SECONDS + INSTANT_SECONDS
                assert scene.spec["leaseTransitions"] == 1

    play(act)


@pytest.mark.parametrize("how", ["released", "deleted"])
def test_a_lease_that_is_free_is_taken_at_once(how: str) -> None:
    """The next try would come up to two seconds later: the watch wakes who waits."""

    async def act(scene: Scene) -> None:
        (first, _), (second, _) = scene.candidate("first"), scene.candidate("second")
        await first.acquire()
        async with background(lead(second)):
            await asyncio.sleep(4.321)
            freed = now()
            if how == "released":
                await first.release()
            else:
                scene.elections.remove(first)
                scene.server.remove(kinds.LEASES, "controller", NAMESPACE)
            assert await leads(second) - freed <= INSTANT_SECONDS

    play(act)


def test_without_the_right_to_watch_the_tries_find_it() -> None:
    async def act(scene: Scene) -> None:
        (first, _), (second, line) = scene.candidate("first"), scene.candidate("second")
        line.unwatched = True
        await first.acquire()
        async with background(lead(second)):
            await asyncio.sleep(4.321)
            freed = now()
            await first.release()
            assert await leads(second) - freed <= 1.2 * RETRY_SECONDS + INSTANT_SECONDS

    play(act)


@pytest.mark.parametrize("silent", [True, False], ids=["never answers", "refuses"])
def test_a_leader_without_api_server_steps_down_long_before_another_takes_over(silent: bool) -> None:
    async def act(scene: Scene) -> None:
        (cut_off, line), (heir, _) = scene.candidate("cut-off"), scene.candidate("heir")
        async with background(lead(cut_off)) as (leading,):
            await leads(cut_off)
            async with background(lead(heir)):
                await asyncio.sleep(11)
                line.silent, line.away = silent, not silent
                last = line.writes[-1]
                await asyncio.wait((leading,))
                assert DEADLINE_SECONDS - INSTANT_SECONDS <= now() - last <= DEADLINE_SECONDS + INSTANT_SECONDS
                assert not cut_off.is_leader
                assert await leads(heir) - last >= LEASE_SECONDS

    play(act)


@pytest.mark.parametrize("tenths", range(0, 21, 3))
def test_an_outage_of_less_than_five_seconds_costs_no_leadership_whenever_it_begins(tenths: int) -> None:
    async def act(scene: Scene) -> None:
        election, line = scene.candidate("a")
        async with background(lead(election)) as (leading,):
            await leads(election)
            await asyncio.sleep(10 + tenths / 10)
            line.away = True
            await asyncio.sleep(4.9)
            line.away = False
            await asyncio.sleep(30)
            assert election.is_leader
            assert not leading.done()

    play(act)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 2.9])
def test_slow_answers_cost_no_leadership(seconds: float) -> None:
    async def act(scene: Scene) -> None:
        election, line = scene.candidate("a")
        line.seconds = seconds
        async with background(lead(election)) as (leading,):
            await leads(election)
            await asyncio.sleep(120)
            assert election.is_leader
            assert not leading.done()
        # Pauses count from the start of a try: slow answers make them no longer.
        pauses = [later - earlier for earlier, later in zip(line.writes[1:], line.writes[2:], strict=False)]
        assert max(pauses) <= max(RETRY_SECONDS, seconds) + INSTANT_SECONDS

    play(act)


def test_hold_returns_with_the_renewal_that_finds_another_holder() -> None:
    async def act(scene: Scene) -> None:
        election, _ = scene.candidate("a")
        async with background(lead(election)) as (leading,):
            await leads(election)
            await asyncio.sleep(11)
            (found,) = scene.server.objects(kinds.LEASES)
            scene.server.put(kinds.LEASES, {**found, "spec": {**found["spec"], "holderIdentity": "b"}})
            robbed = now()
            await asyncio.wait((leading,))
            assert now() - robbed <= RETRY_SECONDS + INSTANT_SECONDS
            assert not election.is_leader

    play(act)


def test_a_machine_that_slept_wakes_up_as_no_leader() -> None:
    async def act(scene: Scene) -> None:
        election, _ = scene.candidate("a")
        async with background(lead(election)):
            await leads(election)
            await asyncio.sleep(11)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, clock.JumpingLoop)
            loop.seconds += DEADLINE_SECONDS
            assert not election.is_leader

    play(act)


def test_a_holder_that_was_started_with_a_longer_lease_keeps_it() -> None:
    async def act(scene: Scene) -> None:
        (dead, line), (heir, _) = scene.candidate("dead", lease_seconds=60.0), scene.candidate("heir")
        await dead.acquire()
        line.silent = True
        last = line.writes[-1]
        async with background(lead(heir)):
            assert 60 <= await leads(heir) - last <= 60 + INSTANT_SECONDS

    play(act)


def test_the_watchdog_fires_before_another_may_lead_and_after_hold_could_return() -> None:
    """The thread waits in real time, and looks at the clock that the test sets."""
    seconds, fired = [0.0], threading.Event()

    async def act() -> lease.LeaderElection:
        times: dict[str, Any] = {"retry_seconds": 0.01, "request_timeout_seconds": TIMEOUT_SECONDS}
        line = Line(FakeApi())
        election = lease.LeaderElection(line, NAMESPACE, "controller", "a", clock=lambda: seconds[0], **times)
        await election.acquire()
        election.start_watchdog(fired.set)
        return election

    clock.run(act())
    for before in (0.0, DEADLINE_SECONDS, 9.7):
        seconds[0] = before
        assert not fired.wait(0.1)
    seconds[0] = 9.8
    assert fired.wait(60)
