"""What the copies of a deployment wait for: counts that add up, a reason that is true, and no word about others."""

import random
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW

from directdownload.planning import quotas, waits
from directdownload.planning.observed import PlacementView
from directdownload.planning.rollouts import plan_deployment
from directdownload.planning.selection import Fleet
from directdownload.resources.reasons import DONE, PERMANENT, TRANSIENT, WAITING, Reason
from directdownload.resources.templatedeployment import MESSAGE_LENGTH, TemplateDeploymentStatus, WaitingCopies
from directdownload.resources.templateplacement import Phase

HOSTS = [build.host(f"kvm-{number}") for number in range(9)]
PHASES = (None, "Pending", "Pending", "Downloading", "Ready", "Failed", "Removing", "Unheard-of")
REASONS = sorted(WAITING | TRANSIENT | {Reason.MISSING, Reason.PAUSED, Reason.DOWNLOADING, Reason.UNKNOWN})


def drawn(rng: random.Random) -> tuple[Fleet, list[PlacementView], dict[str, Any]]:
    """A fleet, copies in any phase, and the spec of the one deployment."""
    hosts = rng.sample(HOSTS, rng.randint(1, len(HOSTS)))
    copies = [
        build.placement(
            host=host.name,
            phase=(phase := rng.choice(PHASES)),
            reason={"Ready": Reason.DOWNLOADED, "Failed": rng.choice(sorted(PERMANENT))}.get(
                phase or "", rng.choice([*REASONS, Reason.HOST_DOWN])
            ),
        )
        for host in hosts
        if rng.random() < 0.8
    ]
    usage = quotas.Usage({quotas.ALL: 9}, rng.choice([0, 0, 1]))
    zone = build.zone(spec={"enabled": rng.random() < 0.9})
    spec = {
        "hosts": rng.sample([host.name for host in HOSTS], 3) if rng.random() < 0.3 else [],
        "rollout": {"paused": rng.random() < 0.1},
    }
    return build.fleet(hosts, zones=[zone], usage=usage), copies, spec


@pytest.mark.parametrize("seed", range(300))
def test_counts_add_up_and_the_reason_is_true_in_every_world(seed: int) -> None:
    rng = random.Random(seed)
    fleet, copies, spec = drawn(rng)
    template = build.template(ready=rng.random() < 0.9)
    deployment = build.deployment(spec=spec)
    unreadable = rng.sample([each.key for each in copies], min(len(copies), rng.choice([0, 1])))
    existing = build.by_key(*(each for each in copies if each.key not in unreadable))
    status = plan_deployment(deployment, template, fleet, existing, NOW, unreadable=unreadable)
    build.check_resource(deployment, status)
    counts = status.placements
    assert counts is not None
    assert counts.desired == counts.ready + counts.downloading + counts.pending + counts.failed
    assert counts.pending == sum(entry.count for entry in status.waiting)
    assert len({entry.reason for entry in status.waiting}) == len(status.waiting)
    for entry in status.waiting:
        assert 1 <= len(entry.hosts) <= min(entry.count, 5)
        assert list(entry.hosts) == sorted(entry.hosts)
        assert entry.reason not in (DONE - {Reason.REMOVED}) | {Reason.DOWNLOADING}
    downloads = [each for each in existing.values() if each.phase is Phase.DOWNLOADING]
    assert counts.downloading <= len(downloads)
    if status.conditions[0].reason is Reason.DOWNLOADING:
        assert counts.downloading
    if status.conditions[0].reason is Reason.CONVERGED:
        assert counts.ready == counts.desired
        assert not status.waiting


def told(*copies: PlacementView, hosts: int = 4, **spec: Any) -> TemplateDeploymentStatus:
    fleet = build.fleet(HOSTS[:hosts])
    return plan_deployment(build.deployment(spec=spec), build.template(), fleet, build.by_key(*copies), NOW)


def copy(number: int, phase: str, reason: Reason, message: str = "") -> PlacementView:
    said = build.placement_document(host=f"kvm-{number}", phase=phase, reason=reason)
    for condition in said["status"]["conditions"]:
        condition["message"] = message or condition["message"]
    return build.VIEWS.placement(said)


@pytest.mark.parametrize("phase", ["Pending", "Downloading"])
def test_a_deployment_whose_hosts_are_down_says_so_and_not_that_it_downloads(phase: str) -> None:
    ready = copy(0, "Ready", Reason.DOWNLOADED)
    status = told(ready, *(copy(number, phase, Reason.HOST_DOWN, "no power") for number in (3, 1, 2)))
    counts = status.placements
    assert counts is not None
    assert (counts.desired, counts.ready, counts.downloading, counts.pending) == (4, 1, 0, 3)
    expected = WaitingCopies(reason=Reason.HOST_DOWN, count=3, hosts=("kvm-1", "kvm-2", "kvm-3"), message="no power")
    assert status.waiting == (expected,)
    assert status.conditions[0].reason is Reason.HOST_DOWN
    assert status.conditions[0].message == "1 of 4 copies are verified; waiting: 3 HostDown (kvm-1, kvm-2, kvm-3)"


def test_each_reason_is_counted_and_what_moves_on_by_itself_gives_the_reason() -> None:
    status = told(
        copy(0, "Pending", Reason.HOST_DOWN),
        copy(1, "Pending", Reason.HOST_DOWN),
        copy(2, "Pending", Reason.WAITING_FOR_SLOT),
        copy(3, "Pending", Reason.INSUFFICIENT_SPACE),
    )
    assert [(entry.reason, entry.count) for entry in status.waiting] == [
        (Reason.HOST_DOWN, 2),
        (Reason.INSUFFICIENT_SPACE, 1),
        (Reason.WAITING_FOR_SLOT, 1),
    ]
    assert status.conditions[0].reason is Reason.WAITING_FOR_SLOT
    left = told(copy(0, "Pending", Reason.MAINTENANCE), copy(1, "Pending", Reason.POD_BLOCKED), hosts=2)
    assert left.conditions[0].reason is Reason.MAINTENANCE


def test_while_something_downloads_the_reason_is_that_and_the_message_says_what_waits() -> None:
    status = told(copy(0, "Downloading", Reason.DOWNLOADING), copy(1, "Pending", Reason.MAINTENANCE), hosts=2)
    assert status.conditions[0].reason is Reason.DOWNLOADING
    assert status.conditions[0].message == "0 of 2 copies are verified; waiting: 1 Maintenance (kvm-1)"


def test_a_failed_copy_hides_none_that_waits() -> None:
    status = told(copy(0, "Failed", Reason.CHECKSUM_MISMATCH), copy(1, "Pending", Reason.HOST_DOWN), hosts=2)
    assert (status.conditions[0].reason, status.conditions[1].status) == (Reason.PLACEMENTS_FAILED, "True")
    assert "; waiting: 1 HostDown (kvm-1)" in status.conditions[0].message


def test_of_thousands_a_few_are_named() -> None:
    hosts = [f"kvm-{number:04}" for number in range(5000)]
    (entry,) = waits.counted(waits.Wait(Reason.HOST_DOWN, host, "x" * 9999) for host in reversed(hosts))
    assert (entry.count, list(entry.hosts)) == (5000, hosts[:5])
    assert len(entry.message) == MESSAGE_LENGTH
    assert waits.words([entry]) == "5000 HostDown (kvm-0000, kvm-0001, kvm-0002, …)"
    many = [entry.model_copy(update={"reason": reason}) for reason in sorted(WAITING)]
    assert waits.words(many).endswith(f" and {len(WAITING) - 3} more")


LIMIT = "1 downloads run at once for deployment/{}; this copy waits for one of them to end"


@pytest.mark.parametrize(("key", "shown"), [("default/everywhere", True), ("secret/other", False)])
def test_only_the_own_limit_is_named(key: str, shown: bool) -> None:
    message = LIMIT.format(key)
    (entry,) = told(copy(0, "Pending", Reason.WAITING_FOR_SLOT, message), hosts=1).waiting
    assert entry.message == (message if shown else "")


def test_disks_of_others_are_not_named() -> None:
    (entry,) = told(copy(0, "Removing", Reason.IN_USE, "backing file of secret.qcow2"), hosts=1).waiting
    assert (entry.reason, entry.message) == (Reason.IN_USE, "")


def test_what_copies_wait_for_is_one_stage_and_what_the_deployment_waits_for_is_another() -> None:
    passing = {Reason.HOST_DOWN, Reason.WAITING_FOR_SLOT, Reason.SOURCE_UNREACHABLE, Reason.PREPARING, Reason.MISSING}
    assert {waits.stage(reason) for reason in passing} == {Reason.DOWNLOADING}
    own = {Reason.CONVERGED, Reason.PAUSED, Reason.ZONE_DISABLED, Reason.PLACEMENTS_FAILED, Reason.HOST_NOT_FOUND}
    assert {waits.stage(reason) for reason in own} == own


def test_a_reason_of_another_version_is_unknown() -> None:
    entry = WaitingCopies.model_validate({"reason": "Bewitched", "count": 1})
    assert entry.reason is Reason.UNKNOWN
