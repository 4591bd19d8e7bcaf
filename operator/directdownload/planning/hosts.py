"""Which zone a node belongs to, and whether its Host is Up, Down or in Maintenance."""

import dataclasses
import datetime
from collections.abc import Container, Iterable, Mapping

from directdownload.planning import architectures, requests
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.observed import Agent, Node
from directdownload.resources.host import Host, HostStatus, Served
from directdownload.resources.peeridentity import PeerIdentity
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Zone

#: How long a host stays Up without a ready agent: an upgrade of the DaemonSet must not take hosts down.
AGENT_GRACE = datetime.timedelta(seconds=120)
#: The cause may follow.
NO_AGENT = "no ready agent pod runs on the node"


@dataclasses.dataclass(frozen=True, slots=True)
class HostPlan:
    """The wished Host. `zone` None: no Zone selects the node, so no Host is created."""

    zone: str | None
    labels: Mapping[str, str]
    status: HostStatus
    look_again: datetime.datetime | None = None
    #: its node has rejoined under the old name: the state of its disks is unknown
    renewed: bool = False


def selecting_zones(labels: Mapping[str, str], zones: Iterable[Zone]) -> list[Zone]:
    """The Zones that select a node with `labels`, oldest first: the first one gets it."""
    found = [zone for zone in zones if not zone.deleting and zone.spec.node_selector.matches(labels)]
    return sorted(found, key=lambda zone: zone.seniority)


def plan_host(
    host: Host | None,
    node: Node | None,
    zones: Iterable[Zone],
    agent: Agent,
    now: datetime.datetime,
    *,
    served: tuple[Served, ...] = (),
    peer: PeerIdentity | None = None,
    unreadable: Container[str] = (),
) -> HostPlan:
    """`host` is the present object, None before it is created; `node` None if there is no such node (any more);
    `served` are the answers to its demands, `peer` is the one to its request for certificates.

    `unreadable`: names of Zones that exist and cannot be read. Such a Zone keeps its hosts.
    """
    selecting = selecting_zones(node.labels, zones) if node is not None else []
    keeps = host is not None and host.spec.zone in unreadable
    zone = selecting[0].name if selecting and not keeps else (host.spec.zone if host is not None else None)
    before = host.status if host is not None else HostStatus()
    state, verdict, look_again = _state(host, node, keeps or bool(selecting), agent, before, now)
    generation = host.metadata.generation if host is not None else 1
    status = HostStatus(
        observed_generation=generation,
        state=state,
        # A node that is gone may come back as the same node.
        node_uid=(node.uid if node is not None else "") or before.node_uid,
        architecture=architectures.of_node(node) if node is not None else before.architecture,
        **(requests.served(host, now).fields() if host is not None else {}),
        **({"served": served} if served else {}),
        **({"peer": peer} if peer is not None else {}),
        conditions=conditions(verdict, before.conditions, generation, now, types=("Ready",)),
    )
    labels = node.labels if node is not None else (host.metadata.labels if host is not None else {})
    renewed = before.node_uid is not None and status.node_uid != before.node_uid
    return HostPlan(zone, labels, status, look_again, renewed)


def _state(
    host: Host | None, node: Node | None, selected: bool, agent: Agent, before: HostStatus, now: datetime.datetime
) -> tuple[str, Verdict, datetime.datetime | None]:
    if node is None:
        return "Down", Verdict(False, Reason.NODE_NOT_FOUND, "there is no node of this name"), None
    if not selected:
        return "Down", Verdict(False, Reason.NODE_NOT_FOUND, "no Zone selects the node any more"), None
    if not node.ready:
        return "Down", Verdict(False, Reason.NODE_NOT_READY, "the node is not Ready"), None
    look_again = None
    if not agent.ready:
        grace_ends = (agent.unready_since or now) + AGENT_GRACE
        if before.state not in ("Up", "Maintenance") or now >= grace_ends:
            message = NO_AGENT + (f": {agent.cause}" if agent.cause else "")
            return "Down", Verdict(False, Reason.AGENT_NOT_READY, message), None
        look_again = grace_ends
    if node.unschedulable:
        return "Maintenance", Verdict(False, Reason.MAINTENANCE, "the node is cordoned"), look_again
    if host is not None and host.spec.allocation_state == "Maintenance":
        return "Maintenance", Verdict(False, Reason.MAINTENANCE, "spec.allocationState is Maintenance"), look_again
    return "Up", Verdict(True, Reason.UP), look_again
