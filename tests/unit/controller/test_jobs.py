"""The manifest of a download Job: pinned, owned, named, labelled, without secrets; and the document that it carries."""

import copy
import json
import pathlib
import re
from typing import Any

import pytest
import yaml
from tests.unit.planning import build

from directdownload.controller import jobs, world
from directdownload.planning.observed import PlacementView, project_placement
from directdownload.planning.plans import Surroundings
from directdownload.planning.slots import Group
from directdownload.resources import naming
from directdownload.resources.jobs import JOB_ENVIRONMENT_VARIABLE, JobDocument, Verb

SKELETON: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {"app.kubernetes.io/name": "direct-download-operator"}, "annotations": {"a": "b"}},
    "spec": {
        "backoffLimit": 0,
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": "direct-download-operator"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {"name": "proxy", "image": "another", "env": [{"name": "A", "value": "1"}]},
                    {"name": "download", "image": "ours", "env": [{"name": "HTTPS_PROXY", "value": "http://p"}]},
                ],
            },
        },
    },
}
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PLACEMENT = build.placement()
GROUPS = (Group("zone/zone-1", 20), Group("host/kvm-1", 0))


def made(
    placement: PlacementView = PLACEMENT,
    around: Surroundings | None = None,
    verb: Verb = Verb.FETCH,
    attempt: int = 3,
    active: int = 0,
) -> dict[str, Any]:
    document = jobs.document(placement, around or build.around(), verb, active)
    return jobs.manifest(SKELETON, "direct-download", placement, document, attempt, GROUPS)


def carried(body: dict[str, Any]) -> JobDocument:
    """The document as the job will read it."""
    container = body["spec"]["template"]["spec"]["containers"][1]
    (value,) = (entry["value"] for entry in container["env"] if entry["name"] == JOB_ENVIRONMENT_VARIABLE)
    return JobDocument.model_validate_json(value)


def test_it_is_pinned_owned_and_told_what_to_do() -> None:
    before = copy.deepcopy(SKELETON)
    body = made()
    assert before == SKELETON, "the template is for all jobs"
    assert body["metadata"]["name"] == f"{PLACEMENT.key}-fetch-3"
    assert body["metadata"]["namespace"] == "direct-download"
    assert body["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "directdownload.dev/v1alpha1",
            "kind": "TemplatePlacement",
            "name": PLACEMENT.key,
            "uid": PLACEMENT.uid,
            "controller": True,
        }
    ]
    pod = body["spec"]["template"]["spec"]
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    expected = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["kvm-1"]}]}]
    assert required["nodeSelectorTerms"] == expected
    assert "nodeName" not in pod
    proxy, download = pod["containers"]
    assert proxy == SKELETON["spec"]["template"]["spec"]["containers"][0]
    assert download["args"] == ["job", "fetch"]
    assert [entry["name"] for entry in download["env"]] == ["HTTPS_PROXY", JOB_ENVIRONMENT_VARIABLE]
    assert body["spec"]["backoffLimit"] == 0
    assert body["metadata"]["annotations"] == {
        "a": "b",
        world.VERB_ANNOTATION: "fetch",
        world.ATTEMPT_ANNOTATION: "3",
        world.PLACEMENT_UID_ANNOTATION: PLACEMENT.uid,
        world.GROUPS_ANNOTATION: "zone/zone-1 host/kvm-1",
    }


def test_what_selects_it_stands_on_the_job_and_on_its_pod() -> None:
    body = made()
    expected = {
        "app.kubernetes.io/name": "direct-download-operator",
        "app.kubernetes.io/managed-by": "direct-download-operator",
        "app.kubernetes.io/component": "job",
        "directdownload.dev/placement": PLACEMENT.key,
        "directdownload.dev/host": "kvm-1",
        "directdownload.dev/zone": "zone-1",
        "directdownload.dev/pool": "local",
        "directdownload.dev/template": "debian-13",
        "directdownload.dev/template-namespace": "default",
    }
    assert body["metadata"]["labels"] == body["spec"]["template"]["metadata"]["labels"] == expected


NAMES = ["a", "kvm-1", "kvm-1.rack-2.example.org", "a." * 126 + "a", "x" * 253, "9" * 30 + "." + "y" * 200]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", list(Verb))
def test_names_of_any_length_give_valid_names_and_labels(name: str, verb: Verb) -> None:
    document = build.placement_document()
    key = naming.placement_name(name, build.TEMPLATE_UID, name, name)
    document["metadata"]["name"] = key
    document["spec"].update(zone=name, pool=name, host=name)
    document["spec"]["templateRef"]["name"] = name
    placement = project_placement(document)
    around = build.around(host=build.host(name, zone=name), zone=build.zone(name), pool=build.pool(name, zone=name))
    body = made(placement, around, verb, attempt=99_999)
    assert DNS_LABEL.fullmatch(key)
    assert DNS_LABEL.fullmatch(body["metadata"]["name"])
    for labels in (body["metadata"]["labels"], body["spec"]["template"]["metadata"]["labels"]):
        assert all(LABEL_VALUE.fullmatch(value) for value in labels.values()), labels
    term = body["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    assert term["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0]["matchFields"][0][
        "values"
    ] == [name]
    assert carried(body).host == name


def test_the_document_says_all_that_the_zone_the_pool_and_the_template_say() -> None:
    zone = build.zone(
        spec={
            "timeouts": {"connect": "1s", "socket": "2s", "connectionRequest": "3s"},
            "downloads": {
                "bandwidthPerHost": "100Mi",
                "maxParallelPerHost": 4,
                "deadline": "1h",
                "maxSize": "10Gi",
                "maxVirtualSize": "20Gi",
            },
            "sourcePolicy": {
                "protocols": ["HTTPS"],
                "allowedHosts": ["*.example.org"],
                "allowedCIDRs": ["10.0.0.0/8"],
                "maxRedirects": 2,
                "requireChecksum": True,
                "requireDirect": True,
                "minimumChecksum": "SHA-256",
            },
        }
    )
    pool = build.pool(spec={"reserve": "20Gi", "file": {"uid": 64055, "gid": 108, "mode": "0640"}, **build.SHARED})
    template = build.template(
        spec={"mirrors": ["https://m.example.org/d"], "checksum": build.DIGEST, "format": "ISO"},
        status={"digest": "sha256:learnt"},
    )
    found = carried(made(around=build.around(zone=zone, pool=pool, template=template), active=1000))
    assert found.model_dump() == {
        "version": 1,
        "verb": Verb.FETCH,
        "placement": PLACEMENT.key,
        "placementUid": PLACEMENT.uid,
        "templateUid": build.TEMPLATE_UID,
        "host": "kvm-1",
        "pool": {
            "name": "local",
            "path": build.POOL_PATH,
            "shared": True,
            "roots": (build.ROOT,),
            "reserve": "20Gi",
            "file": {"uid": 64055, "gid": 108, "mode": "0640"},
        },
        "fileName": build.TEMPLATE_UID,
        "url": "https://images.example.org/debian-13.qcow2",
        "mirrors": ("https://m.example.org/d",),
        "checksum": build.DIGEST,
        "expectedDigest": "sha256:learnt",
        "format": "ISO",
        "timeouts": {"connectSeconds": 1, "socketSeconds": 2, "connectionRequestSeconds": 3},
        "limits": {
            "bandwidthBytesPerSecond": 26214400,
            "deadlineSeconds": 3600,
            "maxSizeBytes": 10 * 2**30,
            "maxVirtualSizeBytes": 20 * 2**30,
            "progressIntervalSeconds": 20,
        },
        "policy": {
            "protocols": ("HTTPS",),
            "allowedHosts": ("*.example.org",),
            "allowedCIDRs": ("10.0.0.0/8",),
            "maxRedirects": 2,
            "requireChecksum": True,
            "requireDirect": True,
            "minimumChecksum": "SHA-256",
        },
        "trustBundle": jobs.TRUST_BUNDLE,
    }


@pytest.mark.parametrize(("active", "seconds"), [(0, 2), (1, 2), (100, 2), (101, 2.02), (5000, 100)])
def test_progress_is_paced_by_what_runs(active: int, seconds: float) -> None:
    assert carried(made(active=active)).limits.progress_interval_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("parallel", "rate"), [(0, 1000), (1, 1000), (3, 333)])
def test_the_bandwidth_of_a_host_is_shared_by_its_downloads(parallel: int, rate: int) -> None:
    zone = build.zone(spec={"downloads": {"bandwidthPerHost": 1000, "maxParallelPerHost": parallel}})
    assert carried(made(around=build.around(zone=zone))).limits.bandwidth_bytes_per_second == rate


def test_a_removal_needs_nothing_around_it() -> None:
    found = carried(made(around=Surroundings(None, None, None, None), verb=Verb.REMOVE))
    assert (found.verb, found.pool.path, found.file_name) == (Verb.REMOVE, build.POOL_PATH, build.TEMPLATE_UID)
    assert f"{found.pool.path}/{found.file_name}" == PLACEMENT.path


def test_no_secret_and_no_credentials_reach_the_job() -> None:
    template = build.template(spec={"headersSecretRef": {"name": "hush"}, "details": {"note": "hush"}})
    host = build.host(spec={"keystore": {"path": "/etc/hush.jks", "passwordFrom": {"file": "/etc/hush"}}})
    body = made(around=build.around(template=template, host=host))
    assert "hush" not in json.dumps(body)
    assert body["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in body["spec"]["template"]["spec"]


def test_a_template_without_metadata_will_do(tmp_path: pathlib.Path) -> None:
    bare = {"kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "download", "image": "x"}]}}}}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(bare))
    document = jobs.document(PLACEMENT, build.around(), Verb.VERIFY, 0)
    body = jobs.manifest(jobs.load_template(path), "ns", PLACEMENT, document, 1, ())
    assert body["spec"]["template"]["spec"]["containers"][0]["args"] == ["job", "verify"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "kind: Job",
        "kind: Job\nspec: {template: {spec: {containers: []}}}",
        "kind: Job\nspec: {template: {spec: {containers: [{name: other}]}}}",
        "kind: Pod\nspec: {template: {spec: {containers: [{name: download}]}}}",
        "kind: Job\nspec: {template: {spec: {containers: null}}}",
    ],
)
def test_what_is_no_job_is_refused_by_name(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected a batch/v1 Job .* named download"):
        jobs.load_template(path)
