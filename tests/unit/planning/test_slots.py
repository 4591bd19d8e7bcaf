"""Slots: who occupies them, what limits a placement, and limits in percent."""

import collections
import dataclasses
import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload.planning.observed import PlacementView
from directdownload.planning.slots import Group, Line, Slots, groups_of, parallel_limit, verification_groups
from directdownload.resources.jobs import PeerRole


@pytest.mark.parametrize(
    ("value", "total", "limit"),
    [
        ("0", 100, 0),
        ("10", 3, 10),
        ("0%", 100, 0),
        ("1%", 100, 1),
        ("1%", 3, 1),
        ("25%", 10, 3),
        ("33%", 3, 1),
        ("34%", 3, 2),
        ("50%", 4, 2),
        ("50%", 5, 3),
        ("100%", 7, 7),
        ("10%", 0, 1),
    ],
)
def test_parallel_limit(value: str, total: int, limit: int) -> None:
    assert parallel_limit(value, total) == limit


def test_what_limits_a_download() -> None:
    limits = {"maxParallel": 7, "maxParallelPerHost": 3, "maxParallelPerSource": 5, "maxParallelPerNamespace": 4}
    zone = build.zone(spec={"downloads": limits})
    template = build.template(spec={"url": "https://Images.Example.org:8443/a"})
    assert groups_of(build.placement(), template, zone, []) == (
        Group("zone/zone-1", 7),
        Group("host/kvm-1", 3),
        Group("source/images.example.org", 5),
        Group("namespace/zone-1/default", 4),
    )


def test_a_peer_reads_no_source_and_a_seed_is_alone() -> None:
    limits = {"maxParallel": 7, "maxParallelPerHost": 3, "maxParallelPerSource": 5, "maxParallelPerNamespace": 4}
    zone, view = build.zone(spec={"downloads": limits, "peers": {"maxParallel": 9}}), build.placement()
    template, rollout = build.template(), build.deployment(spec={"rollout": {"maxParallel": 2}})
    of_all = (Group("host/kvm-1", 3), Group("deployment/default/everywhere", 2))
    peer = groups_of(view, template, zone, [(rollout, 1)], role=PeerRole.PEER)
    assert set(peer) == {Group("peers/zone/zone-1", 9), Group("peers/namespace/zone-1/default", 0), *of_all}
    seed = groups_of(view, template, zone, [(rollout, 1)], role=PeerRole.SEED)
    alone = Group(f"seed/zone-1/{build.TEMPLATE_UID}", 1)
    assert seed == (alone, *groups_of(view, template, zone, [(rollout, 1)]))
    assert verification_groups(view, zone, PeerRole.SEED) == (alone, *verification_groups(view, zone))


def test_one_server_or_namespace_leaves_room_in_a_zone_that_does_not_say() -> None:
    limits = {group.name.partition("/")[0]: group.limit for group in groups(build.placement())}
    assert limits == {"zone": 20, "host": 2, "source": 16, "namespace": 16}


def groups(placement: PlacementView) -> tuple[Group, ...]:
    return groups_of(placement, build.template(), build.zone(), [])


@pytest.mark.parametrize(
    ("rollouts", "expected"),
    [
        ([{}], []),
        ([{"maxParallel": 2}], [("deployment/default/d0", 2)]),
        ([{"maxParallel": "25%"}], [("deployment/default/d0", 5)]),
        ([{"maxParallel": 2}, {}], []),
        ([{"maxParallel": 2}, {"maxParallel": 3}], [("deployment/default/d0", 2), ("deployment/default/d1", 3)]),
        ([{"maxParallel": 2}, {"paused": True}], [("deployment/default/d0", 2)]),
        ([{"maxParallel": 2, "paused": True}, {}], []),
    ],
)
def test_limits_of_deployments(rollouts: list[dict[str, Any]], expected: list[tuple[str, int]]) -> None:
    wanting = [(build.deployment(f"d{i}", spec={"rollout": rollout}), 20) for i, rollout in enumerate(rollouts)]
    groups = groups_of(build.placement(), build.template(), build.zone(), wanting)
    assert [(group.name, group.limit) for group in groups[4:]] == expected


def test_the_ledger_counts_and_forgets() -> None:
    slots, groups = Slots(), [Group("zone/a", 2), Group("host/b", 0)]
    names = [group.name for group in groups]
    assert slots.full_group(groups) is None
    slots.occupy("job-1", names)
    slots.occupy("job-1", names)
    assert (slots.used("zone/a"), slots.holds("job-1"), slots.full_group(groups)) == (1, True, None)
    slots.occupy("job-2", names)
    assert slots.full_group(groups) == groups[0]
    slots.occupy("job-2", ["host/b"])
    assert (slots.used("zone/a"), slots.used("host/b")) == (1, 2)
    assert slots.release("job-1")
    assert not slots.release("job-1")
    assert slots.release("job-2")
    assert (slots.used("zone/a"), slots.used("host/b"), slots.holds("job-2")) == (0, 0, False)


def test_the_ledger_agrees_with_a_plain_count_in_every_order() -> None:
    moves = list(itertools.product(("a", "b"), ("zone/1", "zone/2", None)))
    for history in itertools.product(moves, repeat=4):
        slots, truth = Slots(), dict[str, str]()
        for holder, group in history:
            if group is not None:
                slots.occupy(holder, [group])
                truth[holder] = group
            else:
                assert slots.release(holder) == (truth.pop(holder, None) is not None)
        for group in ("zone/1", "zone/2"):
            assert slots.used(group) == list(truth.values()).count(group)


def test_a_verification_takes_no_slot_of_a_download() -> None:
    zone = build.zone(spec={"downloads": {"maxParallel": 7, "maxParallelPerHost": 3}})
    groups = verification_groups(build.placement(), zone)
    assert [(group.name, group.limit) for group in groups] == [
        ("verify/zone/zone-1", 7),
        ("verify/host/kvm-1", 1),
        ("verify/namespace/zone-1/default", 0),
    ]
    names = {group.name for group in groups_of(build.placement(), build.template(), zone, [])}
    assert names.isdisjoint(group.name for group in groups)


def test_a_copy_that_keeps_failing_keeps_no_other_from_its_turn() -> None:
    line, slots, room = Line(), Slots(), (Group("zone/a", 1),)
    line.join("failed twice", room, 300, failures=2)
    line.join("failed once", room, 200, failures=1)
    line.join("new", room, 100)
    order = []
    while (first := line.first(slots)) is not None:
        order.append(first)
        line.leave(first)
    assert order == ["new", "failed once", "failed twice"]


def test_the_line_begins_with_those_that_have_space() -> None:
    line, slots, room = Line(), Slots(), (Group("zone/a", 1),)
    for name, space in (("small", 1), ("big", 100), ("also-big", 100), ("middle", 50)):
        line.join(name, room, space)
    line.join("small", room, 200)
    order = []
    while (first := line.first(slots)) is not None:
        order.append(first)
        line.leave(first)
        line.leave(first)
    assert order == ["small", "also-big", "big", "middle"]
    assert len(line) == 0


def test_who_has_no_room_holds_nobody_up() -> None:
    line, slots = Line(), Slots()
    slots.occupy("job", ["host/full"])
    line.join("blocked", (Group("host/full", 1),), 100)
    line.join("free", (Group("host/other", 1),), 1)
    assert line.first(slots) == "free"
    slots.release("job")
    assert line.first(slots) == "blocked"


def test_those_who_wait_for_different_groups_stand_in_one_order() -> None:
    line, slots = Line(), Slots()
    a, b = Group("zone/a", 1), Group("zone/b", 1)
    line.join("second", (a, Group("host/1", 1)), 200)
    line.join("first", (b, Group("host/2", 1)), 300)
    line.join("third", (a, Group("host/3", 1)), 100)
    assert line.first(slots) == "first"
    slots.occupy("job", ["zone/b"])
    assert line.first(slots) == "second"
    slots.occupy("other", ["host/1"])
    assert line.first(slots) == "third"
    # Its limit is another one now: it is in another queue, and no more in the one before.
    line.join("third", (Group("zone/a", 0), Group("host/3", 1)), 100)
    slots.occupy("last", ["zone/a"])
    assert line.first(slots) == "third"
    line.leave("third")
    assert line.first(slots) is None


class Counting(Slots):
    """Counts what the line asks it."""

    looks = 0

    def full_group(self, groups: Sequence[Group]) -> Group | None:
        self.looks += 1
        return super().full_group(groups)


def test_a_full_zone_is_passed_over_at_once() -> None:
    line, slots = Line(), Counting()
    for number in range(1000):
        line.join(f"p-{number}", (Group("zone/a", 1), Group(f"host/{number}", 1)), 1)
    slots.occupy("job", ["zone/a"])
    assert line.first(slots) is None
    assert slots.looks == 1


# --- shares of namespaces


def wants(namespace: str, number: int, *, zone: str = "z", limit: int = 0, slots: int = 20) -> tuple[Group, ...]:
    """What limits one of a namespace's downloads, each on a host of its own."""
    return (
        Group(f"zone/{zone}", slots),
        Group(f"host/{zone}-{namespace}-{number}", 2),
        Group(f"source/{namespace}.example.org", 0),
        Group(f"namespace/{zone}/{namespace}", limit),
    )


class Zone:
    """A line before the slots of a zone, and who holds them."""

    def __init__(self, limit: int = 0, slots: int = 20) -> None:
        self.line, self.slots = Line(), Counting()
        self._limit, self._slots = limit, slots
        self._waiting: dict[str, tuple[Group, ...]] = {}

    def join(self, namespace: str, count: int, space_bytes: int = 0) -> None:
        for number in range(count):
            name, groups = f"{namespace}-{number:04}", wants(namespace, number, limit=self._limit, slots=self._slots)
            self._waiting[name] = groups
            self.line.join(name, groups, space_bytes)

    def start(self) -> str:
        """The next one gets its slot; whose it is, empty: nobody's."""
        name = self.line.call(self.slots)
        if name is None:
            return ""
        assert self.line.answer(name)
        self.slots.occupy(name, [group.name for group in self._waiting[name]])
        return name.partition("-")[0]

    def end(self, name: str) -> None:
        assert self.slots.release(name)

    def held(self, namespace: str) -> int:
        return self.slots.used(f"namespace/z/{namespace}")


@pytest.mark.parametrize("space", [0, 10**12])
def test_one_that_waits_alone_comes_before_the_thousand_of_another_namespace(space: int) -> None:
    zone = Zone()
    zone.join("a", 1000, space_bytes=space)
    while zone.start():
        pass
    assert zone.held("a") == 20, "nobody else waits: it has them all"
    zone.join("b", 1)
    assert zone.start() == ""
    zone.end("a-0007")
    assert zone.start() == "b"
    zone.end("a-0003")
    assert zone.start() == "a"


def test_a_namespace_that_holds_fewest_is_next_whatever_the_order_in_which_they_came() -> None:
    rng = random.Random(4)
    for _ in range(50):
        zone = Zone(limit=rng.choice([0, 3, 8]), slots=rng.randint(1, 20))
        names = [f"n{number}" for number in range(rng.randint(1, 6))]
        for name in rng.sample(names, len(names)):
            zone.join(name, rng.randint(1, 12), space_bytes=rng.randint(0, 5))
        for _ in range(100):
            if rng.random() < 0.3 and (held := list(zone.slots._groups)):
                zone.end(rng.choice(held))
            waiting = {name for name in names if any(key.startswith(f"{name}-") for key in zone.line._waiting)}
            limit = zone._limit or 1000
            room = zone.slots.used("zone/z") < zone._slots
            able = {name: zone.held(name) for name in waiting if room and zone.held(name) < limit}
            started = zone.start()
            assert bool(started) == bool(able), "no slot stays free that somebody may have"
            assert not started or able[started] == min(able.values())


def test_among_equals_it_is_space_and_then_the_name() -> None:
    line, slots = Line(), Slots()
    for name, namespace, space in (("d", "x", 5), ("c", "y", 5), ("b", "x", 9), ("a", "y", 1)):
        line.join(name, wants(namespace, ord(name)), space)
    assert line.first(slots) == "b"
    line.leave("b")
    assert line.first(slots) == "c"


def test_those_who_were_called_and_have_not_answered_count() -> None:
    """Where many slots become free at once nobody has been seen to take one before the next is called."""
    zone = Zone(slots=8)
    zone.join("a", 50)
    zone.join("b", 50)
    called = [zone.line.call(zone.slots) or "" for _ in range(8)]
    assert sorted(name.partition("-")[0] for name in called) == ["a"] * 4 + ["b"] * 4
    for name in called:
        assert zone.line.answer(name)
        assert not zone.line.answer(name)


def test_what_a_namespace_holds_elsewhere_does_not_count() -> None:
    line, slots = Line(), Slots()
    for number in range(5):
        slots.occupy(f"elsewhere-{number}", [group.name for group in wants("a", number, zone="other")])
    slots.occupy("here", [group.name for group in wants("b", 9)])
    line.join("a-1", wants("a", 1), 0)
    line.join("b-1", wants("b", 1), 100)
    assert line.first(slots) == "a-1"


def test_a_namespace_at_its_limit_leaves_the_rest_to_others() -> None:
    zone = Zone(limit=16)
    zone.join("a", 1000)
    started = 0
    while zone.start():
        started += 1
    assert started == 16
    zone.join("b", 1)
    assert zone.start() == "b"


def test_verifications_are_shared_as_well() -> None:
    line, slots = Line(), Slots()

    def verification(template: str, host: str) -> tuple[Group, ...]:
        view = dataclasses.replace(build.placement(host=host), template_key=template)
        return verification_groups(view, build.zone())

    for number in range(3):
        slots.occupy(f"job-{number}", [group.name for group in verification(f"a/t{number}", f"kvm-{number}")])
    line.join("again", verification("a/t9", "kvm-8"), 100)
    line.join("other", verification("b/t", "kvm-9"), 0)
    assert line.first(slots) == "other"


def looks(waiting: int) -> int:
    """How often the slots are asked while all of a crowd and a few of ten others get a slot in turn."""
    zone = Zone()
    zone.join("crowd", waiting)
    for number in range(10):
        zone.join(f"n{number}", 5)
    running: collections.deque[str] = collections.deque()
    served = 0
    while len(zone.line) or running:
        before = set(zone.slots._groups)
        if zone.start():
            running.extend(set(zone.slots._groups) - before)
            served += 1
        else:
            zone.end(running.popleft())
    assert served == waiting + 50
    return zone.slots.looks


def test_who_is_next_costs_no_more_where_more_wait() -> None:
    assert looks(1000) / looks(500) < 3
