"""TemplateDeployment: the wish to have a template on hosts of a zone, continuously; namespaced, written by tenants."""

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
    condition_column,
    rules,
)
from directdownload.resources.reasons import Reason
from directdownload.resources.template import PlacementCounts


class TemplateReference(Model):
    name: ObjectName = pydantic.Field(
        description="The Template.", json_schema_extra=rules(expected="the name of a Template", example="debian-13")
    )
    namespace: ObjectName | None = pydantic.Field(
        None, description="Its namespace, where it allows that; absent: the deployment's own."
    )


class Rollout(Model):
    max_parallel: CountOrPercent = pydantic.Field(0, description="Downloads of this deployment at once; 0: no limit.")  # type: ignore[assignment]
    paused: bool = pydantic.Field(False, description="true: nothing new starts.")


class TemplateDeploymentSpec(Model):
    template_ref: TemplateReference = pydantic.Field(
        description="What to deploy.",
        json_schema_extra=rules(expected="the Template to deploy", example="{name: debian-13}", immutable=True),
    )
    zone: ObjectName = pydantic.Field(
        description="Where.", json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=True)
    )
    host_selector: LabelSelector = pydantic.Field(
        LabelSelector(), description="Over Host labels, which are copied from the node; empty: all hosts of the zone."
    )
    hosts: tuple[ObjectName, ...] = pydantic.Field((), description="Or by name.", max_length=5000)
    pools: tuple[ObjectName, ...] = pydantic.Field(
        (), description="By name; empty: all pools of the zone.", max_length=256
    )
    rollout: Rollout = Rollout()
    deletion_policy: Literal["Delete", "Retain"] = pydantic.Field(
        "Delete", description="What happens to the files when nothing wants them any more."
    )

    def selects(self, host: str, labels: Mapping[str, str]) -> bool:
        """Whether a host of the zone, with these labels, is among those that are meant."""
        return (not self.hosts or host in self.hosts) and self.host_selector.matches(labels)


class DeploymentBytes(Model):
    total: int = 0
    downloaded: int = 0


class PlacementFailure(Model):
    host: str
    pool: str
    reason: Reason
    message: str = ""


class TemplateDeploymentStatus(Status):
    placements: PlacementCounts | None = None
    bytes: DeploymentBytes | None = None
    failures: tuple[PlacementFailure, ...] = pydantic.Field((), max_length=10)
    observed_selection: str | None = pydantic.Field(
        None, description="Hash of the zone, hosts, hostSelector and pools that were planned last; tells a narrowing."
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
