"""Job documents across versions: each side may be older than the other within a release line (`tests/recorded`)."""

import json
import pathlib
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload.controller import jobs
from directdownload.planning.plans import Surroundings
from directdownload.resources.jobs import JobDocument, Verb

RECORDED = pathlib.Path(__file__).parent.parent.parent / "recorded"
DOCUMENTS: dict[str, dict[str, Any]] = json.loads((RECORDED / "jobs.json").read_text())
FLEET = json.loads((RECORDED / "0.1.0" / "fleet.json").read_text())
EVERYTHING = {
    "timeouts": {"connect": "1s", "socket": "2.5s", "connectionRequest": "1m"},
    "downloads": {
        "bandwidthPerHost": "100Mi",
        "minimumRate": "1Mi",
        "maxParallelPerHost": 4,
        "deadline": "1h",
        "maxSize": "10Gi",
        "maxVirtualSize": "20Gi",
        "connectionsPerSource": 4,
    },
    "sourcePolicy": {
        "protocols": ["HTTPS", "NFS"],
        "allowedHosts": ["*.example.org"],
        "allowedCIDRs": ["10.0.0.0/8"],
        "nfsExports": ["nas:/e"],
        "nfsUser": {"uid": 0, "gid": 100},
        "maxRedirects": 2,
        "requireChecksum": True,
        "requireDirect": True,
        "minimumChecksum": "SHA-256",
    },
}
SOME = {
    "timeouts": {"socket": "30s"},
    "sourcePolicy": {"nfsExports": ["nas:/e"], "nfsUser": {"gid": 100}},
    "downloads": {"minimumRate": "0", "deadline": "0"},
}


def written(name: str) -> JobDocument:
    """As this controller makes the document that was recorded under `name`."""
    placement, zone = build.placement(), build.zone(spec=EVERYTHING)
    spec = {"mirrors": ["https://m.example.org/d"], "checksum": build.DIGEST, "format": "ISO"}
    template = build.template(spec={**spec, "headersSecretRef": {"name": "t"}}, status={"digest": build.DIGEST})
    pool = build.pool(spec={"reserve": "20Gi", "file": {"uid": 64055, "gid": 108, "mode": "0640"}, **build.SHARED})
    around = build.around(zone=zone, pool=pool, template=template)
    if name == "every field":
        return jobs.document(placement, around, Verb.FETCH, 1000)
    if name == "some fields":
        pool = build.pool(spec={"file": {"mode": "0600"}})
        return jobs.document(placement, build.around(zone=build.zone(spec=SOME), pool=pool), Verb.FETCH, 0)
    if name == "defaults":
        return jobs.document(placement, build.around(), Verb.FETCH, 0)
    if name == "verification":
        return jobs.document(build.placement(phase="Ready", **build.file_status()), around, Verb.VERIFY, 1)
    if name == "removal":
        return jobs.document(placement, Surroundings(None, None, None, None), Verb.REMOVE, 0)
    if name == "probe":
        return jobs.probe_document(template, zone, "kvm-1")
    assert name == "probe by defaults"
    return jobs.probe_document(build.template(), build.zone(), "kvm-1")


def carried(body: dict[str, Any]) -> dict[str, Any]:
    (container,) = body["spec"]["template"]["spec"]["containers"]
    (value,) = (entry["value"] for entry in container["env"] if entry["name"] == "DIRECTDOWNLOAD_JOB")
    return dict(json.loads(value))


def holds(found: Any, expected: Any) -> bool:
    """Whether `found` has all that is `expected`, and perhaps fields that are newer."""
    if not isinstance(expected, dict):
        return bool(found == expected)
    return all(name in found and holds(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_job_reads_what_an_earlier_controller_wrote(name: str) -> None:
    found = JobDocument.read(json.dumps(DOCUMENTS[name]["document"]))
    assert holds(found.model_dump(mode="json"), DOCUMENTS[name]["read"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_earlier_job_reads_what_this_controller_writes(name: str) -> None:
    """It refuses a field that it does not know, and takes its own default for one that is absent."""
    assert json.loads(written(name).model_dump_json(exclude_defaults=True)) == DOCUMENTS[name]["document"]


@pytest.mark.parametrize(
    "document", [carried(job) for job in FLEET["jobs"]], ids=lambda document: document["placement"]
)
def test_a_job_reads_what_a_controller_of_0_1_0_wrote(document: dict[str, Any]) -> None:
    found = JobDocument.read(json.dumps(document))
    assert holds(found.model_dump(mode="json"), document)
    assert json.loads(found.model_dump_json(exclude_defaults=True)) == document
