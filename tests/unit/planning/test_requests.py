"""When a request on an object that is kept whole is served, and what its status says of it; of every such kind."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, seconds, stamp

from directdownload.planning import certificates, hosts, pools, publications, requests, rollouts, templates, zones
from directdownload.planning.observed import Agent
from directdownload.planning.requests import INTERVAL
from directdownload.resources.base import Status
from directdownload.resources.certificate import DirectDownloadCertificate

Fields = dict[str, Any]


def _certificate(fields: Fields, now: datetime.datetime) -> Status:
    spec = {"zone": "zone-1", "alias": "ca", "certificate": "none"}
    document = {"metadata": build.metadata("ca", requested_at=fields["requested_at"]), "spec": spec}
    found = DirectDownloadCertificate.model_validate({**document, "status": fields["status"]})
    source = publications.inline(found)
    return certificates.plan_certificate(found, source, build.zone(), (), (), now).status


#: The status that each planner gives an object with these fields.
PLANNERS: dict[str, Callable[[Fields, datetime.datetime], Status]] = {
    "zone": lambda fields, now: zones.plan_zone(build.zone(**fields), [], [], now),
    "pool": lambda fields, now: pools.plan_pool(build.pool(**fields), True, [], (build.ROOT,), now),
    "host": lambda fields, now: (
        hosts.plan_host(build.host(**fields), build.node(), [build.zone()], Agent(True), now).status
    ),
    "template": lambda fields, now: templates.plan_template(build.template(**fields), {"zone-1"}, [], now),
    "deployment": lambda fields, now: rollouts.plan_deployment(
        build.deployment(**fields), build.template(), build.fleet(), {}, now
    ),
    "certificate": _certificate,
}
SERVED = {"lastHandledRequest": "1", "lastHandledRequestTime": stamp(NOW)}
OF_0_1_0 = {"lastHandledRequest": "1"}


@pytest.mark.parametrize("kind", PLANNERS)
@pytest.mark.parametrize(
    ("requested", "before", "after", "expected"),
    [
        ("", {}, 0, (None, None)),
        ("1", {}, 0, ("1", NOW)),
        ("1", SERVED, 30, ("1", NOW)),
        ("2", SERVED, 59, ("1", NOW)),
        ("2", SERVED, 60, ("2", NOW + INTERVAL)),
        ("", SERVED, 30, (None, NOW)),
        ("1", OF_0_1_0, 0, ("1", None)),
        ("2", OF_0_1_0, 0, ("2", NOW)),
        # A clock that was set back.
        ("2", SERVED, -3600, ("2", NOW - seconds(3600))),
    ],
)
def test_what_a_status_says_of_requests(kind: str, requested: str, before: Fields, after: float, expected: Any) -> None:
    status = PLANNERS[kind]({"requested_at": requested, "status": before}, NOW + seconds(after))
    assert (status.last_handled_request, status.last_handled_request_time) == expected


@pytest.mark.parametrize(
    ("requested", "status", "after", "due", "later"),
    [
        ("", {}, 0, None, None),
        ("1", {}, 0, NOW, None),
        ("1", SERVED, 0, None, None),
        ("2", SERVED, 1, NOW + INTERVAL, NOW + INTERVAL),
        ("2", SERVED, 60, NOW + INTERVAL, None),
    ],
)
def test_when_a_request_is_due(requested: str, status: Fields, after: float, due: Any, later: Any) -> None:
    now = NOW + seconds(after)
    found = requests.due_of(build.zone(requested_at=requested, status=status), now)
    assert found == due
    assert requests.later(found, now) == later
    assert requests.is_due(found, now) is (due is not None and later is None)
