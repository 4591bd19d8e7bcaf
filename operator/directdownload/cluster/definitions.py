"""Puts the CustomResourceDefinitions of this version into a cluster, and takes them out again.

Called by `directdownload crds`, which the chart's hook runs before anything else of a new version starts: Helm itself
installs definitions once and never changes them. The definitions come from the models, so an image always has its own.

Promises of `upgrade`: a second run changes nothing; definitions of a newer version are left as they are, because an
older schema would drop fields of every object that is written; no version of the API is dropped while objects may
still be stored in it.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from directdownload.cluster import client, errors
from directdownload.cluster.kinds import DEFINITIONS, Resource
from directdownload.resources import crd

MANAGER = "directdownload-crds"
_POLL_SECONDS = 0.2
Told = Callable[[str], None]


class Refused(Exception):  # noqa: N818 - says what happened
    """The cluster has something that must not be changed; the message says what, and what to do."""


async def upgrade(api: client.Api, definitions: Sequence[client.Object], seconds: float, told: Told) -> None:
    """Applies each definition and waits until the API server serves it; `told` gets a line for each.

    Raises `Refused` before anything is changed, TimeoutError if one is not served within `seconds`, or
    `errors.ApiError`.
    """
    present = {name: await _present(api, name) for name in map(_name, definitions)}
    for definition in definitions:
        _refuse_to_drop_versions(definition, present[_name(definition)])
    for definition in definitions:
        name, found = _name(definition), present[_name(definition)]
        if found is not None and _is_newer(found, definition):
            told(f"{name}: kept, its version {_version(found)} is newer than {_version(definition)}")
            continue
        applied = await api.apply(DEFINITIONS, definition, manager=MANAGER)
        if found is None:
            told(f"{name}: created")
        elif found["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]:
            told(f"{name}: unchanged")
        elif _version(found) == _version(definition):
            told(f"{name}: corrected to match version {_version(definition)}")
        else:
            told(f"{name}: upgraded from version {_version(found) or 'unknown'} to {_version(definition)}")
    waiting = ""
    try:
        async with asyncio.timeout(seconds):
            for waiting in map(_name, definitions):
                # No watch: the account of the hook may read these by name only.
                while not is_established(await api.get(DEFINITIONS, waiting)):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise TimeoutError(
            f"{waiting}: not served by the API server within {seconds:g} s (condition Established)"
        ) from None


async def delete(api: client.Api, kinds: Iterable[Resource], seconds: float, told: Told) -> None:
    """Removes every object of `kinds` with its finalizers, then the definitions.

    For clusters without a running controller: one would take the deletions for orders to remove files. Raises
    TimeoutError if a definition is not gone within `seconds`, or `errors.ApiError`.
    """
    kinds = tuple(kinds)
    for kind in kinds:
        # From now on no new object of the kind can be created; the API server deletes all objects itself.
        await api.delete(DEFINITIONS, f"{kind.plural}.{kind.group}")
    waiting = ""
    try:
        async with asyncio.timeout(seconds):
            for kind in kinds:
                waiting, released = f"{kind.plural}.{kind.group}", 0
                while await _present(api, waiting) is not None:
                    released += await _release(api, kind)
                    await asyncio.sleep(_POLL_SECONDS)
                told(f"{waiting}: deleted, {released} objects were held by a finalizer")
    except TimeoutError:
        raise TimeoutError(f"{waiting}: not gone within {seconds:g} s; run the same command again") from None


def is_established(definition: client.Object) -> bool:
    conditions = definition.get("status", {}).get("conditions", ())
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


async def _release(api: client.Api, kind: Resource) -> int:
    """Takes the finalizers off the objects that are being deleted; returns the number of objects."""
    released = 0
    try:
        async for page, _ in api.pages(kind):
            for item in page:
                metadata = item["metadata"]
                if metadata.get("finalizers") and metadata.get("deletionTimestamp"):
                    released += await _let_go(api, kind, metadata)
    except (errors.NotFound, errors.Gone):
        pass  # the kind is gone, or the list has to be begun anew: the caller looks again
    return released


async def _let_go(api: client.Api, kind: Resource, metadata: dict[str, Any]) -> int:
    patch = {"metadata": {"uid": metadata["uid"], "finalizers": None}}
    try:
        await api.merge_patch(kind, metadata["name"], patch, namespace=metadata.get("namespace"))
    except (errors.NotFound, errors.Conflict, errors.Invalid):
        # Gone meanwhile, or another object has its name: the uid keeps the patch from that one.
        return 0
    return 1


async def _present(api: client.Api, name: str) -> client.Object | None:
    try:
        return await api.get(DEFINITIONS, name)
    except errors.NotFound:
        return None


def _refuse_to_drop_versions(definition: client.Object, found: client.Object | None) -> None:
    stored = set((found or {}).get("status", {}).get("storedVersions", ()))
    missing = stored - {version["name"] for version in definition["spec"]["versions"]}
    if missing:
        raise Refused(
            f"{_name(definition)}: objects are stored in version {', '.join(sorted(missing))} of the API, which "
            f"{_version(definition)} does not know: nothing was changed; install a release that has it"
        )


def _is_newer(found: client.Object, definition: client.Object) -> bool:
    there, ours = _numbers(_version(found)), _numbers(_version(definition))
    return bool(there and ours) and there > ours


def _numbers(version: str) -> tuple[int, ...]:
    """`1.10.2` as numbers, so that it comes after 1.9; a suffix (`rc1`) does not count. Empty if there are none."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _version(definition: client.Object) -> str:
    return str(definition["metadata"].get("annotations", {}).get(crd.VERSION_ANNOTATION, ""))


def _name(definition: client.Object) -> str:
    return str(definition["metadata"]["name"])
