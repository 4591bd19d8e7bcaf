"""Asks for the Events of a job whose pod is late: they alone tell why a quota, an admission or a mount keeps it.

Called by the reconcilers of placements and probes. Nothing depends on an answer (`planning/startup.py` decides without
one, only later), so a request that fails is a log line and no error. Promises: only Events of one object by its uid, in
the operator's own namespace, at most `EVENT_LIMIT` of them; the requests take `turns`; none for a while after the API
server has refused or asked to wait.
"""

import datetime
import logging

from directdownload.cluster import errors, kinds
from directdownload.cluster.objects import JobView
from directdownload.controller import starts
from directdownload.controller.context import Context
from directdownload.controller.turns import Turns
from directdownload.planning import startup
from directdownload.planning.observed import Happening, Job

logger = logging.getLogger(__name__)

#: A Job or a Pod has a handful: repetitions are counted in one.
EVENT_LIMIT = 50
TIMEOUT_SECONDS = 5.0
#: After a refusal. The right may be given later.
REFUSED_SECONDS = 600.0


async def ask(context: Context, view: JobView, job: Job, now: datetime.datetime) -> None:
    """Asks for Events about `view` if they are due, and it has a turn; the answer is in `World.told`."""
    world = context.world
    if not startup.asks(job, now) or not world.event_turns.begin():
        return
    uid = starts.asked_about(view, world.pod_of(view))
    try:
        found = await _latest(context, uid)
    except errors.ApiError as error:
        found = None
        _hold(world.event_turns, error)
    finally:
        world.event_turns.end()
    if view.key in world.jobs:
        world.told[view.key] = starts.Told(uid, now, found)


async def _latest(context: Context, uid: str) -> Happening | None:
    answer = await context.api.request(
        "GET",
        kinds.CORE_EVENTS,
        namespace=context.settings.namespace,
        query={"fieldSelector": f"involvedObject.uid={uid}", "limit": str(EVENT_LIMIT)},
        verb="list",
        timeout_seconds=TIMEOUT_SECONDS,
    )
    return startup.latest(starts.happenings(answer.get("items") or ()))


def _hold(turns: Turns, error: errors.ApiError) -> None:
    seconds = 1.0
    if isinstance(error, errors.Forbidden):
        seconds = REFUSED_SECONDS
    elif isinstance(error, errors.TooManyRequests):
        seconds = error.retry_after_seconds
    turns.hold(seconds)
    logger.warning("No Events of pods that do not start: %s; asking again in %.0f s at the earliest", error, seconds)
