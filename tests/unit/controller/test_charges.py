"""How many placements each namespace has, by the changes of the store alone; and which Template is looked at next."""

import dataclasses
import random
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW

from directdownload.cluster import kinds
from directdownload.cluster.reflector import Store
from directdownload.controller.charges import Charges
from directdownload.planning.observed import PlacementView
from directdownload.planning.quotas import ALL, Account
from directdownload.planning.selection import Target
from directdownload.resources.base import NAMESPACE_LABEL

ONE, TWO = Account("one", "zone-1"), Account("two", "zone-1")


def copy(name: str, namespace: str = "one", version: int = 1, **fields: Any) -> PlacementView:
    document = build.placement_document(labels={NAMESPACE_LABEL: namespace}, resourceVersion=str(version), **fields)
    document["metadata"].update(name=name, uid=f"uid-{name}")
    return build.VIEWS.placement(document)


def target(name: str, namespace: str = "one") -> Target:
    return Target(name, build.template(), "zone-1", "local", "kvm-1", "/p", namespace)


@pytest.fixture
def store() -> Store[PlacementView]:
    return Store()


@pytest.fixture
def charges(store: Store[PlacementView]) -> Charges:
    return Charges(store)


def test_placements_count_for_their_namespace_and_zone(store: Store[PlacementView], charges: Charges) -> None:
    store.observe(copy("a"))
    store.observe(copy("b"))
    store.observe(copy("c", zone="zone-2"))
    assert charges.counts == {ONE: 2, Account("one", "zone-2"): 1, ALL: 3}
    store.observe(copy("b", "two", version=2))
    assert charges.counts == {ONE: 1, TWO: 1, Account("one", "zone-2"): 1, ALL: 3}
    for name in ("a", "b", "c"):
        store.forget(name, 9)
    assert charges.counts == {}


def test_counts_are_those_of_the_store_whatever_happens(store: Store[PlacementView], charges: Charges) -> None:
    rng = random.Random(1)
    for version in range(2, 2000):
        name, namespace = rng.choice("abcdef"), rng.choice(("one", "two"))
        if rng.random() < 0.3:
            store.forget(name, version)
        else:
            store.observe(copy(name, namespace, version))
    expected: dict[Account, int] = {}
    for view in store:
        for account in (Account(view.namespace, view.zone), ALL):
            expected[account] = expected.get(account, 0) + 1
    assert charges.counts == expected


def test_one_that_cannot_be_read_is_there(store: Store[PlacementView], charges: Charges) -> None:
    document = build.placement_document()
    store.take(kinds.TEMPLATE_PLACEMENTS, build.VIEWS.placement, document)
    del document["spec"]
    document["metadata"]["resourceVersion"] = "2"
    store.take(kinds.TEMPLATE_PLACEMENTS, build.VIEWS.placement, document)
    assert charges.counts == {ALL: 1}


def test_what_is_being_made_takes_its_room_and_gives_it_back(store: Store[PlacementView], charges: Charges) -> None:
    with charges.making([target("a"), target("b"), target("c", "two")]):
        assert charges.counts == {ONE: 2, TWO: 1, ALL: 3}
        store.observe(copy("a"))
        # Somebody has made it for another namespace.
        store.observe(copy("c", "one"))
        assert charges.counts == {ONE: 3, ALL: 3}
    assert charges.counts == {ONE: 2, ALL: 2}, "b was refused"
    with pytest.raises(RuntimeError), charges.making([target("d")]):
        raise RuntimeError
    assert charges.counts == {ONE: 2, ALL: 2}


def test_of_each_account_with_room_the_one_that_waited_longest_is_next(charges: Charges) -> None:
    charges.wait("t1", frozenset({ONE}))
    charges.wait("t2", frozenset({ONE, TWO}))
    charges.wait("t3", frozenset({TWO}))
    charges.wait("t4", frozenset())
    assert list(charges.first(lambda _: False)) == []
    assert list(charges.first(lambda _: True)) == [("t1", ONE), ("t2", TWO)]
    charges.leave("t1")
    assert list(charges.first(lambda account: account == ONE)) == [("t2", ONE)]
    charges.leave("t2")
    assert list(charges.first(lambda _: True)) == [("t3", TWO)]


def test_that_the_cluster_is_full_is_told_once_until_it_was_emptier(
    store: Store[PlacementView], charges: Charges
) -> None:
    for number in range(100):
        store.observe(copy(f"p-{number}"))
    assert [charges.tell(100, full=full) for full in (False, True, True, False, True)] == [
        False,
        True,
        False,
        False,
        False,
    ]
    for number in range(6):
        store.forget(f"p-{number}", 9)
    assert not charges.tell(100, full=False)
    for number in range(6):
        store.observe(copy(f"p-{number}", version=10))
    assert [charges.tell(100, full=full) for full in (False, True, True)] == [False, True, False]


def test_a_change_of_nothing_that_counts_costs_nothing(store: Store[PlacementView], charges: Charges) -> None:
    store.observe(view := copy("a"))
    store.observe(dataclasses.replace(view, resource_version=2, created=NOW))
    assert charges.counts == {ONE: 1, ALL: 1}
