"""Names in a deployment that its zone does not have: not Ready, and named."""

from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW

from directdownload.planning.dryrun import plan_dry_run
from directdownload.planning.rollouts import plan_deployment
from directdownload.planning.unserved import names_unserved
from directdownload.resources.reasons import Reason

FLEET = build.fleet(
    [build.host("kvm-1"), build.host("kvm-9", zone="zone-2")],
    [build.pool(), build.pool("far", zone="zone-2")],
    [build.zone(), build.zone("zone-2")],
)
READY = build.by_key(build.placement(host="kvm-1", phase="Ready"))


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({}, Reason.CONVERGED, ""),
        ({"hosts": ["kvm-1"], "pools": ["local"]}, Reason.CONVERGED, ""),
        ({"hosts": ["kvm-1", "nope"]}, Reason.HOST_NOT_FOUND, "; spec.hosts: Zone zone-1 has no host nope"),
        (
            {"hosts": ["nope", "kvm-1", "kvm-9", "nope"]},
            Reason.HOST_NOT_FOUND,
            "; spec.hosts: Zone zone-1 has no host nope; spec.hosts: in another Zone: kvm-9",
        ),
        ({"pools": ["local", "no"]}, Reason.POOL_NOT_FOUND, "; spec.pools: Zone zone-1 has no StoragePool no"),
        ({"pools": ["local", "far"]}, Reason.POOL_NOT_FOUND, "; spec.pools: in another Zone: far"),
    ],
)
def test_a_name_that_the_zone_does_not_have_is_desired_and_not_served(
    spec: dict[str, Any], reason: Reason, words: str
) -> None:
    deployment = build.deployment(spec=spec)
    status = plan_deployment(deployment, build.template(), FLEET, READY, NOW)
    build.check_resource(deployment, status)
    ready, reconciling, stalled = status.conditions
    served = reason is Reason.CONVERGED
    assert (ready.status, reconciling.status, stalled.status) == (str(served), str(not served), "False")
    assert (ready.reason, ready.message) == (reason, f"1 of 1 copies are verified{words}")


def test_a_few_of_thousands_of_names_are_in_the_message() -> None:
    deployment = build.deployment(spec={"hosts": ["kvm-1", *(f"nope-{number}" for number in range(4000))]})
    message = plan_deployment(deployment, build.template(), FLEET, READY, NOW).conditions[0].message
    assert message.endswith("has no host nope-0, nope-1, nope-2, nope-3, nope-4 and 3995 more")


def test_where_nothing_matches_the_names_are_told_as_well() -> None:
    status = plan_deployment(build.deployment(spec={"hosts": ["nope"]}), build.template(), FLEET, {}, NOW)
    assert status.conditions[0].reason is Reason.NO_MATCHING_HOSTS
    assert status.conditions[0].message.endswith("; spec.hosts: Zone zone-1 has no host nope")


def test_a_host_that_the_selector_excludes_is_there() -> None:
    spec = {"hosts": ["kvm-1"], "hostSelector": {"matchLabels": {"rack": "r2"}}}
    assert names_unserved(build.deployment(spec=spec), FLEET).reason is None


def test_other_copies_go_on_and_the_name_stays_in_the_message() -> None:
    deployment = build.deployment(spec={"hosts": ["kvm-1", "nope"]})
    waiting = build.by_key(build.placement(host="kvm-1", phase="Pending", reason=Reason.HOST_DOWN))
    ready = plan_deployment(deployment, build.template(), FLEET, waiting, NOW).conditions[0]
    assert (ready.reason, ready.message.count("nope")) == (Reason.HOST_DOWN, 1)


def test_a_dry_run_says_it_too() -> None:
    wish = build.deployment(spec={"hosts": ["kvm-1", "nope", "kvm-9"]}, observed=None)
    run = plan_dry_run(wish, build.template(), FLEET, {}, NOW)
    assert (run.unserved.hosts, run.unserved.hosts_elsewhere) == (["nope"], ["kvm-9"])
    assert [copy.host for copy in run.copies] == ["kvm-1"]


def test_a_host_that_has_just_been_created_is_not_served_yet() -> None:
    """It gets its copies after its first status: until then the deployment must not be Ready without them."""
    new = build.host("kvm-2", state=None)
    fleet = build.fleet([build.host("kvm-1"), new])
    deployment = build.deployment(spec={"hosts": ["kvm-1", "kvm-2"]})
    found = plan_deployment(deployment, build.template(), fleet, READY, NOW).conditions[0]
    assert (found.status, found.reason) == ("False", Reason.HOST_NOT_FOUND)
