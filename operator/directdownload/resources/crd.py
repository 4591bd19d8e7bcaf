"""CustomResourceDefinitions generated from the models: `python -m directdownload.resources.crd DIRECTORY [--check]`.

The schema is pydantic's, made structural (references inlined, nulls dropped). A field of a spec that the model requires
is required by a CEL rule instead of the schema's `required`, because only a rule's refusal can carry an example.
"""

import pathlib
import sys
from typing import Any

import yaml

import directdownload
from directdownload.resources import (
    base,
    certificate,
    generated,
    host,
    storagepool,
    template,
    templatedeployment,
    templateplacement,
    zone,
)
from directdownload.resources.definition import Rule

KINDS: tuple[type[base.Resource], ...] = (
    zone.Zone,
    host.Host,
    storagepool.StoragePool,
    template.Template,
    templatedeployment.TemplateDeployment,
    templateplacement.TemplatePlacement,
    certificate.DirectDownloadCertificate,
)

#: On a definition: the version of the product that it belongs to, so that an older one does not take it back.
VERSION_ANNOTATION = f"{base.GROUP}/version"
_HEADER = "# Generated from the models in operator/directdownload/resources by `make crds`. Do not edit.\n"
#: Bounds that the API server needs to estimate the cost of CEL rules, for fields without their own.
_MAX_LENGTH, _MAX_ITEMS, _MAX_PROPERTIES = 1024, 256, 256
#: The part of the format date-time that `datetime` can hold: no year 0, no leap second, no offset beyond a day.
#: Every version writes its times so, and Kubernetes as well.
_TIME = (
    "^([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
    "([.][0-9]{1,6})?Z$"
)
#: What to do instead of changing an immutable field, unless the field says otherwise.
_RECREATE = "delete the object; once it is gone, create it again, also under the same name"
_DROPPED = {"title", "additionalProperties", "default", "required", "$defs"}


def _structural(schema: dict[str, Any], definitions: dict[str, Any], *, status: bool) -> dict[str, Any]:
    """`schema` without references, unions with null and pydantic's extras; rules become x-kubernetes-validations."""
    schema = _resolve(schema, definitions)
    result = {
        key: value for key, value in schema.items() if key not in _DROPPED and not key.startswith(base.RULES_PREFIX)
    }
    default = None if status else _default(schema, definitions)
    if default is not None:
        result["default"] = default
    validations = [{"rule": rule, "message": message} for rule, message in _mark(schema, "checks") or ()]
    if "const" in result:
        result["enum"] = [result.pop("const")]
        result["type"] = "string"
    if result.get("type") == "object" and "properties" in schema:
        result["properties"] = {
            name: _structural(value, definitions, status=status) for name, value in schema["properties"].items()
        }
        validations += _object_rules(schema, definitions, status=status)
        if status and schema.get("required"):
            # No person writes it, so no refusal needs an example: what is stored can be read.
            result["required"] = list(schema["required"])
    elif result.get("type") == "object":
        result["additionalProperties"] = _structural(schema["additionalProperties"], definitions, status=status)
        result.setdefault("maxProperties", _MAX_PROPERTIES)
    elif result.get("type") == "array":
        result["items"] = _structural(schema["items"], definitions, status=status)
        result.setdefault("maxItems", _MAX_ITEMS)
    elif result.get("type") == "string" and "enum" not in result and result.get("format") != "date-time":
        result.setdefault("maxLength", 32768 if status else _MAX_LENGTH)
    elif result.get("format") == "date-time":
        result["pattern"] = _TIME
    elif result.get("type") == "integer":
        result["format"] = "int64"
        if status:
            # Counts, bytes, seconds, generations: none is negative.
            result.setdefault("minimum", 0)
    if validations:
        # The rules say the same in better words, and the API server evaluates none if a bound is broken.
        result.pop("minimum", None)
        result.pop("maximum", None)
        result["x-kubernetes-validations"] = validations
    return result


def _default(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """The default to publish, or None: for an object, only the part that its own fields do not default."""
    default = schema.get("default")
    if isinstance(default, dict):
        properties = {
            name: _default(_resolve(value, definitions), definitions)
            for name, value in schema.get("properties", {}).items()
        }
        own = {name: default.get(name) for name, published in properties.items() if published is None}
        own = {name: value for name, value in own.items() if value not in (None, [], {}, "")}
        return own if own or any(value is not None for value in properties.values()) else None
    return None if default in ([], "") else default


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its reference followed and a union with null reduced to the other member."""
    if "anyOf" in schema and "x-kubernetes-int-or-string" not in schema:
        (other,) = (member for member in schema["anyOf"] if member.get("type") != "null")
        schema = {**other, **{key: value for key, value in schema.items() if key != "anyOf"}}
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**_resolve(target, definitions), **own}
    return schema


def _mark(schema: dict[str, Any], name: str) -> Any:
    return schema.get(base.RULES_PREFIX + name)


def _object_rules(schema: dict[str, Any], definitions: dict[str, Any], *, status: bool) -> list[dict[str, str]]:
    """Rules that need the parent: required fields, immutable fields, and the model's own."""
    found: list[dict[str, str]] = []
    for name in () if status else schema.get("required", ()):
        field = _resolve(schema["properties"][name], definitions)
        expected, example = _mark(field, "expected"), _mark(field, "example")
        if not expected or not example:
            raise ValueError(f"required field {name}: its rules() need `expected` and `example`")
        found.append(
            {
                "rule": f"has(self.{name})",
                "message": f"{name} is missing: expected {expected}, for example {name}: {example}",
                "fieldPath": f".{name}",
                "reason": "FieldValueRequired",
            }
        )
    for name, value in schema["properties"].items():
        if advice := _mark(_resolve(value, definitions), "immutable"):
            found.append(
                {
                    "rule": f"has(self.{name}) == has(oldSelf.{name}) "
                    f"&& (!has(self.{name}) || self.{name} == oldSelf.{name})",
                    "message": f"{name} is immutable: expected the value it was created with; for another value "
                    f"{_RECREATE if advice is True else advice}",
                    "fieldPath": f".{name}",
                }
            )
    return found + [_rule_entry(Rule(**rule)) for rule in _mark(schema, "rules") or ()]


def _rule_entry(rule: Rule) -> dict[str, str]:
    return {"rule": rule.rule, "message": rule.message, **({"fieldPath": rule.field} if rule.field else {})}


def _conditions_as_map(schema: dict[str, Any]) -> None:
    conditions = schema["properties"]["conditions"]
    conditions.update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "maxItems": 16})


def definition(kind: type[base.Resource]) -> dict[str, Any]:
    """The CustomResourceDefinition of `kind` as a plain document."""
    described = kind.DEFINITION
    document = kind.model_json_schema(by_alias=True, mode="validation")
    # An older CRD must be able to store the reasons of a newer controller.
    definitions = {**document["$defs"], "Reason": {"type": "string", "maxLength": 128}}
    spec = _structural(document["properties"]["spec"], definitions, status=False)
    status = _structural(definitions[kind.model_fields["status"].annotation.__name__], definitions, status=True)  # type: ignore[union-attr]
    spec["description"] = f"Desired state of the {described.kind}."
    status["description"] = f"Observed state of the {described.kind}. Written by the operator."
    status.pop("x-kubernetes-validations", None)
    _conditions_as_map(status)
    spec_missing = Rule("has(self.spec)", f"spec is missing: see kubectl explain {described.plural}.spec", ".spec")
    schema = {
        "description": (sys.modules[kind.__module__].__doc__ or "").splitlines()[0],
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [_rule_entry(rule) for rule in (spec_missing, *described.rules)],
    }
    version = {
        "name": base.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [
            {
                "name": column.name,
                "type": column.type,
                "jsonPath": column.path,
                **({"priority": 1} if column.wide else {}),
                **({"description": column.description} if column.description else {}),
            }
            for column in described.columns
        ],
    }
    if described.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in described.selectable_fields]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{described.plural}.{base.GROUP}",
            "annotations": {VERSION_ANNOTATION: directdownload.__version__},
        },
        "spec": {
            "group": base.GROUP,
            "scope": "Namespaced" if described.namespaced else "Cluster",
            "names": {
                "kind": described.kind,
                "listKind": f"{described.kind}List",
                "plural": described.plural,
                "singular": described.kind.lower(),
                "shortNames": [described.short_name],
                "categories": [base.CATEGORY],
            },
            "versions": [version],
        },
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def render(kind: type[base.Resource]) -> str:
    return _HEADER + yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def files(directory: pathlib.Path) -> dict[pathlib.Path, str]:
    """The definition of each kind, by its file."""
    return {directory / f"{kind.DEFINITION.plural}.yaml": render(kind) for kind in KINDS}


if __name__ == "__main__":
    sys.exit(generated.main(sys.argv[1:], files, place="directory of the definitions", command="make crds"))
