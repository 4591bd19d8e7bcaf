"""What a newer version wrote reads as Unknown: reasons, phases, states and fields that this one has never heard of."""

import json
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from tests.unit.controller import build as objects
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document

from directdownload.agent import cluster_view as views
from directdownload.cluster import kinds
from directdownload.controller import world as worlds
from directdownload.controller.context import projections
from directdownload.controller.world import World
from directdownload.planning import plans
from directdownload.planning.deployments import plan_placements
from directdownload.planning.observed import PlacementView
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import PlacementPlan, Step
from directdownload.resources import crd
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason, Word, WordOrUnknown
from directdownload.resources.templateplacement import Phase

TOMORROW = "OfTomorrow"
KINDS = {kind.DEFINITION.kind: kind for kind in crd.KINDS}
SPECS: dict[str, Document] = {
    "Zone": {"nodeSelector": {}},
    "Host": {"nodeName": "a", "zone": "zone-1"},
    "StoragePool": {"zone": "zone-1", "path": "/var/lib/libvirt/images"},
    "Template": {"url": "https://images.example.org/debian-13.qcow2", "format": "QCOW2"},
    "TemplateDeployment": {"templateRef": {"name": "debian-13"}, "zone": "zone-1"},
    "TemplatePlacement": build.placement_document()["spec"],
    "DirectDownloadCertificate": {"zone": "zone-1", "alias": "ca", "certificate": "x"},
}
AGENTS: dict[str, Callable[[Document], Any]] = {
    "Host": views.project_host,
    "Zone": views.project_zone,
    "StoragePool": views.project_pool,
    "DirectDownloadCertificate": views.project_certificate,
}


def filled(schema: Document) -> Any:
    """A value for every field of `schema`, each word of a list one of tomorrow, and in each object one field more."""
    if schema.get("format") == "date-time":
        return build.stamp(NOW)
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = {name: filled(field) for name, field in schema["properties"].items()}
            if "reason" in fields:
                fields["reason"] = TOMORROW
            return {**fields, "ofTomorrow": {"more": [1]}}
        case "object":
            return {"a": filled(schema["additionalProperties"])}
        case "array":
            return [filled(schema["items"])]
        case "integer":
            return 1
        case "boolean":
            return True
    return TOMORROW if "enum" in schema else "abc"


def document(kind: str) -> Document:
    schema = crd.definition(KINDS[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    status = filled(schema["status"])
    # A type of a condition is a name of its own; these are the ones that decide.
    status["conditions"] = [{**status["conditions"][0], "type": name} for name in ("Ready", "Stalled", TOMORROW)]
    spec = {**SPECS[kind], "ofTomorrow": {"more": [1]}}
    return {"metadata": build.metadata("a", namespace="default"), "spec": spec, "status": status, "ofTomorrow": 1}


def words(value: Any) -> list[Word]:
    """All words of lists in a model or view."""
    if isinstance(value, Word):
        return [value]
    if isinstance(value, pydantic.BaseModel):
        return [word for name in type(value).model_fields for word in words(getattr(value, name))]
    if isinstance(value, tuple | list):
        return [word for each in value for word in words(each)]
    if isinstance(value, dict):
        return [word for each in value.values() for word in words(each)]
    return []


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_of_tomorrow_reads_as_unknown_in_controller_and_command_line(kind: str) -> None:
    model = KINDS[kind].model_validate(document(kind))
    found = words(model.status)  # type: ignore[attr-defined]
    assert found
    assert {str(word) for word in found} == {"Unknown"}
    resource = next(each for each in kinds.OURS if each.kind == kind)
    view = projections(build.VIEWS)[resource](document(kind))
    if isinstance(view, PlacementView):
        assert (view.phase, view.reason) == (Phase.UNKNOWN, Reason.UNKNOWN)
    else:
        assert {str(word) for word in words(view.status)} == {"Unknown"}


@pytest.mark.parametrize("kind", AGENTS)
def test_a_status_of_tomorrow_is_no_trouble_for_the_agent(kind: str) -> None:
    assert AGENTS[kind](document(kind)).key == "default/a"


@pytest.mark.parametrize(
    "word", [cls for cls in (*Word.__subclasses__(), *WordOrUnknown.__subclasses__()) if cls is not WordOrUnknown]
)
def test_unknown_is_read_and_is_no_value_of_a_definition(word: type[Word]) -> None:
    """Unless it is written as well."""
    assert word(TOMORROW) is word("Unknown")
    with pytest.raises(ValueError, match="5"):
        word(5)  # type: ignore[arg-type]
    schema = pydantic.TypeAdapter(word).json_schema()
    written = issubclass(word, WordOrUnknown)
    assert schema["enum"] == [each.value for each in word if written or each.value != "Unknown"]


EVERYTHING = plans.Surroundings(build.template(), build.zone(), build.host(), build.pool(), (build.ROOT,))


@pytest.mark.parametrize("deleting", [False, True])
@pytest.mark.parametrize("departed", [False, True])
@pytest.mark.parametrize("verb", [None, "fetch", "verify", "remove"])
def test_a_copy_in_a_phase_of_tomorrow_is_left_alone(verb: str | None, departed: bool, deleting: bool) -> None:
    placement = build.VIEWS.placement(build.placement_document(phase=TOMORROW, deleting=deleting))
    world = World(())
    if verb is not None:
        world.jobs.observe(objects.job(placement, verb, ended="Complete"))
    around = plans.Surroundings(
        template=EVERYTHING.template,
        zone=EVERYTHING.zone,
        host=None if departed else EVERYTHING.host,
        pool=EVERYTHING.pool,
        pool_roots=EVERYTHING.pool_roots,
        departed=departed,
        successor="kvm-2",
    )
    assert plan_placement(placement, around, world.job(placement, NOW), NOW) == PlacementPlan(None)


def test_nothing_takes_a_copy_in_a_phase_of_tomorrow_away() -> None:
    placement = build.VIEWS.placement(build.placement_document(phase=TOMORROW))
    for deployments in ([], [build.deployment(deleting=True)], [build.deployment(spec={"hosts": ["kvm-9"]})]):
        changes = plan_placements(
            build.template(deleting=True), deployments, build.fleet([build.host()]), build.by_key(placement)
        )
        assert changes == type(changes)()


@pytest.mark.parametrize("phase", ["Pending", "Downloading", "Ready", "Removing"])
@pytest.mark.parametrize("annotations", [{worlds.VERB_ANNOTATION: "mend"}, {worlds.ATTEMPT_ANNOTATION: "1st"}, {}])
def test_a_job_of_tomorrow_comes_to_its_end_and_then_makes_way(annotations: dict[str, str], phase: str) -> None:
    placement = build.placement(phase=phase)
    for ended in (False, True):
        told = {worlds.PLACEMENT_UID_ANNOTATION: placement.uid, worlds.VERB_ANNOTATION: "mend", **annotations}
        if not annotations:
            del told[worlds.VERB_ANNOTATION]
        world = World(())
        job = objects.job(placement, annotations=told)
        world.jobs.observe(job)
        state = objects.ended('{"reason": "Mended"}') if ended else {"running": {}}
        world.pods.observe(objects.pod(job, state=state))
        found = world.job(placement, NOW)
        assert found is not None
        assert (found.verb, found.attempt) == (None, 0)
        assert plan_placement(placement, EVERYTHING, found, NOW) == PlacementPlan(None, drop_job=ended)


@pytest.mark.parametrize("verb", ["fetch", "verify", "remove"])
def test_a_result_of_tomorrow_is_no_success_and_no_order(verb: str) -> None:
    """A file that may have been fetched is looked at again; one that may be gone is asked to go again."""
    phase = {"fetch": "Downloading", "verify": "Ready", "remove": "Removing"}[verb]
    placement = build.placement(phase=phase)
    world = World(())
    job = objects.job(placement, verb)
    world.jobs.observe(job)
    told = json.dumps({"reason": TOMORROW, "message": "done otherwise", "ofTomorrow": 1})
    world.pods.observe(objects.pod(job, state=objects.ended(told)))
    found = world.job(placement, NOW)
    assert found is not None
    assert found.result == JobResult(reason=Reason.UNKNOWN, message="done otherwise")
    plan = plan_placement(placement, EVERYTHING, found, NOW)
    assert plan.status is not None
    assert plan.step is Step.NONE
    assert plan.status.phase == {"fetch": "Pending", "verify": "Ready", "remove": "Removing"}[verb]
    assert plan.status.next_attempt_time is not None
