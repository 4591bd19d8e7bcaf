"""Amounts for people: sizes, rates, spans of time, ages. Used wherever the command line prints a number.

Sizes, rates and spans are as `resources.quantities` writes them into statuses. Every function takes None for "not
known" and answers `-`, the word that kubectl uses for it too.
"""

import datetime

from directdownload.resources import quantities

UNKNOWN = "-"


def size(size_bytes: int | None) -> str:
    return UNKNOWN if size_bytes is None else quantities.size(size_bytes)


def rate(bytes_per_second: int | None) -> str:
    return UNKNOWN if bytes_per_second is None else quantities.rate(bytes_per_second)


def percent(part: int | None, whole: int | None) -> str:
    """Rounded down, so that 100 % means all of it."""
    value = whole_percent(part, whole)
    return UNKNOWN if value is None else f"{value} %"


def whole_percent(part: int | None, whole: int | None) -> int | None:
    if part is None or not whole:
        return None
    return min(100, part * 100 // whole)


def span(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else quantities.span(seconds)


def age(since: datetime.datetime | None, now: datetime.datetime) -> str:
    """As `kubectl get` prints ages: one unit, two where the first is small (`45s`, `5m10s`, `12m`, `3h5m`, `2d4h`)."""
    if since is None:
        return UNKNOWN
    seconds = max(0, int((now - since).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m" + (f"{seconds % 60}s" if seconds % 60 else "")
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    if seconds < 8 * 3600:
        return f"{seconds // 3600}h" + (f"{seconds % 3600 // 60}m" if seconds % 3600 // 60 else "")
    if seconds < 48 * 3600:
        return f"{seconds // 3600}h"
    days = seconds // 86400
    hours = seconds % 86400 // 3600
    return f"{days}d" + (f"{hours}h" if days < 8 and hours else "")


def count(number: int, one: str, many: str = "") -> str:
    """`1 host`, `3 hosts`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
