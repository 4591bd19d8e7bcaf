"""Conditions from a verdict: the one place that knows how Ready, Reconciling and Stalled relate.

The rules are kstatus's (kubernetes-sigs/cli-utils): Reconciling and Stalled are abnormal-true and never both true,
and an object that is Ready has neither.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence

from directdownload.resources.base import CONDITION_MESSAGE_LENGTH, Condition, ConditionStatus
from directdownload.resources.reasons import Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A planner's result: whether the object is as wished, and if not, whether it gets there by itself."""

    ready: bool
    reason: Reason
    message: str = ""
    stalled: bool = False

    @property
    def reconciling(self) -> bool:
        return not self.ready and not self.stalled


def conditions(
    verdict: Verdict,
    previous: Iterable[Condition],
    generation: int,
    now: datetime.datetime,
    types: tuple[str, ...] = ("Ready", "Reconciling", "Stalled"),
) -> tuple[Condition, ...]:
    """The conditions `types` for `verdict`; the time of a condition changes only with its status."""
    previous = tuple(previous)
    truth = {"Ready": verdict.ready, "Reconciling": verdict.reconciling, "Stalled": verdict.stalled}
    status = {name: ConditionStatus.TRUE if truth[name] else ConditionStatus.FALSE for name in types}
    return tuple(
        condition(name, status[name], verdict.reason, verdict.message, previous, generation, now) for name in types
    )


def condition(
    name: str,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    previous: Iterable[Condition],
    generation: int,
    now: datetime.datetime,
) -> Condition:
    """One condition; its time changes only with its status. A message over `CONDITION_MESSAGE_LENGTH` is cut."""
    old = next((condition for condition in previous if condition.type == name), None)
    same = old is not None and old.status == status and old.last_transition_time is not None
    return Condition(
        type=name,
        status=status,
        reason=reason,
        message=message if len(message) <= CONDITION_MESSAGE_LENGTH else message[: CONDITION_MESSAGE_LENGTH - 1] + "…",
        last_transition_time=old.last_transition_time if same and old else now,
        observed_generation=generation,
    )


def listed(names: Sequence[str], most: int = 5) -> str:
    """Some of `names` for a message: `a, b and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
