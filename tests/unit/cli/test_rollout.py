"""Where a deployment stands."""

from typing import Any

import pytest
from tests.unit.cli.support import MIB, condition, deployment, placement

from directdownload.cli import rollout
from directdownload.cli.rollout import End

READY = condition("Ready", "True", "Converged")
NOT_READY = condition("Ready", "False", "Downloading")
STALLED = condition("Stalled", "True", "PlacementsFailed")


@pytest.mark.parametrize(
    ("generation", "observed", "conditions", "end"),
    [
        (1, 1, [READY], End.READY),
        (1, 1, [NOT_READY], End.RUNNING),
        (1, 1, [], End.RUNNING),
        (1, None, [READY], End.RUNNING),
        # said of the spec before the last change
        (2, 1, [READY], End.RUNNING),
        (2, 1, [NOT_READY, STALLED], End.RUNNING),
        (2, 2, [{**READY, "observedGeneration": 1}], End.RUNNING),
        (2, 2, [{**READY, "observedGeneration": 2}], End.READY),
        (1, 1, [NOT_READY, STALLED], End.STALLED),
        (1, 1, [READY, {**STALLED, "status": "False"}], End.READY),
    ],
)
def test_verdict(generation: int, observed: int | None, conditions: list[dict[str, Any]], end: End) -> None:
    state = rollout.snapshot(deployment(generation=generation, observed=observed, conditions=conditions))
    assert state.end is end


def test_the_reason_of_a_stalled_one_is_that_of_the_stall() -> None:
    assert rollout.snapshot(deployment(conditions=[NOT_READY, STALLED])).reason == "PlacementsFailed"


def test_counts_and_bytes_from_placements() -> None:
    state = rollout.snapshot(
        deployment(status={"placements": {"desired": 5}}),
        [
            placement("k2", "Downloading", done=25 * MIB, total=100 * MIB, rate=2 * MIB),
            placement("k1", "Ready", total=100 * MIB),
            placement("k3"),
            placement("k4", "Failed", done=10 * MIB, total=100 * MIB, rate=9, reason="ChecksumMismatch"),
        ],
    )
    assert [item.spec.host for item in state.placements] == ["k1", "k2", "k3", "k4"]
    assert (state.desired, state.ready, state.downloading, state.pending, state.failed) == (5, 1, 1, 1, 1)
    # two copies have not started: they are as large as the others
    assert (state.bytes_downloaded, state.bytes_total) == (135 * MIB, 500 * MIB)
    assert state.bytes_per_second == 2 * MIB
    assert state.eta_seconds == 182


def test_an_unpacked_copy_counts_the_bytes_of_its_archive() -> None:
    """The sums must not jump when a copy is unpacked: its neighbours download the archive."""
    state = rollout.snapshot(
        deployment(status={"placements": {"desired": 3}}),
        [
            placement("k1", "Ready", total=124 * MIB, served=10 * MIB),
            placement("k2", "Downloading", done=5 * MIB, total=10 * MIB),
        ],
    )
    assert (state.bytes_downloaded, state.bytes_total) == (15 * MIB, 30 * MIB)
    assert [rollout.size_of(item) for item in state.placements] == [10 * MIB, 10 * MIB]


def test_without_placements_the_deployment_sums_up() -> None:
    status = {
        "placements": {"desired": 9, "ready": 2, "downloading": 3, "pending": 3, "failed": 1},
        "bytes": {"total": 900, "downloaded": 250},
    }
    state = rollout.snapshot(deployment(status=status))
    assert (state.desired, state.ready, state.downloading, state.pending, state.failed) == (9, 2, 3, 3, 1)
    assert (state.bytes_downloaded, state.bytes_total, state.eta_seconds) == (250, 900, None)


@pytest.mark.parametrize(
    ("spec", "hosts"),
    [
        ({}, ["k1", "k2"]),
        ({"hosts": ["k2"]}, ["k2"]),
        ({"pools": ["other"]}, []),
        ({"hostSelector": {"matchLabels": {"rack": "a"}}}, ["k1"]),
    ],
)
def test_only_the_placements_that_the_deployment_wants(spec: dict[str, Any], hosts: list[str]) -> None:
    candidates = [
        placement("k1"),
        placement("k2"),
        placement("k1", zone="elsewhere"),
        placement("k1", template="another"),
    ]
    state = rollout.snapshot(deployment(**spec), candidates, {"k1": {"rack": "a"}})
    if "hostSelector" not in spec:
        state = rollout.snapshot(deployment(**spec), candidates)
    assert [item.spec.host for item in state.placements] == hosts


def test_copies_that_go_are_shown_but_not_counted() -> None:
    state = rollout.snapshot(deployment(), [placement("k1", "Removing"), placement("k2", "Ready", total=MIB)])
    assert len(state.placements) == 2
    assert (state.desired, state.ready, state.bytes_total) == (1, 1, MIB)


def test_a_download_on_a_host_that_is_down_waits() -> None:
    state = rollout.snapshot(deployment(), [placement("k1", "Downloading", done=1, total=2, reason="HostDown")])
    assert (state.downloading, state.pending) == (0, 1)


def test_the_failures_have_their_causes_for_users_who_see_the_placements() -> None:
    told = {"host": "k1", "pool": "local", "reason": "SourceUnreachable", "message": "no source answers"}
    failing = deployment(conditions=[NOT_READY, STALLED], status={"failures": [told]})
    assert "SourceUnreachable" in rollout.failure_table(rollout.snapshot(failing))
    copies = [placement("k1", "Failed", reason="UnsupportedProtocol")]
    table = rollout.failure_table(rollout.snapshot(failing, copies))
    assert "UnsupportedProtocol" in table
    assert "SourceUnreachable" not in table
