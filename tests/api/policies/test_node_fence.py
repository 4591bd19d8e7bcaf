"""The chart's node fence on a real API server: what an agent may write, and of which host."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster import harness
from tests.world.kube import Answer, Kube, Object, resource, unique
from tests.world.policies import (
    CONTROLLERS,
    OWN,
    READY,
    SYNCED,
    TIME,
    TOMORROW,
    World,
    bind,
    denied_by,
    fence,
    install,
    report,
)
from tests.world.waiting import until

from directdownload.agent import copies
from directdownload.agent.keystore.report import KeystoreReport
from directdownload.agent.status.host import Report
from directdownload.cluster.kinds import HOSTS, TEMPLATE_PLACEMENTS, Resource
from directdownload.resources import base, crd, host, peeridentity

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)


# --- the node fence


def test_an_agent_reports_its_own_host_and_placements(world: World, agent: Kube) -> None:
    storage = [{"pool": "local", "availableBytes": 7}]
    assert report(agent, HOSTS, world.hosts[0], {"storage": storage}).object()["status"]["storage"] == storage
    progress = {"progress": {"percent": 50}}
    assert report(agent, TEMPLATE_PLACEMENTS, world.placements[0], progress).object()["status"] == progress


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("how", ["apply", "merge patch"])
def test_an_agent_cannot_report_for_another_host(world: World, agent: Kube, kind: Resource, how: str) -> None:
    name = (world.hosts if kind is HOSTS else world.placements)[1]
    before = world.admin.get(kind, name).object()
    if how == "apply":
        answer = report(agent, kind, name)
    else:
        answer = agent.patch(kind, name, {"status": OWN[kind]}, subresource="status")
    assert answer.code == 403
    assert denied_by(answer, fence(world))
    field = "spec.nodeName" if kind is HOSTS else "spec.host"
    assert f'{kind.plural} {name}: {field} is "{world.hosts[1]}": expected "{world.hosts[0]}"' in answer.message
    assert world.admin.get(kind, name).object() == before


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_a_token_without_a_node_is_refused(world: World, kind: Resource) -> None:
    name = (world.hosts if kind is HOSTS else world.placements)[0]
    with world.service_account("agent") as plain:
        answer = report(plain, kind, name)
    assert answer.code == 403
    assert denied_by(answer, fence(world))
    assert "names no node: expected a service account token with the claim" in answer.message


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_a_report_changes_nothing_but_status(world: World, agent: Kube, kind: Resource) -> None:
    name = (world.hosts if kind is HOSTS else world.placements)[0]
    before = world.admin.get(kind, name).object()
    patch: Object = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.org/a"]},
        "spec": {"zone": "zone-2", "host" if kind is TEMPLATE_PLACEMENTS else "allocationState": "Maintenance"},
        "status": OWN[kind],
    }
    after = agent.patch(kind, name, patch, subresource="status").object()
    assert after["status"].items() >= {key: OWN[kind][key] for key in OWN[kind] if key != "conditions"}.items()
    assert after["spec"] == before["spec"]
    assert {"labels", "annotations", "finalizers"} & after["metadata"].keys() == set()


# --- which fields are an agent's


@pytest.fixture
def copy_of(world: World, controller: Kube) -> Callable[[Resource], str]:
    """The first host's object of a kind: what the controller and the agent have written stands in it, nothing else."""

    def made(kind: Resource) -> str:
        name = (world.hosts if kind is HOSTS else world.placements)[0]
        world.admin.patch(kind, name, {"status": None}, subresource="status").object()
        status = {"status": CONTROLLERS[kind]}
        head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
        controller.apply(kind, {**head, **status}, base.CONTROLLER, subresource="status").object()
        return name

    return made


def fields_of(kind: Resource) -> dict[str, Any]:
    """A value, other than those above, for each field of the status of `kind`, as its definition admits it."""
    (model,) = [each for each in crd.KINDS if each.DEFINITION.kind == kind.kind]
    schema = crd.definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return {name: value_of(each) for name, each in schema["properties"].items()}


def value_of(schema: Object) -> Any:
    if "enum" in schema:
        return schema["enum"][-1]
    if schema["type"] == "object":
        return {name: value_of(each) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [value_of(schema["items"])]
    return {"string": TIME if schema.get("format") == "date-time" else "another", "integer": 7, "boolean": True}[
        schema["type"]
    ]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in (HOSTS, TEMPLATE_PLACEMENTS) for field in fields_of(kind)],
    ids=lambda value: value.kind if isinstance(value, Resource) else value,
)
def test_an_agent_changes_fields_of_its_own_and_no_other(
    world: World, agent: Kube, copy_of: Callable[[Resource], str], kind: Resource, field: str
) -> None:
    """Every field of the definition, also one that is added to it later: applied, patched, taken away."""
    name, value = copy_of(kind), fields_of(kind)[field]
    own = field in OWN[kind] and field != "conditions"
    before = world.admin.get(kind, name).object()
    ways: dict[str, Callable[[], Answer]] = {
        "apply": lambda: report(agent, kind, name, {field: value}),
        "patch": lambda: agent.patch(kind, name, {"status": {field: value}}, subresource="status"),
        "removal": lambda: agent.patch(kind, name, {"status": {field: None}}, subresource="status"),
    }
    for way, write in ways.items():
        answer = write()
        if own:
            assert answer.object()["status"].get(field) == (None if way == "removal" else value), way
        elif way == "removal" and field not in before["status"]:
            answer.object()
        else:
            assert denied_by(answer, fence(world)), f"{way}: {answer}"
            assert f"{kind.plural} {name}: an agent may not change status.{field}" in answer.message
            assert "expected a change of status." in answer.message
    if not own:
        assert world.admin.get(kind, name).object() == before


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_an_agent_writes_all_that_is_its_own_into_a_new_object_and_again(
    world: World, agent: Kube, controller: Kube, kind: Resource
) -> None:
    """As the agent does it: before the controller has said anything, after it, less than before, and nothing."""
    name = (world.hosts if kind is HOSTS else world.placements)[0]
    world.admin.patch(kind, name, {"status": None}, subresource="status").object()
    assert report(agent, kind, name).object()["status"] == OWN[kind]
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
    controller.apply(kind, {**head, "status": CONTROLLERS[kind]}, base.CONTROLLER, subresource="status").object()
    less: Object = {"conditions": []} if kind is HOSTS else {"observed": {"present": False}}
    assert report(agent, kind, name, less).object()["status"] == CONTROLLERS[kind] | (
        less if kind is TEMPLATE_PLACEMENTS else {}
    )
    again = report(agent, kind, name).object()["status"]
    assert {key: again[key] for key in again if key != "conditions"} == {
        key: value for key, value in (CONTROLLERS[kind] | OWN[kind]).items() if key != "conditions"
    }
    if kind is HOSTS:
        assert sorted(each["type"] for each in again["conditions"]) == ["KeystoreSynced", "Ready"]


def test_what_these_tests_write_is_what_the_agent_writes() -> None:
    keystore = KeystoreReport(host.KeystoreStatus(), (), base.Condition.model_validate(SYNCED))
    request = peeridentity.PeerRequest(csr="c", client_csr="d", signing_key="k")
    assert Report("u", {}, keystore, demands=(), peer_request=request).status.keys() == OWN[HOSTS].keys()
    wanted = {field.name for field in dataclasses.fields(copies.Wanted)} & set(fields_of(TEMPLATE_PLACEMENTS))
    assert wanted == OWN[TEMPLATE_PLACEMENTS].keys()


@pytest.mark.parametrize(
    "conditions",
    [
        [{**READY, "status": "False"}],
        [READY, {**READY, "type": TOMORROW}],
        [{**READY, "type": TOMORROW}, SYNCED],
        [SYNCED],
        [],
    ],
    ids=["changed", "added", "exchanged", "removed", "emptied"],
)
def test_conditions_of_other_types_are_not_an_agents(
    world: World, agent: Kube, copy_of: Callable[[Resource], str], conditions: list[Object]
) -> None:
    name = copy_of(HOSTS)
    before = world.admin.get(HOSTS, name).object()
    answer = agent.patch(HOSTS, name, {"status": {"conditions": conditions}}, subresource="status")
    assert denied_by(answer, fence(world)), answer
    assert "may not change status.conditions of other types than KeystoreSynced" in answer.message
    assert world.admin.get(HOSTS, name).object() == before


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("how", ["forgotten", "emptied", "renamed", "co-owned", "by another name"])
def test_an_agent_cannot_take_a_field_from_the_controllers_hand(
    world: World, agent: Kube, copy_of: Callable[[Resource], str], kind: Resource, how: str
) -> None:
    """Unchanged, and yet the controller could not erase it any more: another holds it as well, or it does not."""
    name = copy_of(kind)
    before = world.admin.get(kind, name).object()
    renamed = [{**each, "manager": "another"} for each in before["metadata"]["managedFields"]]
    managed = {"forgotten": [{}], "emptied": [], "renamed": renamed}
    if how in managed:
        # By way of the status the API server lets nobody change these.
        agent.patch(kind, name, {"metadata": {"managedFields": managed[how]}}, subresource="status")
    else:
        head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
        manager = {"co-owned": base.AGENT, "by another name": "another"}[how]
        for field, value in CONTROLLERS[kind].items():
            answer = agent.apply(kind, {**head, "status": {field: value}}, manager, subresource="status")
            assert denied_by(answer, fence(world)), answer
            assert "may not change metadata.managedFields: fields of the controller held by" in answer.message
    assert world.admin.get(kind, name).object() == before


def test_the_fence_has_room_for_the_proofs_of_thousands_of_certificates(
    world: World, agent: Kube, copy_of: Callable[[Resource], str]
) -> None:
    name = copy_of(HOSTS)
    proof = {"state": "Uploaded", "fingerprintSHA256": bytes(32).hex(":")}
    proofs = [{"name": f"{number:063}", **proof} for number in range(host.CERTIFICATES_LIMIT)]
    for told in (proofs, proofs[1:]):
        answer = report(agent, HOSTS, name, {**OWN[HOSTS], "certificates": told})
        assert answer.object()["status"]["certificates"] == told
    assert denied_by(report(agent, HOSTS, name, {"certificates": proofs, "state": "Down"}), fence(world))


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_a_field_of_a_newer_version_is_not_an_agents(
    control_plane: harness.ControlPlane, world: World, agent: Kube, copy_of: Callable[[Resource], str], kind: Resource
) -> None:
    definition = f"{kind.plural}.{base.GROUP}"
    path = f"/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/{TOMORROW}"

    def alter(*operation: Object) -> None:
        words = ("patch", "crd", definition, "--type=json", "-p", json.dumps(operation))
        control_plane.kubectl(*words, check=True)

    def known() -> bool:
        world.admin.patch(kind, name, {"status": {TOMORROW: "x"}}, subresource="status").object()
        return TOMORROW in world.admin.get(kind, name).object()["status"]

    alter({"op": "add", "path": path, "value": {"type": "string"}})
    try:
        name = copy_of(kind)
        until("the field of tomorrow is served", known)
        for value in ("y", None):
            answer = agent.patch(kind, name, {"status": {TOMORROW: value}}, subresource="status")
            assert denied_by(answer, fence(world)), answer
            assert f"may not change status.{TOMORROW}" in answer.message
        report(agent, kind, name).object()
    finally:
        alter({"op": "remove", "path": path})


def replaced(agent: Kube, kind: Resource, name: str, status: Object) -> Answer:
    """An update of the whole object by way of its status; no role of the chart gives the verb."""
    whole = agent.get(kind, name).object()
    others = [each for each in whole.get("status", {}).get("conditions", []) if each["type"] != "KeystoreSynced"]
    if "conditions" in status:
        status = {**status, "conditions": [*others, *status["conditions"]]}
    whole["status"] = {**whole.get("status", {}), **status}
    return agent.request("PUT", kind.path(name, None, "status"), whole)


def test_the_fence_holds_for_an_agent_with_too_many_rights(control_plane: harness.ControlPlane, world: World) -> None:
    """A role bound to the agents by mistake opens neither other hosts nor creation and deletion."""
    # The agents of another installation: its fence is its own, its rules of SYSTEM templates would speak for both.
    release, namespace, manifests = install(control_plane, without="system-templates")
    other = dataclasses.replace(world, release=release, namespace=namespace)
    subject = {"kind": "ServiceAccount", "name": f"{other.prefix}-agent", "namespace": namespace}
    bind(world, {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}, [subject])
    with other.service_account("agent", world.hosts[0]) as agent:
        until(
            "the fence is enforced",
            lambda: denied_by(agent.patch(HOSTS, world.hosts[1], {"spec": {"zone": "zone-9"}}), fence(other)),
        )
        owner = {"apiVersion": "v1", "kind": "Node", "name": world.hosts[0], "uid": "u"}
        for kind, names in ((HOSTS, world.hosts), (TEMPLATE_PLACEMENTS, world.placements)):
            spec = agent.get(kind, names[0]).object()["spec"]
            made = resource(kind, unique("new"), spec)
            if kind is HOSTS:
                made["metadata"]["name"] = made["spec"]["nodeName"] = unique("kvm")
            answers = {
                "create": agent.create(kind, made),
                "delete": agent.delete(kind, names[0]),
                "collection": agent.request("DELETE", kind.path()),
                "move to own host": agent.patch(
                    kind, names[1], {"spec": {"host": world.hosts[0]} if kind is not HOSTS else {"zone": "zone-2"}}
                ),
                "status": report(agent, kind, names[1]),
                "own spec": agent.patch(
                    kind, names[0], {"spec": {"zone": "zone-2"} if kind is HOSTS else {"host": "x"}}
                ),
                "own labels": agent.patch(kind, names[0], {"metadata": {"labels": {"a": "b"}}}),
                "own annotations": agent.patch(kind, names[0], {"metadata": {"annotations": {"a": "b"}}}),
                "own finalizers": agent.patch(kind, names[0], {"metadata": {"finalizers": ["example.org/a"]}}),
                "own owner": agent.patch(kind, names[0], {"metadata": {"ownerReferences": [owner]}}),
                "own status": replaced(agent, kind, names[0], {"observedGeneration": 9}),
            }
            for what, answer in answers.items():
                assert denied_by(answer, fence(other)), f"{kind.kind}: {what}: {answer}"
            assert all(world.admin.get(kind, name).ok for name in names)
            assert replaced(agent, kind, names[0], OWN[kind]).ok
    control_plane.kubectl("delete", "--wait=false", "-f", "-", input=manifests, check=True)
