"""A token bucket: how much may happen at once, and how long more must wait. Imports nothing of ours."""

import dataclasses
from typing import Self


@dataclasses.dataclass(frozen=True, slots=True)
class TokenBucket:
    """At most `burst` tokens, and one more each `seconds_per_token`. `tokens` are those at the moment `at`.

    Moments are seconds of the caller's clock; one that is set back takes nothing away. Negative tokens are owed.
    """

    seconds_per_token: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, seconds_per_token: float, burst: float, now: float) -> Self:
        return cls(seconds_per_token, burst, burst, now)

    def take(self, now: float, tokens: float = 1) -> tuple[Self, float]:
        """The bucket without these tokens, and the seconds until it owes none: 0 if it had them all."""
        refilled = min(self.burst, self.tokens + max(0.0, now - self.at) / self.seconds_per_token)
        left = refilled - tokens
        return dataclasses.replace(self, tokens=left, at=now), max(0.0, -left * self.seconds_per_token)
