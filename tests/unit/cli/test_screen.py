"""The lines that a user sees of work under way."""

import dataclasses
import datetime

from tests.unit.cli.support import MIB, condition, deployment, placement

from directdownload.cli import rollout
from directdownload.cli.view import screen
from directdownload.cli.view.screen import Mood
from directdownload.resources.templateplacement import TemplatePlacement

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


def line(item: TemplatePlacement) -> screen.Line:
    return rollout.screen(rollout.snapshot(deployment(), [item]), NOW).lines[0]


def test_a_download_tells_percent_rate_and_time_left() -> None:
    shown = line(placement("kvm-1", "Downloading", done=45 * MIB, total=100 * MIB, rate=12_897_485, eta=8))
    assert shown.text() == "kvm-1  local  Downloading  45 %  45.0 MiB / 100.0 MiB  12.3 MiB/s  ETA 8 s"
    assert shown.text((7, 5)) == "kvm-1    local  Downloading  45 %  45.0 MiB / 100.0 MiB  12.3 MiB/s  ETA 8 s"
    assert shown.mood is Mood.ACTIVE


def test_a_download_that_has_not_reported_yet() -> None:
    assert line(placement("kvm-1", "Downloading")).text() == "kvm-1  local  Downloading"


def test_a_copy_that_is_there() -> None:
    shown = line(placement("kvm-1", "Ready", total=256 * MIB, reason="Downloaded"))
    assert shown.text() == "kvm-1  local  Ready  256.0 MiB"
    assert (shown.percent, shown.mood) == (100, Mood.DONE)


def test_waiting_and_failing_say_why() -> None:
    waiting = line(placement("kvm-1", "Pending", reason="WaitingForSlot"))
    assert (waiting.text(), waiting.mood) == ("kvm-1  local  Pending  WaitingForSlot", Mood.WAITING)
    failed = line(placement("kvm-1", "Failed", reason="ChecksumMismatch"))
    assert (failed.text(), failed.mood) == ("kvm-1  local  Failed  ChecksumMismatch", Mood.FAILED)


def test_a_retry_tells_when() -> None:
    later = {"reason": "SourceUnreachable", "next_attempt": "2026-05-01T12:00:40Z"}
    shown = line(placement("kvm-1", "Pending", done=50, total=100, **later))  # type: ignore[arg-type]
    assert shown.text() == "kvm-1  local  Pending  50 %  SourceUnreachable, next attempt in 40 s"
    assert shown.mood is Mood.FAILED


def test_total() -> None:
    state = rollout.snapshot(
        deployment(),
        [
            placement("k1", "Ready", total=100 * MIB),
            placement("k2", "Downloading", done=0, total=100 * MIB, rate=10 * MIB),
            placement("k3", "Failed", reason="ChecksumMismatch"),
        ],
    )
    total = rollout.screen(state, NOW).total
    assert total.text() == "total    1 of 3 ready  33 %  100.0 MiB / 300.0 MiB  10.0 MiB/s  ETA 20 s, 1 failed"


def test_total_of_nothing_says_why_there_is_nothing() -> None:
    state = rollout.snapshot(deployment(conditions=[condition("Ready", "False", "NoMatchingHosts")]))
    assert rollout.screen(state, NOW).total.text() == "total    0 of 0 ready  NoMatchingHosts"


def test_a_crowded_screen_shows_failures_then_active_ones() -> None:
    items = [placement(f"k{n:02}", "Ready", total=1) for n in range(30)]
    items += [placement(f"n{n}", "Downloading", done=0, total=1) for n in range(3)]
    items += [placement("z", "Failed", reason="ChecksumMismatch")]
    drawn = rollout.screen(rollout.snapshot(deployment(), items), NOW)
    assert drawn.crowded
    assert [shown.labels[0] for shown in drawn.shown(10)] == ["z", "n0", "n1", "n2"]
    assert [shown.labels[0] for shown in drawn.shown(2)] == ["z", "n0"]


def test_a_small_screen_shows_everything() -> None:
    items = [placement(f"k{n:02}", "Ready", total=1) for n in range(screen.FULL_SCREEN_LINES)]
    drawn = rollout.screen(rollout.snapshot(deployment(), items), NOW)
    assert not drawn.crowded
    assert len(drawn.shown(1)) == screen.FULL_SCREEN_LINES


def test_deployments() -> None:
    states = [
        rollout.snapshot(
            deployment("a", conditions=[condition("Ready", "True", "Converged")], status={"placements": {"desired": 1}})
        ),
        rollout.snapshot(
            deployment(
                "b",
                conditions=[condition("Stalled", "True", "PlacementsFailed")],
                status={"placements": {"desired": 2, "failed": 1}, "bytes": {"total": 10, "downloaded": 4}},
            )
        ),
    ]
    drawn = rollout.screen_of_all(states)
    assert [shown.text() for shown in drawn.lines] == [
        "ns  a  0 of 1 ready  0 B",
        "ns  b  0 of 2 ready  40 %  PlacementsFailed",
    ]
    assert drawn.total.text() == "total    1 of 2 deployments ready  40 %  1 failed"


def test_deployments_that_are_under_way_tell_rate_and_time_left() -> None:
    status = {"bytes": {"total": 100 * MIB, "downloaded": 50 * MIB}, "placements": {"desired": 1, "downloading": 1}}
    state = rollout.snapshot(deployment("a", conditions=[condition("Ready", "False", "Downloading")], status=status))
    states = [dataclasses.replace(state, bytes_per_second=rate) for rate in (10 * MIB, 15 * MIB)]
    drawn = rollout.screen_of_all(states)
    assert [shown.text() for shown in drawn.lines] == [
        "ns  a  0 of 1 ready  50 %  50.0 MiB / 100.0 MiB  10.0 MiB/s  ETA 5 s",
        "ns  a  0 of 1 ready  50 %  50.0 MiB / 100.0 MiB  15.0 MiB/s  ETA 3 s",
    ]
    assert drawn.total.text() == ("total    0 of 2 deployments ready  50 %  100.0 MiB / 200.0 MiB  25.0 MiB/s  ETA 4 s")


def test_while_nothing_downloads_the_total_says_why() -> None:
    status = {"placements": {"desired": 2, "ready": 1, "pending": 1}}
    state = rollout.snapshot(deployment(conditions=[condition("Ready", "False", "HostDown")], status=status))
    assert rollout.screen(state, NOW).total.text() == "total    1 of 2 ready  HostDown"
    moving = {"placements": {"desired": 2, "downloading": 1, "pending": 1}}
    state = rollout.snapshot(deployment(conditions=[condition("Ready", "False", "Downloading")], status=moving))
    assert "Downloading" not in rollout.screen(state, NOW).total.text()
