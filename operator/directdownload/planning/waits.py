"""What the pending copies of a deployment wait for, in counts: its tenants may not read placements.

Called by `rollouts`, which also knows the copies that have no placement yet.
"""

import collections
import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from directdownload.planning import disclosure
from directdownload.planning.conditions import listed
from directdownload.planning.observed import PlacementView
from directdownload.resources.reasons import DONE, TRANSIENT, WAITING, Reason
from directdownload.resources.templatedeployment import MESSAGE_LENGTH, WAITING_HOSTS, TemplateDeployment, WaitingCopies
from directdownload.resources.templateplacement import Phase

#: Reasons, and hosts of each, that a message names.
_NAMED = 3
#: The last word about the copy is of another phase: the controller looks at it next.
_PAST = DONE | {Reason.DOWNLOADING}
#: They end by themselves, within the limits. Others last until their obstacle is gone.
_MOVING = (Reason.PREPARING, Reason.WAITING_FOR_SLOT)
#: Reasons that only copies give to their deployment.
_OF_COPIES = (WAITING - {Reason.ZONE_DISABLED}) | TRANSIENT | {*_MOVING, Reason.MISSING, Reason.ALTERED}
_OF_COPIES |= {Reason.REMOVED, Reason.UNKNOWN, Reason.UNREADABLE}


class Wait(NamedTuple):
    """One copy that waits."""

    reason: Reason
    host: str
    message: str = ""


def wait_of(placement: PlacementView, deployment: TemplateDeployment) -> Wait:
    """What `placement` waits for, which counts as pending; `deployment` is shown it."""
    past = placement.reason in _PAST
    if placement.phase is Phase.UNKNOWN:
        return Wait(Reason.UNKNOWN, placement.host)
    if placement.phase is Phase.REMOVING:
        # Its message may name the disks of others.
        return Wait(Reason.REMOVED if past or placement.reason is None else placement.reason, placement.host)
    if past or placement.reason is None:
        return Wait(Reason.PREPARING, placement.host)
    message = placement.message
    if " for deployment/" in message and f" for deployment/{deployment.key};" not in message:
        # The limit of another deployment, perhaps of another namespace.
        message = ""
    message = disclosure.words(placement.reason, message, f"TemplatePlacement {placement.key}")
    return Wait(disclosure.reason(placement.reason), placement.host, message)


def counted(waits: Iterable[Wait]) -> tuple[WaitingCopies, ...]:
    """One entry for each reason, the most frequent first."""
    by_reason: dict[Reason, list[Wait]] = collections.defaultdict(list)
    for wait in waits:
        by_reason[wait.reason].append(wait)
    entries = [
        WaitingCopies(
            reason=reason,
            count=len(found),
            # Always the same ones, so that a status does not change without need.
            hosts=tuple(heapq.nsmallest(WAITING_HOSTS, {wait.host for wait in found})),
            message=min(found, key=lambda wait: wait.host).message[:MESSAGE_LENGTH],
        )
        for reason, found in by_reason.items()
    ]
    return tuple(sorted(entries, key=lambda entry: (-entry.count, entry.reason)))


def leading(waiting: Sequence[WaitingCopies]) -> Reason:
    """The reason of a deployment of which nothing downloads: what moves on by itself, else the most frequent one."""
    reasons = [entry.reason for entry in waiting]
    return next((reason for reason in _MOVING if reason in reasons), reasons[0] if reasons else Reason.PREPARING)


def stage(reason: Reason) -> Reason:
    """`reason` of a deployment, without what its copies wait for.

    That comes and goes with each attempt of each copy. It is neither worth an Event nor a write of its own.
    """
    return Reason.DOWNLOADING if reason in _OF_COPIES else reason


def words(waiting: Sequence[WaitingCopies]) -> str:
    """For a message: `4 HostDown (kvm-1, kvm-2, kvm-3, …), 1 Maintenance (kvm-7)`; empty: nothing waits."""
    return listed([f"{entry.count} {entry.reason} ({_hosts(entry.hosts)})" for entry in waiting], _NAMED)


def _hosts(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])
