"""What `volume list` makes of the agents' demands and the controller's answers."""

from typing import Any

import pytest
from tests.unit.planning import build

from directdownload.cli import volume
from directdownload.cli.volume import entries
from directdownload.resources.host import Host

DEMAND = {"namespace": "default", "template": "debian-13", "since": build.stamp(build.NOW), "volumes": 2}
OLDER = {**DEMAND, "since": build.stamp(build.NOW - build.seconds(60))}


def host(name: str, *demands: dict[str, Any], served: tuple[dict[str, Any], ...] = ()) -> Host:
    return build.host(name, status={"demands": list(demands), "served": list(served)})


@pytest.mark.parametrize(
    ("demand", "served", "state"),
    [
        (DEMAND, (), "Waiting"),
        (DEMAND, ({**DEMAND, "state": "Ready"},), "Ready"),
        (DEMAND, ({**DEMAND, "state": "Refused", "reason": "OnDemandDisabled"},), "Refused"),
        (DEMAND, ({**OLDER, "state": "Ready"},), "Waiting"),
        (DEMAND, ({**DEMAND, "uid": "u", "state": "Ready"},), "Waiting"),
        ({**DEMAND, "uid": "u"}, ({**DEMAND, "uid": "u", "state": "Ready"},), "Ready"),
        ({**DEMAND, "volumes": 0}, ({**DEMAND, "state": "Ready"},), "Unused"),
    ],
)
def test_the_state_of_volumes(demand: dict[str, Any], served: tuple[dict[str, Any], ...], state: str) -> None:
    (entry,) = entries([host("kvm-1", demand, served=served)])
    assert (entry.host, entry.state) == ("kvm-1", state)
    assert entry.document()["state"] == state


def test_hosts_are_in_order() -> None:
    found = entries([host("kvm-2", DEMAND), host("kvm-3"), host("kvm-1", DEMAND, {**DEMAND, "template": "other"})])
    assert [(entry.host, entry.demand.template) for entry in found] == [
        ("kvm-1", "debian-13"),
        ("kvm-1", "other"),
        ("kvm-2", "debian-13"),
    ]


def test_none_is_expected_where_none_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    unused = host("kvm-1", {**DEMAND, "volumes": 0})
    assert volume._refuse(entries([unused, host("kvm-2")])) is None
    many = [host(f"kvm-{number}", DEMAND) for number in range(1, 8)]
    assert volume._refuse(entries([unused, *many])) == 1
    said = capsys.readouterr().err
    assert "14 volumes of pods on kvm-1, kvm-2, kvm-3, kvm-4, kvm-5 and 2 more: delete these pods first" in said
