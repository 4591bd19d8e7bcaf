"""The Host's status of its keystore: `sync.Synced` with the times that its readers need. Pure.

`keeper` makes it, `status.host` writes it. A time stays as long as its value is the same, also over a restart of the
agent, which reads the earlier report from the Host's status.
"""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

import pydantic

from directdownload import escaping
from directdownload.agent.keystore.sync import Synced
from directdownload.planning import conditions
from directdownload.planning.keystores import Proof
from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.host import CERTIFICATES_LIMIT, HostCertificate, HostStatus, KeystoreDrift, KeystoreStatus
from directdownload.resources.reasons import Reason

CONDITION = "KeystoreSynced"
#: A change of `lastVerifiedTime` alone is written at most this often.
VERIFIED_AGAIN = datetime.timedelta(hours=1)


@dataclasses.dataclass(frozen=True, slots=True)
class KeystoreReport:
    """Three fields of `Host.status`; of the conditions, the agent owns only `condition`."""

    keystore: KeystoreStatus | None
    certificates: tuple[HostCertificate, ...]
    condition: Condition | None

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "certificates": [_dump(each) for each in self.certificates],
            "conditions": [_dump(self.condition)] if self.condition is not None else [],
        }
        return status | ({"keystore": _dump(self.keystore)} if self.keystore is not None else {})


#: No report yet.
NOTHING = KeystoreReport(None, (), None)


def told(status: Mapping[str, Any]) -> KeystoreReport:
    """The agent's report in the status of a Host; NOTHING if it cannot be read."""
    try:
        found = HostStatus.model_validate(status)
    except pydantic.ValidationError:
        return NOTHING
    return KeystoreReport(found.keystore, found.certificates, found.condition(CONDITION))


def made(synced: Synced, generation: int, before: KeystoreReport, now: datetime.datetime) -> KeystoreReport:
    """The report of `synced`; `generation` is that of the Host. Returns `before` if nothing is to be written."""
    now = now.replace(microsecond=0)
    known = {each.name: each for each in before.certificates}
    certificates = tuple(_certificate(each, known.get(each.name), now) for each in synced.proofs[:CERTIFICATES_LIMIT])
    message = escaping.escaped(synced.message)
    if len(synced.proofs) > CERTIFICATES_LIMIT:
        message += f" ({len(synced.proofs)} certificates; only the first {CERTIFICATES_LIMIT} by name are proven here)"
    previous = (before.condition,) if before.condition is not None else ()
    status = ConditionStatus.TRUE if synced.reason is Reason.KEYSTORE_SYNCED else ConditionStatus.FALSE
    condition = conditions.condition(CONDITION, status, synced.reason, message, previous, generation, now)
    result = KeystoreReport(_keystore(synced, before.keystore, now), certificates, condition)
    if result.keystore is None or before.keystore is None:
        return result
    verified = before.keystore.last_verified_time
    recently = verified is not None and now - VERIFIED_AGAIN < verified <= now
    unverified = result.keystore.model_copy(update={"last_verified_time": verified})
    return before if recently and dataclasses.replace(result, keystore=unverified) == before else result


def _keystore(synced: Synced, before: KeystoreStatus | None, now: datetime.datetime) -> KeystoreStatus | None:
    if synced.store is None:
        return before
    drift = before.last_drift if before is not None else None
    if synced.drift:
        first = synced.drift[0]
        drift = KeystoreDrift(kind=first.kind, alias=escaping.escaped(first.alias) or None, time=now)
    return synced.store.model_copy(update={"last_verified_time": now, "last_drift": drift})


def _certificate(proof: Proof, before: HostCertificate | None, now: datetime.datetime) -> HostCertificate:
    if proof.state == "Uploaded":
        return HostCertificate(name=proof.name, fingerprint_sha256=proof.fingerprint, state="Uploaded")
    same = before is not None and (before.state, before.reason) == (proof.state, proof.reason)
    since = before.last_transition_time if before is not None and same else None
    return HostCertificate(
        name=proof.name,
        state=proof.state,
        reason=proof.reason,
        message=escaping.escaped(proof.message) if proof.message is not None else None,
        last_transition_time=since or now,
    )


def _dump(model: pydantic.BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, exclude_none=True, mode="json")
