"""The rights of a deployment over the copies of its Template: to get new ones, to hold existing ones, to end them.

Called by `deployments`, and by the controller to find the deployments that want a copy. The rules:

- A refused deployment decides nothing, and shows nothing of the copies of others.
- `status.granted` remembers that it was permitted copies of this very Template. If it is denied them later, with the
  selection that was granted, it holds the copies it had then; neither its Delete nor its Retain counts any more.
- A deployment without `granted` that was planned all the same (`observedSelection`: by version 0.1.0, which knew no
  `granted`, or restored from a backup) holds what it selects, and neither policy counts, until it is granted again.
- A deployment that cannot be read holds all copies of its Template: its wishes are unknown.
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import PlacementView
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import Granted, TemplateDeployment
from directdownload.resources.zone import Zone

if TYPE_CHECKING:
    from directdownload.planning.selection import Fleet

#: Copies follow a grant within this time, by the API server's clock: they are created after it has been written, and
#: the status that knows of them comes some seconds later.
_FOLLOWING = datetime.timedelta(seconds=30)
_RENEWED_AFTER = _FOLLOWING / 3


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """The present rights of one deployment over the copies of one Template."""

    #: why it gets no new copies; None: it does
    refused: Verdict | None
    #: it has no right to any, even once its other obstacles are gone
    denied: bool
    #: its deletionPolicy counts
    votes: bool
    #: the copies that it selects stay while it exists
    holds: bool
    #: it holds only the copies created until then; None: all
    holds_until: datetime.datetime | None = None

    @property
    def sees(self) -> bool:
        """Whether it is shown counts of its copies. A deployment that may never have been permitted any is not."""
        return self.refused is None or (self.holds and (not self.denied or self.holds_until is not None))

    @property
    def decides(self) -> bool:
        return self.refused is None or self.holds or self.votes

    def has(self, placement: PlacementView) -> bool:
        """Whether it holds `placement`, which it selects."""
        if not self.holds or self.holds_until is None or placement.created is None:
            return self.holds
        return placement.created <= self.holds_until + _FOLLOWING


def standing(deployment: TemplateDeployment, template: Template, fleet: "Fleet") -> Standing:
    refused = refusal(deployment, template, fleet)
    labels = fleet.labels_of(deployment.metadata.namespace)
    denied = denial(deployment, template, fleet.zones.get(deployment.spec.zone), labels) is not None
    granted = deployment.status.granted
    if granted is None:
        planned = bool(deployment.status.observed_selection)
        return Standing(refused, denied, votes=False, holds=refused is None or planned)
    if granted.template_uid != template.uid:
        return Standing(refused, denied, votes=False, holds=refused is None)
    if not denied:
        return Standing(refused, denied, votes=True, holds=True)
    holds = granted.selection == selection(deployment)
    return Standing(refused, denied, votes=False, holds=holds, holds_until=granted.time)


def refusal(deployment: TemplateDeployment, template: Template | None, fleet: "Fleet") -> Verdict | None:
    """Why the deployment gets no new copies; None: it does."""
    spec = deployment.spec
    if template is None or template.deleting:
        return Verdict(False, Reason.TEMPLATE_NOT_FOUND, f"there is no Template {deployment.template_key}")
    zone = fleet.zones.get(spec.zone)
    if zone is None:
        return Verdict(False, Reason.ZONE_NOT_FOUND, f"spec.zone: there is no Zone {spec.zone}")
    denied = denial(deployment, template, zone, fleet.labels_of(deployment.metadata.namespace))
    # The rest is no denial: it keeps the copies that it was permitted before, and decides about them.
    return denied or unready(template) or fleet.judge(template, zone)


def unready(template: Template) -> Verdict | None:
    """Why nobody gets new copies of it; None: they do."""
    ready = template.status.condition("Ready")
    if ready is not None and ready.status == "True":
        return None
    message = (
        f"Template {template.key} is not Ready: {ready.message if ready else 'the controller has not seen it yet'}"
    )
    return Verdict(False, Reason.TEMPLATE_NOT_READY, message)


def denial(
    deployment: TemplateDeployment, template: Template, zone: Zone | None, labels: Mapping[str, str]
) -> Verdict | None:
    """Why it has no right to copies; None: it has, even if they must wait. `labels` of its namespace."""
    if zone is not None and not zone.spec.template_namespaces.matches(labels):
        message = f"Zone {zone.name} takes deployments only from namespaces that match its spec.templateNamespaces"
        return Verdict(False, Reason.NAMESPACE_NOT_ALLOWED, message, stalled=True)
    return kept_from(template, deployment.metadata.namespace, labels, deployment.spec.zone)


def kept_from(template: Template, namespace: str, labels: Mapping[str, str], zone: str) -> Verdict | None:
    """Why the template is not for `namespace`, which has `labels`, in `zone`; None: it is."""
    allowed = template.spec.allowed_namespaces
    if template.metadata.namespace != namespace and (allowed is None or not allowed.matches(labels)):
        message = f"Template {template.key} does not list namespace {namespace} in spec.allowedNamespaces"
        return Verdict(False, Reason.TEMPLATE_NOT_ALLOWED, message, stalled=True)
    if template.spec.zones and zone not in template.spec.zones:
        message = f"Template {template.key} may be deployed only in {', '.join(template.spec.zones)} (its spec.zones)"
        return Verdict(False, Reason.TEMPLATE_NOT_IN_ZONE, message, stalled=True)
    return None


def selection(deployment: TemplateDeployment) -> str:
    """A hash of the selection of copies by the deployment: only another one can be a narrowing."""
    spec = deployment.spec
    chosen = [spec.zone, spec.hosts, spec.pools, spec.host_selector.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:10]


def grant(
    deployment: TemplateDeployment, template: Template, newest: datetime.datetime | None, now: datetime.datetime
) -> Granted:
    """`status.granted` of a deployment that is not refused; `newest`: when the last of its copies was created."""
    before, chosen = deployment.status.granted, selection(deployment)
    same = before is not None and (before.selection, before.template_uid) == (chosen, template.uid)
    if before is not None and same and (newest is None or newest <= before.time):
        return before
    # The API server's clock sets the creation time of copies, and may be ahead of ours.
    return Granted(selection=chosen, template_uid=template.uid, time=max(now, newest or now))


def renewed(
    deployment: TemplateDeployment, template: Template, now: datetime.datetime, *, creates: bool
) -> Granted | None:
    """`status.granted` of a deployment that is permitted copies, to be written at once; None: the present one will do.

    `creates`: copies are created next, and it must cover them.
    Its selection changes only with the status that reports it: until then a narrowing can still be seen.
    """
    before = deployment.status.granted
    if before is None or before.template_uid != template.uid:
        return grant(deployment, template, None, now)
    return before.model_copy(update={"time": now}) if creates and before.time < now - _RENEWED_AFTER else None


def template_of(document: Mapping[str, Any]) -> str:
    """The key of the Template that an unreadable deployment names; empty if not even that can be read."""
    reference = _reference(document)
    name, namespace = reference.get("name"), reference.get("namespace", document["metadata"]["namespace"])
    return f"{namespace}/{name}" if isinstance(name, str) and isinstance(namespace, str) else ""


def template_uid_of(document: Mapping[str, Any]) -> str:
    """The uid of the Template that an unreadable placement names; empty if not even that can be read."""
    return str(_reference(document).get("uid", ""))


def _reference(document: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = document.get("spec")
    reference = spec.get("templateRef") if isinstance(spec, Mapping) else None
    return reference if isinstance(reference, Mapping) else {}


def holds_unread(document: Mapping[str, Any], template: Template) -> bool:
    """Whether an unreadable deployment, which may be meant for `template`, holds the copies.

    In another namespace it does so only if it was planned once: it may have been refused.
    """
    status = document.get("status")
    planned = isinstance(status, Mapping) and bool(status.get("granted") or status.get("observedSelection"))
    return planned or document["metadata"]["namespace"] == template.metadata.namespace
