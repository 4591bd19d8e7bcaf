"""TemplateDeployment: the wish to have a template on hosts of a zone, continuously; namespaced, written by tenants."""

import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

import pydantic

from directdownload.resources.base import (
    AGE,
    Column,
    CountOrPercent,
    Definition,
    LabelSelector,
    Model,
    ObjectName,
    Resource,
    Status,
    Time,
    condition_column,
    rules,
)
from directdownload.resources.reasons import Reason
from directdownload.resources.template import PlacementCounts


class TemplateReference(Model):
    """The Template to deploy."""

    name: ObjectName = pydantic.Field(
        description="Its name.", json_schema_extra=rules(expected="the name of a Template", example="debian-13")
    )
    namespace: ObjectName | None = pydantic.Field(
        None, description="Its namespace, where its `allowedNamespaces` permits; absent: the deployment's own."
    )


class Rollout(Model):
    """How fast copies are made."""

    max_parallel: CountOrPercent = pydantic.Field(
        0,
        description="Downloads of this deployment at once: a number, or a percentage of its copies rounded up; 0: no "
        "limit. A copy that several deployments want is held back only if all of those that are not paused have a "
        "limit.",
    )  # type: ignore[assignment]
    paused: bool = pydantic.Field(False, description="true: nothing new starts; running downloads go on.")


class TemplateDeploymentSpec(Model):
    template_ref: TemplateReference = pydantic.Field(
        description="The Template to deploy.",
        json_schema_extra=rules(expected="the Template to deploy", example="{name: debian-13}", immutable=True),
    )
    zone: ObjectName = pydantic.Field(
        description="The Zone whose hosts get it.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=True),
    )
    host_selector: LabelSelector = pydantic.Field(
        LabelSelector(),
        description="Over the labels of Hosts, which are those of their nodes; empty: all hosts of the zone.",
    )
    hosts: tuple[ObjectName, ...] = pydantic.Field(
        (), description="Names of Hosts; empty: all. With `hostSelector`: both must match.", max_length=5000
    )
    pools: tuple[ObjectName, ...] = pydantic.Field(
        (), description="Names of StoragePools; empty: all of the zone.", max_length=256
    )
    rollout: Rollout = Rollout()
    deletion_policy: Literal["Delete", "Retain"] = pydantic.Field(
        "Delete",
        description="What happens to files that no deployment wants any more: Delete removes them, Retain leaves them.",
    )

    @functools.cached_property
    def _hosts(self) -> frozenset[str]:
        """Thousands may be named, and each of thousands is looked up."""
        return frozenset(self.hosts)

    def names(self, host: str) -> bool:
        """Whether `hosts` permits this one."""
        return not self.hosts or host in self._hosts

    def selects(self, host: str, labels: Mapping[str, str]) -> bool:
        """Whether a host of the zone, with these labels, is selected."""
        return self.names(host) and self.host_selector.matches(labels)


class DeploymentBytes(Model):
    """What is downloaded, summed over the copies."""

    total: int = pydantic.Field(0, description="How much there is, as far as sizes are known.")
    downloaded: int = pydantic.Field(0, description="How much of it has arrived.")


class PlacementFailure(Model):
    host: str = pydantic.Field(description="Where.")
    pool: str = pydantic.Field(description="Into which pool.")
    reason: Reason = pydantic.Field(description="Why.")
    message: str = pydantic.Field("", description="The same in words.")


class Granted(Model):
    """The right to copies as the controller gave it last; a refusal later leaves it. Only what was granted decides."""

    selection: str = pydantic.Field(
        max_length=64, description="Hash of what was selected then, as in `observedSelection`."
    )
    template_uid: str = pydantic.Field(
        alias="templateUID", max_length=64, description="Of the Template that was granted."
    )
    time: Time = pydantic.Field(description="When copies were given last: those made later are none of its own.")


class TemplateDeploymentStatus(Status):
    placements: PlacementCounts | None = None
    bytes: DeploymentBytes | None = None
    failures: tuple[PlacementFailure, ...] = pydantic.Field(
        (), max_length=10, description="Up to 10 copies that failed or are being tried again."
    )
    observed_selection: str | None = pydantic.Field(
        None,
        description="Hash of the zone, hosts, hostSelector and pools that were planned last: only a change of these "
        "can take copies away.",
    )
    granted: Granted | None = pydantic.Field(
        None,
        description="Set when the deployment was permitted copies. Without it the deployment decides nothing and shows "
        "no counts.",
    )


class TemplateDeployment(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="TemplateDeployment",
        plural="templatedeployments",
        short_name="dddeploy",
        namespaced=True,
        columns=(
            Column("Template", ".spec.templateRef.name"),
            Column("Zone", ".spec.zone"),
            Column("Desired", ".status.placements.desired", "integer"),
            Column("Ready", ".status.placements.ready", "integer"),
            Column("Downloading", ".status.placements.downloading", "integer"),
            Column("Failed", ".status.placements.failed", "integer"),
            condition_column("Reason", "Ready", field="reason"),
            AGE,
        ),
    )

    spec: TemplateDeploymentSpec
    status: TemplateDeploymentStatus = TemplateDeploymentStatus()

    @property
    def template_key(self) -> str:
        reference = self.spec.template_ref
        return f"{reference.namespace or self.metadata.namespace}/{reference.name}"
