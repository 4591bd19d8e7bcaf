"""Objects of Kubernetes' own kinds and the results of jobs, as any allowed writer could make them.

No schema of ours says what they may hold: each field that the product reads has a list of hostile values, within what
the API server lets through. Drawn with a `tests.world.admitted.Draw`, so that a seed says which.
"""

import base64
import datetime
import functools
import json
from typing import Any

from cryptography import x509
from tests.world import certificates
from tests.world.admitted import ANNOTATIONS, LARGEST, NAMES, TEXTS, TIMES, UIDS, Document, Draw

from directdownload.controller import world
from directdownload.resources import headers, pem
from directdownload.resources.base import REQUESTED_AT
from directdownload.resources.reasons import Reason

_PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
#: The operator's.
NAMESPACE = "ddo"
#: A time of Kubernetes' own kinds has no pattern, and may have years that Python does not support.
FOREIGN_TIMES = (*TIMES, "0000-01-01T00:00:00Z", "10000-01-01T22:59:59Z", "2025-01-31T12:00:00.000000Z", None)
_DIGESTS = (
    *("", "sha256:" + "ab" * 32, "SHA-256:" + "AB" * 32, "md5:" + "0" * 32, "f" * 32, "sha256:", "sha3:00", "{"),
    *("sha256:" + "\u0661" * 64, " sha256:" + "0" * 64, "{sha512}" + "0" * 128),
)
_VERIFIED = (
    *(None, "2025-01-31T11:59:00Z", "2025-01-31T11:59:00.5+01:00", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z"),
    *("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999Z", "2025-01-31", 0, -62135596800, 253402300799, 1e300),
    *("2025-01-31T12:00:00", "infinity", "2025-01-31T24:00:00Z", "2025-12-31T23:59:60Z", -1),
)
_SIZES: tuple[Any, ...] = (
    None,
    0,
    1,
    -1,
    4096,
    LARGEST,
    LARGEST + 1,
    10**400,
    1.0,
    1.5,
    "1",
    "1e3",
    True,
    [],
    float("inf"),
)
_SECONDS: tuple[Any, ...] = (None, 0, -1, 1.5, 1e300, float("nan"), float("inf"), float("-inf"), "5", "nan", [])
_WORDS: tuple[Any, ...] = (
    *TEXTS,
    "\U0001d54f" * 20000,
    "https://a:b@example.org/?token=secret",
    7,
    None,
    {},
    "x" * 33000,
)


def result(draw: Draw) -> str:
    """A termination message: of one of the product's jobs with any end, or a forged one."""
    if draw.chance(0.15):
        return draw.choice(
            (
                *("", "{}", "null", "[]", "Error: killed", '{"reason":', '{"reason":"\\ud800"}', "\x00", "7"),
                *("[" * 5000, '{"reason":"Downloaded","reason":"Failed"}', '{"reason":"Downloaded","sizeBytes":1e999}'),
            )
        )
    found: dict[str, Any] = {"reason": draw.choice([*(str(each) for each in Reason), "OfTomorrow"])}
    texts = {"message", "path", "format", "source", "etag", "mediaType"}
    fields: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(texts, _WORDS),
        **dict.fromkeys(("sizeBytes", "servedBytes", "virtualSizeBytes"), _SIZES),
        **dict.fromkeys(("seconds", "retryAfterSeconds"), _SECONDS),
        "digest": _DIGESTS,
        "verifiedTime": _VERIFIED,
        "revision": ("", "r1", "x" * 64, "x" * 65, "\x00", 1),
        "resumedFrom": (0, -1, LARGEST + 1),
        "ranges": (True, False, None, "yes"),
        "ofTomorrow": ({"a": 1},),
    }
    # Most drawn results should be readable: few fields at once are odd.
    share = draw.choice((0.05, 0.15, 0.4))
    found |= {name: draw.choice(values) for name, values in fields.items() if draw.chance(share)}
    return json.dumps(found, ensure_ascii=draw.chance(0.5))


@functools.cache
def pems() -> tuple[str, ...]:
    """Certificates that can be published: a current one, one without an end (RFC 5280, 4.1.2.5), an expired one, and
    one near the size limit."""
    long_ago = datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC)
    never = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    large = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x04\x82\xb8\x00" + bytes(0xB800))
    made = (
        *(certificates.der(), certificates.der(begins=long_ago, ends=never)),
        *(certificates.der(begins=long_ago, ends=_PAST), certificates.der(extensions=(large,))),
    )
    return tuple(pem.Certificate(each).pem for each in made)


def _metadata(draw: Draw, name: str, namespace: str = "", **fields: Any) -> Document:
    found = draw.metadata(name, namespace=namespace)
    found.pop("generation")
    return {**found, **fields}


def _condition(draw: Draw, *types: str) -> Document:
    found: Document = {"type": draw.choice(types), "status": draw.choice(("True", "False", "Unknown"))}
    choices: Document = {"reason": TEXTS, "message": TEXTS, "lastTransitionTime": FOREIGN_TIMES}
    for field, values in choices.items():
        if draw.chance(0.7):
            found[field] = draw.choice(values)
    return found


def _some(draw: Draw, **fields: Any) -> Document:
    return {name: value for name, value in fields.items() if draw.chance(0.7)}


def node(draw: Draw, name: str) -> Document:
    conditions = [_condition(draw, "Ready", "DiskPressure") for _ in range(draw.randrange(3))]
    return {
        "metadata": _metadata(draw, name),
        **_some(draw, spec=_some(draw, unschedulable=draw.chance(0.5)), status=_some(draw, conditions=conditions)),
    }


def namespace(draw: Draw, name: str) -> Document:
    return {"metadata": _metadata(draw, name), "spec": {}, "status": {"phase": draw.choice(("Active", "Terminating"))}}


def pod(draw: Draw, name: str, labels: Document) -> Document:
    ended = {
        "exitCode": draw.choice((0, 1, 137, -1, 2**31 - 1)),
        "message": result(draw),
        **_some(draw, reason="Error"),
    }
    waiting = _some(draw, reason=draw.choice(TEXTS), message=draw.choice(TEXTS))
    states: tuple[Document, ...] = (*[{"terminated": ended}] * 4, {"running": {}}, {"waiting": waiting}, {})
    containers = [
        {"state": draw.choice(states), **_some(draw, lastState=draw.choice(states), name="a")}
        for _ in range(draw.randrange(1, 3))
    ]
    status = _some(
        draw,
        phase=draw.choice(("Pending", "Running", "Succeeded", "Failed", "Unknown", "")),
        reason=draw.choice(TEXTS),
        conditions=[
            _condition(draw, "Ready", "PodScheduled", "PodReadyToStartContainers") for _ in range(draw.randrange(3))
        ],
    )
    if draw.chance(0.9):
        status["containerStatuses"] = containers
    return {
        "metadata": _metadata(draw, name, NAMESPACE, labels={**draw.labels(), **labels}),
        "spec": _some(draw, nodeName=draw.choice(NAMES)),
        **({"status": status} if draw.chance(0.9) else {}),
    }


def job(draw: Draw, name: str, owner: Document, owner_uid: str) -> Document:
    """`owner`: the label that names the owner."""
    annotations = {
        world.VERB_ANNOTATION: draw.choice((*["fetch"] * 4, "verify", "verify", "remove", "probe", "ofTomorrow")),
        world.ATTEMPT_ANNOTATION: draw.choice((*["1"] * 6, "2", "999999999", "9999999999", "-1", "\u0661", "")),
        world.PLACEMENT_UID_ANNOTATION: owner_uid if draw.chance(0.8) else draw.choice(UIDS),
        world.GROUPS_ANNOTATION: draw.choice(("zone/a host/a", "probes", "", "\u2003", *ANNOTATIONS)),
        world.HEADERS_ANNOTATION: draw.choice(ANNOTATIONS),
        world.HOST_ANNOTATION: draw.choice((*NAMES, *ANNOTATIONS)),
        world.INPUTS_ANNOTATION: draw.choice(("abc", *ANNOTATIONS, "x" * 40000)),
        REQUESTED_AT: draw.choice((*ANNOTATIONS, "x" * 40000)),
    }
    kept = {key: value for key, value in annotations.items() if draw.chance(0.8)}
    conditions = [_condition(draw, "Complete", "Failed", "Suspended") for _ in range(draw.randrange(2))]
    return {
        "metadata": _metadata(draw, name, NAMESPACE, labels=owner, annotations=kept),
        "spec": {},
        **_some(draw, status=_some(draw, conditions=conditions, active=draw.choice((0, 1, 2**31 - 1)))),
    }


def event(draw: Draw, name: str) -> Document:
    """Of core/v1: texts have no bound of ours, and any field may be missing."""
    reasons = ("FailedMount", "FailedCreate", "Pulling", "SuccessfulCreate", *TEXTS)
    fields = _some(
        draw,
        reason=draw.choice(reasons),
        message=draw.choice((*TEXTS, "x" * 100_000, "https://a:b@example.org/?token=secret", "\U0001d54f" * 5000)),
        type=draw.choice(("Warning", "Normal", "", "OfTomorrow")),
        count=draw.choice((0, 1, -1, 2**31 - 1)),
        firstTimestamp=draw.choice(FOREIGN_TIMES),
        lastTimestamp=draw.choice(FOREIGN_TIMES),
        eventTime=draw.choice(FOREIGN_TIMES),
        source={},
    )
    reference = _some(draw, kind="Pod", name=name, uid=draw.choice(UIDS))
    return {"metadata": _metadata(draw, name, NAMESPACE), "involvedObject": reference, **fields}


def secret(draw: Draw, name: str) -> Document:
    """A Secret of headers, of a certificate, or of other data."""
    names = ("Authorization", "authorization", "ca.crt", "a.b", ".hidden", "Host", "x" * 253)
    values = (b"", b"Bearer a", b"a\r\nb: c", b"\xff\xfe", b"x" * 9000, b"0\x80", b"-----BEGIN CERTIFICATE-----")
    data = {key: base64.b64encode(draw.choice(values)).decode() for key in names if draw.chance(0.4)}
    annotations = {headers.ORIGINS_ANNOTATION: draw.choice(("https://images.example.org", "https://[", *ANNOTATIONS))}
    return {
        "metadata": _metadata(draw, name, "a", annotations=annotations),
        **_some(draw, data=data, type=draw.choice((headers.SECRET_TYPE, "Opaque", ""))),
    }


def config_map(draw: Draw, name: str) -> Document:
    data = {key: draw.choice((*TEXTS, "-----BEGIN CERTIFICATE-----\n")) for key in ("ca.crt", "a") if draw.chance(0.5)}
    binary = {"a": base64.b64encode(draw.choice((b"", b"0\x82\xff\xff", b"\xff\xfea"))).decode()}
    return {"metadata": _metadata(draw, name, "a"), **_some(draw, data=data, binaryData=binary)}


def lease(draw: Draw, name: str) -> Document:
    spec = _some(
        draw,
        holderIdentity=draw.choice((None, *ANNOTATIONS)),
        renewTime=draw.choice(FOREIGN_TIMES),
        leaseTransitions=draw.choice((0, 2**31 - 1, None)),
    )
    return {"metadata": _metadata(draw, name, "a"), **_some(draw, spec=spec)}
