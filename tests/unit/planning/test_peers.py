"""Which copies read the source: what may be shared, in which pieces, and the part that each copy takes."""

import dataclasses
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, seconds

from directdownload.planning import peers
from directdownload.planning.observed import PlacementView
from directdownload.planning.peers import Content, Facts, Part
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import Step
from directdownload.planning.swarms import LOOKS, Swarm
from directdownload.resources.jobs import JobResult, PeerRole, Verb
from directdownload.resources.peers import MEBIBYTE, content_id
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase, PlacementPeers, Role

SHA256 = "sha256:" + "ab" * 32
CONTENT = Content("c" * 64, MEBIBYTE)


@pytest.mark.parametrize(
    ("spec", "shared"),
    [
        ({"checksum": SHA256}, True),
        ({"checksum": "{SHA-512}" + "AB" * 64}, True),
        ({"checksum": "sha224:" + "ab" * 28}, False),
        ({"checksum": "ab" * 16}, False),
        ({}, False),
        ({"checksum": SHA256, "url": "https://images.example.org/a.qcow2.GZ"}, False),
        ({"checksum": SHA256, "url": "https://images.example.org/a.qcow2?x=.gz"}, True),
        ({"checksum": SHA256, "mirrors": ["https://other.example.org/a.zip"]}, False),
        ({"checksum": SHA256, "url": "https://images.example.org/a.meta4"}, True),
        ({"checksum": SHA256, "url": "nonsense"}, True),
    ],
)
def test_only_a_strong_checksum_of_no_archive_is_shared(spec: Any, shared: bool) -> None:
    assert bool(peers.checksum_of(build.template(spec=spec))) is shared


def swarm(*views: PlacementView) -> Swarm:
    found = Swarm(build.TEMPLATE_UID, "zone-1")
    for view in views:
        found.take(None, view)
    return found


def template(size: int | None = None) -> Any:
    return build.template(spec={"checksum": SHA256}, status={"sizeBytes": size} if size is not None else {})


@pytest.mark.parametrize(
    ("size", "mebibytes"), [(None, 16), (1, 1), (2**30, 1), (2**30 + 1, 2), (2**41, 64), (2**41 + 1, None), (0, None)]
)
def test_the_size_of_a_piece_follows_the_size_of_the_file(size: int | None, mebibytes: int | None) -> None:
    content = swarm().content(template(size))
    assert (content.piece_bytes // MEBIBYTE if content is not None else None) == mebibytes


def ready(host: str, content: str | None = None, **file: Any) -> PlacementView:
    status = build.file_status()
    status["file"] |= {**file, **({"content": content} if content is not None else {})}
    return build.placement(host=host, phase="Ready", status=status)


def pending(host: str, *, failures: int = 0, pause: float | None = None, **told: Any) -> PlacementView:
    status: dict[str, Any] = {"recentFailures": failures}
    if pause is not None:
        status["nextAttemptTime"] = build.stamp(NOW + seconds(pause))
    if told:
        status["peers"] = told
    return build.placement(host=host, phase="Pending", reason=Reason.WAITING_FOR_SEED, status=status)


def test_pieces_stay_as_most_have_them_when_the_size_becomes_known() -> None:
    unknown = content_id(build.TEMPLATE_UID, SHA256, 16 * MEBIBYTE)
    found = swarm(ready("kvm-1", unknown), ready("kvm-2", "f" * 64), ready("kvm-3", "f" * 64))
    jobs = {unknown: 1, "f" * 64: 9}
    for number in (lambda _: 0, lambda content: jobs.get(content, 0)):
        assert found.content(template(2**20), number) == Content(unknown, 16 * MEBIBYTE)
    fresh = swarm().content(template(2**20), lambda content: jobs.get(content, 0))
    assert fresh == Content(unknown, 16 * MEBIBYTE)


def test_pieces_that_are_too_many_for_the_size_give_way_to_larger_ones() -> None:
    unknown = content_id(build.TEMPLATE_UID, SHA256, 16 * MEBIBYTE)
    found = swarm(ready("kvm-1", unknown)).content(template(2**40))
    assert found is not None
    assert found.piece_bytes == 64 * MEBIBYTE


def test_what_turned_out_to_be_an_archive_is_not_shared() -> None:
    one, other = ready("kvm-1", servedBytes=1), ready("kvm-2", servedBytes=1)
    found = swarm(one)
    assert found.content(template()) is not None, "one host is believed about itself alone"
    found.take(None, other)
    assert found.content(template()) is None
    found.take(other, None)
    assert found.content(template()) is not None


def test_what_others_have_recorded_is_no_archive() -> None:
    known = content_id(build.TEMPLATE_UID, SHA256, 16 * MEBIBYTE)
    liars = [ready(f"kvm-{number}", servedBytes=1) for number in range(3)]
    assert swarm(*liars, ready("kvm-9", known)).content(template()) == Content(known, 16 * MEBIBYTE)


def test_an_unpacked_copy_is_not_verified_for_records_that_it_cannot_have() -> None:
    found = swarm(ready("kvm-1", servedBytes=1))
    assert not found.recorder(lambda _: True, NOW)


PATIENT = {"unavailable": 3}


@pytest.mark.parametrize(
    ("told", "facts", "role", "waits"),
    [
        ({}, {"content": None, "served": True}, None, ""),
        ({}, {"certified": False, "served": True}, None, ""),
        ({}, {"served": True}, PeerRole.PEER, ""),
        ({}, {"served": True, "seeding": True}, PeerRole.PEER, ""),
        ({}, {"seeding": True}, None, "another host"),
        ({}, {"recorder": "old"}, None, "old is verified"),
        ({}, {"next_seed": "next"}, None, "next is to read"),
        ({}, {}, PeerRole.SEED, ""),
        ({"unavailable": 2}, {"served": True}, PeerRole.PEER, ""),
        (PATIENT, {"served": True}, PeerRole.SEED, ""),
        (PATIENT, {"served": True, "seeding": True}, None, ""),
        (PATIENT, {"seeding": True}, None, ""),
        ({"distrustedEpoch": 5}, {"served": True, "epoch": 6}, PeerRole.PEER, ""),
        ({"distrustedEpoch": 5}, {"served": True, "epoch": 5}, PeerRole.SEED, ""),
        ({"distrustedEpoch": 5}, {"served": True, "seeding": True, "epoch": 5}, None, "another host"),
        ({}, {"served": True, "refuted": True}, None, ""),
    ],
)
def test_the_part_of_a_copy(told: Any, facts: Any, role: PeerRole | None, waits: str) -> None:
    part = peers.part_of(pending("kvm-1", **told), Facts(**{"content": CONTENT, "certified": True, **facts}))
    assert part.role is role
    assert (part.waits is not None, waits in (part.waits.message if part.waits else "")) == (bool(waits), True)


def test_a_copy_without_records_is_verified_only_while_others_wait() -> None:
    view = ready("kvm-1")
    facts = Facts(CONTENT, certified=True, recorder=view.key, awaited=True)
    assert peers.part_of(view, facts).records
    assert not peers.part_of(view, dataclasses.replace(facts, awaited=False)).records
    assert not peers.part_of(view, dataclasses.replace(facts, recorder="other")).records
    plan = plan_placement(view, build.around(part=Part(CONTENT, records=True)), None, NOW)
    assert (plan.step, plan.role) == (Step.VERIFY, PeerRole.SEED)


def ended(reason: Reason, role: PeerRole | None, **told: Any) -> PlacementPeers:
    job = dataclasses.replace(build.job(result=reason), role=role, epoch=7)
    assert job.result is not None
    return peers.after(pending("kvm-1", **told), job, job.result)


@pytest.mark.parametrize(
    ("reason", "role", "before", "after"),
    [
        (Reason.PEERS_UNAVAILABLE, PeerRole.PEER, None, 1),
        (Reason.PEERS_UNAVAILABLE, PeerRole.PEER, 2, 3),
        (Reason.WRITE_FAILED, PeerRole.PEER, 2, None),
        (Reason.POD_BLOCKED, PeerRole.PEER, 2, 2),
        (Reason.SOURCE_UNAVAILABLE, None, 3, 2),
        (Reason.SOURCE_UNAVAILABLE, PeerRole.SEED, 3, 2),
        (Reason.SOURCE_UNAVAILABLE, PeerRole.SEED, None, None),
        (Reason.DOWNLOADED, None, 3, None),
    ],
)
def test_failures_to_reach_other_hosts_are_counted_in_a_row(
    reason: Reason, role: PeerRole | None, before: int | None, after: int | None
) -> None:
    told = ended(reason, role, **({"unavailable": before} if before else {}))
    assert told.unavailable == after
    assert told.role == (Role.ORIGIN if role is None else Role(role))


def test_a_wrong_file_of_other_hosts_asks_for_a_later_seed() -> None:
    assert ended(Reason.PEERS_DIFFER, PeerRole.PEER).distrusted_epoch == 7
    assert ended(Reason.PEERS_DIFFER, PeerRole.SEED).distrusted_epoch is None
    assert ended(Reason.WRITE_FAILED, PeerRole.PEER, distrustedEpoch=6).distrusted_epoch == 6
    assert ended(Reason.DOWNLOADED, PeerRole.PEER, distrustedEpoch=6).distrusted_epoch is None


@pytest.mark.parametrize(
    ("role", "reason", "phase"),
    [
        (PeerRole.PEER, Reason.PEERS_DIFFER, Phase.PENDING),
        (PeerRole.SEED, Reason.CHECKSUM_MISMATCH, Phase.FAILED),
        (None, Reason.CHECKSUM_MISMATCH, Phase.FAILED),
    ],
)
def test_a_mismatch_is_for_good_unless_another_seed_may_help(
    role: PeerRole | None, reason: Reason, phase: Phase
) -> None:
    view = build.placement(phase="Downloading", reason=Reason.DOWNLOADING, status={"attempts": 1})
    job = dataclasses.replace(build.job(result=reason), role=role)
    plan = plan_placement(view, build.around(part=Part(CONTENT)), job, NOW)
    assert build.told(view, plan)[0] is phase


def test_waiting_for_a_seed_costs_no_attempt_and_ends_no_pause() -> None:
    waits = build.around(part=Part(CONTENT, waits=peers.waiting()))
    view = pending("kvm-1")
    plan = plan_placement(view, waits, None, NOW)
    assert build.told(view, plan)[:2] == (Phase.PENDING, Reason.WAITING_FOR_SEED)
    assert plan.status is not None
    assert plan.status.attempts == view.attempts
    assert plan_placement(pending("kvm-1", pause=60), waits, None, NOW).status is None


def test_a_verification_without_a_role_keeps_what_is_recorded() -> None:
    view = dataclasses.replace(ready("kvm-1", CONTENT.id), attempts=0)
    plan = plan_placement(view, build.around(), build.job("verify", result=Reason.VERIFIED), NOW)
    assert plan.status is not None
    assert plan.status.file is not None
    assert plan.status.file.content == CONTENT.id


def test_a_seeds_verification_records_the_content_that_it_was_given() -> None:
    view = dataclasses.replace(ready("kvm-1"), attempts=0)
    result = JobResult(reason=Reason.VERIFIED, content=CONTENT.id)
    for given, kept in ((CONTENT.id, CONTENT.id), ("d" * 64, None)):
        job = dataclasses.replace(build.job("verify", result=result), role=PeerRole.SEED, content=given)
        assert job.verb is Verb.VERIFY
        plan = plan_placement(view, build.around(), job, NOW)
        assert plan.status is not None
        assert plan.status.file is not None
        assert plan.status.file.content == kept


def test_without_peers_nothing_of_them_is_written() -> None:
    view = build.placement(phase="Downloading", reason=Reason.DOWNLOADING, status={"attempts": 1})
    job = build.job(result=JobResult(reason=Reason.DOWNLOADED, origin_bytes=5, content="c" * 64))
    status = plan_placement(view, build.around(), job, NOW).status
    assert status is not None
    assert status.file is not None
    assert (status.peers, status.file.content, status.file.bytes_from) == (None, None, None)


# The order of Seeds


def anybody(_: PlacementView) -> bool:
    return True


def test_the_next_seed_is_the_same_for_all_and_another_for_another_template() -> None:
    views = [pending(f"kvm-{number}") for number in range(50)]
    first = swarm(*views).next_seed(anybody, NOW)
    assert swarm(*reversed(views)).next_seed(anybody, NOW) == first
    hosts = {min((peers.turn(f"uid-{each}", view.host), view.host) for view in views)[1] for each in range(30)}
    assert len(hosts) > 10


def test_the_next_seed_stays_while_it_can_start() -> None:
    views = {view.key: view for view in (pending(f"kvm-{number}") for number in range(5))}
    found = swarm(*views.values())
    first = found.next_seed(anybody, NOW)
    second = found.next_seed(lambda view: view.key != first, NOW)
    assert second != first
    # The first one can start again, and the second has been asked.
    assert found.next_seed(anybody, NOW) == second
    found.take(views[second], dataclasses.replace(views[second], recent_failures=2))
    assert found.next_seed(anybody, NOW) == first


@pytest.mark.parametrize(
    ("failures", "pause", "again"), [(0, None, True), (1, 5, True), (1, 60, False), (2, 5, False), (2, -1, False)]
)
def test_the_last_seed_is_the_next_one_for_a_short_while(failures: int, pause: float | None, again: bool) -> None:
    last = pending("kvm-9", failures=failures, pause=pause, role="Seed")
    others = [pending(f"kvm-{number}") for number in range(20)]
    assert (swarm(*others, last).next_seed(anybody, NOW) == last.key) is again


def test_who_fails_often_comes_last_and_who_pauses_waits() -> None:
    views = [pending("kvm-1", failures=4), pending("kvm-2", failures=2), pending("kvm-3", pause=60)]
    found = swarm(*views)
    assert found.next_seed(anybody, NOW) == views[1].key
    assert swarm(views[2]).next_seed(anybody, NOW) == ""
    assert swarm(views[2]).next_seed(anybody, NOW + seconds(61)) == views[2].key


def test_a_recorder_that_records_nothing_gives_way() -> None:
    views = [ready("kvm-1"), ready("kvm-2"), ready("kvm-3", "c" * 64)]
    found = swarm(*views)
    first = found.recorder(anybody, NOW)
    found.barren(first)
    second = found.recorder(anybody, NOW)
    assert {first, second} == {views[0].key, views[1].key}
    found.barren(second)
    assert found.recorder(anybody, NOW) == ""


def test_a_search_for_an_old_copy_that_found_none_is_not_repeated_at_once() -> None:
    looked: list[str] = []

    def unable(view: PlacementView) -> bool:
        looked.append(view.key)
        return False

    found = swarm(*(ready(f"kvm-{number}") for number in range(50)))
    for _ in range(10):
        assert found.recorder(unable, NOW) == ""
    assert len(looked) == 50
    assert found.recorder(anybody, NOW) == ""
    first = found.recorder(anybody, NOW + seconds(1))
    assert found.recorder(anybody, NOW) == first != ""


@pytest.mark.parametrize("kind", [ready, pending])
def test_a_search_among_thousands_looks_at_a_few_and_goes_on_from_there(kind: Any) -> None:
    """A look at each of 5,000 copies that cannot start would take a third of a second, at every change of one."""
    found = swarm(*(kind(f"kvm-{number}") for number in range(5000)))
    search = found.recorder if kind is ready else found.next_seed
    looked: list[str] = []

    def unable(view: PlacementView) -> bool:
        looked.append(view.key)
        return False

    for _ in range(20):
        before = len(looked)
        assert search(unable, NOW) == ""
        assert len(looked) - before <= LOOKS
    assert len(looked) == len(set(looked)) == 5000
    assert search(unable, NOW) == search(anybody, NOW) == ""
    last = looked[-1]
    searches = [search(lambda view: view.key == last, NOW + seconds(1)) for _ in range(20)]
    assert searches == [*[""] * 19, last]
    assert search(anybody, NOW + seconds(1)) == last


def test_the_host_that_can_be_asked_stays_the_same_while_it_can() -> None:
    views = [ready(f"kvm-{number}", "c" * 64) for number in range(5)]
    found = swarm(*views)
    first = found.server(anybody)
    second = found.server(lambda view: view.key != first)
    assert second not in ("", first)
    assert found.server(anybody) == second
    assert found.server(lambda _: False) == ""


def test_a_copy_that_is_asked_is_asked_again_after_a_minute_or_another_seed() -> None:
    found = swarm()
    assert not found.ask("", NOW)
    assert found.ask("a", NOW)
    assert not found.ask("a", NOW + seconds(59))
    assert found.ask("a", NOW + seconds(60))
    assert found.ask("b", NOW)
    found.asked()
    assert found.ask("b", NOW)


@pytest.mark.parametrize("number", [3, 400])
def test_a_swarm_forgets_what_is_gone(number: int) -> None:
    views = [
        each(f"kvm-{place}") if place % 3 else ready(f"kvm-{place}", "c" * 64)
        for place, each in zip(range(number), [pending, ready, pending] * number, strict=False)
    ]
    found = swarm(*views)
    for view in views[::2]:
        found.take(view, None)
    rest = swarm(*views[1::2])
    assert sorted(found.wanting) == sorted(rest.wanting)
    assert sorted(found.ahead) == sorted(rest.ahead)
    servers = {view.key for view in views[1::2] if view.file is not None and view.file.content is not None}
    assert found.server(anybody) in (servers or {""})
    for view in views[1::2]:
        found.take(view, None)
    assert (len(found), len(found.wanting), len(found.ahead), found.content(template())) == (
        0,
        0,
        0,
        swarm().content(template()),
    )


def test_a_copy_that_is_to_go_or_has_failed_is_nobodys_candidate() -> None:
    gone = [
        build.placement(host="kvm-1", phase="Removing", reason=Reason.REMOVED),
        build.placement(host="kvm-2", phase="Failed", reason=Reason.SOURCE_REFUSED),
        build.placement(host="kvm-3", phase="Pending", reason=Reason.WAITING_FOR_SEED, deleting=True),
        ready("kvm-4"),
    ]
    found = swarm(*gone)
    assert (list(found.wanting), list(found.ahead)) == ([], [])


# Candidates


def test_candidates_are_sixteen_of_which_six_are_ahead() -> None:
    wanting = [f"kvm-{number}" for number in range(5000)]
    ahead = wanting[:100]
    found = peers.candidates("c" * 64, "kvm-7", ahead, wanting, lambda _: True)
    assert len(set(found)) == len(found) == 16
    assert "kvm-7" not in found
    assert sum(host in ahead for host in found) >= 6
    assert found == peers.candidates("c" * 64, "kvm-7", ahead, wanting, lambda _: True)
    assert found != peers.candidates("c" * 64, "kvm-8", ahead, wanting, lambda _: True)
    assert found != peers.candidates("d" * 64, "kvm-7", ahead, wanting, lambda _: True)


def test_every_host_is_somebodys_candidate() -> None:
    wanting = [f"kvm-{number}" for number in range(1000)]
    asked = {each for host in wanting for each in peers.candidates("c" * 64, host, [], wanting, lambda _: True)}
    assert len(asked) == 1000


def test_candidates_can_be_read_for_all_that_is_known() -> None:
    wanting = [f"kvm-{number}" for number in range(40)]
    found = peers.candidates("c" * 64, "kvm-0", wanting, wanting, lambda host: host in ("kvm-0", "kvm-5", "kvm-6"))
    assert sorted(found) == ["kvm-5", "kvm-6"]


def test_the_candidates_of_one_job_cost_a_few_looks_however_many_hosts_there_are() -> None:
    looked: list[str] = []

    def usable(host: str) -> bool:
        looked.append(host)
        return False

    wanting = [f"kvm-{number}" for number in range(5000)]
    assert peers.candidates("c" * 64, "kvm-0", wanting, wanting, usable) == []
    assert len(looked) <= 2 * 128


def test_epochs_grow_whatever_the_clock_says() -> None:
    assert peers.next_epoch(0, 100.9) == 100
    assert peers.next_epoch(100, 100.9) == 101
    assert peers.next_epoch(200, 100) == 201


def test_a_zone_counts_the_copies_that_reach_no_other_host() -> None:
    views = [pending("kvm-1", unavailable=3), pending("kvm-2", unavailable=2), pending("kvm-3")]
    assert peers.unreached(views) == ["kvm-1"]
