"""A Template's header Secret: what makes it usable, what is said when it is not, when it is looked at again."""

import base64
import json
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, seconds

from directdownload.planning import header_secrets
from directdownload.planning.templates import plan_template
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template

#: What no message may repeat.
SECRET = "c2VjcmV0"


def template(**fields: Any) -> Template:
    spec = {"headersSecretRef": {"name": "token"}, **fields.pop("spec", {})}
    return build.template(spec=spec, **fields)


def secret(**fields: Any) -> dict[str, Any]:
    """A good one, with other `type`, `origins` or `data` where given."""
    origins = fields.pop("origins", "https://images.example.org")
    annotations = {} if origins is None else {"directdownload.dev/origins": origins}
    data = {"Authorization": base64.b64encode(f"Bearer {SECRET}".encode()).decode()}
    return {"metadata": {"annotations": annotations}, "type": "directdownload.dev/headers", "data": data, **fields}


def encoded(**values: bytes) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in values.items()}


@pytest.mark.parametrize(
    "origins",
    [
        "https://images.example.org",
        "https://a.example.org https://images.example.org",
        "https://a.example.org,\n https://IMAGES.example.org:443/ ,",
    ],
)
def test_a_secret_for_the_origin_is_copied_as_it_is(origins: str) -> None:
    found = header_secrets.judge(template(), secret(origins=origins))
    assert found.problem is None
    assert found.data == secret()["data"]


def test_the_end_of_the_line_that_editors_add_is_no_part_of_a_value() -> None:
    for value in (b"abc", b"abc\n", b"abc\r\n"):
        assert header_secrets.judge(template(), secret(data=encoded(A=value))).data == encoded(A=b"abc")


@pytest.mark.parametrize(
    ("spec", "changed", "words"),
    [
        ({}, {"type": "Opaque"}, "expected type directdownload.dev/headers, found Opaque"),
        ({}, {"type": "kubernetes.io/service-account-token"}, "expected type"),
        ({}, {"origins": None}, "directdownload.dev/origins to list https://images.example.org"),
        ({}, {"origins": ""}, "to list https://images.example.org"),
        ({}, {"origins": "http://images.example.org"}, "to list https://images.example.org"),
        ({}, {"origins": "https://images.example.org:8443"}, "to list https://images.example.org"),
        ({}, {"origins": "https://images.example.org.evil.org"}, "to list https://images.example.org"),
        ({}, {"origins": "https://*.example.org"}, "to list https://images.example.org"),
        ({}, {"origins": "images.example.org"}, "to list https://images.example.org"),
        ({}, {"origins": " ".join(["https://a"] * 64 + ["https://images.example.org"])}, "to list"),
        ({"url": "nfs://nas/a"}, {"origins": "nfs://nas"}, "neither http nor https"),
        ({}, {"data": {}}, "expected 1 to 16 headers"),
        ({}, {"data": None}, "expected 1 to 16 headers"),
        ({}, {"data": encoded(**{f"h{n}": b"v" for n in range(17)})}, "found 17"),
        ({}, {"data": encoded(Range=b"bytes=0-")}, "key 'Range': the download sets this header itself"),
        ({}, {"data": encoded(A=b"v", a=b"w")}, "key 'a': another key names the same header in other case"),
        ({}, {"data": encoded(A=SECRET.encode() + b"\r\nX: y")}, "key 'A': expected a value of visible ASCII"),
        ({}, {"data": {"A": f"{SECRET}!"}}, "key 'A': expected base64"),
    ],
)
def test_a_secret_that_may_not_be_used(spec: dict[str, Any], changed: dict[str, Any], words: str) -> None:
    found = header_secrets.judge(template(spec=spec), secret(**changed))
    assert found.problem is not None
    assert (found.problem.reason, found.problem.stalled, found.data) == (Reason.SECRET_FORBIDDEN, False, {})
    assert found.problem.message.startswith("Secret default/token: ")
    assert words in found.problem.message
    assert SECRET not in found.problem.message


def test_values_are_in_no_text_that_a_programmer_might_log() -> None:
    found = header_secrets.judge(template(), secret())
    assert found.data
    look = header_secrets.followed(None, template(), found, NOW)
    for text in (repr(found), str(found), repr(look), json.dumps(str(found))):
        assert not [value for value in found.data.values() if value in text]


def test_what_is_missing_or_forbidden_says_what_to_do() -> None:
    absent, unreadable = header_secrets.missing(template()).problem, header_secrets.forbidden(template()).problem
    assert absent is not None
    assert unreadable is not None
    assert (absent.reason, unreadable.reason) == (Reason.SECRET_NOT_FOUND, Reason.SECRET_FORBIDDEN)
    assert "create it" in absent.message
    assert "headerSecrets.namespaces" in unreadable.message
    assert "namespace default" in unreadable.message


# --- when it is looked at again


def test_a_usable_secret_is_looked_at_every_ten_minutes() -> None:
    look = header_secrets.followed(None, template(), header_secrets.Headers(None), NOW)
    later = header_secrets.followed(look, template(), header_secrets.Headers(None), NOW + seconds(3600))
    assert header_secrets.good_until(template(), later, NOW) == NOW + seconds(3600 + 600)


def test_the_pauses_before_looks_at_an_unusable_one_double_up_to_five_minutes() -> None:
    look, now, pauses = None, NOW, []
    for _ in range(10):
        look = header_secrets.followed(look, template(), header_secrets.missing(template()), now)
        until = header_secrets.good_until(template(), look, now)
        assert until is not None
        pauses.append((until - now).total_seconds())
        now = until
    assert pauses == [5, 5, 10, 20, 40, 80, 160, 300, 300, 300]
    healed = header_secrets.followed(look, template(), header_secrets.Headers(None), now)
    again = header_secrets.followed(healed, template(), header_secrets.forbidden(template()), now + seconds(60))
    assert header_secrets.good_until(template(), again, now) == now + seconds(65), (
        "a new trouble begins with short pauses"
    )


def test_a_look_counts_for_nothing_once_another_secret_is_named_or_somebody_asks() -> None:
    look = header_secrets.followed(None, template(), header_secrets.Headers(None), NOW)
    assert header_secrets.good_until(template(), None, NOW) is None
    assert header_secrets.good_until(template(spec={"headersSecretRef": {"name": "other"}}), look, NOW) is None
    assert header_secrets.good_until(template(requested_at="now"), look, NOW) is None
    served = template(requested_at="now", status={"lastHandledRequest": "now"})
    assert header_secrets.good_until(served, look, NOW) is not None
    status = {"lastHandledRequest": "before", "lastHandledRequestTime": build.stamp(NOW - seconds(1))}
    early = template(requested_at="now", status=status)
    assert header_secrets.good_until(early, look, NOW) is not None, "one request in each interval"


# --- what the Template says


def test_a_template_waits_for_its_secret_and_does_not_stall() -> None:
    before = template()
    status = plan_template(before, {"zone-1"}, [], NOW, secret=header_secrets.missing(before).problem)
    ready, stalled = status.conditions
    assert (ready.status, ready.reason, stalled.status) == ("False", Reason.SECRET_NOT_FOUND, "False")
    build.check_resource(before, status)
    waiting = before.model_copy(update={"status": status})
    obstacle = header_secrets.obstacle(waiting)
    assert obstacle is not None
    assert (obstacle.ready, obstacle.reason, obstacle.message) == (False, ready.reason, ready.message)
    healed = plan_template(waiting, {"zone-1"}, [], NOW)
    assert healed.conditions[0].reason is Reason.REGISTERED
    assert header_secrets.obstacle(waiting.model_copy(update={"status": healed})) is None


def test_a_mistake_that_only_people_correct_is_told_first() -> None:
    before = template(spec={"checksum": "ab" * 32})
    status = plan_template(before, (), [], NOW, secret=header_secrets.missing(before).problem)
    assert status.conditions[0].reason is Reason.INVALID_CHECKSUM


def test_without_a_reference_nothing_waits() -> None:
    told = {"conditions": [build.condition("Ready", "False", Reason.SECRET_NOT_FOUND)]}
    assert header_secrets.obstacle(build.template(status=told)) is None
