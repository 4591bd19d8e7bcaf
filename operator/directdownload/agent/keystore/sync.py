"""Syncs one host's keystore with its wishes, and the trust bundle with the keystore. Blocking.

`keeper` calls it in a thread, one call at a time. `planning.keystores` decides; `directdownload.keystore` writes the
files. The ledger is saved before a keystore is written, so that it names all own entries after any interruption.
"""

import dataclasses
import datetime
import logging
import os.path
from collections.abc import Mapping, Sequence

from directdownload import escaping
from directdownload.agent.keystore.bundle import Bundle
from directdownload.agent.keystore.ownership import Ownership
from directdownload.hostfiles import mountinfo
from directdownload.keystore import errors, passwords, store
from directdownload.keystore.entries import Changes, Entry, EntryKind
from directdownload.observe import logs
from directdownload.planning import keystores
from directdownload.resources import pem
from directdownload.resources.host import KeystoreSpec, KeystoreStatus, PasswordSource
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """The wanted state of the host's keystore, from the cluster."""

    host: str
    zone: str
    #: None: there is no such Zone
    enabled: bool | None
    #: 0: sync only after a change
    sync_interval_seconds: float
    #: None: not understood
    keystore: KeystoreSpec | None
    published: tuple[keystores.Published, ...]
    #: of the Host
    generation: int
    #: names of certificates that exist but cannot be read
    unread: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Synced:
    """The result of a sync."""

    proofs: tuple[keystores.Proof, ...]
    #: `KeystoreSynced`, or the reason of the failure
    reason: Reason
    message: str
    #: as read back; None: not known
    store: KeystoreStatus | None
    #: repaired changes by others
    drift: tuple[keystores.Drift, ...] = ()
    #: when a previous certificate ends, so that the wishes change
    until: datetime.datetime | None = None
    #: why another attempt is needed
    error: errors.KeystoreError | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Converged:
    #: None: there is no keystore, and none is needed
    snapshot: store.Snapshot | None
    entries: keystores.Entries
    #: the plan for these entries, which changes nothing
    settled: keystores.Plan
    drift: tuple[keystores.Drift, ...] = ()
    #: by alias
    flawed: Mapping[str, str] = dataclasses.field(default_factory=dict)


class KeystoreSync:
    """The agent's only writer of keystores, of their ledger and of the trust bundle."""

    def __init__(self, roots: Sequence[str], state_directory: str) -> None:
        self._roots = roots
        self._ownership = Ownership(state_directory)
        self._bundle = Bundle(state_directory)
        #: by certificate in the keystore that was read last: why Java cannot read it. A sync asks more than once.
        self._flaws: dict[bytes, str | None] = {}

    def sync(self, wishes: Wishes, now: datetime.datetime) -> Synced:
        unread = self._read_ledger()
        wanted = keystores.desired(
            wishes.host,
            wishes.zone,
            wishes.enabled,
            wishes.published,
            now,
            ownerships=[each.ledger for each in self._ownership.stores.values()],
            taken=self._ownership.taken,
            unread=wishes.unread,
        )
        try:
            if unread is not None:
                raise unread
            self._remember(wanted.taken)
            if wishes.keystore is None:
                raise errors.UnreadableError(f"Host {wishes.host}: spec.keystore is not understood by this version")
            stuck = self._leave_others(wishes.host, wishes.keystore.path)
            found = self._converge(wishes.keystore, wanted)
            self._export(found.snapshot)
        except errors.KeystoreError as error:
            return self._failed(wishes, wanted, error)
        except Exception as error:  # the last resort: an agent that ends because of one file takes its host down
            logger.exception("Host %s: cannot update the keystore", wishes.host)
            defect = errors.UnreadableError(
                f"keystore of Host {wishes.host}: {type(error).__name__} while the agent updated it; "
                "this is a defect: please report it with the log of the agent"
            )
            return self._failed(wishes, wanted, defect)
        unopened = _unopened(wishes.keystore.path, found)
        proofs = keystores.proofs(wanted, found.settled, found.entries, unopened)
        told = (_message(wishes.keystore.path, proofs), unopened, str(stuck) if stuck is not None else "")
        reason = Reason.KEYSTORE_UNREADABLE if unopened else Reason.KEYSTORE_SYNCED
        return Synced(proofs, reason, "; ".join(filter(None, told)), _facts(found), found.drift, wanted.until, stuck)

    def _converge(self, spec: KeystoreSpec, wanted: keystores.Desired) -> _Converged:
        """Changes the keystore until the plan has no changes left. Raises KeystoreError."""
        if not self._exposed(spec.path):
            raise errors.UnreadableError(
                f"keystore {spec.path}: expected a path below {self._named_roots()}, without links out of it; add its "
                "directory to the chart's agent.keystoreRoots"
            )
        before = self._ownership.of(spec.path)
        missing = store.stamp(spec.path) is None
        if missing and not (made := keystores.plan(wanted, before, {}, missing=True)).put:
            # a missing keystore needs no password
            self._save(spec, made)
            return _Converged(None, {}, made)
        plans: list[keystores.Plan] = []

        def decide(found: Mapping[str, Entry]) -> Changes:
            entries = _fingerprints(found)
            made = keystores.plan(
                wanted,
                self._ownership.of(spec.path),
                entries,
                missing=missing and not entries,
                flawed=self._flawed(found),
            )
            self._save(spec, made)
            plans.append(made)
            put = {alias: wish.certificate.der for alias, wish in made.put.items()}
            return Changes(put=put, remove=tuple(made.remove))

        create = spec.type if spec.create_if_missing else None
        password = self._password(spec.password_source)
        try:
            found = store.update(spec.path, password, decide, create=create).snapshot
        except errors.PasswordWrongError as error:
            raise errors.PasswordWrongError(
                f"{error}; the password is from {_password_path(spec.password_source)}"
            ) from error
        entries = _fingerprints(found.entries) if found is not None else {}
        flawed = self._flawed(found.entries) if found is not None else {}
        settled = keystores.plan(wanted, self._ownership.of(spec.path), entries, flawed=flawed)
        if settled.changes:
            raise errors.WriteError(f"keystore {spec.path}: something else undid the change at once; trying again")
        self._save(spec, settled)
        _log(spec.path, before, plans[-1], settled)
        return _Converged(found, entries, settled, plans[-1].drift, flawed)

    def _flawed(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """By alias, why Java cannot read the certificate there."""
        held = {alias: entry.certificate for alias, entry in entries.items() if entry.certificate is not None}
        known = self._flaws
        self._flaws = {
            each: known[each] if each in known else pem.Certificate(each).unreadable for each in held.values()
        }
        return {alias: flaw for alias, each in held.items() if (flaw := self._flaws[each]) is not None}

    def _read_ledger(self) -> errors.WriteError | None:
        """The error that forbids every write; None: the ledger was read."""
        try:
            self._ownership.read()
        except OSError as error:
            return errors.WriteError(
                f"{self._ownership.path}: cannot be read, so the agent does not know its own entries: "
                f"{error.strerror}; it changes no keystore until this file is readable or removed"
            )
        return None

    def _leave_others(self, host: str, path: str) -> errors.KeystoreError | None:
        """Removes own entries from keystores that the Host named earlier; returns the last failure."""
        stuck = None
        for other in [name for name in self._ownership.stores if name != path]:
            spec = KeystoreSpec(
                path=other, password_from=self._ownership.stores[other].password_from, create_if_missing=False
            )
            try:
                self._converge(spec, keystores.nothing(host))
            except errors.KeystoreError as error:
                stuck = type(error)(f"entries of the agent stay in a keystore that is no longer used: {error}")
        return stuck

    def _failed(self, wishes: Wishes, wanted: keystores.Desired, error: errors.KeystoreError) -> Synced:
        ledger = self._ownership.of(wishes.keystore.path) if wishes.keystore is not None else {}
        try:
            self._bundle.drop(keystores.distrusted(wanted, ledger))
        except OSError as problem:
            logger.warning("Cannot write %s: %s", self._bundle.path, problem.strerror)
        if self._ownership.known and not wanted.published and not ledger:
            return Synced((), Reason.KEYSTORE_SYNCED, "this host needs no certificate", KeystoreStatus(managed=0))
        return Synced(keystores.failed(wanted, error.reason), error.reason, str(error), None, (), wanted.until, error)

    def _export(self, found: store.Snapshot | None) -> None:
        entries = found.entries.values() if found is not None else ()
        trusted = [e.certificate for e in entries if e.kind is EntryKind.TRUSTED_CERTIFICATE and e.certificate]
        try:
            self._bundle.write(trusted)
        except OSError as error:
            raise errors.WriteError(f"trust bundle {self._bundle.path}: cannot be written: {error.strerror}") from error

    def _remember(self, taken: keystores.Taken) -> None:
        try:
            self._ownership.take(taken)
        except OSError as error:
            raise errors.WriteError(f"{self._ownership.path}: cannot be written: {error.strerror}") from error

    def _save(self, spec: KeystoreSpec, made: keystores.Plan) -> None:
        try:
            self._ownership.save(spec.path, spec.password_source, made.ownership)
        except OSError as error:
            raise errors.WriteError(
                f"keystore {spec.path}: unchanged, because {self._ownership.path} cannot be written: {error.strerror}"
            ) from error

    def _password(self, source: PasswordSource) -> str:
        path = _password_path(source)
        if not self._exposed(path):
            raise errors.PasswordMissingError(
                f"password file {path}: expected a path below {self._named_roots()}, without links out of it; add its "
                "directory to the chart's agent.keystoreRoots"
            )
        return passwords.from_agent_properties(path) if source.agent_properties else passwords.from_file(path)

    def _exposed(self, path: str) -> bool:
        return all(mountinfo.root_of(each, self._roots) for each in (os.path.normpath(path), os.path.realpath(path)))

    def _named_roots(self) -> str:
        return " or ".join(self._roots) or "a keystore root, of which there is none"


def stamps(spec: KeystoreSpec) -> tuple[object, object]:
    """Stamps of the keystore and its password file, which change with every write; cheap."""
    return _stamp(spec.path), _stamp(_password_path(spec.password_source))


def _stamp(path: str) -> object:
    try:
        return store.stamp(path)
    except errors.UnreadableError as error:
        return str(error)


def _password_path(source: PasswordSource) -> str:
    return source.agent_properties or source.file or ""


def _fingerprints(entries: Mapping[str, Entry]) -> dict[str, str | None]:
    trusted = EntryKind.TRUSTED_CERTIFICATE
    return {alias: entry.fingerprint_sha256 if entry.kind is trusted else None for alias, entry in entries.items()}


def _unopened(path: str, found: _Converged) -> str:
    """Why Java opens no entry of the keystore, and what to do; empty: Java opens it."""
    if found.snapshot is None or not found.flawed:
        return ""
    alias, flaw = min(found.flawed.items())
    others = f" (and {len(found.flawed) - 1} more)" if len(found.flawed) > 1 else ""
    advice = "restore the store from a backup"
    if found.snapshot.entries[alias].kind is EntryKind.TRUSTED_CERTIFICATE:
        advice = (
            "remove this entry on the host (docs/certificates.md has the tool, as keytool opens no such store), and "
            f"check with `keytool -list -keystore {path}` that Java reads the rest"
        )
    shown = escaping.escaped(alias, escaping.NAME_LIMIT)
    return f"{path}: the agent did not import '{shown}'{others} and does not change it: {flaw}; {advice}"


def _facts(found: _Converged) -> KeystoreStatus:
    owned = found.settled.ownership.items()
    managed = sum(found.entries.get(alias) in each.fingerprints for alias, each in owned)
    if found.snapshot is None:
        return KeystoreStatus(entries=0, managed=0)
    return KeystoreStatus(
        type=found.snapshot.type, entries=len(found.entries), managed=managed, sha256=found.snapshot.sha256
    )


def _message(path: str, proofs: Sequence[keystores.Proof]) -> str:
    if not proofs:
        return "this host needs no certificate"
    states = [proof.state for proof in proofs]
    return f"{path}: " + ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def _log(path: str, before: keystores.Ownership, made: keystores.Plan, settled: keystores.Plan) -> None:
    for drift in made.drift:
        logger.warning("Keystore %s: %s %s, repaired", path, drift.kind, drift.alias)
    for alias, wish in made.put.items():
        fingerprint = wish.certificate.fingerprint_sha256
        words = (path, fingerprint, alias, wish.name)
        logger.info("Keystore %s: put %s under %s for certificate %s", *words, extra=_about(wish.name))
    for alias, name in made.remove.items():
        fingerprints = ", ".join(sorted(made.ownership[alias].fingerprints))
        logger.info(
            "Keystore %s: removed %s (%s) of certificate %s", path, alias, fingerprints, name, extra=_about(name)
        )
    for alias in settled.ownership.keys() - before.keys() - made.put.keys():
        name = settled.ownership[alias].certificate
        logger.info("Keystore %s: adopted %s for certificate %s", path, alias, name, extra=_about(name))


def _about(certificate: str) -> dict[str, object]:
    return logs.about("DirectDownloadCertificate", certificate)
