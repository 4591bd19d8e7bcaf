"""The checker itself: what is right passes, and each thing that is wrong is found."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.world.kstatus import assert_kstatus, violations

CREATED, EARLIER, LATER = "2026-01-31T12:00:00Z", "2026-01-31T12:00:10Z", "2026-01-31T12:00:20Z"
Object = dict[str, Any]


def condition(name: str, status: str = "True", reason: str = "Downloaded", since: str = EARLIER) -> Object:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": "words",
        "lastTransitionTime": since,
        "observedGeneration": 2,
    }


def placement(*conditions: Object, phase: str = "Ready", **status: Any) -> Object:
    return {
        "apiVersion": "directdownload.dev/v1alpha1",
        "kind": "TemplatePlacement",
        "metadata": {"name": "p", "uid": "u", "generation": 2, "creationTimestamp": CREATED},
        "status": {"observedGeneration": 2, "phase": phase, "conditions": list(conditions), **status},
    }


def ready() -> Object:
    return placement(condition("Ready"), condition("Reconciling", "False"), condition("Stalled", "False"))


def failed() -> Object:
    return placement(
        condition("Ready", "False", "ChecksumMismatch"),
        condition("Stalled", "True", "ChecksumMismatch"),
        phase="Failed",
    )


def waiting() -> Object:
    return placement(
        condition("Ready", "False", "SourceUnreachable"),
        condition("Reconciling", "True", "SourceUnreachable"),
        phase="Pending",
    )


def change(obj: Object, path: str, value: Any) -> Object:
    """A copy with `path` (dotted; numbers index lists) set; the value `...` removes it."""
    result = copy.deepcopy(obj)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    target: Any = result
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return result


@pytest.mark.parametrize("make", [ready, failed, waiting])
def test_sound(make: Callable[[], Object]) -> None:
    assert_kstatus(make())
    assert_kstatus(make(), make())


@pytest.mark.parametrize("status", [None, {}, {"progress": {"percent": 1}}])
def test_not_reconciled_yet(status: Object | None) -> None:
    obj = {**ready(), "status": status}
    if status:
        obj["metadata"] = {**obj["metadata"], "generation": 1}
    assert_kstatus(obj)


def test_abnormal_conditions_may_be_absent() -> None:
    assert_kstatus(placement(condition("Ready")))


WRONG: list[tuple[str, Object, str]] = [
    ("kind", change(ready(), "kind", "Pod"), "kind is 'Pod'"),
    ("generation ahead", change(ready(), "status.observedGeneration", 3), "ahead of generation 2"),
    ("generation missing", change(ready(), "status.observedGeneration", ...), "expected an integer beside conditions"),
    ("generation is text", change(ready(), "status.observedGeneration", "2"), "expected an integer beside conditions"),
    ("ready of an old generation", change(ready(), "metadata.generation", 3), "Ready is True for observedGeneration 2"),
    ("summary of another", change(ready(), "status.conditions.0.observedGeneration", 1), "Ready is about generation 1"),
    ("ready and reconciling", change(ready(), "status.conditions.1.status", "True"), "Ready and Reconciling are both"),
    ("ready and stalled", change(ready(), "status.conditions.2.status", "True"), "Ready and Stalled are both True"),
    (
        "reconciling and stalled",
        placement(condition("Ready", "False"), condition("Reconciling"), condition("Stalled"), phase="Failed"),
        "Reconciling and Stalled are both True",
    ),
    ("no summary", placement(condition("Stalled"), phase="Failed"), "there is no condition Ready"),
    ("twice", placement(condition("Ready"), condition("Ready")), "Ready stands there 2 times"),
    ("of another kind", placement(condition("Ready"), condition("Expiring")), "condition 'Expiring': expected one of"),
    ("status", change(ready(), "status.conditions.0.status", "true"), "status is 'true'"),
    ("abnormal unknown", change(ready(), "status.conditions.2.status", "Unknown"), "status is Unknown"),
    ("reason", change(ready(), "status.conditions.0.reason", "Fine"), "reason 'Fine' is not a Reason"),
    ("no reason", change(ready(), "status.conditions.0.reason", ...), "reason None is not a Reason"),
    ("no message", change(ready(), "status.conditions.0.message", ...), "message is 'None'"),
    ("long message", change(ready(), "status.conditions.0.message", "x" * 32769), "expected text of at most"),
    ("failure without words", change(failed(), "status.conditions.0.message", ""), "message is empty"),
    ("stalled without words", change(failed(), "status.conditions.1.message", ""), "message is empty"),
    ("about nothing", change(ready(), "status.conditions.1.observedGeneration", ...), "observedGeneration is None"),
    ("about the future", change(ready(), "status.conditions.1.observedGeneration", 3), "integer up to generation 2"),
    ("no time", change(ready(), "status.conditions.0.lastTransitionTime", ...), "lastTransitionTime is None"),
    ("odd time", change(ready(), "status.conditions.0.lastTransitionTime", "2026-01-31 12:00"), "expected a time like"),
    (
        "no such time",
        change(ready(), "status.conditions.0.lastTransitionTime", "2026-02-31T12:00:00Z"),
        "expected a time",
    ),
    ("future", change(ready(), "status.conditions.0.lastTransitionTime", "2999-01-31T12:00:00Z"), "is in the future"),
    ("past", change(ready(), "status.conditions.0.lastTransitionTime", "2020-01-31T12:00:00Z"), "before the object's"),
    ("failed, not stalled", change(waiting(), "status.phase", "Failed"), "phase is Failed, but Stalled is not True"),
    ("phase ready, not Ready", change(waiting(), "status.phase", "Ready"), "phase is Ready, but Ready is False"),
    ("Ready, phase pending", change(ready(), "status.phase", "Pending"), "phase is Pending, but Ready is True"),
    ("failures", {**ready(), "status": {**ready()["status"], "failures": [{}] * 11}}, "failures has 11 entries"),
    (
        "conditions",
        placement(*(condition(f"C{number}") for number in range(17)), condition("Ready")),
        "conditions has 18 entries",
    ),
]


@pytest.mark.parametrize(("obj", "words"), [pytest.param(obj, words, id=name) for name, obj, words in WRONG])
def test_wrong(obj: Object, words: str) -> None:
    assert any(words in violation for violation in violations(obj)), list(violations(obj))
    with pytest.raises(AssertionError, match=f"^{obj['kind']} p breaks kstatus conventions"):
        assert_kstatus(obj)


def test_lagging_behind_a_change_of_the_spec() -> None:
    assert_kstatus(change(ready(), "metadata.generation", 3), lagging=True)


def test_everything_is_listed_at_once() -> None:
    obj = change(change(ready(), "status.phase", "Pending"), "status.conditions.0.reason", "Fine")
    with pytest.raises(AssertionError, match=r"(?s)Fine.*phase is Pending"):
        assert_kstatus(obj)


MOVED = change(ready(), "status.conditions.0.lastTransitionTime", LATER)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        pytest.param(ready(), MOVED, "lastTransitionTime moved", id="time without change"),
        pytest.param(failed(), ready(), "status went from False to True", id="change without time"),
        pytest.param(
            change(failed(), "status.conditions.0.lastTransitionTime", LATER),
            ready(),
            "status went from False to True",
            id="time went back",
        ),
        pytest.param(
            ready(), change(ready(), "status.observedGeneration", 1), "went back from 2 to 1", id="generation"
        ),
        pytest.param(ready(), {**ready(), "status": {}}, "went back from 2 to None", id="status vanished"),
    ],
)
def test_wrong_transition(before: Object, after: Object, words: str) -> None:
    assert any(words in violation for violation in violations(after, before)), list(violations(after, before))


def test_right_transition() -> None:
    after = change(MOVED, "status.conditions.2.lastTransitionTime", LATER)
    assert_kstatus(after, failed())


def test_transition_within_one_second() -> None:
    after = change(ready(), "metadata.managedFields", [{"manager": "m", "time": EARLIER}])
    assert_kstatus(after, failed())
    late = change(ready(), "metadata.managedFields", [{"manager": "m", "time": LATER}])
    assert any("status went from" in violation for violation in violations(late, failed()))


def test_another_object_of_the_same_name_has_no_past() -> None:
    assert_kstatus(MOVED, change(ready(), "metadata.uid", "other"))
