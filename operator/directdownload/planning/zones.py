"""The status of a Zone: its hosts, and whether another Zone claims the same nodes."""

import datetime
from collections.abc import Collection

from directdownload.planning import requests
from directdownload.planning.conditions import Verdict, conditions
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Zone, ZoneHosts, ZonePeersStatus, ZoneStatus


def plan_zone(
    zone: Zone,
    hosts: Collection[Host],
    contested: Collection[str],
    now: datetime.datetime,
    unavailable: int | None = None,
) -> ZoneStatus:
    """`hosts` are those of the zone; `contested` the nodes that it selects but an older Zone has.

    `unavailable`: copies that read the source as other hosts could not be reached; None: hosts do not read from each
    other.
    """
    up = sum(host.status.state == "Up" for host in hosts)
    if contested:
        sample = ", ".join(sorted(contested)[:3])
        message = f"{len(contested)} nodes that this Zone selects belong to an older Zone, for example {sample}"
        verdict = Verdict(False, Reason.ZONE_CONFLICT, message + "; change spec.nodeSelector", stalled=True)
    elif not zone.spec.enabled:
        verdict = Verdict(True, Reason.DISABLED, "spec.enabled is false: nothing new starts here")
    elif not hosts:
        verdict = Verdict(False, Reason.NO_HOSTS, "no node matches spec.nodeSelector")
    else:
        verdict = Verdict(True, Reason.READY, f"{up} of {len(hosts)} hosts are Up")
    generation = zone.metadata.generation
    return ZoneStatus(
        observed_generation=generation,
        hosts=ZoneHosts(total=len(hosts), up=up),
        peers=ZonePeersStatus(unavailable=unavailable) if unavailable is not None else None,
        **requests.served(zone, now).fields(),
        conditions=conditions(verdict, zone.status.conditions, generation, now, types=("Ready",)),
    )
