"""Simulated keystores of hosts: what the real agent does with certificates and what it publishes of them.

Aliases and fingerprints only; how a keystore is written is tested with the keystore library.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Iterable, Mapping

from tests.world.kube import Object

from directdownload.resources import pem
from directdownload.resources.certificate import PREVIOUS_SUFFIX, DirectDownloadCertificate
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Zone

_MESSAGES = {
    Reason.KEYSTORE_WRITE_FAILED: "/etc/cloudstack/agent: Read-only file system",
    Reason.KEYSTORE_PASSWORD_WRONG: "/etc/cloudstack/agent/cloud.jks: the password is another one",
}


@dataclasses.dataclass(slots=True)
class Keystore:
    """One host's keystore, and what its agent remembers. Tests change `fault`, `idle` and, by hand, `entries`."""

    #: fingerprints by alias
    entries: dict[str, str] = dataclasses.field(default_factory=dict)
    #: nothing can be read or written
    fault: Reason | None = None
    #: the agent is slow: it has not come round to what changed
    idle: bool = False
    #: by the certificate's name: the aliases that were imported for it
    _ledger: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    _since: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    _host_uid: str = ""
    _drift: Object | None = None
    _told: Object = dataclasses.field(default_factory=dict)

    def wipe(self) -> None:
        self.entries.clear()

    def converge(
        self, host: Host, zones: Mapping[str, Zone], certificates: Iterable[DirectDownloadCertificate]
    ) -> Object:
        """The part of `Host.status` that says how the keystore is."""
        if self.idle:
            return self._told
        if host.uid != self._host_uid:
            # Of a Host that is made anew nothing can have changed before it was there.
            self._host_uid = host.uid
            self._since.clear()
        zone = zones.get(host.spec.zone)
        own = [c for c in certificates if c.spec.zone == host.spec.zone and c.status.certificate]
        own.sort(key=lambda c: c.name)
        if self.fault is None:
            for name in self._ledger.keys() - {c.name for c in own}:
                for alias in self._ledger.pop(name):
                    self.entries.pop(alias, None)
        told = [self._entry(c, host.name, zone) for c in own]
        text = repr(sorted(self.entries.items())).encode()
        managed = sum(len(aliases) for aliases in self._ledger.values())
        sha256 = hashlib.sha256(text).hexdigest()
        keystore: Object = {"type": "JKS", "entries": len(self.entries), "managed": managed, "sha256": sha256}
        keystore["lastVerifiedTime"] = self._changed("of the file", sha256)
        if self._drift is not None:
            keystore["lastDrift"] = self._drift
        reason = self.fault or Reason.KEYSTORE_SYNCED
        truth = "True" if self.fault is None else "False"
        synced = {
            "type": "KeystoreSynced",
            "status": truth,
            "reason": str(reason),
            "message": "" if self.fault is None else _MESSAGES[self.fault],
            "lastTransitionTime": self._changed("", truth),
            "observedGeneration": host.metadata.generation,
        }
        self._told = {"keystore": keystore, "certificates": told, "conditions": [synced]}
        return self._told

    def _entry(self, certificate: DirectDownloadCertificate, host: str, zone: Zone | None) -> Object:
        spec, name = certificate.spec, certificate.name
        if self.fault is not None:
            return self._late(name, "Failed", self.fault)
        gone = spec.revoked or host in spec.revoked_hosts or certificate.deleting
        wanted = {} if gone else _wanted(certificate)
        ledger = self._ledger.setdefault(name, {})
        for alias in ledger.keys() - wanted.keys():
            self.entries.pop(alias, None)
            del ledger[alias]
        if gone:
            del self._ledger[name]
            return self._late(name, "Revoked")
        if zone is None or not zone.spec.enabled:
            reason = Reason.ZONE_NOT_FOUND if zone is None else Reason.ZONE_DISABLED
            if any(self.entries.get(alias) != fingerprint for alias, fingerprint in wanted.items()):
                return self._late(name, "Pending", reason)
        for alias, fingerprint in wanted.items():
            if ledger.get(alias) == fingerprint and self.entries.get(alias) != fingerprint:
                kind = "EntryReplaced" if alias in self.entries else "EntryMissing"
                self._drift = {"kind": kind, "alias": alias, "time": _now()}
            self.entries[alias] = ledger[alias] = fingerprint
        self._since.pop(name, None)
        # As read back.
        return {"name": name, "fingerprintSHA256": self.entries[spec.keystore_alias], "state": "Uploaded"}

    def _late(self, name: str, state: str, reason: Reason | None = None) -> Object:
        entry: Object = {"name": name, "state": state, "lastTransitionTime": self._changed(name, state)}
        return {**entry, "reason": str(reason)} if reason is not None else entry

    def _changed(self, name: str, state: str) -> str:
        if self._since.get(name, ("", ""))[0] != state:
            self._since[name] = state, _now()
        return self._since[name][1]


def _wanted(certificate: DirectDownloadCertificate) -> dict[str, str]:
    """Fingerprints by alias, the one before included while it is trusted."""
    alias, status = certificate.spec.keystore_alias, certificate.status
    found = {alias: pem.parse(status.certificate or "").fingerprint_sha256}
    if status.previous is not None and status.previous.until > datetime.datetime.now(datetime.UTC):
        found[alias + PREVIOUS_SUFFIX] = status.previous.fingerprint_sha256
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
