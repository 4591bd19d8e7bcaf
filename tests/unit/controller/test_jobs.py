"""The manifest of a download Job: pinned, owned, named, labelled, without secrets; and the document that it carries."""

import copy
import dataclasses
import json
import pathlib
import re
from typing import Any

import pytest
import yaml
from tests.unit.planning import build

from directdownload.controller import jobs, world
from directdownload.planning.observed import PlacementView
from directdownload.planning.plans import Surroundings
from directdownload.planning.slots import Group
from directdownload.resources import naming
from directdownload.resources.jobs import JOB_ENVIRONMENT_VARIABLE, JobDocument, JobPeers, PeerRole, Verb
from directdownload.resources.template import Template
from directdownload.resources.zone import Zone

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
    skeleton: dict[str, Any] = SKELETON,
) -> dict[str, Any]:
    document = jobs.document(placement, around or build.around(), verb, active)
    return jobs.manifest(skeleton, "direct-download", placement, document, attempt, GROUPS)


def carried(body: dict[str, Any]) -> JobDocument:
    """The document as the job will read it."""
    container = body["spec"]["template"]["spec"]["containers"][1]
    (value,) = (entry["value"] for entry in container["env"] if entry["name"] == JOB_ENVIRONMENT_VARIABLE)
    return JobDocument.read(value)


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


def test_it_carries_the_request_that_it_serves() -> None:
    asked = made(dataclasses.replace(PLACEMENT, requested_at="now"))
    assert asked["metadata"]["annotations"]["directdownload.dev/requested-at"] == "now"


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
@pytest.mark.parametrize("verb", [Verb.FETCH, Verb.VERIFY, Verb.REMOVE])
def test_names_of_any_length_give_valid_names_and_labels(name: str, verb: Verb) -> None:
    document = build.placement_document()
    key = naming.placement_name(name, build.TEMPLATE_UID, name, name)
    document["metadata"]["name"] = key
    document["spec"].update(zone=name, pool=name, host=name)
    document["spec"]["templateRef"]["name"] = name
    placement = build.VIEWS.placement(document)
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
                "minimumRate": "1Mi",
                "maxParallelPerHost": 4,
                "deadline": "1h",
                "maxSize": "10Gi",
                "maxVirtualSize": "20Gi",
            },
            "sourcePolicy": {
                "protocols": ["HTTPS"],
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
        "publishedDigest": "",
        "publishedRevision": "",
        "removeMentioned": False,
        "sealDirectory": "/var/lib/directdownload/seals",
        "format": "ISO",
        "timeouts": {"connectSeconds": 1, "socketSeconds": 2, "connectionRequestSeconds": 3},
        "limits": {
            "bandwidthBytesPerSecond": 26214400,
            "minimumBytesPerSecond": 2**20,
            "deadlineSeconds": 3600,
            "maxSizeBytes": 10 * 2**30,
            "maxVirtualSizeBytes": 20 * 2**30,
            "progressIntervalSeconds": 20,
            "connections": 0,
        },
        "policy": {
            "protocols": ("HTTPS",),
            "allowedHosts": ("*.example.org",),
            "allowedCIDRs": ("10.0.0.0/8",),
            "nfsExports": ("nas:/e",),
            "nfsUser": {"uid": 0, "gid": 100},
            "maxRedirects": 2,
            "requireChecksum": True,
            "requireDirect": True,
            "minimumChecksum": "SHA-256",
        },
        "trustBundle": jobs.TRUST_BUNDLE,
        "headersDirectory": "",
        "peers": None,
    }


@pytest.mark.parametrize(("active", "seconds"), [(0, 2), (1, 2), (100, 2), (101, 2.02), (5000, 100)])
def test_progress_is_paced_by_what_runs(active: int, seconds: float) -> None:
    assert carried(made(active=active)).limits.progress_interval_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("of_zone", "of_template", "expected"),
    [(0, 0, 0), (4, 0, 4), (0, 4, 4), (2, 4, 2), (4, 2, 2), (16, 0, 8), (0, 16, 8)],
)
def test_the_lower_count_of_connections_counts(of_zone: int, of_template: int, expected: int) -> None:
    """More than 8 may come from a version of tomorrow."""
    zone = build.zone(spec={"downloads": {"connectionsPerSource": of_zone}})
    template = build.template(spec={"connectionsPerSource": of_template})
    around = build.around(zone=zone, template=template)
    assert carried(made(around=around)).limits.connections == expected


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
    for body in (made(around=build.around(template=template, host=host)), probed(template)):
        assert "hush" not in json.dumps(body)
    assert body["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in body["spec"]["template"]["spec"]


# --- probes

POOLED = copy.deepcopy(SKELETON)
POOLED["spec"]["template"]["spec"]["volumes"] = [
    {"name": "trust", "hostPath": {"path": "/var/lib/directdownload/trust"}},
    {"name": "pool-root-0", "hostPath": {"path": "/var/lib/libvirt/images"}},
    {"name": "pool-root-1", "hostPath": {"path": "/srv/pools/"}},
    {"name": "pool-root-2", "hostPath": {"path": "/var/lib/"}},
    {"name": "seals", "hostPath": {"path": "/var/lib/directdownload/seals"}},
    {"name": "tmp", "emptyDir": {}},
]
POOLED["spec"]["template"]["spec"]["containers"][1] |= {
    "volumeMounts": [{"name": name} for name in ("trust", "tmp", "pool-root-0", "pool-root-1", "pool-root-2", "seals")],
    "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["CHOWN", "SETUID", "SETGID"]}},
}


def probed(
    template: Template | None = None, skeleton: dict[str, Any] | None = None, zone: Zone | None = None
) -> dict[str, Any]:
    template = template or build.template()
    document = jobs.probe_document(template, zone or build.zone(), "kvm-1")
    return jobs.probe_manifest(skeleton or SKELETON, "direct-download", template, build.host(), document, 3, "told")


def test_a_probe_belongs_to_no_placement_and_is_pinned_like_any_job() -> None:
    before = copy.deepcopy(SKELETON)
    body = probed(build.template(requested_at="tomorrow", status={"lastHandledRequest": "today"}))
    assert before == SKELETON
    name = naming.probe_name("debian-13", build.TEMPLATE_UID)
    metadata = body["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (f"{name}-probe-3", "direct-download")
    assert "ownerReferences" not in metadata, "an owner in another namespace would have it collected at once"
    assert metadata["annotations"] == {
        "a": "b",
        world.VERB_ANNOTATION: "probe",
        world.ATTEMPT_ANNOTATION: "3",
        world.GROUPS_ANNOTATION: "probes",
        world.HOST_ANNOTATION: "kvm-1",
        world.INPUTS_ANNOTATION: "told",
        "directdownload.dev/requested-at": "today",
    }
    assert metadata["labels"] == body["spec"]["template"]["metadata"]["labels"]
    assert metadata["labels"]["directdownload.dev/probe"] == name
    assert "directdownload.dev/placement" not in metadata["labels"]
    pod = body["spec"]["template"]["spec"]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"][0]["values"] == ["kvm-1"]
    assert pod["containers"][1]["args"] == ["job", "probe"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_length_give_a_probe_valid_names_and_labels(name: str) -> None:
    body = probed(build.template(name))
    assert DNS_LABEL.fullmatch(body["metadata"]["name"])
    assert all(LABEL_VALUE.fullmatch(value) for value in body["metadata"]["labels"].values())


def test_a_probe_is_told_what_a_download_is_told_but_no_pool() -> None:
    zone = build.zone(
        spec={
            "timeouts": {"connect": "1s"},
            "downloads": {"maxSize": "10Gi", "maxVirtualSize": "20Gi", "deadline": "1h"},
            "sourcePolicy": {"allowedCIDRs": ["10.0.0.0/8"], "requireDirect": True},
        }
    )
    template = build.template(spec={"mirrors": ["https://m.example.org/d"], "checksum": build.DIGEST})
    found = carried(probed(template, zone=zone))
    fetch = carried(made(around=build.around(zone=zone, template=template)))
    assert (found.verb, found.host, found.template_uid) == (Verb.PROBE, "kvm-1", build.TEMPLATE_UID)
    assert (found.placement, found.placement_uid, found.pool.path, found.file_name) == ("", "", "", "")
    same = ("url", "mirrors", "checksum", "format", "timeouts", "policy", "trust_bundle")
    assert [getattr(found, field) for field in same] == [getattr(fetch, field) for field in same]
    assert (found.limits.max_size_bytes, found.limits.max_virtual_size_bytes) == (10 * 2**30, 20 * 2**30)
    assert found.limits.deadline_seconds == 120


@pytest.mark.parametrize(("deadline", "expected"), [("0", 120), ("30s", 30), ("12h", 120)])
def test_a_probe_never_takes_longer_than_a_download_may(deadline: str, expected: int) -> None:
    body = probed(zone=build.zone(spec={"downloads": {"deadline": deadline}}))
    assert carried(body).limits.deadline_seconds == expected
    assert body["spec"]["activeDeadlineSeconds"] == expected + 600


def test_a_probe_gets_no_pool_and_no_capability_but_to_give_up_root() -> None:
    pod = probed(skeleton=POOLED)["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["trust", "tmp"]
    container = pod["containers"][1]
    assert [mount["name"] for mount in container["volumeMounts"]] == ["trust", "tmp"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SETUID", "SETGID"]}


def test_a_job_mounts_the_root_of_its_own_pool_alone() -> None:
    document = jobs.document(PLACEMENT, build.around(), Verb.FETCH, 0)
    fetch = jobs.manifest(POOLED, "ns", PLACEMENT, document, 1, GROUPS)["spec"]["template"]["spec"]
    assert [volume["name"] for volume in fetch["volumes"]] == ["trust", "pool-root-0", "seals", "tmp"]
    container = fetch["containers"][1]
    assert [mount["name"] for mount in container["volumeMounts"]] == ["trust", "tmp", "pool-root-0", "seals"]
    assert container["securityContext"]["capabilities"]["add"] == ["CHOWN", "SETUID", "SETGID"]


@pytest.mark.parametrize(
    ("pool", "root"),
    [
        ("/var/lib/libvirt/images", "pool-root-0"),
        ("/var/lib/libvirt/images/nfs", "pool-root-0"),
        ("/srv/pools", "pool-root-1"),
        ("/srv/pools/a", "pool-root-1"),
        ("/var/lib/other", "pool-root-2"),
        ("/var/lib/libvirt/images-2", "pool-root-2"),
        # One that no root contains: the path of another root begins alike.
        ("/srv/pools-2/a", None),
    ],
)
@pytest.mark.parametrize("verb", [Verb.FETCH, Verb.VERIFY, Verb.REMOVE])
def test_a_root_that_a_host_lacks_hangs_no_job_of_other_pools(pool: str, root: str | None, verb: Verb) -> None:
    placed = dataclasses.replace(PLACEMENT, path=f"{pool}/{build.TEMPLATE_UID}")
    document = jobs.document(placed, build.around(), verb, 0)
    pod = jobs.manifest(POOLED, "ns", placed, document, 1, GROUPS)["spec"]["template"]["spec"]
    expected = [root] if root is not None else []
    assert [v["name"] for v in pod["volumes"] if v["name"].startswith("pool-root-")] == expected
    mounts = [m["name"] for m in pod["containers"][1]["volumeMounts"] if m["name"].startswith("pool-root-")]
    assert mounts == expected
    assert {"trust", "seals", "tmp"} <= {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize(("value", "told"), [("true", True), ("yes", False), (None, False)])
def test_only_a_removal_is_told_that_a_mention_does_not_count(value: str | None, told: bool) -> None:
    annotations = {"directdownload.dev/remove-mentioned": value} if value else {}
    placed = build.placement(phase="Removing", annotations=annotations)
    for verb, expected in ((Verb.REMOVE, told), (Verb.VERIFY, False)):
        assert jobs.document(placed, build.around(), verb, 0).remove_mentioned is expected


def test_a_verification_is_told_what_was_published_and_a_fetch_is_not() -> None:
    def told(verb: Verb, **file: str) -> tuple[str, str]:
        known = build.file_status()["file"]
        placed = build.placement(phase="Ready", status={"file": {**known, **file}})
        found = jobs.document(placed, build.around(), verb, 0)
        return found.published_digest, found.published_revision

    assert told(Verb.VERIFY, publishedDigest=build.DIGEST) == (build.DIGEST, "")
    assert told(Verb.VERIFY) == ("", "r1"), "a copy of 0.1.0"
    assert told(Verb.FETCH, publishedDigest=build.DIGEST) == ("", "")


# --- headers

WITH_HEADERS = {"headersSecretRef": {"name": "hush"}}


def headers_of(body: dict[str, Any]) -> tuple[str, list[Any], list[Any]]:
    """What names the copy: the annotation, the volumes and the mounts."""
    pod = body["spec"]["template"]["spec"]
    return (
        body["metadata"]["annotations"].get(world.HEADERS_ANNOTATION, ""),
        [volume for volume in pod.get("volumes", ()) if "secret" in volume],
        [mount for mount in pod["containers"][1].get("volumeMounts", ()) if mount["name"] == "origin-headers"],
    )


@pytest.mark.parametrize("verb", ["fetch", "probe"])
def test_a_job_that_asks_the_source_mounts_its_own_copy_of_the_headers(verb: str) -> None:
    template = build.template(spec=WITH_HEADERS)
    body = probed(template) if verb == "probe" else made(around=build.around(template=template))
    name, volumes, mounts = headers_of(body)
    assert name.startswith(f"{body['metadata']['name']}-")
    assert LABEL_VALUE.fullmatch(name[:63])
    assert len(name) <= 253
    assert volumes == [{"name": "origin-headers", "secret": {"secretName": name, "defaultMode": 0o400}}]
    directory = "/var/run/directdownload/headers"
    assert mounts == [{"name": "origin-headers", "mountPath": directory, "readOnly": True}]
    assert carried(body).headers_directory == directory


@pytest.mark.parametrize(
    "body",
    [
        made(around=build.around(template=build.template(spec=WITH_HEADERS)), verb=Verb.VERIFY),
        made(around=build.around(template=build.template(spec=WITH_HEADERS)), verb=Verb.REMOVE),
        made(),
        probed(),
    ],
    ids=["verify", "remove", "fetch without", "probe without"],
)
def test_no_other_job_gets_headers(body: dict[str, Any]) -> None:
    assert headers_of(body) == ("", [], [])
    assert carried(body).headers_directory == ""


def test_the_copies_of_two_placements_of_one_name_differ() -> None:
    template = build.template(spec=WITH_HEADERS)
    one, other = (
        made(build.VIEWS.placement(build.placement_document(uid=uid)), build.around(template=template))
        for uid in ("first", "second")
    )
    assert one["metadata"]["name"] == other["metadata"]["name"]
    assert headers_of(one)[0] != headers_of(other)[0]


# --- NFS

EXPORTS = {"nfsExports": ["nas:/e"]}
WITH_NFS = build.zone(spec={"sourcePolicy": EXPORTS})

LOW_PORTS = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}


@pytest.mark.parametrize(
    ("spec", "policy", "verb", "expected"),
    [
        ({"url": "nfs://nas/e/a.qcow2"}, {}, Verb.FETCH, True),
        ({"url": "NFS://nas/e/a.qcow2"}, {}, Verb.FETCH, True),
        ({"mirrors": ["nfs://nas/e/a.qcow2"]}, {}, Verb.FETCH, True),
        ({"url": "https://images.example.org/a.Meta4?x=1"}, {}, Verb.FETCH, True),
        ({"mirrors": ["https://images.example.org/a.metalink"]}, {}, Verb.FETCH, True),
        ({}, {}, Verb.FETCH, False),
        ({"url": "https://images.example.org/nfs/a.meta4.qcow2"}, {}, Verb.FETCH, False),
        ({"url": "nfs://nas/e/a.qcow2"}, {"protocols": ["HTTPS"]}, Verb.FETCH, False),
        ({"url": "nfs://nas/e/a.qcow2"}, {"nfsExports": []}, Verb.FETCH, False),
        ({"url": "https://images.example.org/a.meta4"}, {"nfsExports": []}, Verb.FETCH, False),
        ({"url": "nfs://nas/e/a.qcow2"}, {}, Verb.VERIFY, False),
        ({"url": "nfs://nas/e/a.qcow2"}, {}, Verb.REMOVE, False),
    ],
)
def test_a_pod_that_may_use_nfs_may_take_low_ports(
    spec: dict[str, Any], policy: dict[str, Any], verb: Verb, expected: bool
) -> None:
    zone = build.zone(spec={"sourcePolicy": {**EXPORTS, **policy}})
    template = build.template(spec=spec)
    found = made(around=build.around(zone=zone, template=template), verb=verb)["spec"]["template"]["spec"]
    assert found.get("securityContext", {}).get("sysctls", []) == ([LOW_PORTS] if expected else [])
    if verb is Verb.FETCH:
        pod = probed(template, zone=zone)["spec"]["template"]["spec"]
        assert pod.get("securityContext") == found.get("securityContext")


def test_on_the_network_of_the_host_a_capability_takes_the_place_of_the_sysctl() -> None:
    """The API server refuses the sysctl there; a probe has this one capability and none of those for pools."""
    skeleton = copy.deepcopy(SKELETON)
    pod = skeleton["spec"]["template"]["spec"]
    pod["hostNetwork"] = True
    pod["containers"][1]["securityContext"] = {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}
    over_nfs = build.template(spec={"url": "nfs://nas/e/a"})
    for template, expected in ((over_nfs, ["NET_BIND_SERVICE"]), (build.template(), [])):
        fetch = made(around=build.around(zone=WITH_NFS, template=template), skeleton=skeleton)
        for body, others in ((fetch, ["CHOWN"]), (probed(template, skeleton, zone=WITH_NFS), [])):
            found = body["spec"]["template"]["spec"]
            assert "sysctls" not in found.get("securityContext", {})
            capabilities = found["containers"][1]["securityContext"]["capabilities"]
            assert capabilities["drop"] == ["ALL"]
            assert capabilities.get("add", []) == [*others, *expected]
            assert "securityContext" not in found["containers"][0]


def test_what_the_chart_says_of_the_pod_stays() -> None:
    skeleton = copy.deepcopy(SKELETON)
    other = {"name": "net.ipv4.tcp_syncookies", "value": "1"}
    narrower = {**LOW_PORTS, "value": "512"}
    context = {"seccompProfile": {"type": "RuntimeDefault"}, "sysctls": [other, narrower]}
    skeleton["spec"]["template"]["spec"]["securityContext"] = context
    body = probed(build.template(spec={"url": "nfs://nas/e/a"}), skeleton, zone=WITH_NFS)
    found = body["spec"]["template"]["spec"]["securityContext"]
    assert found == {"seccompProfile": {"type": "RuntimeDefault"}, "sysctls": [other, LOW_PORTS]}


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


@pytest.mark.parametrize("mirror", ["https://[", "https://[::1/a.meta4", "https://\u2100/", "http://a]/"])
def test_a_mirror_that_is_no_url_keeps_no_job_from_being_made(mirror: str) -> None:
    """The definition admits it, and a mirror may change at any time; the job refuses it and takes the other sources."""
    template = build.template(spec={"mirrors": [mirror]})
    assert carried(made(around=build.around(template=template))).mirrors == (mirror,)
    assert carried(probed(template)).mirrors == (mirror,)


HEADERS = {"url": "https://images.example.org/a.meta4", "headersSecretRef": {"name": "token"}}
PEERS = JobPeers(role=PeerRole.PEER, content="c" * 64, zone="zone-1", piece_bytes=1 << 20)


def sharing(shared: JobPeers | None) -> dict[str, Any]:
    """The Job of a Template with headers, which may lead to NFS."""
    zone = build.zone(spec={"sourcePolicy": {"nfsExports": ["nas.example.org:/export"]}})
    around = build.around(template=build.template(spec=HEADERS), zone=zone)
    document = jobs.document(PLACEMENT, around, Verb.FETCH, 0, shared)
    return jobs.manifest(SKELETON, "direct-download", PLACEMENT, document, 3, GROUPS, 77)


def test_a_peer_gets_the_identity_of_its_host_and_neither_headers_nor_low_ports() -> None:
    body = sharing(PEERS)
    pod = body["spec"]["template"]["spec"]
    assert pod["volumes"] == [
        {"name": "peer-identity", "hostPath": {"path": "/var/lib/directdownload/peer/client", "type": "Directory"}}
    ]
    assert pod["containers"][1]["volumeMounts"] == [
        {"name": "peer-identity", "mountPath": "/var/lib/directdownload/peer/client", "readOnly": True}
    ]
    assert "securityContext" not in pod
    assert carried(body).peers == PEERS
    told = body["metadata"]["annotations"]
    assert world.HEADERS_ANNOTATION not in told
    assert (told[world.ROLE_ANNOTATION], told[world.CONTENT_ANNOTATION], told[world.EPOCH_ANNOTATION]) == (
        "Peer",
        "c" * 64,
        "77",
    )


def test_a_seed_reads_the_source_as_any_other() -> None:
    alone, seed = sharing(None), sharing(PEERS.model_copy(update={"role": PeerRole.SEED}))
    volumes = seed["spec"]["template"]["spec"].pop("volumes")
    assert {volume["name"] for volume in volumes} == {"origin-headers", "peer-identity"}
    assert seed["spec"]["template"]["spec"]["securityContext"] == alone["spec"]["template"]["spec"]["securityContext"]


@pytest.mark.parametrize(
    ("size", "given", "shared", "expected"),
    [(None, 0, True, 1), (1 << 30, 0, True, 1), (2 << 30, 0, True, 0), (1 << 30, 4, True, 4), (1 << 30, 0, False, 0)],
)
def test_a_seed_of_a_small_file_keeps_to_one_connection(
    size: int | None, given: int, shared: bool, expected: int
) -> None:
    template = build.template(spec={"connectionsPerSource": given}, status={"sizeBytes": size} if size else {})
    seed = PEERS.model_copy(update={"role": PeerRole.SEED}) if shared else None
    document = jobs.document(PLACEMENT, build.around(template=template), Verb.FETCH, 0, seed)
    assert document.limits.connections == expected


def test_without_peers_a_job_is_as_it_was() -> None:
    body = sharing(None)
    assert "peer" not in json.dumps(body)
    assert not {world.ROLE_ANNOTATION, world.CONTENT_ANNOTATION, world.EPOCH_ANNOTATION} & set(
        body["metadata"]["annotations"]
    )
    volumes = body["spec"]["template"]["spec"]["volumes"]
    assert [volume["name"] for volume in volumes] == ["origin-headers"]
