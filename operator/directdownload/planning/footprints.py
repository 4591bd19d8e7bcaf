"""What a plan knows of the files of a template: what lies in a pool already, and what is too large. For `dryrun`."""

from collections.abc import Iterable

from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import PlacementView
from directdownload.planning.plans import Surroundings
from directdownload.resources import naming
from directdownload.resources.host import HostStorage
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import Zone


def lies_there(template: Template, around: Surroundings) -> bool:
    """Whether the agent reports the published file of this very template that belongs to no placement."""
    if around.pool is None or around.host is None:
        return False
    facts = pool_planning.facts(around.pool, around.host)
    name = naming.file_name(template.uid, template.spec.format)
    return any(file.name == name and file.state == "Published" for file in (facts.unplaced if facts else ()))


def part_bytes(template: Template, facts: HostStorage | None, host: str) -> int:
    """The space that the part of an ended download of the template takes there, as far as the agent lists it."""
    stem = f"{naming.WORK_DIRECTORY}/{template.uid}.{host}."
    files = facts.unplaced if facts is not None else ()
    return sum(file.size_bytes or 0 for file in files if file.state == "Partial" and file.name.startswith(stem))


def too_large(template: Template, zone: Zone | None) -> Verdict | None:
    """The objection of the zone's limits, as far as sizes are known."""
    if zone is None:
        return None
    status, limits = template.status, zone.spec.downloads
    for what, size, limit, field in (
        ("the template", status.size_bytes, limits.max_size_bytes, "maxSize"),
        ("the disk in the image", status.virtual_size_bytes, limits.max_virtual_size_bytes, "maxVirtualSize"),
    ):
        if size is not None and limit and size > limit:
            message = f"{what} has {size} bytes, Zone {zone.name} takes {limit} at most (downloads.{field})"
            return Verdict(False, Reason.TOO_LARGE, message, stalled=True)
    return None


def unpacked_bytes(existing: Iterable[PlacementView]) -> int | None:
    """Bytes of an unpacked copy of a template served as an archive, as a verified one reports; None if unknown."""
    files = (view.file for view in existing if view.file is not None and view.phase is Phase.READY)
    return next((file.size_bytes for file in files if file.served_bytes is not None), None)
