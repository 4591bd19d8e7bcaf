"""Which copies of a plan read the source, and which read other hosts. Called by `dryrun`."""

import datetime
from collections.abc import Iterable, Mapping

from directdownload.planning import peers
from directdownload.planning.observed import PlacementView
from directdownload.planning.selection import Names
from directdownload.planning.swarms import Swarm
from directdownload.resources.jobs import PeerRole
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, Role
from directdownload.resources.zone import Zone

_OF_JOBS = {Role.SEED: PeerRole.SEED, Role.PEER: PeerRole.PEER}


def roles(
    starting: Mapping[str, PlacementView],
    there: Iterable[PlacementView],
    template: Template,
    zone: Zone,
    names: Names,
    now: datetime.datetime,
) -> Mapping[str, Role]:
    """The roles of the downloads `starting`, by name, if they start now; empty: hosts of the zone read no others.

    `there`: the placements of the template that exist; `starting` has those of them that start, or run, as well.
    """
    if zone.status.peers is None:
        return {}
    swarm = Swarm(template.uid, zone.name)
    views = {**{view.key: view for view in there if view.zone == zone.name}, **starting}
    for view in views.values():
        swarm.take(None, view)
    content = swarm.content(template)

    def shares(view: PlacementView) -> bool:
        host, pool = names.hosts.get(view.host), names.pools.get(view.pool)
        identity = host.status.peer if host is not None and host.status.state not in (None, "Down") else None
        known = identity is not None and identity.not_after > now
        return content is not None and known and pool is not None and not pool.spec.shared

    seeds = any(view.counted is Phase.DOWNLOADING and role_of(view) is PeerRole.SEED for view in views.values())
    served = seeds or bool(swarm.server(shares)) or bool(swarm.recorder(shares, now))
    seed = "" if served else swarm.next_seed(lambda view: view.key in starting and shares(view), now)

    def role(view: PlacementView) -> Role:
        if view.phase is Phase.DOWNLOADING and view.peers is not None and view.peers.role is not None:
            return view.peers.role
        if not shares(view) or peers.unreached((view,)) or swarm.refuted:
            return Role.ORIGIN
        return Role.SEED if view.key == seed else Role.PEER

    return {key: role(view) for key, view in starting.items()}


def role_of(view: PlacementView) -> PeerRole | None:
    """The role of a download that runs, as its status shows it."""
    return job_role(view.peers.role if view.peers is not None else None)


def job_role(role: Role | None) -> PeerRole | None:
    return _OF_JOBS.get(role) if role is not None else None
