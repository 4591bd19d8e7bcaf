"""Hosts: which zone has a node, and Up, Down or Maintenance in every combination of node, agent and wishes."""

import datetime
import itertools

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, host, node, seconds, zone

from directdownload.planning.hosts import AGENT_GRACE, HostPlan, plan_host, selecting_zones
from directdownload.planning.observed import Agent
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason

AGENTS = {
    "ready": Agent(True),
    "unready for 30 s": Agent(False, NOW - seconds(30)),
    "unready for 120 s": Agent(False, NOW - AGENT_GRACE),
    "unready for an hour": Agent(False, NOW - seconds(3600)),
    "never seen": Agent(False),
}
WITHIN_GRACE = ("unready for 30 s", "never seen")
NODES = {
    "missing": None,
    "not ready": build.node(ready=False),
    "not ready, cordoned": build.node(ready=False, unschedulable=True),
    "ready": build.node(),
    "cordoned": build.node(unschedulable=True),
    "not selected": build.node(labels={"zone": "elsewhere"}),
}


def expected(node: str, agent: str, before: str | None, allocation: str) -> tuple[str, Reason]:
    """The rules of api.md once more, as a reader would say them."""
    if node in ("missing", "not selected"):
        return "Down", Reason.NODE_NOT_FOUND
    if node.startswith("not ready"):
        return "Down", Reason.NODE_NOT_READY
    survives = before in ("Up", "Maintenance") and agent in WITHIN_GRACE
    if agent != "ready" and not survives:
        return "Down", Reason.AGENT_NOT_READY
    if node == "cordoned" or allocation == "Maintenance":
        return "Maintenance", Reason.MAINTENANCE
    return "Up", Reason.UP


@pytest.mark.parametrize(
    ("node", "agent", "before", "allocation"),
    list(itertools.product(NODES, AGENTS, (None, "Up", "Down", "Maintenance"), ("Enabled", "Maintenance"))),
)
def test_state_in_every_combination(node: str, agent: str, before: str | None, allocation: str) -> None:
    host = build.host(state=before, spec={"allocationState": allocation})
    plan = plan_host(host, NODES[node], [build.zone()], AGENTS[agent], NOW)
    state, reason = expected(node, agent, before, allocation)
    assert (plan.status.state, plan.status.conditions[0].reason) == (state, reason)
    build.check_resource(host, plan.status)
    waits_for_grace = state != "Down" and agent != "ready"
    assert (plan.look_again is not None) == waits_for_grace
    if plan.look_again is not None:
        assert NOW < plan.look_again <= NOW + AGENT_GRACE


def test_grace_ends_when_it_said_it_would() -> None:
    host, since = build.host(), NOW - seconds(30)
    plan = plan_host(host, build.node(), [build.zone()], Agent(False, since), NOW)
    assert plan.look_again == since + AGENT_GRACE
    again = plan_host(host, build.node(), [build.zone()], Agent(False, since), plan.look_again)
    assert again.status.state == "Down"
    assert again.look_again is None


def test_a_host_with_nothing_changed_is_a_fixpoint() -> None:
    host = build.host(state=None)
    plan = plan_host(host, build.node(), [build.zone()], Agent(True), NOW)
    shown = host.model_copy(update={"status": plan.status})
    again = plan_host(shown, build.node(), [build.zone()], Agent(True), NOW + seconds(600))
    assert again.status == plan.status


ALL_NODES: dict[str, dict[str, str]] = {"matchLabels": {}}
OLD, YOUNG = build.stamp(NOW - seconds(7200)), build.stamp(NOW - seconds(3600))


@pytest.mark.parametrize(
    ("zones", "host", "zone"),
    [
        ([], None, None),
        ([("b", OLD)], None, "b"),
        ([("a", YOUNG), ("b", OLD)], None, "b"),
        ([("b", OLD), ("a", OLD)], None, "a"),
        ([("a", YOUNG), ("b", OLD)], "a", "b"),
        ([], "gone", "gone"),
        ([("b", OLD)], "gone", "b"),
    ],
)
def test_the_oldest_zone_has_the_node(zones: list[tuple[str, str]], host: str | None, zone: str | None) -> None:
    found = [build.zone(name, spec={"nodeSelector": ALL_NODES}, creationTimestamp=age) for name, age in zones]
    present: Host | None = build.host(zone=host) if host else None
    plan = plan_host(present, build.node(labels={"rack": "1"}), found, Agent(True), NOW)
    assert plan.zone == zone
    assert plan.labels == {"rack": "1"}


def test_a_zone_that_is_being_deleted_selects_nothing() -> None:
    zones = [build.zone("a", deleting=True), build.zone("b", spec={"nodeSelector": ALL_NODES})]
    assert [zone.name for zone in selecting_zones({"zone": "a"}, zones)] == ["b"]


def test_a_zone_without_a_time_counts_as_oldest() -> None:
    younger = build.zone("a", spec={"nodeSelector": ALL_NODES})
    nameless = build.zone("b", spec={"nodeSelector": ALL_NODES}, creationTimestamp=None)
    assert [zone.name for zone in selecting_zones({}, [younger, nameless])] == ["b", "a"]


def test_a_host_keeps_its_labels_when_its_node_is_gone() -> None:
    plan = plan_host(build.host(labels={"rack": "1"}), None, [build.zone()], Agent(True), NOW)
    assert plan.labels == {"rack": "1"}
    assert plan.zone == "zone-1"


def test_a_request_is_handled() -> None:
    plan = plan_host(build.host(requested_at="now"), build.node(), [build.zone()], Agent(True), NOW)
    assert plan.status.last_handled_request == "now"


def test_a_host_that_is_not_made_yet() -> None:
    plan = plan_host(None, build.node(), [build.zone()], Agent(False, None), NOW)
    assert (plan.status.state, plan.status.observed_generation) == ("Down", 1)
    at_once: datetime.datetime | None = plan.look_again
    assert at_once is None


def test_a_node_that_joins_anew_under_its_name_is_noticed_once() -> None:
    """A machine that was installed again has lost its files and whoever knew of them."""

    def planned(before: Host | None, uid: str | None) -> HostPlan:
        present = node(uid=uid) if uid is not None else None
        return plan_host(before, present, [zone()], Agent(True), NOW)

    first = planned(None, "a")
    assert (first.status.node_uid, first.renewed) == ("a", False)
    known = host(status={"nodeUID": "a"})
    assert not planned(known, "a").renewed
    gone = planned(known, None)
    assert (gone.status.node_uid, gone.renewed) == ("a", False)
    again = planned(known, "b")
    assert (again.status.node_uid, again.renewed) == ("b", True)
    assert not planned(host(status={"nodeUID": "b"}), "b").renewed
