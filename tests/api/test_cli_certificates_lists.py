"""`directdownload certificate list` and `host list` against a real API server: the test is the agents."""

import json
import pathlib
import re

import pytest
from tests.cluster import harness
from tests.world.certificate_fleet import Fleet, rows
from tests.world.cli_world import condition

from directdownload.resources import pem


@pytest.fixture
def fleet(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> Fleet:
    return Fleet(definitions, tmp_path)


def test_certificates_are_listed(fleet: Fleet) -> None:
    fleet.uploaded()
    listed = fleet.run("certificate", "list", "--zone", fleet.name)
    assert rows(listed.stdout) == [
        ["ZONE", "ALIAS", "NAME", "HOSTS", "READY", "EXPIRES", "FINGERPRINT"],
        [fleet.name, fleet.alias, fleet.alias, "-", "-", "-", "-"],
    ]
    conditions = [condition("Ready", "False", "ProvisioningFailed")]
    fleet.publish(hosts={"desired": 3, "uploaded": 2, "failed": 1}, conditions=conditions)
    row = rows(fleet.run("certificate", "list", "--zone", fleet.name).stdout)[1]
    fingerprint = pem.parse(fleet.spec()["certificate"]).fingerprint_sha256
    assert row[:5] == [fleet.name, fleet.alias, fleet.alias, "2/3", "ProvisioningFailed"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \(in 36(49|50)d\)", row[5])
    assert row[6] == fingerprint
    everywhere = json.loads(fleet.run("certificate", "list", "-o", "json").stdout)["items"]
    assert fleet.alias in [item["spec"]["alias"] for item in everywhere]
    nothing = fleet.run("certificate", "list", "--zone", "absent")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "Upload one with `directdownload certificate upload`" in nothing.stderr


def test_certificates_are_listed_by_host(fleet: Fleet) -> None:
    good, bad, away = fleet.host("1"), fleet.host("2"), fleet.host("3", "Down")
    fleet.host("4", zone="elsewhere")
    fleet.uploaded()
    fleet.publish()
    fleet.prove(good)
    fleet.prove(bad, "Failed", reason="KeystoreMissing", message="none there")
    arguments = ("certificate", "list", "--zone", fleet.name, "--hosts")
    assert rows(fleet.run(*arguments).stdout) == [
        ["ZONE", "ALIAS", "HOST", "STATUS", "DETAILS"],
        [fleet.name, fleet.alias, good, "UPLOADED"],
        [fleet.name, fleet.alias, bad, "FAILED", "KeystoreMissing: none there"],
        [fleet.name, fleet.alias, away, "SKIPPED", "Down (-)"],
    ]
    items = json.loads(fleet.run(*arguments, "-o", "json").stdout)["items"]
    where = {"zone": fleet.name, "alias": fleet.alias, "name": fleet.alias}
    assert items[1] == where | {"hostName": bad, "status": "FAILED", "details": "KeystoreMissing: none there"}
    assert fleet.run(*arguments, "-o", "name").stdout.splitlines()[0] == f"{good}:{fleet.alias}"
    assert "No certificate" in fleet.run("certificate", "list", "--zone", "absent", "--hosts").stderr


def test_hosts_are_listed_with_the_state_of_their_keystore(fleet: Fleet) -> None:
    fleet.host("1", conditions=[condition("KeystoreSynced", "True", "KeystoreSynced")])
    fleet.host("2", conditions=[condition("KeystoreSynced", "False", "KeystorePasswordWrong")])
    fleet.host("3")
    listed = rows(fleet.run("host", "list", "--zone", fleet.name).stdout)
    assert listed[0][4] == "KEYSTORE"
    assert [row[4] for row in listed[1:]] == ["synced", "KeystorePasswordWrong", "-"]
