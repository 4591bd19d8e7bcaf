"""What operators fear of the API server: away, silent, slow, busy, forgetful. Rollouts end right, and only once.

The controllers talk through `weather.Proxy`; simulated kubelets and the tests themselves go to the API server directly,
so that hosts work on while a controller is cut off.
"""

import asyncio
import collections
import contextlib
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.world import agent_files, agent_world, steps, weather
from tests.world.controllers import Controller
from tests.world.simulation import Behaviour, Simulation, succeed
from tests.world.waiting import until, until_async
from tests.world.weather import Call, Fault, Matches, Proxy

from directdownload.cluster import kinds
from directdownload.controller import kopf_source
from directdownload.resources.jobs import JobDocument, JobResult

HOSTS = 12
PARALLEL = 3
#: of one copy from creation to Ready with its Job, Events and its share of sums
REQUESTS_PER_COPY = 10
#: kinds that the controller follows by its reflectors; kopf follows the others
REFLECTED = ("namespaces", "nodes", "pods", "jobs", "templateplacements")
WATCHED_KINDS = 14


class Scene:
    """Hosts that are Up, and controllers that reach the API server through `proxy`."""

    def __init__(self, world: Simulation, proxy: Proxy) -> None:
        self.world = world
        self.proxy = proxy
        self.hosts: list[str] = []
        self.controllers: list[Controller] = []
        self.parallel = PARALLEL

    def start_controller(self) -> Controller:
        started = self.world.start_controller(kubeconfig=self.proxy.kubeconfig)
        self.controllers.append(started)
        return started

    def limit(self, parallel: int) -> None:
        self.parallel = parallel
        with self.world.kube() as kube:
            kube.patch(kinds.ZONES, self.world.zone, {"spec": {"downloads": {"maxParallel": parallel}}}).object()

    def begin(self) -> None:
        self.world.create_template()
        self.world.deploy()

    def ends_right(self, seconds: float = 120, *, restarts: bool = False, tracebacks: bool = False) -> None:
        """Waits for the end of the rollout. With `restarts` a process that leaves is started again, as in a pod."""

        def ready() -> bool:
            if not any(controller.alive for controller in self.controllers):
                assert restarts, "the controller has left"
                self.start_controller()
            status = self.world.deployment().get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            return conditions.get("Ready") == "True" and status["placements"]["ready"] == HOSTS

        until("all copies", ready, seconds)
        until("the jobs to be deleted", lambda: not self.world.jobs(), seconds)
        placements = self.world.placements()
        assert sorted(p["spec"]["host"] for p in placements) == self.hosts
        assert {(p["status"]["phase"], p["status"]["attempts"]) for p in placements} == {("Ready", 1)}
        assert sorted(self.world.started) == [(host, "fetch", 1) for host in self.hosts]
        assert self.world.most_active <= self.parallel
        created = collections.Counter(
            write["objectRef"]["name"]
            for write in self.world.writes("controller")
            if (write["verb"], write["objectRef"]["resource"]) == ("create", "jobs")
            and write["responseStatus"]["code"] == 201
        )
        assert len(created) == HOSTS
        assert set(created.values()) == {1}
        if not tracebacks:
            assert not [c for c in self.controllers if "Traceback" in c.log.read_text()]
        if not restarts:
            assert all(controller.alive for controller in self.controllers)


@pytest.fixture
def scene(fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path) -> Iterator[Scene]:
    with Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy:
        made = Scene(world, proxy)
        world.create_zone(downloads={"maxParallel": PARALLEL, "retry": {"initial": "1s", "maximum": "2s"}})
        made.hosts = [world.add_host(f"kvm-{number:02}") for number in range(HOSTS)]
        world.behaviour = lasting(0.5)
        made.start_controller()
        up = {"total": HOSTS, "up": HOSTS}
        until("hosts", lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts") == up)
        yield made
        for controller in made.controllers:
            if controller.alive:
                controller.kill()


def lasting(seconds: float) -> Behaviour:
    """Jobs that succeed after `seconds`."""
    began: dict[str, float] = {}

    def behave(document: JobDocument) -> JobResult | None:
        since = began.setdefault(document.host, time.monotonic())
        return succeed(document) if time.monotonic() - since >= seconds else None

    return behave


def halfway(scene: Scene) -> None:
    """Waits until the rollout is in full swing: some have ended, some run, some wait."""
    until("the middle of the rollout", lambda: len(scene.world.started) > PARALLEL)


def since_then(proxy: Proxy, began: float) -> collections.Counter[tuple[str, str, str, str]]:
    """How often each thing was asked for since `began`, leases left out."""
    calls = [call for call in list(proxy.calls) if call.at >= began and weather.but_leases(call)]
    return collections.Counter((call.verb, call.resource, call.name, call.subresource) for call in calls)


def test_api_server_away_in_mid_rollout(scene: Scene) -> None:
    leader = scene.controllers[0]
    scene.begin()
    halfway(scene)
    with scene.proxy.away():
        began = time.monotonic()
        # It leaves before another could take over: 15 s after its last renewal at the earliest.
        until("the leader to leave", lambda: not leader.alive, 13)
        assert leader.process.wait() == 1
        heir = scene.start_controller()
        until("20 s without API server", lambda: time.monotonic() > began + 20, 25)
        assert heir.alive
    scene.ends_right(restarts=True)
    assert heir.log.read_text().count("Cannot take Lease") == 1


def test_api_server_that_takes_requests_and_never_answers(scene: Scene) -> None:
    leader = scene.controllers[0]
    scene.begin()
    halfway(scene)
    with scene.proxy.fault(weather.hang):
        began = time.monotonic()
        scene.proxy.cut()
        until("the leader to leave", lambda: not leader.alive, 13)
        assert leader.process.wait() == 1
        # All that is under way hangs: nothing is asked for again and again.
        assert max(since_then(scene.proxy, began).values()) <= 2
    with scene.world.kube() as kube:
        # Instead of 15 s more, until it counts as abandoned.
        kube.delete(kinds.LEASES, "direct-download-operator", scene.world.namespace).object()
    scene.ends_right(restarts=True)


def test_a_moment_without_api_server_costs_no_leadership(scene: Scene) -> None:
    scene.begin()
    halfway(scene)
    with scene.proxy.away():
        time.sleep(4)
    scene.ends_right()
    assert "Leadership" not in scene.controllers[0].log.read_text()


def test_watches_cut_every_second_in_the_middle_of_an_event(scene: Scene) -> None:
    scene.world.behaviour = lasting(1.5)
    began = time.monotonic()
    with scene.proxy.fault(weather.cut(1), weather.watches):
        scene.proxy.cut()
        scene.begin()
        scene.ends_right()
        rounds = time.monotonic() - began
        assert rounds > 5
        watches = scene.proxy.count(weather.watches, began)
    # Each begins again at once, and not more often than it was cut.
    assert WATCHED_KINDS * (rounds / 2 - 1) < watches <= WATCHED_KINDS * (rounds + 2)
    # None is read anew because of that. The kinds that kopf watches are, twice, soon after the start.
    listed = collections.Counter(call.resource for call in scene.proxy.calls if call.verb == "list" and call.at > began)
    assert listed.keys() <= {kind.plural for kind in kopf_source.WATCHED}
    assert max(listed.values(), default=0) <= 2


def test_watches_that_are_too_old_to_go_on(scene: Scene) -> None:
    """410, by an event as API servers say it, and where our own reflectors ask also as the status of the answer."""
    events = weather.some(0.4, 1, weather.watches)
    statuses = weather.some(0.3, 2, lambda call: weather.watches(call) and call.resource in REFLECTED)
    began = time.monotonic()
    with (
        scene.proxy.fault(weather.expire(), events) as first,
        scene.proxy.fault(weather.refusal(410, "Expired"), statuses) as second,
        scene.proxy.fault(weather.cut(1), weather.watches),
    ):
        scene.proxy.cut()
        scene.begin()
        scene.ends_right()
        told = collections.Counter(call.resource for call in (*first, *second))
        lists = collections.Counter(
            call.resource for call in scene.proxy.calls if call.verb == "list" and call.at > began
        )
    assert first
    assert second
    # A list follows each; the last may be about to.
    for kind in REFLECTED:
        assert told[kind] - 1 <= lists[kind] <= told[kind], (told, lists)


def test_conflicts_at_every_other_write(scene: Scene) -> None:
    began = time.monotonic()
    with scene.proxy.fault(weather.refusal(409, "Conflict"), weather.every_other(weather.writes)):
        scene.begin()
        scene.ends_right()
    assert scene.proxy.count(weather.writes, began) <= 2 * REQUESTS_PER_COPY * HOSTS


def test_a_busy_api_server_is_left_alone_for_as_long_as_it_asks(scene: Scene) -> None:
    seconds = 4
    scene.begin()
    halfway(scene)
    # Watches go on: what they bring must not cut the pause short.
    busy = scene.proxy.fault(
        weather.refusal(429, "TooManyRequests", seconds), lambda call: weather.but_leases(call) and call.verb != "watch"
    )
    with busy:
        began = time.monotonic()
        until("the pause", lambda: time.monotonic() > began + seconds)
    # The look at the clock comes late: what is asked for again after the pause is no matter of this test.
    calls = [call for call in scene.proxy.calls if began <= call.at < began + seconds and weather.but_leases(call)]
    asked = collections.Counter(
        (call.verb, call.resource, call.name, call.subresource) for call in calls if call.verb != "watch"
    )
    assert asked
    assert max(asked.values()) == 1, asked
    scene.ends_right()


def test_errors_of_the_api_server(scene: Scene) -> None:
    began = time.monotonic()
    with (
        scene.proxy.fault(weather.refusal(500, "InternalError"), weather.some(0.1, 1, weather.but_leases)),
        scene.proxy.fault(weather.refusal(503, "ServiceUnavailable"), weather.some(0.1, 2, weather.but_leases)),
    ):
        scene.begin()
        scene.ends_right()
    assert scene.proxy.count(weather.but_leases, began) <= 2 * REQUESTS_PER_COPY * HOSTS


def test_every_answer_takes_two_seconds(scene: Scene) -> None:
    """A request for the Lease has three, of which a machine that is busy needs some: it takes one here."""
    scene.limit(HOSTS)
    began = time.monotonic()
    with (
        scene.proxy.fault(weather.slow(1), weather.of("leases")),
        scene.proxy.fault(weather.slow(2), weather.but_leases),
    ):
        scene.begin()
        scene.ends_right()
    assert scene.proxy.count(weather.but_leases, began) <= REQUESTS_PER_COPY * HOSTS
    assert "Leadership" not in scene.controllers[0].log.read_text()


def test_answers_lost_after_the_write_was_done(scene: Scene) -> None:
    began = time.monotonic()
    # Late enough that the watch has told of the write before it counts as failed.
    with scene.proxy.fault(weather.swallow(0.3), weather.every_other(weather.writes)):
        scene.begin()
        scene.ends_right()
    assert scene.proxy.count(weather.writes, began) <= 2 * REQUESTS_PER_COPY * HOSTS


def test_a_placement_that_cannot_be_made_holds_up_no_other(scene: Scene) -> None:
    names: list[str] = []

    def first(call: Call) -> bool:
        if (call.verb, call.resource) == ("create", "templateplacements"):
            names.append(call.name)
            return call.name == names[0]
        return False

    with scene.proxy.fault(weather.refusal(403, "Forbidden"), first):
        scene.begin()
        until("all others", lambda: len(steps.states(scene.world)) == HOSTS - 1)
        until("them to be Ready", lambda: {phase for phase, _ in steps.states(scene.world).values()} == {"Ready"})
        assert names[0] not in [placement["metadata"]["name"] for placement in scene.world.placements()]
    scene.ends_right()


def test_half_an_answer(scene: Scene) -> None:
    """The connection ends too early, or, worse, nothing in HTTP tells that something is missing."""
    matches = [
        weather.some(0.15, seed, lambda call: weather.but_leases(call) and call.verb != "watch") for seed in (1, 2)
    ]
    began = time.monotonic()
    with scene.proxy.fault(weather.truncate, matches[0]), scene.proxy.fault(weather.halve, matches[1]):
        scene.begin()
        scene.ends_right()
    assert scene.proxy.count(weather.but_leases, began) <= 2 * REQUESTS_PER_COPY * HOSTS


def test_changing_weather(scene: Scene) -> None:
    scene.world.behaviour = lasting(1.0)
    faults: tuple[tuple[float, Fault, Matches], ...] = (
        (0.04, weather.refusal(500, "InternalError"), weather.everything),
        (0.04, weather.refusal(503, "ServiceUnavailable"), weather.everything),
        (0.04, weather.refusal(429, "TooManyRequests", 1), weather.everything),
        (0.04, weather.refusal(409, "Conflict"), weather.writes),
        (0.04, weather.swallow(), weather.writes),
        (0.04, weather.truncate, weather.writes),
        (0.04, weather.halve, weather.writes),
        (0.10, weather.slow(0.5), weather.everything),
        (0.10, weather.expire(), weather.watches),
        (0.90, weather.cut(1.5), weather.watches),
    )
    with contextlib.ExitStack() as stack:
        for number, (share, fault, matches) in enumerate(faults):
            stack.enter_context(scene.proxy.fault(fault, weather.some(share, number, matches)))
        scene.proxy.cut()
        scene.begin()
        scene.ends_right(restarts=True)


@pytest.mark.parametrize("others", [pytest.param(0.0, id="others follow"), pytest.param(1.0, id="others connect")])
def test_what_kopf_cannot_take_ends_the_process_and_the_next_goes_on_at_once(scene: Scene, others: float) -> None:
    """Also while its other watches wait for an answer, `others` seconds long: those it would wait for without end."""
    scene.world.behaviour = lambda _: None
    scene.begin()
    until("jobs", lambda: len(scene.world.started) == PARALLEL)
    garbled = weather.cut(0, politely=True)
    with (
        scene.proxy.fault(garbled, lambda call: weather.watches(call) and call.resource == "templates"),
        scene.proxy.fault(weather.slow(others), weather.watches),
    ):
        scene.proxy.cut()
        # Given back: nobody waits until it runs out, nor for the end of the process.
        until("the Lease to be free", lambda: not scene.world.get(kinds.LEASES, steps.LEASE)["spec"]["holderIdentity"])
    heir = scene.start_controller()
    until("another to lead", lambda: b"Leading as" in heir.log.read_bytes())
    until("the process to leave", lambda: not scene.controllers[0].alive)
    assert scene.controllers[0].process.wait() == 1
    scene.world.behaviour = lasting(0.1)
    scene.ends_right(restarts=True, tracebacks=True)


def test_memory_does_not_grow_with_bad_weather(scene: Scene) -> None:
    world = scene.world
    templates = [f"debian-{number}" for number in range(21)]
    for name in templates:
        world.create_template(name)
        world.deploy(name, name, rollout={"paused": True})
    until("placements", lambda: len(world.placements()) == HOSTS * len(templates))
    began = time.monotonic()
    sizes: list[int] = []
    with scene.proxy.fault(weather.expire(0.5), weather.watches), world.kube() as kube:
        scene.proxy.cut()
        while len(sizes) < 21:
            # Handed on to all copies of the template, so that every round has something to take in.
            annotations = {"directdownload.dev/requested-at": str(time.monotonic())}
            name = templates[len(sizes) % len(templates)]
            kube.patch(kinds.TEMPLATES, name, {"metadata": {"annotations": annotations}}, world.namespace).object()
            until("a new list", lambda: scene.proxy.count(_lists_placements, began) > len(sizes))
            sizes.append(_resident_bytes(scene.controllers[0].process.pid))
    assert sizes[-1] - sizes[6] < 3 * 2**20, [size >> 20 for size in sizes]


def _lists_placements(call: Call) -> bool:
    return (call.verb, call.resource) == ("list", "templateplacements")


def _resident_bytes(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


async def test_an_agent_without_api_server_stays_ready_and_loses_nothing_that_it_had_to_tell(
    fleet: harness.ControlPlane, tmp_path: pathlib.Path
) -> None:
    kubeconfig = fleet.kubeconfig("agent", harness.ADMINISTRATORS)
    async with agent_world.one(fleet, tmp_path) as world:
        with Proxy(kubeconfig, tmp_path) as proxy:
            world.kubeconfig = proxy.kubeconfig
            await world.create_host()
            pool = await world.create_pool("local")
            (first, first_uid), (second, second_uid) = [await world.create_placement(n, pool) for n in ("t1", "t2")]
            places = [agent_files.make_place(pool, name, world.host) for name in ("t1", "t2")]
            with agent_world.quick_process(world) as agent:
                await until_async("ready", world.ready)
                agent_files.write_journal(places[0], first, first_uid, 100, progress_interval_seconds=0.1)
                await until_async("progress", lambda: agent_world.has(world, first, bytesDownloaded=100))
                with proxy.away():
                    # One download ends and one begins; then the disk of the pool changes, too.
                    agent_files.publish(places[0], first, first_uid, b"x" * 1000)
                    agent_files.write_journal(places[1], second, second_uid, 250, progress_interval_seconds=0.1)
                    await world.create_pool("late")
                    for _ in range(12):
                        await asyncio.sleep(0.5)
                        assert await world.ready()
                        assert (await world.answer("healthz"))[0] == 200
                    assert await agent_world.has(world, first, bytesDownloaded=100)
                with proxy.fault(weather.swallow(), weather.every_other(weather.writes)):
                    await until_async("its end", lambda: agent_world.sees(world, first, present=True, sizeBytes=1000))
                    await until_async("the other", lambda: agent_world.has(world, second, bytesDownloaded=250))

                    async def told_of_the_pool() -> bool:
                        return "late" in await world.storage()

                    await until_async("the new pool", told_of_the_pool)
                writes = proxy.count(weather.writes)
                agent.send_signal(signal.SIGTERM)
                log = (await asyncio.to_thread(agent.communicate, timeout=120))[1]
                assert agent.returncode == 0, log
                assert "Traceback" not in log
                # Said once, however often it was tried.
                assert log.count(f"Cannot write the status of placement {first}") <= 2
                assert writes < 40


async def test_an_agent_that_starts_without_api_server_waits_for_it(
    fleet: harness.ControlPlane, tmp_path: pathlib.Path
) -> None:
    async with agent_world.one(fleet, tmp_path) as world:
        with (
            Proxy(fleet.kubeconfig("agent", harness.ADMINISTRATORS), tmp_path) as proxy,
            contextlib.ExitStack() as stack,
        ):
            world.kubeconfig = proxy.kubeconfig
            await world.create_host()
            await world.create_pool("local")
            with proxy.away():
                agent = stack.enter_context(agent_world.quick_process(world))

                async def waiting() -> bool:
                    return await world.answer("readyz") == (
                        500,
                        "waiting for the API server: Host and StoragePools are not read yet",
                    )

                await until_async("the reason", waiting)
                assert (await world.answer("healthz"))[0] == 200
            await until_async("ready", world.ready)
            assert set(await world.storage()) == {"local"}
            assert agent.poll() is None
