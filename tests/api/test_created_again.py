"""What the refusal of an immutable field advises: delete the object, and create it again, under which name."""

from typing import Any

import pytest
from tests.world.certificates import pem
from tests.world.kube import resource
from tests.world.simulation import POOL_PATH, Simulation
from tests.world.steps import delete, deployed, file_of, settle
from tests.world.waiting import until

from directdownload.cluster import kinds

SAME_NAME = "delete the object; once it is gone, create it again, also under the same name"
ANOTHER_NAME = "create another StoragePool, with another name"


def refusal(world: Simulation, kind: kinds.Resource, name: str, spec: dict[str, Any]) -> str:
    with world.kube() as kube:
        answer = kube.patch(kind, name, {"spec": spec}, world.namespace if kind.namespaced else None)
    assert answer.code == 422
    return answer.message


def test_what_is_deleted_may_be_created_again_under_its_name_with_other_immutable_values(world: Simulation) -> None:
    (host,) = deployed(world, 1)
    before = world.placement(host)
    other, text = world.add_zone("other"), pem("my-ca")
    name = world.create_certificate("ca", text)
    until("the certificate to be trusted", lambda: world.ready_reason(kinds.CERTIFICATES, name) == "Provisioned")
    for kind, each, change in (
        (kinds.TEMPLATE_DEPLOYMENTS, "everywhere", {"zone": other}),
        (kinds.TEMPLATES, "debian", {"url": "http://images.example.org/other.qcow2"}),
        (kinds.CERTIFICATES, name, {"alias": "another"}),
    ):
        assert SAME_NAME in refusal(world, kind, each, change)
        delete(world, kind, each)
    gone = ((kinds.TEMPLATE_DEPLOYMENTS, "everywhere"), (kinds.TEMPLATES, "debian"), (kinds.CERTIFICATES, name))
    until("them to go", lambda: all(world.gone(kind, each) for kind, each in gone))
    world.create_template(url="http://images.example.org/other.qcow2")
    world.deploy()
    world.converged(1)
    after = world.placement(host)
    assert file_of(after) != file_of(before)
    assert set(world.disk(host).files) == {file_of(after)}
    assert world.create_certificate("ca", text, alias="another") == name
    until("the new alias to be trusted", lambda: world.ready_reason(kinds.CERTIFICATES, name) == "Provisioned")


@pytest.mark.parametrize("again", [True, False], ids=["the same name", "another name"])
def test_only_a_pool_of_another_name_gets_copies_at_another_path(world: Simulation, again: bool) -> None:
    (host,) = deployed(world, 1)
    elsewhere = f"{POOL_PATH}/elsewhere"
    assert ANOTHER_NAME in refusal(world, kinds.STORAGE_POOLS, world.pool, {"path": elsewhere})
    old = world.placement(host)["spec"]["path"]
    delete(world, kinds.STORAGE_POOLS, world.pool)
    until("the pool to go", lambda: world.gone(kinds.STORAGE_POOLS, world.pool))
    if again:
        with world.kube() as kube:
            body = resource(kinds.STORAGE_POOLS, world.pool, {"zone": world.zone, "path": elsewhere})
            kube.create(kinds.STORAGE_POOLS, body).object()
        settle(world)
        assert [placement["spec"]["path"] for placement in world.placements()] == [old]
    else:
        pool = world.create_pool("elsewhere", path=elsewhere)
        until("a copy in it", lambda: world.disk(host, pool).files)
