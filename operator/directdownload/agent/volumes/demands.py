"""What the agent reports of its volumes, and what it answers about them. Pure.

`book` keeps what is known of the volumes, `desk` speaks with the plugin; both decide here.
"""

import collections
import datetime
import os.path
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from directdownload import escaping
from directdownload.agent.volumes.ledger import Entry, Key, Volume
from directdownload.hostfiles import mountinfo
from directdownload.resources import quantities
from directdownload.resources.base import Model
from directdownload.resources.host import DEMANDS_LIMIT, Demand, Served, ServedState
from directdownload.resources.templateplacement import Progress
from directdownload.resources.volumes import READY, REFUSED, WAITING, Answer

#: Of an answer: an Event of a pod has room for 1024.
_MESSAGE_LIMIT = 600

_M = TypeVar("_M", bound=Model)


def readable(items: Any, model: type[_M]) -> tuple[tuple[_M, ...], str]:
    """The items of a list in a status that can be read, and what is wrong with the first other one."""
    found: list[_M] = []
    flaw = ""
    for item in items if isinstance(items, list) else ():
        try:
            found.append(model.model_validate(item))
        except (pydantic.ValidationError, OverflowError) as error:
            flaw = flaw or escaping.escaped(str(error), 300)
    return tuple(found), flaw


def counted(volumes: Iterable[Volume], floor: Mapping[Key, int]) -> collections.Counter[Key]:
    """Volumes by key; at least those of `floor`."""
    counts = collections.Counter(volume.key for volume in volumes)
    return counts | collections.Counter(floor)


def report(
    volumes: Collection[Volume], entries: Mapping[Key, Entry], floor: Mapping[Key, int], limit: int = DEMANDS_LIMIT
) -> tuple[Demand, ...]:
    """The demands for `Host.status`, at most `limit`, in the order in which they matter.

    First those whose volumes have a copy, which may be mounted, the oldest first. Then those whose volumes wait for
    one: the oldest of each namespace, then the second ones, so that a namespace that asks for what it may not have
    crowds out no other. Then those without a volume, the last used first.
    """
    counts = counted(volumes, floor)
    places: collections.Counter[str] = collections.Counter()
    place: dict[Key, int] = {}
    for entry in sorted(entries.values(), key=lambda each: (each.since, each.key)):
        if counts[entry.key] and not entry.uid:
            place[entry.key] = places[entry.namespace]
            places[entry.namespace] += 1

    def rank(entry: Entry) -> tuple[int, int, float, Key]:
        if counts[entry.key]:
            return 0 if entry.uid else 1, place.get(entry.key, 0), entry.since.timestamp(), entry.key
        return 2, 0, -_last_used(entry).timestamp(), entry.key

    return tuple(
        Demand(
            namespace=entry.namespace,
            template=entry.template,
            uid=entry.uid,
            since=entry.since,
            volumes=counts[entry.key],
            last_used_time=None if counts[entry.key] else _last_used(entry),
        )
        for entry in sorted(entries.values(), key=rank)[:limit]
    )


def released(counts: Mapping[Key, int], entries: Mapping[Key, Entry], served: Mapping[Key, Served]) -> Iterator[Key]:
    """The demands that the controller has released, or refused, and that no volume makes."""
    for key, answer in served.items():
        ended = answer.state in (ServedState.RELEASED, ServedState.REFUSED)
        if ended and not counts.get(key) and matches(entries.get(key), answer):
            yield key


def matches(entry: Entry | None, answer: Served | None) -> bool:
    """Whether the answer is to this demand, and not to an earlier one of the same key."""
    return entry is not None and answer is not None and (entry.key, entry.since) == (answer.key, answer.since)


def answer_to(entry: Entry, served: Mapping[Key, Served]) -> Served | None:
    """The answer to a demand that has volumes; None: there is none yet.

    A demand that has just got its uid is not answered itself yet; the answer that gave it the uid counts.
    """
    own = served.get(entry.key)
    if own is not None and matches(entry, own) and own.state is not ServedState.RELEASED:
        return own
    first = served.get((entry.namespace, entry.template, ""))
    if first is None or first.state is not ServedState.READY:
        return None
    return first if (first.since, first.template_uid) == (entry.since, entry.uid) else None


def judged(volume: Volume, answer: Served | None, pool_roots: Sequence[str]) -> Answer:
    """The controller's `answer` for one volume; None: there is none yet.

    Ready only with the Template that the volume has had, and with the path of its file below a pool root.
    """
    if answer is None:
        return Answer(WAITING, message="the controller has not answered yet")
    reason, message = str(answer.reason or ""), answer.message or ""
    if answer.state is ServedState.REFUSED:
        return Answer(REFUSED, reason=reason, message=_plain(message))
    if answer.state is not ServedState.READY:
        return Answer(WAITING, reason=reason, message=message)
    uid, path = answer.template_uid or "", answer.path or ""
    if not uid or volume.uid not in ("", uid):
        return Answer(WAITING, message=f"the controller offers Template uid {uid!r}, the volume has {volume.uid!r}")
    if not _is_copy(path, uid, pool_roots):
        text = f"the controller names {path!r}: expected the file of Template uid {uid} below a pool root of the agent"
        return Answer(WAITING, message=text)
    return Answer(READY, path=path, uid=uid)


def waiting(volume: Volume, answer: Answer, progress: Progress | None) -> Answer:
    """A Waiting `answer` with words on what the volume waits for, how far it is, and what blocks."""
    done = amounts(progress)
    text = f"waiting for Template {volume.template}" + (f" ({done})" if done else "")
    return Answer(
        WAITING, reason=answer.reason, message=_plain(f"{text}: {answer.message}" if answer.message else text)
    )


def amounts(progress: Progress | None) -> str:
    """`251.0 of 612.0 MiB`; empty if nothing is known."""
    if progress is None or progress.bytes_downloaded is None:
        return ""
    done = quantities.size(progress.bytes_downloaded)
    if progress.bytes_total is None:
        return done
    total = quantities.size(progress.bytes_total)
    number, _, unit = done.partition(" ")
    return f"{number if total.endswith(f' {unit}') else done} of {total}"


def _last_used(entry: Entry) -> datetime.datetime:
    return entry.last_used_time or entry.since


def _is_copy(path: str, uid: str, pool_roots: Sequence[str]) -> bool:
    plain = path.startswith("/") and os.path.normpath(path) == path and "\0" not in path
    in_pool = mountinfo.root_of(os.path.dirname(path), pool_roots) is not None
    return plain and in_pool and os.path.basename(path) in (uid, f"{uid}.iso")


def _plain(message: str) -> str:
    """Fit for an Event: the kubelet uses the message as a format, and garbles each `%`."""
    return escaping.escaped(message.replace("%", " per cent"), _MESSAGE_LIMIT)
