"""Conditions from a verdict: the one place that knows how Ready, Reconciling and Stalled relate.

The rules are kstatus's (kubernetes-sigs/cli-utils): Reconciling and Stalled are abnormal-true and never both true,
and an object that is Ready has neither.
"""

import dataclasses
import datetime
from collections.abc import Iterable

from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.reasons import Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a planner found: whether the object is as wished, and if not, whether it gets there by itself."""

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
    before = {condition.type: condition for condition in previous}
    truth = {"Ready": verdict.ready, "Reconciling": verdict.reconciling, "Stalled": verdict.stalled}
    found = []
    for name in types:
        status = ConditionStatus.TRUE if truth[name] else ConditionStatus.FALSE
        old = before.get(name)
        same = old is not None and old.status == status and old.last_transition_time is not None
        found.append(
            Condition(
                type=name,
                status=status,
                reason=verdict.reason,
                message=verdict.message,
                last_transition_time=old.last_transition_time if same and old else now,
                observed_generation=generation,
            )
        )
    return tuple(found)
