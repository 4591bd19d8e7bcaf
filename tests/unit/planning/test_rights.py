"""What a deployment may decide that was refused: nothing; one that was permitted before holds what it was given."""

import itertools
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, by_key, placement, seconds, stamp

from directdownload.planning import rights
from directdownload.planning.deployments import plan_placements
from directdownload.planning.rollouts import plan_deployment
from directdownload.planning.selection import Fleet
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import Granted, TemplateDeployment

HOSTS = [build.host("kvm-1"), build.host("kvm-2")]
COPIES = tuple(placement(host=name, phase="Ready", creationTimestamp=stamp(NOW)) for name in ("kvm-1", "kvm-2"))
NAMESPACES = {"default": {"team": "owner"}, "tenant": {"team": "tenant"}}
OF_THE_OWNER = {"matchLabels": {"team": "owner"}}
#: Why the tenant is refused, and the owner is not: the Template and the Zone.
REFUSALS: dict[Reason, tuple[Template, Any]] = {
    Reason.TEMPLATE_NOT_ALLOWED: (build.template(), build.zone()),
    Reason.NAMESPACE_NOT_ALLOWED: (
        build.template(spec={"allowedNamespaces": {}}),
        build.zone(spec={"templateNamespaces": OF_THE_OWNER}),
    ),
}
POLICIES = ("Delete", "Retain")
#: What the tenant's deployment had before it was refused.
BEFORE = ("never", "granted", "edited", "of-0.1.0", "another-template")
HOLDING = ("granted", "of-0.1.0")
NOTHING: dict[str, list[str]] = {"create": [], "remove": [], "release": []}
BOTH = ["kvm-1", "kvm-2"]


def owners(policy: str, **fields: Any) -> TemplateDeployment:
    return build.deployment("owners", spec={"deletionPolicy": policy}, **fields)


def tenants(before: str, policy: str = "Delete", **fields: Any) -> TemplateDeployment:
    spec: dict[str, Any] = {"deletionPolicy": policy, "templateRef": {"name": "debian-13", "namespace": "default"}}
    found = build.deployment("tenants", namespace="tenant", spec=spec)
    right = {"selection": rights.selection(found), "templateUID": build.TEMPLATE_UID, "time": stamp(NOW)}
    if before == "another-template":
        right["templateUID"] = "of one that was deleted"
    status: dict[str, Any] = {} if before in ("never", "of-0.1.0") else {"granted": right}
    if before != "never":
        status["observedSelection"] = right["selection"]
    if before == "edited":
        spec["hosts"] = BOTH
    fields = {"observed": None, "status": status, **fields}
    return build.deployment("tenants", namespace="tenant", spec=spec, **fields)


def fleet(reason: Reason) -> Fleet:
    return build.fleet(HOSTS, zones=[REFUSALS[reason][1]], namespaces=NAMESPACES)


def plan(reason: Reason, *deployments: TemplateDeployment, deleting: bool = False) -> dict[str, list[str]]:
    template = REFUSALS[reason][0]
    if deleting:
        template = build.template(spec=template.spec.model_dump(exclude_none=True), deleting=True)
    changes = plan_placements(template, deployments, fleet(reason), by_key(*COPIES))
    return {
        "create": sorted(target.host for target in changes.create),
        "remove": sorted(view.host for view in changes.remove),
        "release": sorted(view.host for view in changes.release),
    }


def outcome(policy: str) -> dict[str, list[str]]:
    return {**NOTHING, "remove" if policy == "Delete" else "release": BOTH}


TABLE = list(itertools.product(REFUSALS, POLICIES, POLICIES, BEFORE))


@pytest.mark.parametrize(("reason", "owner", "tenant", "before"), TABLE)
def test_the_owner_deletes_first(reason: Reason, owner: str, tenant: str, before: str) -> None:
    """The owner's policy decides, unless the tenant holds what it was given."""
    expected = NOTHING if before in HOLDING else outcome(owner)
    assert plan(reason, owners(owner, deleting=True), tenants(before, tenant)) == expected


@pytest.mark.parametrize(("reason", "owner", "tenant", "before"), TABLE)
def test_the_refused_one_is_deleted_first(reason: Reason, owner: str, tenant: str, before: str) -> None:
    assert plan(reason, owners(owner), tenants(before, tenant, deleting=True)) == NOTHING


@pytest.mark.parametrize(("reason", "owner", "tenant", "before"), TABLE)
def test_both_are_deleted_at_once(reason: Reason, owner: str, tenant: str, before: str) -> None:
    """Only the owner's policy counts, whatever the refused one says."""
    found = plan(reason, owners(owner, deleting=True), tenants(before, tenant, deleting=True))
    assert found == outcome(owner)


@pytest.mark.parametrize(("reason", "owner", "tenant", "before"), TABLE)
def test_the_refused_one_is_deleted_last(reason: Reason, owner: str, tenant: str, before: str) -> None:
    """It lets go, and removes nothing."""
    assert plan(reason, tenants(before, tenant, deleting=True)) == {**NOTHING, "release": BOTH}
    assert plan(reason, tenants(before, tenant)) == (NOTHING if before in HOLDING else {**NOTHING, "release": BOTH})


@pytest.mark.parametrize(("reason", "owner", "tenant", "before"), TABLE)
def test_the_template_is_deleted(reason: Reason, owner: str, tenant: str, before: str) -> None:
    """That is the owner's order: no Retain of a refused one stands against it."""
    assert plan(reason, tenants(before, tenant), deleting=True) == {**NOTHING, "remove": BOTH}
    assert plan(reason, owners(owner), tenants(before, tenant), deleting=True) == outcome(owner)


@pytest.mark.parametrize(("reason", "before"), list(itertools.product(REFUSALS, BEFORE)))
def test_what_a_refused_one_shows(reason: Reason, before: str) -> None:
    """Nothing of what others have; what it was given as long as it holds that."""
    found, template = tenants(before), REFUSALS[reason][0]
    status = plan_deployment(found, template, fleet(reason), by_key(*COPIES), NOW)
    assert status.conditions[0].reason is reason
    assert status.granted == found.status.granted
    assert status.observed_selection == found.status.observed_selection
    if before == "granted":
        assert status.placements is not None
        assert (status.placements.desired, status.placements.ready) == (2, 2)
    else:
        assert (status.placements, status.bytes, status.failures) == (None, None, ())
    build.check_resource(found, status)


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refused_one_holds_no_copy_that_was_made_later(reason: Reason) -> None:
    """The owner goes on after the tenant was denied: what comes then is none of the tenant's."""
    old, new = COPIES[0], placement(host="kvm-2", phase="Ready", creationTimestamp=stamp(NOW + seconds(60)))
    changes = plan_placements(
        REFUSALS[reason][0], [owners("Delete", deleting=True), tenants("granted")], fleet(reason), by_key(old, new)
    )
    assert [view.host for view in changes.remove] == ["kvm-2"]
    assert not changes.release
    status = plan_deployment(tenants("granted"), REFUSALS[reason][0], fleet(reason), by_key(old, new), NOW)
    assert status.placements is not None
    assert (status.placements.desired, status.placements.ready) == (1, 1)


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refused_one_holds_copies_that_its_status_had_not_reported_yet(reason: Reason) -> None:
    """They are created after the grant was written; the status that knows of them comes seconds later."""
    copies = [
        placement(host="kvm-2", phase="Ready", creationTimestamp=stamp(NOW + seconds(after))) for after in (1, 25)
    ]
    for made in copies:
        changes = plan_placements(REFUSALS[reason][0], [tenants("granted")], fleet(reason), by_key(made))
        assert (changes.remove, changes.release) == ((), ())


def test_a_right_is_written_anew_before_copies_are_created_unless_it_covers_them() -> None:
    template, found = build.template(), build.deployment()
    assert rights.renewed(found, template, NOW + seconds(9), creates=True) is None
    assert found.status.granted is not None
    right = {"selection": found.status.granted.selection, "templateUID": template.uid, "time": stamp(NOW)}
    narrowed = build.deployment(spec={"hosts": ["kvm-1"]}, status={"granted": right})
    for each in (found, narrowed):
        later = rights.renewed(each, template, NOW + seconds(11), creates=True)
        assert rights.renewed(each, template, NOW + seconds(11), creates=False) is None
        assert later == found.status.granted.model_copy(update={"time": NOW + seconds(11)}), "the selection stays"
    another = build.deployment(status={"granted": {**right, "templateUID": "another"}})
    for before in (build.deployment(granted=False), another):
        anew = rights.renewed(before, template, NOW, creates=False)
        assert anew == Granted(selection=rights.selection(before), template_uid=template.uid, time=NOW)


def test_a_zone_that_the_template_does_not_list_any_more() -> None:
    """Everybody's deployments there are denied: they hold what they have, and none of them removes it."""
    template, world = build.template(spec={"zones": ["zone-2"]}), build.fleet(HOSTS)
    kept, gone = build.deployment(), build.deployment(deleting=True)
    assert plan_placements(template, [kept], world, by_key(*COPIES)).release == ()
    changes = plan_placements(template, [gone], world, by_key(*COPIES))
    assert (changes.remove, len(changes.release)) == ((), 2)


@pytest.mark.parametrize(("reason", "policy"), list(itertools.product(REFUSALS, POLICIES)))
def test_a_refused_one_that_is_edited_takes_nothing_away(reason: Reason, policy: str) -> None:
    narrowed = {"hosts": ["kvm-1"], "deletionPolicy": policy}
    reference = {"templateRef": {"name": "debian-13", "namespace": "default"}}
    selected = rights.selection(build.deployment())
    right = {"selection": selected, "templateUID": build.TEMPLATE_UID, "time": stamp(NOW)}
    status = {"observedSelection": selected, "granted": right}
    edited = build.deployment(
        "tenants", namespace="tenant", observed=None, spec={**narrowed, **reference}, status=status
    )
    assert plan(reason, owners("Delete"), edited) == NOTHING
    assert plan(reason, owners("Retain", deleting=True), edited) == outcome("Retain")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("before", ["never", "of-0.1.0"])
def test_one_that_is_permitted_again_holds_at_once_and_decides_once_that_is_written(before: str, policy: str) -> None:
    template, world = build.template(spec={"allowedNamespaces": {}}), build.fleet(HOSTS, namespaces=NAMESPACES)
    found = tenants(before, policy)
    changes = plan_placements(template, [owners("Delete", deleting=True), found], world, by_key(*COPIES))
    assert (changes.remove, changes.release) == ((), ())
    status = plan_deployment(found, template, world, by_key(*COPIES), NOW)
    assert status.granted is not None
    assert (status.granted.selection, status.granted.template_uid) == (rights.selection(found), template.uid)
    # Deleted before that: its policy counts for nothing yet.
    gone = tenants(before, policy, deleting=True)
    changes = plan_placements(template, [gone], world, by_key(*COPIES))
    assert (changes.remove, len(changes.release)) == ((), 2)
    granted = tenants("granted", policy, deleting=True)
    changes = plan_placements(template, [granted], world, by_key(*COPIES))
    assert len(changes.remove if policy == "Delete" else changes.release) == 2


def test_the_right_follows_the_copies_and_stands_still_without_new_ones() -> None:
    template, world, found = build.template(), build.fleet(HOSTS), build.deployment()
    assert plan_deployment(found, template, world, by_key(*COPIES), NOW + seconds(9)).granted == found.status.granted
    later = placement(host="kvm-2", phase="Ready", creationTimestamp=stamp(NOW + seconds(60)))
    for now in (NOW + seconds(90), NOW):
        granted = plan_deployment(found, template, world, by_key(COPIES[0], later), now).granted
        assert granted is not None
        # Whichever clock is ahead, the next look finds nothing to write.
        assert granted.time == max(now, NOW + seconds(60))
    fresh = plan_deployment(build.deployment(observed=None), template, world, {}, NOW).granted
    assert fresh is not None
    assert fresh.time == NOW


def test_a_deployment_that_cannot_be_read_holds_all_copies() -> None:
    template, world = build.template(), build.fleet(HOSTS)
    for deployments in ([], [owners("Delete", deleting=True)], [build.deployment(spec={"hosts": ["kvm-9"]})]):
        changes = plan_placements(template, deployments, world, by_key(*COPIES), held=True)
        assert (changes.remove, changes.release) == ((), ())
    gone = build.template(deleting=True)
    assert plan_placements(gone, [], world, by_key(*COPIES), held=True).remove == ()


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"templateRef": {"name": "debian"}}, "tenant/debian"),
        ({"templateRef": {"name": "debian", "namespace": "images"}}, "images/debian"),
        ({"templateRef": {"name": ["debian"]}}, ""),
        ({"templateRef": {"name": "debian", "namespace": 7}}, ""),
        ({"templateRef": "debian"}, ""),
        ({"templateSelector": {}}, ""),
        ("spec", ""),
        (None, ""),
    ],
)
def test_which_template_an_unreadable_deployment_seems_to_name(spec: object, key: str) -> None:
    assert rights.template_of({"metadata": {"namespace": "tenant", "name": "x"}, "spec": spec}) == key


@pytest.mark.parametrize(
    ("namespace", "status", "holds"),
    [
        ("default", None, True),
        ("tenant", None, False),
        ("tenant", {"conditions": []}, False),
        ("tenant", {"observedSelection": "abc"}, True),
        ("tenant", {"granted": {"tomorrow": True}}, True),
        ("tenant", "status", False),
    ],
)
def test_a_tenant_that_was_never_given_copies_holds_none_by_what_nobody_can_read(
    namespace: str, status: object, holds: bool
) -> None:
    document = {"metadata": {"namespace": namespace, "name": "x"}, "spec": {}, "status": status}
    assert rights.holds_unread(document, build.template()) is holds


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("tenant", POLICIES)
def test_a_copy_that_only_a_refused_one_had_is_nobody_elses_to_remove(tenant: str, before: str) -> None:
    """Not by the policy of an owner who wants copies elsewhere."""
    reason = Reason.TEMPLATE_NOT_ALLOWED
    elsewhere = build.deployment("owners", spec={"hosts": ["kvm-9"]})
    assert plan(reason, elsewhere, tenants(before, tenant, deleting=True)) == {**NOTHING, "release": BOTH}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_narrowing_that_comes_before_anything_was_told_is_an_order_all_the_same(policy: str) -> None:
    """What the copies were given for is written before the first of them is made."""
    narrowed = {"hosts": ["kvm-1"], "deletionPolicy": policy}
    right = {"selection": rights.selection(build.deployment()), "templateUID": build.TEMPLATE_UID, "time": stamp(NOW)}
    found = build.deployment(observed=None, spec=narrowed, status={"granted": right})
    changes = plan_placements(build.template(), [found], build.fleet(HOSTS), by_key(*COPIES))
    assert [view.host for view in (changes.remove if policy == "Delete" else changes.release)] == ["kvm-2"]
