"""A browser that follows a page, and one that comes back."""

import json
from typing import Any

from directdownload.dashboard.live import Channel
from directdownload.dashboard.views.heatmap import Group, HeatMap


def heat(**cells: str) -> HeatMap:
    return HeatMap((Group("", tuple(cells)),), cells, "", ())


def change(event: str) -> tuple[str, dict[str, Any]]:
    """The id of an event and what it brings."""
    lines = dict(line.split(": ", 1) for line in event.strip().split("\n"))
    assert lines["event"] == "change"
    return lines["id"], json.loads(lines["data"])


def test_a_new_browser_gets_everything_and_then_only_changes() -> None:
    channel = Channel("run")
    assert channel.update({"a": "1", "b": "1"}, heat(x="p", y="p"))
    version, first = change(channel.event(""))
    assert first["parts"] == {"a": "1", "b": "1"}
    assert 'data-host="x"' in first["map"]
    assert channel.event(version) == ""
    assert channel.update({"a": "1", "b": "2"}, heat(x="p", y="d3"))
    later, second = change(channel.event(version))
    assert second == {"parts": {"b": "2"}, "cells": {"d3": ["y"]}}
    assert channel.event(later) == ""


def test_nothing_new_is_no_event() -> None:
    channel = Channel("run")
    channel.update({"a": "1"}, heat(x="p"))
    version = channel.version
    assert not channel.update({"a": "1"}, heat(x="p"))
    assert (channel.version, channel.event(version)) == (version, "")


def test_a_browser_that_comes_back_gets_what_it_has_missed_once() -> None:
    """Last-Event-ID: changes of an hour are one event, in which each part and cell is as it is now."""
    channel = Channel("run")
    channel.update({"a": "0", "b": "0"}, heat(x="p", y="p"))
    last_event_id = channel.version
    for number in range(1, 3601):
        channel.update({"a": str(number), "b": "0"}, heat(x=f"d{number % 10}", y="p"))
    _, missed = change(channel.event(last_event_id))
    assert missed == {"parts": {"a": "3600"}, "cells": {"d0": ["x"]}}


def test_a_new_host_brings_a_new_map() -> None:
    channel = Channel("run")
    channel.update({}, heat(x="p"))
    version = channel.version
    channel.update({}, heat(x="p", z="r"))
    _, found = change(channel.event(version))
    assert 'data-host="z"' in found["map"]


def test_versions_of_another_process_or_of_nobody_bring_everything() -> None:
    channel = Channel("run")
    channel.update({"a": "1"}, None)
    for since in ("other-1", "run-999", "run-x", "run-", "-1", "run--1", "\u0661"):
        assert change(channel.event(since))[1]["parts"] == {"a": "1"}, since


def test_a_version_of_thousands_of_digits_is_none() -> None:
    channel = Channel("run")
    channel.update({"a": "1"}, None)
    assert channel.event("run-" + "9" * 5000) == channel.event("")


def test_an_event_is_one_line_of_data() -> None:
    channel = Channel("run")
    channel.update({"a": "one\ntwo\r\n\u2028three"}, None)
    event = channel.event("")
    assert len(event.rstrip("\n").split("\n")) == 3
    assert "\r" not in event
