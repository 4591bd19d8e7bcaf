"""TemplateDeployment: the wish to have a template on hosts of a zone, continuously; namespaced, written by tenants."""

import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

import pydantic

from directdownload.resources.base import (
    CountOrPercent,
    LabelSelector,
    Model,
    ObjectName,
    Resource,
    Status,
    Time,
    Words,
    defaults,
    rules,
)
from directdownload.resources.definition import AGE, Column, Definition, condition_column
from directdownload.resources.reasons import Reason
from directdownload.resources.template import PlacementCounts

#: Hosts named for each reason to wait.
WAITING_HOSTS = 5
#: Characters of a message in `failures` and `waiting`; longer ones are cut.
MESSAGE_LENGTH = 500


class TemplateReference(Model):
    """The Template to deploy."""

    name: ObjectName = pydantic.Field(
        description="Name of the Template.",
        json_schema_extra=rules(expected="the name of a Template", example="debian-13"),
    )
    namespace: ObjectName | None = pydantic.Field(
        None, description="Namespace of the Template, if its `allowedNamespaces` permits; absent: the deployment's own."
    )


class Rollout(Model):
    """How fast copies are created."""

    max_parallel: CountOrPercent = pydantic.Field(
        0,
        description="Downloads of this deployment at once: a number, or a percentage of its copies, rounded up; 0: no "
        "limit. If several deployments want a copy, it is held back only if all of them that are not paused have a "
        "limit.",
    )  # type: ignore[assignment]
    paused: bool = pydantic.Field(False, description="true: nothing new starts; running downloads continue.")


class TemplateDeploymentSpec(Model):
    template_ref: TemplateReference = pydantic.Field(
        description="The Template to deploy.",
        json_schema_extra=rules(expected="the Template to deploy", example="{name: debian-13}", immutable=True),
    )
    zone: ObjectName = pydantic.Field(
        description="The Zone whose hosts get the template.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=True),
    )
    host_selector: LabelSelector = defaults(
        LabelSelector,
        description="Selects Hosts by their labels, which are those of their nodes; empty: all hosts of the zone.",
    )
    hosts: tuple[ObjectName, ...] = pydantic.Field(
        (),
        description="Names of Hosts; empty: all hosts. With `hostSelector`, both must match. While the zone has no "
        "Host of a name, the deployment is not Ready.",
        max_length=5000,
    )
    pools: tuple[ObjectName, ...] = pydantic.Field(
        (),
        description="Names of StoragePools; empty: all pools of the zone. While the zone has no StoragePool of a name, "
        "the deployment is not Ready.",
        max_length=256,
    )
    rollout: Rollout = defaults(Rollout)
    deletion_policy: Literal["Delete", "Retain"] = pydantic.Field(
        "Delete",
        description="Files that no deployment wants any more: Delete removes them, Retain keeps them.",
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
    """Bytes of the downloads, summed over the copies."""

    total: int = pydantic.Field(0, description="Bytes in all, as far as sizes are known.")
    downloaded: int = pydantic.Field(0, description="Bytes that have arrived.")
    progress: Words | None = pydantic.Field(
        None, description="Both for people, such as `1.2 GiB of 3.0 GiB`; absent while no size is known."
    )


class PlacementFailure(Model):
    host: str = pydantic.Field(description="The Host.")
    pool: str = pydantic.Field(description="The StoragePool.")
    reason: Reason = pydantic.Field(description="Reason of the failure.")
    message: str = pydantic.Field("", description="The reason in words.")


class WaitingCopies(Model):
    """Copies that wait for the same thing."""

    reason: Reason = pydantic.Field(description="What they wait for.")
    count: int = pydantic.Field(description="Number of these copies.")
    hosts: tuple[str, ...] = pydantic.Field(
        (), max_length=WAITING_HOSTS, description="Up to 5 of their hosts, in the order of their names."
    )
    message: str = pydantic.Field("", description="The reason in words, of the copy on the first of these hosts.")


class Granted(Model):
    """The last permission to have copies. A later refusal leaves it. Only a permitted deployment decides."""

    selection: str = pydantic.Field(
        max_length=64, description="Hash of the selection at that time, as in `observedSelection`."
    )
    template_uid: str = pydantic.Field(
        alias="templateUID", max_length=64, description="UID of the Template at that time."
    )
    time: Time = pydantic.Field(
        description="When the deployment last got copies; copies that were created later are not its own."
    )


class TemplateDeploymentStatus(Status):
    placements: PlacementCounts | None = None
    bytes: DeploymentBytes | None = None
    waiting: tuple[WaitingCopies, ...] = pydantic.Field(
        (),
        # One for each reason, of which there may be more in another version.
        max_length=256,
        description="What the pending copies wait for: their number by reason, the most frequent first. The counts add "
        "up to `placements.pending`.",
    )
    failures: tuple[PlacementFailure, ...] = pydantic.Field(
        (), max_length=10, description="Up to 10 copies that failed or are tried again."
    )
    observed_selection: str | None = pydantic.Field(
        None,
        description="Hash of the zone, hosts, hostSelector and pools of the last plan. Only a change of these can take "
        "copies away.",
    )
    granted: Granted | None = pydantic.Field(
        None,
        description="Set when the deployment gets the permission to have copies. Without it the deployment decides "
        "nothing and shows no counts.",
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
            Column("Pending", ".status.placements.pending", "integer"),
            Column("Failed", ".status.placements.failed", "integer"),
            condition_column("Reason", "Ready", field="reason"),
            Column("Progress", ".status.bytes.progress", wide=True),
            condition_column("Message", "Ready", field="message", wide=True),
            AGE,
        ),
    )

    spec: TemplateDeploymentSpec
    status: TemplateDeploymentStatus = defaults(TemplateDeploymentStatus)

    @property
    def template_key(self) -> str:
        reference = self.spec.template_ref
        return f"{reference.namespace or self.metadata.namespace}/{reference.name}"
