"""Objects as tables, JSON, YAML and names. One that this version cannot read hides no other, and is named."""

import json
from typing import Any

import pytest
import yaml

from directdownload.cli import objects
from directdownload.cli.view import output
from directdownload.cluster import kinds
from directdownload.resources.host import Host
from directdownload.resources.templatedeployment import TemplateDeployment


def document(name: str, **status: Any) -> dict[str, Any]:
    spec = {"templateRef": {"name": "debian"}, "zone": "zone-1"}
    metadata = {"namespace": "team", "name": name, "uid": name}
    return {"kind": "TemplateDeployment", "metadata": metadata, "spec": spec, "status": status}


#: As no version that there is writes it.
ODD = document("odd", failures=[{"message": "half"}])


def test_a_list_shows_the_others_and_that_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    def row(each: dict[str, Any]) -> tuple[str, ...]:
        item = TemplateDeployment.model_validate(each)
        return item.metadata.namespace, item.name, item.spec.zone, "Ready"

    columns = ("namespace", "name", "zone", "status")
    objects.print_list([document("good"), ODD], kinds.TEMPLATE_DEPLOYMENTS, "table", columns, row, "none")
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()] == [
        ["NAMESPACE", "NAME", "ZONE", "STATUS"],
        ["team", "good", "zone-1", "Ready"],
        ["team", "odd", "-", "Unreadable"],
    ]
    assert shown.err.startswith(
        "Warning: TemplateDeployment/team/odd cannot be read: status.failures.0.host: Field required"
    )
    assert "Compare the version of this command line" in shown.err


def test_what_is_put_together_from_many_objects_goes_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = objects.readable(TemplateDeployment.model_validate, [ODD, document("good")])
    assert [item.name for item in found] == ["good"]
    assert capsys.readouterr().err.count("cannot be read") == 1


@pytest.mark.parametrize("spoilt", [{"spec": None}, {"spec": {"zone": 7}}, {"status": "x", "spec": {}}])
def test_whatever_is_wrong_with_it(spoilt: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"name": "kvm-1"}
    assert objects.readable(Host.model_validate, [{"metadata": metadata, **spoilt}]) == []
    assert capsys.readouterr().err.startswith("Warning: kvm-1 cannot be read: ")


ZONES = [
    {"apiVersion": "directdownload.dev/v1alpha1", "kind": "Zone", "metadata": {"name": "a", "managedFields": [1]}},
    {"apiVersion": "directdownload.dev/v1alpha1", "kind": "Zone", "metadata": {"name": "bb"}},
]


def test_columns_are_aligned_whatever_the_width_of_characters() -> None:
    text = output.table(("name", "note"), [("a", "x"), ("日本", "y"), ("long-name", "two\nlines")])
    assert text.splitlines() == ["NAME        NOTE", "a           x", "日本        y", "long-name   two lines"]


def _print(how: str) -> None:
    objects.print_list(ZONES, kinds.ZONES, how, ("name",), lambda item: (item["metadata"]["name"],), "none")


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
    objects.print_list([], kinds.ZONES, "table", ("name",), lambda _: ("",), "No zones.")
    assert capsys.readouterr() == ("", "No zones.\n")


def test_a_row_that_cannot_be_made_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def row(item: objects.Object) -> tuple[str, str]:
        if item["metadata"]["name"] == "a":
            raise OverflowError
        return item["metadata"]["name"], "Ready"

    objects.print_list(ZONES, kinds.ZONES, "table", ("name", "status"), row, "none")
    told = capsys.readouterr()
    assert told.out.splitlines() == ["NAME   STATUS", "a      Unreadable", "bb     Ready"]
    assert "Warning: Zone/a cannot be read: OverflowError" in told.err
