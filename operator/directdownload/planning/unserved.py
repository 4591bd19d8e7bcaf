"""Names in `hosts` and `pools` of a deployment that its zone does not have. Called by `rollouts` and `dryrun`.

A name may come before its node or pool: it is desired and not served, so the deployment is not Ready
(docs/decisions/0033-unknown-names-are-not-ready.md).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from directdownload.planning.conditions import listed
from directdownload.planning.selection import Fleet
from directdownload.resources.reasons import Reason
from directdownload.resources.templatedeployment import TemplateDeployment


@dataclasses.dataclass(frozen=True, slots=True)
class Unserved:
    """By the order of the spec. `elsewhere`: those that exist in another zone."""

    zone: str
    hosts: Sequence[str] = ()
    hosts_elsewhere: Sequence[str] = ()
    pools: Sequence[str] = ()
    pools_elsewhere: Sequence[str] = ()

    @property
    def reason(self) -> Reason | None:
        """None: the zone has all of them."""
        if self.hosts or self.hosts_elsewhere:
            return Reason.HOST_NOT_FOUND
        return Reason.POOL_NOT_FOUND if self.pools or self.pools_elsewhere else None

    @property
    def words(self) -> str:
        """For a message, some of the names; empty: the zone has all of them."""
        return "; ".join(
            f"{field}: {text} {listed(names)}"
            for field, text, names in (
                ("spec.hosts", f"Zone {self.zone} has no host", self.hosts),
                ("spec.hosts", "in another Zone:", self.hosts_elsewhere),
                ("spec.pools", f"Zone {self.zone} has no StoragePool", self.pools),
                ("spec.pools", "in another Zone:", self.pools_elsewhere),
            )
            if names
        )


EVERYTHING_SERVED = Unserved("")


def names_unserved(deployment: TemplateDeployment, fleet: Fleet) -> Unserved:
    spec = deployment.spec
    if not spec.hosts and not spec.pools:
        return EVERYTHING_SERVED
    # One without a state has just been created, and gets its copies after its first status (`architectures.takes`).
    known = (host for host in fleet.hosts if host.status.state is not None or host.spec.zone != spec.zone)
    hosts = _apart(spec.hosts, {host.name: host.spec.zone for host in known}, spec.zone)
    pools = _apart(spec.pools, {pool.name: pool.spec.zone for pool in fleet.pools}, spec.zone)
    return Unserved(spec.zone, *hosts, *pools)


def _apart(names: Iterable[str], zones: Mapping[str, str], zone: str) -> tuple[Sequence[str], Sequence[str]]:
    """Those that do not exist, and those of another zone; `zones`: that of each which exists."""
    missing = [name for name in dict.fromkeys(names) if zones.get(name) != zone]
    return [name for name in missing if name not in zones], [name for name in missing if name in zones]
