"""Kubernetes quantities and Go durations as numbers, and numbers in words.

`parse_…` is called wherever a person writes an amount: fields of resources, options of the command line, the reserve of
a pool. It raises ValueError with the expected notation and an example, and accepts no negative amount. `size`, `rate`
and `span` are the one way to write amounts for people, in statuses and on the command line.
"""

import decimal
import itertools
import re
from collections.abc import Iterable
from typing import Any

#: The largest integer of the API; file systems claim more, and sums of hosts' reports may exceed it.
LARGEST_INTEGER = 2**63 - 1

_FACTORS = {
    **{suffix: 1000**power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
#: The notations, for CEL as well.
QUANTITY = f"[0-9]{{1,20}}([.][0-9]{{1,20}})?({'|'.join(_FACTORS)})?"
PERCENT = "[0-9]{1,2}%"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(rf"(\d{{1,12}}(?:\.\d{{1,12}})?)({'|'.join(_SECONDS)})", re.ASCII)
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEPS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def total(amounts: Iterable[int]) -> int:
    """The sum, up to the largest integer of the API: one host that claims too much spoils no status of others."""
    return min(sum(amounts), LARGEST_INTEGER)


def parse_quantity(text: str) -> int:
    """Bytes; a fraction of a byte rounds up, as Kubernetes does."""
    match = re.fullmatch(QUANTITY, text.strip())
    if match is None:
        raise ValueError(
            f"{text[:64]!r} is not a quantity of bytes: expected a number with an optional suffix k, M, G, T, P, E "
            "(powers of 1000) or Ki, Mi, Gi, Ti, Pi, Ei (powers of 1024), for example 10Gi"
        )
    with decimal.localcontext(prec=64):
        exact = decimal.Decimal(match[0].removesuffix(match[2] or "")) * _FACTORS.get(match[2], 1)
        return int(exact.to_integral_value(decimal.ROUND_CEILING))


def parse_duration(text: str) -> float:
    """Seconds, from a Go duration such as `1h30m`; a plain `0` needs no unit."""
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    seconds, position = 0.0, 0
    while match := _DURATION_PART.match(stripped, position):
        seconds += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if position == 0 or position != len(stripped):
        raise ValueError(
            f"{text[:64]!r} is not a duration: expected numbers with the units h, m, s or ms, for example 5s or 1h30m"
        )
    return seconds


def parse_reserve(text: str, capacity_bytes: int) -> int:
    """Bytes that stay free on a file system of `capacity_bytes`: a percentage below 100, or a quantity."""
    if re.fullmatch(PERCENT, text.strip()):
        return capacity_bytes * int(text.strip().removesuffix("%")) // 100
    try:
        return parse_quantity(text)
    except ValueError as error:
        raise ValueError(
            f"{text[:64]!r} is not a reserve: expected a percentage below 100 or a quantity of bytes, "
            "for example 5% or 20Gi"
        ) from error


def size(size_bytes: int) -> str:
    """Binary units with three or four significant digits: `999 B`, `12.3 MiB`, `1.0 GiB`."""
    value, unit = float(size_bytes), 0
    # 1023.95 would be printed as 1024.0, which is one of the next unit
    while value >= (1024 if unit == 0 else 1023.95) and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_SIZE_UNITS[unit]}"


def rate(bytes_per_second: int) -> str:
    return f"{size(bytes_per_second)}/s"


def span(seconds: float) -> str:
    """The two largest units: `8 s`, `2m05s`, `3h20m`, `4d6h`; seconds alone get the blank that units have."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    for (step, unit), (below, smaller) in itertools.pairwise(_STEPS):
        if whole >= step:
            rest = whole % step // below
            return f"{whole // step}{unit}{rest:02d}{smaller}" if step < 86400 else f"{whole // step}{unit}{rest}h"
    raise AssertionError("unreachable: 60 seconds are a minute")


def in_words(**sizes_bytes: int | None) -> dict[str, Any]:
    """The sizes in words, by the same names; None stays None."""
    return {name: size(value) if value is not None else None for name, value in sizes_bytes.items()}
