"""What `client.Api` promises, of a real kube-apiserver and of `FakeApi`: the one cannot drift from the other."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.cluster import harness
from tests.world.api import FakeApi
from tests.world.cluster_support import THINGS, thing

from directdownload.cluster import client, errors, kinds


@pytest_asyncio.fixture(params=["real", "fake"])
async def api(request: pytest.FixtureRequest, control_plane: harness.ControlPlane) -> AsyncIterator[client.Api]:
    if request.param == "fake":
        yield FakeApi()
        return
    connected = await client.Api.connect(kubeconfig=str(control_plane.kubeconfig()))
    yield connected
    await connected.close()


async def test_pages_show_one_moment_and_list_joins_them(api: client.Api, namespace: str) -> None:
    names = [f"t{number}" for number in range(7)]
    for name in names:
        await api.create(THINGS, thing(name), namespace=namespace)
    sizes: list[int] = []
    versions = set()
    async for items, version in api.pages(THINGS, namespace=namespace, page_size=3):
        if not sizes:
            await api.create(THINGS, thing("later"), namespace=namespace)
        sizes.append(len(items))
        versions.add(version)
    assert sizes == [3, 3, 1]
    assert len(versions) == 1
    listed, _ = await api.list(THINGS, namespace=namespace, page_size=2)
    assert [item["metadata"]["name"] for item in listed] == ["later", *names]
    chosen, _ = await api.list(THINGS, namespace=namespace, field_selector="metadata.name=t3")
    assert [item["metadata"]["name"] for item in chosen] == ["t3"]
    assert {item["kind"] for item in (await api.list(kinds.NAMESPACES))[0]} == {"Namespace"}


async def test_two_managers_own_their_fields_side_by_side(api: client.Api, namespace: str) -> None:
    def status(**fields: Any) -> dict[str, Any]:
        return {"metadata": {"name": "t", "namespace": namespace}, "status": fields}

    await api.create(THINGS, thing("t"), namespace=namespace)
    await api.apply(THINGS, status(number=1), manager="controller", subresource="status")
    both = await api.apply(THINGS, status(text="x"), manager="agent", subresource="status")
    assert both["status"] == {"number": 1, "text": "x"}
    same = await api.apply(THINGS, status(text="x"), manager="agent", subresource="status")
    assert same["metadata"]["resourceVersion"] == both["metadata"]["resourceVersion"]
    await api.apply(THINGS, status(text="forced"), manager="controller", subresource="status")
    assert (await api.get(THINGS, "t", namespace=namespace))["status"] == {"text": "forced"}


async def test_apply_with_uid_does_not_bring_back_a_deleted_object(api: client.Api, namespace: str) -> None:
    created = await api.apply(THINGS, thing("t", number=1), manager="m", namespace=namespace)
    await api.delete(THINGS, "t", namespace=namespace)
    body = thing("t", number=2)
    body["metadata"]["uid"] = created["metadata"]["uid"]
    with pytest.raises(errors.NotFound):
        await api.apply(THINGS, body, manager="m", namespace=namespace)
    with pytest.raises(errors.NotFound):
        await api.get(THINGS, "t", namespace=namespace)


async def test_apply_with_uid_leaves_another_object_of_that_name_alone(api: client.Api, namespace: str) -> None:
    first = await api.create(THINGS, thing("t", number=1), namespace=namespace)
    await api.delete(THINGS, "t", namespace=namespace)
    second = await api.create(THINGS, thing("t", number=2), namespace=namespace)
    body = {"metadata": {"name": "t", "uid": first["metadata"]["uid"]}, "spec": {"number": 3}}
    with pytest.raises(errors.NotFound):
        await api.apply(THINGS, body, manager="m", namespace=namespace)
    assert await api.get(THINGS, "t", namespace=namespace) == second


async def test_merge_patch_and_replace(api: client.Api, namespace: str) -> None:
    created = await api.create(THINGS, thing("t", number=1, text="x"), namespace=namespace)
    patched = await api.merge_patch(THINGS, "t", {"spec": {"text": None}}, namespace=namespace)
    assert patched["spec"] == {"number": 1}
    with pytest.raises(errors.Conflict):
        await api.replace(THINGS, created)
    patched["spec"]["number"] = 2
    assert (await api.replace(THINGS, patched))["spec"] == {"number": 2}
    with pytest.raises(errors.AlreadyExists):
        await api.create(THINGS, thing("t"), namespace=namespace)


async def test_delete_means_the_object_with_that_uid(api: client.Api, namespace: str) -> None:
    created = await api.create(THINGS, thing("t"), namespace=namespace)
    await api.delete(THINGS, "t", namespace=namespace, uid="00000000-0000-0000-0000-000000000000")
    assert (await api.get(THINGS, "t", namespace=namespace))["metadata"]["uid"] == created["metadata"]["uid"]
    for _ in range(2):
        await api.delete(THINGS, "t", namespace=namespace, uid=created["metadata"]["uid"])
        with pytest.raises(errors.NotFound):
            await api.get(THINGS, "t", namespace=namespace)


async def test_watch_reports_changes_and_ends_with_the_servers_timeout(api: client.Api, namespace: str) -> None:
    _, version = await api.list(THINGS, namespace=namespace)
    created = await api.create(THINGS, thing("t", number=1, text="x" * 300_000), namespace=namespace)
    await api.merge_patch(THINGS, "t", {"spec": {"number": 2}}, namespace=namespace)
    await api.delete(THINGS, "t", namespace=namespace)
    seen = [
        (kind, item["spec"]["number"], int(item["metadata"]["resourceVersion"]))
        async for kind, item in api.watch(THINGS, resource_version=version, namespace=namespace, timeout_seconds=1)
        if kind != "BOOKMARK"
    ]
    assert [(kind, number) for kind, number, _ in seen] == [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)]
    versions = [number for _, _, number in seen]
    assert versions[0] == int(created["metadata"]["resourceVersion"])
    assert versions == sorted(set(versions))


async def test_watch_without_a_version_brings_the_present_content_first(api: client.Api, namespace: str) -> None:
    for name in ("t", "u"):
        await api.create(THINGS, thing(name), namespace=namespace)
    seen = []
    selector = "metadata.name=t"
    async for kind, item in api.watch(
        THINGS, resource_version="", namespace=namespace, field_selector=selector, timeout_seconds=1
    ):
        if kind != "BOOKMARK":
            seen.append((kind, item["metadata"]["name"]))
        if kind == "ADDED":
            await api.delete(THINGS, "t", namespace=namespace)
    assert seen == [("ADDED", "t"), ("DELETED", "t")]


async def test_watch_from_a_version_that_is_too_old(api: client.Api, namespace: str) -> None:
    with pytest.raises(errors.Gone):
        async for _ in api.watch(THINGS, resource_version="1", namespace=namespace):
            pass


async def test_writes_are_not_sent_when_the_process_may_not_write(api: client.Api, namespace: str) -> None:
    class NotNowError(Exception):
        pass

    def refuse() -> None:
        raise NotNowError

    await api.create(THINGS, thing("there"), namespace=namespace)
    api.before_write = refuse
    with pytest.raises(NotNowError):
        await api.create(THINGS, thing("new"), namespace=namespace)
    with pytest.raises(NotNowError):
        await api.merge_patch(THINGS, "there", {"metadata": {"labels": {"a": "b"}}}, namespace=namespace)
    with pytest.raises(NotNowError):
        await api.delete(THINGS, "there", namespace=namespace)
    # What only reads goes on, and so does what decides who may write.
    found, _ = await api.list(THINGS, namespace=namespace)
    assert [item["metadata"]["name"] for item in found] == ["there"]
    assert "labels" not in found[0]["metadata"]
    lease = {"metadata": {"name": "l"}, "spec": {}}
    await api.request("POST", kinds.LEASES, namespace=namespace, body=lease, verb="create", urgent=True)


async def test_a_status_is_written_by_its_subresource_only(api: client.Api, namespace: str) -> None:
    created = await api.create(THINGS, {**thing("t", number=1), "status": {"number": 9}}, namespace=namespace)
    assert "status" not in created
    assert created["metadata"]["generation"] == 1
    body = {**thing("t", number=2), "status": {"number": 3}}
    patched = await api.merge_patch(THINGS, "t", body, namespace=namespace, subresource="status")
    assert (patched["spec"], patched["status"], patched["metadata"]["generation"]) == ({"number": 1}, {"number": 3}, 1)
    patched = await api.merge_patch(THINGS, "t", {**body, "status": {"number": 4}}, namespace=namespace)
    assert (patched["spec"], patched["status"], patched["metadata"]["generation"]) == ({"number": 2}, {"number": 3}, 2)


async def test_what_changes_nothing_is_no_new_version(api: client.Api, namespace: str) -> None:
    first = await api.apply(THINGS, thing("t", number=1), manager="m", namespace=namespace)
    again = await api.apply(THINGS, thing("t", number=1), manager="m", namespace=namespace)
    patched = await api.merge_patch(THINGS, "t", {"spec": {"number": 1}}, namespace=namespace)
    versions = {item["metadata"]["resourceVersion"] for item in (first, again, patched)}
    assert len(versions) == 1


async def test_a_patch_of_an_old_version_is_a_conflict(api: client.Api, namespace: str) -> None:
    version = (await api.create(THINGS, thing("t"), namespace=namespace))["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version, "labels": {"a": "b"}}}
    patched = await api.merge_patch(THINGS, "t", patch, namespace=namespace)
    assert patched["metadata"]["labels"] == {"a": "b"}
    patch["metadata"]["labels"] = {"a": "c"}
    with pytest.raises(errors.Conflict):
        await api.merge_patch(THINGS, "t", patch, namespace=namespace)
    with pytest.raises(errors.Invalid):
        await api.replace(THINGS, {"metadata": {"name": "t", "namespace": namespace}, "spec": {}})


async def test_what_is_not_there_is_not_found(api: client.Api, namespace: str) -> None:
    body = {"metadata": {"name": "t", "namespace": namespace}, "status": {"number": 1}}
    for call in (
        api.get(THINGS, "t", namespace=namespace),
        api.merge_patch(THINGS, "t", {"spec": {}}, namespace=namespace),
        api.apply(THINGS, body, manager="m", subresource="status"),
    ):
        with pytest.raises(errors.NotFound):
            await call
    await api.delete(THINGS, "t", namespace=namespace)


async def test_a_finalizer_holds_an_object_until_it_is_taken_off(api: client.Api, namespace: str) -> None:
    body = thing("t")
    body["metadata"]["finalizers"] = ["example.org/held"]
    await api.create(THINGS, body, namespace=namespace)
    _, version = await api.list(THINGS, namespace=namespace)
    for _ in range(2):
        await api.delete(THINGS, "t", namespace=namespace)
    assert "deletionTimestamp" in (await api.get(THINGS, "t", namespace=namespace))["metadata"]
    await api.merge_patch(THINGS, "t", {"metadata": {"finalizers": []}}, namespace=namespace)
    with pytest.raises(errors.NotFound):
        await api.get(THINGS, "t", namespace=namespace)
    events = api.watch(THINGS, resource_version=version, namespace=namespace, timeout_seconds=1)
    assert [kind async for kind, _ in events if kind != "BOOKMARK"] == ["MODIFIED", "DELETED"]


async def test_conditions_are_merged_by_their_type(api: client.Api, namespace: str) -> None:
    def status(*conditions: dict[str, str]) -> dict[str, Any]:
        return {"metadata": {"name": "t", "namespace": namespace}, "status": {"conditions": list(conditions)}}

    async def applied(manager: str, *conditions: dict[str, str]) -> list[dict[str, str]]:
        answer = await api.apply(THINGS, status(*conditions), manager=manager, subresource="status")
        return sorted(answer.get("status", {}).get("conditions") or [], key=lambda each: each["type"])

    a, b, c = ({"type": name, "reason": f"Of{name}"} for name in "ABC")
    await api.create(THINGS, thing("t"), namespace=namespace)
    await applied("controller", a)
    assert await applied("agent", b, c) == [a, b, c]
    assert await applied("agent", c) == [a, c]
    assert await applied("controller", a, {**c, "reason": "Forced"}) == [a, {**c, "reason": "Forced"}]
    assert await applied("controller") == [{"type": "C"}], "the key of an item has two owners still"


async def test_labels_select(api: client.Api, namespace: str) -> None:
    for name, labels in (("one", {"a": "1"}), ("two", {"a": "2", "b": ""}), ("three", {})):
        body = thing(name)
        body["metadata"]["labels"] = labels
        await api.create(THINGS, body, namespace=namespace)
    for selector, expected in (
        ("a", ["one", "two"]),
        ("a=2", ["two"]),
        ("a=1,b", []),
        ("!b,a", ["one"]),
        ("b=", ["two"]),
    ):
        found, _ = await api.list(THINGS, namespace=namespace, label_selector=selector)
        assert [item["metadata"]["name"] for item in found] == expected
