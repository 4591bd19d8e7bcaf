"""No projection raises on what the definitions admit: documents made from their schemas, and spoilt words of agents.

An object that cannot be read is held and reported (`Store.unreadable`), so nothing falls over; but whoever may write a
status could take an object out of service with it. That the API server refuses what cannot be read is shown in
`tests/api/test_resources.py`.
"""

import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies
from tests.api import samples
from tests.unit.planning import build

from directdownload.agent import proof, views
from directdownload.cluster import kinds, objects
from directdownload.controller.context import PROJECTIONS
from directdownload.planning import observed
from directdownload.resources import crd

Project = Callable[[Any], Any]
_KINDS = {each.DEFINITION.plural: each for each in crd.KINDS}
_AGENTS: tuple[tuple[kinds.Resource, Project], ...] = (
    (kinds.HOSTS, views.project_host),
    (kinds.HOSTS, lambda document: proof.told(document.get("status") or {})),
    (kinds.ZONES, views.project_zone),
    (kinds.CERTIFICATES, views.project_certificate),
    (kinds.STORAGE_POOLS, views.project_pool),
)
_TEXTS = strategies.text(strategies.characters(codec="utf-8"), max_size=20)
#: What the format date-time admits, of which `datetime` cannot hold the latter.
_TIMES = strategies.datetimes().map(lambda moment: moment.isoformat() + "Z") | strategies.sampled_from(
    ["0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00x123Z", "0001-01-01T00:00:00+14:00"]
)
#: What every object of Kubernetes' own has, by the API server's word.
_METADATA = {
    "name": "a",
    "uid": "u",
    "resourceVersion": "7",
    "generation": 1,
    "creationTimestamp": "2026-01-01T00:00:00Z",
}


def admitted(schema: dict[str, Any]) -> strategies.SearchStrategy[Any]:
    """What a structural schema of ours admits."""
    if "enum" in schema:
        return strategies.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return strategies.integers(0, 100) | strategies.just("10")
    match schema["type"]:
        case "object" if "properties" in schema:
            required = schema.get("required", ())
            fields = {name: admitted(each) for name, each in schema["properties"].items()}
            return strategies.fixed_dictionaries(
                {name: fields[name] for name in required},
                optional={name: each for name, each in fields.items() if name not in required},
            )
        case "object":
            return strategies.dictionaries(_TEXTS, admitted(schema["additionalProperties"]), max_size=3)
        case "array":
            keys = schema.get("x-kubernetes-list-map-keys")
            unique = (lambda item: tuple(item[key] for key in keys)) if keys else None
            return strategies.lists(admitted(schema["items"]), max_size=3, unique_by=unique)
        case "integer":
            return strategies.integers(-(2**63), 2**63 - 1)
        case "boolean":
            return strategies.booleans()
    if schema.get("format") == "date-time":
        return _TIMES.filter(lambda text: re.search(schema.get("pattern", ""), text) is not None)
    return _TEXTS.map(lambda text: text[: schema["maxLength"]])


@functools.cache
def schema_of(kind: kinds.Resource) -> dict[str, Any]:
    version = crd.definition(_KINDS[kind.plural])["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return found


@functools.cache
def documents(kind: kinds.Resource) -> strategies.SearchStrategy[dict[str, Any]]:
    """Specs are two good ones; of a field that no rule narrows, any value. Statuses are anything."""
    free = {
        name: admitted(each)
        for name, each in schema_of(kind)["spec"]["properties"].items()
        if "x-kubernetes-validations" not in str(each) and "default" not in each
    }
    specs = strategies.builds(
        lambda base, more: {**base, **more},
        strategies.sampled_from([samples.MINIMAL[kind], samples.FULL[kind]]),
        strategies.fixed_dictionaries({}, optional=free),
    )
    metadata = {**_METADATA, **({"namespace": "n"} if kind.namespaced else {})}
    head = {"metadata": strategies.just(metadata), "spec": specs}
    return strategies.fixed_dictionaries(head, optional={"status": admitted(schema_of(kind)["status"])})


@pytest.mark.parametrize(
    ("kind", "project"),
    [*((kind, each) for kind, each in PROJECTIONS.items() if kind.group == kinds.HOSTS.group), *_AGENTS],
    ids=lambda value: value.kind if isinstance(value, kinds.Resource) else "",
)
@hypothesis.settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
@hypothesis.given(data=strategies.data())
def test_what_the_definitions_admit_is_read(
    kind: kinds.Resource, project: Project, data: strategies.DataObject
) -> None:
    assert project(data.draw(documents(kind))) is not None


@pytest.mark.parametrize("project", [objects.project_node, objects.project_pod, objects.project_job])
@hypothesis.given(data=strategies.data())
def test_what_others_have_not_reported_yet_is_read(project: Project, data: strategies.DataObject) -> None:
    """Kubernetes' own kinds, whose statuses the API server checks: any part of them may be missing."""
    condition = {"type": strategies.sampled_from(["Ready", "Failed", "Complete", "PodScheduled"])}
    time = strategies.just("2026-01-01T00:00:00Z")
    conditions = strategies.fixed_dictionaries(
        condition,
        optional={"status": strategies.sampled_from(["True", "False"]), "reason": _TEXTS, "lastTransitionTime": time},
    )
    told = strategies.fixed_dictionaries({}, optional={"reason": _TEXTS, "message": _TEXTS})
    ended = strategies.fixed_dictionaries({"exitCode": strategies.integers(0, 255)}, optional={"message": _TEXTS})
    state = strategies.fixed_dictionaries({}, optional={"waiting": told, "terminated": ended})
    container = strategies.fixed_dictionaries({}, optional={"state": state, "lastState": state})
    status = strategies.fixed_dictionaries(
        {},
        optional={
            "conditions": strategies.lists(conditions, max_size=3),
            "containerStatuses": strategies.lists(container, max_size=2),
            "phase": _TEXTS,
            "reason": _TEXTS,
            "active": strategies.integers(0, 9),
        },
    )
    document = {"metadata": {**_METADATA, "namespace": "n"}}
    assert (
        project({**document, **data.draw(strategies.fixed_dictionaries({}, optional={"status": status}))}) is not None
    )


_ANYTHING = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | _TEXTS,
    lambda inner: strategies.lists(inner, max_size=2) | strategies.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=4,
)
_WORDS = strategies.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("bytesDownloaded", "bytesTotal", "updatedTime", "present", "changed", "revision"), _ANYTHING
    ),
)


@hypothesis.given(progress=_ANYTHING | _WORDS, seen=_ANYTHING | _WORDS)
def test_an_agents_word_that_cannot_be_read_counts_as_absent(progress: Any, seen: Any) -> None:
    """It takes no copy out of service, whatever it is; what the controller has written is read."""
    document = build.placement_document(phase="Ready", status={**build.file_status(), "attempts": 3})
    spoilt = copy.deepcopy(document)
    spoilt["status"] |= {"progress": progress, "observed": seen}
    found, plain = observed.project_placement(spoilt), observed.project_placement(document)
    assert (found.phase, found.file, found.attempts, found.conditions) == (
        plain.phase,
        plain.file,
        plain.attempts,
        plain.conditions,
    )
    numbers = (found.bytes_downloaded, found.bytes_total)
    assert all(type(each) is int for each in numbers)
    assert (type(found.observed_present), type(found.observed_changed), type(found.observed_revision)) == (
        bool,
        bool,
        str,
    )


def test_a_file_without_a_path_counts_as_absent() -> None:
    document = build.placement_document(phase="Ready", status={"file": {"digest": build.DIGEST}})
    assert observed.project_placement(document).file is None
