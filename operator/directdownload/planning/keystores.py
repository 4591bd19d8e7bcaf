"""What one host's keystore should hold of our certificates, and what to change in it. Pure.

Called by the agent: `desired` from the state of the cluster, `plan` against the entries found, and after the write once
more against the entries read back, then `proofs`. Planned again after its changes, a plan changes nothing.

Ownership: a trusted certificate is ours if we own its alias with its fingerprint, or if it is exactly what a published
certificate puts under that alias (CloudStack imported it, or the ownership was lost): such an entry is adopted.
If our entry had been read back, another trusted certificate under its alias was put there by hand and is replaced.
Every other entry is foreign: never changed, never removed; a wish that needs its alias fails.

A keystore must not hold what Java cannot read: Java then opens none of the entries. A published certificate that Java
cannot read is no wish. If we imported it, it is removed and remembered like a withdrawn one. If we only adopted it, it
is left and reported.

A certificate that was withdrawn from this host (revoked, deleted, or its host left the zone) is remembered by alias. If
it is found there again, from a backup of the store, it is ours and is removed; it also does not come back as the
previous one of a certificate. Both end when a certificate wants it as its current one.
"""

import dataclasses
import datetime
from collections.abc import Container, Iterable, Mapping, Set
from types import MappingProxyType
from typing import Literal

from directdownload.resources.certificate import PREVIOUS_SUFFIX
from directdownload.resources.host import DriftKind
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

#: By alias: SHA-256 fingerprint of a trusted certificate; None: anything else, such as a key.
Entries = Mapping[str, str | None]
#: Certificates withdrawn from a host, oldest first: the name of the certificate, by alias (never the previous one) and
#: fingerprint.
Taken = Mapping[tuple[str, str], str]
#: Two for each of the 5000 certificates that a zone may have: all of them can be revoked and stay remembered.
TAKEN_LIMIT = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Previous:
    """The certificate before the last change, and when its trust ends."""

    certificate: Certificate
    until: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """A DirectDownloadCertificate as hosts see it: what its status publishes, and the hosts it is withdrawn from."""

    name: str
    created: datetime.datetime
    zone: str
    #: in lower case
    alias: str
    certificate: Certificate
    previous: Previous | None = None
    #: on all hosts: revoked, or being deleted
    revoked: bool = False
    revoked_hosts: Set[str] = frozenset()
    #: the controller has observed the object's present generation
    settled: bool = True
    #: by fingerprint: why Java cannot read it, nor a keystore that holds it
    flaws: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def readable(self) -> frozenset[str]:
        """Fingerprints that Java can read: hosts may be asked to hold only these."""
        return self.fingerprints - self.flaws.keys()

    def revoked_on(self, host: str) -> bool:
        return self.revoked or host in self.revoked_hosts

    @property
    def key(self) -> tuple[str, str]:
        """The key in `Taken`."""
        return self.alias, self.certificate.fingerprint_sha256

    @property
    def aliases(self) -> tuple[str, str]:
        return self.alias, self.alias + PREVIOUS_SUFFIX

    @property
    def fingerprints(self) -> frozenset[str]:
        before = {self.previous.certificate.fingerprint_sha256} if self.previous is not None else set()
        return frozenset({self.certificate.fingerprint_sha256} | before)


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """`certificate` is to be under an alias, for the DirectDownloadCertificate `name`."""

    name: str
    certificate: Certificate


@dataclasses.dataclass(frozen=True, slots=True)
class Desired:
    """The certificates of ours that the keystore of one host is to hold."""

    host: str
    #: the certificates of the host's zone, by name
    published: tuple[Published, ...]
    #: by alias
    wishes: Mapping[str, Wish]
    #: by alias: name of the certificate that has it, whether or not it can be wished
    holders: Mapping[str, str]
    #: names of certificates that exist and cannot be read: entries made for them stay
    unread: Set[str]
    #: by alias: certificates that we may have put there, wanted or not, including those of a rotation not yet done
    known: Mapping[str, "Owned"]
    #: to be on disk before anything is changed
    taken: Taken
    #: why nothing is to be added, repaired or rotated; None: no reason
    held: Reason | None
    #: when the wishes change by themselves
    until: datetime.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Owned:
    """Our knowledge of an alias of ours: the fingerprints that we put there, adopted, or are about to put there."""

    #: name of the DirectDownloadCertificate
    certificate: str
    fingerprints: frozenset[str]
    #: one of them was read back from the store, and has not been due for removal since
    placed: bool = False
    #: found there and never imported by us; entries adopted by a version before 0.2 count as imported
    adopted: bool = False


#: By alias, of one store.
Ownership = Mapping[str, Owned]


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """A change that someone else made to our entries; `alias` is empty if the whole store is gone."""

    kind: DriftKind
    alias: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    put: Mapping[str, Wish]
    #: aliases, with the name of the certificate that each was for
    remove: Mapping[str, str]
    #: to be on disk before the changes are made: then an interruption leaves no entry without an owner
    ownership: Ownership
    #: aliases that are wanted and held by foreign entries
    conflicts: frozenset[str]
    #: the drift that the changes repair
    drift: tuple[Drift, ...]

    @property
    def changes(self) -> bool:
        return bool(self.put or self.remove)


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """The state of one certificate on this host; see `resources.host.HostCertificate`."""

    name: str
    state: Literal["Uploaded", "Revoked", "Failed", "Pending"]
    #: as read back
    fingerprint: str | None = None
    reason: Reason | None = None
    message: str | None = None


def desired(
    host: str,
    zone: str,
    enabled: bool | None,
    published: Iterable[Published],
    now: datetime.datetime,
    *,
    ownerships: Iterable[Ownership] = (),
    taken: Taken = MappingProxyType({}),
    unread: Set[str] = frozenset(),
) -> Desired:
    """`enabled` is the Zone's; None: there is no such Zone. `ownerships` of all stores; `taken` as of the last time;
    `unread`: names of certificates that exist and cannot be read.

    If two objects want the same alias, the older one has it.
    """
    of_zone = sorted((each for each in published if each.zone == zone), key=lambda each: each.name)
    # A withdrawal waits for the controller: the same change may have asked for a replacement.
    mine = [
        each if each.settled or each.key not in taken else dataclasses.replace(each, revoked=True) for each in of_zone
    ]
    holders: dict[str, Published] = {}
    for each in sorted(mine, key=lambda each: (each.created, each.name)):
        if not each.revoked_on(host):
            holders.setdefault(each.alias, each)
    taken = _taken(taken, [each for each in mine if each.revoked_on(host)], ownerships, holders, unread)
    wishes: dict[str, Wish] = {}
    ends: list[datetime.datetime] = []
    for alias, each in holders.items():
        if each.certificate.fingerprint_sha256 in each.readable:
            wishes[alias] = Wish(each.name, each.certificate)
        before = each.previous
        if before is None or now >= before.until or before.certificate == each.certificate:
            continue
        fingerprint = before.certificate.fingerprint_sha256
        if fingerprint in each.readable and (alias, fingerprint) not in taken:
            wishes[alias + PREVIOUS_SUFFIX] = Wish(each.name, before.certificate)
            ends.append(before.until)
    held = None if enabled else Reason.ZONE_NOT_FOUND if enabled is None else Reason.ZONE_DISABLED
    owners = {alias: each.name for alias, each in holders.items()}
    known = _known(mine, host)
    return Desired(host, tuple(mine), wishes, owners, unread, known, taken, held, min(ends, default=None))


def nothing(host: str) -> Desired:
    """For a store that the host no longer uses."""
    return Desired(host, (), {}, {}, frozenset(), {}, {}, None, None)


def plan(
    wanted: Desired, ownership: Ownership, entries: Entries, *, missing: bool = False, flawed: Container[str] = ()
) -> Plan:
    """`missing`: there is no store, so `entries` is empty. `flawed`: aliases of entries that Java cannot read."""
    draft = _Draft(wanted, ownership, entries, flawed)
    for settle in (_leave_unread, _remove_unwished, _keep_present, _put_missing):
        settle(draft)
    drift = (Drift(DriftKind.STORE_MISSING),) if missing and draft.drift else tuple(draft.drift)
    return Plan(draft.put, draft.remove, dict(sorted(draft.owned.items())), frozenset(draft.conflicts), drift)


def proofs(wanted: Desired, settled: Plan, entries: Entries, unopened: str = "") -> tuple[Proof, ...]:
    """For each published certificate, by name; `settled` is a plan for these `entries` that changes nothing.

    `unopened`: why Java opens no entry of the store; then none of its entries proves anything.
    """
    found = [_proof(each, wanted, settled, entries) for each in wanted.published]
    if unopened:
        unproved = Proof("", "Failed", reason=Reason.KEYSTORE_UNREADABLE, message=unopened)
        found = [dataclasses.replace(unproved, name=p.name) if p.state == "Uploaded" else p for p in found]
    return tuple(found)


def failed(wanted: Desired, reason: Reason) -> tuple[Proof, ...]:
    """The same if the store as a whole could not be read or written: nothing is proved, not even an absence."""
    return tuple(Proof(each.name, "Failed", reason=reason) for each in wanted.published)


def distrusted(wanted: Desired, ownership: Ownership) -> frozenset[str]:
    """Fingerprints of ours that are not wanted (any more), wherever they still are."""
    ours = [*ownership.values(), *wanted.known.values()]
    wished = {wish.certificate.fingerprint_sha256 for wish in wanted.wishes.values()}
    return frozenset().union(*(each.fingerprints for each in ours)) - wished


class _Draft:
    """A plan in the making, and the aliases `open` that no pass has settled yet."""

    def __init__(self, wanted: Desired, ownership: Ownership, entries: Entries, flawed: Container[str]) -> None:
        self.wanted, self.ownership, self.entries = wanted, ownership, entries
        self.trusted = {alias: entry for alias, entry in entries.items() if entry is not None}
        found = ((alias, (alias.removesuffix(PREVIOUS_SUFFIX), entry)) for alias, entry in self.trusted.items())
        #: aliases that hold a withdrawn certificate again, with the name of that certificate
        self.back = {alias: wanted.taken[key] for alias, key in found if key in wanted.taken}
        asked_for = {alias for alias, each in wanted.known.items() if self.trusted.get(alias) in each.fingerprints}
        self.published = asked_for - self.back.keys()
        imported = {alias for alias, each in ownership.items() if self.trusted.get(alias) in each.fingerprints}
        self.ours = self.published | self.back.keys() | imported
        #: owned, not readable to Java, and asked for by no certificate
        self.flawed = {alias for alias in ownership if alias in flawed} - asked_for
        self.open = wanted.wishes.keys() | ownership.keys() | self.ours
        self.put: dict[str, Wish] = {}
        self.remove: dict[str, str] = {}
        self.owned: dict[str, Owned] = {}
        self.conflicts: set[str] = set()
        self.drift: list[Drift] = []

    def settle(self, alias: str, owned: Owned | None) -> None:
        self.open.discard(alias)
        if owned is not None:
            self.owned[alias] = owned


def _leave_unread(draft: _Draft) -> None:
    """An entry whose certificate nobody can read now stays, as does one that Java cannot read and we only adopted."""
    for alias in draft.ownership.keys() - draft.wanted.wishes.keys():
        owned = draft.ownership[alias]
        if owned.certificate in draft.wanted.unread or (owned.adopted and alias in draft.flawed):
            draft.settle(alias, owned)


def _remove_unwished(draft: _Draft) -> None:
    """What is ours and not wished goes; if no wish may be fulfilled, so does what is not published any more."""
    wished = draft.wanted.wishes.keys()
    staying = wished if draft.wanted.held is None else wished & draft.published
    for alias in sorted((draft.open & draft.ours) - staying):
        name = draft.back.get(alias) or draft.wanted.known.get(alias, _NONE).certificate
        owned = draft.ownership.get(alias, Owned(name, frozenset()))
        draft.remove[alias] = owned.certificate
        # No longer placed: if it is wanted again after an interruption, its absence is no drift.
        draft.settle(alias, Owned(owned.certificate, owned.fingerprints | {draft.trusted[alias]}))
    draft.open &= wished


def _keep_present(draft: _Draft) -> None:
    """What is wished and there is ours from now on; if no wish may be fulfilled, the others wait."""
    for alias in sorted(draft.open):
        wish, owned = draft.wanted.wishes[alias], draft.ownership.get(alias)
        fingerprint = wish.certificate.fingerprint_sha256
        if draft.trusted.get(alias) == fingerprint:
            adopted = owned is None or owned.adopted
            draft.settle(alias, Owned(wish.name, frozenset({fingerprint}), placed=True, adopted=adopted))
        elif draft.wanted.held is not None:
            draft.settle(alias, owned)


def _put_missing(draft: _Draft) -> None:
    """What is wished and not there is put, unless a foreign entry has its alias."""
    for alias in sorted(draft.open):
        wish, owned = draft.wanted.wishes[alias], draft.ownership.get(alias, _NONE)
        found, there = draft.trusted.get(alias), alias in draft.entries
        before = {found} if found is not None and alias in draft.ours else set()
        if there and not before and (found is None or not owned.placed):
            draft.conflicts.add(alias)
            continue
        draft.put[alias] = wish
        fingerprints = owned.fingerprints | before | {wish.certificate.fingerprint_sha256}
        draft.settle(alias, Owned(wish.name, fingerprints, placed=owned.placed))
        if owned.placed and alias not in draft.published and found not in owned.fingerprints:
            draft.drift.append(Drift(DriftKind.ENTRY_REPLACED if there else DriftKind.ENTRY_MISSING, alias))


_NONE = Owned("", frozenset())


def _taken(
    taken: Taken,
    revoked: Iterable[Published],
    ownerships: Iterable[Ownership],
    holders: Mapping[str, Published],
    unread: Set[str],
) -> Taken:
    """`taken` plus what is revoked, and what is owned for a certificate that does not hold its alias (any more) or
    that Java cannot read."""
    back = {(each.alias, fingerprint): each.name for each in revoked for fingerprint in each.fingerprints}
    for alias, owned in (item for ownership in ownerships for item in ownership.items()):
        base, holder = alias.removesuffix(PREVIOUS_SUFFIX), holders.get(alias.removesuffix(PREVIOUS_SUFFIX))
        if owned.certificate in unread:
            continue
        gone = owned.fingerprints
        if holder is not None and holder.name == owned.certificate:
            gone = frozenset() if owned.adopted else owned.fingerprints & (holder.fingerprints - holder.readable)
        back |= {(base, fingerprint): owned.certificate for fingerprint in gone}
    # A certificate that another object wants there now is not withdrawn, and neither is its previous one.
    wanted = {(alias, fingerprint) for alias, each in holders.items() for fingerprint in each.readable}
    current = {each.key for each in holders.values() if each.certificate.fingerprint_sha256 in each.readable}
    fresh = {key: back[key] for key in sorted(back) if key not in wanted and key not in taken}
    all_taken = [(key, name) for key, name in (*taken.items(), *fresh.items()) if key not in current]
    return dict(all_taken[-TAKEN_LIMIT:])


def _known(published: Iterable[Published], host: str) -> Mapping[str, Owned]:
    names: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for each in published:
        # Java cannot read it: it is removed only if it is revoked or we imported it.
        fingerprints = each.fingerprints if each.revoked_on(host) else each.readable
        for alias in each.aliases:
            names[alias] = each.name
            found.setdefault(alias, set()).update(fingerprints)
    return {alias: Owned(name, frozenset(found[alias])) for alias, name in names.items()}


def _proof(each: Published, wanted: Desired, settled: Plan, entries: Entries) -> Proof:
    fingerprint = each.certificate.fingerprint_sha256
    if each.revoked_on(wanted.host) and not any(entries.get(alias) in each.fingerprints for alias in each.aliases):
        return Proof(each.name, "Revoked")
    holder = wanted.holders.get(each.alias)
    if holder is not None and holder != each.name:
        message = f"alias {each.alias} belongs to DirectDownloadCertificate {holder}: expected an alias of its own"
        return Proof(each.name, "Failed", reason=Reason.ALIAS_CONFLICT, message=message)
    if not each.revoked_on(wanted.host) and (flaw := each.flaws.get(fingerprint)) is not None:
        return Proof(each.name, "Failed", reason=Reason.INVALID_CERTIFICATE, message=flaw)
    if taken := sorted(settled.conflicts.intersection(each.aliases)):
        message = (
            f"alias {taken[0]} is held by an entry that the agent did not import and leaves alone: rename or remove "
            "that entry, or choose another alias"
        )
        return Proof(each.name, "Failed", reason=Reason.ALIAS_CONFLICT, message=message)
    if entries.get(each.alias) == fingerprint:
        return Proof(each.name, "Uploaded", fingerprint=fingerprint)
    return Proof(each.name, "Pending", reason=wanted.held)
