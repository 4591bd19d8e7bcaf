"""Tables, JSON, YAML and names."""

import json

import pytest
import yaml

from directdownload.cli import output
from directdownload.cluster import kinds

ZONES = [
    {"apiVersion": "directdownload.dev/v1alpha1", "kind": "Zone", "metadata": {"name": "a", "managedFields": [1]}},
    {"apiVersion": "directdownload.dev/v1alpha1", "kind": "Zone", "metadata": {"name": "bb"}},
]


def test_columns_are_aligned_whatever_the_width_of_characters() -> None:
    text = output.table(("name", "note"), [("a", "x"), ("日本", "y"), ("long-name", "two\nlines")])
    assert text.splitlines() == ["NAME        NOTE", "a           x", "日本        y", "long-name   two lines"]


def _print(how: str) -> None:
    output.print_list(ZONES, kinds.ZONES, how, ("name",), lambda item: (item["metadata"]["name"],), "none")


def test_json_and_yaml_are_lists_that_kubectl_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    _print("json")
    parsed = json.loads(capsys.readouterr().out)
    assert (parsed["kind"], [item["metadata"] for item in parsed["items"]]) == ("List", [{"name": "a"}, {"name": "bb"}])
    _print("yaml")
    assert yaml.safe_load(capsys.readouterr().out) == parsed


def test_names_are_those_of_kubectl(capsys: pytest.CaptureFixture[str]) -> None:
    _print("name")
    assert capsys.readouterr().out == "zone.directdownload.dev/a\nzone.directdownload.dev/bb\n"


def test_an_empty_table_says_so_apart_from_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_list([], kinds.ZONES, "table", ("name",), lambda _: ("",), "No zones.")
    assert capsys.readouterr() == ("", "No zones.\n")


def test_a_row_that_cannot_be_made_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def row(item: output.Object) -> tuple[str, str]:
        if item["metadata"]["name"] == "a":
            raise OverflowError
        return item["metadata"]["name"], "Ready"

    output.print_list(ZONES, kinds.ZONES, "table", ("name", "status"), row, "none")
    told = capsys.readouterr()
    assert told.out.splitlines() == ["NAME   STATUS", "a      Unreadable", "bb     Ready"]
    assert "Warning: Zone/a cannot be read: OverflowError" in told.err
