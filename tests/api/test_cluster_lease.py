"""`lease.LeaderElection` against a real kube-apiserver, in real time: what happens, and in which order.

How long it takes is asserted by a clock that jumps: tests/unit/cluster/test_lease.py.
"""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import weather
from tests.world.cluster_support import background, lead, proxied, until

from directdownload.cluster import client, kinds, lease

LEASE_SECONDS = 6.0
DEADLINE_SECONDS = 3.0
TIMES: dict[str, Any] = {
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


async def test_takes_over_from_a_dead_leader_only_after_the_lease(api: client.Api, namespace: str) -> None:
    dead, heir = candidate(api, namespace, "dead"), candidate(api, namespace, "heir")
    async with background(lead(dead)):
        await until(lambda: dead.is_leader)
    async with background(lead(heir)):
        await until(lambda: heir.is_leader)
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
        await first.release()
        assert not first.is_leader
        await until(lambda: second.is_leader)


@pytest.mark.parametrize("how", ["released", "deleted"])
async def test_who_waits_sees_at_once_that_the_lease_is_free(api: client.Api, namespace: str, how: str) -> None:
    # Tries so rare that only the watch can see it before the test gives up.
    times: dict[str, Any] = {"lease_seconds": 600.0, "renew_deadline_seconds": 400.0, "retry_seconds": 200.0}
    first, second = (lease.LeaderElection(api, namespace, "controller", name, **times) for name in ("first", "second"))
    await first.acquire()
    async with background(second.acquire()) as (waiting,):
        await until(lambda: second.is_candidate)
        # Its first try is over, and the next one is some time away.
        await asyncio.sleep(0.3)
        if how == "released":
            await first.release()
        else:
            await api.delete(kinds.LEASES, "controller", namespace=namespace)
        await until(waiting.done)
        assert second.is_leader


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
        async with background(lead(cut_off)) as (leading,):
            await until(lambda: cut_off.is_leader)
            async with background(lead(heir)):
                proxy.stall()
                await until(lambda: heir.is_leader)
                assert not cut_off.is_leader
                assert leading.done()
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

            async def renewed() -> bool:
                return bool((await spec_of(api, namespace))["renewTime"] != before)

            await until(renewed)
            assert election.is_leader
            assert not leading.done()
        await far.close()


async def test_hold_returns_when_another_holds_the_lease(api: client.Api, namespace: str) -> None:
    election = candidate(api, namespace, "a")
    async with background(lead(election)) as (leading,):
        await until(lambda: election.is_leader)
        await api.merge_patch(kinds.LEASES, "controller", {"spec": {"holderIdentity": "b"}}, namespace=namespace)
        await until(leading.done)
        assert not election.is_leader


async def test_lease_that_someone_labels_or_deletes_stays_with_the_leader(api: client.Api, namespace: str) -> None:
    election = candidate(api, namespace, "a")
    async with background(lead(election)) as (leading,):
        await until(lambda: election.is_leader)
        labels = {"metadata": {"labels": {"touched": "yes"}}}
        touched = await api.merge_patch(kinds.LEASES, "controller", labels, namespace=namespace)
        version = touched["metadata"]["resourceVersion"]

        async def written() -> bool:
            found = await api.get(kinds.LEASES, "controller", namespace=namespace)
            return bool(found["metadata"]["resourceVersion"] != version)

        async def there() -> bool:
            return bool((await api.list(kinds.LEASES, namespace=namespace))[0])

        await until(written)
        await api.delete(kinds.LEASES, "controller", namespace=namespace)
        await until(there)
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
        # blocks the loop on purpose: nothing but the watchdog's thread can end it
        assert late.wait(DEADLINE_SECONDS * 20)
        assert not election.is_leader
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

        async def labelled() -> bool:
            lease = await api.get(kinds.LEASES, "controller", namespace=namespace)
            return bool(lease["metadata"]["labels"] == found)

        await until(labelled)
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
