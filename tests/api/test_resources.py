"""The CustomResourceDefinitions on a real API server: what is accepted, what is refused, and in which words.

Every refusal must say which field, what was expected, and an example: `assert_helpful` is that promise.
"""

import copy
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import kube
from tests.world.kube import Answer, Kube, Object, resource
from tests.world.samples import (
    BAD,
    COLUMNS,
    DEFAULTS,
    DIGESTS,
    FULL,
    IMMUTABLE,
    KINDS,
    LIMITS,
    MD5,
    MINIMAL,
    MISSING,
    MUTABLE,
    NAMESPACE,
    PEM,
    SELECTOR,
    condition,
)

from directdownload.cluster.kinds import (
    CERTIFICATES,
    DEFINITIONS,
    HOSTS,
    TEMPLATE_DEPLOYMENTS,
    TEMPLATE_PLACEMENTS,
    TEMPLATES,
    ZONES,
    Resource,
)
from directdownload.resources import base, crd, host
from directdownload.resources.checksum import Algorithm
from directdownload.resources.zone import SourcePolicy, Zone


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


def create(admin: Kube, kind: Resource, spec: Object, *, dry: bool = True) -> kube.Answer:
    namespace = in_namespace(kind)
    return admin.create(kind, resource(kind, name_for(kind), spec, namespace), namespace, dry=dry)


@pytest.fixture
def existing(admin: Kube, request: pytest.FixtureRequest) -> Iterator[tuple[Resource, Object]]:
    """An object of the kind that the test's parameter names, with every field set."""
    kind: Resource = request.param
    made = create(admin, kind, FULL[kind], dry=False).object()
    yield kind, made
    admin.delete(kind, made["metadata"]["name"], in_namespace(kind)).object()


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
    admin: Kube, kind: Resource, specs: dict[Resource, Object]
) -> None:
    answer = create(admin, kind, specs[kind]).object()
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


def test_every_field_of_a_selector_is_kept(admin: Kube) -> None:
    spec = changed(FULL[TEMPLATES], "allowedNamespaces", SELECTOR)
    assert create(admin, TEMPLATES, spec).object()["spec"]["allowedNamespaces"] == SELECTOR


def test_password_from_agent_properties(admin: Kube) -> None:
    source = {"agentProperties": "/etc/cloudstack/agent/other.properties"}
    spec = changed(FULL[HOSTS], "keystore.passwordFrom", source)
    assert create(admin, HOSTS, spec).object()["spec"]["keystore"]["passwordFrom"] == source


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_defaults_appear(admin: Kube, kind: Resource) -> None:
    spec = create(admin, kind, MINIMAL[kind]).object()["spec"]
    assert {key: value for key, value in spec.items() if key not in MINIMAL[kind]} == DEFAULTS[kind]


def _short(value: Any) -> str:
    return "missing" if value is MISSING else ascii(value)[:60]


def test_a_null_in_a_source_policy_is_the_default(admin: Kube) -> None:
    """In a job document it would allow every NFS export."""
    policy = {"nfsExports": None, "nfsUser": None}
    created = create(admin, ZONES, {**MINIMAL[ZONES], "sourcePolicy": policy}).object()
    assert Zone.model_validate(created).spec.source_policy == SourcePolicy()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        pytest.param(kind, field, value, id=f"{kind.kind}-{field}-{_short(value)}")
        for kind, field, values in BAD
        for value in values
    ],
)
def test_bad_value_is_refused_with_field_expectation_and_example(
    admin: Kube, kind: Resource, field: str, value: Any
) -> None:
    spec = MINIMAL[kind]
    if field.startswith("certificateRef"):
        reference = {"kind": "Secret", "name": "images-ca", "key": "ca.crt"}
        spec = {**changed(spec, "certificate", MISSING), "certificateRef": reference}
    if field.startswith("keystore.passwordFrom.file"):
        spec = FULL[HOSTS]
    assert create(admin, kind, spec).ok
    assert_helpful(create(admin, kind, changed(spec, field, value)), f"spec.{field}")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [pytest.param(*each, id=f"{each[0].kind}-{each[1]}-{_short(each[2])}") for each in LIMITS],
)
def test_limits_and_types_are_told(admin: Kube, kind: Resource, field: str, value: Any) -> None:
    assert_helpful(create(admin, kind, changed(MINIMAL[kind], field, value)), f"spec.{field}", limits=True)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (TEMPLATES, "url", "https://user:s3cret@images.example.org/debian-13.qcow2"),
        (TEMPLATES, "mirrors", ["https://user:s3cret@images.example.org/debian-13.qcow2"]),
        (CERTIFICATES, "certificate", "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n"),
    ],
    ids=["url", "mirrors", "certificate"],
)
def test_a_refusal_does_not_repeat_a_secret(admin: Kube, kind: Resource, field: str, value: Any) -> None:
    """What is refused stands in the audit log and in the logs of whoever applied it."""
    answer = create(admin, kind, changed(MINIMAL[kind], field, value))
    assert_helpful(answer, f"spec.{field}")
    assert "s3cret" not in str(answer.body)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_an_object_without_spec_is_refused(admin: Kube, kind: Resource) -> None:
    body = {**resource(kind, name_for(kind), {}), "spec": None}
    answer = admin.create(kind, body, in_namespace(kind), dry=True)
    assert answer.code == 422
    assert f"spec is missing: see kubectl explain {kind.plural}.spec" in answer.message


@pytest.mark.parametrize("both", [True, False])
def test_a_certificate_has_one_source(admin: Kube, both: bool) -> None:
    spec = changed(MINIMAL[CERTIFICATES], "certificate", PEM if both else MISSING)
    if both:
        spec["certificateRef"] = {"kind": "Secret", "name": "images-ca", "key": "ca.crt"}
    assert_helpful(create(admin, CERTIFICATES, spec), "spec")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("notation", ["{{{title}}}{hex}", "{{{lower}}}{hex}", "{plain}:{hex}", "{title}:{hex}"])
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
def test_checksum_notations_are_accepted(admin: Kube, algorithm: Algorithm, notation: str, upper: bool) -> None:
    digits = DIGESTS[algorithm].upper() if upper else DIGESTS[algorithm]
    text = notation.format(title=algorithm.title, lower=algorithm.title.lower(), plain=algorithm.value, hex=digits)
    create(admin, TEMPLATES, changed(MINIMAL[TEMPLATES], "checksum", text)).object()


@pytest.mark.parametrize("text", [MD5, MD5.upper(), "0e51dfa74b87f19dd5e0124d6a2195e3"])
def test_a_bare_checksum_is_md5(admin: Kube, text: str) -> None:
    create(admin, TEMPLATES, changed(MINIMAL[TEMPLATES], "checksum", text)).object()


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
def test_urls_that_are_accepted(admin: Kube, url: str) -> None:
    create(admin, TEMPLATES, changed(MINIMAL[TEMPLATES], "url", url)).object()


@pytest.mark.parametrize(
    ("existing", "fields"), IMMUTABLE.items(), indirect=["existing"], ids=lambda value: getattr(value, "kind", "")
)
def test_immutable_fields(admin: Kube, existing: tuple[Resource, Object], fields: Object) -> None:
    kind, made = existing
    for field, value in fields.items():
        answer = admin.patch(kind, made["metadata"]["name"], {"spec": {field: value}}, in_namespace(kind))
        assert answer.code == 422, field
        assert f"spec.{field}: Invalid value" in answer.message or f"spec.{field}" in answer.message, answer.message
        assert f"{field} is immutable: expected the value it was created with; for another value" in answer.message


@pytest.mark.parametrize(
    ("existing", "fields"), MUTABLE.items(), indirect=["existing"], ids=lambda value: getattr(value, "kind", "")
)
def test_other_fields_may_change(admin: Kube, existing: tuple[Resource, Object], fields: Object) -> None:
    kind, made = existing
    for field, value in fields.items():
        spec = admin.patch(kind, made["metadata"]["name"], {"spec": {field: value}}, in_namespace(kind)).object()[
            "spec"
        ]
        assert spec.get(field) != made["spec"].get(field), field


@pytest.mark.parametrize("existing", [TEMPLATES], indirect=True, ids=["Template"])
def test_a_checksum_cannot_be_removed(admin: Kube, existing: tuple[Resource, Object]) -> None:
    kind, made = existing
    answer = admin.patch(kind, made["metadata"]["name"], {"spec": {"checksum": None}}, NAMESPACE)
    assert answer.code == 422
    assert "checksum is immutable" in answer.message


def test_a_checksum_cannot_be_added_later(admin: Kube) -> None:
    made = create(admin, TEMPLATES, MINIMAL[TEMPLATES], dry=False).object()
    answer = admin.patch(TEMPLATES, made["metadata"]["name"], {"spec": {"checksum": MD5}}, NAMESPACE)
    assert answer.code == 422
    assert "checksum is immutable" in answer.message
    admin.delete(TEMPLATES, made["metadata"]["name"], NAMESPACE).object()


@pytest.mark.parametrize(
    ("existing", "columns"), COLUMNS.items(), indirect=["existing"], ids=lambda value: getattr(value, "kind", "")
)
def test_columns_status_and_short_name(
    admin: Kube,
    control_plane: harness.ControlPlane,
    existing: tuple[Resource, Object],
    columns: tuple[Object, Object, Object],
) -> None:
    kind, made = existing
    name, (status, narrow, wide) = made["metadata"]["name"], columns
    status = {"observedGeneration": 1, "lastHandledRequest": "x", "conditions": [condition("Ready")], **status}
    kept = admin.patch(kind, name, {"status": status}, in_namespace(kind), subresource="status").object()
    assert kept["status"] == status
    short = next(each.DEFINITION.short_name for each in crd.KINDS if each.DEFINITION.kind == kind.kind)
    for arguments, expected in (((), narrow), (("-o", "wide"), {**narrow, **wide})):
        table = control_plane.kubectl("get", short, name, "-n", NAMESPACE, *arguments, check=True).stdout.splitlines()
        shown = dict(zip(*(re.split(" {2,}", line.strip()) for line in table), strict=True))
        assert "AGE" in shown
        assert {column: shown.get(column) for column in expected} == expected
        assert shown.keys() - expected.keys() <= {"NAME", "AGE"}


def test_no_column_shows_a_time_that_may_lie_in_the_future_as_an_age(admin: Kube) -> None:
    """kubectl shows a column of type date as an age, and one in the future as <invalid>."""
    dates: list[tuple[str, str]] = []
    for kind in KINDS:
        definition = admin.get(DEFINITIONS, f"{kind.plural}.{kind.group}").object()
        columns = definition["spec"]["versions"][0]["additionalPrinterColumns"]
        dates += [(kind.kind, column["jsonPath"]) for column in columns if column["type"] == "date"]
    assert dates == [(kind.kind, ".metadata.creationTimestamp") for kind in KINDS]


@pytest.mark.parametrize("existing", [CERTIFICATES], indirect=True, ids=lambda kind: kind.kind)
def test_an_expiry_in_the_future_is_shown_as_a_time(
    control_plane: harness.ControlPlane, admin: Kube, existing: tuple[Resource, Object]
) -> None:
    kind, made = existing
    name, expiry = made["metadata"]["name"], "2999-01-31T12:00:00Z"
    admin.patch(kind, name, {"status": {"notAfter": expiry}}, subresource="status").object()
    header, row = control_plane.kubectl("get", "ddcert", name, check=True).stdout.splitlines()
    at = header.index("EXPIRES")
    assert row[at:].split()[0] == expiry


@pytest.mark.parametrize("existing", KINDS, indirect=True, ids=lambda kind: kind.kind)
def test_status_is_a_subresource(admin: Kube, existing: tuple[Resource, Object]) -> None:
    """A write of the spec leaves the status, and the other way round; generation counts specs only."""
    kind, made = existing
    name, namespace = made["metadata"]["name"], in_namespace(kind)
    assert "status" not in made
    status: Object = {"observedGeneration": 1}
    assert "status" not in admin.patch(kind, name, {"status": status}, namespace).object()
    field, value = next(iter(MUTABLE[kind].items()))
    both = admin.patch(kind, name, {"status": status, "spec": {field: value}}, namespace, subresource="status").object()
    assert both["status"] == status
    assert both["spec"] == made["spec"]
    assert both["metadata"]["generation"] == made["metadata"]["generation"] == 1


@pytest.mark.parametrize("existing", KINDS, indirect=True, ids=lambda kind: kind.kind)
def test_two_managers_share_the_conditions(admin: Kube, existing: tuple[Resource, Object]) -> None:
    kind, made = existing
    namespace = in_namespace(kind)
    head = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": made["metadata"]["name"], "uid": made["metadata"]["uid"]},
    }

    def conditions(manager: str, *owned: Object) -> set[tuple[str, str]]:
        body = {**head, "status": {"conditions": list(owned)}}
        kept = admin.apply(kind, body, manager, namespace, subresource="status").object()["status"]["conditions"]
        return {(each["type"], each["status"]) for each in kept}

    assert conditions(base.CONTROLLER, condition("Ready"), condition("Stalled", "False")) == {
        ("Ready", "True"),
        ("Stalled", "False"),
    }
    both = {("Ready", "True"), ("Stalled", "False"), ("KeystoreSynced", "True")}
    assert conditions(base.AGENT, condition("KeystoreSynced")) == both
    assert conditions(base.CONTROLLER, condition("Ready", "False")) == {("Ready", "False"), ("KeystoreSynced", "True")}


@pytest.mark.parametrize("existing", [HOSTS], indirect=True, ids=["Host"])
def test_storage_of_a_host_is_a_map_by_pool(admin: Kube, existing: tuple[Resource, Object]) -> None:
    _, made = existing
    head = {"apiVersion": HOSTS.api_version, "kind": "Host", "metadata": {"name": made["metadata"]["name"]}}
    for manager, pool in (("one", "a"), ("two", "b")):
        body = {**head, "status": {"storage": [{"pool": pool, "writable": True}]}}
        kept = admin.apply(HOSTS, body, manager, subresource="status").object()
    assert [each["pool"] for each in kept["status"]["storage"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("existing", "status", "words"),
    [
        (HOSTS, {"certificates": [{"state": "Uploaded"}]}, "status.certificates[0].name: Required"),
        (HOSTS, {"certificates": [{"name": "ca"}]}, "status.certificates[0].state: Required"),
        (HOSTS, {"storage": [{"writable": True}]}, "status.storage[0].pool"),
        (HOSTS, {"storage": [{"pool": "p", "unplaced": [{"name": "x"}]}]}, "unplaced[0].state: Required"),
        (HOSTS, {"keystore": {"lastDrift": {"kind": "EntryMissing"}}}, "status.keystore.lastDrift.time: Required"),
        (HOSTS, {"keystore": {"lastVerifiedTime": "0000-01-01T00:00:00Z"}}, "status.keystore.lastVerifiedTime"),
        (TEMPLATE_PLACEMENTS, {"file": {"digest": "x"}}, "status.file.path: Required"),
        (TEMPLATE_PLACEMENTS, {"progress": {"updatedTime": "0000-01-01T00:00:00Z"}}, "status.progress.updatedTime"),
        (
            TEMPLATE_PLACEMENTS,
            {"progress": {"updatedTime": "2026-01-01T00:00:00+99:99"}},
            "status.progress.updatedTime",
        ),
        (TEMPLATE_PLACEMENTS, {"observed": {"mtime": "2026-01-01T00:00:00x1Z"}}, "status.observed.mtime"),
        (TEMPLATE_DEPLOYMENTS, {"failures": [{"host": "h", "pool": "p"}]}, "status.failures[0].reason: Required"),
    ],
    indirect=["existing"],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_that_nobody_could_read_is_refused(
    admin: Kube, existing: tuple[Resource, Object], status: Object, words: str
) -> None:
    kind, made = existing
    name = made["metadata"]["name"]
    answer = admin.patch(kind, name, {"status": status}, in_namespace(kind), subresource="status")
    assert answer.code == 422
    assert words in answer.message


@pytest.mark.parametrize("existing", [HOSTS], indirect=True, ids=["Host"])
def test_a_host_has_room_for_the_proofs_of_thousands_of_certificates(
    admin: Kube, existing: tuple[Resource, Object]
) -> None:
    _, made = existing
    head = {"apiVersion": HOSTS.api_version, "kind": "Host", "metadata": {"name": made["metadata"]["name"]}}
    proven = {"state": "Uploaded", "fingerprintSHA256": bytes(32).hex(":")}
    proofs = [{"name": f"{number:063}", **proven} for number in range(host.CERTIFICATES_LIMIT + 1)]

    def answer(count: int) -> Answer:
        return admin.apply(
            HOSTS, {**head, "status": {"certificates": proofs[:count]}}, base.AGENT, subresource="status"
        )

    for count in (300, host.CERTIFICATES_LIMIT):
        assert answer(count).object()["status"]["certificates"] == proofs[:count]
    refused = answer(host.CERTIFICATES_LIMIT + 1)
    assert refused.code == 422
    assert "status.certificates" in refused.message


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
    admin: Kube, existing: tuple[Resource, Object], status: Object, field: str
) -> None:
    kind, made = existing
    answer = admin.patch(kind, made["metadata"]["name"], {"status": status}, NAMESPACE, subresource="status")
    assert answer.code == 422
    assert field in answer.message


def test_the_category_lists_all_kinds(control_plane: harness.ControlPlane, admin: Kube) -> None:
    made = [(kind, create(admin, kind, MINIMAL[kind], dry=False).object()["metadata"]["name"]) for kind in KINDS]
    try:
        shown = control_plane.kubectl("get", "directdownload", "-A", "-o", "name", check=True).stdout.split()
        expected = {f"{kind.kind.lower()}.{kind.group}/{name}" for kind, name in made}
        assert expected <= set(shown)
    finally:
        for kind, name in made:
            admin.delete(kind, name, in_namespace(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_scope(kind: Resource) -> None:
    """The client's table of kinds and the definitions say the same."""
    definition = next(each.DEFINITION for each in crd.KINDS if each.DEFINITION.kind == kind.kind)
    assert (definition.plural, definition.namespaced) == (kind.plural, kind.namespaced)
    assert (kind.group, kind.version) == (base.GROUP, base.VERSION)
