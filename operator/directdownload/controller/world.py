"""Everything the controller knows: one store per kind, the indexes over them, and the slots.

`watches.py` fills the stores, as do the results of our own writes; reconcilers only read them.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from directdownload import sourcing
from directdownload.cluster import kinds
from directdownload.cluster.objects import JobView, NodeView, PodView
from directdownload.cluster.reflector import Store
from directdownload.controller import results, starts
from directdownload.controller.charges import Charges
from directdownload.controller.indexes import Index
from directdownload.controller.notes import Notes
from directdownload.controller.turns import Turns
from directdownload.planning import (
    architectures,
    demands,
    header_secrets,
    probes,
    publications,
    quotas,
    rights,
    selection,
    slots,
)
from directdownload.planning.observed import Agent, Job, Namespace, Node, ObservedHost, PlacementView, Revision, Views
from directdownload.resources import naming
from directdownload.resources.base import GROUP, REQUEST_LENGTH, request_in
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import KeystoreDrift
from directdownload.resources.jobs import PeerRole, Verb
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.zone import Zone

COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
PRODUCT = "direct-download-operator"
PLACEMENT_LABEL = f"{GROUP}/placement"
#: On the objects of a Template's probes: their name (`naming.probe_name`).
PROBE_LABEL = f"{GROUP}/probe"
#: Put on a Job's pods by Kubernetes.
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
VERB_ANNOTATION = f"{GROUP}/verb"
ATTEMPT_ANNOTATION = f"{GROUP}/attempt"
PLACEMENT_UID_ANNOTATION = f"{GROUP}/placement-uid"
GROUPS_ANNOTATION = f"{GROUP}/slots"
#: The Secret that the Job's pod waits for: a copy of the headers for its source.
HEADERS_ANNOTATION = f"{GROUP}/headers-secret"
#: On a probe: the host that it runs on, and a hash of its inputs.
HOST_ANNOTATION = f"{GROUP}/host"
INPUTS_ANNOTATION = f"{GROUP}/inputs"
#: On a Job that shares a content with other hosts: its role, the content, and the latest Seed's epoch at its creation.
ROLE_ANNOTATION = f"{GROUP}/role"
CONTENT_ANNOTATION = f"{GROUP}/content"
EPOCH_ANNOTATION = f"{GROUP}/epoch"
#: A Job may be seen to end before its pod's last event arrives on the other watch.
_ATTEMPT_DIGITS = 9
#: The year 2286 has the last such epoch.
_EPOCH_DIGITS = 10
RESULT_GRACE = datetime.timedelta(seconds=3)


class World:
    """The stores by kind; `architecture.md` says which module fills which."""

    def __init__(self, pool_roots: tuple[str, ...], memory_bytes: int = 0) -> None:
        """`memory_bytes`: how much this process may take; 0: unknown."""
        self.pool_roots = pool_roots
        self._memory_bytes = memory_bytes
        self.views = Views()
        self.zones: Store[Zone] = Store()
        self.hosts: Store[ObservedHost] = Store()
        self.pools: Store[StoragePool] = Store()
        self.templates: Store[Template] = Store()
        self.deployments: Store[TemplateDeployment] = Store()
        self.placements: Store[PlacementView] = Store()
        self.jobs: Store[JobView] = Store()
        self.pods: Store[PodView] = Store()
        self.nodes: Store[NodeView] = Store()
        self.namespaces: Store[Namespace] = Store()
        self.certificates: Store[DirectDownloadCertificate] = Store()
        #: of the operator's namespace, without their content
        self.secret_revisions: Store[Revision] = Store()
        self.config_map_revisions: Store[Revision] = Store()

        #: those of the product's own kinds
        self.ours: dict[kinds.Resource, Store[Any]] = {
            kinds.ZONES: self.zones,
            kinds.HOSTS: self.hosts,
            kinds.STORAGE_POOLS: self.pools,
            kinds.TEMPLATES: self.templates,
            kinds.TEMPLATE_DEPLOYMENTS: self.deployments,
            kinds.TEMPLATE_PLACEMENTS: self.placements,
            kinds.CERTIFICATES: self.certificates,
        }

        self.placements_of_template = Index(self.placements, lambda p: p.template_uid)
        self.placements_of_host = Index(self.placements, lambda p: p.host)
        self.placements_of_zone = Index(self.placements, lambda p: p.zone)
        self.placements_of_pool = Index(self.placements, lambda p: p.pool)
        self.placements_of_template_key = Index(self.placements, lambda p: p.template_key)
        self.jobs_of_placement = Index(self.jobs, lambda j: j.labels.get(PLACEMENT_LABEL, ""))
        self.jobs_of_probe = Index(self.jobs, lambda j: j.labels.get(PROBE_LABEL, ""))
        #: Seeds, by their group of slots
        self.jobs_of_seed = Index(self.jobs, _seed_of)
        #: those that share a file, whatever their role, by the id of its content
        self.jobs_of_content = Index(self.jobs, lambda j: j.annotations.get(CONTENT_ANNOTATION, ""))
        self.probe_jobs_of_host = Index(self.jobs, lambda j: j.annotations.get(HOST_ANNOTATION, ""))
        self.templates_of_probe = Index(self.templates, lambda t: naming.probe_name(t.name, t.uid))
        self.pods_of_placement = Index(self.pods, lambda p: p.labels.get(PLACEMENT_LABEL, ""))
        #: by uid: a Job of the same name may have existed before, and its pod may still exist
        self.pods_of_job = Index(self.pods, lambda p: p.labels.get(JOB_UID_LABEL, ""))
        self.agents_of_node = Index(self.pods, lambda p: p.node if p.labels.get(COMPONENT_LABEL) == "agent" else "")
        self.deployments_of_template = Index(self.deployments, lambda d: d.template_key)
        #: by the key of the Template that they seem to name; empty: not even that can be read
        self.unread_deployments = Index(self.deployments.unreadable, lambda u: rights.template_of(u.document))
        self.unread_placements = Index(self.placements.unreadable, lambda u: rights.template_uid_of(u.document))
        self.hosts_of_zone = Index(self.hosts, lambda h: h.spec.zone)
        #: those with volumes, by the key of a Template that they demand
        self.hosts_of_demand = Index(self.hosts, demands.keys_of)
        self.certificates_of_zone = Index(self.certificates, lambda c: c.spec.zone)
        self.certificates_of_alias = Index(self.certificates, alias_of)
        self.certificates_of_source = Index(self.certificates, _source_of)

        self.charges = Charges(self.placements)
        self.slots = slots.Slots()
        #: placements that wait for a slot
        self.line = slots.Line()
        #: jobs whose creation got no answer, by placement: they may or may not exist
        self.unsure: dict[str, str] = {}
        #: probes that wait for one of the others to end, in order; and those that wait for a host
        self.probe_line: dict[str, None] = {}
        self.probes_without_host: set[str] = set()
        #: the findings on Templates' header Secrets, by the Template's uid; never a value
        self.secrets: Notes[header_secrets.Found] = Notes(self.templates)
        #: jobs that have their copy of the headers
        self.equipped: Notes[bool] = Notes(self.jobs)
        #: what was read of certificates' Secrets and ConfigMaps, by the DirectDownloadCertificate's uid
        self.sources: Notes[publications.Found] = Notes(self.certificates)
        #: zones whose certificates all need a look, and none was taken since that became known
        self.gathering: set[str] = set()
        #: the last drift of a host's keystore that was reported, by the Host's key; at first that of the first look
        self.drifts: dict[str, KeystoreDrift | None] = {}
        #: when the status of a Template, TemplateDeployment or DirectDownloadCertificate was last written, by uid;
        #: monotonic seconds
        self.summaries: Notes[float] = Notes(self.templates, self.deployments, self.certificates)
        #: names of placements whose creation failed in the last look at their Template, by the Template's uid
        self.refused: Notes[frozenset[str]] = Notes(self.templates)
        #: how many copies a deployment wants: its generation, when that was counted (monotonic seconds), and the number
        self.desired: Notes[tuple[int, float, int]] = Notes(self.deployments)
        #: None: ready when last looked at
        self._agent_missing_since: dict[str, datetime.datetime | None] = {}
        self._result_missing_since: dict[str, datetime.datetime] = {}
        #: when a job was looked at first
        self._seen: Notes[datetime.datetime] = Notes(self.jobs)
        #: of jobs and agents' pods that are late to start, by key: what their Events said last
        self.told: dict[str, starts.Told] = {}
        self.event_turns, self.agent_event_turns = Turns(), Turns()
        self.nodes.subscribe(_forgetting(self._agent_missing_since))
        for memory in (self._result_missing_since, self.told):
            self.jobs.subscribe(_forgetting(memory))
        self.pods.subscribe(_forgetting(self.told))
        self.hosts.subscribe(self._remember_drift)

    def _remember_drift(self, key: str, old: ObservedHost | None, new: ObservedHost | None) -> None:
        """A drift that exists at the first look is no news. No clock decides that, as the agent has another one."""
        if new is None:
            self.drifts.pop(key, None)
        elif old is None:
            self.drifts[key] = new.status.keystore.last_drift if new.status.keystore is not None else None

    def rivals(self, certificate: DirectDownloadCertificate) -> Iterator[DirectDownloadCertificate]:
        """The other objects of its zone with its alias."""
        return (c for c in self.certificates_of_alias[alias_of(certificate)] if c.key != certificate.key)

    def fleet(self) -> selection.Fleet:
        return selection.Fleet(
            zones={zone.name: zone for zone in self.zones},
            hosts=tuple(map(self._with_architecture, self.hosts)),
            pools=tuple(self.pools),
            namespaces={namespace.key: namespace.labels for namespace in self.namespaces},
            pool_roots=self.pool_roots,
            usage=self.usage(),
            judge=sourcing.refusal,
        )

    def _with_architecture(self, host: ObservedHost) -> ObservedHost:
        """`host` with that of its node, as its status will have it: an older definition may not keep the field."""
        node = self.node(host.name) if host.status.architecture is None else None
        found = architectures.of_node(node) if node is not None else None
        if found is None:
            return host
        return host.model_copy(update={"status": host.status.model_copy(update={"architecture": found})})

    def usage(self) -> quotas.Usage:
        """The present usage; it changes with the world."""
        return quotas.Usage(self.charges.counts, quotas.most_placements(self._memory_bytes, len(self.hosts)))

    def templates_with_room(self) -> Iterator[tuple[str, quotas.Account]]:
        """Keys of Templates that waited for room for more placements, and the accounts with room."""
        usage = self.usage()
        return self.charges.first(lambda account: quotas.has_room(account, self.zones, usage))

    def node(self, name: str) -> Node | None:
        node = self.nodes.get(name)
        return Node(node.name, node.labels, node.ready, node.unschedulable, node.uid) if node is not None else None

    def agent(self, node: str, now: datetime.datetime) -> Agent:
        pods = [pod for pod in self.agents_of_node[node] if not pod.deleting]
        ready = any(pod.ready for pod in pods)
        if node not in self.nodes:
            # Its Host may stay for ever; nothing depends on its agent.
            return Agent(ready)
        if ready:
            self._agent_missing_since[node] = None
            return Agent(True)
        since = self._agent_missing_since.get(node)
        if since is None:
            # Counted from when it was seen to go: a pod that is replaced again and again does not restart the clock.
            # Only for the time before this process started the pods know more.
            known = () if node in self._agent_missing_since else (p.ready_changed for p in pods if p.ready_changed)
            since = self._agent_missing_since[node] = min(now, max(known, default=now))
        return Agent(False, since, starts.cause_of_agent(pods, self.told))

    def template_of(self, placement: PlacementView) -> Template | None:
        """The very Template that was placed; one of the same name created later is another."""
        template = self.templates.get(placement.template_key)
        return template if template is not None and template.uid == placement.template_uid else None

    def held(self, template: Template) -> bool:
        """Whether a deployment that cannot be read may want the Template's copies."""
        unread = (u for key in (template.key, "") for u in self.unread_deployments[key])
        return any(rights.holds_unread(u.document, template) for u in unread)

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        found = self.namespaces.get(namespace)
        return found.labels if found is not None else {}

    def _denied(self, deployment: TemplateDeployment, template: Template) -> bool:
        labels = self.labels_of(deployment.metadata.namespace)
        return rights.denial(deployment, template, self.zones.get(deployment.spec.zone), labels) is not None

    def wanting(self, placement: PlacementView) -> Collection[TemplateDeployment]:
        """The deployments that want the copy, and may: those that select its host; if there are none (the host of a
        shared pool, or one whose labels have changed), all that name its template, zone and pool."""
        template = self.template_of(placement)
        named = [
            d
            for d in self.deployments_of_template[placement.template_key]
            if not d.deleting
            and d.spec.zone == placement.zone
            and (not d.spec.pools or placement.pool in d.spec.pools)
            and (template is None or not self._denied(d, template))
        ]
        host = self.hosts.get(placement.host)
        labels = host.metadata.labels if host is not None else {}
        selecting = [d for d in named if d.spec.selects(placement.host, labels)]
        return selecting or named

    def job(self, placement: PlacementView, now: datetime.datetime) -> Job | None:
        """The placement's job with its pod's report; the latest attempt if there are several.

        A pod outlives its deleted Job by its grace period, and may publish until it ends: until then it counts as a job
        that is being deleted. A pod on another host, from which a shared copy was taken over, does not count.
        """
        view = self.latest_job(placement)
        if view is None:
            present = self.pods_of_placement[placement.key]
            lingering = next((pod for pod in present if pod.running and pod.node == placement.host), None)
            if lingering is None:
                return None
            return Job(lingering.name, Verb.FETCH, placement.attempts, lingering.created, started=True, deleting=True)
        return self._job(view, now)

    def probe(self, name: str, now: datetime.datetime) -> probes.Probe | None:
        """The existing probe of this name; the latest attempt if there are several."""
        view = max(self.jobs_of_probe[name], key=_attempt, default=None)
        if view is None:
            return None
        told = view.annotations
        return probes.Probe(
            job=self._job(view, now),
            host=told.get(HOST_ANNOTATION, ""),
            request=request_in(told),
            inputs=told.get(INPUTS_ANNOTATION, "")[:REQUEST_LENGTH],
        )

    def _job(self, view: JobView, now: datetime.datetime) -> Job:
        """A job with its pod's report."""
        pod, told = self.pod_of(view), self.told.get(view.key)
        ended = pod is not None and pod.exit_code is not None
        if not ended and (view.succeeded or view.failed):
            ended = now >= self._result_missing_since.setdefault(view.key, now) + RESULT_GRACE
        if ended or view.deleting:
            self._result_missing_since.pop(view.key, None)
        return Job(
            name=view.name,
            verb=_verb(view),
            attempt=_attempt(view),
            created=view.created,
            # A job that has ended has run, even if its pod was never seen here.
            started=view.succeeded or view.failed or (pod is not None and pod.started),
            finished=ended,
            result=results.read(pod.termination_message) if pod is not None else None,
            hint=(pod.termination_reason or pod.waiting_reason) if pod is not None else view.failure_reason,
            deleting=view.deleting,
            request=request_in(view.annotations),
            start=starts.start_of(view, pod, told),
            seen=self._seen.setdefault(view.uid, now),
            asked=told.at if told is not None and told.uid == starts.asked_about(view, pod) else None,
            role=role_of(view),
            content=view.annotations.get(CONTENT_ANNOTATION, ""),
            epoch=epoch_of(view),
        )

    def pod_of(self, view: JobView) -> PodView | None:
        """The job's pod; the latest if there are several."""
        return max(self.pods_of_job[view.uid], key=lambda pod: pod.created, default=None)

    def latest_job(self, placement: PlacementView) -> JobView | None:
        """The placement's job of the latest attempt. A deleted placement of the same name may have left one behind."""
        jobs = self.jobs_of_placement[placement.key]
        return max(
            (j for j in jobs if j.annotations.get(PLACEMENT_UID_ANNOTATION) == placement.uid),
            key=_attempt,
            default=None,
        )

    def result_due(self, views: Iterable[JobView]) -> datetime.datetime | None:
        """When the first of these jobs that ended without a result counts as ended."""
        for view in views:
            if view.key in self._result_missing_since:
                return self._result_missing_since[view.key] + RESULT_GRACE
        return None


def _verb(job: JobView) -> Verb | None:
    try:
        return Verb(job.annotations.get(VERB_ANNOTATION, ""))
    except ValueError:
        return None


def _attempt(job: JobView) -> int:
    """0 if another version counts differently."""
    return _number(job.annotations.get(ATTEMPT_ANNOTATION, ""), _ATTEMPT_DIGITS)


def _number(text: str, digits: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else 0


def role_of(job: JobView) -> PeerRole | None:
    """What the Job is to other hosts; None: nothing, or it is of another version."""
    told = job.annotations.get(ROLE_ANNOTATION, "")
    return next((role for role in PeerRole if role == told), None)


def epoch_of(job: JobView) -> int:
    return _number(job.annotations.get(EPOCH_ANNOTATION, ""), _EPOCH_DIGITS)


def _seed_of(job: JobView) -> str:
    groups = job.annotations.get(GROUPS_ANNOTATION, "").split()
    return next((group for group in groups if group.startswith(slots.SEEDS)), "")


def alias_of(certificate: DirectDownloadCertificate) -> str:
    """Its place in keystores: zone and alias."""
    return f"{certificate.spec.zone}/{certificate.spec.keystore_alias}"


def _source_of(certificate: DirectDownloadCertificate) -> str:
    reference = certificate.spec.certificate_ref
    return f"{reference.kind}/{reference.name}" if reference is not None else ""


def _forgetting(memory: dict[str, Any]) -> Callable[[str, object, object], None]:
    """Drops the memory of an object, by its key, together with the object."""

    def changed(key: str, _: object, new: object) -> None:
        if new is None:
            memory.pop(key, None)

    return changed
