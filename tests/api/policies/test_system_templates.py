"""Who may make a Template SYSTEM, change and delete it: the chart's admission policy on a real API server."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import harness
from tests.world.kube import Answer, Kube, Object, resource, unique
from tests.world.policies import (
    ADMISSION_POLICIES,
    ALL_VERBS,
    ROLES,
    TEMPLATE,
    World,
    bind,
    denied_by,
    fence,
    install,
    system_rules,
)
from tests.world.waiting import until

from directdownload.cluster.kinds import NAMESPACES, TEMPLATES
from directdownload.resources import base

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)


@dataclasses.dataclass(frozen=True, slots=True)
class Users:
    """All may do anything with templates in `namespace`; `may` has the verb set-system besides."""

    namespace: str
    may: Kube
    may_not: Kube
    one_only: Kube


@pytest.fixture(scope="module")
def users(world: World) -> Iterator[Users]:
    namespace = unique("images")
    world.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).object()
    names = {role: unique(role) for role in ("may", "may-not", "one-only")}
    every = [{"kind": "User", "apiGroup": ROLES.group, "name": name} for name in names.values()]
    rule = {"apiGroups": [base.GROUP], "resources": ["templates"]}
    bind(world, {"rules": [{**rule, "verbs": ALL_VERBS}]}, every, namespace)
    bind(world, {"rules": [{**rule, "verbs": ["set-system"]}]}, every[:1], namespace)
    one = {**rule, "verbs": ["set-system"], "resourceNames": ["the-one"]}
    bind(world, {"rules": [one]}, every[2:], namespace)
    connections = [Kube(world.control_plane.kubeconfig(name, ())) for name in names.values()]
    yield Users(namespace, *connections)
    for connection in connections:
        connection.close()


def template(connection: Kube, namespace: str, type_: str = "USER", name: str | None = None) -> str:
    """Creates a template of that type, by way of a USER template if it has to be SYSTEM; returns its name."""
    name = name or unique("t")
    spec = {**TEMPLATE, "type": "USER" if type_ == "SYSTEM" else type_}
    connection.create(TEMPLATES, resource(TEMPLATES, name, spec, namespace), namespace).object()
    if type_ == "SYSTEM":
        set_type(connection, namespace, name, "SYSTEM").object()
    return name


def set_type(connection: Kube, namespace: str, name: str, type_: str) -> Answer:
    return connection.patch(TEMPLATES, name, {"spec": {"type": type_}}, namespace)


def test_system_is_refused_at_creation_for_everybody(world: World, users: Users) -> None:
    for connection in (users.may, users.may_not, world.admin):
        body = resource(TEMPLATES, unique("t"), {**TEMPLATE, "type": "SYSTEM"}, users.namespace)
        head = {"apiVersion": TEMPLATES.api_version, "kind": "Template"}
        for answer in (
            connection.create(TEMPLATES, body, users.namespace),
            connection.apply(TEMPLATES, {**head, **body}, "test", users.namespace),
        ):
            assert answer.code == 422
            assert denied_by(answer, system_rules(world))
            assert "spec.type: SYSTEM is refused at creation: expected USER or ROUTING, for example" in answer.message


@pytest.mark.parametrize("before", ["USER", "ROUTING"])
def test_a_template_becomes_system_by_who_may_and_not_by_who_may_not(world: World, users: Users, before: str) -> None:
    name = template(users.may_not, users.namespace, before)
    whole = users.may_not.get(TEMPLATES, name, users.namespace).object()
    whole["spec"]["type"] = "SYSTEM"
    for answer in (
        set_type(users.may_not, users.namespace, name, "SYSTEM"),
        users.may_not.request("PUT", TEMPLATES.path(name, users.namespace), whole),
    ):
        assert answer.code == 403
        assert denied_by(answer, system_rules(world))
        assert (
            f"spec.type: {before} to SYSTEM: expected a user with the verb set-system on templates." in answer.message
        )
        assert "ask an administrator" in answer.message
    assert users.may.get(TEMPLATES, name, users.namespace).object()["spec"]["type"] == before
    assert set_type(users.may, users.namespace, name, "SYSTEM").object()["spec"]["type"] == "SYSTEM"


def test_a_template_ceases_to_be_system_only_by_who_may(world: World, users: Users) -> None:
    name = template(users.may, users.namespace, "SYSTEM")
    answer = set_type(users.may_not, users.namespace, name, "USER")
    assert answer.code == 403
    assert "spec.type: SYSTEM to USER: expected a user with the verb set-system" in answer.message
    assert set_type(users.may, users.namespace, name, "USER").object()["spec"]["type"] == "USER"
    users.may_not.delete(TEMPLATES, name, users.namespace).object()


def test_the_verb_can_be_given_for_one_template(world: World, users: Users) -> None:
    template(users.may_not, users.namespace, name="the-one")
    other = template(users.may_not, users.namespace)
    assert set_type(users.one_only, users.namespace, other, "SYSTEM").code == 403
    set_type(users.one_only, users.namespace, "the-one", "SYSTEM").object()


def test_user_and_routing_change_freely(users: Users) -> None:
    name = template(users.may_not, users.namespace)
    for type_ in ("ROUTING", "USER"):
        set_type(users.may_not, users.namespace, name, type_).object()
    users.may_not.delete(TEMPLATES, name, users.namespace).object()


def test_a_system_template_is_edited_like_any_other(world: World, users: Users, controller: Kube) -> None:
    """Also by the controller, which has no set-system: finalizers and status."""
    name = template(users.may, users.namespace, "SYSTEM")
    patch: Object = {"spec": {"displayText": "new"}, "metadata": {"labels": {"a": "b"}}}
    assert users.may_not.patch(TEMPLATES, name, patch, users.namespace).object()["spec"]["displayText"] == "new"
    for finalizers in ([base.FINALIZER], None):
        patch = {"metadata": {"finalizers": finalizers}}
        kept = controller.patch(TEMPLATES, name, patch, users.namespace).object()["metadata"]
        assert kept.get("finalizers") == finalizers
    body = {"apiVersion": TEMPLATES.api_version, "kind": "Template", "metadata": {"name": name}}
    status: dict[str, Any] = {"status": {"protocol": "HTTPS"}}
    answer = controller.apply(TEMPLATES, {**body, **status}, base.CONTROLLER, users.namespace, subresource="status")
    assert answer.object()["status"]["protocol"] == "HTTPS"


def test_a_system_template_cannot_be_deleted_by_anybody(world: World, users: Users) -> None:
    system, user = template(users.may, users.namespace, "SYSTEM"), template(users.may, users.namespace)
    for connection in (users.may, users.may_not, world.admin):
        answer = connection.delete(TEMPLATES, system, users.namespace)
        assert answer.code == 403
        assert denied_by(answer, system_rules(world))
        assert "spec.type: a SYSTEM template cannot be deleted: expected USER or ROUTING" in answer.message
        assert "for example to type: USER" in answer.message
    collection = users.may.request("DELETE", TEMPLATES.path(None, users.namespace))
    assert denied_by(collection, system_rules(world))
    assert users.may.get(TEMPLATES, system, users.namespace).ok
    if users.may.get(TEMPLATES, user, users.namespace).ok:
        users.may_not.delete(TEMPLATES, user, users.namespace).object()


def test_a_template_that_is_being_deleted_can_be_let_go(world: World, users: Users, controller: Kube) -> None:
    """It became SYSTEM too late: removing the finalizer is an update, which the rules leave alone."""
    name = template(users.may, users.namespace)
    controller.patch(TEMPLATES, name, {"metadata": {"finalizers": [base.FINALIZER]}}, users.namespace).object()
    users.may_not.delete(TEMPLATES, name, users.namespace).object()
    set_type(users.may, users.namespace, name, "SYSTEM").object()
    controller.patch(TEMPLATES, name, {"metadata": {"finalizers": None}}, users.namespace).object()
    assert users.may.get(TEMPLATES, name, users.namespace).code == 404


def test_a_namespace_that_goes_takes_its_system_templates_along() -> None:
    """With Kubernetes' own namespace controller, which deletes what the namespace holds, one kind after the other."""
    with harness.ControlPlane(controller_manager=True) as control_plane:
        release, namespace, _ = install(control_plane)
        with Kube(control_plane.kubeconfig()) as admin:
            world = World(control_plane, admin, release, namespace, ("", ""), ("", ""))
            images = unique("images")
            head = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": images}}
            admin.create(NAMESPACES, head).object()
            name = template(admin, images, "SYSTEM")
            until(
                "a SYSTEM template is safe",
                lambda: denied_by(
                    admin.request("DELETE", TEMPLATES.path(name, images), query={"dryRun": "All"}), system_rules(world)
                ),
            )
            admin.delete(NAMESPACES, images).object()
            until("the namespace is gone", lambda: admin.get(NAMESPACES, images).code == 404, seconds=120)
            assert admin.get(TEMPLATES, name, images).code == 404
            for policy in (fence(world), system_rules(world)):
                checked = until(
                    f"Kubernetes has checked the types of {policy}",
                    lambda policy=policy: admin.get(ADMISSION_POLICIES, policy).object().get("status"),  # type: ignore[misc]
                )
                assert checked["typeChecking"] == {}, policy
