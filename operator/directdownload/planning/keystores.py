"""What one host's keystore should hold of our certificates, and what to change in it. Pure.

Called by the agent: `desired` from what the cluster says, `plan` against the entries found, and after the write once
more against the entries read back, then `proofs`. A plan made again after its changes changes nothing.

Whose an entry is: a trusted certificate is ours if its alias stands in the ledger with its fingerprint, or if it is
just what a published certificate puts under that alias (imported by CloudStack, or before the ledger was lost): such a
one is adopted. Where our entry had been read back, another trusted certificate under its alias was put there by hand
and is replaced. Everything else is foreign: never changed, never removed; a wish that needs its alias fails.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Set
from typing import Literal

from directdownload.resources.certificate import PREVIOUS_SUFFIX
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

DriftKind = Literal["EntryMissing", "EntryReplaced", "StoreMissing"]
#: By alias: SHA-256 fingerprint of a trusted certificate; None: anything else, a key for one.
Entries = Mapping[str, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Previous:
    """The certificate before the last change, and when it ends to be trusted."""

    certificate: Certificate
    until: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """A DirectDownloadCertificate as hosts see it: what its status publishes, and who shall not have it."""

    name: str
    created: datetime.datetime
    zone: str
    #: lower-cased
    alias: str
    certificate: Certificate
    previous: Previous | None = None
    #: from all hosts: revoked, or being deleted
    revoked: bool = False
    revoked_hosts: Set[str] = frozenset()

    def revoked_on(self, host: str) -> bool:
        return self.revoked or host in self.revoked_hosts

    @property
    def aliases(self) -> tuple[str, str]:
        return self.alias, self.alias + PREVIOUS_SUFFIX

    @property
    def fingerprints(self) -> frozenset[str]:
        before = {self.previous.certificate.fingerprint_sha256} if self.previous is not None else set()
        return frozenset({self.certificate.fingerprint_sha256} | before)


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """`certificate` shall be under an alias, for the DirectDownloadCertificate `name`."""

    name: str
    certificate: Certificate


@dataclasses.dataclass(frozen=True, slots=True)
class Desired:
    """What the keystore of one host shall hold of ours."""

    host: str
    #: those of the host's zone, by name
    published: tuple[Published, ...]
    #: by alias
    wishes: Mapping[str, Wish]
    #: by alias: what they may have put there, wanted or not; a certificate also where a rotation was to put the other
    known: Mapping[str, "Owned"]
    #: why nothing is to be added, repaired or rotated; None: it is
    held: Reason | None
    #: when the wishes change by themselves
    until: datetime.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Owned:
    """What is known of an alias of ours: fingerprints that we put there, adopted, or are about to put there."""

    #: name of the DirectDownloadCertificate
    certificate: str
    fingerprints: frozenset[str]
    #: one of them was read back from the store, and nobody was to remove it since
    placed: bool = False


#: By alias, of one store.
Ledger = Mapping[str, Owned]


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """What someone else did to our entries; `alias` is empty where the whole store is gone."""

    kind: DriftKind
    alias: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    put: Mapping[str, Wish]
    #: aliases, with the name of the certificate that each was for
    remove: Mapping[str, str]
    #: to be on disk before the changes are made: an interruption then leaves nothing that nobody owns
    ledger: Ledger
    #: aliases that are wanted and held by foreign entries
    conflicts: frozenset[str]
    #: what the changes repair
    drift: tuple[Drift, ...]

    @property
    def changes(self) -> bool:
        return bool(self.put or self.remove)


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """What became of one certificate on this host; see `resources.host.HostCertificate`."""

    name: str
    state: Literal["Uploaded", "Revoked", "Failed", "Pending"]
    #: as read back
    fingerprint: str | None = None
    reason: Reason | None = None
    message: str | None = None


def desired(
    host: str, zone: str, enabled: bool | None, published: Iterable[Published], now: datetime.datetime
) -> Desired:
    """`enabled` is the Zone's; None: there is no such Zone.

    Of two objects that want the same alias the older one has it.
    """
    mine = sorted((each for each in published if each.zone == zone), key=lambda each: each.name)
    wishes: dict[str, Wish] = {}
    ends: list[datetime.datetime] = []
    for each in sorted(mine, key=lambda each: (each.created, each.name)):
        alias, previous_alias = each.aliases
        if each.revoked_on(host) or alias in wishes:
            continue
        wishes[alias] = Wish(each.name, each.certificate)
        before = each.previous
        if before is not None and now < before.until and before.certificate != each.certificate:
            wishes[previous_alias] = Wish(each.name, before.certificate)
            ends.append(before.until)
    held = None if enabled else Reason.ZONE_NOT_FOUND if enabled is None else Reason.ZONE_DISABLED
    return Desired(host, tuple(mine), wishes, _known(mine), held, min(ends, default=None))


def nothing(host: str) -> Desired:
    """For a store that the host does not use any more."""
    return Desired(host, (), {}, {}, None, None)


def plan(wanted: Desired, ledger: Ledger, entries: Entries, *, missing: bool = False) -> Plan:
    """`missing`: there is no store, so `entries` is empty."""
    put: dict[str, Wish] = {}
    remove: dict[str, str] = {}
    kept: dict[str, Owned] = {}
    conflicts: set[str] = set()
    drift: list[Drift] = []
    known = wanted.known
    for alias in sorted(wanted.wishes.keys() | known.keys() | ledger.keys()):
        wish, owned, found = wanted.wishes.get(alias), ledger.get(alias), entries.get(alias)
        imported = owned.fingerprints if owned is not None else frozenset()
        ours = found is not None and found in imported | known.get(alias, _NONE).fingerprints
        if wish is None:
            if ours and found is not None:
                owner = owned or known[alias]
                remove[alias] = owner.certificate
                # not placed any more: should it be wanted again after an interruption, its absence is no drift
                kept[alias] = Owned(owner.certificate, imported | {found})
            continue
        fingerprint = wish.certificate.fingerprint_sha256
        was_placed = owned is not None and owned.placed
        if found == fingerprint:
            kept[alias] = Owned(wish.name, frozenset({fingerprint}), placed=True)
        elif wanted.held is not None:
            if owned is not None:
                kept[alias] = owned
        elif alias in entries and (found is None or not (ours or was_placed)):
            conflicts.add(alias)
        else:
            put[alias] = wish
            before = frozenset({found}) if ours and found is not None else frozenset()
            kept[alias] = Owned(wish.name, imported | before | {fingerprint}, placed=was_placed)
            if was_placed and not ours:
                drift.append(Drift("EntryReplaced" if alias in entries else "EntryMissing", alias))
    if missing and drift:
        drift = [Drift("StoreMissing")]
    return Plan(put, remove, kept, frozenset(conflicts), tuple(drift))


def proofs(wanted: Desired, settled: Plan, entries: Entries) -> tuple[Proof, ...]:
    """For each published certificate, by name; `settled` is a plan for these `entries` that changes nothing."""
    return tuple(_proof(each, wanted, settled, entries) for each in wanted.published)


def failed(wanted: Desired, reason: Reason) -> tuple[Proof, ...]:
    """The same where the store as a whole could not be read or written: nothing is proven, not even an absence."""
    return tuple(Proof(each.name, "Failed", reason=reason) for each in wanted.published)


def distrusted(wanted: Desired, ledger: Ledger) -> frozenset[str]:
    """Fingerprints of ours that are not wanted (any more), wherever they still are."""
    ours = [*ledger.values(), *wanted.known.values()]
    wished = {wish.certificate.fingerprint_sha256 for wish in wanted.wishes.values()}
    return frozenset().union(*(each.fingerprints for each in ours)) - wished


_NONE = Owned("", frozenset())


def _known(published: Iterable[Published]) -> Mapping[str, Owned]:
    known: dict[str, Owned] = {}
    for each in published:
        for alias in each.aliases:
            known[alias] = Owned(each.name, each.fingerprints | known.get(alias, _NONE).fingerprints)
    return known


def _proof(each: Published, wanted: Desired, settled: Plan, entries: Entries) -> Proof:
    fingerprint = each.certificate.fingerprint_sha256
    if each.revoked_on(wanted.host) and not any(entries.get(alias) in each.fingerprints for alias in each.aliases):
        return Proof(each.name, "Revoked")
    wish = wanted.wishes[each.alias]
    if wish.name != each.name:
        return _conflict(
            each, f"alias {each.alias} belongs to DirectDownloadCertificate {wish.name}: expected an alias of its own"
        )
    if taken := sorted(settled.conflicts.intersection(each.aliases)):
        return _conflict(
            each,
            f"alias {taken[0]} is held by an entry that the agent did not import and leaves alone: rename or remove "
            "that entry, or choose another alias",
        )
    if entries.get(each.alias) == fingerprint:
        return Proof(each.name, "Uploaded", fingerprint=fingerprint)
    return Proof(each.name, "Pending", reason=wanted.held)


def _conflict(each: Published, message: str) -> Proof:
    return Proof(each.name, "Failed", reason=Reason.ALIAS_CONFLICT, message=message)
