"""Steps and looks that tests of convergence have in common, on a `Simulation`; and the history of its placements."""

import collections
import contextlib
import datetime
import http.client
import itertools
import json
import posixpath
import socket
import threading
import time
import urllib.parse
from typing import Any, Self

import yaml
from tests.world.controllers import Controller
from tests.world.kube import Object, tls_context
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import base
from directdownload.resources.jobs import JobDocument, JobResult

#: Keeps what is tried again quick.
RETRY = {"initial": "1s", "maximum": "3s"}
#: Longer than the controller puts off any look for.
_QUIET_SECONDS = 1.5
LEASE = "direct-download-operator"
_requests = itertools.count(1)


def hang(_: JobDocument) -> JobResult | None:
    """A behaviour: every job runs on."""
    return None


def hosts_of_a_zone(world: Simulation, number: int, **downloads: Any) -> list[str]:
    """The first zone, with `number` hosts; `downloads` are its limits."""
    world.create_zone(downloads={"retry": RETRY, **downloads})
    return [world.add_host(f"kvm-{each}") for each in range(1, number + 1)]


def deployed(world: Simulation, number: int, **downloads: Any) -> list[str]:
    """A zone of `number` hosts with a controller, and one template Ready on all of them; the hosts are returned."""
    hosts = hosts_of_a_zone(world, number, **downloads)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(number)
    return hosts


def state(world: Simulation, host: str) -> tuple[str, str]:
    """Phase and reason of the host's placement; empty while there is none."""
    return states(world).get(host, ("", ""))


def states(world: Simulation) -> dict[str, tuple[str, str]]:
    """Phase and reason by host."""
    return {p["spec"]["host"]: phase_and_reason(p) for p in world.placements() if "phase" in p.get("status", {})}


def unchecked(world: Simulation, kind: kinds.Resource) -> list[Object]:
    """All objects of a kind, also those whose statuses this version would not write."""
    with world.kube() as kube:
        return list(kube.request("GET", kind.path()).object()["items"])


def phase_and_reason(placement: Object) -> tuple[str, str]:
    """Both empty before the controller has told them."""
    status = placement.get("status", {})
    return (status["phase"], status["conditions"][0]["reason"]) if "phase" in status else ("", "")


def until_state(world: Simulation, host: str, phase: str, *reasons: str, seconds: float = 120) -> Object:
    """Waits for the host's placement to be in `phase` for one of `reasons` (empty: for any), and returns it."""

    def reached() -> Object | None:
        for placement in world.placements():
            found, reason = phase_and_reason(placement)
            if placement["spec"]["host"] == host and found == phase and (not reasons or reason in reasons):
                return placement
        return None

    try:
        return until(f"{host} {phase} {' or '.join(reasons)}", reached, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {states(world)}") from None


def file_of(placement: Object) -> str:
    """The name of the file in its pool."""
    return posixpath.basename(str(placement["spec"]["path"]))


def empty(world: Simulation, host: str) -> bool:
    """Whether the host's disk holds nothing at all."""
    disk = world.disk(host)
    return not (disk.files or disk.records or disk.parts)


def ran(world: Simulation, host: str = "") -> list[str]:
    """The verbs of the jobs that ever ran, in their order; on `host`, or anywhere."""
    return [verb for where, verb, _ in world.started if where == host or not host]


def counted(world: Simulation) -> collections.Counter[tuple[str, str]]:
    """How many jobs ever ran, by host and verb."""
    return collections.Counter((host, verb) for host, verb, _ in world.started)


def edit(world: Simulation, kind: kinds.Resource, name: str, spec: Object, namespace: str = "") -> None:
    _patch(world, kind, name, {"spec": spec}, namespace)


def ask(world: Simulation, kind: kinds.Resource, name: str, namespace: str = "") -> str:
    """Sets `requested-at`, and returns its new value."""
    value = f"request-{next(_requests)}"
    _patch(world, kind, name, {"metadata": {"annotations": {base.REQUESTED_AT: value}}}, namespace)
    return value


def _patch(world: Simulation, kind: kinds.Resource, name: str, patch: Object, namespace: str = "") -> None:
    with world.kube() as kube:
        kube.patch(kind, name, patch, (namespace or world.namespace) if kind.namespaced else None).object()


def delete(world: Simulation, kind: kinds.Resource, name: str) -> None:
    with world.kube() as kube:
        kube.delete(kind, name, world.namespace if kind.namespaced else None).object()


def kill(world: Simulation, controller: Controller) -> None:
    """Ends it without a word. Its Lease goes too, so that the next one need not wait until that has run out."""
    controller.kill()
    with world.kube() as kube:
        kube.delete(kinds.LEASES, LEASE, world.namespace).object()


def settle(world: Simulation) -> None:
    """Waits until nobody has written anything of ours for longer than the controller puts off any look.

    Whatever it was going to do about the last step it has done then.
    """
    log = world.control_plane.audit_log
    size, since = log.stat().st_size, time.monotonic()

    def quiet() -> bool:
        nonlocal size, since
        if log.stat().st_size != size:
            size, since = log.stat().st_size, time.monotonic()
        return time.monotonic() - since >= _QUIET_SECONDS

    until("nobody to write any more", quiet)


def pause_seconds(version: Object) -> float:
    """From the writing of this version of a placement to the next attempt; 0 if that need not wait."""
    if "nextAttemptTime" not in version["status"]:
        return 0
    written = max(e["time"] for e in version["metadata"]["managedFields"] if e["manager"] == base.CONTROLLER)
    due, since = (datetime.datetime.fromisoformat(text) for text in (version["status"]["nextAttemptTime"], written))
    return (due - since).total_seconds()


class History:
    """Every version of every placement from now on, as a watch brings them; use as a context manager."""

    def __init__(self, world: Simulation) -> None:
        config = yaml.safe_load(world.control_plane.kubeconfig().read_text())
        address = urllib.parse.urlsplit(config["clusters"][0]["cluster"]["server"])
        self._connection = http.client.HTTPSConnection(
            str(address.hostname), address.port, context=tls_context(config), timeout=300
        )
        with world.kube() as kube:
            listed = kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()
        self._world = world
        self._versions: list[Object] = list(listed["items"])
        #: the latest version of each that is there, as far as the watch has come; uid: resourceVersion
        self._present: dict[str, int] = {}
        for version in self._versions:
            self._take("ADDED", version)
        self._since = listed["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        query = urllib.parse.urlencode({"watch": "1", "resourceVersion": self._since})
        self._connection.request("GET", f"{kinds.TEMPLATE_PLACEMENTS.path()}?{query}")
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if (connected := self._connection.sock) is not None:
            connected.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=120)
        self._connection.close()

    def _read(self) -> None:
        # ends by `__exit__`, in the middle of what it reads
        with contextlib.suppress(http.client.HTTPException, OSError):
            for line in self._response:
                event = json.loads(line)
                self._versions.append(event["object"])
                self._take(event["type"], event["object"])

    def _take(self, kind: str, version: Object) -> None:
        if not version["spec"]["zone"].startswith(f"{self._world.prefix}-"):
            return
        if kind == "DELETED":
            del self._present[version["metadata"]["uid"]]
        else:
            self._present[version["metadata"]["uid"]] = int(version["metadata"]["resourceVersion"])

    def _has_come_to_now(self) -> bool:
        """Whether the watch has brought what a look shows."""
        found = {v["metadata"]["uid"]: int(v["metadata"]["resourceVersion"]) for v in self._world.placements()}
        known = dict(self._present)
        return known.keys() == found.keys() and all(known[uid] >= found[uid] for uid in found)

    def versions(self, host: str) -> list[Object]:
        """Of the host's placement up to now, oldest first."""
        if self._thread.is_alive():
            until("the watch to come to now", self._has_come_to_now)
        return [v for v in list(self._versions) if v["spec"]["host"] == host and "phase" in v.get("status", {})]

    def statuses(self, host: str) -> list[Object]:
        return [version["status"] for version in self.versions(host)]

    def states(self, host: str) -> list[tuple[str, str]]:
        """Phases and reasons of the host's placement as they followed each other."""
        found = [(s["phase"], s["conditions"][0]["reason"]) for s in self.statuses(host)]
        return [key for key, _ in itertools.groupby(found)]
