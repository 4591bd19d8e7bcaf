"""The rate of an amount that grows, for users who may not see placements and their rates.

Used by `deployments`, whose status is written every few seconds. Pure: the caller passes the time.
"""

import collections

#: Long enough for several writes of a status, short enough to follow a change of speed.
WINDOW_SECONDS = 30.0


class Meter:
    """Measures amounts by key."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._changes: dict[str, collections.deque[tuple[float, int]]] = {}

    def rate(self, key: str, amount: int, now_seconds: float) -> int | None:
        """Growth per second; None until the amount has grown twice, or if it has not grown for WINDOW_SECONDS.

        Time counts from the first change, because the time of the first amount is unknown.
        """
        changes = self._changes.setdefault(key, collections.deque())
        last = self._seen.get(key)
        if last is not None and amount < last:
            changes.clear()
        elif last is not None and amount > last:
            changes.append((now_seconds, amount))
        self._seen[key] = amount
        while changes and now_seconds - changes[0][0] > WINDOW_SECONDS:
            changes.popleft()
        if len(changes) < 2:
            return None
        (since, before), (until, after) = changes[0], changes[-1]
        return int((after - before) / (until - since)) if until > since else None
