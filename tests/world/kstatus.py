"""Checks that the status of an object follows the kstatus conventions, as kpt, Flux and `kubectl wait` read them.

Api and e2e tests call `assert_kstatus(obj, previous)` on every object they see. It raises one AssertionError with all
violations of the object.

The conventions: https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from directdownload.resources.reasons import Reason

#: Abnormal-true conditions: True for a problem; absent or False otherwise, never Unknown.
ABNORMAL_TRUE = frozenset({"Reconciling", "Stalled", "Expiring"})
_COMMON = frozenset({"Ready", "Reconciling", "Stalled"})
#: The conditions of each kind beyond `_COMMON`.
_FURTHER: Mapping[str, frozenset[str]] = {
    "Zone": frozenset(),
    "Host": frozenset({"KeystoreSynced"}),
    "StoragePool": frozenset(),
    "Template": frozenset({"SourceReachable", "DigestDisputed"}),
    "TemplateDeployment": frozenset(),
    "TemplatePlacement": frozenset(),
    "DirectDownloadCertificate": frozenset({"Expiring", "Accepted"}),
}
_REASONS = frozenset(reason.value for reason in Reason)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_FAILURES_LIMIT = 10
_CONDITIONS_LIMIT = 16
_MESSAGE_LIMIT = 32768
#: Times have whole seconds, and the clocks of two machines differ a little.
_CLOCK_TOLERANCE = datetime.timedelta(seconds=5)


def assert_kstatus(obj: dict[str, Any], previous: dict[str, Any] | None = None, *, lagging: bool = False) -> None:
    """Raise AssertionError unless `obj` follows the conventions.

    `previous` is the version directly before it (from a watch: a poll may miss a change that was undone).
    `lagging`: the spec has just changed, so the status may still describe the previous generation.
    """
    found = list(violations(obj, previous, lagging=lagging))
    if found:
        metadata = obj.get("metadata", {})
        name = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
        raise AssertionError("\n  ".join([f"{obj.get('kind')} {name} breaks kstatus conventions:", *found]))


def violations(obj: dict[str, Any], previous: dict[str, Any] | None = None, *, lagging: bool = False) -> Iterator[str]:
    """The violations, one sentence each."""
    kind = str(obj.get("kind"))
    if kind not in _FURTHER:
        yield f"kind is {kind!r}: expected one of {', '.join(_FURTHER)}"
        return
    if previous is not None and previous["metadata"].get("uid") != obj["metadata"].get("uid"):
        previous = None
    status = obj.get("status") or {}
    if status:
        yield from _generations(obj, lagging)
        yield from _conditions(obj, kind)
        yield from _summary(obj)
        yield from _phase(obj)
        yield from _bounds(status)
    if previous is not None:
        yield from _transition(obj, previous)


def _generation(obj: dict[str, Any]) -> int:
    return int(obj["metadata"].get("generation", 0))


def _by_type(obj: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(condition.get("type")): condition for condition in (obj.get("status") or {}).get("conditions") or ()}


def _is(conditions: Mapping[str, Mapping[str, Any]], condition_type: str, value: str = "True") -> bool:
    return conditions.get(condition_type, {}).get("status") == value


def _integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _time(value: object) -> datetime.datetime | None:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        return datetime.datetime.fromisoformat(value)
    except ValueError:
        return None


def _generations(obj: dict[str, Any], lagging: bool) -> Iterator[str]:
    generation, conditions = _generation(obj), _by_type(obj)
    observed = obj["status"].get("observedGeneration")
    if not _integer(observed):
        # The agent may be the first to write; a writer of conditions must also write observedGeneration.
        if conditions.keys() & _COMMON:
            yield f"observedGeneration is {observed!r}: expected an integer beside conditions"
        return
    if observed > generation:
        yield f"observedGeneration {observed} is ahead of generation {generation}"
    if _is(conditions, "Ready") and observed != generation and not lagging:
        yield f"Ready is True for observedGeneration {observed}, but generation is {generation}"
    about = conditions.get("Ready", {}).get("observedGeneration")
    if _integer(about) and about != observed:
        yield f"Ready is about generation {about}, but observedGeneration is {observed}"


def _conditions(obj: dict[str, Any], kind: str) -> Iterator[str]:
    types = [condition.get("type") for condition in obj["status"].get("conditions") or ()]
    for repeated in sorted({str(each) for each in types if types.count(each) > 1}):
        yield f"condition {repeated} stands there {types.count(repeated)} times"
    allowed = _COMMON | _FURTHER[kind]
    for condition in obj["status"].get("conditions") or ():
        if condition.get("type") not in allowed:
            yield f"condition {condition.get('type')!r}: expected one of {', '.join(sorted(allowed))}"
        for problem in _condition(obj, condition):
            yield f"condition {condition.get('type')}: {problem}"


def _condition(obj: dict[str, Any], condition: dict[str, Any]) -> Iterator[str]:
    status, message = condition.get("status"), condition.get("message")
    if status not in ("True", "False", "Unknown"):
        yield f"status is {status!r}: expected True, False or Unknown"
    if status == "Unknown" and condition.get("type") in ABNORMAL_TRUE:
        yield "status is Unknown: an abnormal-true condition is True, False or absent"
    if condition.get("reason") not in _REASONS:
        yield f"reason {condition.get('reason')!r} is not a Reason"
    if not isinstance(message, str) or len(message) > _MESSAGE_LIMIT:
        yield f"message is {str(message)[:80]!r}: expected text of at most {_MESSAGE_LIMIT} characters"
    elif not message and (status != "True") != (condition.get("type") in ABNORMAL_TRUE):
        yield "message is empty: expected words for people where not all is well"
    about = condition.get("observedGeneration")
    if not _integer(about) or about > _generation(obj) or about < 0:
        yield f"observedGeneration is {about!r}: expected an integer up to generation {_generation(obj)}"
    since = _time(condition.get("lastTransitionTime"))
    if since is None:
        written = condition.get("lastTransitionTime")
        yield f"lastTransitionTime is {written!r}: expected a time like 2026-01-31T12:00:00Z"
        return
    created = _time(obj["metadata"].get("creationTimestamp"))
    if created is not None and since < created - _CLOCK_TOLERANCE:
        yield f"lastTransitionTime {condition['lastTransitionTime']} is before the object's creation"
    if since > datetime.datetime.now(datetime.UTC) + _CLOCK_TOLERANCE:
        yield f"lastTransitionTime {condition['lastTransitionTime']} is in the future"


def _summary(obj: dict[str, Any]) -> Iterator[str]:
    conditions = _by_type(obj)
    if _is(conditions, "Reconciling") and _is(conditions, "Stalled"):
        yield "Reconciling and Stalled are both True"
    for abnormal in ("Reconciling", "Stalled"):
        if _is(conditions, "Ready") and _is(conditions, abnormal):
            yield f"Ready and {abnormal} are both True"
        if _is(conditions, abnormal) and "Ready" not in conditions:
            yield f"{abnormal} is True, but there is no condition Ready"


def _phase(obj: dict[str, Any]) -> Iterator[str]:
    if obj["kind"] != "TemplatePlacement":
        return
    phase, conditions = obj["status"].get("phase"), _by_type(obj)
    if phase == "Failed" and not _is(conditions, "Stalled"):
        yield "phase is Failed, but Stalled is not True"
    if (phase == "Ready") != _is(conditions, "Ready"):
        yield f"phase is {phase}, but Ready is {conditions.get('Ready', {}).get('status', 'absent')}"


def _bounds(status: dict[str, Any]) -> Iterator[str]:
    for name, limit in (("failures", _FAILURES_LIMIT), ("conditions", _CONDITIONS_LIMIT)):
        length = len(status.get(name) or ())
        if length > limit:
            yield f"{name} has {length} entries: expected at most {limit}"


def _transition(obj: dict[str, Any], previous: dict[str, Any]) -> Iterator[str]:
    before = (previous.get("status") or {}).get("observedGeneration")
    after = (obj.get("status") or {}).get("observedGeneration")
    if _integer(before) and (not _integer(after) or after < before):
        yield f"observedGeneration went back from {before} to {after}"
    old_conditions = _by_type(previous)
    for name, condition in _by_type(obj).items():
        old = old_conditions.get(name)
        if old is None:
            continue
        since, old_since = condition.get("lastTransitionTime"), old.get("lastTransitionTime")
        changed = condition.get("status") != old.get("status")
        if not changed and since != old_since:
            yield f"condition {name}: lastTransitionTime moved from {old_since} to {since}, status did not"
        elif changed and not _moved(obj, _time(old_since), _time(since)):
            yield (
                f"condition {name}: status went from {old.get('status')} to {condition.get('status')}, "
                f"lastTransitionTime from {old_since} to {since}"
            )


def _moved(obj: dict[str, Any], before: datetime.datetime | None, after: datetime.datetime | None) -> bool:
    """Whether the time moved on. Two changes within one second have the same time, which the last write shows."""
    if before is None or after is None or after != before:
        return before is not None and after is not None and after > before
    written = [_time(entry.get("time")) for entry in obj["metadata"].get("managedFields") or ()]
    last = max((moment for moment in written if moment is not None), default=None)
    return last is not None and last - after <= datetime.timedelta(seconds=1)
