"""The CustomResourceDefinitions on a real API server: what is accepted, what is refused, and in which words.

Every refusal must say which field, what was expected, and an example: `assert_helpful` is that promise.
"""

import copy
import hashlib
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.api import kube
from tests.api.kube import Kube, Object, resource
from tests.cluster import harness

from directdownload.cluster.kinds import (
    CERTIFICATES,
    HOSTS,
    STORAGE_POOLS,
    TEMPLATE_DEPLOYMENTS,
    TEMPLATE_PLACEMENTS,
    TEMPLATES,
    ZONES,
    Resource,
)
from directdownload.resources import base, crd
from directdownload.resources.checksum import Algorithm

DIGESTS = {each: hashlib.new(each.value, b"0123456789" * 8 + b"\n").hexdigest() for each in Algorithm}
SHA256 = "c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"
MD5 = "d141a8eeaf6bba779d1d1dc5102a81c5"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
URL = "https://images.example.org/debian-13.qcow2"
NAMESPACE = "default"
MISSING = object()

#: The least that each kind asks for.
MINIMAL: dict[Resource, Object] = {
    ZONES: {"nodeSelector": {}},
    HOSTS: {"nodeName": "kvm-1", "zone": "zone-1"},
    STORAGE_POOLS: {"zone": "zone-1", "path": "/var/lib/libvirt/images"},
    TEMPLATES: {"url": URL, "format": "QCOW2"},
    TEMPLATE_DEPLOYMENTS: {"templateRef": {"name": "debian-13"}, "zone": "zone-1"},
    TEMPLATE_PLACEMENTS: {
        "templateRef": {"namespace": "default", "name": "debian-13", "uid": "8f0c0000-0000-4000-8000-000000000000"},
        "zone": "zone-1",
        "pool": "local",
        "host": "kvm-1",
        "path": "/var/lib/libvirt/images/8f0c0000-0000-4000-8000-000000000000",
    },
    CERTIFICATES: {"zone": "zone-1", "alias": "my-ca", "certificate": PEM},
}
_SELECTOR = {
    "matchLabels": {"topology.kubernetes.io/zone": "zone-1"},
    "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "example.org/b", "operator": "NotIn", "values": ["z"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ],
}
#: Every field that a person may write, with a value that is not its default.
FULL: dict[Resource, Object] = {
    ZONES: {
        "enabled": False,
        "nodeSelector": _SELECTOR,
        "templateNamespaces": _SELECTOR,
        "certificates": {"expiryWarning": "360h", "syncInterval": "0s"},
        "timeouts": {"connect": "500ms", "socket": "1m30s", "connectionRequest": "2.5s"},
        "downloads": {
            "maxParallel": 0,
            "maxParallelPerHost": 1,
            "maxParallelPerSource": 3,
            "bandwidthPerHost": "100Mi",
            "deadline": 0,
            "maxSize": "1.5Ti",
            "maxVirtualSize": 1073741824,
            "retry": {"initial": "1s", "maximum": "1h"},
        },
        "sourcePolicy": {
            "protocols": ["HTTPS"],
            "allowedHosts": ["images.example.org", "*.example.net"],
            "allowedCIDRs": ["127.0.0.0/8", "fd00::/8"],
            "maxRedirects": 0,
            "requireChecksum": True,
            "requireDirect": True,
            "minimumChecksum": "SHA-256",
        },
    },
    HOSTS: {
        "nodeName": "kvm-1",
        "zone": "zone-1",
        "allocationState": "Maintenance",
        "keystore": {
            "path": "/etc/other/cloud.jks",
            "passwordFrom": {"file": "/etc/other/keystore.pass"},
            "type": "PKCS12",
            "createIfMissing": False,
        },
    },
    STORAGE_POOLS: {
        "zone": "zone-1",
        "type": "SharedMountPoint",
        "path": "/srv/pools/nfs-1",
        "hostSelector": _SELECTOR,
        "verifyInterval": "24h",
        "reserve": "20Gi",
        "file": {"uid": 64055, "gid": 64055, "mode": "0640"},
    },
    TEMPLATES: {
        "displayText": "Debian 13 (genericcloud)",
        "url": "nfs://nas.example.org/exports/templates/debian-13.qcow2",
        "mirrors": [URL, "http://mirror.example.org:8080/debian-13.qcow2", "https://[fd00::1]/debian.meta4"],
        "checksum": "{SHA-256}" + SHA256,
        "format": "RAW",
        "hypervisor": "KVM",
        "architecture": "aarch64",
        "type": "ROUTING",
        "zones": ["zone-1", "zone-2"],
        "allowedNamespaces": {},
        "headersSecretRef": {"name": "token"},
        "details": {"rootDiskController": "virtio"},
    },
    TEMPLATE_DEPLOYMENTS: {
        "templateRef": {"name": "debian-13", "namespace": "images"},
        "zone": "zone-1",
        "hostSelector": _SELECTOR,
        "hosts": ["kvm-1", "kvm-2.example.org"],
        "pools": ["local"],
        "rollout": {"maxParallel": "25%", "paused": True},
        "deletionPolicy": "Retain",
    },
    TEMPLATE_PLACEMENTS: MINIMAL[TEMPLATE_PLACEMENTS],
    CERTIFICATES: {
        "zone": "zone-1",
        "alias": "my-ca_2.old",
        "hypervisor": "KVM",
        "certificateRef": {"kind": "Secret", "name": "images-ca", "key": "ca.crt"},
        "revoked": True,
        "revokedHosts": ["kvm-1"],
        "keepPrevious": "1h",
    },
}
KINDS = list(MINIMAL)


@pytest.fixture(scope="module")
def api(control_plane: harness.ControlPlane) -> Iterator[Kube]:
    kube.install_definitions(control_plane)
    with Kube(control_plane.kubeconfig()) as connection:
        yield connection


def in_namespace(kind: Resource) -> str | None:
    return NAMESPACE if kind.namespaced else None


def changed(spec: Object, path: str, value: Any) -> Object:
    """A copy of `spec` with the dotted `path` set, or removed where `value` is MISSING."""
    result = copy.deepcopy(spec)
    *parents, last = path.split(".")
    target = result
    for part in parents:
        target = target.setdefault(part, {})
    if value is MISSING:
        del target[last]
    else:
        target[last] = value
    return result


def name_for(kind: Resource) -> str:
    """A Host has its node's name."""
    return "kvm-1" if kind is HOSTS else f"resources-{uuid.uuid4().hex[:8]}"


def create(api: Kube, kind: Resource, spec: Object, *, dry: bool = True) -> kube.Answer:
    namespace = in_namespace(kind)
    return api.create(kind, resource(kind, name_for(kind), spec, namespace), namespace, dry=dry)


@pytest.fixture
def existing(api: Kube, request: pytest.FixtureRequest) -> Iterator[tuple[Resource, Object]]:
    """An object of the kind that the test's parameter names, with every field set."""
    kind: Resource = request.param
    made = create(api, kind, FULL[kind], dry=False).object()
    yield kind, made
    api.delete(kind, made["metadata"]["name"], in_namespace(kind)).object()


#: What the API server itself says about limits and types: field and what was expected, but no example.
_OWN_WORDS = re.compile(
    r"must be of type \w+|may not be (more|longer) than \d+|must have at most \d+ items|must have at most \d+ propert"
    r"|unknown field|must not exceed \d+|must be less than or equal to|must have at most"
)


def assert_helpful(answer: kube.Answer, field: str, *, limits: bool = False) -> None:
    """The refusal names the field, says what was expected, and gives an example."""
    assert answer.code in (400, 422), f"{answer.code}: accepted, or refused otherwise: {answer.message}"
    message = answer.message
    assert re.search(rf"(?<![\w.]){re.escape(field)}(?![\w])", message), f"{field} is not named: {message}"
    if limits:
        assert _OWN_WORDS.search(message), f"no limit or type is told: {message}"
        return
    assert re.search(r"expected|supported values", message), f"what was expected is not told: {message}"
    assert re.search(r"for example|such as|supported values", message), f"there is no example: {message}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("specs", [MINIMAL, FULL], ids=["minimal", "full"])
def test_good_objects_are_accepted_and_kept_as_written(
    api: Kube, kind: Resource, specs: dict[Resource, Object]
) -> None:
    answer = create(api, kind, specs[kind]).object()
    assert subset(specs[kind], answer["spec"]) == specs[kind]


def subset(wanted: Any, found: Any) -> Any:
    """`found` reduced to the keys of `wanted`."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return {key: subset(value, found[key]) for key, value in wanted.items() if key in found}
    return found


def test_every_field_of_the_models_is_tried() -> None:
    """FULL is complete: a new field must be tried here too."""
    for definition in crd.KINDS:
        kind = next(each for each in KINDS if each.kind == definition.DEFINITION.kind)
        spec = crd.definition(definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        missing = set(_paths(spec)) - set(_written(FULL[kind])) - set(_written(MINIMAL[kind]))
        # the other one of two alternatives
        assert missing <= {"keystore.passwordFrom.agentProperties"}, kind.kind


def _paths(schema: Object, prefix: str = "") -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from _paths(field, f"{prefix}{name}.")


def _written(value: Object, prefix: str = "") -> Iterator[str]:
    for name, field in value.items():
        yield f"{prefix}{name}"
        if isinstance(field, dict):
            yield from _written(field, f"{prefix}{name}.")
            if not field:
                # an empty selector stands for all its fields
                yield from (f"{prefix}{name}.{each}" for each in ("matchLabels", "matchExpressions"))


def test_every_field_of_a_selector_is_kept(api: Kube) -> None:
    spec = changed(FULL[TEMPLATES], "allowedNamespaces", _SELECTOR)
    assert create(api, TEMPLATES, spec).object()["spec"]["allowedNamespaces"] == _SELECTOR


def test_password_from_agent_properties(api: Kube) -> None:
    source = {"agentProperties": "/etc/cloudstack/agent/other.properties"}
    spec = changed(FULL[HOSTS], "keystore.passwordFrom", source)
    assert create(api, HOSTS, spec).object()["spec"]["keystore"]["passwordFrom"] == source


#: What a minimal object becomes.
DEFAULTS: dict[Resource, Object] = {
    ZONES: {
        "enabled": True,
        "certificates": {"expiryWarning": "720h", "syncInterval": "10m"},
        "timeouts": {"connect": "5s", "socket": "5s", "connectionRequest": "5s"},
        "downloads": {
            "maxParallel": 20,
            "maxParallelPerHost": 2,
            "maxParallelPerSource": 0,
            "bandwidthPerHost": 0,
            "deadline": "12h",
            "maxSize": 0,
            "maxVirtualSize": 0,
            "retry": {"initial": "5s", "maximum": "10m"},
        },
        "sourcePolicy": {
            "protocols": ["HTTP", "HTTPS", "NFS"],
            "maxRedirects": 5,
            "requireChecksum": False,
            "requireDirect": False,
            "minimumChecksum": "MD5",
        },
    },
    HOSTS: {
        "allocationState": "Enabled",
        "keystore": {
            "path": "/etc/cloudstack/agent/cloud.jks",
            "passwordFrom": {"agentProperties": "/etc/cloudstack/agent/agent.properties"},
            "type": "JKS",
            "createIfMissing": True,
        },
    },
    STORAGE_POOLS: {
        "type": "Filesystem",
        "verifyInterval": "168h",
        "reserve": "5%",
        "file": {"uid": 0, "gid": 0, "mode": "0644"},
    },
    TEMPLATES: {"hypervisor": "KVM", "architecture": "x86_64", "type": "USER"},
    TEMPLATE_DEPLOYMENTS: {"rollout": {"maxParallel": 0, "paused": False}, "deletionPolicy": "Delete"},
    TEMPLATE_PLACEMENTS: {},
    CERTIFICATES: {"hypervisor": "KVM", "revoked": False, "keepPrevious": "24h"},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_defaults_appear(api: Kube, kind: Resource) -> None:
    spec = create(api, kind, MINIMAL[kind]).object()["spec"]
    assert {key: value for key, value in spec.items() if key not in MINIMAL[kind]} == DEFAULTS[kind]


DURATIONS = ["5", 5, "-5s", "5 s", "5d", "soon", ""]
QUANTITIES = ["-1", -1, "100MB", "1 Gi", "lots", "Gi", ""]
OBJECT_NAMES = ["Zone-1", "-zone", "zone_1", "zone-", "zone 1", "", "a/b"]
URLS = [
    "images.example.org/debian.qcow2",
    "ftp://images.example.org/debian.qcow2",
    "file:///etc/shadow",
    "https:///debian.qcow2",
    "https://",
    "https:/images.example.org/x",
    "https://user:secret@images.example.org/debian.qcow2",
    "https://token@images.example.org/debian.qcow2",
    "https://images.example.org/debian 13.qcow2",
    "https://images.example.org/debian.qcow2\n",
    "https://images.example.org/\u0007",
    "javascript:alert(1)",
    "",
]
#: CloudStack's rejected strings, and further ones.
CHECKSUMS = [
    SHA256,
    "{}" + SHA256,
    "{MD5}" + SHA256,
    "{SHA-256}" + SHA256 + "XXXXX",
    "{SHA-256}" + SHA256[:-1],
    "{SHA-256}" + SHA256[:-1] + "g",
    "{SHA-256} " + SHA256,
    "{SHA-3}" + SHA256,
    "{CRC32}d141a8ee",
    "sha256=" + SHA256,
    "sha256:",
    ":" + SHA256,
    "{SHA-256" + SHA256,
    "SHA-256}" + SHA256,
    MD5[:-1],
    MD5 + "0",
    "sha512:" + DIGESTS[Algorithm.SHA384],
    "",
]
POOL_PATHS = ["pool", "/", "/pool/", "/a//b", "/a/../b", "/a/./b", "/..", "/a/..", "/a\nb", ""]
FILE_PATHS = ["cloud.jks", "/a/../b", "/a/..", ""]
ALIASES = [
    "cloud",
    "CLOUD",
    "cloudca",
    "CloudCA",
    "cloudca.1",
    "my-ca-previous",
    "My-CA-Previous",
    "my ca",
    "-x",
    "",
    "ä",
]

#: (kind, field, bad values): refused, with the field's name, what was expected, and an example.
BAD: list[tuple[Resource, str, list[Any]]] = [
    (ZONES, "nodeSelector", [MISSING]),
    *((ZONES, f"certificates.{field}", DURATIONS) for field in ("expiryWarning", "syncInterval")),
    *((ZONES, f"timeouts.{field}", DURATIONS) for field in ("connect", "socket", "connectionRequest")),
    *((ZONES, f"downloads.{field}", [-1]) for field in ("maxParallel", "maxParallelPerHost", "maxParallelPerSource")),
    *((ZONES, f"downloads.{field}", QUANTITIES) for field in ("bandwidthPerHost", "maxSize", "maxVirtualSize")),
    *((ZONES, f"downloads.{field}", DURATIONS) for field in ("deadline", "retry.initial", "retry.maximum")),
    (ZONES, "sourcePolicy.protocols", [["FTP"], ["https"], [""]]),
    (
        ZONES,
        "sourcePolicy.allowedHosts",
        [["https://example.org"], ["a b"], ["*"], ["a.*.org"], ["example.org:443"], [""]],
    ),
    (ZONES, "sourcePolicy.allowedCIDRs", [["10.0.0.0"], ["10.0.0.0/33"], ["any"], [""]]),
    (ZONES, "sourcePolicy.maxRedirects", [-1, 21]),
    (ZONES, "sourcePolicy.minimumChecksum", ["CRC32", "sha256", ""]),
    (HOSTS, "nodeName", [MISSING, "kvm-2", *OBJECT_NAMES]),
    (HOSTS, "zone", [MISSING, *OBJECT_NAMES]),
    (HOSTS, "allocationState", ["Disabled", ""]),
    (HOSTS, "keystore.path", FILE_PATHS),
    (HOSTS, "keystore.type", ["BKS", "jks"]),
    (HOSTS, "keystore.passwordFrom", [{}, {"file": "/a", "agentProperties": "/b"}]),
    (HOSTS, "keystore.passwordFrom.file", FILE_PATHS),
    (STORAGE_POOLS, "zone", [MISSING, *OBJECT_NAMES]),
    (STORAGE_POOLS, "path", [MISSING, *POOL_PATHS]),
    (STORAGE_POOLS, "type", ["NFS", "filesystem", ""]),
    (STORAGE_POOLS, "verifyInterval", DURATIONS),
    (STORAGE_POOLS, "reserve", ["100%", "5.5%", "-5%", "%", "all", -1, ""]),
    (STORAGE_POOLS, "file.uid", [-1]),
    (STORAGE_POOLS, "file.gid", [-1]),
    (STORAGE_POOLS, "file.mode", ["644x", "0888", "7", "rw-r--r--", "04755", ""]),
    (TEMPLATES, "url", [MISSING, *URLS]),
    (TEMPLATES, "mirrors", [[URL, url] for url in URLS]),
    (TEMPLATES, "checksum", CHECKSUMS),
    (TEMPLATES, "format", [MISSING, "QCOW", "qcow2", ""]),
    (TEMPLATES, "hypervisor", ["XenServer", ""]),
    (TEMPLATES, "architecture", ["amd64", ""]),
    (TEMPLATES, "type", ["BUILTIN", "system", ""]),
    (TEMPLATES, "zones", [[name] for name in OBJECT_NAMES]),
    (TEMPLATES, "headersSecretRef.name", OBJECT_NAMES),
    (TEMPLATE_DEPLOYMENTS, "templateRef", [MISSING]),
    (TEMPLATE_DEPLOYMENTS, "templateRef.name", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "templateRef.namespace", OBJECT_NAMES),
    (TEMPLATE_DEPLOYMENTS, "zone", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "hosts", [[name] for name in OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "pools", [[name] for name in OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "rollout.maxParallel", ["101%", "-1%", "ten", "10", -1, ""]),
    (TEMPLATE_DEPLOYMENTS, "deletionPolicy", ["Keep", "delete", ""]),
    (TEMPLATE_PLACEMENTS, "templateRef", [MISSING]),
    (TEMPLATE_PLACEMENTS, "templateRef.namespace", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "templateRef.name", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "templateRef.uid", [MISSING]),
    (TEMPLATE_PLACEMENTS, "zone", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "pool", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "host", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "path", [MISSING]),
    (CERTIFICATES, "zone", [MISSING, *OBJECT_NAMES]),
    (CERTIFICATES, "alias", [MISSING, *ALIASES]),
    (CERTIFICATES, "hypervisor", ["VMware"]),
    (CERTIFICATES, "certificate", ["-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"]),
    (CERTIFICATES, "revokedHosts", [[name] for name in OBJECT_NAMES]),
    (CERTIFICATES, "keepPrevious", DURATIONS),
    (CERTIFICATES, "certificateRef.kind", [MISSING, "Pod"]),
    (CERTIFICATES, "certificateRef.name", [MISSING, *OBJECT_NAMES]),
    (CERTIFICATES, "certificateRef.key", [MISSING]),
]
#: Selectors, wherever they are.
BAD += [
    (
        kind,
        f"{field}.matchExpressions",
        [
            [{"key": "a", "operator": "Is"}],
            [{"operator": "Exists"}],
            [{"key": "a"}],
            [{"key": "a", "operator": "In"}],
            [{"key": "a", "operator": "NotIn", "values": []}],
            [{"key": "a", "operator": "Exists", "values": ["b"]}],
        ],
    )
    for kind, field in (
        (ZONES, "nodeSelector"),
        (ZONES, "templateNamespaces"),
        (STORAGE_POOLS, "hostSelector"),
        (TEMPLATES, "allowedNamespaces"),
        (TEMPLATE_DEPLOYMENTS, "hostSelector"),
    )
]
#: (kind, field, bad value): limits and types, where the API server speaks for itself.
LIMITS: list[tuple[Resource, str, Any]] = [
    (ZONES, "enabled", "yes"),
    (ZONES, "downloads.maxParallel", "many"),
    (ZONES, "downloads.maxParallel", 1.5),
    (ZONES, "sourcePolicy.protocols", ["HTTP"] * 4),
    (ZONES, "timeouts.connect", "1" * 33 + "s"),
    (ZONES, "sourcePolicy.allowedHosts", ["a.example.org"] * 257),
    (HOSTS, "keystore.createIfMissing", "no"),
    (HOSTS, "zone", "z" * 254),
    (STORAGE_POOLS, "path", "/" + "p" * 1024),
    (STORAGE_POOLS, "file.mode", 420),
    (TEMPLATES, "url", URL + "x" * 2048),
    (TEMPLATES, "mirrors", [URL] * 17),
    (TEMPLATES, "mirrors", URL),
    (TEMPLATES, "details", {str(number): "x" for number in range(65)}),
    (TEMPLATES, "displayText", "x" * 4097),
    (TEMPLATE_DEPLOYMENTS, "rollout.paused", "no"),
    (TEMPLATE_DEPLOYMENTS, "pools", ["local"] * 257),
    (CERTIFICATES, "alias", "a" * 129),
    (CERTIFICATES, "revoked", 1),
    (CERTIFICATES, "certificate", "x" * 65537),
    *((kind, "nonsense", 1) for kind in KINDS),
]


def _short(value: Any) -> str:
    return "missing" if value is MISSING else ascii(value)[:60]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        pytest.param(kind, field, value, id=f"{kind.kind}-{field}-{_short(value)}")
        for kind, field, values in BAD
        for value in values
    ],
)
def test_bad_value_is_refused_with_field_expectation_and_example(
    api: Kube, kind: Resource, field: str, value: Any
) -> None:
    spec = MINIMAL[kind]
    if field.startswith("certificateRef"):
        reference = {"kind": "Secret", "name": "images-ca", "key": "ca.crt"}
        spec = {**changed(spec, "certificate", MISSING), "certificateRef": reference}
    if field.startswith("keystore.passwordFrom.file"):
        spec = FULL[HOSTS]
    assert create(api, kind, spec).ok
    assert_helpful(create(api, kind, changed(spec, field, value)), f"spec.{field}")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [pytest.param(*each, id=f"{each[0].kind}-{each[1]}-{_short(each[2])}") for each in LIMITS],
)
def test_limits_and_types_are_told(api: Kube, kind: Resource, field: str, value: Any) -> None:
    assert_helpful(create(api, kind, changed(MINIMAL[kind], field, value)), f"spec.{field}", limits=True)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (TEMPLATES, "url", "https://user:s3cret@images.example.org/debian-13.qcow2"),
        (TEMPLATES, "mirrors", ["https://user:s3cret@images.example.org/debian-13.qcow2"]),
        (CERTIFICATES, "certificate", "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n"),
    ],
    ids=["url", "mirrors", "certificate"],
)
def test_a_refusal_does_not_repeat_a_secret(api: Kube, kind: Resource, field: str, value: Any) -> None:
    """What is refused stands in the audit log and in the logs of whoever applied it."""
    answer = create(api, kind, changed(MINIMAL[kind], field, value))
    assert_helpful(answer, f"spec.{field}")
    assert "s3cret" not in str(answer.body)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_an_object_without_spec_is_refused(api: Kube, kind: Resource) -> None:
    body = {**resource(kind, name_for(kind), {}), "spec": None}
    answer = api.create(kind, body, in_namespace(kind), dry=True)
    assert answer.code == 422
    assert f"spec is missing: see kubectl explain {kind.plural}.spec" in answer.message


@pytest.mark.parametrize("both", [True, False])
def test_a_certificate_has_one_source(api: Kube, both: bool) -> None:
    spec = changed(MINIMAL[CERTIFICATES], "certificate", PEM if both else MISSING)
    if both:
        spec["certificateRef"] = {"kind": "Secret", "name": "images-ca", "key": "ca.crt"}
    assert_helpful(create(api, CERTIFICATES, spec), "spec")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("notation", ["{{{title}}}{hex}", "{{{lower}}}{hex}", "{plain}:{hex}", "{title}:{hex}"])
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
def test_checksum_notations_are_accepted(api: Kube, algorithm: Algorithm, notation: str, upper: bool) -> None:
    digits = DIGESTS[algorithm].upper() if upper else DIGESTS[algorithm]
    text = notation.format(title=algorithm.title, lower=algorithm.title.lower(), plain=algorithm.value, hex=digits)
    create(api, TEMPLATES, changed(MINIMAL[TEMPLATES], "checksum", text)).object()


@pytest.mark.parametrize("text", [MD5, MD5.upper(), "0e51dfa74b87f19dd5e0124d6a2195e3"])
def test_a_bare_checksum_is_md5(api: Kube, text: str) -> None:
    create(api, TEMPLATES, changed(MINIMAL[TEMPLATES], "checksum", text)).object()


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.org/a",
        "HTTPS://images.example.org/a.METALINK",
        "Nfs://nas/export/a.img",
        "https://10.0.0.1:8443/a?token=x#y",
        "https://[fd00::1]:8443/a.meta4",
        "https://images.example.org/a@b:c",
    ],
)
def test_urls_that_are_accepted(api: Kube, url: str) -> None:
    create(api, TEMPLATES, changed(MINIMAL[TEMPLATES], "url", url)).object()


#: kind → (field, another valid value); the second list may change.
IMMUTABLE: dict[Resource, dict[str, Any]] = {
    HOSTS: {"nodeName": "kvm-2"},
    STORAGE_POOLS: {"zone": "zone-2", "type": "Filesystem", "path": "/srv/pools/nfs-2"},
    TEMPLATES: {
        "url": URL,
        "checksum": MD5,
        "format": "ISO",
        "architecture": "x86_64",
    },
    TEMPLATE_DEPLOYMENTS: {"templateRef": {"name": "other"}, "zone": "zone-2"},
    TEMPLATE_PLACEMENTS: {
        "templateRef": {"name": "other"},
        "zone": "zone-2",
        "pool": "other",
        "path": "/var/lib/libvirt/images/other",
    },
    CERTIFICATES: {"alias": "other"},
}
MUTABLE: dict[Resource, dict[str, Any]] = {
    ZONES: DEFAULTS[ZONES],
    HOSTS: {"zone": "zone-2", **DEFAULTS[HOSTS]},
    STORAGE_POOLS: {key: value for key, value in DEFAULTS[STORAGE_POOLS].items() if key != "type"},
    TEMPLATES: {"displayText": "x", "mirrors": [], "type": "USER", "zones": [], "headersSecretRef": None},
    TEMPLATE_DEPLOYMENTS: {**DEFAULTS[TEMPLATE_DEPLOYMENTS], "hosts": [], "pools": [], "hostSelector": None},
    TEMPLATE_PLACEMENTS: {"host": "kvm-2"},
    CERTIFICATES: {"revoked": False, "revokedHosts": [], "keepPrevious": "2h", "zone": "zone-2"},
}


@pytest.mark.parametrize(
    ("existing", "fields"), IMMUTABLE.items(), indirect=["existing"], ids=lambda value: getattr(value, "kind", "")
)
def test_immutable_fields(api: Kube, existing: tuple[Resource, Object], fields: Object) -> None:
    kind, made = existing
    for field, value in fields.items():
        answer = api.patch(kind, made["metadata"]["name"], {"spec": {field: value}}, in_namespace(kind))
        assert answer.code == 422, field
        assert f"spec.{field}: Invalid value" in answer.message or f"spec.{field}" in answer.message, answer.message
        assert f"{field} is immutable: expected the value it was created with; for another value" in answer.message


@pytest.mark.parametrize(
    ("existing", "fields"), MUTABLE.items(), indirect=["existing"], ids=lambda value: getattr(value, "kind", "")
)
def test_other_fields_may_change(api: Kube, existing: tuple[Resource, Object], fields: Object) -> None:
    kind, made = existing
    for field, value in fields.items():
        if field == "keystore":
            value = {**value, "passwordFrom": {**value["passwordFrom"], "file": None}}
        spec = api.patch(kind, made["metadata"]["name"], {"spec": {field: value}}, in_namespace(kind)).object()["spec"]
        assert spec.get(field) != made["spec"].get(field), field


@pytest.mark.parametrize("existing", [TEMPLATES], indirect=True, ids=["Template"])
def test_a_checksum_cannot_be_removed(api: Kube, existing: tuple[Resource, Object]) -> None:
    kind, made = existing
    answer = api.patch(kind, made["metadata"]["name"], {"spec": {"checksum": None}}, NAMESPACE)
    assert answer.code == 422
    assert "checksum is immutable" in answer.message


def test_a_checksum_cannot_be_added_later(api: Kube) -> None:
    made = create(api, TEMPLATES, MINIMAL[TEMPLATES], dry=False).object()
    answer = api.patch(TEMPLATES, made["metadata"]["name"], {"spec": {"checksum": MD5}}, NAMESPACE)
    assert answer.code == 422
    assert "checksum is immutable" in answer.message
    api.delete(TEMPLATES, made["metadata"]["name"], NAMESPACE).object()


_TIME = "2026-01-31T12:00:00Z"


def condition(name: str, status: str = "True", reason: str = "Ready", generation: int = 1) -> Object:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": "words",
        "lastTransitionTime": _TIME,
        "observedGeneration": generation,
    }


#: kind → (a status, the columns of `kubectl get` but Age, what `-o wide` adds)
COLUMNS: dict[Resource, tuple[Object, Object, Object]] = {
    ZONES: (
        {"hosts": {"total": 3, "up": 2}},
        {"ENABLED": "false", "HOSTS": "3", "UP": "2", "READY": "True", "REASON": "Ready"},
        {},
    ),
    HOSTS: (
        {"state": "Up", "agentVersion": "0.1.0"},
        {"ZONE": "zone-1", "STATE": "Up", "REASON": "Ready", "AGENT": "0.1.0"},
        {},
    ),
    STORAGE_POOLS: (
        {"hosts": {"total": 3, "ready": 1}, "capacityBytes": 10, "availableBytes": 5},
        {
            "ZONE": "zone-1",
            "TYPE": "SharedMountPoint",
            "PATH": "/srv/pools/nfs-1",
            "HOSTS": "3",
            "USABLE": "1",
            "READY": "True",
        },
        {"REASON": "Ready"},
    ),
    TEMPLATES: (
        {
            "protocol": "NFS",
            "sizeBytes": 123,
            "etag": '"x"',
            "digest": f"sha256:{SHA256}",
            "placements": {"total": 3, "ready": 2, "downloading": 1, "pending": 0, "failed": 0},
        },
        {"FORMAT": "RAW", "TYPE": "ROUTING", "SIZE": "123", "COPIES": "2", "READY": "True"},
        {"REASON": "Ready", "URL": FULL[TEMPLATES]["url"]},
    ),
    TEMPLATE_DEPLOYMENTS: (
        {
            "placements": {"desired": 3, "ready": 1, "downloading": 1, "pending": 0, "failed": 1},
            "bytes": {"total": 30, "downloaded": 10},
            "failures": [{"host": "kvm-1", "pool": "local", "reason": "TooLarge", "message": "words"}],
        },
        {
            "TEMPLATE": "debian-13",
            "ZONE": "zone-1",
            "DESIRED": "3",
            "READY": "1",
            "DOWNLOADING": "1",
            "FAILED": "1",
            "REASON": "Ready",
        },
        {},
    ),
    TEMPLATE_PLACEMENTS: (
        {
            "phase": "Downloading",
            "observed": {"present": False, "sizeBytes": 0, "mtime": _TIME},
            "startedTime": _TIME,
            "progress": {
                "bytesDownloaded": 50,
                "bytesTotal": 100,
                "bytesPerSecond": 7,
                "etaSeconds": 8,
                "percent": 50,
                "source": "https://images.example.org",
                "updatedTime": _TIME,
            },
            "file": {
                "path": "/p",
                "sizeBytes": 100,
                "digest": "sha256:x",
                "format": "QCOW2",
                "virtualSizeBytes": 200,
                "verifiedTime": _TIME,
            },
            "attempts": 1,
            "nextAttemptTime": _TIME,
        },
        {
            "TEMPLATE": "debian-13",
            "HOST": "kvm-1",
            "POOL": "local",
            "PHASE": "Downloading",
            "PERCENT": "50",
            "RATE": "7",
            "ETA": "8",
        },
        {"PATH": MINIMAL[TEMPLATE_PLACEMENTS]["path"], "REASON": "Ready"},
    ),
    CERTIFICATES: (
        {
            "certificate": PEM,
            "subject": "CN=a",
            "issuer": "CN=b",
            "serialNumber": "01",
            "fingerprintSHA256": "aa",
            "notBefore": _TIME,
            "notAfter": "2000-01-31T12:00:00Z",
            "hosts": {"desired": 3, "uploaded": 2, "revoked": 0, "failed": 1, "pending": 0, "down": 0},
            "failures": [{"host": "kvm-1", "reason": "AliasConflict", "message": "words"}],
        },
        {"ZONE": "zone-1", "ALIAS": "my-ca_2.old", "HOSTS": "3", "UPLOADED": "2", "READY": "True"},
        {"REASON": "Ready"},
    ),
}


@pytest.mark.parametrize(
    ("existing", "columns"), COLUMNS.items(), indirect=["existing"], ids=lambda value: getattr(value, "kind", "")
)
def test_columns_status_and_short_name(
    api: Kube,
    control_plane: harness.ControlPlane,
    existing: tuple[Resource, Object],
    columns: tuple[Object, Object, Object],
) -> None:
    kind, made = existing
    name, (status, narrow, wide) = made["metadata"]["name"], columns
    status = {"observedGeneration": 1, "lastHandledRequest": "x", "conditions": [condition("Ready")], **status}
    kept = api.patch(kind, name, {"status": status}, in_namespace(kind), subresource="status").object()
    assert kept["status"] == status
    short = next(each.DEFINITION.short_name for each in crd.KINDS if each.DEFINITION.kind == kind.kind)
    for arguments, expected in (((), narrow), (("-o", "wide"), {**narrow, **wide})):
        table = control_plane.kubectl("get", short, name, "-n", NAMESPACE, *arguments, check=True).stdout.splitlines()
        shown = dict(zip(table[0].split(), table[1].split(), strict=True))
        assert "AGE" in shown
        assert {column: shown.get(column) for column in expected} == expected
        assert shown.keys() - expected.keys() <= {"NAME", "AGE", "EXPIRES"}


@pytest.mark.parametrize("existing", KINDS, indirect=True, ids=lambda kind: kind.kind)
def test_status_is_a_subresource(api: Kube, existing: tuple[Resource, Object]) -> None:
    """A write of the spec leaves the status, and the other way round; generation counts specs only."""
    kind, made = existing
    name, namespace = made["metadata"]["name"], in_namespace(kind)
    assert "status" not in made
    status: Object = {"observedGeneration": 1}
    assert "status" not in api.patch(kind, name, {"status": status}, namespace).object()
    field, value = next(iter(MUTABLE[kind].items()))
    both = api.patch(kind, name, {"status": status, "spec": {field: value}}, namespace, subresource="status").object()
    assert both["status"] == status
    assert both["spec"] == made["spec"]
    assert both["metadata"]["generation"] == made["metadata"]["generation"] == 1


@pytest.mark.parametrize("existing", KINDS, indirect=True, ids=lambda kind: kind.kind)
def test_two_managers_share_the_conditions(api: Kube, existing: tuple[Resource, Object]) -> None:
    kind, made = existing
    namespace = in_namespace(kind)
    head = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": made["metadata"]["name"], "uid": made["metadata"]["uid"]},
    }

    def conditions(manager: str, *owned: Object) -> set[tuple[str, str]]:
        body = {**head, "status": {"conditions": list(owned)}}
        kept = api.apply(kind, body, manager, namespace, subresource="status").object()["status"]["conditions"]
        return {(each["type"], each["status"]) for each in kept}

    assert conditions(base.CONTROLLER, condition("Ready"), condition("Stalled", "False")) == {
        ("Ready", "True"),
        ("Stalled", "False"),
    }
    both = {("Ready", "True"), ("Stalled", "False"), ("KeystoreSynced", "True")}
    assert conditions(base.AGENT, condition("KeystoreSynced")) == both
    assert conditions(base.CONTROLLER, condition("Ready", "False")) == {("Ready", "False"), ("KeystoreSynced", "True")}


@pytest.mark.parametrize("existing", [HOSTS], indirect=True, ids=["Host"])
def test_storage_of_a_host_is_a_map_by_pool(api: Kube, existing: tuple[Resource, Object]) -> None:
    _, made = existing
    head = {"apiVersion": HOSTS.api_version, "kind": "Host", "metadata": {"name": made["metadata"]["name"]}}
    for manager, pool in (("one", "a"), ("two", "b")):
        body = {**head, "status": {"storage": [{"pool": pool, "writable": True}]}}
        kept = api.apply(HOSTS, body, manager, subresource="status").object()
    assert [each["pool"] for each in kept["status"]["storage"]] == ["a", "b"]


@pytest.mark.parametrize("existing", [TEMPLATE_DEPLOYMENTS], indirect=True, ids=["TemplateDeployment"])
@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"failures": [{"host": "h", "pool": "p", "reason": "TooLarge"}] * 11}, "status.failures"),
        ({"conditions": [{**condition("Ready"), "status": "Yes"}]}, "status.conditions[0].status"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, "status.conditions[0].reason"),
        ({"conditions": [condition("Ready"), condition("Ready")]}, "status.conditions[1]"),
        ({"conditions": [condition(f"C{number}") for number in range(17)]}, "status.conditions"),
        ({"observedGeneration": "one"}, "status.observedGeneration"),
    ],
)
def test_a_status_out_of_bounds_is_refused(
    api: Kube, existing: tuple[Resource, Object], status: Object, field: str
) -> None:
    kind, made = existing
    answer = api.patch(kind, made["metadata"]["name"], {"status": status}, NAMESPACE, subresource="status")
    assert answer.code == 422
    assert field in answer.message


def test_the_category_lists_all_kinds(control_plane: harness.ControlPlane, api: Kube) -> None:
    made = [(kind, create(api, kind, MINIMAL[kind], dry=False).object()["metadata"]["name"]) for kind in KINDS]
    try:
        shown = control_plane.kubectl("get", "directdownload", "-A", "-o", "name", check=True).stdout.split()
        expected = {f"{kind.kind.lower()}.{kind.group}/{name}" for kind, name in made}
        assert expected <= set(shown)
    finally:
        for kind, name in made:
            api.delete(kind, name, in_namespace(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_scope(kind: Resource) -> None:
    """The client's table of kinds and the definitions say the same."""
    definition = next(each.DEFINITION for each in crd.KINDS if each.DEFINITION.kind == kind.kind)
    assert (definition.plural, definition.namespaced) == (kind.plural, kind.namespaced)
    assert (kind.group, kind.version) == (base.GROUP, base.VERSION)
