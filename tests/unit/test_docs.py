"""The documentation says all that it promises to say, and nothing that the code does not know."""

import functools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml
from tests import values_reference
from tests.world.checkout import REPOSITORY
from tests.world.docs import DOCS, PAGES

from directdownload.cli.main import cli
from directdownload.resources import crd, reference
from directdownload.resources.reasons import DONE, PERMANENT, WAITING, Reason

PACKAGE = REPOSITORY / "operator" / "directdownload"
#: What a reason asks of the operator; docs/reasons.md explains the words.
CLASSES = {"good", "works", "waits", "retries", "acts"}
KINDS = {kind.DEFINITION.kind: kind for kind in crd.KINDS}


def _rows(text: str, columns: int) -> list[list[str]]:
    """The cells of all table rows with so many columns, without headings and rulers."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if line.startswith("|") and len(cells) == columns and not set("".join(cells)) <= {"-"}:
            rows.append(cells)
    return rows


# Links


def _anchor(heading: str) -> str:
    """As web forges make it: lower case, punctuation dropped, spaces to hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@functools.cache
def _anchors(page: pathlib.Path) -> frozenset[str]:
    return frozenset(map(_anchor, re.findall(r"^#+ (.*)$", _without_code(page.read_text()), re.MULTILINE)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_between_pages_resolve(page: pathlib.Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[pathlib.Path] = set()
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
        waiting += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert set(PAGES) <= seen


# Reasons


@functools.cache
def _reasons() -> dict[str, str]:
    rows = _rows((DOCS / "reasons.md").read_text(), 4)
    found = [(row[0].strip("`"), row[1]) for row in rows if row[0].startswith("`")]
    assert len(found) == len(dict(found)), "a reason is explained twice"
    return dict(found)


def test_every_reason_is_explained() -> None:
    assert set(_reasons()) == {reason.value for reason in Reason}
    assert set(_reasons().values()) == CLASSES


def test_reasons_are_explained_as_the_code_treats_them() -> None:
    explained = {Reason(name): word for name, word in _reasons().items()}
    assert {explained[reason] for reason in PERMANENT} == {"acts"}
    assert {explained[reason] for reason in WAITING} == {"waits"}
    assert {explained[reason] for reason in DONE} <= {"good", "works"}


def test_every_reason_is_used() -> None:
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "reasons.py")
    assert not [reason for reason in Reason if not re.search(rf"\bReason\.{reason.name}\b", code)]


def test_pages_name_no_unknown_reason() -> None:
    known = {reason.value for reason in Reason}
    for page in PAGES:
        for text in re.findall(r"\[([^\]]*)\]\([^)]*reasons\.md#[^)]*\)", page.read_text()):
            assert set(re.findall(r"`(\w+)`", text)) <= known, page


# Kinds


def _fields(schema: dict[str, Any], inherited: Any = None, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """Path, default as the pages write it, and whether it is immutable, of each field that a person writes."""
    rules = schema.get("x-kubernetes-validations", ())
    required = {rule["fieldPath"][1:] for rule in rules if rule.get("reason") == "FieldValueRequired"}
    immutable = {rule["message"].partition(" ")[0] for rule in rules if " is immutable" in rule["message"]}
    for name, field in schema["properties"].items():
        default = field.get("default", (inherited or {}).get(name))
        nested = field.get("properties", {})
        if nested and set(nested) != {"matchLabels", "matchExpressions"}:
            for path, text, fixed in _fields(field, default, f"{prefix}{name}."):
                yield path, text, fixed or name in immutable
        else:
            yield f"{prefix}{name}", "required" if name in required else _text(default), name in immutable


def _text(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


@functools.cache
def _schema(kind: str) -> dict[str, Any]:
    plural = KINDS[kind].DEFINITION.plural
    document = yaml.safe_load((REPOSITORY / "crds" / f"{plural}.yaml").read_text())
    schema: dict[str, Any] = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return schema


def _page(kind: str) -> str:
    return (DOCS / "kinds" / f"{kind.lower()}.md").read_text()


def _section(kind: str, heading: str) -> str:
    page = _page(kind)
    assert page.count(f"\n### {heading}\n") == 1
    return re.split(r"^#{2,3} ", page.partition(f"\n### {heading}\n")[2], flags=re.MULTILINE)[0]


def _reference(kind: str) -> dict[str, list[str]]:
    """The rows of the spec's reference by field: type, default, meaning."""
    return {row[0].strip("`"): row[1:] for row in _rows(_section(kind, "Spec"), 4) if row[0].startswith("`")}


@pytest.mark.parametrize("kind", KINDS)
def test_references_are_current(kind: str) -> None:
    assert reference.replaced(_page(kind), KINDS[kind]) == _page(kind), "run `make docs`"


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_with_its_default(kind: str) -> None:
    described = {path: row[1] for path, row in _reference(kind).items() if row[0] != "object"}
    assert described == {path: default for path, default, _ in _fields(_schema(kind)["spec"])}
    assert all(row[2] for row in _reference(kind).values())


@pytest.mark.parametrize("kind", KINDS)
def test_types_are_those_of_the_schema(kind: str) -> None:
    for path, (shown, _, _) in _reference(kind).items():
        field: dict[str, Any] = {"properties": _schema(kind)["spec"]["properties"]}
        for name in path.split("."):
            field = field["properties"][name]
        if "enum" in field:
            assert set(shown.strip("`").split("` or `")) == set(field["enum"]), path
        elif "x-kubernetes-int-or-string" in field:
            assert shown in {"duration", "quantity", "percentage or quantity", "number or percentage"}, path
        else:
            kinds = {"object": {"object", "label selector", "map of strings"}}
            assert shown in kinds.get(field["type"], {field["type"]}) or shown.startswith("list of "), path


@pytest.mark.parametrize("kind", KINDS)
def test_immutable_fields_are_called_so(kind: str) -> None:
    for path, _, immutable in _fields(_schema(kind)["spec"]):
        assert ("Immutable." in _reference(kind)[path][2]) is immutable, path


def _paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, field in schema["properties"].items():
        yield f"{prefix}{name}"
        inner = field.get("items", field)
        if "properties" in inner and name != "conditions":
            yield from _paths(inner, f"{prefix}{name}{'[]' if 'items' in field else ''}.")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_status_is_described(kind: str) -> None:
    rows = {row[0].strip("`"): row[2] for row in _rows(_section(kind, "Status"), 3) if row[0].startswith("`")}
    assert list(rows) == list(_paths(_schema(kind)["status"]))
    assert all(rows.values())


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_that_kubectl_shows(kind: str) -> None:
    definition = KINDS[kind].DEFINITION
    rows = _rows(_section(kind, f"Columns of `kubectl get {definition.short_name}`"), 2)[1:]
    assert [row[0].partition(" ")[0] for row in rows] == [column.name.upper() for column in definition.columns]
    assert ["-o wide" in row[0] for row in rows] == [column.wide for column in definition.columns]


def test_fields_without_effect_are_in_the_list_of_what_is_missing() -> None:
    scope = (DOCS / "scope.md").read_text()
    for kind in KINDS:
        for path, (_, _, meaning) in _reference(kind).items():
            if "no effect yet" in meaning:
                assert any(f"{part}`" in scope or f"{part}." in scope for part in path.split(".")), f"{kind} {path}"


# Command line, chart, make, code


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands(child, (*path, name))


def _sections() -> dict[str, str]:
    text = (DOCS / "cli.md").read_text()
    found = re.split(r"^#{2,3} (.*)$", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize(("path", "command"), [c for c in _commands(cli) if not isinstance(c[1], click.Group)])
def test_every_command_and_option_is_described(path: tuple[str, ...], command: click.Command) -> None:
    common = _sections()["For all commands"]
    name = " ".join(path)
    # a word more than the name: its argument
    headings = [h for h in _sections() if re.search(rf"`(directdownload )?{name}( [^`]*)?`", h)]
    assert len(headings) == 1, f"no section, or several, for {name}"
    section = _sections()[headings[0]]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for option in parameter.opts:
                assert f"`{option}`" in section or f"`{option}`" in common, f"{name} {option}"
        elif isinstance(parameter, click.Argument):
            assert parameter.make_metavar(click.Context(command)) in headings[0]


def test_no_option_is_described_that_there_is_not() -> None:
    known = {"--help", "-h"} | {
        option for _, command in _commands(cli) for parameter in command.params for option in parameter.opts
    }
    for heading, section in _sections().items():
        for row in _rows(section, 2):
            assert set(re.findall(r"`(--?[a-z-]+)`", row[0])) <= known, heading


def test_every_value_of_the_chart_is_described() -> None:
    """Made from the comments of values.yaml, without which there is no page."""
    assert values_reference.PAGE.read_text() == values_reference.render(values_reference.VALUES.read_text())


def test_values_that_are_described_exist() -> None:
    values = yaml.safe_load((REPOSITORY / "charts" / "direct-download-operator" / "values.yaml").read_text())
    install = (DOCS / "install.md").read_text()
    names = [name for row in _rows(install, 3) for name in re.findall(r"`([A-Za-z.]+)`", row[0])]
    assert len(names) > 10
    for name in names:
        value = values
        for part in name.split("."):
            assert part in value, name
            value = value[part]


def test_sizing_tells_the_resources_of_the_chart() -> None:
    values = yaml.safe_load((REPOSITORY / "charts" / "direct-download-operator" / "values.yaml").read_text())
    told = {row[0].split(" ")[0].strip(","): row[3] for row in reversed(_rows((DOCS / "sizing.md").read_text(), 4))}
    for row, part in (("controller", "controller"), ("agent", "agent"), ("download", "job")):
        resources = values[part]["resources"]
        requests = f"{resources['requests']['cpu']} and {resources['requests']['memory']}"
        assert told[row] == f"requests {requests}, limit {resources['limits']['memory']}"


def test_tests_that_the_threat_model_names_exist() -> None:
    """A whole path, or the name alone of one beside those that were named with theirs."""
    text = (REPOSITORY / "SECURITY.md").read_text()
    paths = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(paths) > 10
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    names = set(re.findall(r"`(test_\w+\.py)`", text))
    assert [name for name in names if not list((REPOSITORY / "tests").glob(f"**/{name}"))] == []


def test_make_targets_that_are_named_exist() -> None:
    makefiles = [REPOSITORY / "Makefile", *REPOSITORY.glob("*/*/*.mk")]
    text = "\n".join(path.read_text() for path in makefiles)
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ((?:[a-z0-9-]+ ?)+)(?=`|\s|$)", page.read_text(), re.MULTILINE)
        assert {target for names in named for target in names.split()} <= targets, page


def test_every_package_has_its_paragraph() -> None:
    text = (DOCS / "architecture.md").read_text()
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"^\*\*`(\w+)/`\*\*", text, re.MULTILINE)) == packages


def test_modules_and_watches_of_the_architecture_exist() -> None:
    text = (DOCS / "architecture.md").read_text()
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any(module == name or module.endswith(f"/{name}") for module in modules), name
    for module, function in re.findall(r"`(planning/\w+)\.(?!py`)(\w+)`", text):
        assert f"def {function}(" in (PACKAGE / f"{module}.py").read_text(), f"{module}.{function}"
    watches = (PACKAGE / "controller" / "watches.py").read_text()
    handlers = set(re.findall(r"\.subscribe\(self\.(_\w+)\)", watches))
    assert set(re.findall(r"\| `(_\w+)` →", text)) == handlers


def test_each_sentence_of_the_readme_leads_to_modules() -> None:
    """The map of the architecture has exactly the sentences of the README's list, and its modules exist."""
    section = (REPOSITORY / "README.md").read_text().partition("## What it does")[2].partition("\n## ")[0]
    items = (
        " ".join(item.split()) for item in re.findall(r"^- \*\*[\w ]+\.\*\* (.*?)(?=^- |^\[|\Z)", section, re.M | re.S)
    )
    sentences = [text for item in items for text in re.split(r"(?<=\.) ", re.sub(r" \(\[[^)]*\)\)", "", item))]
    text = (DOCS / "architecture.md").read_text().partition("## Where to look")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+\.) \| (`.+) \|$", text, re.M)
    assert [sentence for sentence, _ in rows] == sentences
    for _, modules in rows:
        for module in re.findall(r"`([^`]+)`", modules):
            assert (PACKAGE / module).is_file(), module


def test_rules_that_the_code_refers_to_are_numbered_so() -> None:
    text = (DOCS / "architecture.md").read_text()
    numbers = set(re.findall(r"^(\d+)\. \*\*", text, re.MULTILINE))
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r"\brule (\d+)", code)) <= numbers
