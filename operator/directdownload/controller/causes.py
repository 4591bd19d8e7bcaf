"""Asks for the Events of a job whose pod is late: they alone tell why a quota, an admission or a mount keeps it.

Called by the reconcilers of placements, probes and hosts. Nothing depends on an answer (`planning/startup.py` decides
without one, only later), so a request that fails is a log line and no error. Promises: only Events of one object by its
uid, in the operator's own namespace, at most `EVENT_LIMIT` of them; the requests take `turns`; none for a while after
the API server has refused or asked to wait.
"""

import datetime
import logging

from directdownload.cluster import errors, kinds
from directdownload.cluster.objects import JobView, PodView
from directdownload.controller import starts
from directdownload.controller.context import Context
from directdownload.controller.turns import Turns
from directdownload.planning import startup
from directdownload.planning.observed import Happening, Job

logger = logging.getLogger(__name__)

#: A Job or a Pod has a handful: repetitions are counted in one.
EVENT_LIMIT = 50
TIMEOUT_SECONDS = 5.0
#: Before the Events of one agent's pod are asked for again: there are as many as hosts.
AGENT_PAUSE = datetime.timedelta(seconds=30)
#: After a refusal. The right may be given later.
REFUSED_SECONDS = 600.0


async def ask(context: Context, view: JobView, job: Job, now: datetime.datetime) -> None:
    """Asks for Events about `view` if they are due, and it has a turn; the answer is in `World.told`."""
    world = context.world
    if startup.asks(job, now):
        uid = starts.asked_about(view, world.pod_of(view))
        told = await _ask(context, world.event_turns, uid, now)
        if told is not None and view.key in world.jobs:
            world.told[view.key] = told


async def ask_about_agent(context: Context, pod: PodView, now: datetime.datetime) -> None:
    """The same for the pod of an agent that has not started; a missing pool root keeps it, for example."""
    world = context.world
    before = world.told.get(pod.key)
    recent = before is not None and before.uid == pod.uid and now - before.at < AGENT_PAUSE
    if pod.started or pod.deleting or recent or now - pod.created < startup.LATE:
        return
    told = await _ask(context, world.agent_event_turns, pod.uid, now)
    if told is not None and pod.key in world.pods:
        world.told[pod.key] = told


async def _ask(context: Context, turns: Turns, uid: str, now: datetime.datetime) -> starts.Told | None:
    """None: it was not its turn."""
    if not turns.begin():
        return None
    try:
        return starts.Told(uid, now, await _latest(context, uid))
    except errors.ApiError as error:
        _hold(turns, error)
        return starts.Told(uid, now)
    finally:
        turns.end()


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
