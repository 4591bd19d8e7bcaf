"""The kinds' pages: one order of parts, examples that the models take, and output as kubectl and the code have it.

That the output is what a cluster prints is tested with one, in `tests/api/test_kind_pages.py`.
"""

import functools
import pathlib
import re
from typing import Any

import pytest
import yaml
from tests.world import docs
from tests.world.checkout import REPOSITORY

from directdownload.resources import base, crd, reference
from directdownload.resources.reasons import Reason

PACKAGE = REPOSITORY / "operator" / "directdownload"
KINDS = {kind.DEFINITION.kind: kind for kind in crd.KINDS}
_API_VERSION = f"{base.GROUP}/{base.VERSION}"


def _path(kind: str) -> pathlib.Path:
    return docs.DOCS / "kinds" / f"{kind.lower()}.md"


def _prose(kind: str) -> str:
    """All that people wrote."""
    return _path(kind).read_text().partition("\n## Reference\n")[0]


def _part(kind: str, heading: str) -> str:
    return re.split(r"^## ", _prose(kind).partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def _schema(kind: str) -> dict[str, Any]:
    version = crd.definition(KINDS[kind])["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return schema


def _example(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(docs.blocks(_path(kind), "yaml")[0])
    return found


def _output(kind: str, verb: str) -> tuple[list[str], list[str]]:
    """The words of the page's one `kubectl VERB`, and the lines that it prints."""
    found = [(command.split(), text) for command, text in docs.outputs(_path(kind)) if command.split()[1] == verb]
    ((words, text),) = found
    assert words[:1] + words[2:3] == ["kubectl", KINDS[kind].DEFINITION.short_name]
    return words, text.splitlines()


@functools.cache
def _code() -> str:
    return "".join(path.read_text() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("kind", KINDS)
def test_pages_have_the_same_parts_in_one_order(kind: str) -> None:
    headings = re.findall(r"^## (.*)$", _path(kind).read_text(), re.MULTILINE)
    assert headings[0] == "Example"
    assert headings[-2:] == ["Runbooks", "Reference"]
    writing = headings.index(f"Writing a {kind} spec")
    assert 0 < writing < headings.index("Status")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_begins_with_one_sentence_scope_and_short_name(kind: str) -> None:
    definition = KINDS[kind].DEFINITION
    head = " ".join(_prose(kind).partition("\n## ")[0].split())
    assert re.match(
        rf"# {kind} A {kind} is [^.]*\. {'Namespaced' if definition.namespaced else 'Cluster-scoped'}\b", head
    )
    assert f"`{definition.short_name}`" in head


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_explained_field_by_field(kind: str) -> None:
    example = _example(kind)
    assert (example["apiVersion"], example["kind"]) == (_API_VERSION, kind)
    above, found, below = _part(kind, "Example").partition("\nIn the example above:\n")
    assert found
    assert "```yaml" in above
    explained = below.partition("\n```")[0]
    assert re.search(r"^- ", explained, re.MULTILINE)
    assert [name for name in example["spec"] if f"`.spec.{name}" not in explained] == []


def _unknown(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    if isinstance(value, list):
        return [name for each in value for name in _unknown(each, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    missing = [f"{path}.{name}" for name in value if name not in known]
    return missing + [
        n for name in value if name in known for n in _unknown(value[name], known[name], f"{path}.{name}")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_take_every_example_and_fragment(kind: str) -> None:
    documents = [yaml.safe_load(text) for text in docs.manifests(_path(kind))]
    own = [document for document in documents if document["apiVersion"] == _API_VERSION]
    assert {document["kind"] for document in own} == {kind}
    for document in own:
        KINDS[kind].model_validate(document)
        assert _unknown(document["spec"], _schema(kind)["spec"]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_shown_or_explained(kind: str) -> None:
    text = _part(kind, "Example") + _part(kind, f"Writing a {kind} spec")
    for row in reference.spec_rows(_schema(kind)["spec"]):
        name = row.path.rpartition(".")[2]
        assert re.search(rf"\b{name}:|`{name}`|`{name}: ", text), row.path


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_shown_are_those_of_the_definition(kind: str) -> None:
    words, lines = _output(kind, "get")
    wide = "wide" in words
    columns = [column.name.upper() for column in KINDS[kind].DEFINITION.columns if wide or not column.wide]
    assert re.split(r" {2,}", lines[0]) == ["NAME", *columns]
    assert _example(kind)["metadata"]["name"] in {line.split()[0] for line in lines[1:] if line}


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_reasons_and_events_shown_exist(kind: str) -> None:
    words, lines = _output(kind, "describe")
    assert words[3] == _example(kind)["metadata"]["name"]
    text, _, events = "\n".join(lines).partition("\nEvents:\n")
    known = {reason.value for reason in Reason}
    conditions = re.findall(r"^    Reason: +(\w+)\n    Status: +(\w+)\n    Type: +(\w+)$", text, re.MULTILINE)
    assert "Ready" in {name for _, _, name in conditions}
    assert text.count("Last Transition Time:") == len(conditions)
    for reason, status, name in conditions:
        assert reason in known
        assert status in {"True", "False", "Unknown"}
        assert f'"{name}"' in _code(), name
    told = re.findall(r"^  (?:Normal|Warning) +(\w+) ", events, re.MULTILINE)
    assert told
    assert set(told) <= known


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_shown_once_it_has_converged(kind: str) -> None:
    """Ready, and neither Reconciling nor Stalled."""
    text = "\n".join(_output(kind, "describe")[1])
    found = re.findall(r"^    Status: +(\w+)\n    Type: +(\w+)$", text, re.MULTILINE)
    truths = {name: status for status, name in found}
    assert truths["Ready"] == "True"
    assert "True" not in {truths.get("Reconciling", "False"), truths.get("Stalled", "False")}
