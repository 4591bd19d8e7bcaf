"""`plan`: shows what `deploy` would do. It uses the controller's planners and writes nothing.

Reads the objects that the controller reads, as far as the user may; notes name the missing rights. `planview` prints
the result.
"""

import asyncio
import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

import click

from directdownload import sourcing
from directdownload.cli import examples, objects, options, planview, refusals
from directdownload.cli.command import cluster_command
from directdownload.cli.exit_status import DONE, PERMANENT, TRANSIENT
from directdownload.cli.session import Session
from directdownload.cli.view import output
from directdownload.cluster import errors, kinds
from directdownload.planning import demands, dryrun, pools, quotas, selection
from directdownload.planning.observed import PlacementView, Views
from directdownload.planning.unserved import EVERYTHING_SERVED
from directdownload.resources.base import GROUP, NAMESPACE_LABEL
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import SourcePolicy, Zone

#: Kubernetes puts it on every namespace.
_NAME_LABEL = "kubernetes.io/metadata.name"
_NO_TARGETS = frozenset({Reason.NO_MATCHING_HOSTS, Reason.NO_MATCHING_POOLS, Reason.ARCHITECTURE_MISMATCH})


@click.command(
    epilog=examples.of(
        "directdownload plan debian-13 --zone zone-1",
        "directdownload plan debian-13 --zone zone-1 --host kvm-1 --pool local",
        "directdownload plan debian-13 --zone zone-1 -o json",
    )
)
@click.argument("template", shell_complete=options.template_names)
@click.option(
    "--zone",
    required=True,
    metavar="ZONE",
    shell_complete=options.zone_names,
    help="The zone whose hosts would get it.",
)
@options.host_option
@options.pool_option
@output.output_option
@cluster_command
async def plan(
    session: Session, template: str, zone: str, hosts: tuple[str, ...], pools: tuple[str, ...], output: str
) -> int:
    """Show what deploying TEMPLATE would do: which host fetches how much from where, and what blocks it.

    The command writes nothing. Exit status 1: nothing could start now; 3: it would be refused.
    """
    found = await _plan(session, template, zone, hosts, pools)
    planview.show(found, output)
    return exit_status(found.run)


def exit_status(run: dryrun.DryRun) -> int:
    """0: a copy could start, or all are present; 1: all copies wait; 3: refused. Single copies do not matter."""
    if run.refused is not None:
        return PERMANENT if run.refused.stalled or run.refused.reason in _NO_TARGETS else TRANSIENT
    blocked = run.count(*dryrun.BLOCKED)
    if not blocked or blocked < len(run.copies):
        return DONE
    return TRANSIENT if run.count(dryrun.Action.WAIT) else PERMANENT


async def _plan(
    session: Session, name: str, zone_name: str, hosts: tuple[str, ...], pool_names: tuple[str, ...]
) -> planview.Plan:
    template = Template.model_validate(await session.api.get(kinds.TEMPLATES, name, namespace=session.namespace))
    zone = await objects.expect_zone(session, zone_name)
    in_zone = objects.zone_selector(zone_name)
    host_documents, pool_documents, copies, labels, running = await asyncio.gather(
        objects.visible(session, kinds.HOSTS, field_selector=in_zone),
        objects.visible(session, kinds.STORAGE_POOLS, field_selector=in_zone),
        _existing(session, template),
        _namespace_labels(session),
        _running(session, zone_name),
    )
    used = await _used(session, zone_name, zone)
    notes = list(_unreadable(session, zone_name, zone, host_documents, pool_documents, copies))
    views = Views()
    members = objects.readable(views.host, host_documents or ())
    zone_pools = objects.readable(StoragePool.model_validate, pool_documents or ())
    other_hosts = await objects.elsewhere(session, kinds.HOSTS, hosts, host_documents)
    other_pools = await objects.elsewhere(session, kinds.STORAGE_POOLS, pool_names, pool_documents)
    known = zone or Zone.model_validate({"metadata": {"name": zone_name}, "spec": {"nodeSelector": {}}})
    # a zone's allowed exports cannot be assumed: the default is none
    policy = zone.spec.source_policy if zone is not None else SourcePolicy(nfs_exports=None)
    fleet = selection.Fleet(
        zones={zone_name: known},
        hosts=[*members, *objects.readable(views.host, other_hosts)],
        pools=[*zone_pools, *objects.readable(StoragePool.model_validate, other_pools)],
        namespaces={session.namespace: labels if labels is not None else {_NAME_LABEL: session.namespace}},
        pool_roots=pools.told_roots(zone_pools),
        usage=quotas.Usage({quotas.Account(session.namespace, zone_name): used}),
        judge=lambda each, _: sourcing.judged(each, policy)[1],
    )
    sources, _ = sourcing.judged(template, policy)
    deployment = _deployment(session.namespace, name, zone_name, hosts, pool_names)
    now = datetime.datetime.now(datetime.UTC)
    begun = None if running is None else await _with_templates(session, running, template, zone, notes)
    run = dryrun.plan_dry_run(deployment, template, fleet, copies or {}, now, begun)
    if run.refused is not None and run.refused.reason in _NO_TARGETS and None in (host_documents, pool_documents):
        run = dataclasses.replace(run, refused=None)
    if run.refused is not None and run.refused.reason is Reason.NAMESPACE_NOT_ALLOWED and labels is None:
        notes.append(f"the labels of namespace {session.namespace} cannot be read: the zone may still allow it")
    for what, named, documents, others in (
        ("host", hosts, host_documents, other_hosts),
        ("pool", pool_names, pool_documents, other_pools),
    ):
        if documents is not None:
            notes += objects.missing_notes(what, named, zone_name, documents, others)
    if None in (host_documents, pool_documents):
        run = dataclasses.replace(run, unserved=EVERYTHING_SERVED)
    reachable = template.status.condition("SourceReachable")
    if reachable is not None and reachable.status == "False":
        notes.append(f"the source did not answer the last probe: {reachable.reason}: {reachable.message}")
    return planview.Plan(
        template=template,
        deployment=deployment,
        zone=zone,
        sources=sources,
        run=run,
        notes=notes,
        volumes={h.name: number for h in members if (number := demands.volumes_of(h, template.key, template.uid))},
    )


def _deployment(
    namespace: str, template: str, zone: str, hosts: tuple[str, ...], pool_names: tuple[str, ...]
) -> TemplateDeployment:
    """The deployment that `deploy` would create."""
    spec: dict[str, Any] = {"templateRef": {"name": template}, "zone": zone, "hosts": hosts, "pools": pool_names}
    metadata = {"namespace": namespace, "name": f"{template}-{zone}", "generation": 1}
    return TemplateDeployment.model_validate({"metadata": metadata, "spec": spec})


async def _existing(session: Session, template: Template) -> Mapping[str, PlacementView] | None:
    selector = objects.placement_selector(template.metadata.namespace, template.name)
    documents = await objects.visible(session, kinds.TEMPLATE_PLACEMENTS, label_selector=selector)
    if documents is None:
        return None
    views = objects.readable(Views().placement, documents)
    return {view.key: view for view in views if view.template_uid == template.uid}


async def _running(session: Session, zone_name: str) -> list[PlacementView] | None:
    """All placements that are Downloading in the zone; None if they cannot be known."""
    try:
        selector = f"{objects.zone_selector(zone_name)},status.phase={Phase.DOWNLOADING}"
        documents = await objects.visible(session, kinds.TEMPLATE_PLACEMENTS, field_selector=selector)
    except errors.Invalid:
        # The definition is of a version that cannot select by phase.
        return None
    return objects.readable(Views().placement, documents) if documents is not None else None


async def _with_templates(
    session: Session, running: list[PlacementView], template: Template, zone: Zone | None, notes: list[str]
) -> list[dryrun.Running]:
    """With the Templates, which name the sources, as far as they are needed and the user may read them."""
    known = {template.key: template}
    foreign = {view.template_key for view in running} - known.keys()
    if foreign and zone is not None and zone.spec.downloads.max_parallel_per_source:
        documents = await objects.visible(session, kinds.TEMPLATES)
        known |= {each.key: each for each in objects.readable(Template.model_validate, documents or ())}
        if documents is None:
            notes.append(
                "you may not list templates of all namespaces: their downloads do not count for the limit per source"
            )
    return [(view, known.get(view.template_key)) for view in running]


async def _used(session: Session, zone_name: str, zone: Zone | None) -> int:
    """The number of placements of the namespace's deployments; 0 if the zone has no limit for it."""
    if zone is None or not zone.spec.placements_per_namespace:
        return 0
    used = 0
    # A placement of version 0.1.0 names only the namespace of its Template.
    for label in (
        f"{NAMESPACE_LABEL}={session.namespace}",
        f"!{NAMESPACE_LABEL},{GROUP}/template-namespace={session.namespace}",
    ):
        try:
            async for page, _ in session.api.pages(
                kinds.TEMPLATE_PLACEMENTS, label_selector=label, field_selector=objects.zone_selector(zone_name)
            ):
                used += len(page)
        except errors.Forbidden:
            # The note about copies covers this missing right.
            return 0
    return used


async def _namespace_labels(session: Session) -> Mapping[str, str] | None:
    try:
        document = await session.api.get(kinds.NAMESPACES, session.namespace)
    except (errors.Forbidden, errors.NotFound):
        return None
    labels: Mapping[str, str] = document["metadata"].get("labels") or {}
    return labels


def _unreadable(
    session: Session, zone_name: str, zone: Zone | None, hosts: object, pools: object, copies: object
) -> list[str]:
    """Notes on what this user may not read, each with the missing right."""
    lines = []
    if zone is None:
        lines.append(
            f"you may not read zones ({_right('get', 'zones')}): whether {zone_name} is enabled, whether it "
            f"allows namespace {session.namespace} and this source, and its limits are not known; defaults are assumed"
        )
    for what, found, cannot in (
        ("hosts", hosts, "hosts and their free space are not known"),
        ("storagepools", pools, "pools are not known"),
        ("templateplacements", copies, "existing copies are not known"),
    ):
        if found is None:
            lines.append(f"you may not list {what} ({_right('list', what)}): {cannot}")
    return lines


def _right(verb: str, plural: str) -> str:
    role = refusals.role(verb, plural)
    return f"{verb!r} on {plural}.directdownload.dev, as the chart's ClusterRole <release>-{role} has"
