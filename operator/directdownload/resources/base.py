"""The common parts of all kinds: the model base, typed scalars, conditions, label selectors, and the rules of fields.

A field's rules are written once, beside it: `rules(...)` gives the CEL expression that the API server enforces, the
words of the refusal, and an example; `crd.py` turns them into the CustomResourceDefinition.
"""

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
import pydantic_core
from pydantic.alias_generators import to_camel

from directdownload.resources import quantities
from directdownload.resources.definition import Definition, Rule
from directdownload.resources.naming import GROUP as GROUP
from directdownload.resources.naming import MOST_CONNECTIONS
from directdownload.resources.reasons import Reason, WordOrUnknown

VERSION = "v1alpha1"
CATEGORY = "directdownload"
FINALIZER = f"{GROUP}/placements"
#: Field managers of server-side apply: one writer per field (architecture, rule 4).
CONTROLLER = "directdownload-controller"
AGENT = "directdownload-agent"
#: Prefix of the keys under which rules travel through pydantic's JSON schema; never part of a CRD.
RULES_PREFIX = "x-directdownload-"
REQUESTED_AT = f"{GROUP}/requested-at"
#: An annotation of placements, which only administrators write: files that name the copy do not block its removal.
REMOVE_MENTIONED = f"{GROUP}/remove-mentioned"
#: A label of placements: the namespace whose deployments it was created for.
NAMESPACE_LABEL = f"{GROUP}/deployment-namespace"
#: The kept part of its value: a request is handed on to thousands of copies, and is in the status of each.
REQUEST_LENGTH = 253


#: In the order of their definition: each model after those of its fields.
_DEFINED: list[type["Model"]] = []


class Model(pydantic.BaseModel):
    """camelCase outside, frozen; unknown fields are ignored, as the API server has pruned what it does not know."""

    model_config = pydantic.ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
        # at its first use: a download job asks its source before it needs most of them (`build`)
        defer_build=True,
    )
    #: CEL rules over the whole object: those that compare fields with one another.
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        _DEFINED.append(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: pydantic_core.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        if cls.RULES:
            handler.resolve_ref_schema(schema)[RULES_PREFIX + "rules"] = [
                dataclasses.asdict(rule) for rule in cls.RULES
            ]
        return schema


def build() -> None:
    """Builds all models that are imported: before the event loop of a process that stays, which a build would hold."""
    for model in _DEFINED:
        model.model_rebuild()


_M = TypeVar("_M", bound=Model)


def defaults(make: Callable[[], _M], **field: Any) -> _M:
    """A field that is `make()` unless given: one object, made at the first use, as the import builds no model."""

    @functools.cache
    def made() -> _M:
        return make()

    default: _M = pydantic.Field(default_factory=made, json_schema_extra={"default": {}}, **field)
    return default


def rules(
    *checks: tuple[str, str],
    example: object = None,
    expected: str = "",
    immutable: bool | str = False,
    **schema: Any,
) -> dict[str, Any]:
    """`json_schema_extra` of a field.

    `checks` are pairs of a CEL expression over `self` and the words of the refusal; `expected` and `example` describe
    the field when it is missing; `immutable` may say what to do for another value, if creating the object again under
    its name is not the way; `schema` is added to the OpenAPI schema as it is (`maxLength`, `maxItems`, …).
    """
    marks = {"checks": checks, "example": example, "expected": expected, "immutable": immutable}
    # Flat keys, and only those given: pydantic lets a field's keys override those of its type one by one.
    return {**{RULES_PREFIX + key: value for key, value in marks.items() if value}, **schema}


def up_to(most: int, example: int) -> dict[str, Any]:
    """`rules` of a number from 0 to `most`."""
    return rules((f"self >= 0 && self <= {most}", f"expected a number from 0 to {most}, for example {example}"))


#: 100 years. A value of 1000000h or more counts as that: added to a time of today, it is still a time.
LONGEST_SECONDS = 36525 * 86400.0


def _duration(value: object) -> object:
    return min(quantities.parse_duration(value), LONGEST_SECONDS) if isinstance(value, str) else value


def _quantity(value: object) -> object:
    return quantities.parse_quantity(value) if isinstance(value, str) else value


_INT_OR_STRING = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
#: Notations of values: the CEL expression and the words of the refusal. The field reference knows them by these.
DURATION_RULE = (
    "type(self) == int ? self == 0 : string(self).matches('^(0|([0-9]{1,12}([.][0-9]{1,12})?(ms|s|m|h))+)$')",
    "expected a duration such as 5s, 10m or 1h30m (0: off)",
)
QUANTITY_RULE = (
    f"type(self) == int ? self >= 0 : string(self).matches('^{quantities.QUANTITY}$')",
    "expected a quantity of bytes such as 100Mi or 10Gi (0: no limit)",
)
RESERVE_RULE = (
    f"type(self) == int ? self >= 0 : string(self).matches('^({quantities.PERCENT}|{quantities.QUANTITY})$')",
    "expected a percentage below 100 such as 5%, or a quantity such as 20Gi",
)
COUNT_OR_PERCENT_RULE = (
    "type(self) == int ? self >= 0 : string(self).matches('^([0-9]{1,2}|100)%$')",
    "expected a number such as 10 (0: no limit) or a percentage such as 25%",
)

#: Seconds. The API server admits only a Go duration, or 0; code and job documents have the number.
Duration = Annotated[
    float,
    pydantic.BeforeValidator(_duration),
    pydantic.WithJsonSchema({**_INT_OR_STRING, "maxLength": 32, **rules(DURATION_RULE)}),
]


def duration(default: str, **field: Any) -> float:
    """A field of type `Duration`; the CRD has the default as it is written."""
    seconds: float = pydantic.Field(quantities.parse_duration(default), json_schema_extra={"default": default}, **field)
    return seconds


#: Bytes, written as a Kubernetes quantity.
Bytes = Annotated[
    int,
    pydantic.BeforeValidator(_quantity),
    pydantic.WithJsonSchema({**_INT_OR_STRING, "maxLength": 32, **rules(QUANTITY_RULE)}),
]
#: A share of a pool, percent or quantity, kept as written.
Reserve = Annotated[
    str,
    pydantic.BeforeValidator(str),
    pydantic.WithJsonSchema({**_INT_OR_STRING, "maxLength": 32, **rules(RESERVE_RULE)}),
]
#: A number of things, or a percentage of them, kept as written.
CountOrPercent = Annotated[
    str,
    pydantic.BeforeValidator(str),
    pydantic.WithJsonSchema({**_INT_OR_STRING, "maxLength": 16, **rules(COUNT_OR_PERCENT_RULE)}),
]
Count = Annotated[
    int, pydantic.Field(ge=0, json_schema_extra=rules(("self >= 0", "expected a number from 0 up, for example 10")))
]
_CONNECTIONS = (
    f"self >= 0 && self <= {MOST_CONNECTIONS}",
    f"expected a number of connections from 1 to {MOST_CONNECTIONS}, or 0, for example 4",
)
#: As people give their number; a later version may take more.
Connections = Annotated[int, pydantic.Field(ge=0, json_schema_extra=rules(_CONNECTIONS))]
#: The name of another object.
ObjectName = Annotated[
    str,
    pydantic.Field(
        json_schema_extra=rules(
            (
                "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
                "expected the name of an object: lower-case letters, digits, '-' and '.', for example zone-1",
            ),
            expected="the name of an object",
            example="zone-1",
            maxLength=253,
        )
    ),
]


def _timestamp(value: datetime.datetime) -> str:
    # strftime would write the year 1 as one digit.
    return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


#: RFC 3339 with whole seconds, as Kubernetes writes its times.
Time = Annotated[datetime.datetime, pydantic.PlainSerializer(_timestamp, when_used="always")]


# As Kubernetes has it.
class ConditionStatus(WordOrUnknown):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


#: As `metav1.Condition` has it.
CONDITION_MESSAGE_LENGTH = 32768


class Condition(Model):
    """`metav1.Condition`."""

    type: str = pydantic.Field(max_length=316, description="What the condition is about, such as Ready.")
    status: ConditionStatus = pydantic.Field(description="Whether it holds: True, False or Unknown.")
    reason: Reason = pydantic.Field(description="The cause in one word; docs/reasons.md explains each.")
    message: str = pydantic.Field(
        default="", max_length=CONDITION_MESSAGE_LENGTH, description="The cause in words, for people."
    )
    last_transition_time: Time | None = pydantic.Field(None, description="When `status` changed last.")
    observed_generation: int | None = pydantic.Field(
        None, description="The `metadata.generation` that the condition is about."
    )


class MatchExpression(Model):
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.operator) || (self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "expected values with the operators In and NotIn, and none with Exists and DoesNotExist, "
            "for example {key: topology.kubernetes.io/zone, operator: In, values: [zone-1]}",
            ".values",
        ),
    )

    key: str = pydantic.Field(
        max_length=317,
        description="Key of the label.",
        json_schema_extra=rules(expected="a label key", example="topology.kubernetes.io/zone"),
    )
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = pydantic.Field(
        description="How the label relates to `values`: In, NotIn, Exists or DoesNotExist.",
        json_schema_extra=rules(expected="In, NotIn, Exists or DoesNotExist", example="In"),
    )
    values: tuple[str, ...] = pydantic.Field(
        (), description="Values to compare with: at least one with In and NotIn, none with Exists and DoesNotExist."
    )

    @functools.cached_property
    def _values(self) -> frozenset[str]:
        """Tenants may write hundreds of values, and each is compared for thousands of hosts."""
        return frozenset(self.values)

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        if self.operator == "Exists":
            return present
        if self.operator == "DoesNotExist":
            return not present
        return (present and labels[self.key] in self._values) is (self.operator == "In")


class LabelSelector(Model):
    """`metav1.LabelSelector`: empty selects everything."""

    match_labels: dict[str, str] = pydantic.Field(
        {},
        description="Labels that an object must have, each with this value.",
        json_schema_extra=rules(
            (
                "self.all(k, size(k) <= 317)",
                "expected label keys of at most 317 characters, for example {topology.kubernetes.io/zone: zone-1}",
            )
        ),
    )
    match_expressions: tuple[MatchExpression, ...] = pydantic.Field(
        (), description="Conditions on labels; all of them must hold."
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(expression.matches(labels) for expression in self.match_expressions)


class ObjectMeta(Model):
    """The part of `metadata` that decisions need."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = "0"
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()

    @pydantic.field_validator("annotations")
    @classmethod
    def _decides(cls, annotations: dict[str, str]) -> dict[str, str]:
        """Drops other annotations: anybody may write 256 KiB of them into each object, and no decision needs them."""
        return {REQUESTED_AT: found} if (found := request_in(annotations)) else {}

    @property
    def requested_at(self) -> str:
        """The value of the annotation that asks for a reconcile now."""
        return self.annotations.get(REQUESTED_AT, "")


def request_in(annotations: Mapping[str, str]) -> str:
    """The value of `requested-at` that counts; empty if there is none."""
    return annotations.get(REQUESTED_AT, "")[:REQUEST_LENGTH]


#: An amount in words (`quantities`), beside its number: columns of kubectl cannot format.
Words = Annotated[str, pydantic.Field(max_length=32)]


class Status(Model):
    """The part that every status has."""

    observed_generation: int | None = pydantic.Field(
        None, description="The `metadata.generation` that this status is about."
    )
    last_handled_request: str | None = pydantic.Field(
        None, description="The value of the annotation `directdownload.dev/requested-at` that was served last."
    )
    last_handled_request_time: Time | None = pydantic.Field(
        None, description="When it was served; a later value is served a minute after that at the earliest."
    )
    conditions: tuple[Condition, ...] = pydantic.Field((), description="Conditions of the object; each has a reason.")

    def condition(self, condition_type: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == condition_type), None)


class Resource(Model):
    """A custom resource: subclasses narrow `spec` and `status` and carry their `DEFINITION`."""

    DEFINITION: ClassVar[Definition]

    metadata: ObjectMeta = defaults(ObjectMeta)

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` of a cluster-scoped object."""
        return f"{self.metadata.namespace}/{self.metadata.name}" if self.metadata.namespace else self.metadata.name

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def resource_version(self) -> int:
        return int(self.metadata.resource_version)

    @property
    def seniority(self) -> tuple[datetime.datetime, str]:
        """Sorts oldest first, objects of one age by name: the first of several gets what only one can have."""
        epoch = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        return self.metadata.creation_timestamp or epoch, self.name

    @property
    def deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None
