"""Kubelets and agents of thousands of hosts, for one template: its Jobs succeed at once, and agents report its files.

Lighter than `tests/world/machines.py`, which lists everything at each step: this one follows watches.
"""

import asyncio
import concurrent.futures
import dataclasses
import pathlib
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Self

from directdownload.cluster import client, errors, kinds, objects, reflector
from directdownload.resources import jobs
from directdownload.resources.base import AGENT, GROUP
from directdownload.resources.reasons import Reason

SIZE_BYTES = 4096
DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclasses.dataclass(frozen=True, slots=True)
class _Whole:
    """The unchanged object."""

    key: str
    uid: str
    resource_version: int
    document: Mapping[str, Any]


def _whole(document: Mapping[str, Any]) -> _Whole:
    metadata = document["metadata"]
    return _Whole(objects.key_of(metadata), metadata["uid"], int(metadata["resourceVersion"]), document)


class Machines:
    """Runs in a thread of this process. `observed` counts the placements whose file an agent has reported."""

    def __init__(self, kubeconfig: pathlib.Path, namespace: str, template: str) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._template = template
        self.observed = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._running: concurrent.futures.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._running = asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.cancel()
            concurrent.futures.wait([self._running], 60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        self._api = await client.Api.connect(kubeconfig=str(self._kubeconfig))
        try:
            async with asyncio.TaskGroup() as group:
                for kind, namespace, selector, changed in (
                    (kinds.JOBS, self._namespace, None, self._job),
                    (kinds.TEMPLATE_PLACEMENTS, None, f"{GROUP}/template={self._template}", self._placement),
                ):
                    store = reflector.Store[_Whole]()
                    group.create_task(
                        reflector.Reflector(
                            self._api,
                            kind,
                            _whole,
                            store,
                            namespace=namespace,
                            label_selector=selector,
                            on_change=changed,
                        ).run()
                    )
        finally:
            await self._api.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._failure = error

    def _job(self, key: str, old: _Whole | None, new: _Whole | None) -> None:
        if old is None and new is not None:
            self._spawn(self._work(new.document))
        elif new is None:
            self._spawn(self._api.delete(kinds.PODS, _pod(key.rpartition("/")[2]), namespace=self._namespace))

    async def _work(self, job: Mapping[str, Any]) -> None:
        """Create the Pod of a Job, run it and end it."""
        template, name = job["spec"]["template"], _pod(job["metadata"]["name"])
        (container,) = template["spec"]["containers"]
        text = next(each["value"] for each in container["env"] if each["name"] == jobs.JOB_ENVIRONMENT_VARIABLE)
        document = jobs.JobDocument.model_validate_json(text)
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
        spec = {**template["spec"], "nodeName": document.host}
        spec.pop("affinity", None)
        pod = {"metadata": {"name": name, "labels": labels}, "spec": spec}
        await self._api.create(kinds.PODS, pod, namespace=self._namespace)
        result = jobs.JobResult(
            reason=Reason.DOWNLOADED,
            path=f"{document.pool.path}/{document.file_name}",
            size_bytes=SIZE_BYTES,
            digest=DIGEST,
            revision=document.placement_uid[:12],
        )
        await self._tell(name, "Running", {"running": {}})
        terminated = {"exitCode": 0, "reason": "Completed", "message": result.to_message()}
        await self._tell(name, "Succeeded", {"terminated": terminated})

    async def _tell(self, pod: str, phase: str, state: dict[str, Any]) -> None:
        told = {"name": "download", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        patch = {"status": {"phase": phase, "containerStatuses": [told]}}
        try:
            await self._api.merge_patch(kinds.PODS, pod, patch, namespace=self._namespace, subresource="status")
        except errors.NotFound:
            return

    def _placement(self, key: str, old: _Whole | None, new: _Whole | None) -> None:
        status = new.document.get("status", {}) if new is not None else {}
        if new is not None and status.get("phase") == "Ready" and "observed" not in status:
            self._spawn(self._see(new))

    async def _see(self, placement: _Whole) -> None:
        revision = placement.document["status"]["file"]["revision"]
        observed = {"present": True, "sizeBytes": SIZE_BYTES, "changed": False, "revision": revision}
        body = {"metadata": {"name": placement.key, "uid": placement.uid}, "status": {"observed": observed}}
        await self._api.apply(kinds.TEMPLATE_PLACEMENTS, body, manager=AGENT, subresource="status")
        self.observed += 1


def _pod(job: str) -> str:
    return f"{job}-pod"
