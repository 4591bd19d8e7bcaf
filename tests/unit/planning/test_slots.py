"""Slots: the ledger, what limits a placement, and limits in percent."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload.planning.slots import Group, Ledger, Line, groups_of, parallel_limit, verification_groups


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
    zone = build.zone(spec={"downloads": {"maxParallel": 7, "maxParallelPerHost": 3, "maxParallelPerSource": 5}})
    template = build.template(spec={"url": "https://Images.Example.org:8443/a"})
    assert groups_of(build.placement(), template, zone, []) == (
        Group("zone/zone-1", 7),
        Group("host/kvm-1", 3),
        Group("source/images.example.org", 5),
    )


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
    assert [(group.name, group.limit) for group in groups[3:]] == expected


def test_the_ledger_counts_and_forgets() -> None:
    ledger, groups = Ledger(), [Group("zone/a", 2), Group("host/b", 0)]
    names = [group.name for group in groups]
    assert ledger.full_group(groups) is None
    ledger.occupy("job-1", names)
    ledger.occupy("job-1", names)
    assert (ledger.used("zone/a"), ledger.holds("job-1"), ledger.full_group(groups)) == (1, True, None)
    ledger.occupy("job-2", names)
    assert ledger.full_group(groups) == groups[0]
    ledger.occupy("job-2", ["host/b"])
    assert (ledger.used("zone/a"), ledger.used("host/b")) == (1, 2)
    assert ledger.release("job-1")
    assert not ledger.release("job-1")
    assert ledger.release("job-2")
    assert (ledger.used("zone/a"), ledger.used("host/b"), ledger.holds("job-2")) == (0, 0, False)


def test_the_ledger_agrees_with_a_plain_count_in_every_order() -> None:
    moves = list(itertools.product(("a", "b"), ("zone/1", "zone/2", None)))
    for history in itertools.product(moves, repeat=4):
        ledger, truth = Ledger(), dict[str, str]()
        for holder, group in history:
            if group is not None:
                ledger.occupy(holder, [group])
                truth[holder] = group
            else:
                assert ledger.release(holder) == (truth.pop(holder, None) is not None)
        for group in ("zone/1", "zone/2"):
            assert ledger.used(group) == list(truth.values()).count(group)


def test_a_verification_takes_no_slot_of_a_download() -> None:
    zone = build.zone(spec={"downloads": {"maxParallel": 7, "maxParallelPerHost": 3}})
    groups = verification_groups(build.placement(), zone)
    assert [(group.name, group.limit) for group in groups] == [("verify/zone/zone-1", 7), ("verify/host/kvm-1", 1)]
    names = {group.name for group in groups_of(build.placement(), build.template(), zone, [])}
    assert names.isdisjoint(group.name for group in groups)


def test_the_line_begins_with_those_that_have_space() -> None:
    line, ledger, room = Line(), Ledger(), (Group("zone/a", 1),)
    for name, space in (("small", 1), ("big", 100), ("also-big", 100), ("middle", 50)):
        line.join(name, room, space)
    line.join("small", room, 200)
    order = []
    while (first := line.first(ledger)) is not None:
        order.append(first)
        line.leave(first)
        line.leave(first)
    assert order == ["small", "also-big", "big", "middle"]
    assert len(line) == 0


def test_who_has_no_room_holds_nobody_up() -> None:
    line, ledger = Line(), Ledger()
    ledger.occupy("job", ["host/full"])
    line.join("blocked", (Group("host/full", 1),), 100)
    line.join("free", (Group("host/other", 1),), 1)
    assert line.first(ledger) == "free"
    ledger.release("job")
    assert line.first(ledger) == "blocked"


def test_those_who_wait_for_different_groups_stand_in_one_order() -> None:
    line, ledger = Line(), Ledger()
    a, b = Group("zone/a", 1), Group("zone/b", 1)
    line.join("second", (a, Group("host/1", 1)), 200)
    line.join("first", (b, Group("host/2", 1)), 300)
    line.join("third", (a, Group("host/3", 1)), 100)
    assert line.first(ledger) == "first"
    ledger.occupy("job", ["zone/b"])
    assert line.first(ledger) == "second"
    ledger.occupy("other", ["host/1"])
    assert line.first(ledger) == "third"
    # Its limit is another one now: it is in another queue, and no more in the one before.
    line.join("third", (Group("zone/a", 0), Group("host/3", 1)), 100)
    ledger.occupy("last", ["zone/a"])
    assert line.first(ledger) == "third"
    line.leave("third")
    assert line.first(ledger) is None


def test_a_full_zone_is_passed_over_at_once() -> None:
    class Counting(Ledger):
        looks = 0

        def full_group(self, groups: Sequence[Group]) -> Group | None:
            self.looks += 1
            return super().full_group(groups)

    line, ledger = Line(), Counting()
    for number in range(1000):
        line.join(f"p-{number}", (Group("zone/a", 1), Group(f"host/{number}", 1)), 1)
    ledger.occupy("job", ["zone/a"])
    assert line.first(ledger) is None
    assert ledger.looks == 1
