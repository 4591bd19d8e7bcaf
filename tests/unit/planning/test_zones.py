"""The status of a Zone."""

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW

from directdownload.planning.zones import plan_zone
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason

HOSTS = [
    build.host("kvm-1"),
    build.host("kvm-2", "Down"),
    build.host("kvm-3", None),
    build.host("kvm-4", "Maintenance"),
]


@pytest.mark.parametrize(
    ("enabled", "hosts", "contested", "ready", "reason", "words"),
    [
        (True, HOSTS, [], True, Reason.READY, "1 of 4 hosts are Up"),
        (True, [], [], False, Reason.NO_HOSTS, "nodeSelector"),
        (False, HOSTS, [], True, Reason.DISABLED, "nothing new"),
        (False, [], [], True, Reason.DISABLED, "nothing new"),
        (True, HOSTS, ["n2", "n1"], False, Reason.ZONE_CONFLICT, "2 nodes"),
        (False, HOSTS, ["n1"], False, Reason.ZONE_CONFLICT, "n1"),
        (True, [], [f"n{i}" for i in range(5000)], False, Reason.ZONE_CONFLICT, "for example n0, n1, n10;"),
    ],
)
def test_verdict(
    enabled: bool, hosts: list[Host], contested: list[str], ready: bool, reason: Reason, words: str
) -> None:
    zone = build.zone(spec={"enabled": enabled}, generation=3, requested_at="today")
    status = plan_zone(zone, hosts, contested, NOW)
    (condition,) = status.conditions
    assert (condition.status == "True", condition.reason) == (ready, reason)
    assert words in condition.message
    assert len(condition.message) < 300
    assert status.hosts is not None
    assert (status.hosts.total, status.hosts.up) == (len(hosts), min(1, len(hosts)))
    assert (status.observed_generation, status.last_handled_request) == (3, "today")
    build.check_resource(zone, status)
    assert plan_zone(zone.model_copy(update={"status": status}), hosts, contested, NOW + build.seconds(9)) == status


def test_a_zone_says_how_many_copies_reach_no_other_host_only_where_hosts_read_from_each_other() -> None:
    zone = build.zone()
    assert plan_zone(zone, HOSTS, [], NOW).peers is None
    status = plan_zone(zone, HOSTS, [], NOW, unavailable=3)
    assert status.peers is not None
    assert status.peers.unavailable == 3
    build.check_resource(zone, status)
