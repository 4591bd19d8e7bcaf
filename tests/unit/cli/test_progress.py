"""How screens are shown: bars on a terminal, lines elsewhere."""

import io
from collections.abc import Sequence

import rich.console
from tests.unit.cli.support import MIB

from directdownload.cli.view import progress
from directdownload.cli.view.screen import FULL_SCREEN_LINES, Line, Mood, Screen


def copy(host: str, percent: int, mood: Mood = Mood.ACTIVE, note: str = "", rate: int = MIB) -> Line:
    state = {Mood.ACTIVE: "Downloading", Mood.DONE: "Ready", Mood.FAILED: "Failed", Mood.WAITING: "Pending"}[mood]
    return Line((host, "local"), state, mood, percent * MIB, 100 * MIB, rate, note)


def screen(lines: Sequence[Line]) -> Screen:
    ready = sum(line.mood is Mood.DONE for line in lines)
    downloaded = sum(line.downloaded_bytes or 0 for line in lines)
    state = f"{ready} of {len(lines)} ready"
    return Screen(tuple(lines), Line(("total", ""), state, Mood.ACTIVE, downloaded, len(lines) * 100 * MIB))


def said(screens: Sequence[Screen]) -> list[list[str]]:
    """What is printed at each of the screens."""
    stream = io.StringIO()
    printed = []
    with progress.Lines(rich.console.Console(file=stream)) as reporter:
        for one in screens:
            before = len(stream.getvalue())
            reporter.update(one)
            printed.append(stream.getvalue()[before:].splitlines())
    return printed


def test_lines_only_when_something_changes() -> None:
    first, second, third = said(
        [
            screen([copy("kvm-1", 10, note="ETA 9 s"), copy("kvm-2", 0, Mood.WAITING, "WaitingForSlot")]),
            screen([copy("kvm-1", 10, note="ETA 8 s"), copy("kvm-2", 0, Mood.WAITING, "WaitingForSlot")]),
            screen([copy("kvm-1", 100, Mood.DONE), copy("kvm-2", 0, Mood.WAITING, "WaitingForSlot")]),
        ]
    )
    assert first == [
        "kvm-1  local  Downloading  10 %  10.0 MiB / 100.0 MiB  1.0 MiB/s  ETA 9 s",
        "kvm-2  local  Pending  WaitingForSlot",
        "total         0 of 2 ready  5 %  10.0 MiB / 200.0 MiB",
    ]
    assert second == []
    assert third == ["kvm-1  local  Ready  100.0 MiB", "total         1 of 2 ready  50 %  100.0 MiB / 200.0 MiB"]


def test_the_countdown_of_a_retry_is_no_news() -> None:
    def waiting(seconds: int) -> Screen:
        return screen([copy("kvm-1", 50, Mood.FAILED, f"SourceUnreachable, next attempt in {seconds} s")])

    assert [len(lines) for lines in said([waiting(9), waiting(8)])] == [2, 0]


def test_a_failure_is_told_once_though_its_progress_is_dropped() -> None:
    with_progress = Line(("kvm-1", "local"), "Failed", Mood.FAILED, 0, 100 * MIB, None, "ChecksumMismatch")
    without = Line(("kvm-1", "local"), "Failed", Mood.FAILED, 0, None, None, "ChecksumMismatch")
    assert [len(lines) for lines in said([screen([with_progress]), screen([without])])] == [2, 0]


def test_lines_of_a_crowded_screen_are_failures_recoveries_and_the_total() -> None:
    many = [copy(f"kvm-{n}", 10) for n in range(FULL_SCREEN_LINES)]
    first, second, third = said(
        [
            screen([copy("a", 0), *many]),
            screen([copy("a", 0, Mood.FAILED, "SourceUnreachable"), *many]),
            screen([copy("a", 0), *many]),
        ]
    )
    assert first == ["total          0 of 21 ready  9 %  200.0 MiB / 2.1 GiB"]
    assert second == ["a       local  Failed  SourceUnreachable"]
    assert third == ["a       local  Downloading  0 %  0 B / 100.0 MiB  1.0 MiB/s"]


def drawn(lines: Sequence[Line], limit: int = 50, width: int = 140) -> list[str]:
    console = rich.console.Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(progress.bars(screen(lines), limit))
    return [text.rstrip() for text in captured.get().splitlines()]


def test_bars() -> None:
    first, second, total = drawn([copy("kvm-1", 50, note="ETA 50 s"), copy("kvm-2", 100, Mood.DONE)])
    assert first.split("━")[0].split() == ["kvm-1", "local", "Downloading"]
    assert "50 %" in first
    assert "50.0 MiB / 100.0 MiB" in first
    assert first.endswith("1.0 MiB/s  ETA 50 s")
    assert second.rsplit("━", 1)[1].split("  ")[1:2] == ["100 %"]
    assert second.endswith(" 100.0 MiB")
    assert total.startswith("total         1 of 2 ready")
    assert "150.0 MiB / 200.0 MiB" in total


def test_bars_of_a_crowded_screen() -> None:
    lines = [copy(f"kvm-{n}", 100, Mood.DONE) for n in range(FULL_SCREEN_LINES)] + [copy("a", 0, Mood.FAILED, "Why")]
    failed, more, total = drawn(lines)
    assert failed.startswith("a ")
    assert failed.endswith("Why")
    assert more == f"… {FULL_SCREEN_LINES} more"
    assert total.startswith("total")


def test_a_narrow_terminal_wraps_nothing() -> None:
    assert len(drawn([copy("kvm-1", 50, note="SourceUnreachable, next attempt in 40 s")], width=60)) == 2


def test_a_terminal_gets_bars_and_a_pipe_lines() -> None:
    assert isinstance(progress.reporter(), progress.Lines)
    stream = io.StringIO()
    console = rich.console.Console(file=stream, force_terminal=True, width=100, color_system=None)
    with progress.Bars(console) as reporter:
        reporter.update(screen([copy("kvm-1", 50)]))
        reporter.note("connection lost [not markup]")
    assert "kvm-1" in stream.getvalue()
    assert "connection lost [not markup]" in stream.getvalue()


def test_what_a_line_says_is_not_obeyed_by_the_terminal() -> None:
    """A reason may be of another version, a label of an object that somebody made."""
    hostile = "\x1b]0;owned\x07\x9b2J\u202e"
    one = screen([copy(hostile, 10, Mood.FAILED, hostile)])
    drawn = io.StringIO()
    console = rich.console.Console(file=drawn, force_terminal=True, width=400, highlight=False)
    console.print(progress.bars(one, 10))
    progress.Bars(console).note(hostile)
    lines = progress.Lines(rich.console.Console(file=drawn))
    lines.update(one)
    lines.note(hostile)
    assert drawn.getvalue().count("\\u001b]0;owned\\u0007\\u009b2J\\u202e") == 6
    assert not any(character in drawn.getvalue() for character in "\x07\x9b\u202e")
    assert "\x1b]" not in drawn.getvalue()


def test_the_total_is_told_each_tenth_of_the_way() -> None:
    told = said([screen([copy("kvm-1", percent)]) for percent in (8, 9, 10, 11, 21)])
    assert [[line.split()[0] for line in lines] for lines in told] == [
        ["kvm-1", "total"],
        ["kvm-1"],
        ["kvm-1", "total"],
        ["kvm-1"],
        ["kvm-1", "total"],
    ]
