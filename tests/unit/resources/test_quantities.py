"""Amounts that people write: quantities, durations, reserves."""

import pytest

from directdownload.resources import quantities
from directdownload.resources.zone import Retry


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("10k", 10_000),
        ("10Ki", 10_240),
        ("100Mi", 104_857_600),
        ("10Gi", 10_737_418_240),
        ("1.5Gi", 1_610_612_736),
        ("0.1Ki", 103),
        (" 2T ", 2_000_000_000_000),
        ("7Ei", 7 * 2**60),
        ("12345678901234567890E", 12345678901234567890 * 10**18),
    ],
)
def test_quantity(text: str, expected: int) -> None:
    assert quantities.parse_quantity(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "1K", "1ki", "ten", "1 Gi", "1GiB", "1e3", "0x10", "\u0661", ".5", "1.", "9" * 99]
)
def test_bad_quantity_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="for example 10Gi"):
        quantities.parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("0s", 0), ("5s", 5), ("1.5s", 1.5), ("500ms", 0.5), ("10m", 600), ("1h30m", 5400), ("720h", 2_592_000)],
)
def test_duration(text: str, expected: float) -> None:
    assert quantities.parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "5sec", "1d", "5s,", "1h30", "inf"])
def test_bad_duration_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="for example 5s"):
        quantities.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("5%", 50), ("0%", 0), ("99%", 990), ("20", 20), ("1Ki", 1024), ("0", 0)]
)
def test_reserve(text: str, expected: int) -> None:
    assert quantities.parse_reserve(text, 1000) == expected


@pytest.mark.parametrize("text", ["100%", "-5%", "%", "5.5%", "much"])
def test_bad_reserve_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="for example 5% or 20Gi"):
        quantities.parse_reserve(text, 1000)


def test_a_sum_is_no_more_than_an_integer_of_the_api_holds() -> None:
    assert quantities.total([]) == 0
    assert quantities.total([1, 2, 3]) == 6
    assert quantities.total([2**63 - 1, 1]) == 2**63 - 1


def test_a_duration_of_a_field_is_no_longer_than_100_years() -> None:
    assert Retry.model_validate({"maximum": "999999999999h"}).maximum == 36525 * 86400
    assert Retry.model_validate({"maximum": "876600h"}).maximum == 36525 * 86400
    assert Retry.model_validate({"maximum": "876599h"}).maximum == 876599 * 3600
