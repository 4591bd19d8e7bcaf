"""One object that this version cannot read costs no sight of the others, and is named."""

from typing import Any

import pytest

from directdownload.cli import output, reading
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
    output.print_list([document("good"), ODD], kinds.TEMPLATE_DEPLOYMENTS, "table", columns, row, "none")
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
    found = reading.readable(TemplateDeployment.model_validate, [ODD, document("good")])
    assert [item.name for item in found] == ["good"]
    assert capsys.readouterr().err.count("cannot be read") == 1


@pytest.mark.parametrize("spoilt", [{"spec": None}, {"spec": {"zone": 7}}, {"status": "x", "spec": {}}])
def test_whatever_is_wrong_with_it(spoilt: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"name": "kvm-1"}
    assert reading.readable(Host.model_validate, [{"metadata": metadata, **spoilt}]) == []
    assert capsys.readouterr().err.startswith("Warning: kvm-1 cannot be read: ")
