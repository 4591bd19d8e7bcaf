"""`lease.LeaderElection` against a real kube-apiserver: at most one leads, and someone soon does."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import weather
from tests.world.cluster_support import proxied, until

from directdownload.cluster import client, kinds, lease

LEASE_SECONDS = 6.0
DEADLINE_SECONDS = 3.0
TIMES = {
    "lease_seconds": LEASE_SECONDS,
    "renew_deadline_seconds": DEADLINE_SECONDS,
    "retry_seconds": 0.6,
    "request_timeout_seconds": 1.2,
}


def candidate(api: client.Api, namespace: str, name: str) -> lease.LeaderElection:
    return lease.LeaderElection(api, namespace, "controller", lease.new_identity(name), **TIMES)


async def spec_of(api: client.Api, namespace: str) -> dict[str, Any]:
    spec: dict[str, Any] = (await api.get(kinds.LEASES, "controller", namespace=namespace))["spec"]
    return spec


@contextlib.asynccontextmanager
async def background(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def lead(election: lease.LeaderElection) -> None:
    await election.acquire()
    await election.hold()


async def test_one_of_two_leads_for_longer_than_the_lease_lasts(api: client.Api, namespace: str) -> None:
    both = [candidate(api, namespace, "a"), candidate(api, namespace, "b")]
    async with background(*map(lead, both)):
        await until(lambda: any(election.is_leader for election in both))
        first = [election.is_leader for election in both]
        end = time.monotonic() + 1.5 * LEASE_SECONDS
        while time.monotonic() < end:
            assert [election.is_leader for election in both] == first
            await asyncio.sleep(0.01)
        assert sum(first) == 1
    spec = await spec_of(api, namespace)
    assert spec["holderIdentity"].startswith("ab"[first.index(True)] + "_")
    assert (spec["leaseTransitions"], spec["leaseDurationSeconds"]) == (0, 6)


async def test_takes_over_from_a_dead_leader_only_after_the_lease(api: client.Api, namespace: str) -> None:
    dead, heir = candidate(api, namespace, "dead"), candidate(api, namespace, "heir")
    async with background(lead(dead)):
        await until(lambda: dead.is_leader)
    died = time.monotonic()
    async with background(lead(heir)):
        await until(lambda: heir.is_leader)
        # the last renewal lies at most one interval before the death
        assert time.monotonic() - died > LEASE_SECONDS - 2 * TIMES["retry_seconds"]
        assert not dead.is_leader
        assert (await spec_of(api, namespace))["leaseTransitions"] == 1


async def test_takes_over_at_once_after_a_release(api: client.Api, namespace: str) -> None:
    first, second = candidate(api, namespace, "first"), candidate(api, namespace, "second")
    async with background(lead(first), lead(second)) as (leading, _):
        await until(lambda: first.is_leader or second.is_leader)
        if second.is_leader:
            first, second, leading = second, first, _
        leading.cancel()
        await asyncio.wait([leading])
        released = time.monotonic()
        await first.release()
        assert not first.is_leader
        await until(lambda: second.is_leader)
        assert time.monotonic() - released < DEADLINE_SECONDS


@pytest.mark.parametrize("how", ["released", "deleted"])
async def test_who_waits_sees_at_once_that_the_lease_is_free(api: client.Api, namespace: str, how: str) -> None:
    # Tries so rare that without the watch it would be seen after 16 s at the earliest.
    times = {"lease_seconds": 60.0, "renew_deadline_seconds": 40.0, "retry_seconds": 20.0}
    first, second = (lease.LeaderElection(api, namespace, "controller", name, **times) for name in ("first", "second"))
    await first.acquire()
    async with background(second.acquire()) as (waiting,):
        await until(lambda: second.is_candidate)
        # Its first try is over, and the next one is some time away.
        await asyncio.sleep(0.3)
        freed = time.monotonic()
        if how == "released":
            await first.release()
        else:
            await api.delete(kinds.LEASES, "controller", namespace=namespace)
        await until(waiting.done)
        assert time.monotonic() - freed < 5
        assert second.is_leader


async def test_a_lease_is_taken_as_soon_as_its_time_is_over(api: client.Api, namespace: str) -> None:
    # Tries so rare that only the watch can tell when the last renewal was, and only the clock when it is over.
    times = {"lease_seconds": 5.0, "renew_deadline_seconds": 4.5, "retry_seconds": 3.6, "request_timeout_seconds": 0.6}
    dead, heir = (lease.LeaderElection(api, namespace, "controller", name, **times) for name in ("dead", "heir"))
    await dead.acquire()
    acquired = time.monotonic()
    async with background(heir.acquire()) as (waiting,):
        # One renewal, 3.6 s after the Lease was taken.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4.4):
                await dead.hold()
        await until(waiting.done)
        assert 4.8 < time.monotonic() - acquired - 3.6 < 6.5


async def test_without_the_right_to_watch_it_works_all_the_same(
    control_plane: harness.ControlPlane, api: client.Api, namespace: str, tmp_path: Path
) -> None:
    with (
        weather.Proxy(control_plane.kubeconfig(), tmp_path) as proxy,
        proxy.fault(weather.refusal(403, "Forbidden"), weather.watches),
    ):
        far = await client.Api.connect(kubeconfig=str(proxy.kubeconfig))
        first, second = candidate(api, namespace, "first"), candidate(far, namespace, "second")
        await first.acquire()
        async with background(second.acquire()) as (waiting,):
            await until(lambda: second.is_candidate)
            await first.release()
            await until(waiting.done)
            assert second.is_leader
            assert proxy.calls
        await far.close()


async def test_release_leaves_the_lease_of_another_alone(api: client.Api, namespace: str) -> None:
    first, second = candidate(api, namespace, "first"), candidate(api, namespace, "second")
    await first.acquire()
    await first.release()
    async with background(lead(second)):
        await until(lambda: second.is_leader)
        await first.release()
        assert (await spec_of(api, namespace))["holderIdentity"].startswith("second_")


async def test_leader_whose_server_falls_silent_steps_down_before_another_takes_over(
    control_plane: harness.ControlPlane, api: client.Api, namespace: str, tmp_path: Path
) -> None:
    async with proxied(control_plane.kubeconfig(), tmp_path) as (proxy, path):
        far = await client.Api.connect(kubeconfig=str(path))
        cut_off, heir = candidate(far, namespace, "cut-off"), candidate(api, namespace, "heir")
        ended: dict[str, float] = {}

        async def lead_and_note() -> None:
            await lead(cut_off)
            ended["hold"] = time.monotonic()

        async with background(lead_and_note()) as (leading,):
            await until(lambda: cut_off.is_leader)
            async with background(lead(heir)):
                proxy.stall()
                stalled = time.monotonic()
                while not heir.is_leader:
                    assert time.monotonic() - stalled < 20
                    await asyncio.sleep(0.005)
                took_over = time.monotonic()
                assert not cut_off.is_leader
                assert leading.done()
                assert ended["hold"] - stalled < DEADLINE_SECONDS + 0.5
                assert took_over - ended["hold"] > (LEASE_SECONDS - DEADLINE_SECONDS) / 2
        await far.close()


async def test_slow_answers_cost_no_leadership(
    control_plane: harness.ControlPlane, namespace: str, tmp_path: Path
) -> None:
    times = {"lease_seconds": 6.0, "renew_deadline_seconds": 3.0, "retry_seconds": 1.0, "request_timeout_seconds": 1.8}
    with weather.Proxy(control_plane.kubeconfig(), tmp_path) as proxy, proxy.fault(weather.slow(1.2)):
        far = await client.Api.connect(kubeconfig=str(proxy.kubeconfig))
        election = lease.LeaderElection(far, namespace, "controller", "a", **times)
        async with background(lead(election)) as (leading,):
            await until(lambda: election.is_leader)
            acquired = time.monotonic()
            while time.monotonic() < acquired + 5:
                assert election.is_leader
                assert not leading.done()
                await asyncio.sleep(0.01)
        await far.close()


async def test_short_outage_does_not_end_leadership(
    control_plane: harness.ControlPlane, api: client.Api, namespace: str, tmp_path: Path
) -> None:
    async with proxied(control_plane.kubeconfig(), tmp_path) as (proxy, path):
        far = await client.Api.connect(kubeconfig=str(path))
        election = candidate(far, namespace, "a")
        async with background(lead(election)) as (leading,):
            await until(lambda: election.is_leader)
            proxy.cut()
            before = (await spec_of(api, namespace))["renewTime"]
            proxy.heal()
            end = time.monotonic() + 10
            while (await spec_of(api, namespace))["renewTime"] == before:
                assert time.monotonic() < end
            assert election.is_leader
            assert not leading.done()
        await far.close()


async def test_an_outage_costs_no_leadership_whenever_it_begins(
    control_plane: harness.ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """Just before a renewal is the worst moment: so much of the deadline is used up already."""
    with weather.Proxy(control_plane.kubeconfig(), tmp_path) as proxy:
        far = await client.Api.connect(kubeconfig=str(proxy.kubeconfig))
        # With the times of production: pauses of 2 s, a deadline of 8.
        election = lease.LeaderElection(far, namespace, "controller", "a")
        async with background(lead(election)) as (leading,):
            await until(lambda: election.is_leader)
            await asyncio.sleep(1.85)
            with proxy.away():
                # Tries 2 s apart would fall on 2, 4 and 6 s, and the next one on the deadline.
                await asyncio.sleep(4.5)
            began = time.monotonic()
            await until(lambda: proxy.count(lambda call: call.verb == "update", began) > 0)
            await asyncio.sleep(2)
            assert election.is_leader
            assert not leading.done()
        await far.close()


async def test_hold_returns_when_another_holds_the_lease(api: client.Api, namespace: str) -> None:
    election = candidate(api, namespace, "a")
    async with background(lead(election)) as (leading,):
        await until(lambda: election.is_leader)
        await api.merge_patch(kinds.LEASES, "controller", {"spec": {"holderIdentity": "b"}}, namespace=namespace)
        robbed = time.monotonic()
        await until(leading.done)
        assert time.monotonic() - robbed < DEADLINE_SECONDS
        assert not election.is_leader


async def test_lease_that_someone_labels_or_deletes_stays_with_the_leader(api: client.Api, namespace: str) -> None:
    election = candidate(api, namespace, "a")
    async with background(lead(election)) as (leading,):
        await until(lambda: election.is_leader)
        labels = {"metadata": {"labels": {"touched": "yes"}}}
        touched = await api.merge_patch(kinds.LEASES, "controller", labels, namespace=namespace)
        version = touched["metadata"]["resourceVersion"]
        end = time.monotonic() + 10
        while (await api.get(kinds.LEASES, "controller", namespace=namespace))["metadata"][
            "resourceVersion"
        ] == version:
            assert time.monotonic() < end
        await api.delete(kinds.LEASES, "controller", namespace=namespace)
        while not (await api.list(kinds.LEASES, namespace=namespace))[0]:
            assert time.monotonic() < end
        assert election.is_leader
        assert not leading.done()


async def test_event_loop_that_stands_still_costs_leadership_and_fires_the_watchdog(
    api: client.Api, namespace: str
) -> None:
    election = candidate(api, namespace, "a")
    late = threading.Event()
    election.start_watchdog(late.set)
    async with background(lead(election)) as (leading,):
        await until(lambda: election.is_leader)
        stuck = time.monotonic()
        # blocks the loop on purpose: nothing but the watchdog's thread can end it
        assert late.wait(10)
        assert not election.is_leader
        assert DEADLINE_SECONDS - 2 * TIMES["retry_seconds"] < time.monotonic() - stuck < LEASE_SECONDS
        await until(leading.done)


async def test_watchdog_rests_while_the_lease_is_renewed_and_after_its_release(api: client.Api, namespace: str) -> None:
    election = candidate(api, namespace, "a")
    fired = threading.Event()
    election.start_watchdog(fired.set)
    async with background(lead(election)) as (leading,):
        await until(lambda: election.is_leader)
        await asyncio.sleep(2 * DEADLINE_SECONDS)
        assert not fired.is_set()
        leading.cancel()
        await asyncio.wait([leading])
    await election.release()
    await asyncio.sleep(1.5 * DEADLINE_SECONDS)
    assert not fired.is_set()


async def test_times_that_cannot_work_are_refused(api: client.Api) -> None:
    with pytest.raises(ValueError, match="expected retry \\+ request timeout < renew deadline < lease"):
        lease.LeaderElection(api, "default", "controller", "a", lease_seconds=5)


async def test_a_lease_of_before_gets_its_label_with_the_next_renewal_and_keeps_those_of_others(
    api: client.Api, namespace: str
) -> None:
    labels = {"example.org/kept": "yes"}
    body = {"metadata": {"name": "controller", "namespace": namespace, "labels": labels}, "spec": {}}
    await api.create(kinds.LEASES, body)
    election = lease.LeaderElection(api, namespace, "controller", "a", {"example.org/ours": "yes"}, **TIMES)
    async with background(lead(election)):
        await until(lambda: election.is_leader)
        found = (await api.get(kinds.LEASES, "controller", namespace=namespace))["metadata"]["labels"]
        assert found == {**labels, "example.org/ours": "yes"}
        # Somebody takes it off: the next renewal puts it on again.
        patch = {"metadata": {"labels": {"example.org/ours": None}}}
        await api.merge_patch(kinds.LEASES, "controller", patch, namespace=namespace)
        end = time.monotonic() + 20
        while (await api.get(kinds.LEASES, "controller", namespace=namespace))["metadata"]["labels"] != found:
            assert time.monotonic() < end
        assert election.is_leader


async def test_what_was_given_back_can_be_taken_again_by_the_same_candidate(api: client.Api, namespace: str) -> None:
    election = candidate(api, namespace, "a")
    await election.look()
    assert election.is_candidate
    for _ in range(2):
        await election.acquire()
        assert election.is_leader
        await election.release()
        assert not election.is_leader
