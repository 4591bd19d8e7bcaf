"""What must hold at every moment of a random run, not only at its end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.world.kube import Object

from directdownload.controller import world
from directdownload.resources import jobs
from directdownload.resources.base import GROUP

#: For so long after a change the controller may decide by what was before; so far apart are our clocks and its.
_LAG_SECONDS = 10.0
LIMITS = ("maxParallel", "maxParallelPerHost", "maxParallelPerSource", "maxParallelPerNamespace")


class Invariants:
    """`complain` is called with one sentence for each violation."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        #: by zone and limit: since when which value holds, in order
        self._limits: dict[tuple[str, str], list[tuple[float, int]]] = {}
        #: when hosts were last heard to be unreachable; their jobs hold no slots
        self._outages: dict[str, float] = {}
        self._unreachable: set[str] = set()
        #: Jobs by uid, when first seen
        self._seen: dict[str, float] = {}
        self._hosts: dict[str, str] = {}

    def note_limits(self, zone: str, limits: dict[str, int]) -> None:
        for name in LIMITS:
            self._limits.setdefault((zone, name), []).append((time.monotonic(), limits.get(name, 0)))

    def note_reachable(self, host: str, reachable: bool) -> None:
        self._outages[host] = time.monotonic()
        (self._unreachable.discard if reachable else self._unreachable.add)(host)

    def look_at_jobs(self, items: Sequence[Object]) -> None:
        """All Jobs that exist now."""
        now = time.monotonic()
        fetches = [_Fetch(item) for item in items if _verb(item) == jobs.Verb.FETCH]
        new = [fetch for fetch in fetches if fetch.uid not in self._seen]
        self._seen = {fetch.uid: self._seen.get(fetch.uid, now) for fetch in fetches}
        counted = [fetch for fetch in fetches if not fetch.failed and self._holds_slots(fetch)]
        for fetch in new:
            self._look_at_limits(fetch, counted, now)
            same = [other.name for other in fetches if other.placement_uid == fetch.placement_uid]
            if len(same) > 1:
                self._complain(f"two downloads of one placement at once: {', '.join(sorted(same))}")

    def look_at_placements(self, items: Sequence[Object], shared: set[str]) -> None:
        """`shared` are the pools whose copies may change their host."""
        for item in items:
            uid, host = item["metadata"]["uid"], item["spec"]["host"]
            if item["spec"]["pool"] not in shared and self._hosts.setdefault(uid, host) != host:
                self._complain(f"placement {item['metadata']['name']} went from {self._hosts[uid]} to {host}")

    def _holds_slots(self, fetch: "_Fetch") -> bool:
        outage = self._outages.get(fetch.host, float("-inf"))
        return fetch.host not in self._unreachable and outage < self._seen[fetch.uid] - _LAG_SECONDS

    def _look_at_limits(self, fetch: "_Fetch", counted: list["_Fetch"], now: float) -> None:
        groups = {
            "maxParallel": [other for other in counted if other.zone == fetch.zone],
            "maxParallelPerHost": [other for other in counted if other.host == fetch.host],
            "maxParallelPerSource": [other for other in counted if other.source == fetch.source],
            "maxParallelPerNamespace": [
                other for other in counted if (other.zone, other.namespace) == (fetch.zone, fetch.namespace)
            ],
        }
        for name, members in groups.items():
            # Each goes by the limit of its own zone: what the others were allowed is no fault of this one.
            limits = [self._limit(member.zone, name, now) for member in [*members, fetch]]
            if 0 not in limits and len(members) > max(limits):
                names = ", ".join(sorted(member.name for member in members))
                self._complain(f"{name} of {fetch.zone} is {max(limits)}, {len(members)} downloads at once: {names}")

    def _limit(self, zone: str, name: str, now: float) -> int:
        """The loosest one that the controller may still go by; 0: none."""
        history = self._limits[zone, name]
        old = [value for since, value in history if since <= now - _LAG_SECONDS]
        recent = [value for since, value in history if since > now - _LAG_SECONDS]
        values = [*old[-1:], *recent]
        return 0 if 0 in values else max(values)


class _Fetch:
    def __init__(self, job: Object) -> None:
        metadata = job["metadata"]
        document = _document(job)
        self.uid, self.name = metadata["uid"], metadata["name"]
        self.zone, self.host = metadata["labels"][f"{GROUP}/zone"], document.host
        self.source = document.url.split("/")[2]
        self.namespace = metadata["labels"][f"{GROUP}/template-namespace"]
        self.placement_uid = metadata["annotations"][world.PLACEMENT_UID_ANNOTATION]
        conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions", [])
        self.failed = any(condition["type"] == "Failed" for condition in conditions)


def _verb(job: Object) -> str:
    return str(job["metadata"]["annotations"][world.VERB_ANNOTATION])


def _document(job: Object) -> jobs.JobDocument:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    text = next(v["value"] for v in container["env"] if v["name"] == jobs.JOB_ENVIRONMENT_VARIABLE)
    return jobs.JobDocument.model_validate_json(text)
