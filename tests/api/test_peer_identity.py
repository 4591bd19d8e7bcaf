"""The identity of peers on a real API server: what the controller writes is admitted, and its rights suffice for it."""

import base64
import pathlib
from typing import Any

import pytest
import yaml
from tests.cluster import harness
from tests.world.chart import documents, new_namespace, one
from tests.world.kube import Kube, Object, unique
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.agent.peers import PeerKeeper, Wishes
from directdownload.agent.settings import Settings
from directdownload.cluster.kinds import HOSTS, SECRETS, STORAGE_POOLS, TEMPLATES, ZONES
from directdownload.controller.peer_identity import DOCUMENT, SECRET_TYPE
from directdownload.peer import credentials

SECRET = "authority"


def ask(kube: Kube, host: str, request: Object) -> None:
    """As its agent; by another name, as a simulated agent reports other fields by that."""
    status = {"status": {"peerRequest": request}}
    body = {"apiVersion": HOSTS.api_version, "kind": HOSTS.kind, "metadata": {"name": host}, **status}
    kube.apply(HOSTS, body, "agent-of-peers", subresource="status").object()


def test_a_host_asks_and_its_server_finds_all_that_it_needs(world: Simulation, tmp_path: pathlib.Path) -> None:
    """The agent's keeper, and a real controller: through the Host, and beside the other fields of both."""
    world.create_zone()
    host = world.add_host("kvm-1")
    first = world.start_controller("a", "--peers-port", "10471", "--peers-secret", SECRET)
    until("the Host", lambda: not world.gone(HOSTS, host))
    until("its state", lambda: world.get(HOSTS, host).get("status", {}).get("state") == "Up")
    keeper = PeerKeeper(Settings(host, (), state_directory=str(tmp_path), peers=True), on_request=lambda: None)
    keeper.look(None)
    assert keeper.request is not None
    asked = keeper.request.model_dump(by_alias=True, mode="json")
    with world.kube() as kube:
        ask(kube, host, asked)
        until("the certificates", lambda: "peer" in world.get(HOSTS, host)["status"])
        status = world.get(HOSTS, host)["status"]
        keeper.look(Wishes(host, world.zone, ("/a",), status["peer"]))
        loaded = credentials.Credentials.load(str(tmp_path / "peer" / "server"))
        assert (loaded.config.host, loaded.config.port) == (host, 10471)
        assert (status["state"], status["peerRequest"]) == ("Up", asked)
        secret = kube.get(SECRETS, SECRET, world.namespace).object()
        assert secret["type"] == SECRET_TYPE
        # The next controller finds all as it is, once the first one has nothing left to write.
        until("the pool", lambda: world.ready_reason(STORAGE_POOLS, world.pool) == "Ready")
        until("the Zone", lambda: world.ready_reason(ZONES, world.zone) == "Ready")
        first.stop()
        second = world.start_controller("b", "--peers-port", "10471", "--peers-secret", SECRET)
        world.create_template()
        until("a look at what came last", lambda: world.ready_reason(TEMPLATES, "debian"))
        assert {write["objectRef"]["resource"] for write in world.writes("b")} == {"templates"}
        assert world.get(HOSTS, host)["status"]["peer"] == status["peer"]
        assert kube.get(SECRETS, SECRET, world.namespace).object() == secret
        # A lost Secret is a new authority, which the hosts get without being asked.
        kube.delete(SECRETS, SECRET, world.namespace).object()
        until(
            "new certificates", lambda: world.get(HOSTS, host)["status"]["peer"]["bundle"] != status["peer"]["bundle"]
        )
        keeper.look(Wishes(host, world.zone, ("/a",), world.get(HOSTS, host)["status"]["peer"]))
        again = credentials.Credentials.load(str(tmp_path / "peer" / "server"))
        assert again.config.keys != loaded.config.keys
        # Without peers the answer goes; the request is the agent's.
        second.stop()
        world.start_controller("c")
        until("no certificates", lambda: "peer" not in world.get(HOSTS, host)["status"])
        assert world.get(HOSTS, host)["status"]["peerRequest"] == asked


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_the_controller_may_make_and_replace_that_secret_and_no_other(
    admin: Kube, control_plane: harness.ControlPlane, on: bool
) -> None:
    namespace, release = new_namespace(admin), unique("r")
    found = documents(release, namespace, "--set", f"peers.enabled={str(on).lower()}")
    roles = [one(found, kind, "controller") for kind in ("ServiceAccount", "Role", "RoleBinding")]
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(roles), check=True)
    account = roles[0]["metadata"]["name"]
    name = f"{account.removesuffix('-controller')}-peers"
    data = {DOCUMENT: base64.b64encode(b"a").decode()}
    token = control_plane.service_account_token(account, namespace)

    def body(of: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": of}, "type": SECRET_TYPE, "data": data}

    with Kube(control_plane.token_kubeconfig(token, unique("controller"))) as controller:

        def replaced(of: str) -> int:
            return controller.request("PUT", SECRETS.path(of, namespace), body(of)).code

        until("the rights", lambda: controller.get(SECRETS, "none", namespace).code == 404)
        assert controller.create(SECRETS, body(name), namespace).code == (201 if on else 403)
        admin.create(SECRETS, body("other"), namespace).object()
        assert replaced(name) == (200 if on else 403)
        assert replaced("other") == 403
        for of in (name, "other"):
            assert controller.delete(SECRETS, of, namespace).code == 403
            assert controller.patch(SECRETS, of, {"data": {}}, namespace).code == 403
        assert controller.create(SECRETS, body(name), "default").code == 403
