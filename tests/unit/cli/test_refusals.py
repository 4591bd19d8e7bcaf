"""What the API server says, in words for users. The texts are what a real kube-apiserver 1.35 answered."""

import re
from typing import Any

import pytest
from tests.world.checkout import CHART

from directdownload.cli import exit_status as outcome
from directdownload.cli import refusals
from directdownload.cluster import errors, kinds

_CALL = "CREATE /apis/directdownload.dev/v1alpha1/namespaces/default/templates: "


def answered(status: int, reason: str, message: str, **details: Any) -> errors.ApiError:
    """The error of an answer to `_CALL`."""
    document = {"kind": "Status", "reason": reason, "message": message, "code": status, "details": details}
    return errors.from_status(document, status, None, _CALL.removesuffix(": "))


def refused(*causes: tuple[str, str]) -> errors.ApiError:
    """A Template that is refused for `causes`: field and message."""
    text = ", ".join(f"{field}: {message}" for field, message in causes)
    listed = [{"reason": "FieldValueInvalid", "field": field, "message": message} for field, message in causes]
    return answered(422, "Invalid", f'Template.directdownload.dev "x" is invalid: [{text}]', causes=listed)


def lines(error: errors.ApiError) -> list[str]:
    first, *fields = refusals.failure(error).message.splitlines()
    assert first == "refused, nothing was created or changed:"
    return [line.removeprefix("  ") for line in fields]


_INVALID = refused(
    (
        "spec.checksum",
        'Invalid value: "sha256:12": expected an algorithm (MD5, SHA-1) with exactly its number of hex digits, for '
        "example sha256:c6",
    ),
    ("spec.mirrors", 'Invalid value: "array": expected an http, https or nfs URL'),
    ("spec.url", 'Invalid value: "ftp://x/y, spec.foo: Bar": expected an http, https or nfs URL'),
    ("spec.zones[0]", 'Invalid value: "A_b": expected the name of an object'),
)


def test_each_refused_field_is_one_line() -> None:
    assert lines(_INVALID) == [
        "spec.checksum: expected an algorithm (MD5, SHA-1) with exactly its number of hex digits, for example "
        'sha256:c6 (given: "sha256:12")',
        "spec.mirrors: expected an http, https or nfs URL",
        'spec.url: expected an http, https or nfs URL (given: "ftp://x/y, spec.foo: Bar")',
        'spec.zones[0]: expected the name of an object (given: "A_b")',
    ]


def test_a_list_of_values_is_kept_and_the_note_about_unchecked_rules_is_not() -> None:
    unsupported = refused(
        ("spec.format", 'Unsupported value: "QCOW3": supported values: "QCOW2", "RAW"'),
        (
            "<nil>",
            "Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
            "existing errors to complete validation",
        ),
    )
    assert lines(unsupported) == ['spec.format: expected one of QCOW2, RAW (given: "QCOW3")']


def test_a_single_complaint_and_a_missing_field() -> None:
    assert lines(refused(("spec.url", "Required value"))) == ["spec.url: is missing"]
    assert refusals.failure(answered(422, "Invalid", "nothing of the kind")).message == "refused: nothing of the kind"


def test_other_kinds_of_refusals_are_named() -> None:
    error = refused(("spec.mirrors", "Too many: 17: must have at most 16 items"), ("", "denied by a webhook"))
    assert lines(error) == ["denied by a webhook", "spec.mirrors: too many: must have at most 16 items (given: 17)"]


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (_INVALID, 3, ["nothing was created", "spec.url: expected an http"]),
        (
            answered(404, "NotFound", 'templates.directdownload.dev "x" not found', name="x", kind="templates"),
            3,
            ["there is no template 'x' in namespace 'default'"],
        ),
        (answered(404, "NotFound", 'namespaces "nope" not found', name="nope", kind="namespaces"), 3, ['"nope" not']),
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
            answered(
                409, "AlreadyExists", 'templates.directdownload.dev "x" already exists', name="x", kind="templates"
            ),
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


_MISSING = answered(404, "NotFound", 'templates.directdownload.dev "debain" not found', name="debain", kind="templates")


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
