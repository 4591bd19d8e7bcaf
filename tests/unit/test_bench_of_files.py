"""The arithmetic of the bench of one file: ratios within rounds, aims, and what imports cost."""

import pathlib
import subprocess
import sys

import pytest
from tests.bench import footprint, ways
from tests.bench.footprint import Import
from tests.bench.ways import Comparison, Cost, Round, Table, Work, longer, reference


def _rounds(**seconds: tuple[float, ...]) -> list[Round]:
    """Each way's seconds, round by round; the CPU seconds are half of them."""
    rounds = zip(*seconds.values(), strict=True)
    return [{way: Cost(value, value / 2) for way, value in zip(seconds, values, strict=True)} for values in rounds]


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    # Each round has another load. The ratio of the medians is 1, and in two of three rounds ours took half.
    rounds = _rounds(ours=(1, 2, 8), theirs=(2, 4, 1))
    assert Comparison("work", "ours", reference("theirs")).ratio(rounds) == 0.5


def test_the_longer_reference_is_that_of_each_round() -> None:
    rounds = _rounds(ours=(2, 2, 2), disk=(1, 2, 1), network=(2, 1, 2))
    comparison = Comparison("work", "ours", longer(reference("disk"), reference("network")))
    assert comparison.ratio(rounds) == 1
    assert comparison.reference.name == "the longer of disk and network"


def test_a_row_has_the_spread_and_the_verdict() -> None:
    rounds = _rounds(ours=(3, 1, 2), theirs=(4, 4, 4))
    row = Comparison("work", "ours", reference("theirs", 0.5), 1.0).row(rounds)
    assert row == "| work | 2.00 | 1.00 to 3.00 | 1.00 | 0.5 times theirs | 2.00 | 1.00 | ≤ 1 | met |"


@pytest.mark.parametrize(("ratio", "words"), [(1.0, "met"), (1.004, "met"), (1.006, "missed")])
def test_an_aim_is_met_by_the_ratio_that_is_shown(ratio: float, words: str) -> None:
    assert ways.verdict(ratio, 1.0) == ("≤ 1", words)


def test_an_aim_in_words_has_no_verdict() -> None:
    rounds = _rounds(ours=(1,), theirs=(1,))
    assert (
        Comparison("work", "ours", reference("theirs"), "plus the start")
        .row(rounds)
        .endswith("| 1.00 | plus the start |  |")
    )


def test_ways_take_turns() -> None:
    order: list[str] = []

    def way(name: str) -> ways.Way:
        def run() -> Cost:
            order.append(name)
            return Cost(len(order), 0)

        return run

    rounds = ways.in_turn({"a": way("a"), "b": way("b")}, 2)
    assert order == ["a", "b", "a", "b"]
    assert [[cost.seconds for cost in each.values()] for each in rounds] == [[1, 2], [3, 4]]


def test_a_way_without_a_size_has_empty_cells() -> None:
    small = Table(_rounds(ours=(1, 3), theirs=(1, 1)), ())
    large = [Table(_rounds(ours=(10,)), ())]
    assert ways.costs({"1 MiB": [small], "1 GiB": large})[1:] == [
        "|---|---|---|---|---|",
        "| ours | 2.00 (1.00 to 3.00) | 1.00 | 10.00 (10.00 to 10.00) | 5.00 |",
        "| theirs | 1.00 (1.00 to 1.00) | 0.50 |  |  |",
    ]


def test_cpu_seconds_are_those_of_children_too(tmp_path: pathlib.Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    cost = ways.timed(["bash", "-c", f"{sys.executable} -c '{busy}' & wait"], tmp_path)
    assert cost.cpu_seconds >= 0.2


def test_a_failure_within_a_way_is_no_measurement(tmp_path: pathlib.Path) -> None:
    work = Work(tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        work.shell("echo > out; false | cat")()
    assert not work.out.exists()


def test_a_way_that_takes_too_long_is_stopped(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_LIMIT_SECONDS", 0.1)
    with pytest.raises(subprocess.CalledProcessError):
        ways.timed(["sleep", "120"], tmp_path)


def test_imports_are_read_with_their_depths() -> None:
    text = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |     _ssl\n"
        "import time:        50 |        150 |   ssl\n"
        "Interrupted: stopped on request\n"
    )
    assert footprint.parse_imports(text) == [Import("_ssl", 2, 100, 100), Import("ssl", 1, 50, 150)]


def test_a_family_counts_what_it_imports_once() -> None:
    imports = [
        Import("_ssl", 3, 1000, 1000),
        Import("ssl", 2, 1000, 2000),
        Import("pydantic_core", 2, 2000, 2000),
        Import("pydantic.main", 1, 4000, 8000),
        Import("click", 1, 1000, 1000),
        Import("product", 0, 500, 9500),
        Import("pydantic.late", 1, 1000, 1000),
        Import("product.later", 0, 1500, 2500),
    ]
    assert footprint.import_rows(imports)[2:] == [
        "| product | 2 | 2.0 | 12.0 |",
        "| pydantic | 3 | 7.0 | 9.0 |",
        "| ssl | 2 | 2.0 | 2.0 |",
        "| click | 1 | 1.0 | 1.0 |",
        "| all | 8 | 12.0 | |",
    ]
