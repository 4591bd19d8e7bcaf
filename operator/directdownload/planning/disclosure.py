"""How much a tenant may read of a failed probe or download.

Called for the statuses of Templates and TemplateDeployments. A tenant chooses the address that a host asks: the answer
must not report whether a port there is open, closed or filtered. Administrators read the cause in the placement, or in
the log.
"""

from directdownload.planning import hosts
from directdownload.planning.observed import PlacementView
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason
from directdownload.resources.templatedeployment import MESSAGE_LENGTH, PlacementFailure

#: No server answers in the protocol of the URL: tenants read all of them as SourceUnreachable, in the same words.
#: All are transient: whether a copy is given up would report the same.
UNANSWERED = frozenset({Reason.SOURCE_UNREACHABLE, Reason.CONNECT_TIMEOUT, Reason.SOCKET_TIMEOUT})


def reason(found: Reason) -> Reason:
    return Reason.SOURCE_UNREACHABLE if found in UNANSWERED else found


def words(found: Reason, message: str, where: str) -> str:
    """`message` as a tenant may read it; `where` an administrator finds the cause."""
    if found in UNANSWERED:
        return (
            "no source answers in the protocol of its URL: a name has no address, or no such server is reached in "
            f"time; an administrator finds the cause in {where}"
        )
    if found is Reason.HOST_DOWN:
        # What keeps the operator's own pods from starting is not for tenants.
        before, known, _ = message.partition(hosts.NO_AGENT)
        return before + known
    # of the other sources
    for each in UNANSWERED:
        message = message.replace(each, Reason.SOURCE_UNREACHABLE)
    return message


def shown(result: JobResult, where: str) -> JobResult:
    """`result` with the reason and the words for tenants."""
    return result.model_copy(
        update={"reason": reason(result.reason), "message": words(result.reason, result.message, where)}
    )


def failure(placement: PlacementView, found: Reason) -> PlacementFailure:
    """The entry of a deployment's `status.failures` for a placement that failed for the reason `found`."""
    message = words(found, placement.message, f"TemplatePlacement {placement.key}")
    return PlacementFailure(
        host=placement.host, pool=placement.pool, reason=reason(found), message=message[:MESSAGE_LENGTH]
    )
