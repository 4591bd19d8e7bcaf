"""`selftest`: `helm test` runs it in its own pod. It downloads one small file through a real Job, and cleans up.

It serves random bytes, registers them as a Template with their SHA-256, deploys that to one pool of one Up host, waits
until the copy is Ready with the same digest, deletes both, and waits until the copy is gone. If the cluster has no
Zone, it creates one with one host and a pool, and removes them afterwards. Each step prints a line.

Its objects are removed however it ends (a failure, SIGTERM); those of a killed run are found by name and removed.
"""

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import click
from aiohttp import web

from directdownload.cli import examples, objects, options, pods, rollout
from directdownload.cli import exit_status as outcome
from directdownload.cli.command import cluster_command
from directdownload.cli.session import Session
from directdownload.cli.view import units
from directdownload.cluster import errors, kinds
from directdownload.cluster.client import Object
from directdownload.observe import health
from directdownload.resources import urls
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.zone import Zone

T = TypeVar("T")
_SIZE_BYTES = 1 << 20
_POLL_SECONDS = 0.5
_CLEANUP_SECONDS = 90.0
#: Decisions of people: waiting does not change them.
_REFUSALS = frozenset({Reason.NAMESPACE_NOT_ALLOWED, Reason.TEMPLATE_NOT_ALLOWED, Reason.ZONE_DISABLED, Reason.PAUSED})
_NOT_REACHED = "downloads do not reach this pod: check network policies, proxy.noProxy, job.hostNetwork"
_HINTS = {
    Reason.NAMESPACE_NOT_ALLOWED: "templateNamespaces of the Zone must select the release's namespace",
    Reason.ZONE_DISABLED: "the Zone has enabled: false",
    Reason.URL_NOT_ALLOWED: "sourcePolicy.allowedHosts and allowedCIDRs of the Zone must allow this pod's address",
    Reason.UNSUPPORTED_PROTOCOL: "sourcePolicy.protocols of the Zone must list HTTP",
    Reason.SOURCE_UNREACHABLE: _NOT_REACHED,
    Reason.CONNECT_TIMEOUT: _NOT_REACHED,
    Reason.INTERRUPTED: "check the pods of the download: memory, evictions, the node",
    Reason.POD_BLOCKED: "quotas, limits, Pod Security, image and priority class decide whether its pod may start",
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    zone: str
    pool: str
    host: str


@click.command(
    epilog=examples.of(
        "directdownload selftest --name test --instance release --pod-ip 10.0.0.7 --pool-root /var/lib/libvirt/images",
    )
)
@click.option("--name", required=True, metavar="NAME", help="Name of all objects that the test creates.")
@click.option("--instance", required=True, metavar="NAME", help="Helm release, as in the label of its pods.")
@click.option(
    "--pod-ip", envvar="POD_IP", required=True, help="Address at which downloads reach this pod.  [env: POD_IP]"
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port that serves the file."
)
@pods.pool_root
@click.option(
    "--timeout",
    "seconds",
    type=options.DurationType(),
    default="3m",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for a host, and for the copy.",
)
@cluster_command
async def selftest(
    session: Session, name: str, instance: str, pod_ip: str, port: int, pool_roots: tuple[str, ...], seconds: float
) -> None:
    """Download one small file through a real Job; `helm test` runs this, not people."""
    async with _until_terminated(), _Content(port) as content:
        run = _Run(session, name, instance, pool_roots[0], seconds)
        await run.clean("Removing objects of an earlier test: {}.")
        try:
            await run.test(content, content.url(pod_ip))
        except outcome.Failure as failure:
            # Print it now, because the cleanup may take long or fail.
            click.echo(f"The test has failed: {failure.message}")
            raise
        finally:
            await run.clean("Removing {}.")
    click.echo("The test has succeeded: a file was downloaded, verified and removed again.")


class _Run:
    """One test: `test`, and `clean` before and after it."""

    def __init__(self, session: Session, name: str, instance: str, pool_root: str, seconds: float) -> None:
        self._api, self._session, self._namespace = session.api, session, session.namespace
        self._name, self._instance, self._pool_root, self._seconds = name, instance, pool_root, seconds
        self._said = ""

    async def test(self, content: "_Content", url: str) -> None:
        place = await self._a_place()
        click.echo(f"Serving {units.size(_SIZE_BYTES)} at {url}, SHA-256 {content.sha256}.")
        spec: Object = {"url": url, "format": "RAW", "checksum": f"sha256:{content.sha256}", "zones": [place.zone]}
        await self._create(kinds.TEMPLATES, spec)
        click.echo(f"Template {self._namespace}/{self._name} is registered.")
        wish: Object = {"templateRef": {"name": self._name}, "zone": place.zone, "hosts": [place.host]}
        await self._create(kinds.TEMPLATE_DEPLOYMENTS, {**wish, "pools": [place.pool]})
        click.echo(f"Deploying it to pool {place.pool} of host {place.host} in zone {place.zone}.")
        started = time.monotonic()
        digest = await self._copied()
        if digest != f"sha256:{content.sha256}":
            raise outcome.Failure(f"the copy is Ready with digest {digest}: expected sha256:{content.sha256}")
        click.echo(f"The copy is Ready after {units.span(time.monotonic() - started)}, with the right digest.")

    async def clean(self, words: str) -> None:
        """Deletes the objects with the test's name, and waits until they are gone. Prints `words` if there are any."""
        found = [kind for kind in _MADE if await self._get(kind) is not None]
        hosts = await self._hosts_of_own_zone()
        if not found and not hosts:
            return
        things = [*(f"{kind.kind} {self._name}" for kind in found), *(f"Host {host}" for host in hosts)]
        click.echo(words.format(", ".join(things)))
        async with _limit(_CLEANUP_SECONDS, self._blocked):
            # Deployment and Template first: their copies need Zone, pool and Host to be removed.
            for group in (_MADE[:2], _MADE[2:]):
                for kind in group:
                    await self._api.delete(kind, self._name, namespace=self._namespace)
                await _poll(functools.partial(self._gone, group))
            # Last, because the controller creates them as long as the Zone exists.
            for host in {*hosts, *await self._hosts_of_own_zone()}:
                await self._api.delete(kinds.HOSTS, host)

    # --- where

    async def _a_place(self) -> _Place:
        zones = objects.readable(Zone.model_validate, (await self._api.list(kinds.ZONES))[0])
        if zones:
            return await self._existing_place(zones)
        return await self._own_place()

    async def _existing_place(self, zones: list[Zone]) -> _Place:
        pools = objects.readable(StoragePool.model_validate, (await self._api.list(kinds.STORAGE_POOLS))[0])
        hosts = objects.readable(Host.model_validate, (await self._api.list(kinds.HOSTS))[0])
        enabled = {zone.name for zone in zones if zone.spec.enabled}
        known = {(pool.name, pool.spec.zone) for pool in pools}
        for host in hosts:
            if host.status.state == "Up" and host.spec.zone in enabled:
                for storage in host.status.storage:
                    if storage.reason is None and (storage.pool, host.spec.zone) in known:
                        return _Place(host.spec.zone, storage.pool, host.name)
        lines = [f"Host {host.name}: {host.status.state or 'unknown'}, {_storage_text(host)}" for host in hosts]
        raise outcome.Failure(
            "no host is Up with a usable pool in an enabled zone: see kubectl get ddzone,ddhost,ddpool\n"
            + "\n".join(lines or ["there is no Host: the nodeSelector of a Zone must select nodes"]),
            outcome.TRANSIENT,
        )

    async def _own_place(self) -> _Place:
        """Creates a Zone with one node that has a ready agent, for a cluster without a Zone."""
        selector = f"app.kubernetes.io/component=agent,app.kubernetes.io/instance={self._instance}"
        agents, _ = await self._api.list(kinds.PODS, namespace=self._namespace, label_selector=selector)
        ready = sorted(str(pod["spec"]["nodeName"]) for pod in agents if _is_ready(pod))
        if not ready:
            raise outcome.Failure(f"none of {units.count(len(agents), 'agent')} is ready yet", outcome.TRANSIENT)
        node = ready[0]
        labels = (await self._api.get(kinds.NODES, node))["metadata"].get("labels", {})
        click.echo(f"There is no Zone yet: creating one of node {node}, with a pool at {self._pool_root}.")
        hostname = {"kubernetes.io/hostname": labels.get("kubernetes.io/hostname", node)}
        await self._create(kinds.ZONES, {"nodeSelector": {"matchLabels": hostname}})
        await self._create(kinds.STORAGE_POOLS, {"zone": self._name, "path": self._pool_root})
        async with _limit(self._seconds, functools.partial(self._why_not_up, node)):
            return await _poll(functools.partial(self._up, node))

    async def _up(self, node: str) -> _Place | None:
        host = await self._host(node)
        usable = host is not None and any(
            each.pool == self._name and each.reason is None for each in host.status.storage
        )
        up = host is not None and host.status.state == "Up"
        return _Place(self._name, self._name, node) if up and usable else None

    async def _why_not_up(self, node: str) -> str:
        host = await self._host(node)
        if host is None:
            return f"the controller has created no Host for node {node}: see its log"
        return f"Host {node} is {host.status.state or 'unknown'}, {_storage_text(host)}"

    async def _host(self, name: str) -> Host | None:
        with contextlib.suppress(errors.NotFound):
            return Host.model_validate(await self._api.get(kinds.HOSTS, name))
        return None

    async def _hosts_of_own_zone(self) -> list[str]:
        hosts = objects.readable(Host.model_validate, (await self._api.list(kinds.HOSTS))[0])
        return [host.name for host in hosts if host.spec.zone == self._name]

    # --- the copy

    async def _copied(self) -> str:
        """Waits until the copy is Ready, and returns its digest."""
        async with _limit(self._seconds, self._blocked):
            return await _poll(self._digest)

    async def _digest(self) -> str | None:
        """The digest; None while the copy is not Ready. Prints changes of the progress."""
        text = await self._progress()
        if text != self._said:
            click.echo(f"  {text}")
            self._said = text
        document = await self._api.get(kinds.TEMPLATE_DEPLOYMENTS, self._name, namespace=self._namespace)
        status = TemplateDeployment.model_validate(document).status
        ready, stalled = status.condition("Ready"), status.condition("Stalled")
        if ready and ready.status == "True":
            copies = await objects.placements_of(self._session, self._namespace, self._name) or []
            return next((copy.status.file.digest or "" for copy in copies if copy.status.file), "")
        if (stalled and stalled.status == "True") or (ready and ready.reason in _REFUSALS):
            raise outcome.Failure(await self._blocked())
        return None

    async def _gone(self, group: Sequence[kinds.Resource]) -> bool | None:
        objects = [kind for kind in group if await self._get(kind) is not None]
        return None if objects or await self._copies() else True

    async def _copies(self) -> int:
        return len(await objects.placements_of(self._session, self._namespace, self._name) or [])

    async def _progress(self) -> str:
        copies = await objects.placements_of(self._session, self._namespace, self._name) or []
        texts = [
            f"copy {copy.name}: {rollout.phase_of(copy)}, {rollout.reason_of(copy) or 'just planned'}"
            for copy in copies
        ]
        return "; ".join(texts) or "waiting for the controller to plan the copy"

    async def _blocked(self) -> str:
        """Why there is no progress, from the conditions of the objects."""
        lines: list[str] = []
        reasons: list[str] = []
        for kind in (kinds.TEMPLATES, kinds.TEMPLATE_DEPLOYMENTS):
            document = await self._get(kind)
            for condition in (document or {}).get("status", {}).get("conditions", ()):
                if condition["type"] == "Ready":
                    lines.append(f"{kind.kind} {self._name}: {condition['reason']}: {condition.get('message', '')}")
                    reasons.append(condition["reason"])
        for copy in await objects.placements_of(self._session, self._namespace, self._name) or []:
            reason, message = rollout.reason_of(copy), rollout.message_of(copy)
            lines.append(f"TemplatePlacement {copy.name}: {rollout.phase_of(copy)}, {reason}: {message}")
            reasons.append(reason)
        hints = [_HINTS[reason] for reason in _HINTS if reason in reasons]
        lines += [f"Hint: {hint}" for hint in dict.fromkeys(hints)]
        return "\n".join(["no progress:", *lines]) if lines else "the controller does not act: see its log"

    async def _create(self, kind: kinds.Resource, spec: Object) -> None:
        metadata = {"name": self._name, "labels": {"app.kubernetes.io/component": "test"}}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        await self._api.create(kind, body, namespace=self._namespace)

    async def _get(self, kind: kinds.Resource) -> Object | None:
        try:
            return await self._api.get(kind, self._name, namespace=self._namespace)
        except errors.NotFound:
            return None


_MADE = (kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATES, kinds.STORAGE_POOLS, kinds.ZONES)


class _Content:
    """Serves the file while its context is active."""

    def __init__(self, port: int) -> None:
        self._body = os.urandom(_SIZE_BYTES)
        self._server = health.Server(port)
        self._server.application.router.add_get("/selftest.raw", self._answer)
        self.sha256 = hashlib.sha256(self._body).hexdigest()

    async def __aenter__(self) -> "_Content":
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    def url(self, address: str) -> str:
        return f"http://{urls.bracketed(address)}:{self._server.port}/selftest.raw"

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=self._body, content_type="application/octet-stream")


@contextlib.asynccontextmanager
async def _until_terminated() -> AsyncIterator[None]:
    """The first SIGTERM (the pod is deleted, or out of time) cancels the block."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def cancel_once() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, cancel_once)
    try:
        yield
    except asyncio.CancelledError:
        raise outcome.Failure("terminated before it was done", outcome.TRANSIENT) from None


@contextlib.asynccontextmanager
async def _limit(seconds: float, blocked: Callable[[], Awaitable[str]]) -> AsyncIterator[None]:
    """Raises Failure after `seconds`, with the text of `blocked`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise outcome.Failure(f"not done within {units.span(seconds)}: {await blocked()}", outcome.TRANSIENT) from None


async def _poll(step: Callable[[], Awaitable[T | None]]) -> T:
    """Calls `step` until it returns a value other than None."""
    while (found := await step()) is None:  # noqa: ASYNC110 - what is waited for is elsewhere
        await asyncio.sleep(_POLL_SECONDS)
    return found


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _storage_text(host: Host) -> str:
    return ", ".join(f"pool {each.pool} {each.reason or 'usable'}" for each in host.status.storage) or "no pool"
