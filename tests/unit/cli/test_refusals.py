"""What the API server says, in words for users. The texts are what a real kube-apiserver 1.35 answered."""

import re

import pytest
from tests.world.checkout import CHART

from directdownload.cli import exit_status as outcome
from directdownload.cli import refusals
from directdownload.cluster import errors, kinds

_CALL = "CREATE /apis/directdownload.dev/v1alpha1/namespaces/default/templates: "
_INVALID = (
    _CALL + 'Template.directdownload.dev "x" is invalid: [spec.checksum: Invalid value: "sha256:12": expected an '
    "algorithm (MD5, SHA-1) with exactly its number of hex digits, for example sha256:c6, spec.mirrors: Invalid value: "
    '"array": expected an http, https or nfs URL, spec.url: Invalid value: "ftp://x/y, spec.foo: Bar": expected an '
    'http, https or nfs URL, spec.zones[0]: Invalid value: "A_b": expected the name of an object]'
)
_UNSUPPORTED = (
    _CALL + 'Template.directdownload.dev "x" is invalid: [spec.format: Unsupported value: "QCOW3": supported values: '
    '"QCOW2", "RAW", <nil>: Invalid value: null: some validation rules were not checked because the object was '
    "invalid; correct the existing errors to complete validation]"
)


def test_each_refused_field_is_one_line() -> None:
    assert refusals.field_errors(_INVALID) == [
        "spec.checksum: expected an algorithm (MD5, SHA-1) with exactly its number of hex digits, for example "
        'sha256:c6 (given: "sha256:12")',
        "spec.mirrors: expected an http, https or nfs URL",
        'spec.url: expected an http, https or nfs URL (given: "ftp://x/y, spec.foo: Bar")',
        'spec.zones[0]: expected the name of an object (given: "A_b")',
    ]


def test_a_list_of_values_is_kept_and_the_note_about_unchecked_rules_is_not() -> None:
    assert refusals.field_errors(_UNSUPPORTED) == ['spec.format: expected one of QCOW2, RAW (given: "QCOW3")']


def test_a_single_complaint_and_a_missing_field() -> None:
    text = _CALL + 'Template.directdownload.dev "x" is invalid: spec.url: Required value'
    assert refusals.field_errors(text) == ["spec.url: is missing"]
    assert refusals.field_errors("nothing of the kind") == []


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (errors.Invalid(422, "Invalid", _INVALID), 3, ["nothing was created", "spec.url: expected an http"]),
        (
            errors.NotFound(404, "NotFound", f'{_CALL}templates.directdownload.dev "x" not found'),
            3,
            ["there is no template 'x' in namespace 'default'"],
        ),
        (
            errors.NotFound(404, "HTTP404", "LIST /apis/directdownload.dev/v1alpha1/zones: 404 page not found"),
            3,
            ["not installed", "helm install"],
        ),
        (
            errors.NotFound(
                404,
                "NotFound",
                "LIST /apis/directdownload.dev/v1alpha1/zones: the server could not find the requested resource",
            ),
            3,
            ["not installed", "helm install"],
        ),
        (
            errors.Forbidden(
                403,
                "Forbidden",
                f'{_CALL}templates.directdownload.dev is forbidden: User "ann" cannot create resource "templates" in '
                'API group "directdownload.dev" in the namespace "default"',
            ),
            3,
            ["'ann' may not create templates.directdownload.dev in namespace 'default'", "the verb 'create'"],
        ),
        (
            errors.Forbidden(
                403,
                "Forbidden",
                'GET /apis/directdownload.dev/v1alpha1/zones/a: zones.directdownload.dev "a" is forbidden: User "ann" '
                'cannot get resource "zones" in API group "directdownload.dev" at the cluster scope',
            ),
            3,
            ["may not get zones.directdownload.dev (cluster-wide)"],
        ),
        (errors.Forbidden(401, "Unauthorized", f"{_CALL}Unauthorized"), 3, ["credentials", "log in"]),
        (
            errors.Forbidden(
                403,
                "Forbidden",
                f"{_CALL}templates.directdownload.dev \"x\" is forbidden: ValidatingAdmissionPolicy 'system' with "
                "binding 'system' denied request: type: expected USER or ROUTING at creation",
            ),
            3,
            ["refused by the policy 'system': type: expected USER or ROUTING at creation"],
        ),
        (
            errors.AlreadyExists(409, "AlreadyExists", f'{_CALL}templates.directdownload.dev "x" already exists'),
            3,
            ["template 'x' already exists in namespace 'default'"],
        ),
        (errors.Conflict(409, "Conflict", f"{_CALL}the object has been modified"), 1, ["at the same time"]),
        (errors.TooManyRequests(429, "TooManyRequests", f"{_CALL}slow down", 1.0), 1, ["too busy"]),
        (errors.Unreachable(503, "ServiceUnavailable", f"{_CALL}apiserver is shutting down"), 1, ["(503)"]),
        (errors.Unreachable(0, "Timeout", f"{_CALL}TimeoutError"), 1, ["did not answer in time"]),
        (
            errors.Unreachable(
                0,
                "ConnectionFailed",
                f"{_CALL}ClientConnectorError Cannot connect to host 127.0.0.1:1 ssl:default "
                "[Connect call failed ('127.0.0.1', 1)]",
            ),
            1,
            ["cannot reach the API server at 127.0.0.1:1: connection refused", "--kubeconfig"],
        ),
        (errors.ConfigurationError("kubeconfig /x cannot be used: no such file"), 3, ["/x cannot", "$KUBECONFIG"]),
        (errors.Invalid(400, "BadRequest", f'{_CALL}strict decoding error: unknown field "spec.x"'), 3, ["spec.x"]),
    ],
)
def test_errors_say_what_to_do(error: errors.ApiError, exit_code: int, words: list[str]) -> None:
    failure = refusals.failure(error)
    assert isinstance(failure, outcome.Failure)
    assert failure.exit_code == exit_code
    for word in words:
        assert word in failure.message
    assert "/apis/" not in failure.message


_MISSING = errors.NotFound(404, "NotFound", f'{_CALL}templates.directdownload.dev "debain" not found')


@pytest.mark.parametrize(
    ("known", "end"),
    [
        (None, "in namespace 'default'"),
        ([], "in namespace 'default'; existing templates: none yet"),
        (["debian", "fedora"], "(did you mean 'debian'?)"),
        (["arch", "fedora"], "; existing templates: arch, fedora"),
        ([f"t{number:02d}" for number in range(20)], "t07 and 12 more"),
    ],
)
def test_names_that_there_are(known: list[str] | None, end: str) -> None:
    assert refusals.missing(_MISSING) == ("templates", "default")
    assert refusals.failure(_MISSING, known).message.endswith(end)


def test_fields_that_the_cluster_does_not_know_are_of_another_version() -> None:
    said = (
        'Template in version "v1alpha1" cannot be handled as a Template: strict decoding error: unknown field "spec.x"'
    )
    found = refusals.failure(errors.Invalid(400, "BadRequest", _CALL + said))
    assert 'refused: unknown field "spec.x". Compare the version of this command line (0.2.0)' in found.message


@pytest.mark.parametrize("plural", [kind.plural for kind in kinds.OURS])
@pytest.mark.parametrize("verb", ["get", "list", "watch", "create", "patch", "delete"])
def test_the_role_that_is_named_has_the_right(verb: str, plural: str) -> None:
    if (verb, plural) == ("create", "templateplacements"):
        return  # nobody but the controller
    roles = (CHART / "templates" / "roles.yaml").read_text().split("\n---\n")
    [text] = [
        text for text in roles if re.search(rf"fullname.*}}}}-{refusals.role(verb, plural)}$", text, re.MULTILINE)
    ]
    rules = re.findall(r"resources: \[(.*)\]\n  verbs: \[(.*)\]", text)
    assert any(plural in resources.split(", ") and verb in verbs.split(", ") for resources, verbs in rules)
