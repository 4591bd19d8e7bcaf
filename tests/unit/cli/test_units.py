"""Amounts for people."""

import datetime

import pytest

from directdownload.cli.view import units

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_897_485, "12.3 MiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**3 - 1, "1.0 GiB"),
        (256 * 1024**2, "256.0 MiB"),
        (5 * 1024**6, "5.0 EiB"),
        (5000 * 1024**6, "5000.0 EiB"),
    ],
)
def test_size(size_bytes: int | None, text: str) -> None:
    assert units.size(size_bytes) == text


def test_rate() -> None:
    assert units.rate(12_897_485) == "12.3 MiB/s"
    assert units.rate(None) == "-"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (None, 10, "-"),
        (5, None, "-"),
        (5, 0, "-"),
        (0, 10, "0 %"),
        (999, 1000, "99 %"),
        (10, 10, "100 %"),
        (11, 10, "100 %"),
    ],
)
def test_percent_is_100_only_when_all_is_there(part: int | None, whole: int | None, text: str) -> None:
    assert units.percent(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1, "0 s"),
        (8.4, "8 s"),
        (59.4, "59 s"),
        (60, "1m00s"),
        (125, "2m05s"),
        (3599, "59m59s"),
        (12_000, "3h20m"),
        (86_400, "1d0h"),
        (370_000, "4d6h"),
    ],
)
def test_span(seconds: float | None, text: str) -> None:
    assert units.span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (119, "119s"),
        (120, "2m"),
        (310, "5m10s"),
        (720, "12m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 300, "3h5m"),
        (47 * 3600, "47h"),
        (52 * 3600, "2d4h"),
        (30 * 86400 + 3600, "30d"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert units.age(NOW - datetime.timedelta(seconds=seconds), NOW) == text


def test_age_not_known() -> None:
    assert units.age(None, NOW) == "-"


def test_count() -> None:
    assert units.count(1, "host") == "1 host"
    assert units.count(0, "host") == "0 hosts"
    assert units.count(2, "copy", "copies") == "2 copies"
