"""`FakeApi`: a Kubernetes API in memory, for tests of whatever calls `client.Api`.

It is the client itself with another end: `request` and `watch` are answered from a dict. In
tests/api/test_cluster_contract.py the same is asserted of it and of a real kube-apiserver. It has no schemas: it takes
unknown fields, and merges by a key only the lists that `applying` names.
"""

import asyncio
import copy
import dataclasses
import datetime
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from tests.world import applying

from directdownload.cluster import client, errors
from directdownload.cluster.client import Object
from directdownload.cluster.kinds import Resource

_Key = tuple[str, str, str]
#: What a status write, or a write of the rest, leaves as it is.
_SERVERS_OWN = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")


@dataclasses.dataclass(frozen=True)
class Call:
    """A request as it was asked; `verb` as the client counts it (`get`, `list`, `create`, `apply`, `patch` …)."""

    verb: str
    resource: Resource
    name: str
    namespace: str | None
    subresource: str | None
    body: Any


@dataclasses.dataclass(frozen=True)
class _Event:
    version: int
    kind: str
    resource: Resource
    item: Object


class FakeApi(client.Api):
    """Objects that `put` has given it, and what callers make of them; every request stands in `calls`.

    What is kept is never changed, only replaced. `on_call` sees each request before it is answered: it may raise one of
    `errors` in place of the answer, or change the world as others would meanwhile. `busy` has the seconds of
    Retry-After for the next requests: each is a 429. Unless it `selects`, a list is all there is of a kind.
    """

    def __init__(self, *, namespace: str = "default", selects: bool = True) -> None:
        # no connection is made: nothing here asks it
        super().__init__(None, 60, _nobody_counts)  # type: ignore[arg-type]
        self.calls: list[Call] = []
        self.on_call: Callable[[Call], object] | None = None
        self.busy: list[float] = []
        self._namespace = namespace
        self._selects = selects
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {}
        self._owned: dict[_Key, dict[str, set[applying.Path]]] = {}
        self._history: list[_Event] = []
        self._pages: dict[str, tuple[list[Object], str]] = {}
        self._first_version = self._version = 1000
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    @property
    def namespace(self) -> str:
        return self._namespace

    async def close(self) -> None:
        pass

    def called(self, verb: str, resource: Resource | None = None) -> list[Call]:
        return [call for call in self.calls if call.verb == verb and resource in (None, call.resource)]

    def objects(self, resource: Resource) -> list[Object]:
        """All of them, as they are kept: not to be changed."""
        return list(self._kept(resource).values())

    def put(self, resource: Resource, document: Object) -> Object:
        """As somebody else writes it, whole, whatever is there; with a new resourceVersion, which the answer has."""
        item = self._complete(resource, copy.deepcopy(document))
        kind = "MODIFIED" if _name(item) in self._kept(resource) else "ADDED"
        return copy.deepcopy(self._store(resource, item, kind))

    def remove(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """As if it had never had a finalizer."""
        item = self._kept(resource).pop(_where(resource, name, namespace))
        item = {**item, "metadata": {**item["metadata"]}}
        self._owned.pop(self._key(resource, item), None)
        self._record(resource, item, "DELETED")

    def forget_history(self) -> None:
        """Watches and pages of what was before now are Gone."""
        self._history.clear()
        self._pages.clear()
        self._first_version = self._version + 1

    async def request(
        self,
        method: str,
        resource: Resource,
        name: str | None = None,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Object | bytes | None = None,
        content_type: str = "",
        verb: str = "get",
        timeout_seconds: float | None = None,
        urgent: bool = False,
    ) -> Object:
        path = resource.path(name, namespace, subresource)
        if self.before_write is not None and method != "GET" and not urgent:
            self.before_write()
        # as many others run in between as with a network, and no answer or question is shared
        await asyncio.sleep(0)
        document = _sent(body)
        given = name or (document or {}).get("metadata", {}).get("name", "")
        call = Call(verb, resource, given, namespace if resource.namespaced else None, subresource, document)
        self.calls.append(call)
        if self.busy:
            message = f"{verb.upper()} {path}: too many requests"
            raise errors.TooManyRequests(429, "TooManyRequests", message, self.busy.pop(0))
        if self.on_call is not None:
            self.on_call(call)
        if verb == "list":
            return self._list(call, query or {})
        answer = {
            "POST": self._create,
            "GET": self._get,
            "PUT": self._replace,
            "PATCH": self._apply if verb == "apply" else self._merge,
            "DELETE": self._delete,
        }[method](call, query or {})
        return copy.deepcopy(answer)

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: float = 300,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        chosen = _Selection(resource, namespace, label_selector or "", field_selector or "")
        if resource_version:
            since = int(resource_version)
        else:
            # the present content comes first
            since = self._version
            for item in [item for item in self.objects(resource) if item in chosen]:
                yield "ADDED", copy.deepcopy(item)
        end = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            if since + 1 < self._first_version:
                raise errors.Gone(410, "Expired", f"too old resource version: {since} ({self._first_version})")
            for event in [event for event in self._history if event.version > since]:
                since = event.version
                if event.resource == resource and event.item in chosen:
                    yield event.kind, copy.deepcopy(event.item)
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return
            try:
                # not wait_for: in Python 3.11 it may swallow a cancellation
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    # --- the verbs

    def _list(self, call: Call, query: Mapping[str, str]) -> Object:
        if token := query.get("continue"):
            if token not in self._pages:
                raise errors.Gone(410, "Expired", "The provided continue parameter is too old")
            items, version = self._pages.pop(token)
        else:
            selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
            chosen = _Selection(call.resource, call.namespace, *selectors)
            kept = self._kept(call.resource)
            found = (kept[name] for name in sorted(kept))
            items, version = [item for item in found if not self._selects or item in chosen], str(self._version)
        limit = int(query.get("limit") or len(items) or 1)
        metadata = {"resourceVersion": version}
        if rest := items[limit:]:
            metadata["continue"] = f"page-{next(self._numbers)}"
            self._pages[metadata["continue"]] = rest, version
        return {"metadata": metadata, "items": copy.deepcopy(items[:limit])}

    def _get(self, call: Call, _query: Mapping[str, str]) -> Object:
        try:
            return self._kept(call.resource)[_where(call.resource, call.name, call.namespace)]
        except KeyError:
            raise self._not_found(call) from None

    def _create(self, call: Call, _query: Mapping[str, str]) -> Object:
        body = copy.deepcopy(call.body)
        if call.resource.namespaced:
            body["metadata"]["namespace"] = call.namespace
        if not body["metadata"].get("name"):
            body["metadata"]["name"] = f"{body['metadata']['generateName']}{next(self._numbers):05}"
        if _name(body) in self._kept(call.resource):
            message = f'{call.resource.plural} "{call.name}" already exists'
            raise errors.AlreadyExists(409, "AlreadyExists", message)
        body.pop("status", None)
        for field in _SERVERS_OWN:
            body["metadata"].pop(field, None)
        return self._store(call.resource, self._complete(call.resource, body), "ADDED")

    def _replace(self, call: Call, query: Mapping[str, str]) -> Object:
        present = self._get(call, query)
        if not call.body["metadata"].get("resourceVersion"):
            message = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise errors.Invalid(422, "Invalid", message)
        return self._update(call, present, copy.deepcopy(call.body))

    def _merge(self, call: Call, query: Mapping[str, str]) -> Object:
        present = self._get(call, query)
        return self._update(call, present, _merged(present, call.body))

    def _apply(self, call: Call, query: Mapping[str, str]) -> Object:
        uid = call.body["metadata"].get("uid")
        manager = query["fieldManager"]
        present = self._kept(call.resource).get(_where(call.resource, call.name, call.namespace))
        if present is None:
            if call.subresource:
                raise self._not_found(call)
            if uid:
                message = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise errors.Conflict(409, "Conflict", message)
            made = self._create(call, query)
            self._owned[self._key(call.resource, made)] = {manager: set(applying.leaves(_applied(call)))}
            return made
        if uid and uid != present["metadata"]["uid"] and not call.subresource:
            raise errors.Invalid(422, "Invalid", f'metadata.uid: Invalid value: "{uid}": field is immutable')
        owners = self._owned.setdefault(self._key(call.resource, present), {})
        part = f"{manager}/{call.subresource}" if call.subresource else manager
        wanted = _applied(call)
        new, item = set(applying.leaves(wanted)), copy.deepcopy(present)
        others = set[applying.Path]().union(*(paths for name, paths in owners.items() if name != part))
        for path in owners.get(part, set()) - new - others:
            applying.take_out(item, path, others)
        for name, paths in owners.items():
            if name != part:
                # with force
                paths -= {path for path in new if applying.at_path(wanted, path) != applying.at_path(present, path)}
        applying.put_in(item, wanted)
        owners[part] = new
        return self._update(call, present, item)

    def _delete(self, call: Call, query: Mapping[str, str]) -> Object:
        present = self._get(call, query)
        uid = (call.body or {}).get("preconditions", {}).get("uid")
        if uid and uid != present["metadata"]["uid"]:
            message = f"the UID in the precondition ({uid}) does not match the UID in record"
            raise errors.Conflict(409, "Conflict", message)
        if not present["metadata"].get("finalizers"):
            self.remove(call.resource, call.name, call.namespace)
        elif "deletionTimestamp" not in present["metadata"]:
            item = copy.deepcopy(present)
            item["metadata"]["deletionTimestamp"] = _now()
            self._store(call.resource, item, "MODIFIED")
        return {"kind": "Status", "status": "Success"}

    # --- what is kept

    def _update(self, call: Call, present: Object, item: Object) -> Object:
        """Of `item` what this call may write, over `present`."""
        version = item["metadata"].get("resourceVersion")
        if version and version != present["metadata"]["resourceVersion"]:
            message = (
                f'Operation cannot be fulfilled on {call.resource.plural} "{call.name}": the object has been modified'
            )
            raise errors.Conflict(409, "Conflict", message)
        if call.subresource == "status":
            item = {**present, "status": item.get("status", {})}
        else:
            item = {**item, **({"status": present["status"]} if "status" in present else {})}
            if "status" not in present:
                item.pop("status", None)
            own = {field: present["metadata"][field] for field in _SERVERS_OWN if field in present["metadata"]}
            item["metadata"] = {**item["metadata"], **own}
            if item.get("spec") != present.get("spec"):
                item["metadata"]["generation"] = present["metadata"].get("generation", 1) + 1
        if item == present:
            return present
        if "deletionTimestamp" in item["metadata"] and not item["metadata"].get("finalizers"):
            self.remove(call.resource, call.name, call.namespace)
            return item
        return self._store(call.resource, {**item, "metadata": {**item["metadata"]}}, "MODIFIED")

    def _complete(self, resource: Resource, item: Object) -> Object:
        """With what a server adds to a new object."""
        item.setdefault("apiVersion", resource.api_version)
        item.setdefault("kind", resource.kind)
        metadata = item["metadata"]
        metadata.setdefault("uid", f"00000000-0000-4000-8000-{next(self._numbers):012}")
        metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", _now())
        return item

    def _store(self, resource: Resource, item: Object, kind: str) -> Object:
        self._kept(resource)[_name(item)] = item
        self._record(resource, item, kind)
        return item

    def _record(self, resource: Resource, item: Object, kind: str) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._history.append(_Event(self._version, kind, resource, item))
        self._changed.set()
        self._changed = asyncio.Event()

    def _kept(self, resource: Resource) -> dict[tuple[str, str], Object]:
        return self._objects.setdefault(resource, {})

    @staticmethod
    def _key(resource: Resource, item: Object) -> _Key:
        return (resource.plural, *_name(item))

    @staticmethod
    def _not_found(call: Call) -> errors.NotFound:
        return errors.NotFound(404, "NotFound", f'{call.resource.plural} "{call.name}" not found')


class _Selection:
    """The objects of a list or a watch. Label selectors may ask for equality, presence and absence."""

    def __init__(self, resource: Resource, namespace: str | None, labels: str, fields: str) -> None:
        self._namespace = namespace if resource.namespaced else None
        self._labels = [part for part in labels.split(",") if part]
        self._fields = [part.partition("=")[::2] for part in fields.split(",") if part]
        if any(character in labels for character in "( "):
            raise NotImplementedError(f"label selector {labels}")

    def __contains__(self, item: Object) -> bool:
        metadata = item["metadata"]
        labels = metadata.get("labels") or {}
        return (
            (not self._namespace or metadata.get("namespace") == self._namespace)
            and all(self._has(labels, term) for term in self._labels)
            and all(applying.at_path(item, tuple(path.split("."))) == value for path, value in self._fields)
        )

    @staticmethod
    def _has(labels: Mapping[str, str], term: str) -> bool:
        if term.startswith("!"):
            return term[1:] not in labels
        name, equals, value = term.partition("=")
        return name in labels and (not equals or labels[name] == value.lstrip("="))


def _sent(body: Object | bytes | None) -> Any:
    """The document; the client encodes that of an apply itself."""
    return json.loads(body) if isinstance(body, bytes) else copy.deepcopy(body)


def _nobody_counts(_verb: str, _resource: str, _code: int) -> None:
    pass


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace") or "", item["metadata"]["name"]


def _where(resource: Resource, name: str, namespace: str | None) -> tuple[str, str]:
    return (namespace or "") if resource.namespaced else "", name


def _merged(present: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    found = dict(present) if isinstance(present, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found


def _applied(call: Call) -> Object:
    """What of an apply counts: the status through its subresource, all but it otherwise."""
    if call.subresource:
        return {"status": call.body.get("status", {})}
    metadata = {name: call.body["metadata"][name] for name in call.body["metadata"] if name not in _SERVERS_OWN}
    return {**{name: value for name, value in call.body.items() if name != "status"}, "metadata": metadata}
