"""The answers to demands, in `Host.status.served`: where a copy lies, what it waits for, or why there is none.

Called for a Host after each change of its demands, of the copies that serve them, and of the rights to them. An answer
travels to the pod's Event, so that it says no more than a tenant may read. kubelet takes a message of an Event as a
format, so that none has a per cent sign.
"""

import datetime
from collections.abc import Sequence

from directdownload.planning import architectures, demands, disclosure
from directdownload.planning.conditions import Verdict
from directdownload.planning.demands import Asking, Copy
from directdownload.planning.observed import PlacementView
from directdownload.resources.host import SERVED_MESSAGE_LENGTH, Served, ServedState
from directdownload.resources.reasons import DONE, Reason
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase

_PREPARING = Verdict(False, Reason.PREPARING, "its copy on this host is being prepared")


def answer(
    asking: Asking,
    template: Template | None,
    copies: Sequence[Copy],
    judge: demands.Judge,
    now: datetime.datetime,
    *,
    kept: bool = False,
    obstacle: Verdict | None = None,
) -> Served:
    """`copies` of the Template that it is about, which the host sees, the best first. `kept`: somebody else wants one
    of them. `obstacle`: why no copy is made, if there is none."""
    demand = asking.demand
    uid = demand.uid or (template.uid if template is not None else "")
    active = [copy for copy in copies if copy.placement.phase is not Phase.REMOVING and not copy.placement.deleting]
    refused = demands.refusal(asking, template, judge)
    if not demand.volumes and (not active or (asking.spent(now) and kept)):
        return _answer(asking, ServedState.RELEASED)
    if refused is not None and refused.stalled and not demand.uid:
        return _answer(asking, ServedState.REFUSED, refused)
    # Its volumes hold a copy that is to be removed as well: they go on after a reboot.
    for copy in active if not demand.uid else copies:
        if copy.blocked is None and _lies_there(copy.placement):
            return _answer(asking, ServedState.READY, template_uid=uid, path=copy.placement.path)
    if active:
        return _waiting(asking, active[0], uid)
    if refused is not None:
        state = ServedState.REFUSED if refused.stalled else ServedState.WAITING
        return _answer(asking, state, refused, template_uid=uid)
    if template is not None and architectures.differs(template, asking.host):
        found, wanted = asking.host.status.architecture, template.spec.architecture
        message = f"host {asking.host.name} is {found}, and the Template's spec.architecture is {wanted}"
        return _answer(asking, ServedState.REFUSED, Verdict(False, Reason.ARCHITECTURE_MISMATCH, message))
    return _answer(asking, ServedState.WAITING, obstacle or _PREPARING, template_uid=uid)


def unread(asking: Asking) -> Served:
    """For a Template that exists and cannot be read."""
    message = f"Template {asking.template_key} cannot be read by this version; an administrator can correct it"
    return _answer(asking, ServedState.WAITING, Verdict(False, Reason.UNREADABLE, message))


def _lies_there(placement: PlacementView) -> bool:
    removing = placement.phase is Phase.REMOVING and placement.reason is Reason.IN_USE
    return removing or placement.phase is Phase.READY


def _waiting(asking: Asking, copy: Copy, uid: str) -> Served:
    """What the copy waits for, or why it failed, in words for tenants."""
    placement = copy.placement
    reason = placement.reason
    if copy.blocked is not None:
        verdict = copy.blocked
    elif reason is None or reason in DONE:
        verdict = _PREPARING
    else:
        message = disclosure.words(reason, placement.message, f"TemplatePlacement {placement.key}")
        verdict = Verdict(False, disclosure.reason(reason), message)
    state = ServedState.REFUSED if placement.phase is Phase.FAILED else ServedState.WAITING
    return _answer(asking, state, verdict, template_uid=uid)


def _answer(
    asking: Asking,
    state: ServedState,
    verdict: Verdict | None = None,
    *,
    template_uid: str = "",
    path: str | None = None,
) -> Served:
    demand = asking.demand
    message = verdict.message.replace("%", " per cent") if verdict is not None else ""
    if len(message) > SERVED_MESSAGE_LENGTH:
        message = message[: SERVED_MESSAGE_LENGTH - 1] + "…"
    return Served(
        namespace=demand.namespace,
        template=demand.template,
        uid=demand.uid,
        since=demand.since,
        state=state,
        template_uid=template_uid or None,
        path=path,
        reason=verdict.reason if verdict is not None else None,
        message=message or None,
    )
