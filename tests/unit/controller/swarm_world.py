"""Hosts that read from each other, without hosts: the real stores, watches, swarms and reconciler of placements, on an
API in memory, with a clock and kubelets that the test moves. What jobs do follows from their documents alone."""

import copy
import dataclasses
import datetime
import heapq
import itertools
import json
import pathlib
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import Document
from tests.world.api import FakeApi

from directdownload import slices
from directdownload.cluster import errors, kinds
from directdownload.cluster.objects import JobView, project_node, project_pod
from directdownload.controller import context, settings, swarms, watches, world
from directdownload.controller.queue import Key
from directdownload.controller.reconcile import placements
from directdownload.peer import statements
from directdownload.resources.jobs import JOB_ENVIRONMENT_VARIABLE, JobDocument, JobResult, PeerRole, Verb
from directdownload.resources.reasons import Reason

NAMESPACE = "operator"
SIZE_BYTES = 1 << 30
CHECKSUM = "sha256:" + "ab" * 32
SKELETON: Document = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {},
    "spec": {"template": {"spec": {"containers": [{"name": "download"}]}}},
}


class Queue:
    """The interface of `WorkQueue`, with the clock of the test."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.waiting: dict[Key, None] = {}
        self.timers: list[tuple[float, Key]] = []
        self.slices = slices.SharedSlices()

    def add(self, key: Key) -> None:
        self.waiting[key] = None

    def add_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.add(key)

    def add_later(self, key: Key, seconds: float) -> None:
        heapq.heappush(self.timers, (self._now() + max(seconds, 0), key))

    def fire(self) -> None:
        while self.timers and self.timers[0][0] <= self._now():
            self.add(heapq.heappop(self.timers)[1])


class Recorder:
    def __init__(self) -> None:
        self.told: list[tuple[str, Reason]] = []

    def tell(self, _: kinds.Resource, item: Any, __: str, reason: Reason, *___: str) -> None:
        self.told.append((item.key, reason))


@dataclasses.dataclass(frozen=True)
class Signing:
    issuer: statements.Issuer
    keys: tuple[str, ...] = ()
    trust_domain: str = "test.directdownload"
    port: int = 10471


@dataclasses.dataclass(frozen=True)
class Registrar:
    peers: Any


@dataclasses.dataclass(frozen=True)
class Started:
    """A Job as it was created; `served`: whether another host could then serve it."""

    host: str
    verb: Verb
    role: PeerRole | None
    epoch: int


Behaviour = Callable[["SwarmWorld", JobDocument], JobResult]


def as_it_should(found: "SwarmWorld", document: JobDocument) -> JobResult:
    """A Peer needs a host that has the file, or is about to; all else succeeds."""
    shared = document.peers
    if shared is not None and shared.role is PeerRole.PEER and not found.sources():
        return JobResult(reason=Reason.PEERS_UNAVAILABLE, message="no other host has a piece")
    content = shared.content if shared is not None else ""
    if document.verb is Verb.VERIFY:
        return JobResult(reason=Reason.VERIFIED, content=content, revision="r1")
    peer = shared is not None and shared.role is PeerRole.PEER
    return JobResult(
        reason=Reason.DOWNLOADED,
        size_bytes=SIZE_BYTES,
        content=content,
        digest=CHECKSUM,
        revision="r1",
        origin_bytes=0 if peer else SIZE_BYTES,
        peer_bytes=SIZE_BYTES if peer else 0,
    )


class SwarmWorld:
    """`hosts` of one zone, each with a placement of one Template. Every step of it is one change."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        issuer: statements.Issuer | None,
        hosts: int,
        *,
        seed: int = 0,
        zone: Document | None = None,
        template: Document | None = None,
        templates: int = 1,
    ) -> None:
        self.random = random.Random(seed)
        self.behaviour: Behaviour = as_it_should
        self.clock = build.NOW
        self.api = FakeApi(namespace=NAMESPACE)
        self.recorder = Recorder()
        self.started: list[Started] = []
        #: of the bytes that jobs have read from the source
        self.origin_bytes = 0
        #: on hosts that are Down pods go on, and nobody hears of it
        self.pods: dict[str, Document] = {}
        self.numbers = itertools.count(10_000)
        self._signing = Registrar(Signing(issuer) if issuer is not None else None)
        monkeypatch.setattr(context.Context, "now", staticmethod(lambda: self.clock))
        self.hosts = [f"kvm-{number}" for number in range(hosts)]
        self.down: set[str] = set()
        self._objects: dict[kinds.Resource, list[Document]] = {kind: [] for kind in (*kinds.OURS, kinds.NODES)}
        self._put(kinds.ZONES, context.dump(build.zone(spec=zone)))
        self._put(kinds.STORAGE_POOLS, context.dump(build.pool()))
        for number in range(templates):
            uid = str(number) * 8
            name = f"debian-{number}"
            spec = {"checksum": CHECKSUM, **(template or {})}
            # Known already: no Job has to stay until a Template has learnt it.
            status = {"digest": CHECKSUM}
            self._put(kinds.TEMPLATES, context.dump(build.template(name, uid=uid, spec=spec, status=status)))
            self._put(
                kinds.TEMPLATE_DEPLOYMENTS, context.dump(build.deployment(name, spec={"templateRef": {"name": name}}))
            )
            for host in self.hosts:
                document = build.placement_document(host=host, template_uid=uid)
                document["spec"]["templateRef"] = {"namespace": "default", "name": name, "uid": uid}
                self._put(kinds.TEMPLATE_PLACEMENTS, document)
        self.hosts_up = {host: self._host(host) for host in self.hosts}
        self.restart()

    def _put(self, resource: kinds.Resource, document: Document) -> None:
        self.api.put(resource, document)

    def _host(self, name: str, state: str = "Up") -> Document:
        key = "A" * 43 + "="
        peer = {
            **dict.fromkeys(("serverCertificate", "clientCertificate", "bundle"), "pem"),
            **{"keys": [key], "notAfter": build.stamp(build.NOW + datetime.timedelta(days=400))},
            **{"trustDomain": "test.directdownload", "port": 10471},
        }
        request = {"csr": "pem", "clientCSR": "pem", "signingKey": key}
        document = build.host_document(
            name, state, storage=[build.facts()], status={"peer": peer, "peerRequest": request}
        )
        document["metadata"]["resourceVersion"] = str(next(self.numbers))
        return document

    def restart(self) -> None:
        """Another controller takes over: it knows what the API has."""
        self.queue = Queue(lambda: self.clock.timestamp())
        self.world = world.World((build.ROOT,))
        watches.Watches(self.world, self.queue)  # type: ignore[arg-type]
        self.swarms = swarms.Swarms(self.world, self.queue, self._signing, lambda: self.clock)  # type: ignore[arg-type]
        around = settings.Settings(NAMESPACE, "pod", pathlib.Path("job.yaml"), ())
        self.context = context.Context(
            self.api,
            self.world,
            self.queue,  # type: ignore[arg-type]
            around,
            SKELETON,
            self.recorder,  # type: ignore[arg-type]
            None,
            self.swarms,
        )
        steps: list[Callable[[], object]] = []
        for number, name in enumerate(self.hosts):
            node = {"metadata": {**build.metadata(name), "labels": {"zone": "zone-1"}}}
            node["status"] = {"addresses": [{"type": "InternalIP", "address": f"10.0.{number // 250}.{number % 250}"}]}
            steps.append(lambda node=node: self.world.nodes.observe(project_node(node)))  # type: ignore[misc]
            steps.append(lambda name=name: self._observe_host(name))  # type: ignore[misc]
        for kind in (kinds.JOBS, *kinds.OURS):
            for item in self.api.objects(kind):
                copied = copy.deepcopy(item)
                steps.append(lambda kind=kind, copied=copied: self.context.observe(kind, copied))  # type: ignore[misc]
        steps += [lambda pod=pod: self._observe_pod(pod) for pod in self.pods.values()]  # type: ignore[misc]
        self.random.shuffle(steps)
        for step in steps:
            step()
        self.queue.add_all(Key("placement", placement.key) for placement in self.world.placements)

    def _observe_host(self, name: str) -> None:
        document = self._host(name, "Down" if name in self.down else "Up")
        self.world.hosts.observe(self.world.views.host(document))

    def _observe_pod(self, pod: Document) -> None:
        if pod["spec"]["nodeName"] not in self.down:
            self.world.pods.observe(project_pod(pod))

    # What others do.

    def set_down(self, name: str, *, down: bool) -> None:
        (self.down.add if down else self.down.discard)(name)
        self._observe_host(name)
        for pod in self.pods.values():
            if pod["spec"]["nodeName"] == name:
                self._observe_pod(pod)

    def jobs(self) -> list[JobView]:
        """Those that have not ended, on hosts that are not Down."""
        found = (job for job in self.world.jobs if not job.deleting)
        return [job for job in found if self._state(job) != "ended" and self._host_of(job) not in self.down]

    def _host_of(self, job: JobView) -> str:
        placement = self.world.placements.get(job.labels[world.PLACEMENT_LABEL])
        return placement.host if placement is not None else ""

    def _state(self, job: JobView) -> str:
        pod = self.pods.get(job.uid)
        return "new" if pod is None else pod["state"]

    def document_of(self, job: JobView) -> JobDocument:
        (item,) = (each for each in self.api.objects(kinds.JOBS) if each["metadata"]["uid"] == job.uid)
        environment = item["spec"]["template"]["spec"]["containers"][0]["env"]
        return JobDocument.read(next(each["value"] for each in environment if each["name"] == JOB_ENVIRONMENT_VARIABLE))

    def advance(self, job: JobView) -> None:
        """Its pod starts, or ends."""
        before = self._state(job)
        state: Document = {"running": {}}
        if before == "running":
            result = self.behaviour(self, self.document_of(job))
            self.origin_bytes += result.origin_bytes
            message = json.dumps(json.loads(result.to_message()))
            state = {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}}
        labels = {world.JOB_UID_LABEL: job.uid, **job.labels}
        metadata = {**build.metadata(f"{job.name}-x", namespace=NAMESPACE), "labels": labels}
        metadata["uid"], metadata["resourceVersion"] = f"pod-{job.uid}", str(next(self.numbers))
        metadata["creationTimestamp"] = build.stamp(self.clock)
        self.pods[job.uid] = {
            "metadata": metadata,
            "spec": {"nodeName": self._host_of(job)},
            "status": {"containerStatuses": [{"name": "download", "state": state}]},
            "state": "running" if before == "new" else "ended",
        }
        self._observe_pod(self.pods[job.uid])

    def learn_size(self) -> None:
        """A probe has found the size of each Template."""
        for item in self.api.objects(kinds.TEMPLATES):
            item["status"]["sizeBytes"] = SIZE_BYTES
            item["metadata"]["resourceVersion"] = str(next(self.numbers))
            self.context.observe(kinds.TEMPLATES, copy.deepcopy(item))

    def sources(self) -> bool:
        """Whether a host that is up has the file, or reads it from the source."""
        ready = any(
            p.file is not None and p.file.content is not None and p.host not in self.down for p in self.world.placements
        )
        return ready or any(
            world.role_of(job) is PeerRole.SEED and self._state(job) == "running" for job in self.jobs()
        )

    def seeds(self) -> dict[str, int]:
        """Seeds that live, by their Template's uid."""
        found: dict[str, int] = {}
        for job in self.jobs():
            if world.role_of(job) is PeerRole.SEED:
                placement = self.world.placements.get(job.labels[world.PLACEMENT_LABEL])
                assert placement is not None
                found[placement.template_uid] = found.get(placement.template_uid, 0) + 1
        return found

    async def reconcile(self, key: Key) -> None:
        """One look at a placement, as a worker takes it; all other work is left alone."""
        if key.kind != "placement":
            return
        before = {job.uid for job in self.world.jobs}
        try:
            await placements.reconcile(self.context, key.name)
        except errors.ApiError:
            self.queue.add_later(key, 1)
        for job in self.world.jobs:
            if job.uid not in before:
                document = self.document_of(job)
                role = document.peers.role if document.peers is not None else None
                self.started.append(Started(document.host, document.verb, role, world.epoch_of(job)))
        self._collect()

    def _collect(self) -> None:
        """The pods of Jobs that are gone go as well."""
        known = {job.uid for job in self.world.jobs}
        for uid in [uid for uid in self.pods if uid not in known]:
            pod = self.pods.pop(uid)
            metadata = pod["metadata"]
            self.world.pods.forget(f"{NAMESPACE}/{metadata['name']}", next(self.numbers))

    async def settle(self) -> None:
        """Until the queue is empty: nothing else happens meanwhile, nor does time pass."""
        self.queue.fire()
        while self.queue.waiting:
            key = next(iter(self.queue.waiting))
            del self.queue.waiting[key]
            await self.reconcile(key)

    def pass_time(self, seconds: float = 0) -> None:
        """To the next timer, if `seconds` are not given."""
        following = self.queue.timers[0][0] if self.queue.timers else self.clock.timestamp() + 1
        # A moment more: times are rounded to microseconds.
        target = self.clock.timestamp() + seconds if seconds else max(following, self.clock.timestamp()) + 0.001
        self.clock = datetime.datetime.fromtimestamp(target, datetime.UTC)
        self.queue.fire()

    def ready(self) -> int:
        return sum(placement.reason in (Reason.DOWNLOADED, Reason.VERIFIED) for placement in self.world.placements)

    async def run(self, rounds: int = 400) -> None:
        """Jobs go on and time passes, in any order, until every copy is Ready or `rounds` are over."""
        for _ in range(rounds):
            await self.settle()
            if self.ready() == len(self.world.placements):
                return
            alive = self.jobs()
            if alive and self.random.random() < 0.9:
                for job in self.random.sample(alive, self.random.randint(1, len(alive))):
                    self.advance(job)
            else:
                self.pass_time()
