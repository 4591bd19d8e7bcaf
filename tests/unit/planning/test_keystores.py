"""What a host's keystore should hold, and what is done about the difference."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from directdownload.planning import keystores
from directdownload.planning.keystores import Desired, Drift, Owned, Ownership, Plan, Previous, Proof, Published
from directdownload.resources.host import DriftKind
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(hours=1)
A, B, C = (Certificate(name) for name in (b"a", b"b", b"c"))
PA, PB, PC = (each.fingerprint_sha256 for each in (A, B, C))


def published(alias: str = "ca", certificate: Certificate = A, **fields: Any) -> Published:
    values: dict[str, Any] = {"name": f"cert-{alias}", "created": NOW, "zone": "z", **fields}
    return Published(alias=alias, certificate=certificate, **values)


def wanted(
    *certificates: Published, enabled: bool | None = True, now: datetime.datetime = NOW, **remembered: Any
) -> Desired:
    """`remembered`: ownerships, and what was taken back."""
    return keystores.desired("kvm-1", "z", enabled, certificates, now, **remembered)


def owned(*fingerprints: str, placed: bool = True, certificate: str = "cert-ca") -> Owned:
    return Owned(certificate, frozenset(fingerprints), placed)


def put(plan: Plan) -> dict[str, Certificate]:
    return {alias: wish.certificate for alias, wish in plan.put.items()}


def applied(plan: Plan, entries: keystores.Entries) -> dict[str, str | None]:
    left = {alias: fingerprint for alias, fingerprint in entries.items() if alias not in plan.remove}
    return left | {alias: wish.certificate.fingerprint_sha256 for alias, wish in plan.put.items()}


ROTATED = published(certificate=B, previous=Previous(A, LATER))
REVOKED = published(revoked=True)
#: A was taken back
BACK = {("ca", PA): "cert-ca"}
DRIFT_MISSING, DRIFT_REPLACED = Drift(DriftKind.ENTRY_MISSING, "ca"), Drift(DriftKind.ENTRY_REPLACED, "ca")


@dataclasses.dataclass(frozen=True)
class Case:
    desired: Desired
    entries: Mapping[str, str | None]
    ownership: Ownership = dataclasses.field(default_factory=dict)
    put: Mapping[str, Certificate] = dataclasses.field(default_factory=dict)
    remove: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()
    conflicts: tuple[str, ...] = ()
    #: of the one certificate, afterwards
    proof: Proof | None = None


UPLOADED = Proof("cert-ca", "Uploaded", fingerprint=PA)
UPLOADED_B = Proof("cert-ca", "Uploaded", fingerprint=PB)
GONE = Proof("cert-ca", "Revoked")
DISABLED = Proof("cert-ca", "Pending", reason=Reason.ZONE_DISABLED)

CASES = {
    "a new certificate": Case(wanted(published()), {"cloud": None}, put={"ca": A}, proof=UPLOADED),
    "in place": Case(wanted(published()), {"ca": PA}, {"ca": owned(PA)}, proof=UPLOADED),
    "a foreign entry that is the very certificate": Case(wanted(published()), {"ca": PA}, proof=UPLOADED),
    "a foreign entry with other content": Case(wanted(published()), {"ca": PB}, conflicts=("ca",)),
    "a key under the alias": Case(wanted(published()), {"ca": None}, conflicts=("ca",)),
    "a key where our entry was": Case(wanted(published()), {"ca": None}, {"ca": owned(PA)}, conflicts=("ca",)),
    "removed by hand": Case(
        wanted(published()), {}, {"ca": owned(PA)}, put={"ca": A}, drift=(DRIFT_MISSING,), proof=UPLOADED
    ),
    "replaced by hand": Case(
        wanted(published()), {"ca": PC}, {"ca": owned(PA)}, put={"ca": A}, drift=(DRIFT_REPLACED,), proof=UPLOADED
    ),
    "killed between ledger and store": Case(
        wanted(published()), {}, {"ca": owned(PA, placed=False)}, put={"ca": A}, proof=UPLOADED
    ),
    "killed so, and then someone else took the alias": Case(
        wanted(published()), {"ca": PC}, {"ca": owned(PA, placed=False)}, conflicts=("ca",)
    ),
    "killed after the store": Case(wanted(published()), {"ca": PA}, {"ca": owned(PA, placed=False)}, proof=UPLOADED),
    "rotation": Case(
        wanted(ROTATED),
        {"ca": PA},
        {"ca": owned(PA)},
        put={"ca": B, "ca-previous": A},
        proof=UPLOADED_B,
    ),
    "rotation, killed after the store": Case(
        wanted(ROTATED),
        {"ca": PB, "ca-previous": PA},
        {"ca": owned(PA, PB), "ca-previous": owned(PA, placed=False)},
        proof=UPLOADED_B,
    ),
    "rotation, killed before the store, and the wish went on": Case(
        wanted(published(certificate=C)), {"ca": PA}, {"ca": owned(PA, PB)}, put={"ca": C}
    ),
    "rotation with the ledger lost": Case(
        wanted(ROTATED), {"ca": PA}, put={"ca": B, "ca-previous": A}, proof=UPLOADED_B
    ),
    "the previous one has ended": Case(
        wanted(ROTATED, now=LATER),
        {"ca": PB, "ca-previous": PA},
        {"ca": owned(PB), "ca-previous": owned(PA)},
        remove=("ca-previous",),
        proof=UPLOADED_B,
    ),
    "the previous one has ended, the ledger is lost": Case(
        wanted(ROTATED, now=LATER), {"ca": PB, "ca-previous": PA}, remove=("ca-previous",), proof=UPLOADED_B
    ),
    "a foreign entry has the alias of the previous one": Case(
        wanted(ROTATED), {"ca": PA, "ca-previous": PC}, {"ca": owned(PA)}, put={"ca": B}, conflicts=("ca-previous",)
    ),
    "revoked": Case(wanted(REVOKED), {"ca": PA, "x": PA}, {"ca": owned(PA)}, remove=("ca",), proof=GONE),
    "revoked, imported by someone else": Case(wanted(REVOKED), {"ca": PA}, remove=("ca",), proof=GONE),
    "revoked, never there": Case(wanted(REVOKED), {}, proof=GONE),
    "revoked, removed by hand": Case(wanted(REVOKED), {}, {"ca": owned(PA)}, proof=GONE),
    "revoked, and replaced by hand": Case(wanted(REVOKED), {"ca": PC}, {"ca": owned(PA)}, proof=GONE),
    "revoked, and an older one is there": Case(
        wanted(REVOKED), {"ca": PC}, {"ca": owned(PC)}, remove=("ca",), proof=GONE
    ),
    "revoked in a rotation": Case(
        wanted(dataclasses.replace(ROTATED, revoked=True)),
        {"ca": PB, "ca-previous": PA},
        {"ca": owned(PB), "ca-previous": owned(PA)},
        remove=("ca", "ca-previous"),
        proof=GONE,
    ),
    "revoked on this host": Case(
        wanted(published(revoked_hosts=frozenset({"kvm-1"}))), {"ca": PA}, {"ca": owned(PA)}, remove=("ca",), proof=GONE
    ),
    "revoked on another host": Case(
        wanted(published(revoked_hosts=frozenset({"kvm-2"}))), {}, put={"ca": A}, proof=UPLOADED
    ),
    "of another zone": Case(wanted(published(zone="y")), {}),
    "the host or the certificate went to another zone": Case(
        wanted(published(zone="y")), {"ca": PA}, {"ca": owned(PA)}, remove=("ca",)
    ),
    "the object is gone": Case(wanted(), {"ca": PA, "x": PA}, {"ca": owned(PA)}, remove=("ca",)),
    "zone disabled": Case(wanted(published(), enabled=False), {}, proof=DISABLED),
    "zone missing": Case(
        wanted(published(), enabled=None), {}, proof=dataclasses.replace(DISABLED, reason=Reason.ZONE_NOT_FOUND)
    ),
    "zone disabled, in place": Case(wanted(published(), enabled=False), {"ca": PA}, {"ca": owned(PA)}, proof=UPLOADED),
    "zone disabled, no repair": Case(wanted(published(), enabled=False), {}, {"ca": owned(PA)}, proof=DISABLED),
    "zone disabled, no rotation": Case(wanted(ROTATED, enabled=False), {"ca": PA}, {"ca": owned(PA)}, proof=DISABLED),
    "zone disabled, a removal": Case(
        wanted(REVOKED, enabled=False), {"ca": PA}, {"ca": owned(PA)}, remove=("ca",), proof=GONE
    ),
    "zone disabled, the previous one has ended": Case(
        wanted(ROTATED, enabled=False, now=LATER),
        {"ca": PB, "ca-previous": PA},
        {"ca": owned(PB), "ca-previous": owned(PA)},
        remove=("ca-previous",),
        proof=UPLOADED_B,
    ),
    "the host went to a disabled zone that wants the alias for another certificate": Case(
        wanted(published(certificate=B), enabled=False),
        {"ca": PA},
        {"ca": owned(PA, certificate="cert-of-y")},
        remove=("ca",),
        proof=DISABLED,
    ),
    "zone disabled, what is there is not published any more": Case(
        wanted(published(certificate=B), enabled=False), {"ca": PA}, {"ca": owned(PA)}, remove=("ca",), proof=DISABLED
    ),
    "zone disabled, a foreign entry has the alias": Case(
        wanted(published(certificate=B), enabled=False), {"ca": PC}, {"ca": owned(PA)}, proof=DISABLED
    ),
    "another object has the alias, as the older one is gone": Case(
        wanted(published(certificate=B), taken=BACK),
        {"ca": PA},
        {"ca": owned(PA, certificate="gone")},
        put={"ca": B},
        proof=UPLOADED_B,
    ),
    "taken back, and restored from a backup": Case(
        wanted(taken=BACK), {"ca": PA, "ca-previous": PA, "x": PA, "cb": PB}, remove=("ca", "ca-previous")
    ),
    "taken back, and something else is there": Case(wanted(taken=BACK), {"ca": PB, "ca-previous": None}),
    "taken back, and uploaded again": Case(wanted(published(), taken=BACK), {"ca": PA}, proof=UPLOADED),
    "taken back, another one uploaded": Case(wanted(ROTATED, taken=BACK), {}, put={"ca": B}, proof=UPLOADED_B),
    "taken back, another one uploaded, a key under the alias of the previous one": Case(
        wanted(ROTATED, taken=BACK), {"ca-previous": None}, put={"ca": B}, proof=UPLOADED_B
    ),
    "taken back, another one uploaded, and then restored": Case(
        wanted(ROTATED, taken=BACK),
        {"ca": PA, "ca-previous": PA},
        {"ca": owned(PB)},
        put={"ca": B},
        remove=("ca-previous",),
        drift=(DRIFT_REPLACED,),
        proof=UPLOADED_B,
    ),
    "taken back, restored in a disabled zone": Case(
        wanted(ROTATED, enabled=False, taken=BACK), {"ca": PA, "cb": PA}, remove=("ca",), proof=DISABLED
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_plan(case: Case) -> None:
    plan = keystores.plan(case.desired, case.ownership, case.entries)
    assert put(plan) == case.put
    assert tuple(plan.remove) == case.remove
    assert plan.drift == case.drift
    assert plan.conflicts == set(case.conflicts)
    after = applied(plan, case.entries)
    settled = keystores.plan(case.desired, plan.ownership, after)
    assert not settled.changes
    assert not settled.drift
    if case.proof is not None:
        assert keystores.proofs(case.desired, settled, after) == (case.proof,)
    if case.conflicts:
        (proof,) = keystores.proofs(case.desired, settled, after)
        assert (proof.state, proof.reason) == ("Failed", Reason.ALIAS_CONFLICT)
        assert case.conflicts[0] in (proof.message or "")


def test_what_is_about_to_be_put_stands_in_the_ledger_before_and_alone_after() -> None:
    desired = wanted(ROTATED)
    plan = keystores.plan(desired, {"ca": owned(PA)}, {"ca": PA})
    assert plan.ownership == {"ca": owned(PA, PB), "ca-previous": owned(PA, placed=False)}
    assert keystores.plan(desired, plan.ownership, applied(plan, {"ca": PA})).ownership == {
        "ca": owned(PB),
        "ca-previous": owned(PA),
    }


def test_what_is_removed_stays_in_the_ledger_until_it_is_gone() -> None:
    for ownership in ({"ca": owned(PA)}, {}):
        plan = keystores.plan(wanted(REVOKED), ownership, {"ca": PA})
        assert plan.ownership == {"ca": owned(PA, placed=False)}
        # killed after the store, and wanted again: that it is not there is our doing
        assert keystores.plan(wanted(published()), plan.ownership, {}).drift == ()
        assert keystores.plan(wanted(REVOKED), plan.ownership, {}).ownership == {}


#: What the cluster says, what the ownership has, and what is remembered of it.
TAKEN_BACK: Mapping[str, tuple[tuple[Published, ...], Ownership, set[str]]] = {
    "in place": ((published(),), {"ca": owned(PA)}, set()),
    "revoked": ((REVOKED,), {"ca": owned(PA)}, {PA}),
    "revoked on this host, where it never was": ((published(revoked_hosts=frozenset({"kvm-1"})),), {}, {PA}),
    "revoked on another host": ((published(revoked_hosts=frozenset({"kvm-2"})),), {}, set()),
    "revoked in a rotation": ((dataclasses.replace(ROTATED, revoked=True),), {}, {PA, PB}),
    "the object is gone": ((), {"ca": owned(PB), "ca-previous": owned(PA)}, {PA, PB}),
    "the object is of another zone": ((published(zone="y"),), {"ca": owned(PA)}, {PA}),
    "another object has the alias": ((published(certificate=B),), {"ca": owned(PA, certificate="gone")}, {PA}),
    "another object has the alias and keeps it": ((ROTATED,), {"ca": owned(PA, certificate="gone")}, set()),
    "rotation": ((ROTATED,), {"ca": owned(PA)}, set()),
    "rotation, the previous one has ended": ((published(certificate=B),), {"ca": owned(PA, PB)}, set()),
}


@pytest.mark.parametrize("case", TAKEN_BACK.values(), ids=TAKEN_BACK.keys())
def test_what_is_revoked_deleted_or_left_with_its_zone_is_remembered(
    case: tuple[tuple[Published, ...], Ownership, set[str]],
) -> None:
    certificates, ownership, fingerprints = case
    taken = wanted(*certificates, ownerships=[{}, ownership]).taken
    assert set(taken) == {("ca", fingerprint) for fingerprint in fingerprints}
    assert wanted(*certificates, taken=taken).taken == taken
    assert wanted(published(), taken=taken).taken.keys() == taken.keys() - {("ca", PA)}, "current again: forgotten"


def test_revoked_and_then_another_uploaded_the_revoked_one_does_not_come_back_as_the_previous() -> None:
    revoked = wanted(REVOKED, ownerships=[{"ca": owned(PA)}])
    rotated = wanted(ROTATED, taken=revoked.taken)
    assert put(keystores.plan(rotated, {}, {})) == {"ca": B}
    assert rotated.until is None
    assert keystores.distrusted(rotated, {}) == {PA}
    late = wanted(ROTATED)
    assert put(keystores.plan(late, {}, {})) == {"ca": B, "ca-previous": A}, "a host that comes late"
    again = wanted(ROTATED, taken=wanted(published(), taken=revoked.taken).taken)
    assert put(keystores.plan(again, {}, {})) == {"ca": B, "ca-previous": A}, "it was trusted again in between"


def test_what_was_taken_back_waits_for_the_controller_to_look() -> None:
    taken = wanted(REVOKED).taken
    unseen = wanted(published(settled=False), taken=taken)
    assert not keystores.plan(unseen, {}, {}).changes
    assert unseen.taken == taken
    assert keystores.proofs(unseen, keystores.plan(unseen, {}, {}), {})[0].state == "Revoked"
    assert put(keystores.plan(wanted(published(), taken=taken), {}, {})) == {"ca": A}
    assert put(keystores.plan(wanted(published(settled=False)), {}, {})) == {"ca": A}, "a host that comes late"


def test_what_was_taken_back_is_bounded_and_the_oldest_goes_first() -> None:
    many = {("cz", str(number)): "old" for number in range(keystores.TAKEN_LIMIT)}
    taken = wanted(ownerships=[{"ca": owned(PA)}], taken=many).taken
    assert list(taken) == [*list(many)[1:], ("ca", PA)]


def test_what_is_missing_in_a_disabled_zone_is_drift_once_that_is_enabled() -> None:
    held = keystores.plan(wanted(published(), enabled=False), {"ca": owned(PA)}, {})
    assert keystores.plan(wanted(published()), held.ownership, {}).drift == (DRIFT_MISSING,)


def test_a_store_that_is_gone_is_one_drift() -> None:
    desired = wanted(published(), published("cb", B))
    plan = keystores.plan(desired, {"ca": owned(PA), "cb": owned(PB)}, {}, missing=True)
    assert plan.drift == (Drift(DriftKind.STORE_MISSING),)
    assert put(plan) == {"ca": A, "cb": B}
    assert keystores.plan(desired, {}, {}, missing=True).drift == (), "it never was there"


def test_of_two_objects_with_one_alias_the_older_has_it() -> None:
    older, younger = published(name="older"), published(name="a-younger", certificate=B, created=LATER)
    desired = wanted(younger, older)
    plan = keystores.plan(desired, {}, {})
    assert put(plan) == {"ca": A}
    after = applied(plan, {})
    failed, uploaded = keystores.proofs(desired, keystores.plan(desired, plan.ownership, after), after)
    assert (failed.name, failed.state, failed.reason) == ("a-younger", "Failed", Reason.ALIAS_CONFLICT)
    assert "older" in (failed.message or "")
    assert (uploaded.name, uploaded.state) == ("older", "Uploaded")
    # once the older one is revoked, the alias is free
    assert put(keystores.plan(wanted(younger, dataclasses.replace(older, revoked=True)), {}, {})) == {"ca": B}


def test_wishes_change_by_themselves_when_the_first_previous_certificate_ends() -> None:
    sooner = published("cb", B, previous=Previous(C, NOW + datetime.timedelta(minutes=1)))
    assert wanted(ROTATED, sooner).until == NOW + datetime.timedelta(minutes=1)
    assert wanted(ROTATED, sooner, now=LATER).until is None
    assert wanted(dataclasses.replace(ROTATED, revoked=True)).until is None


def test_when_the_store_fails_nothing_is_proven_and_what_is_not_wanted_is_not_trusted() -> None:
    desired = wanted(published(), published("cb", B, revoked=True))
    assert keystores.failed(desired, Reason.KEYSTORE_UNREADABLE) == (
        Proof("cert-ca", "Failed", reason=Reason.KEYSTORE_UNREADABLE),
        Proof("cert-cb", "Failed", reason=Reason.KEYSTORE_UNREADABLE),
    )
    assert keystores.distrusted(desired, {"cc": owned(PC), "ca": owned(PA)}) == {PB, PC}


FINGERPRINTS = [Certificate(bytes([number])) for number in range(4)]
ALIASES = ("a", "b", "a-previous", "b-previous", "cloud")
_certificates = strategies.sampled_from(FINGERPRINTS)
_fingerprints = _certificates.map(lambda each: each.fingerprint_sha256)
_published = strategies.builds(
    Published,
    name=strategies.sampled_from(["one", "two", "three"]),
    created=strategies.sampled_from([NOW, LATER]),
    zone=strategies.sampled_from(["z", "y"]),
    alias=strategies.sampled_from(["a", "b"]),
    certificate=_certificates,
    previous=strategies.none() | strategies.builds(Previous, _certificates, strategies.sampled_from([NOW, LATER])),
    revoked=strategies.booleans(),
    revoked_hosts=strategies.sampled_from([frozenset(), frozenset({"kvm-1"})]),
)
_ownership: strategies.SearchStrategy[Ownership] = strategies.dictionaries(
    strategies.sampled_from(ALIASES),
    strategies.builds(
        Owned,
        strategies.sampled_from(["one", "gone"]),
        strategies.frozensets(_fingerprints, max_size=2),
        strategies.booleans(),
    ),
)
_entries = strategies.dictionaries(strategies.sampled_from(ALIASES), strategies.none() | _fingerprints)
_taken = strategies.dictionaries(
    strategies.tuples(strategies.sampled_from(["a", "b"]), _fingerprints), strategies.just("gone"), max_size=4
)


@strategies.composite
def _situations(draw: strategies.DrawFn) -> tuple[Desired, Ownership]:
    ownership = draw(_ownership)
    certificates = draw(strategies.lists(_published, unique_by=lambda each: each.name, max_size=3))
    enabled = draw(strategies.sampled_from([True, False, None]))
    return wanted(*certificates, enabled=enabled, ownerships=[ownership], taken=draw(_taken)), ownership


@hypothesis.given(_situations(), _entries)
def test_foreign_entries_are_never_changed(situation: tuple[Desired, Ownership], entries: keystores.Entries) -> None:
    desired, ownership = situation
    plan = keystores.plan(desired, ownership, entries)
    for alias in {*plan.put, *plan.remove} & entries.keys():
        found = entries[alias]
        assert found is not None, "a key"
        owner = ownership.get(alias)
        of_ours = {f for each in desired.published if alias in each.aliases for f in each.fingerprints}
        in_ledger = owner is not None and (found in owner.fingerprints or (owner.placed and alias in plan.put))
        was_ours = (alias.removesuffix("-previous"), found) in desired.taken
        assert in_ledger or found in of_ours or was_ours


@hypothesis.given(_situations(), _entries, strategies.booleans())
def test_a_plan_made_again_changes_nothing_whether_or_not_it_was_applied_whole(
    situation: tuple[Desired, Ownership], entries: keystores.Entries, interrupted: bool
) -> None:
    desired, ownership = situation
    plan = keystores.plan(desired, ownership, entries)
    if interrupted:
        # the ledger is on disk, the store is not written
        again = keystores.plan(desired, plan.ownership, entries)
        assert (again.put, again.remove) == (plan.put, plan.remove)
        plan = again
    after = applied(plan, entries)
    settled = keystores.plan(desired, plan.ownership, after)
    assert not settled.changes
    assert not settled.drift
    assert settled.ownership == keystores.plan(desired, settled.ownership, after).ownership
    for proof, certificate in zip(keystores.proofs(desired, settled, after), desired.published, strict=True):
        assert proof.name == certificate.name
        if proof.state == "Uploaded":
            assert after[certificate.alias] == proof.fingerprint == certificate.certificate.fingerprint_sha256
            assert not certificate.revoked_on("kvm-1")
        if proof.state == "Pending":
            assert proof.reason is desired.held is not None
    # what an object does not want any more is not left behind, and what was taken back does not come back
    for alias, fingerprint in after.items():
        if fingerprint is None:
            continue
        assert (alias.removesuffix("-previous"), fingerprint) not in desired.taken
        if alias in ownership and fingerprint in ownership[alias].fingerprints:
            assert alias in desired.wishes
            assert fingerprint in desired.known[alias].fingerprints
    later = wanted(*desired.published, ownerships=[settled.ownership], taken=desired.taken)
    assert (later.wishes, later.taken) == (desired.wishes, desired.taken), "a restart forgets nothing"


@hypothesis.given(_situations(), _entries, strategies.frozensets(_fingerprints, max_size=2), strategies.booleans())
def test_with_certificates_that_cannot_be_read_a_plan_of_its_own_result_changes_nothing(
    situation: tuple[Desired, Ownership], entries: keystores.Entries, flawed: frozenset[str], adopted: bool
) -> None:
    """`flawed`: fingerprints that Java cannot read."""
    plain, owned_before = situation
    before = {alias: dataclasses.replace(each, adopted=adopted) for alias, each in owned_before.items()}
    certificates = [dataclasses.replace(each, flaws=dict.fromkeys(flawed, "a flaw")) for each in plain.published]
    desired = wanted(*certificates, ownerships=[before], taken=plain.taken, unread={"two", "gone"})

    def planned(ownership: Ownership, found: keystores.Entries) -> Plan:
        aliases = {alias for alias, fingerprint in found.items() if fingerprint in flawed}
        return keystores.plan(desired, ownership, found, flawed=aliases)

    plan = planned(before, entries)
    after = applied(plan, entries)
    settled = planned(plan.ownership, after)
    assert not settled.changes
    assert not settled.drift
    assert planned(settled.ownership, after) == settled
