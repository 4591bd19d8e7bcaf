"""A rate from amounts alone."""

import pytest

from directdownload.cli.watch.rate import WINDOW_SECONDS, Meter


@pytest.mark.parametrize(
    ("seen", "rate"),
    [
        ([(0, 100)], None),
        # How old the first amount is, nobody knows.
        ([(0, 100), (1, 200)], None),
        ([(0, 100), (1, 200), (3, 600)], 200),
        ([(0, 100), (1, 200), (2, 200), (3, 600), (4, 600)], 200),
        ([(0, 0), (1, 0), (2, 10), (4, 20), (6, 50)], 10),
        # Begun anew.
        ([(0, 100), (1, 200), (3, 600), (4, 0)], None),
        ([(0, 100), (1, 200), (3, 600), (3 + WINDOW_SECONDS + 1, 600)], None),
        # What was long ago counts no more.
        ([(0, 0), (1, 1000), (WINDOW_SECONDS, 1100), (WINDOW_SECONDS + 2, 1120)], 10),
    ],
)
def test_rate(seen: list[tuple[float, int]], rate: int | None) -> None:
    meter = Meter()
    assert [meter.rate("a", amount, now) for now, amount in seen][-1] == rate


def test_each_key_has_its_own() -> None:
    meter = Meter()
    for now, amount in ((0, 0), (1, 10), (2, 20)):
        found = meter.rate("a", amount, now), meter.rate("b", amount * 2, now)
    assert found == (10, 20)
