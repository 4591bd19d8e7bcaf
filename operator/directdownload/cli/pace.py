"""How fast something grows that tells only how much it is: for those who may not see placements, which tell their rate.

Used by `following` for deployments, whose status is written every few seconds. Pure: the caller gives the time.
"""

import collections

#: Long enough for several writes of a status, short enough to follow a change of speed.
WINDOW_SECONDS = 30.0


class Meter:
    """Of amounts by key."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._changes: dict[str, collections.deque[tuple[float, int]]] = {}

    def rate(self, key: str, amount: int, now_seconds: float) -> int | None:
        """Per second; None until it has grown twice, and when it has not for a while.

        When the first amount was written nobody knows: time is counted from the first change on.
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
