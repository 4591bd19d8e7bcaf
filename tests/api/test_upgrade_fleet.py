"""An upgrade from version 0.1.0 in the middle of everything: copies in each phase, deployments of every kind."""

import json
import pathlib

from tests.cluster import harness
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.steps import counted, empty, phase_and_reason, settle, unchecked
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import naming
from directdownload.resources.base import CONTROLLER

RECORDED = pathlib.Path(__file__).parent.parent / "recorded" / "0.1.0" / "fleet.json"
#: 0.1.0 wrote x86_64 into each Template: on such hosts an upgrade keeps and completes every copy all the same.
ARM = {"kubernetes.io/arch": "arm64"}
DEPLOYMENTS, PLACEMENTS = kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATE_PLACEMENTS


class Recording:
    """What 0.1.0 left, made anew; names that follow from uids are those of the new uids."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._text = RECORDED.read_text()

    def _items(self, name: str) -> list[Object]:
        found: list[Object] = json.loads(self._text)[name]
        return found

    def restore(self) -> None:
        guest = self._world.create_namespace("guest", team="guest")
        assert guest == "old-guest"
        self._make(kinds.ZONES, "zones")
        self._make(kinds.STORAGE_POOLS, "pools")
        for host in self._items("hosts"):
            name = self._world.add_host(host["metadata"]["name"].removeprefix("old-"), labels=ARM)
            with self._world.kube() as connection:
                node = connection.get(kinds.NODES, name).object()
            self._text = self._text.replace(host["status"]["nodeUID"], node["metadata"]["uid"])
        self._make(kinds.HOSTS, "hosts")
        self._make(kinds.TEMPLATES, "templates")
        for copy in self._items("placements"):
            spec = copy["spec"]
            reference = spec["templateRef"]
            name = naming.placement_name(reference["name"], reference["uid"], spec["pool"], spec["host"])
            self._text = self._text.replace(copy["metadata"]["name"], name)
        self._make(DEPLOYMENTS, "deployments")
        self._make(PLACEMENTS, "placements")
        self._make(kinds.JOBS, "jobs")

    def _make(self, kind: kinds.Resource, name: str) -> None:
        for item in self._items(name):
            old = item["metadata"]
            kept = ("name", "namespace", "labels", "annotations", "finalizers")
            body = {**item, "metadata": {field: old[field] for field in kept if field in old}}
            status = body.pop("status", None)
            if kind is kinds.JOBS:
                body["spec"].pop("selector", None)
                body["spec"]["template"]["metadata"].pop("labels", None)
                status = None
            with self._world.kube() as connection:
                made = connection.create(kind, body, old.get("namespace")).object()["metadata"]
                if status is not None:
                    told = {
                        "apiVersion": kind.api_version,
                        "kind": kind.kind,
                        "metadata": {"name": old["name"]},
                        "status": status,
                    }
                    connection.apply(kind, told, CONTROLLER, old.get("namespace"), subresource="status").object()
            self._text = self._text.replace(old["uid"], made["uid"])


def copies(world: Simulation) -> dict[tuple[str, str], tuple[str, str]]:
    """Phase and reason by template and host."""
    return {
        (each["spec"]["templateRef"]["name"], each["spec"]["host"]): phase_and_reason(each)
        for each in unchecked(world, PLACEMENTS)
    }


def status(world: Simulation, name: str) -> Object:
    found = unchecked(world, DEPLOYMENTS)
    return next(each["status"] for each in found if each["metadata"]["name"] == name)


def remove(world: Simulation, name: str, namespace: str = "") -> None:
    with world.kube() as connection:
        connection.delete(DEPLOYMENTS, name, namespace or world.namespace).object()


def test_an_upgrade_in_the_middle_of_everything(own: harness.ControlPlane) -> None:
    with Simulation(own, "old", agents=True) as world:
        Recording(world).restore()
        one, two, three, four = (f"old-kvm-{number}" for number in (1, 2, 3, 4))
        before = copies(world)
        world.start_controller()
        until("what was under way", lambda: ("going", two) not in copies(world))
        until("the download that ran", lambda: copies(world).get(("debian", three)) == ("Ready", "Downloaded"))
        settle(world)
        after = {**before, ("debian", three): ("Ready", "Downloaded")}
        del after["going", two]
        assert copies(world) == after
        assert {each["status"]["architecture"] for each in unchecked(world, kinds.HOSTS)} == {"aarch64"}
        assert {each["spec"]["architecture"] for each in unchecked(world, kinds.TEMPLATES)} == {"x86_64"}
        assert not any("skipped" in status(world, name).get("placements", {}) for name in ("everywhere", "permitted"))
        assert counted(world)[two, "remove"] == 1
        # Who is permitted copies has that written; who is refused has not, and sees nothing of what others have.
        assert all("granted" in status(world, name) for name in ("everywhere", "kept", "permitted"))
        assert not {"granted", "placements", "bytes"} & status(world, "refused").keys()
        # 0.1.0 has not told whether it was ever permitted: so it holds what it selects, until it is deleted itself.
        remove(world, "everywhere")
        settle(world)
        assert set(copies(world)) == {("debian", host) for host in (one, two, three, four)} | {("open", one)}
        remove(world, "refused", "old-guest")
        until("what nobody wants any more to be let go", lambda: set(copies(world)) == {("debian", one), ("open", one)})
        settle(world)
        assert not empty(world, three)
        remove(world, "permitted", "old-guest")
        until("what was permitted to go by its owner's order", lambda: set(copies(world)) == {("debian", one)})
        assert counted(world)[one, "remove"] == 1
