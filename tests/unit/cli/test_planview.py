"""A plan as it is printed."""

import dataclasses
import types
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload import sourcing
from directdownload.cli import plan, planview
from directdownload.cluster import errors
from directdownload.planning import dryrun
from directdownload.planning.conditions import Verdict
from directdownload.planning.dryrun import Action, Copy, DryRun
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Role


def copy(host: str, action: Action, reason: Reason | None = None, **fields: Any) -> Copy:
    return Copy(f"t-{host}", host, "local", "/p/u", action, reason=reason, **fields)


def planned(*copies: Copy, refused: Verdict | None = None, zone: Any = None, status: Any = None) -> planview.Plan:
    deployment = build.deployment("debian-13-zone-1", observed=None)
    sources = [sourcing.Source("https://images.example.org/x", "HTTPS", False)]
    template = build.template(status=status or {"sizeBytes": 1024**2, "virtualSizeBytes": 1024**3})
    return planview.Plan(template, deployment, zone or build.zone(), sources, DryRun(copies, refused), ())


def test_a_plan_for_people() -> None:
    wait = copy("kvm-2", Action.WAIT, Reason.HOST_DOWN, message="the host is Down: no power", fetch_bytes=1024**2)
    more = [copy(f"kvm-{number}", Action.WAIT, Reason.HOST_DOWN, message="also", fetch_bytes=7) for number in (3, 4, 5)]
    first = copy(
        "kvm-1", Action.DOWNLOAD, fetch_bytes=1024**2, available_bytes=1024**3, after_bytes=-(1024**2), round=2
    )
    assert "\n".join(planview.lines(planned(first, wait, *more))).splitlines() == [
        "Template: default/debian-13: QCOW2, 1.0 MiB, a disk of 1.0 GiB",
        "Checksum: none: the bytes are accepted as served",
        "Source:   https://images.example.org/x (HTTPS)",
        "Zone:     zone-1: 20 downloads at once, 2 per host, 16 per source, 16 per namespace",
        "",
        "HOST    POOL    ACTION     FETCH     FREE      AFTER      ROUND   REASON",
        "kvm-1   local   Download   1.0 MiB   1.0 GiB   -1.0 MiB   2       -",
        "kvm-2   local   Wait       1.0 MiB   -         -          -       HostDown",
        "kvm-3   local   Wait       7 B       -         -          -       HostDown",
        "kvm-4   local   Wait       7 B       -         -          -       HostDown",
        "kvm-5   local   Wait       7 B       -         -          -       HostDown",
        "",
        "Total: 5 copies on 5 hosts: 1 to download, 4 waiting; 1.0 MiB to fetch.",
        "At most 1 at once, by the zone's limits: 2 rounds.",
        "Rounds: other downloads of the zone are not known, and not counted.",
        "",
        "Blocked:",
        "  HostDown on kvm-2, kvm-3, kvm-4 and 1 more: the host is Down: no power",
    ]


def test_a_plan_says_who_reads_the_source() -> None:
    copies = [
        copy("kvm-1", Action.DOWNLOAD, fetch_bytes=1024**2, round=1, role=Role.SEED),
        copy("kvm-2", Action.DOWNLOAD, fetch_bytes=1024**2, round=1, role=Role.PEER),
        copy("kvm-3", Action.DOWNLOAD, fetch_bytes=1024**2, round=1, role=Role.PEER),
        copy("kvm-4", Action.PRESENT, Reason.DOWNLOADED, fetch_bytes=0),
    ]
    shown = "\n".join(planview.lines(planned(*copies))).splitlines()
    (columns,) = (line for line in shown if line.startswith("HOST"))
    assert columns.endswith("REASON   ROLE")
    assert "Source: read by kvm-1, 1.0 MiB in all; 2 copies come from other hosts." in shown
    told = planview.document(planned(*copies))
    assert [item["role"] for item in told["items"]] == ["Seed", "Peer", "Peer", None]
    assert (told["total"]["fetchBytes"], told["total"]["originBytes"]) == (3 * 1024**2, 1024**2)
    nobody = planview.lines(planned(*copies[1:]))
    assert "Source: read by none; 2 copies come from other hosts." in nobody


def test_a_plan_for_programs() -> None:
    present = copy("kvm-1", Action.PRESENT, Reason.DOWNLOADED, fetch_bytes=0)
    shown = planview.document(planned(present, copy("kvm-2", Action.DOWNLOAD, fetch_bytes=5, round=1)))
    assert shown["total"] == {
        "copies": 2,
        "hosts": 2,
        "skipped": 0,
        "download": 1,
        "adopt": 0,
        "downloading": 0,
        "present": 1,
        "wait": 0,
        "refused": 0,
        "fetchBytes": 5,
        "originBytes": 5,
        "rounds": 1,
        "mostAtOnce": 1,
        "otherDownloads": None,
        "volumes": 0,
    }
    assert [item["action"] for item in shown["items"]] == ["Present", "Download"]
    assert shown["blocked"] == []
    assert shown["unserved"] == {"hosts": [], "hostsElsewhere": [], "pools": [], "poolsElsewhere": []}
    assert (shown["refused"], shown["deployment"]) == (None, "debian-13-zone-1")


@pytest.mark.parametrize(
    ("others", "part", "words"),
    [
        (0, 0, []),
        (1, 0, ["Rounds: 1 other download runs in the zone, counted in round 1; those that wait are not counted."]),
        (2, 0, ["Rounds: 2 other downloads run in the zone, counted in round 1; those that wait are not counted."]),
        (None, 0, ["Rounds: other downloads of the zone are not known, and not counted."]),
        (
            0,
            7,
            ["Fetch: 1 copy has a part of an earlier download: its space is counted, its good bytes are not known."],
        ),
    ],
)
def test_a_plan_says_what_its_rounds_and_bytes_rest_on(others: int | None, part: int, words: list[str]) -> None:
    found = planned(copy("kvm-1", Action.DOWNLOAD, fetch_bytes=9, part_bytes=part, round=1))
    shown = planview.lines(dataclasses.replace(found, run=dataclasses.replace(found.run, others=others)))
    total = shown.index("Total: 1 copy on 1 host: 1 to download; 9 B to fetch.")
    assert shown[total + 1 :] == words


def test_skipped_copies_are_counted_and_their_hosts_named() -> None:
    hosts = [build.host(f"kvm-{number}", status={"architecture": "aarch64"}) for number in range(2, 7)]
    fleet = build.fleet([build.host("kvm-1", status={"architecture": "x86_64"}), *hosts])
    wish = build.deployment("debian-13-zone-1", observed=None)
    found = planned()
    run = dryrun.plan_dry_run(wish, found.template, fleet, {}, build.NOW, ())
    told = dataclasses.replace(found, run=run)
    assert planview.lines(told)[-2:] == [
        "Total: 1 copy on 1 host: 1 to download; 1.0 MiB to fetch.",
        "Skipped: 5 copies on hosts of another architecture than x86_64: kvm-2 (aarch64), kvm-3 (aarch64), "
        "kvm-4 (aarch64) and 2 more.",
    ]
    shown = planview.document(told)
    assert shown["total"]["skipped"] == 5
    assert shown["skipped"][0] == {"host": "kvm-2", "pool": "local", "architecture": "aarch64"}
    none = dryrun.plan_dry_run(wish, found.template, build.fleet(hosts), {}, build.NOW)
    assert plan.exit_status(none) == 3


def test_what_is_blocked_is_counted_as_in_a_status() -> None:
    waiting = [copy(host, Action.WAIT, Reason.HOST_DOWN, message=f"{host} is off") for host in ("kvm-2", "kvm-1")]
    shown = planview.document(planned(*waiting, copy("kvm-3", Action.DOWNLOAD)))
    assert shown["blocked"] == [
        {"reason": "HostDown", "count": 2, "hosts": ["kvm-1", "kvm-2"], "message": "kvm-1 is off"}
    ]


GONE = Verdict(False, Reason.TEMPLATE_NOT_READY, "not Ready")
DENIED = Verdict(False, Reason.NAMESPACE_NOT_ALLOWED, "not this one", stalled=True)
NOBODY = Verdict(False, Reason.NO_MATCHING_HOSTS, "no host")


@pytest.mark.parametrize(
    ("actions", "refused", "status"),
    [
        ([Action.DOWNLOAD], None, 0),
        ([Action.PRESENT], None, 0),
        ([Action.DOWNLOAD, Action.WAIT, Action.REFUSED], None, 0),
        ([], None, 0),
        ([Action.WAIT, Action.REFUSED], None, 1),
        ([Action.REFUSED], None, 3),
        ([Action.WAIT], GONE, 1),
        ([Action.REFUSED], DENIED, 3),
        ([], NOBODY, 3),
    ],
)
def test_exit_status(actions: list[Action], refused: Verdict | None, status: int) -> None:
    assert plan.exit_status(dryrun.DryRun([copy("h", action) for action in actions], refused)) == status


@pytest.mark.parametrize(
    ("exists", "words"),
    [
        ((False, False), "To deploy: directdownload deploy debian-13 --zone zone-1 --host kvm-1 --wait"),
        ((True, False), "To deploy: "),
        ((True, True), "Other deployments want all of these copies already"),
    ],
)
def test_what_to_do_next(exists: tuple[bool, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    copies = [copy(f"kvm-{number}", Action.WAIT, exists=there) for number, there in enumerate(exists)]
    found = planned(*copies)
    wish = build.deployment("d", observed=None, spec={"hosts": ["kvm-1"]})
    planview.show(dataclasses.replace(found, deployment=wish, notes=["look"]), "table")
    shown = capsys.readouterr()
    assert shown.err.startswith("Note: look.\nNothing was written. ")
    assert words in shown.err
    assert shown.out.startswith("Template: ")


async def test_definitions_of_an_older_version_leave_other_downloads_unknown() -> None:
    """They cannot select placements by their phase."""

    class Api:
        async def list(self, *_: object, field_selector: str, **_more: object) -> object:
            assert field_selector == "spec.zone=zone-1,status.phase=Downloading"
            raise errors.Invalid(400, "BadRequest", "field label not supported: status.phase")

    session: Any = types.SimpleNamespace(api=Api())
    assert await plan._running(session, "zone-1") is None
