"""`Api`: calls to the Kubernetes API with plain JSON dicts in and out.

Used by everything that reads or writes cluster objects. The official library supplies credentials, TLS and the HTTP
session (see `connection`); its generated models are left out, as they cost several times the request itself.

Promises: every call but a watch ends within its timeout; every answer is read or its connection closed; at most
`PARALLEL_REQUESTS` run at a time (watches and `urgent` requests do not wait for them); every failure is one of
`errors`; no character keeps an `apply` from being written. The only retry here is one after a 401, with credentials
loaded anew.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp

import directdownload
from directdownload import escaping
from directdownload.cluster import errors
from directdownload.cluster.kinds import Resource

if TYPE_CHECKING:
    from directdownload.cluster.connection import Connection

Object = dict[str, Any]
#: Within the class the word `list` is the method.
Objects = list[Object]
#: verb (as in RBAC, plus `apply`), plural of the resource, HTTP status (0: no answer)
OnRequest = Callable[[str, str, int], None]

PARALLEL_REQUESTS = 32
PAGE_SIZE = 500
_LIST_ATTEMPTS = 3
WATCH_SILENCE_SECONDS = 30
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
#: With a parameter, as the library leaves bytes alone only for types that it does not know.
_APPLY_PATCH = "application/apply-patch+yaml; charset=utf-8"


class Api:
    """One connection to one cluster. Open it with `connect`, close it with `close`."""

    def __init__(self, link: "Connection", request_timeout_seconds: float, on_request: OnRequest) -> None:
        self._link = link
        self._timeout_seconds = request_timeout_seconds
        self._on_request = on_request
        self._slots = asyncio.Semaphore(PARALLEL_REQUESTS)
        #: called just before a write is sent, except for `urgent` ones; an exception that it raises reaches the caller
        self.before_write: Callable[[], None] | None = None

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        request_timeout_seconds: float = 60,
        user_agent: str = f"direct-download-operator/{directdownload.__version__}",
        on_request: OnRequest | None = None,
    ) -> "Api":
        """Loads the configuration, without a request yet: in-cluster if a service account is mounted and neither
        `kubeconfig` nor `context` is given; else `kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`.

        Raises `errors.ConfigurationError`.
        """
        # Imported here: the library takes half of a command's start, and --help needs none of it.
        from directdownload.cluster import connection

        link = await connection.Connection.open(kubeconfig, context, user_agent)
        return cls(link, request_timeout_seconds, on_request or _ignore)

    @property
    def namespace(self) -> str:
        """The service account's namespace, or that of the kubeconfig's context; `default` if it names none."""
        return self._link.namespace

    async def close(self) -> None:
        await self._link.close()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Object:
        return await self.request("GET", resource, name, namespace=namespace)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> tuple[Objects, str]:
        """All objects and the list's resourceVersion. Starts over if the list grew too old between two pages."""
        for attempt in range(1, _LIST_ATTEMPTS + 1):
            items: Objects = []
            newest = ""
            try:
                async for page, version in self.pages(
                    resource,
                    namespace=namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    page_size=page_size,
                ):
                    items.extend(page)
                    newest = version
            except errors.Gone:
                if attempt == _LIST_ATTEMPTS:
                    raise
            else:
                return items, newest
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def pages(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncGenerator[tuple[Objects, str], None]:
        """The same page by page, so that a caller can project and drop each. All pages show one moment.

        Raises `errors.Gone` if that moment is too old for the next page: the caller starts over.
        """
        query = {"limit": str(page_size), **_selectors(label_selector, field_selector)}
        while True:
            page = await self.request("GET", resource, namespace=namespace, query=query, verb="list")
            metadata = page["metadata"]
            items: Objects = page.get("items") or []
            for item in items:
                # lists of built-in kinds leave these out
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield items, metadata["resourceVersion"]
            token = metadata.get("continue")
            if not token:
                return
            query["continue"] = token

    async def create(self, resource: Resource, body: Object, *, namespace: str | None = None) -> Object:
        """Refuses unknown fields (`errors.Invalid`), as `apply` does, instead of dropping them silently."""
        namespace = namespace or body["metadata"].get("namespace")
        query = {"fieldValidation": "Strict"}
        return await self.request("POST", resource, namespace=namespace, query=query, body=body, verb="create")

    async def replace(self, resource: Resource, body: Object, *, namespace: str | None = None) -> Object:
        """PUT; with `metadata.resourceVersion` in `body` only over exactly that version (else `errors.Conflict`)."""
        metadata = body["metadata"]
        namespace = namespace or metadata.get("namespace")
        return await self.request("PUT", resource, metadata["name"], namespace=namespace, body=body, verb="update")

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        manager: str,
        subresource: str | None = None,
        namespace: str | None = None,
    ) -> Object:
        """Server-side apply with force: `body` holds every field that `manager` owns; fields left out vanish.

        Creates the object if it is missing, unless `body` carries `metadata.uid`: then `errors.NotFound` says that
        there is no such object, or another one of its name. A status of that other object is written all the same: for
        a subresource the API server does not compare uids. `errors.Conflict` is left for conflicts with other writers.
        """
        metadata = body["metadata"]
        if "apiVersion" not in body or "kind" not in body:
            body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        try:
            return await self.request(
                "PATCH",
                resource,
                metadata["name"],
                namespace=namespace or metadata.get("namespace"),
                subresource=subresource,
                query={"fieldManager": manager, "force": "true"},
                body=escaping.to_apply(body),
                content_type=_APPLY_PATCH,
                verb="apply",
            )
        except (errors.Conflict, errors.Invalid) as error:
            # 409 if there is none, 422 (the uid is immutable) if there is another: only their messages name the uid.
            if metadata.get("uid") and metadata["uid"] in error.message:
                raise errors.NotFound(error.status, error.reason, error.message) from error
            raise

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Object,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> Object:
        """JSON merge patch: null removes a field, lists are replaced whole. Unknown fields are refused."""
        return await self.request(
            "PATCH",
            resource,
            name,
            namespace=namespace,
            subresource=subresource,
            query={"fieldValidation": "Strict"},
            body=patch,
            content_type=_MERGE_PATCH,
            verb="patch",
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> None:
        """Returns also if there is no such object, or only another one of that name with another uid."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", resource, name, namespace=namespace, body=options, verb="delete")
        except errors.NotFound:
            return
        except errors.Conflict:
            # Another uid, or a conflict for the caller (a namespace that is still being emptied): only the answer's
            # text tells them apart, and it varies.
            if not uid or await self._uid(resource, name, namespace) == uid:
                raise

    async def _uid(self, resource: Resource, name: str, namespace: str | None) -> str:
        try:
            return str((await self.get(resource, name, namespace=namespace))["metadata"]["uid"])
        except errors.NotFound:
            return ""

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
        """Yields (`ADDED`|`MODIFIED`|`DELETED`|`BOOKMARK`, object) since `resource_version`.

        Ends normally after the server's `timeout_seconds`. Raises `errors.Gone` if the version is too old,
        `errors.Unreachable` if the connection is lost or silent for longer than the server could be. Wrap it in
        `contextlib.aclosing` if the loop may be left early.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_seconds))),
            **_selectors(label_selector, field_selector),
        }
        target = f"{resource.path(None, namespace)}?{urlencode(query)}"
        call = f"WATCH {resource.path(None, namespace)}"
        silence = aiohttp.ClientTimeout(total=None, sock_read=timeout_seconds + WATCH_SILENCE_SECONDS)
        with _converted(call):
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._send("GET", target, None, _JSON, silence, "watch", resource, call)
        try:
            with _converted(call):
                async for line in _lines(response.content):
                    event = json.loads(line)
                    kind, item = event["type"], event["object"]
                    if kind == "ERROR":
                        raise errors.from_status(item, int(item.get("code") or 0), None, call)
                    yield kind, item
        finally:
            # never `release`: an endless answer cannot be read to its end
            response.close()

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
        content_type: str = _JSON,
        verb: str = "get",
        timeout_seconds: float | None = None,
        urgent: bool = False,
    ) -> Object:
        """One call; the methods above use it. `urgent` does not wait for one of the parallel slots."""
        path = resource.path(name, namespace, subresource)
        target = f"{path}?{urlencode(query)}" if query else path
        call = f"{verb.upper()} {path}"
        with _converted(call):
            # Covers the wait for a slot and the reading of the answer, which aiohttp's own timeouts do not.
            async with asyncio.timeout(timeout_seconds or self._timeout_seconds):
                async with contextlib.nullcontext() if urgent else self._slots:
                    if self.before_write is not None and method != "GET" and not urgent:
                        self.before_write()
                    response = await self._send(method, target, body, content_type, _UNBOUNDED, verb, resource, call)
                    async with response:
                        document: Object = json.loads(await response.read())
        return document

    async def _send(
        self,
        method: str,
        target: str,
        body: Object | bytes | None,
        content_type: str,
        bounds: aiohttp.ClientTimeout,
        verb: str,
        resource: Resource,
        call: str,
    ) -> aiohttp.ClientResponse:
        """The response if it is a success; else reads the response and raises."""
        generation = self._link.generation
        response = await self._attempt(method, target, body, content_type, bounds, verb, resource)
        if response.status == 401:
            await response.read()
            if await self._link.reload(generation):
                response = await self._attempt(method, target, body, content_type, bounds, verb, resource)
        if response.status < 400:
            return response
        async with response:
            text = await response.read()
        raise errors.from_response(response.status, text, response.headers.get("Retry-After"), call)

    async def _attempt(
        self,
        method: str,
        target: str,
        body: Object | bytes | None,
        content_type: str,
        bounds: aiohttp.ClientTimeout,
        verb: str,
        resource: Resource,
    ) -> aiohttp.ClientResponse:
        status = 0
        try:
            response = await self._link.send(method, target, body, content_type, bounds)
            status = response.status
        finally:
            self._on_request(verb, resource.plural, status)
        return response


#: `asyncio.timeout` around each call is the bound; a second clock inside aiohttp would only cost time.
_UNBOUNDED = aiohttp.ClientTimeout(total=None)


@contextlib.contextmanager
def _converted(call: str) -> Iterator[None]:
    try:
        yield
    except errors.TRANSPORT_ERRORS as error:
        raise errors.from_exception(error, call) from error


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Complete lines of any length; the reader's own `readline` fails on objects over a few MiB."""
    rest: list[bytes] = []
    async for chunk in content.iter_any():
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest)
            for line in others[:-1]:
                yield line
            rest = [others[-1]]
    if any(rest):
        raise ConnectionError("the answer ended in the middle of an event")


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}


def _ignore(verb: str, resource: str, code: int) -> None:
    """The default of `on_request`."""
