"""When what is known of the host is written."""

import datetime
from typing import Any

import pytest

from directdownload.agent.keystore.report import NOTHING, KeystoreReport
from directdownload.agent.status import host
from directdownload.resources.host import (
    Demand,
    HostCertificate,
    HostStorage,
    KeystoreStatus,
    UnplacedFile,
)
from directdownload.resources.peeridentity import PeerRequest
from directdownload.resources.reasons import Reason

GIB = 1024**3


def report(uid: str = "u", **pools: int) -> host.Report:
    facts = {
        name: HostStorage(pool=name, path="/p", capacity_bytes=100 * GIB, available_bytes=available, writable=True)
        for name, available in pools.items()
    }
    return host.Report(uid, facts, NOTHING)


def listing(*names: str, size: int = 1, known: bool = True) -> host.Report:
    """One pool, and what lies in it that belongs to nobody."""
    files = tuple(UnplacedFile(name=name, size_bytes=size, state="Published") for name in names)
    facts = HostStorage(pool="a", writable=True, unplaced=files, unplaced_bytes=size * len(files) if known else None)
    return host.Report("u", {"a": facts}, NOTHING)


def proven(*names: str) -> host.Report:
    certificates = tuple(HostCertificate(name=name, state="Revoked") for name in names)
    return host.Report("u", {}, KeystoreReport(KeystoreStatus(managed=0), certificates, None))


def demanding(**volumes: int) -> host.Report:
    """Number of volumes by template."""
    demands = tuple(
        Demand(namespace="web", template=name, since=TIME, volumes=number, last_used_time=None if number else TIME)
        for name, number in volumes.items()
    )
    return host.Report("u", {}, NOTHING, demands)


def asking(signing_key: str) -> host.Report:
    request = PeerRequest(csr="a", client_csr="b", signing_key=signing_key)
    return host.Report("u", {}, NOTHING, peer_request=request)


TIME = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.UTC)
TOLD = report(a=50 * GIB, b=50 * GIB)


@pytest.mark.parametrize(
    ("told", "now", "told_seconds_ago", "due"),
    [
        pytest.param(None, report(), 0, 0.0, id="never told"),
        pytest.param(TOLD, report("v", a=50 * GIB, b=50 * GIB), 1, 0.0, id="another Host of that name"),
        pytest.param(TOLD, report(a=50 * GIB), 1, 0.0, id="a pool went"),
        pytest.param(TOLD, report(a=50 * GIB, b=50 * GIB, c=1), 1, 0.0, id="a pool came"),
        pytest.param(TOLD, report(a=50 * GIB, b=40 * GIB), 1, 0.0, id="much was written"),
        pytest.param(TOLD, report(a=50 * GIB, b=50 * GIB), 10_000, None, id="nothing changed"),
        pytest.param(TOLD, report(a=50 * GIB, b=50 * GIB - 1), 100, 200.0, id="a little was written"),
        pytest.param(TOLD, report(a=50 * GIB, b=50 * GIB - 1), 400, 0.0, id="a little was written long ago"),
        pytest.param(report(), asking("a"), 1, 0.0, id="keys for peers came"),
        pytest.param(asking("a"), asking("b"), 1, 0.0, id="other keys for peers"),
        pytest.param(asking("a"), asking("a"), 1, None, id="the same keys for peers"),
        pytest.param(proven("x"), proven("x", "y"), 1, 0.0, id="a certificate more"),
        pytest.param(proven("x"), proven("x"), 10_000, None, id="the same certificates"),
        pytest.param(listing(), listing("x"), 10, 50.0, id="a file lost its placement"),
        pytest.param(listing(), listing("x"), 70, 0.0, id="a file lost its placement, long since the last report"),
        pytest.param(listing("x"), listing(), 10, 50.0, id="a file went"),
        pytest.param(listing(known=False), listing(), 10, 50.0, id="the first look around"),
        pytest.param(listing("x"), listing("x", size=9 * GIB), 10, 290.0, id="a file grew"),
        pytest.param(report(), demanding(), 1, 0.0, id="volumes are possible"),
        pytest.param(demanding(), demanding(x=1), 1, 0.0, id="the first volume of a template"),
        pytest.param(demanding(x=1), demanding(x=0), 1, 0.0, id="the last volume went"),
        pytest.param(demanding(x=0), demanding(x=1), 1, 0.0, id="a volume came back"),
        pytest.param(demanding(x=0), demanding(), 1, 0.0, id="a demand was released"),
        pytest.param(demanding(x=1), demanding(y=1), 1, 0.0, id="another template"),
        pytest.param(demanding(x=1), demanding(x=2), 1, 9.0, id="a volume more"),
        pytest.param(demanding(x=2), demanding(x=1), 11, 0.0, id="a volume less, long since the last report"),
        pytest.param(demanding(x=1, y=1), demanding(y=1, x=1), 1, 9.0, id="another order"),
        pytest.param(demanding(x=1), demanding(x=1), 10_000, None, id="the same volumes"),
    ],
)
def test_due(told: host.Report | None, now: host.Report, told_seconds_ago: float, due: Any) -> None:
    assert host.due_seconds(told, now, told_seconds_ago, 300) == due


def test_the_status_holds_all_fields_that_the_agent_owns_in_a_stable_order() -> None:
    status = report(b=1, a=2).status
    assert set(status) == {"agentVersion", "storage", "certificates", "conditions"}
    assert set(proven("x").status) == {*status, "keystore"}
    assert [pool["pool"] for pool in status["storage"]] == ["a", "b"]
    assert status["storage"][0] == {
        "pool": "a",
        "path": "/p",
        "capacityBytes": 100 * GIB,
        "availableBytes": 2,
        "writable": True,
    }
    (listed,) = listing("x", size=7).status["storage"]
    assert listed["unplaced"] == [{"name": "x", "sizeBytes": 7, "state": "Published"}]
    assert listed["unplacedBytes"] == 7
    assert listing().status["storage"][0]["unplacedBytes"] == 0, "nothing is something else than not looked at"


def test_demands_are_part_of_the_status_only_with_a_plugin() -> None:
    assert "demands" not in report().status
    assert demanding().status["demands"] == [], "no volumes are something else than no plugin"
    assert demanding(x=0, y=2).status["demands"] == [
        {
            "namespace": "web",
            "template": "x",
            "uid": "",
            "since": "2025-01-31T12:00:00Z",
            "volumes": 0,
            "lastUsedTime": "2025-01-31T12:00:00Z",
        },
        {"namespace": "web", "template": "y", "uid": "", "since": "2025-01-31T12:00:00Z", "volumes": 2},
    ]


POOL = HostStorage(
    pool="p",
    path="/a",
    capacity_bytes=100 * GIB,
    available_bytes=50 * GIB,
    inodes_free=1000,
    writable=True,
    mounted=True,
)


@pytest.mark.parametrize(
    ("change", "significant"),
    [
        ({}, False),
        ({"available_bytes": 50 * GIB - 1}, False),
        ({"unplaced": (UnplacedFile(name="x", size_bytes=1, state="Published"),), "unplaced_bytes": 1}, False),
        ({"available_bytes": 51 * GIB - 1}, False),
        ({"available_bytes": 51 * GIB}, True),
        ({"available_bytes": 49 * GIB}, True),
        ({"capacity_bytes": 101 * GIB}, True),
        ({"inodes_free": 951}, False),
        ({"inodes_free": 950}, True),
        ({"writable": False}, True),
        ({"mounted": False}, True),
        ({"reason": Reason.NOT_WRITABLE}, True),
    ],
)
def test_what_is_told_at_once(change: dict[str, Any], significant: bool) -> None:
    assert host.significant(POOL, POOL.model_copy(update=change)) is significant
    assert host.significant(None, POOL)
