"""What Java cannot read, and certificates that nobody here can read: what becomes of them in a host's keystore."""

import datetime
from typing import Any

import pytest

from directdownload.planning import keystores
from directdownload.planning.keystores import Desired, Entries, Owned, Ownership, Plan, Previous, Proof, Published
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(hours=1)
GOOD, BAD, OTHER = (Certificate(name) for name in (b"good", b"bad", b"other"))
PG, PB, PO = (each.fingerprint_sha256 for each in (GOOD, BAD, OTHER))
WHY = "Java cannot read it"


def published(certificate: Certificate = BAD, name: str = "cert-ca", **fields: Any) -> Published:
    values: dict[str, Any] = {"created": NOW, "zone": "z", "flaws": {PB: WHY}, **fields}
    return Published(name=name, alias="ca", certificate=certificate, **values)


def desired(*certificates: Published, ownership: Ownership | None = None, **fields: Any) -> Desired:
    return keystores.desired("kvm-1", "z", True, certificates, NOW, ownerships=[ownership or {}], **fields)


def owned(*fingerprints: str, adopted: bool = False) -> Owned:
    return Owned("cert-ca", frozenset(fingerprints), placed=True, adopted=adopted)


def settled(wanted: Desired, plan: Plan, entries: Entries, flawed: set[str]) -> Plan:
    """The plan for what the store holds after `plan`; it changes nothing."""
    left = {alias: found for alias, found in entries.items() if alias not in plan.remove}
    left |= {alias: wish.certificate.fingerprint_sha256 for alias, wish in plan.put.items()}
    again = keystores.plan(wanted, plan.ownership, left, flawed=flawed)
    assert not again.changes
    return again


def test_what_is_not_there_is_not_put_and_the_proof_says_why() -> None:
    wanted = desired(published())
    plan = keystores.plan(wanted, {}, {"cloud": None})
    assert not plan.changes
    assert keystores.proofs(wanted, plan, {}) == (
        Proof("cert-ca", "Failed", reason=Reason.INVALID_CERTIFICATE, message=WHY),
    )


@pytest.mark.parametrize("enabled", [True, False, None])
def test_what_we_imported_goes_also_where_the_zone_is_disabled(enabled: bool | None) -> None:
    """A host whose Java opens nothing is worse off than one without the certificate."""
    ownership = {"ca": owned(PB)}
    wanted = keystores.desired("kvm-1", "z", enabled, [published()], NOW, ownerships=[ownership])
    plan = keystores.plan(wanted, ownership, {"ca": PB}, flawed={"ca"})
    assert (dict(plan.remove), dict(plan.put)) == ({"ca": "cert-ca"}, {})
    assert settled(wanted, plan, {"ca": PB}, {"ca"}).ownership == {}
    # From a backup of the store it does not come back.
    assert wanted.taken == {("ca", PB): "cert-ca"}
    restored = keystores.plan(desired(published(), taken=wanted.taken), {}, {"ca": PB}, flawed={"ca"})
    assert dict(restored.remove) == {"ca": "cert-ca"}


def test_what_was_there_before_us_is_left() -> None:
    wanted = desired(published())
    plan = keystores.plan(wanted, {}, {"ca": PB}, flawed={"ca"})
    assert (plan.changes, plan.ownership) == (False, {})
    # Also one that was adopted when it counted as readable, whether or not it is published any more.
    ownership = {"ca": owned(PB, adopted=True)}
    for wanted in (
        desired(published(), ownership=ownership),
        desired(ownership=ownership),
        desired(published(), ownership=ownership),
    ):
        plan = keystores.plan(wanted, ownership, {"ca": PB}, flawed={"ca"})
        assert (plan.changes, plan.ownership) == (False, ownership), wanted


@pytest.mark.parametrize("ownership", [{}, {"ca": owned(PB)}, {"ca": owned(PB, adopted=True)}], ids=str)
def test_what_somebody_revokes_goes_whoever_put_it_there(ownership: Ownership) -> None:
    wanted = desired(published(revoked=True), ownership=ownership)
    plan = keystores.plan(wanted, ownership, {"ca": PB}, flawed={"ca"})
    assert dict(plan.remove) == {"ca": "cert-ca"}
    after = settled(wanted, plan, {"ca": PB}, {"ca"})
    assert keystores.proofs(wanted, after, {}) == (Proof("cert-ca", "Revoked"),)


@pytest.mark.parametrize("ownership", [{"ca": owned(PB)}, {"ca": owned(PB, adopted=True)}], ids=str)
def test_a_good_one_takes_its_place(ownership: Ownership) -> None:
    wanted = desired(published(GOOD), ownership=ownership)
    plan = keystores.plan(wanted, ownership, {"ca": PB}, flawed={"ca"})
    assert {alias: wish.certificate for alias, wish in plan.put.items()} == {"ca": GOOD}
    after = settled(wanted, plan, {"ca": PB}, set())
    assert after.ownership == {"ca": Owned("cert-ca", frozenset({PG}), placed=True)}


def test_the_one_before_stays_while_the_current_one_goes() -> None:
    rotated = published(previous=Previous(GOOD, LATER))
    ownership = {"ca": owned(PB), "ca-previous": owned(PG)}
    wanted = desired(rotated, ownership=ownership)
    plan = keystores.plan(wanted, ownership, {"ca": PB, "ca-previous": PG}, flawed={"ca"})
    assert (dict(plan.remove), dict(plan.put)) == ({"ca": "cert-ca"}, {})
    assert wanted.until == LATER
    # And the other way round.
    wanted = desired(
        published(GOOD, previous=Previous(BAD, LATER)), ownership={"ca": owned(PG), "ca-previous": owned(PB)}
    )
    ownership = {"ca": owned(PG), "ca-previous": owned(PB)}
    plan = keystores.plan(wanted, ownership, {"ca": PG, "ca-previous": PB}, flawed={"ca-previous"})
    assert (dict(plan.remove), dict(plan.put)) == ({"ca-previous": "cert-ca"}, {})


def test_its_alias_is_its_own_all_the_same() -> None:
    younger = published(OTHER, "cert-other", created=LATER)
    wanted = desired(published(), younger)
    plan = keystores.plan(wanted, {}, {})
    assert not plan.changes
    proof = next(each for each in keystores.proofs(wanted, plan, {}) if each.name == "cert-other")
    assert (proof.state, proof.reason) == ("Failed", Reason.ALIAS_CONFLICT)


def test_while_java_opens_nothing_no_entry_proves_anything() -> None:
    revoked = published(OTHER, "cert-gone", revoked=True)
    wanted = desired(published(GOOD), revoked)
    plan = keystores.plan(wanted, {"ca": owned(PG)}, {"ca": PG, "theirs": PB}, flawed={"theirs"})
    assert not plan.changes
    assert keystores.proofs(wanted, plan, {"ca": PG, "theirs": PB}, "theirs keeps it out") == (
        Proof("cert-ca", "Failed", reason=Reason.KEYSTORE_UNREADABLE, message="theirs keeps it out"),
        Proof("cert-gone", "Revoked"),
    )


def test_a_certificate_whose_object_nobody_can_read_stays_on_the_host() -> None:
    ownership = {"ca": owned(PG), "ca-previous": owned(PO)}
    entries = {"ca": PG, "ca-previous": PO}
    wanted = desired(ownership=ownership, unread=frozenset({"cert-ca"}))
    assert not wanted.taken
    plan = keystores.plan(wanted, ownership, entries)
    assert (plan.changes, plan.ownership) == (False, ownership)
    # Once its object is gone, it goes.
    wanted = desired(ownership=ownership)
    assert set(keystores.plan(wanted, ownership, entries).remove) == {"ca", "ca-previous"}


def test_what_is_found_there_is_adopted_and_what_is_put_there_is_not() -> None:
    wanted = desired(published(GOOD))
    assert keystores.plan(wanted, {}, {"ca": PG}).ownership["ca"].adopted
    imported = keystores.plan(wanted, {}, {})
    assert not imported.ownership["ca"].adopted
    assert not keystores.plan(wanted, imported.ownership, {"ca": PG}).ownership["ca"].adopted
