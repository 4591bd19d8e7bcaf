"""Whether a Template's header Secret may be used, what a Job gets of it, and when it is looked at again.

Secrets of other namespaces are not watched: only their Template says that they matter, and a watch would need the right
to list them all. The verdict on a Secret is kept, never a value.
"""

import base64
import binascii
import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any

from directdownload.planning import requests
from directdownload.planning.conditions import Verdict
from directdownload.resources import headers
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template

REASONS = frozenset({Reason.SECRET_NOT_FOUND, Reason.SECRET_FORBIDDEN})
#: A usable Secret is read again for each Job anyway. This look only reports in time that it is gone.
USABLE_PAUSE = datetime.timedelta(minutes=10)
#: A Secret that may not be used is looked at after pauses that double.
FIRST_PAUSE = datetime.timedelta(seconds=5)
LONGEST_PAUSE = datetime.timedelta(minutes=5)
_ORIGINS_LIMIT = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Headers:
    """The result of reading a Secret: why it may not be used, or its headers, base64 as in a Secret's `data`."""

    problem: Verdict | None
    data: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The last look: the Secret's name, its problem, and the times when that was first and last seen."""

    name: str
    problem: Verdict | None
    since: datetime.datetime
    at: datetime.datetime


def judge(template: Template, secret: Mapping[str, Any]) -> Headers:
    """`secret` is the Secret as the API serves it; `template` refers to it."""
    try:
        return Headers(None, _usable(template, secret))
    except ValueError as error:
        return Headers(Verdict(False, Reason.SECRET_FORBIDDEN, f"Secret {_name(template)}: {error}"))


def missing(template: Template) -> Headers:
    message = f"there is no Secret {_name(template)}: create it, or remove headersSecretRef from the Template"
    return Headers(Verdict(False, Reason.SECRET_NOT_FOUND, message))


def forbidden(template: Template) -> Headers:
    """The controller may not read it, so it does not know whether it exists."""
    namespace = template.metadata.namespace
    message = (
        f"Secret {_name(template)}: the controller may not read Secrets of namespace {namespace}; ask an administrator "
        "to list it in the chart's headerSecrets.namespaces"
    )
    return Headers(Verdict(False, Reason.SECRET_FORBIDDEN, message))


def followed(before: Found | None, template: Template, result: Headers, now: datetime.datetime) -> Found:
    """`result` with its times; a problem that lasts keeps its start, even if its message changes."""
    name = _reference(template)
    lasts = before is not None and before.name == name and (before.problem is None) == (result.problem is None)
    return Found(name, result.problem, before.since if lasts and before is not None else now, now)


def good_until(template: Template, last: Found | None, now: datetime.datetime) -> datetime.datetime | None:
    """When the Secret is to be looked at again; None: `last` is about another Secret, or a look is requested."""
    if last is None or last.name != _reference(template):
        return None
    if requests.is_due(requests.due_of(template, now), now):
        return None
    if last.problem is None:
        return last.at + USABLE_PAUSE
    return last.at + min(max(last.at - last.since, FIRST_PAUSE), LONGEST_PAUSE)


def obstacle(template: Template) -> Verdict | None:
    """Why a download or probe has to wait, according to the Template's status; None: it need not."""
    ready = template.status.condition("Ready")
    if template.spec.headers_secret_ref is None or ready is None or ready.reason not in REASONS:
        return None
    return Verdict(False, ready.reason, ready.message)


def _usable(template: Template, secret: Mapping[str, Any]) -> dict[str, str]:
    """The headers. Raises ValueError that says what is wrong and repeats no value."""
    if secret.get("type") != headers.SECRET_TYPE:
        raise ValueError(f"expected type {headers.SECRET_TYPE}, found {secret.get('type')}")
    wanted = headers.origin(template.spec.url)
    if not wanted:
        raise ValueError(
            "spec.url of the Template is neither http nor https and takes no headers; remove headersSecretRef"
        )
    text = str((secret["metadata"].get("annotations") or {}).get(headers.ORIGINS_ANNOTATION, ""))
    listed = re.split(r"[\s,]+", text.strip())[:_ORIGINS_LIMIT]
    if wanted not in map(headers.origin, listed):
        raise ValueError(
            f"expected the annotation {headers.ORIGINS_ANNOTATION} to list {wanted}, the origin of spec.url"
        )
    data: Mapping[str, str] = secret.get("data") or {}
    if not 0 < len(data) <= headers.COUNT_LIMIT:
        raise ValueError(f"expected 1 to {headers.COUNT_LIMIT} headers, one for each key, found {len(data)}")
    found: dict[str, str] = {}
    for name, value in data.items():
        if name.lower() in map(str.lower, found):
            raise ValueError(f"key {name!r}: another key names the same header in other case")
        content = _content(name, value)
        headers.check(name, content)
        found[name] = base64.b64encode(content).decode()
    return found


def _content(name: str, value: str) -> bytes:
    try:
        content = base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError(f"key {name!r}: expected base64") from None
    # Most editors and `echo` end a file with a line break.
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _reference(template: Template) -> str:
    return template.spec.headers_secret_ref.name if template.spec.headers_secret_ref is not None else ""


def _name(template: Template) -> str:
    return f"{template.metadata.namespace}/{_reference(template)}"
