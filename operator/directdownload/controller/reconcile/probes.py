"""The probes of one Template: started once there is a host and a slot, deleted once they have been read.

The reconciler of the Template takes in a probe's result, as it alone writes the status.
"""

import logging

from directdownload.cluster import errors, kinds
from directdownload.controller import causes, job_secrets, jobs, watches
from directdownload.controller.context import Context
from directdownload.controller.queue import Key
from directdownload.planning import probes, slots
from directdownload.planning.header_secrets import Headers
from directdownload.resources import naming
from directdownload.resources.host import Host
from directdownload.resources.template import Template

logger = logging.getLogger(__name__)


async def reconcile(context: Context, name: str) -> None:
    """`name` is that of `naming.probe_name`, for a Template that may be gone."""
    world = context.world
    world.probe_line.pop(name, None)
    world.probes_without_host.discard(name)
    try:
        await _reconcile(context, name)
    finally:
        watches.call_next_probe(world, context.queue)


async def _reconcile(context: Context, name: str) -> None:
    await _ask_for_cause(context, name)
    world, now = context.world, context.now()
    template = next(world.templates_of_probe[name], None)
    probe = world.probe(name, now)
    read = template is not None and probe is not None and probe.job.attempt < probes.next_attempt(template)
    if template is None or template.deleting or read:
        await _clear(context, name)
        probe = None
    if template is None or template.deleting:
        return
    if probe is None:
        await _start_if_due(context, name, template)
    elif probe.job.deleting:
        # Somebody else deletes it; its end brings the next look.
        return
    elif probes.result_of(probe, world.hosts.get(probe.host), now) is not None:
        context.queue.add(Key("template", template.key))
    else:
        if not probe.job.started:
            for view in world.jobs_of_probe[name]:
                await job_secrets.equip(context, view, template)
        for when in (probes.look_again(probe, now), world.result_due(world.jobs_of_probe[name])):
            context.look_again(Key("probe", name), when)


async def _ask_for_cause(context: Context, name: str) -> None:
    """Asks for the Events of a probe that is late to start. Before anything is decided."""
    world, now = context.world, context.now()
    views = list(world.jobs_of_probe[name])
    if any(view.succeeded or view.failed for view in views):
        # It has run, and `World.probe` counts from its first look how long its result is awaited.
        return
    probe = world.probe(name, now)
    for view in views:
        if probe is not None and view.name == probe.job.name:
            await causes.ask(context, view, probe.job, now)


async def _clear(context: Context, name: str) -> None:
    for view in list(context.world.jobs_of_probe[name]):
        await context.delete_job(view)


async def _start_if_due(context: Context, name: str, template: Template) -> None:
    world, now = context.world, context.now()
    if not probes.wanted(template):
        return
    inputs = probes.inputs_of(template, world.zones)
    when = probes.due(template, inputs, now)
    if when is None or when > now:
        context.look_again(Key("probe", name), when)
        return
    namespaces = {namespace.key: namespace.labels for namespace in world.namespaces}
    attempt = probes.next_attempt(template)
    host = probes.choose(template, probes.hosts_for(template, world.zones, world.hosts, namespaces), attempt)
    if host is None:
        world.probes_without_host.add(name)
    elif world.slots.full_group((slots.PROBES,)) is not None:
        world.probe_line[name] = None
    else:
        await _start(context, template, host, attempt, inputs)


async def _start(context: Context, template: Template, host: Host, attempt: int, inputs: str) -> None:
    world, namespace = context.world, context.settings.namespace
    zone = world.zones.get(host.spec.zone)
    if zone is None:
        raise ValueError("hosts_for gives hosts of Zones that exist only")
    job_name = naming.job_name(naming.probe_name(template.name, template.uid), "probe", attempt)
    # Before the first request, so that others do not take the same slot meanwhile.
    world.slots.occupy(job_name, (slots.PROBES.name,))
    try:
        found = Headers(None)
        if template.spec.headers_secret_ref is not None:
            found = await job_secrets.read(context, template)
        if found.problem is not None:
            # The Template's status reports it next, and the Template is looked at again.
            context.queue.add(Key("template", template.key))
            world.slots.release(job_name)
            return
        document = jobs.probe_document(template, zone, host.name)
        body = jobs.probe_manifest(context.job_template, namespace, template, host, document, attempt, inputs)
        await job_secrets.make_way(context.api, body)
        try:
            answer = await context.api.create(kinds.JOBS, body, namespace=namespace)
        except errors.AlreadyExists:
            # Created before a restart, or by a request whose answer was lost.
            answer = await context.api.get(kinds.JOBS, job_name, namespace=namespace)
    except BaseException:
        # If it exists all the same, the watch brings it, and it takes its slot again.
        world.slots.release(job_name)
        raise
    context.observe(kinds.JOBS, answer)
    logger.info("Template %s: probing its source from host %s", template.key, host.name, extra={"host": host.name})
    for view in world.jobs_of_probe[naming.probe_name(template.name, template.uid)]:
        if found.data and view.name == job_name:
            await job_secrets.give(context, view, found)
