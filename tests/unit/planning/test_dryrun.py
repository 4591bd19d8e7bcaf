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

SIZE = {"sizeBytes": 100}


def sized(**spec: Any) -> Template:
    """A Template whose size is known."""
    return template(spec=spec, status={**SIZE, "conditions": [build.condition("Ready", "True", Reason.REGISTERED)]})


def run(*hosts: Any, existing: Any = (), **fields: Any) -> DryRun:
    """Of a deployment onto `hosts`; `fields`: other pools, zone, template, spec of the deployment."""
    fleet = build.fleet(hosts, fields.get("pools"), [fields.get("zone", zone())], fields.get("namespaces"))
    fleet = dataclasses.replace(fleet, **fields.get("fleet", {}))
    wish = build.deployment(spec=fields.get("spec"), observed=None)
    found = fields.get("template", sized())
    return dryrun.plan_dry_run(wish, found, fleet, build.by_key(*existing), build.NOW)


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
