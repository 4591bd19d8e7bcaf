"""Amounts for people: sizes, rates, spans of time, ages. Used wherever the command line prints a number.

Every function takes None for "not known" and answers `-`, the word that kubectl uses for it too.
"""

import datetime
import itertools

UNKNOWN = "-"
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEPS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def size(size_bytes: int | None) -> str:
    """Binary units with three or four significant digits: `999 B`, `12.3 MiB`, `1.0 GiB`."""
    if size_bytes is None:
        return UNKNOWN
    value, unit = float(size_bytes), 0
    # 1023.95 would be printed as 1024.0, which is one of the next unit
    while value >= (1024 if unit == 0 else 1023.95) and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_SIZE_UNITS[unit]}"


def rate(bytes_per_second: int | None) -> str:
    return UNKNOWN if bytes_per_second is None else f"{size(bytes_per_second)}/s"


def percent(part: int | None, whole: int | None) -> str:
    """Rounded down, so that 100 % means all of it."""
    value = whole_percent(part, whole)
    return UNKNOWN if value is None else f"{value} %"


def whole_percent(part: int | None, whole: int | None) -> int | None:
    if part is None or not whole:
        return None
    return min(100, part * 100 // whole)


def span(seconds: float | None) -> str:
    """The two largest units: `8 s`, `2m05s`, `3h20m`, `4d6h`; seconds alone get the blank that units have."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    for (step, unit), (below, smaller) in itertools.pairwise(_STEPS):
        if whole >= step:
            rest = whole % step // below
            return f"{whole // step}{unit}{rest:02d}{smaller}" if step < 86400 else f"{whole // step}{unit}{rest}h"
    raise AssertionError("unreachable: 60 seconds are a minute")


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
