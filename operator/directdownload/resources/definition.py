"""What a kind says of its CustomResourceDefinition beyond the fields: names, columns, rules over whole objects."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule of the CRD: `rule` over `self`, the words of the refusal, and the field the refusal names."""

    rule: str
    message: str
    field: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; `wide` shows it with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def condition_column(name: str, condition_type: str, *, field: str = "status", wide: bool = False) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{condition_type}")].{field}', wide=wide)


@dataclasses.dataclass(frozen=True, slots=True)
class Definition:
    """The parts of a CustomResourceDefinition beyond the schema."""

    kind: str
    plural: str
    short_name: str
    namespaced: bool
    columns: tuple[Column, ...]
    selectable_fields: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
