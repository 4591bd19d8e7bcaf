"""Who orders the removal of a file: only people do (architecture, rule 12). Called by `deployments`.

The file of a copy that no deployment has any more is removed on the order of the deployments that wanted it last, as
they are being deleted or have just been narrowed. Only those count whose `deletionPolicy` counts (`rights`), and one
Retain among them wins. Without such a deployment the deletion of its Template is an order, and so is the end of its
last volume (`demands`): the Zone says how long a copy is kept for volumes. Otherwise the placement goes, and the file
stays.

A label or an object that vanishes is no order: the copy is still wanted, or only its placement goes.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from directdownload.planning import rights
from directdownload.planning.observed import PlacementView
from directdownload.planning.selection import Names, Target
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment


@dataclasses.dataclass(frozen=True, slots=True)
class Decider:
    """A deployment that decides about copies, and what is computed of it once, for each of thousands of copies."""

    deployment: TemplateDeployment
    standing: rights.Standing
    targets: Mapping[str, Target]
    #: its selection differs from the one by which its placements were last planned
    changed: bool
    #: it decides about copies that it no longer selects
    narrowed: bool

    @classmethod
    def of(cls, deployment: TemplateDeployment, standing: rights.Standing, targets: Mapping[str, Target]) -> "Decider":
        planned, granted = deployment.status.observed_selection, deployment.status.granted
        selection = rights.selection(deployment)
        # If it was never reported as planned, the selection that was granted counts.
        before = planned or (granted.selection if granted is not None else None)
        narrowed = standing.votes and before not in (None, selection)
        return cls(deployment, standing, targets, changed=planned != selection, narrowed=narrowed)

    @property
    def asks(self) -> bool:
        """Whether it gets new copies."""
        return not self.deployment.deleting and self.standing.refused is None

    def has(self, placement: PlacementView) -> bool:
        """Whether `placement`, which it wants, stays for it."""
        return not self.deployment.deleting and self.standing.has(placement)

    def wants(self, placement: PlacementView, names: Names) -> bool:
        """Whether it still wants `placement`.

        The zone, pools and hosts that it names decide. Selectors decide only if it has `changed`.
        """
        spec = self.deployment.spec
        if placement.key in self.targets:
            return True
        if spec.zone != placement.zone or (spec.pools and placement.pool not in spec.pools):
            return False
        pool, host = names.pools.get(placement.pool), names.hosts.get(placement.host)
        if pool is None or pool.spec.shared:
            # A shared copy belongs to no host. Without its pool nobody knows whether this copy is shared.
            return True
        if not spec.names(placement.host):
            return False
        if not self.changed or host is None or host.spec.zone != spec.zone:
            return True
        return spec.host_selector.matches(host.metadata.labels)


def has_moved(placement: PlacementView, template: Template, names: Names) -> bool:
    """Whether its host has gone to another zone: there it keeps the files of templates that stay."""
    host = names.hosts.get(placement.host)
    return host is not None and host.spec.zone != placement.zone and not template.deleting


def is_ordered(
    placement: PlacementView,
    template: Template,
    wanting: Sequence[Decider],
    deciders: Iterable[Decider],
    *,
    let_go: bool = False,
) -> bool:
    """Whether the file of `placement`, which neither one of `deciders` nor a volume has any more, is removed.

    `wanting`: those that still want it, as they are being deleted or may not have it any more; `let_go`: by its last
    volume.
    """
    last = [each.deployment for each in wanting if each.standing.votes]
    last += [each.deployment for each in deciders if each.narrowed and each.deployment.spec.zone == placement.zone]
    return all(each.spec.deletion_policy == "Delete" for each in last) if last else let_go or template.deleting
