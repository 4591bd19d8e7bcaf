"""What a deployment would do, told before it exists."""

import dataclasses
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import facts, host, placement, pool, template, zone

from directdownload.planning import dryrun
from directdownload.planning.conditions import Verdict
from directdownload.planning.dryrun import Action, Copy, DryRun
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Role

SIZE = {"sizeBytes": 100}


def sized(**spec: Any) -> Template:
    """A Template whose size is known."""
    return template(spec=spec, status={**SIZE, "conditions": [build.condition("Ready", "True", Reason.REGISTERED)]})


def run(*hosts: Any, existing: Any = (), **fields: Any) -> DryRun:
    """Of a deployment onto `hosts`; `fields`: other pools, zone, template, spec of the deployment, what runs."""
    fleet = build.fleet(hosts, fields.get("pools"), [fields.get("zone", zone())], fields.get("namespaces"))
    fleet = dataclasses.replace(fleet, **fields.get("fleet", {}))
    wish = build.deployment(spec=fields.get("spec"), observed=None)
    found = fields.get("template", sized())
    return dryrun.plan_dry_run(wish, found, fleet, build.by_key(*existing), build.NOW, fields.get("running"))


def only(found: DryRun) -> Copy:
    assert len(found.copies) == 1
    return found.copies[0]


def up(name: str = "kvm-1", **storage: Any) -> Any:
    return host(name, storage=[facts(**storage)])


def test_a_copy_that_is_not_there_is_downloaded_with_what_it_leaves() -> None:
    copy = only(run(up()))
    assert (copy.action, copy.reason, copy.fetch_bytes, copy.round) == (Action.DOWNLOAD, None, 100, 1)
    # 5 % of 1000 are never used
    assert (copy.available_bytes, copy.reserve_bytes, copy.after_bytes) == (400, 50, 250)
    assert copy.path == f"{build.POOL_PATH}/{build.TEMPLATE_UID}"
    assert not copy.exists


def test_what_is_not_known_is_not_made_up() -> None:
    unknown_size = only(run(up(), template=template()))
    assert (unknown_size.action, unknown_size.fetch_bytes, unknown_size.after_bytes) == (Action.DOWNLOAD, None, None)
    unreported = run(host())
    assert only(unreported).action is Action.DOWNLOAD
    assert (only(unreported).available_bytes, only(unreported).after_bytes) == (None, None)
    assert run(up(), template=template()).fetch_bytes is None


UNPLACED = {"name": build.TEMPLATE_UID, "sizeBytes": 100, "state": "Published"}


@pytest.mark.parametrize(
    ("unplaced", "action", "fetch"),
    [
        ([UNPLACED], Action.ADOPT, 0),
        ([{**UNPLACED, "state": "Partial"}], Action.DOWNLOAD, 100),
        ([{**UNPLACED, "name": "another"}], Action.DOWNLOAD, 100),
    ],
)
def test_a_file_that_lies_there_is_adopted(unplaced: list[Any], action: Action, fetch: int) -> None:
    copy = only(run(up(unplaced=unplaced)))
    assert (copy.action, copy.fetch_bytes, copy.round) == (action, fetch, 1)


@pytest.mark.parametrize(
    ("fields", "action", "reason"),
    [
        ({"phase": "Ready"}, Action.PRESENT, Reason.DOWNLOADED),
        ({"phase": "Downloading", "reason": Reason.DOWNLOADING}, Action.DOWNLOADING, Reason.DOWNLOADING),
        ({"phase": "Failed", "reason": Reason.CHECKSUM_MISMATCH}, Action.REFUSED, Reason.CHECKSUM_MISMATCH),
        ({"phase": "Removing", "reason": Reason.IN_USE}, Action.DOWNLOAD, None),
        ({"phase": "Removing", "reason": Reason.IN_USE, "deleting": True}, Action.WAIT, Reason.IN_USE),
        ({"phase": "Pending", "reason": Reason.WAITING_FOR_SLOT}, Action.DOWNLOAD, None),
        (
            {
                "phase": "Pending",
                "reason": Reason.SOURCE_UNREACHABLE,
                "status": {"nextAttemptTime": build.stamp(build.NOW + build.seconds(60))},
            },
            Action.WAIT,
            Reason.SOURCE_UNREACHABLE,
        ),
        (
            {"phase": "Ready", "status": build.file_status(present=False)},
            Action.DOWNLOAD,
            Reason.MISSING,
        ),
    ],
)
def test_copies_that_exist(fields: dict[str, Any], action: Action, reason: Reason | None) -> None:
    copy = only(run(up(), existing=[placement(**fields)]))
    assert (copy.action, copy.reason, copy.exists) == (action, reason, True)
    assert copy.round == (1 if action in (Action.DOWNLOAD, Action.DOWNLOADING) else None)


def test_only_what_is_missing_of_a_download_is_fetched() -> None:
    begun = placement(phase="Downloading", reason=Reason.DOWNLOADING, status={"progress": {"bytesDownloaded": 30}})
    assert only(run(up(), existing=[begun])).fetch_bytes == 70


@pytest.mark.parametrize(
    ("fields", "action", "reason"),
    [
        ({"hosts": [host(state="Down")]}, Action.WAIT, Reason.HOST_DOWN),
        ({"hosts": [host(state="Maintenance")]}, Action.WAIT, Reason.MAINTENANCE),
        ({"hosts": [up(writable=False)]}, Action.WAIT, Reason.POOL_NOT_READY),
        ({"hosts": [up(mounted=False)], "pools": [pool(spec=build.SHARED)]}, Action.WAIT, Reason.NOT_MOUNTED),
        ({"zone": zone(spec={"enabled": False})}, Action.WAIT, Reason.ZONE_DISABLED),
        ({"zone": zone(spec={"downloads": {"maxSize": "99"}})}, Action.REFUSED, Reason.TOO_LARGE),
        ({"hosts": [up(availableBytes=149)]}, Action.WAIT, Reason.INSUFFICIENT_SPACE),
        ({"hosts": [up(availableBytes=150)]}, Action.DOWNLOAD, None),
    ],
)
def test_what_stands_in_the_way_of_one_copy(fields: dict[str, Any], action: Action, reason: Reason | None) -> None:
    found = run(*fields.pop("hosts", [up()]), **fields)
    assert (only(found).action, only(found).reason) == (action, reason)
    assert found.refused is None


CLOSED = zone(spec={"templateNamespaces": {"matchLabels": {"team": "a"}}})


@pytest.mark.parametrize(
    ("fields", "action", "reason"),
    [
        ({"zone": CLOSED}, Action.REFUSED, Reason.NAMESPACE_NOT_ALLOWED),
        ({"template": sized(zones=["elsewhere"])}, Action.REFUSED, Reason.TEMPLATE_NOT_IN_ZONE),
        ({"template": template(ready=False)}, Action.WAIT, Reason.TEMPLATE_NOT_READY),
        (
            {"fleet": {"judge": lambda *_: Verdict(False, Reason.URL_NOT_ALLOWED, "no", stalled=True)}},
            Action.REFUSED,
            Reason.URL_NOT_ALLOWED,
        ),
    ],
)
def test_what_stands_in_the_way_of_all(fields: dict[str, Any], action: Action, reason: Reason) -> None:
    there = placement(host="kvm-2", phase="Ready")
    found = run(up(), up("kvm-2"), existing=[there], **fields)
    assert found.refused is not None
    assert found.refused.reason is reason
    # What is there stays there.
    assert [(copy.action, copy.reason) for copy in found.copies] == [
        (action, reason),
        (Action.PRESENT, Reason.DOWNLOADED),
    ]


def test_a_namespace_with_the_labels_that_the_zone_asks_for() -> None:
    assert only(run(up(), zone=CLOSED, namespaces={"default": {"team": "a"}})).action is Action.DOWNLOAD


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"hosts": ["kvm-9"]}, Reason.NO_MATCHING_HOSTS), ({"pools": ["nope"]}, Reason.NO_MATCHING_POOLS)],
)
def test_a_deployment_that_means_nothing(spec: dict[str, Any], reason: Reason) -> None:
    found = run(up(), spec=spec)
    assert found.refused is not None
    assert (found.refused.reason, found.copies) == (reason, ())


def test_hosts_and_pools_are_those_that_are_named() -> None:
    pools = [pool(), pool("fast", spec={"path": f"{build.ROOT}/fast"})]
    found = run(up(), up("kvm-2"), pools=pools, spec={"hosts": ["kvm-2"], "pools": ["fast"]})
    assert [(copy.host, copy.pool) for copy in found.copies] == [("kvm-2", "fast")]


def test_one_host_fetches_for_a_shared_pool() -> None:
    shared = [pool(spec=build.SHARED)]
    found = run(up(availableBytes=300), up("kvm-2"), up("kvm-3", mounted=False), pools=shared)
    assert (only(found).host, only(found).action) == ("kvm-2", Action.DOWNLOAD)
    waiting = placement(shared=True, host="kvm-1", phase="Pending", reason=Reason.HOST_DOWN)
    found = run(host(state="Down"), up("kvm-2"), pools=shared, existing=[waiting])
    assert (only(found).host, only(found).action) == ("kvm-2", Action.DOWNLOAD)


def test_an_archive_needs_room_for_both() -> None:
    file = {"file": {"path": "/p", "sizeBytes": 200, "servedBytes": 100, "digest": build.DIGEST}}
    there = placement(host="kvm-2", phase="Ready", status=file)
    found = {copy.host: copy for copy in run(up(), up("kvm-2"), existing=[there]).copies}
    assert (found["kvm-1"].action, found["kvm-1"].fetch_bytes, found["kvm-1"].after_bytes) == (
        Action.DOWNLOAD,
        100,
        150,
    )
    assert found["kvm-2"].after_bytes == 350
    tight = run(up(availableBytes=349), up("kvm-2"), existing=[there]).copies[0]
    assert (tight.action, tight.reason) == (Action.WAIT, Reason.INSUFFICIENT_SPACE)


@pytest.mark.parametrize(
    ("downloads", "rounds", "most"),
    [
        ({}, 1, 4),
        ({"maxParallel": 3}, 2, 3),
        ({"maxParallelPerHost": 1}, 2, 2),
        ({"maxParallelPerSource": 1}, 4, 1),
        ({"maxParallelPerNamespace": 3}, 2, 3),
        ({"maxParallel": 0, "maxParallelPerHost": 0}, 1, 4),
    ],
)
def test_the_limits_make_rounds(downloads: dict[str, Any], rounds: int, most: int) -> None:
    pools = [pool(), pool("fast", spec={"path": f"{build.ROOT}/fast"})]
    storage = [facts(), facts("fast")]
    hosts = [host(name, storage=storage) for name in ("kvm-1", "kvm-2")]
    found = run(*hosts, pools=pools, zone=zone(spec={"downloads": downloads}))
    assert (found.rounds, found.most_at_once, found.fetch_bytes) == (rounds, most, 400)


def test_what_runs_already_comes_first_and_the_most_space_next() -> None:
    running = placement(host="kvm-1", phase="Downloading", reason=Reason.DOWNLOADING)
    hosts = [up(), up("kvm-2", availableBytes=300), up("kvm-3", availableBytes=390)]
    found = run(*hosts, existing=[running], zone=zone(spec={"downloads": {"maxParallel": 1}}))
    assert [(copy.host, copy.round) for copy in found.copies] == [("kvm-1", 1), ("kvm-2", 3), ("kvm-3", 2)]


OTHER = build.template("other", uid="another", namespace="elsewhere")


def other(host: str = "kvm-1", name: str = "other-1") -> Any:
    """The copy of another template of another namespace, which is being downloaded."""
    return dataclasses.replace(
        placement(host=host, phase="Downloading", reason=Reason.DOWNLOADING),
        key=name,
        template_key="elsewhere/other",
        template_uid="another",
    )


@pytest.mark.parametrize(
    ("downloads", "known", "first"),
    [
        ({"maxParallel": 1}, None, 2),
        ({"maxParallelPerHost": 1}, None, 2),
        ({"maxParallelPerSource": 1}, OTHER, 2),
        # from an unknown source, and of another namespace
        ({"maxParallelPerSource": 1}, None, 1),
        ({"maxParallelPerNamespace": 1}, OTHER, 1),
        ({"maxParallel": 2}, OTHER, 1),
    ],
)
def test_downloads_of_other_templates_hold_slots_of_the_first_round(
    downloads: dict[str, Any], known: Template | None, first: int
) -> None:
    found = run(up(), running=[(other(), known)], zone=zone(spec={"downloads": downloads}))
    assert (only(found).round, found.others) == (first, 1)


def test_what_is_planned_itself_or_runs_on_a_down_host_is_no_other_download() -> None:
    own = placement(host="kvm-1", phase="Downloading", reason=Reason.DOWNLOADING)
    lost = other("kvm-2")
    limits = zone(spec={"downloads": {"maxParallel": 1}})
    hosts = [up(), host("kvm-2", state="Down")]
    found = run(*hosts, existing=[own], running=[(own, sized()), (lost, None)], zone=limits, spec={"hosts": ["kvm-1"]})
    assert (only(found).round, found.others) == (1, 0)


def test_a_copy_that_runs_is_in_the_first_round_also_beside_a_lowered_limit() -> None:
    own = placement(host="kvm-1", phase="Downloading", reason=Reason.DOWNLOADING)
    limits = zone(spec={"downloads": {"maxParallel": 1}})
    found = run(up(), up("kvm-2"), existing=[own], running=[(own, sized()), (other("kvm-2"), OTHER)], zone=limits)
    assert {copy.host: copy.round for copy in found.copies} == {"kvm-1": 1, "kvm-2": 2}


PART: dict[str, Any] = {"name": f".directdownload/{build.TEMPLATE_UID}.kvm-1.part", "sizeBytes": 60, "state": "Partial"}


@pytest.mark.parametrize(
    ("file", "part", "action"),
    [
        (PART, 60, Action.DOWNLOAD),
        ({**PART, "name": PART["name"].replace("kvm-1", "kvm-2")}, 0, Action.WAIT),
        ({**PART, "name": PART["name"].replace(build.TEMPLATE_UID, "another")}, 0, Action.WAIT),
    ],
)
def test_the_part_of_an_ended_download_holds_its_space_already(file: dict[str, Any], part: int, action: Action) -> None:
    # 40 of the 100 bytes are missing, and 50 are never used
    copy = only(run(up(availableBytes=90, unplaced=[file])))
    assert (copy.action, copy.part_bytes, copy.fetch_bytes) == (action, part, 100)
    assert copy.after_bytes == 90 - 50 - (100 - part)


def test_a_download_on_a_host_that_is_down_waits_and_holds_no_slot() -> None:
    lost = build.placement(host="kvm-1", phase="Downloading", reason=Reason.HOST_DOWN)
    fleet = build.fleet([build.host("kvm-1", state="Down"), build.host("kvm-2", storage=[build.facts()])])
    zone = build.zone(spec={"downloads": {"maxParallel": 1}})
    fleet = dataclasses.replace(fleet, zones={zone.name: zone})
    run = dryrun.plan_dry_run(build.deployment(), build.template(), fleet, build.by_key(lost), build.NOW)
    assert [(copy.action, copy.round) for copy in run.copies] == [(Action.WAIT, None), (Action.DOWNLOAD, 1)]


PEER = {
    **dict.fromkeys(("serverCertificate", "clientCertificate", "bundle"), "pem"),
    **{"keys": [], "notAfter": build.stamp(build.NOW + build.seconds(60)), "trustDomain": "d", "port": 1},
}
SHARING = zone(status={"peers": {"unavailable": 0}}, spec={"downloads": {"maxParallel": 1}})
CHECKED = {"template": sized(checksum=build.DIGEST), "zone": SHARING}


def peer(name: str, *, identity: bool = True, **more: Any) -> Any:
    return host(
        name,
        storage=[facts(availableBytes=2**40, capacityBytes=2**41)],
        status={"peer": PEER} if identity else {},
        **more,
    )


def roles(found: DryRun) -> list[Role | None]:
    return [copy.role for copy in found.copies]


def test_one_copy_reads_the_source_and_the_others_start_beside_it() -> None:
    found = run(*(peer(f"kvm-{number}") for number in range(5)), **CHECKED)
    assert sorted(map(str, roles(found))) == ["Peer"] * 4 + ["Seed"]
    assert found.rounds == 1
    assert found.fetch_bytes is not None
    assert found.origin_bytes == found.fetch_bytes // 5


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"zone": zone()}, None),
        ({"template": sized()}, Role.ORIGIN),
        ({"template": sized(checksum=build.DIGEST, url="https://images.example.org/a.gz")}, Role.ORIGIN),
    ],
)
def test_without_peers_or_where_nothing_is_shared_all_read_the_source(more: Any, expected: Role | None) -> None:
    found = run(peer("kvm-1"), peer("kvm-2"), **{**CHECKED, **more})
    assert roles(found) == [expected, expected]
    assert found.origin_bytes == found.fetch_bytes


def test_a_host_without_certificate_reads_the_source_for_itself() -> None:
    found = run(peer("kvm-1"), peer("kvm-2", identity=False), **CHECKED)
    assert roles(found) == [Role.SEED, Role.ORIGIN]


@pytest.mark.parametrize("content", [None, "c" * 64])
def test_where_a_copy_is_ready_nobody_reads_the_source(content: str | None) -> None:
    status = build.file_status()
    status["file"]["content"] = content
    there = placement(host="kvm-1", phase="Ready", status=status)
    found = run(peer("kvm-1"), peer("kvm-2"), existing=[there], **CHECKED)
    assert roles(found) == [None, Role.PEER]
    assert found.origin_bytes == 0


def test_a_seed_that_runs_stays_it_and_a_copy_that_reaches_nobody_reads_the_source() -> None:
    seed = placement(host="kvm-1", phase="Downloading", status={"peers": {"role": "Seed"}})
    alone = placement(host="kvm-2", phase="Pending", status={"peers": {"role": "Peer", "unavailable": 3}})
    found = run(peer("kvm-1"), peer("kvm-2"), peer("kvm-3"), existing=[seed, alone], **CHECKED)
    assert roles(found) == [Role.SEED, Role.ORIGIN, Role.PEER]
