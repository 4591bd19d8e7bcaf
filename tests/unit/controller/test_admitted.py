"""Nothing that the definitions admit, and nothing that others may write, raises in the controller: not in a projection,
and not in what plans on it. What planners want written, the definitions admit: a status that is refused each time is a
status that nobody writes any more.

Worlds are drawn by seeds (`drawn.py`); a failure names its own.
"""

import contextlib
import dataclasses
import datetime
import json
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.controller.drawn import Drawn
from tests.unit.planning.build import NOW
from tests.world import foreign
from tests.world.admitted import KINDS, Draw, refused, schema_of

from directdownload.cluster import kinds, objects
from directdownload.controller import installations, jobs, metrics, results, starts, surroundings
from directdownload.controller.context import dump, projections
from directdownload.peer import answers
from directdownload.peer.authority import advanced
from directdownload.peer.certificates import CertificateError
from directdownload.planning import (
    certificates,
    deployments,
    digests,
    dryrun,
    header_secrets,
    hosts,
    placements,
    plans,
    pools,
    probes,
    publications,
    rights,
    rollouts,
    slots,
    startup,
    templates,
    zones,
)
from directdownload.planning import installations as installation_planning
from directdownload.planning.observed import PlacementView, Views, project_namespace, project_revision
from directdownload.planning.plans import Step, Surroundings
from directdownload.planning.selection import select
from directdownload.resources import base, naming, templateplacement
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host
from directdownload.resources.jobs import JOB_ENVIRONMENT_VARIABLE, JobDocument, Verb
from directdownload.resources.peeridentity import PeerIdentity
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment

pytestmark = pytest.mark.long

T = TypeVar("T")
#: Several worlds a test, so that a failure is told with as little as possible around it.
_WORLDS, _PER_TEST = 640, 80
_PEER_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
_PEER_KEYS = answers.Keys(_PEER_KEY, _PEER_KEY)
_TERMS = answers.Terms(advanced(None, NOW), "a.directdownload", 10471)
_OURS = tuple(kind for kind in kinds.OURS if kind.plural in KINDS)
_SKELETON: dict[str, Any] = {
    "kind": "Job",
    "metadata": {},
    "spec": {"template": {"spec": {"containers": [{"name": jobs.CONTAINER}]}}},
}
_VERBS = {Step.FETCH: Verb.FETCH, Step.VERIFY: Verb.VERIFY, Step.REMOVE: Verb.REMOVE}


@dataclasses.dataclass(slots=True)
class Trial:
    """What is tried in one world, and what went wrong."""

    seed: int
    problems: dict[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, what: str, call: Callable[[], T], writes: kinds.Resource | None = None) -> T | None:
        """What `call` returns; None if it raises. `writes`: the status is one of this kind."""
        try:
            found = call()
            if writes is not None and isinstance(found, base.Status):
                for problem in refused(schema_of(writes)["status"], dump(found)):
                    self.problems.setdefault(what, f"seed {self.seed}: {what} wants to write {problem}"[:500])
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"seed {self.seed}: {what} raises {error!r}"[:400] + f" at {where.filename}:{where.lineno}"
            self.problems.setdefault(what, text)
            return None
        return found


def told(problems: dict[str, str]) -> str:
    return "\n".join(problems.values())


@pytest.mark.parametrize("first", range(0, _WORLDS, _PER_TEST))
async def test_a_world_that_others_have_written_is_planned(first: int) -> None:
    problems: dict[str, str] = {}
    for seed in range(first, first + _PER_TEST):
        drawn, trial = Drawn.of(seed), Trial(seed)
        trial.problems |= {key: f"seed {seed}: {key} is not read: {why}" for key, why in drawn.unread.items()}
        _plan_copies(drawn, trial)
        _plan_templates(drawn, trial)
        _plan_infrastructure(drawn, trial)
        _plan_certificates(drawn, trial)
        trial("what Prometheus reads", lambda drawn=drawn: list(drawn.collector.collect()))  # type: ignore[misc]
        problems = {**trial.problems, **problems}
    assert not problems, told(problems)


def _plan_copies(drawn: Drawn, trial: Trial) -> None:
    world = drawn.world
    for placement in tuple(world.placements):
        around = trial("surroundings", lambda p=placement: surroundings.of(world, p, NOW))  # type: ignore[misc]
        if around is None:
            continue
        _plan_copy(drawn, trial, placement, around)


def _plan_copy(drawn: Drawn, trial: Trial, placement: PlacementView, around: Surroundings) -> None:
    world, writes = drawn.world, kinds.TEMPLATE_PLACEMENTS
    job = trial("job", lambda: world.job(placement, NOW))
    plan = trial("plan_placement", lambda: placements.plan_placement(placement, around, job, NOW))
    if plan is None:
        return
    trial("plan_placement", lambda: plan.status, writes)
    trial("shows", lambda: plan.status is None or placement.shows(plan.status))
    trial("mark_removing", lambda: plans.mark_removing(placement, NOW), writes)
    trial("mark_wanted", lambda: plans.mark_wanted(placement, NOW), writes)
    inputs = trial("inputs_of", lambda: placements.inputs_of(around))
    trial("downloading", lambda: plans.downloading(placement, plan.attempt, NOW, inputs=inputs), writes)
    if (made := _VERBS.get(plan.step)) is not None:
        _manifest(
            trial,
            lambda: jobs.manifest(
                *(_SKELETON, foreign.NAMESPACE, placement, jobs.document(placement, around, made, 0), plan.attempt, ())
            ),
        )
    if plan.outcome is not None and job is not None and job.verb is not None:
        verb, outcome = job.verb, plan.outcome
        trial("attempt", lambda: metrics.attempt(placement.zone, placement.host, "", verb, outcome))
    template, zone = around.template, around.zone
    if template is not None and zone is not None:
        wanting = [(d, len(select(d, template, world.fleet(), {}).wanted)) for d in world.wanting(placement)]
        trial("groups_of", lambda: slots.groups_of(placement, template, zone, wanting))


def _manifest(trial: Trial, make: Callable[[], dict[str, Any]]) -> None:
    """The Job can be made, and reads what it is told."""
    body = trial("manifest", make)
    if body is not None:
        (variable,) = body["spec"]["template"]["spec"]["containers"][0]["env"]
        assert variable["name"] == JOB_ENVIRONMENT_VARIABLE
        trial("what a job is told", lambda: JobDocument.model_validate_json(variable["value"]))
        assert len(body["metadata"]["name"]) <= naming.NAME_LIMIT


def _plan_templates(drawn: Drawn, trial: Trial) -> None:
    world = drawn.world
    for template in tuple(world.templates):
        _plan_template(drawn, trial, template)
    for deployment in tuple(world.deployments):
        named = world.templates.get(deployment.template_key)
        _plan_deployment(drawn, trial, deployment, named)


def _plan_template(drawn: Drawn, trial: Trial, template: Template) -> None:
    world, draw = drawn.world, drawn.draw
    fleet, copies = world.fleet(), list(world.placements_of_template[template.uid])
    existing = {placement.key: placement for placement in copies}
    probe = trial("probe", lambda: world.probe(naming.probe_name(template.name, template.uid), NOW))
    host = world.hosts.get(probe.host) if probe is not None else None
    probed = trial("probes.outcome", lambda: probes.outcome(template, probe, host, NOW))
    secret = trial("header_secrets.judge", lambda: header_secrets.judge(template, foreign.secret(draw, "a")))
    problem = secret.problem if secret is not None else None
    heard = trial("lessons", lambda: [digests.lesson(template, world.job(copy, NOW)) for copy in copies]) or []
    lessons, names = [each for each in heard if each is not None], {zone.name for zone in world.zones}
    trial(
        "plan_template",
        lambda: templates.plan_template(template, names, copies, NOW, secret=problem, probed=probed, lessons=lessons),
        kinds.TEMPLATES,
    )
    planned = list(world.deployments_of_template[template.key])
    for held in (False, True):
        trial(
            "plan_placements",
            lambda held=held: deployments.plan_placements(template, planned, fleet, existing, held=held),  # type: ignore[misc]
        )
    trial("probes.due", lambda: probes.due(template, probes.inputs_of(template, world.zones), NOW))
    trial("probes.hosts_for", lambda: probes.hosts_for(template, world.zones, world.hosts, fleet.namespaces))
    zone, asked = next(iter(world.zones), None), next(iter(world.hosts), None)
    if zone is not None and asked is not None:
        number = probes.next_attempt(template)
        _manifest(
            trial,
            lambda: jobs.probe_manifest(
                *(_SKELETON, foreign.NAMESPACE, template, asked, jobs.probe_document(template, zone, asked.name)),
                *(number, ""),
            ),
        )


def _plan_deployment(drawn: Drawn, trial: Trial, deployment: TemplateDeployment, template: Template | None) -> None:
    world, writes = drawn.world, kinds.TEMPLATE_DEPLOYMENTS
    fleet = world.fleet()
    copies = world.placements_of_template[template.uid] if template is not None else ()
    existing = {placement.key: placement for placement in copies}
    trial(
        "plan_deployment",
        lambda: rollouts.plan_deployment(deployment, template, fleet, existing, NOW),
        writes,
    )
    if template is not None:
        trial(
            "grant",
            lambda: deployment.status.model_copy(update={"granted": rights.grant(deployment, template, None, NOW)}),
            writes,
        )
        trial("plan_dry_run", lambda: dryrun.plan_dry_run(deployment, template, fleet, existing, NOW))


def _plan_infrastructure(drawn: Drawn, trial: Trial) -> None:
    world, roots = drawn.world, drawn.world.pool_roots
    for zone in tuple(world.zones):
        members = list(world.hosts_of_zone[zone.name])
        for contested in ((), drawn.names):
            trial(
                "plan_zone",
                lambda z=zone, m=members, c=contested: zones.plan_zone(z, m, c, NOW),  # type: ignore[misc]
                kinds.ZONES,
            )
    for name in drawn.names:
        plan = trial(
            "plan_host",
            lambda n=name: hosts.plan_host(  # type: ignore[misc]
                world.hosts.get(n), world.node(n), world.zones, world.agent(n, NOW), NOW
            ),
        )
        if plan is not None:
            trial("plan_host", lambda p=plan: p.status, kinds.HOSTS)  # type: ignore[misc]
    for host in tuple(world.hosts):
        peer = trial("peer", lambda h=host: _answered(h))  # type: ignore[misc]
        if peer is not None:
            plan = hosts.plan_host(host, None, world.zones, world.agent(host.name, NOW), NOW, peer=peer)
            trial("peer", lambda p=plan: p.status, kinds.HOSTS)  # type: ignore[misc]
    for pool in tuple(world.pools):
        members = list(world.hosts)
        trial(
            "plan_pool",
            lambda p=pool, m=members: pools.plan_pool(p, p.spec.zone in world.zones, m, roots, NOW),  # type: ignore[misc]
            kinds.STORAGE_POOLS,
        )
    trial("told_roots", lambda: pools.told_roots(world.pools))


def _answered(host: Host) -> PeerIdentity | None:
    """What a host is answered; as if its request were one."""
    asked, present = host.status.peer_request, host.status.peer
    if asked is None:
        return None
    keys = _PEER_KEYS
    with contextlib.suppress(CertificateError):
        keys = answers.requested(asked)
    step, _ = answers.step(_TERMS, keys, answers.held(_TERMS, host.name, present), present, NOW)
    assert step is answers.Step.ISSUE
    return answers.issue(_TERMS, host.name, keys, NOW)


def _plan_certificates(drawn: Drawn, trial: Trial) -> None:
    world = drawn.world
    for certificate in tuple(world.certificates):
        source = trial("source", lambda c=certificate: _source(drawn.draw, c))  # type: ignore[misc]
        if source is None:
            continue
        plan = trial(
            "plan_certificate",
            lambda c=certificate, s=source: certificates.plan_certificate(  # type: ignore[misc]
                c, s, world.zones.get(c.spec.zone), world.rivals(c), world.hosts_of_zone[c.spec.zone], NOW
            ),
        )
        if plan is not None:
            trial("plan_certificate", lambda p=plan: p.status, kinds.CERTIFICATES)  # type: ignore[misc]


def _source(draw: Draw, certificate: DirectDownloadCertificate) -> publications.Source:
    reference = certificate.spec.certificate_ref
    if reference is None:
        return publications.inline(certificate)
    make = foreign.secret if reference.kind == "Secret" else foreign.config_map
    return publications.referred(certificate, make(draw, reference.name), foreign.NAMESPACE)


@pytest.mark.parametrize("kind", _OURS, ids=lambda kind: str(kind.kind))
def test_every_object_that_is_admitted_is_read(kind: kinds.Resource) -> None:
    trials = []
    for seed in range(300):
        document, trial = Draw(seed).document(kind), Trial(seed)
        for project in (projections(Views())[kind], KINDS[kind.plural].model_validate):
            trial("the projection", lambda project=project, document=document: project(document))  # type: ignore[misc]
        trials.append(trial)
    assert not any(trial.problems for trial in trials), told(
        {str(t.seed): told(t.problems) for t in trials if t.problems}
    )


def test_objects_of_kubernetes_are_read_whatever_stands_in_them() -> None:
    trial = Trial(0)
    for seed in range(600):
        draw, trial.seed = Draw(seed), seed
        trial("a Node", lambda draw=draw: objects.project_node(foreign.node(draw, "a")))  # type: ignore[misc]
        trial("a Pod", lambda draw=draw: objects.project_pod(foreign.pod(draw, "a", {})))  # type: ignore[misc]
        trial("a Job", lambda draw=draw: objects.project_job(foreign.job(draw, "a", {}, "u")))  # type: ignore[misc]
        trial("a Namespace", lambda draw=draw: project_namespace(foreign.namespace(draw, "a")))  # type: ignore[misc]
        trial("a Secret", lambda draw=draw: project_revision(foreign.secret(draw, "a")))  # type: ignore[misc]
        trial("a ConfigMap", lambda draw=draw: project_revision(foreign.config_map(draw, "a")))  # type: ignore[misc]
        trial("Events", lambda draw=draw: _shown(draw))  # type: ignore[misc]
        trial("Leases", lambda draw=draw: _judged(draw))  # type: ignore[misc]
    assert not trial.problems, told(trial.problems)


def _shown(draw: Draw) -> None:
    event = startup.latest(starts.happenings(foreign.event(draw, f"e{number}") for number in range(4)))
    job, pod = objects.project_job(foreign.job(draw, "a", {}, "u")), objects.project_pod(foreign.pod(draw, "a", {}))
    for found in (None, pod):
        told = starts.Told(starts.asked_about(job, found), NOW, event)
        cause = starts.start_of(job, found, told).cause
        assert cause.isprintable()
        assert len(cause) <= 500


def _judged(draw: Draw) -> installation_planning.Verdict:
    own, *others = installations._records([foreign.lease(draw, name) for name in draw.names])
    seen = installation_planning.look({}, others, 0.0, None)
    return installation_planning.judge(own, installation_planning.look(seen, others, 10.0, 0.0), 10.0)


def test_no_termination_message_is_more_than_a_status_can_hold() -> None:
    """Whatever a job leaves is read, or is no result; what is read can be written."""
    schema, taken = schema_of(kinds.TEMPLATE_PLACEMENTS)["status"]["properties"]["file"], 0
    for seed in range(3000):
        message = foreign.result(Draw(seed))
        result = results.read(message)
        if result is None:
            continue
        taken += 1
        file = templateplacement.PlacedFile(
            path="/a",
            size_bytes=result.size_bytes,
            served_bytes=result.served_bytes,
            virtual_size_bytes=result.virtual_size_bytes,
            digest=result.digest or None,
            format=result.format or None,
            verified_time=result.verified_time,
            revision=result.revision or None,
        )
        found = list(refused(schema, dump(file)))
        assert not found, (seed, found)
    # Most of what is drawn is a result, or nothing is shown.
    assert taken > 1000


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
def test_a_result_of_a_time_that_no_status_can_hold_is_none(moment: str) -> None:
    assert results.read(json.dumps({"reason": "AlreadyPresent", "verifiedTime": moment})) is None


def test_the_time_of_a_result_is_told_in_utc() -> None:
    result = results.read(json.dumps({"reason": "AlreadyPresent", "verifiedTime": "2025-01-31T13:00:00+01:00"}))
    assert result is not None
    assert result.verified_time == NOW
    assert result.verified_time.tzinfo is datetime.UTC


def test_a_termination_message_longer_than_the_kubelet_takes_is_no_result() -> None:
    fits = json.dumps({"reason": "Downloaded", "message": "x" * 4000})
    assert results.read(fits) is not None
    assert results.read(fits + " " * 200) is None
