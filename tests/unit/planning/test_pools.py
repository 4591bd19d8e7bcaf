"""StoragePools: which hosts have one, whether it is usable there, and its status."""

from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, facts

from directdownload.planning.pools import exposed, hosts_of, obstacle, plan_pool, told_roots
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool


@pytest.mark.parametrize(
    ("path", "roots", "alone", "shared"),
    [
        ("/srv/images", ["/srv"], True, True),
        ("/srv", ["/srv"], True, False),
        ("/srv", ["/srv/"], True, False),
        ("/srv/images", ["/srv/"], True, True),
        ("/srv-2/images", ["/srv"], False, False),
        ("/images", ["/"], True, True),
        ("/srv/images", ["/var", "/srv/images"], True, False),
        ("/srv", ["/srv/images"], False, False),
        ("/srv/images", [], False, False),
    ],
)
def test_exposed(path: str, roots: list[str], alone: bool, shared: bool) -> None:
    assert exposed(path, roots, shared=False) is alone
    assert exposed(path, roots, shared=True) is shared


@pytest.mark.parametrize(
    ("storage", "alone", "shared"),
    [
        ([], None, None),
        ([facts("another", writable=False)], None, None),
        ([facts()], None, None),
        ([{"pool": "local"}], None, None),
        ([facts(mounted=False)], None, Reason.NOT_MOUNTED),
        ([facts(writable=False)], Reason.NOT_WRITABLE, Reason.NOT_WRITABLE),
        ([facts(writable=False, mounted=False)], Reason.NOT_WRITABLE, Reason.NOT_MOUNTED),
        ([facts(reason="PathMissing")], Reason.PATH_MISSING, Reason.PATH_MISSING),
        ([facts(reason="PathMissing", writable=False)], Reason.PATH_MISSING, Reason.PATH_MISSING),
    ],
)
def test_obstacle(storage: list[dict[str, Any]], alone: Reason | None, shared: Reason | None) -> None:
    host = build.host(storage=storage)
    assert obstacle(build.pool(), host, [build.ROOT]) is alone
    assert obstacle(build.pool(spec=build.SHARED), host, [build.ROOT]) is shared
    assert obstacle(build.pool(), host, ["/srv"]) is Reason.PATH_NOT_EXPOSED


def test_hosts_of_the_zone_that_the_selector_matches() -> None:
    hosts = [build.host("a", labels={"ssd": "yes"}), build.host("b"), build.host("c", zone="2", labels={"ssd": "yes"})]
    chosen = build.pool(spec={"hostSelector": {"matchLabels": {"ssd": "yes"}}})
    assert [host.name for host in hosts_of(chosen, hosts)] == ["a"]
    assert [host.name for host in hosts_of(build.pool(), hosts)] == ["a", "b"]


def up(name: str, **fields: Any) -> Host:
    return build.host(name, storage=[facts(**fields)])


@pytest.mark.parametrize(
    ("spec", "hosts", "ready", "reason", "usable", "capacity_bytes"),
    [
        ({}, [up("a"), up("b")], True, Reason.READY, 2, 2000),
        (build.SHARED, [up("a"), up("b")], True, Reason.READY, 2, 1000),
        ({}, [up("a"), up("b", writable=False)], True, Reason.READY, 1, 1000),
        ({}, [up("b", writable=False)], False, Reason.NOT_WRITABLE, 0, 0),
        (build.SHARED, [up("b", mounted=False)], False, Reason.NOT_MOUNTED, 0, 0),
        ({}, [up("b", reason="PathMissing")], False, Reason.PATH_MISSING, 0, 0),
        ({}, [build.host("a", "Down", storage=[facts()])], False, Reason.NO_READY_HOSTS, 0, 0),
        ({}, [build.host("a", "Maintenance", storage=[facts()])], False, Reason.NO_READY_HOSTS, 0, 0),
        ({}, [build.host("a")], False, Reason.NO_READY_HOSTS, 0, 0),
        ({}, [build.host("a", storage=[{"pool": "local"}])], True, Reason.READY, 1, 0),
        ({}, [], False, Reason.NO_READY_HOSTS, 0, 0),
        ({"path": "/srv/images"}, [up("a")], False, Reason.PATH_NOT_EXPOSED, 0, 0),
        ({"path": build.ROOT, **build.SHARED}, [up("a")], False, Reason.PATH_NOT_EXPOSED, 0, 0),
    ],
)
def test_status(
    spec: dict[str, Any], hosts: list[Host], ready: bool, reason: Reason, usable: int, capacity_bytes: int
) -> None:
    pool = build.pool(spec=spec, generation=2, requested_at="today")
    status = plan_pool(pool, True, hosts, [build.ROOT], NOW)
    (condition,) = status.conditions
    assert (condition.status == "True", condition.reason) == (ready, reason)
    assert status.hosts is not None
    assert (status.hosts.total, status.hosts.ready) == (len(hosts), usable)
    assert status.capacity_bytes == capacity_bytes
    assert status.available_bytes == capacity_bytes * 4 // 10
    assert (status.observed_generation, status.last_handled_request) == (2, "today")
    build.check_resource(pool, status)
    again = plan_pool(pool.model_copy(update={"status": status}), True, hosts, [build.ROOT], NOW + build.seconds(9))
    assert again == status


def test_a_pool_without_its_zone_says_so() -> None:
    condition = plan_pool(build.pool(), False, [], [build.ROOT], NOW).conditions[0]
    assert (condition.status, condition.reason) == ("False", Reason.ZONE_NOT_FOUND)
    assert "zone-1" in condition.message


def _found(name: str, path: str, reason: Reason | None, **spec: str) -> StoragePool:
    told = {"conditions": [build.condition("Ready", "False", reason)]} if reason is not None else {}
    return build.pool(name, spec={"path": path, **spec}, status=told)


def test_what_the_pools_conditions_tell_of_the_charts_roots() -> None:
    pools = [
        _found("ready", "/var/lib/images", Reason.READY),
        _found("new", "/srv/new", None),
        _found("shared", "/mnt/nfs/images", Reason.NOT_MOUNTED, type="NetworkFilesystem"),
        _found("hidden", "/opt/hidden", Reason.PATH_NOT_EXPOSED),
        _found("too-high", "/mnt", Reason.PATH_NOT_EXPOSED, type="NetworkFilesystem"),
    ]
    roots = told_roots(pools)
    assert roots == ("/mnt/nfs", "/srv/new", "/var/lib/images")
    shown = [p.name for p in pools if exposed(p.spec.path, roots, shared=p.spec.shared)]
    assert shown == ["ready", "new", "shared"]


def test_what_one_host_claims_spoils_no_sum() -> None:
    """More than an integer of the API holds would be refused each time, and nobody would write the status any more."""
    largest = 2**63 - 1
    hosts = [up("kvm-1", capacityBytes=largest, availableBytes=largest), up("kvm-2", capacityBytes=1, availableBytes=1)]
    status = plan_pool(build.pool(), True, hosts, (build.ROOT,), NOW)
    assert (status.capacity_bytes, status.available_bytes) == (largest, largest)


def test_a_pool_that_no_host_can_use_says_why_one_is_down() -> None:
    words = "no ready agent pod runs on the node: a volume of its pod cannot be mounted: /srv is not a directory"
    ready = {**build.condition("Ready", "False", Reason.AGENT_NOT_READY), "message": words}
    down = build.host("kvm-2", state="Down", status={"conditions": [ready]})
    members = [build.host("kvm-1", state="Maintenance"), down]
    told = plan_pool(build.pool(), True, members, (build.ROOT,), NOW).conditions[0]
    assert told.reason is Reason.NO_READY_HOSTS
    assert told.message == f"usable on none of 2 hosts; see status.storage of the Hosts; kvm-2 is Down: {words}"
    missing = build.host(storage=[build.facts(writable=False, mounted=False, reason="PathMissing")])
    told = plan_pool(build.pool(), True, [missing], (build.ROOT,), NOW).conditions[0]
    assert (told.reason, "Down" in told.message) == (Reason.PATH_MISSING, False)
