"""Which of several installations leads, by what a process sees of their Leases on its own clock."""

import dataclasses
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directdownload.planning import installations
from directdownload.planning.installations import Motion, Record, Sightings, Verdict

BEGINNING = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LOOK_SECONDS = 10.0


def record(namespace: str = "a", age_seconds: float = 0, holder: str = "pod", renewed: int = 0) -> Record:
    """`age_seconds`: so much older than the beginning."""
    created = BEGINNING - datetime.timedelta(seconds=age_seconds)
    return Record(namespace, "controller", f"uid-{namespace}", created, holder, str(renewed), 0)


OWN = record("own", 100)
OLDER, YOUNGER = record("older", 200), record("younger", 50)


def watch(*looks: tuple[float, Record | None]) -> tuple[Sightings, float]:
    """After looks at these moments, of which the ones with None failed."""
    seen: Sightings = {}
    last: float | None = None
    now = 0.0
    for now, found in looks:
        if found is None:
            last = None
        else:
            seen, last = installations.look(seen, [found], now, last), now
    return seen, now


def moved(lease: Record, number: int, holder: str = "pod") -> Record:
    return dataclasses.replace(lease, renewed=str(number), holder=holder)


GIVEN_BACK = dataclasses.replace(OLDER, holder="")
CASES = [
    ("seen once", [(0.0, OLDER)], Motion.UNKNOWN),
    ("seen to change", [(0.0, OLDER), (2.0, moved(OLDER, 1))], Motion.MOVES),
    ("hands over: nobody holds it for now", [(0.0, OLDER), (2.0, moved(OLDER, 1, holder=""))], Motion.MOVES),
    (
        "fails over, as long as that takes",
        [(0.0, OLDER), (2.0, moved(OLDER, 1)), (22.0, moved(OLDER, 1))],
        Motion.MOVES,
    ),
    (
        "moved, and has stood still since",
        [
            (0.0, OLDER),
            (2.0, moved(OLDER, 1)),
            (12.0, moved(OLDER, 1)),
            (22.0, moved(OLDER, 1)),
            (32.0, moved(OLDER, 1)),
        ],
        Motion.STANDS_STILL,
    ),
    ("somebody holds it, and it stands still", [(0.0, OLDER), (20.0, OLDER), (29.9, OLDER)], Motion.UNKNOWN),
    ("for long enough", [(0.0, OLDER), (20.0, OLDER), (30.0, OLDER)], Motion.STANDS_STILL),
    ("given back", [(0.0, GIVEN_BACK), (2.0, GIVEN_BACK)], Motion.UNKNOWN),
    ("given back for good", [(0.0, GIVEN_BACK), (2.0, GIVEN_BACK), (6.0, GIVEN_BACK)], Motion.STANDS_STILL),
    ("was not looked at for too long", [(0.0, OLDER), (26.0, OLDER), (40.0, OLDER)], Motion.UNKNOWN),
    ("a look failed in between", [(0.0, OLDER), (10.0, OLDER), (20.0, None), (30.0, OLDER)], Motion.UNKNOWN),
    (
        "moved before a time of which nothing is known",
        [(0.0, OLDER), (2.0, moved(OLDER, 1)), (40.0, moved(OLDER, 1))],
        Motion.UNKNOWN,
    ),
    (
        "was made anew",
        [(0.0, OLDER), (2.0, dataclasses.replace(moved(OLDER, 1), uid="another"))],
        Motion.UNKNOWN,
    ),
]


@pytest.mark.parametrize(("looks", "motion"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_lease_moves_stands_still_or_has_to_be_watched(
    looks: list[tuple[float, Record | None]], motion: Motion
) -> None:
    seen, now = watch(*looks)
    (sighting,) = seen.values()
    assert sighting.motion(now) is motion


@pytest.mark.parametrize(
    ("own", "other", "leads"),
    [
        (OWN, OLDER, True),
        (OWN, YOUNGER, False),
        (None, YOUNGER, True),
        (OWN, dataclasses.replace(OWN, namespace="a", uid="x"), True),
        (OWN, dataclasses.replace(OWN, namespace="z", uid="x"), False),
        (OWN, dataclasses.replace(OWN, name="a", uid="x"), True),
    ],
    ids=[
        "older",
        "younger",
        "we have no Lease yet",
        "as old, before us",
        "as old, behind us",
        "as old, same namespace",
    ],
)
def test_the_older_one_leads_if_it_moves(own: Record | None, other: Record, leads: bool) -> None:
    now = moved(other, 1)
    assert installations.judge(own, *watch((0, other), (2, now))) == Verdict(now if leads else None, sure=True)
    assert installations.judge(own, *watch((0, other))) == Verdict(None, sure=not leads)


def test_of_several_that_move_the_oldest_leads() -> None:
    leases = [record(name, age) for name, age in (("x", 300), ("y", 500), ("z", 400))]
    seen = installations.look({}, leases, 0, None)
    seen = installations.look(seen, [moved(lease, 1) for lease in leases], 2, 0)
    leader = installations.judge(OWN, seen, 2).leader
    assert leader is not None
    assert leader.namespace == "y"


def test_alone_nothing_is_waited_for() -> None:
    assert installations.judge(None, {}, 0) == Verdict(None, sure=True)
    assert installations.judge(OWN, {}, 0) == Verdict(None, sure=True)


@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from("ab"), st.sampled_from("ab"))
def test_of_two_that_see_each_other_move_just_one_leads(
    one_age: int, other_age: int, one_name: str, other_name: str
) -> None:
    one, other = record(f"x{one_name}", one_age), record(f"y{other_name}", other_age)
    outdone = [
        installations.judge(own, *watch((0, seen), (2, moved(seen, 1)))).leader is not None
        for own, seen in ((one, other), (other, one))
    ]
    assert sum(outdone) == 1


@given(st.lists(st.floats(0.5, 19), min_size=1, max_size=30), st.floats(1, 10))
def test_who_watches_never_jumps_in_while_the_older_one_fails_over(pauses: list[float], look_seconds: float) -> None:
    """`pauses` between renewals are those of failovers; the watcher looks every so many seconds."""
    renewals = [sum(pauses[:number]) for number in range(len(pauses) + 1)]
    seen: Sightings = {}
    last, now = None, 0.0
    while now <= renewals[-1]:
        found = moved(OLDER, sum(each <= now for each in renewals))
        seen = installations.look(seen, [found], now, last)
        verdict = installations.judge(OWN, seen, now)
        assert verdict.leader is not None or not verdict.sure
        last, now = now, now + look_seconds


@given(st.floats(0.5, 10), st.booleans())
def test_who_watches_leads_in_time_when_the_older_one_has_ended(look_seconds: float, given_back: bool) -> None:
    last_words = moved(OLDER, 9, holder="" if given_back else "pod")
    seen = installations.look({}, [OLDER], 0, None)
    now, last = look_seconds, 0.0
    while True:
        seen = installations.look(seen, [last_words], now, last)
        verdict = installations.judge(OWN, seen, now)
        if verdict == Verdict(None, sure=True):
            break
        last, now = now, now + look_seconds
        assert now < 60
    assert now - look_seconds >= installations.STILL_SECONDS
