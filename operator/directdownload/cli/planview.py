"""Prints a plan, for people and for programs. Pure except for printing."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import click

from directdownload.cli import objects
from directdownload.cli.view import output, units
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.planning.conditions import listed
from directdownload.planning.dryrun import BLOCKED, Action, Copy, DryRun
from directdownload.planning.selection import Skipped
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Role
from directdownload.resources.zone import Zone
from directdownload.sourcing import Source

_WORDS = {
    Action.DOWNLOAD: "to download",
    Action.ADOPT: "to adopt",
    Action.DOWNLOADING: "downloading",
    Action.PRESENT: "present",
    Action.WAIT: "waiting",
    Action.REFUSED: "refused",
}
#: Number of hosts named per blocking reason.
_HOSTS_NAMED = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A plan. `zone` is None if the user may not read it. `notes`: unknown facts and other remarks."""

    template: Template
    deployment: TemplateDeployment
    zone: Zone | None
    sources: Sequence[Source]
    run: DryRun
    notes: Sequence[str]
    #: of pods that use the template or wait for it, by host
    volumes: Mapping[str, int] = dataclasses.field(default_factory=dict)


def show(plan: Plan, how: str) -> None:
    if how == "name":
        names = [{"metadata": {"name": copy.placement}} for copy in plan.run.copies]
        objects.print_documents(names, kinds.TEMPLATE_PLACEMENTS, how)
    elif how != "table":
        output.print_document(document(plan), how)
    else:
        click.echo("\n".join(lines(plan)))
    for note in plan.notes:
        click.echo(f"Note: {note}.", err=True)
    if how == "table":
        click.echo(_next(plan), err=True)


def lines(plan: Plan) -> list[str]:
    """The plan as lines of text."""
    run, found = plan.run, _facts(plan)
    if run.copies:
        shared = any(copy.role is not None for copy in run.copies)
        rows = [(*_row(copy), *([_role(copy)] if shared else ())) for copy in run.copies]
        columns = ("host", "pool", "action", "fetch", "free", "after", "round", "reason")
        found += ["", output.table((*columns, *(("role",) if shared else ())), rows)]
    found += ["", _total(run)]
    if run.rounds > 1:
        found.append(f"At most {run.most_at_once} at once, by the zone's limits: {run.rounds} rounds.")
    found += _exchange(run)
    found += _uncertain(run)
    if run.skipped:
        found.append(_skipped(run.skipped, plan.template))
    if plan.volumes:
        volumes = units.count(sum(plan.volumes.values()), "volume of pods needs", "volumes of pods need")
        hosts = units.count(len(plan.volumes), "host")
        found.append(f"Volumes: {volumes} the template on {hosts}; a copy serves both.")
    blocked = _blocked(run)
    if blocked:
        found += ["", "Blocked:", *(f"  {line}" for line in blocked)]
    return found


def document(plan: Plan) -> Object:
    """The plan for `--output json` and `yaml`; unknown values are null."""
    template, run = plan.template, plan.run
    refused = run.refused
    return {
        "template": template.name,
        "namespace": template.metadata.namespace,
        "zone": plan.deployment.spec.zone,
        "deployment": plan.deployment.name,
        "sizeBytes": template.status.size_bytes,
        "virtualSizeBytes": template.status.virtual_size_bytes,
        "checksum": template.spec.checksum,
        "sources": [
            {
                "url": source.url,
                "protocol": source.protocol,
                "metalink": source.metalink,
                "problem": source.problem or None,
            }
            for source in plan.sources
        ],
        "refused": {"reason": refused.reason.value, "message": refused.message} if refused is not None else None,
        "total": {
            "copies": len(run.copies),
            "hosts": len({copy.host for copy in run.copies}),
            "skipped": len(run.skipped),
            **{action.value[0].lower() + action.value[1:]: run.count(action) for action in Action},
            "fetchBytes": run.fetch_bytes,
            "originBytes": run.origin_bytes,
            "rounds": run.rounds,
            "mostAtOnce": run.most_at_once,
            "otherDownloads": run.others,
            "volumes": sum(plan.volumes.values()),
        },
        "blocked": [entry.model_dump(mode="json", by_alias=True) for entry in run.blocked],
        "unserved": {
            "hosts": list(run.unserved.hosts),
            "hostsElsewhere": list(run.unserved.hosts_elsewhere),
            "pools": list(run.unserved.pools),
            "poolsElsewhere": list(run.unserved.pools_elsewhere),
        },
        "items": [_document(copy) for copy in run.copies],
        "skipped": [
            {"host": each.host.name, "pool": each.pool, "architecture": str(each.host.status.architecture)}
            for each in run.skipped
        ],
        "notes": list(plan.notes),
    }


def _document(copy: Copy) -> Object:
    return {
        "placement": copy.placement,
        "host": copy.host,
        "pool": copy.pool,
        "path": copy.path,
        "action": copy.action.value,
        "exists": copy.exists,
        "reason": copy.reason.value if copy.reason is not None else None,
        "message": copy.message or None,
        "fetchBytes": copy.fetch_bytes,
        "partBytes": copy.part_bytes,
        "availableBytes": copy.available_bytes,
        "reserveBytes": copy.reserve_bytes,
        "afterBytes": copy.after_bytes,
        "round": copy.round,
        "role": copy.role.value if copy.role is not None else None,
    }


def _facts(plan: Plan) -> list[str]:
    template = plan.template
    status, spec = template.status, template.spec
    size = units.size(status.size_bytes) if status.size_bytes is not None else "size not known yet"
    disk = f", a disk of {units.size(status.virtual_size_bytes)}" if status.virtual_size_bytes is not None else ""
    facts = [
        ("Template", f"{template.key}: {spec.format}, {size}{disk}"),
        ("Checksum", spec.checksum or "none: the bytes are accepted as served"),
    ]
    for source in plan.sources:
        kind = "metalink over " if source.metalink else ""
        problem = f": not used: {source.problem}" if source.problem else ""
        facts.append(("Source", f"{source.url} ({kind}{source.protocol}){problem}"))
    facts.append(("Zone", f"{plan.deployment.spec.zone}{_limits(plan.zone)}"))
    return [f"{name + ':':<10}{value}" for name, value in facts]


def _limits(zone: Zone | None) -> str:
    if zone is None:
        return ""
    downloads = zone.spec.downloads
    found = [
        f"{limit} {what}"
        for limit, what in (
            (downloads.max_parallel, "downloads at once"),
            (downloads.max_parallel_per_host, "per host"),
            (downloads.max_parallel_per_source, "per source"),
            (downloads.max_parallel_per_namespace, "per namespace"),
        )
        if limit
    ]
    if downloads.bandwidth_per_host:
        found.append(f"{units.rate(downloads.bandwidth_per_host)} per host")
    state = "" if zone.spec.enabled else " (disabled)"
    return state + (f": {', '.join(found)}" if found else "")


def _row(copy: Copy) -> tuple[str, ...]:
    return (
        copy.host,
        copy.pool,
        copy.action.value,
        units.size(copy.fetch_bytes),
        units.size(copy.available_bytes),
        _signed(copy.after_bytes),
        str(copy.round) if copy.round is not None else units.UNKNOWN,
        copy.reason.value if copy.reason is not None and copy.action is not Action.PRESENT else units.UNKNOWN,
    )


def _signed(size_bytes: int | None) -> str:
    return f"-{units.size(-size_bytes)}" if size_bytes is not None and size_bytes < 0 else units.size(size_bytes)


def _total(run: DryRun) -> str:
    if not run.copies:
        return "No copies."
    hosts = len({copy.host for copy in run.copies})
    parts = [f"{run.count(action)} {word}" for action, word in _WORDS.items() if run.count(action)]
    amount = "" if not run.rounds else f"; {units.size(run.fetch_bytes)} to fetch"
    if run.rounds and run.fetch_bytes is None:
        amount = "; size not known"
    return (
        f"Total: {units.count(len(run.copies), 'copy', 'copies')} on {units.count(hosts, 'host')}: "
        f"{', '.join(parts)}{amount}."
    )


def _role(copy: Copy) -> str:
    return copy.role.value if copy.role is not None else units.UNKNOWN


def _exchange(run: DryRun) -> list[str]:
    """Who reads the source, where hosts read from each other."""
    roles = [copy.role for copy in run.copies if copy.role is not None]
    if not roles:
        return []
    readers = [copy.host for copy in run.copies if copy.role in (Role.SEED, Role.ORIGIN)]
    whom = listed(sorted(set(readers)), _HOSTS_NAMED) if readers else "none"
    amount = f", {units.size(run.origin_bytes)} in all" if readers and run.origin_bytes is not None else ""
    others = units.count(roles.count(Role.PEER), "copy comes", "copies come")
    return [f"Source: read by {whom}{amount}; {others} from other hosts."]


def _uncertain(run: DryRun) -> list[str]:
    """What the rounds and the bytes to fetch rest on."""
    found = []
    if run.rounds and run.others is None:
        found.append("Rounds: other downloads of the zone are not known, and not counted.")
    elif run.rounds and run.others:
        running = units.count(run.others, "other download runs", "other downloads run")
        found.append(f"Rounds: {running} in the zone, counted in round 1; those that wait are not counted.")
    parts = sum(copy.part_bytes > 0 for copy in run.copies)
    if parts:
        hosts = units.count(parts, "copy has", "copies have")
        found.append(
            f"Fetch: {hosts} a part of an earlier download: its space is counted, its good bytes are not known."
        )
    return found


def _blocked(run: DryRun) -> list[str]:
    """One line per reason, with its hosts and the message of its first copy."""
    if run.refused is not None:
        return [f"{run.refused.reason}: {run.refused.message}"]
    by_reason: dict[Reason | None, list[Copy]] = collections.defaultdict(list)
    for copy in run.copies:
        if copy.action in BLOCKED:
            by_reason[copy.reason].append(copy)
    found = []
    for reason, copies in by_reason.items():
        named = list(dict.fromkeys(copy.host for copy in copies))
        found.append(f"{reason or Action.WAIT} on {listed(named, _HOSTS_NAMED)}: {copies[0].message}")
    return found


def _skipped(skipped: Sequence[Skipped], template: Template) -> str:
    amount = units.count(len(skipped), "copy", "copies")
    hosts = list(dict.fromkeys(f"{each.host.name} ({each.host.status.architecture})" for each in skipped))
    than = template.spec.architecture
    return f"Skipped: {amount} on hosts of another architecture than {than}: {listed(hosts, _HOSTS_NAMED)}."


def _next(plan: Plan) -> str:
    spec, run = plan.deployment.spec, plan.run
    if run.refused is not None or (run.copies and run.count(Action.REFUSED) == len(run.copies)):
        return "Nothing was written."
    if run.copies and all(copy.exists for copy in run.copies):
        return "Nothing was written. Other deployments want all of these copies already; see: directdownload status"
    options = "".join(f" --host {name}" for name in spec.hosts) + "".join(f" --pool {name}" for name in spec.pools)
    command = f"directdownload deploy {plan.template.name} --zone {spec.zone}{options} --wait"
    return f"Nothing was written. To deploy: {command}"
