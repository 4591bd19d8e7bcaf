"""Commands in the documentation are commands that there are: whoever pastes one gets no usage error."""

import contextlib
import importlib.util
import json
import pathlib
import re
import subprocess
from typing import Any

import click
import pytest
import yaml
from tests.world import docs
from tests.world.checkout import REPOSITORY
from tests.world.docs import Command

from directdownload.cli.main import cli
from directdownload.resources import base, crd

COMMANDS = docs.commands()
KINDS = {
    word: kind
    for kind in crd.KINDS
    for word in (
        kind.DEFINITION.short_name,
        kind.DEFINITION.plural,
        kind.DEFINITION.kind.lower(),
        f"{kind.DEFINITION.plural}.{base.GROUP}",
    )
}


def _words(text: str) -> set[str]:
    return set(text.split())


#: Kubernetes' own, and Prometheus', that the pages name.
BUILT_IN = _words(
    "pod pods node nodes job jobs event events secret secrets configmap configmaps namespace namespaces crd lease "
    "deployment deployments daemonset daemonsets clusterrole clusterroles clusterrolebinding role rolebinding service "
    "networkpolicy pdb serviceaccount validatingadmissionpolicy servicemonitor podmonitor prometheusrule "
    "events.events.k8s.io networkpolicies endpointslice endpointslices endpoints serviceaccounts flowschema "
    "validatingadmissionpolicybinding clusterrolebindings roles rolebindings replicaset pvc pv storageclass "
    "csinode csidriver"
)
#: Verbs that take a resource as their next word.
ON_RESOURCES = _words("get describe wait delete annotate patch label edit explain")
OTHER_VERBS = _words(
    "apply create exec logs rollout debug cordon uncordon drain scale top port-forward auth cp replace version config "
    "api-resources cluster-info run taint set events plugin completion"
)
#: Options of kubectl whose value is a word of its own.
WITH_VALUE = _words(
    "-n --namespace -l --selector -o --output -p --patch --type -f -c --context --kubeconfig --for --timeout "
    "--field-selector --label-columns -L --sort-by --as --as-group --image --tail --since --raw"
)


def _of(*program: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[: len(program)] == program]


def _ids(found: list[Command]) -> list[str]:
    return [str(command) for command in found]


# directdownload

OURS = [
    Command(command.page, command.words[skipped:])
    for program, skipped in (
        (("directdownload",), 1),
        (("kubectl-directdownload",), 1),
        (("kubectl", "directdownload"), 2),
        ((".venv/bin/directdownload",), 1),
    )
    for command in _of(*program)
]


def _parse(words: tuple[str, ...]) -> None:
    """As the program does before it acts; raises click's usage errors."""
    context = cli.make_context("directdownload", list(words))
    while isinstance(context.command, click.Group):
        _, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(command.name, rest, parent=context)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that examples name are the reader's."""
    monkeypatch.setattr("directdownload.cli.keystore._parse", lambda _: None)
    for kind in (click.Path, click.File):
        monkeypatch.setattr(kind, "convert", lambda _self, value, _parameter, _context: value)


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize("command", OURS, ids=_ids(OURS))
def test_what_is_asked_of_directdownload_is_understood(command: Command) -> None:
    with contextlib.suppress(click.exceptions.Exit):  # --help, --version
        _parse(command.words)


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize(
    "words",
    ["status --follow", "deploy debian-13", "template show x", "status a b", "deploy x --zone z --deletion-policy No"],
)
def test_a_mistake_would_be_noticed(words: str) -> None:
    with pytest.raises(click.UsageError):
        _parse(tuple(words.split()))


@pytest.mark.parametrize("page", docs.PAGES, ids=docs.name)
def test_commands_within_the_text_exist(page: pathlib.Path) -> None:
    for span in docs.spans(page):
        found = re.match(r"(?:kubectl )?directdownload ((?:[a-z]+ ?)+)(.*)$", span)
        if not found or "|" in found[1] + found[2]:
            continue
        command: click.Command = cli
        context = click.Context(cli)
        for word in found[1].split():
            if not isinstance(command, click.Group):
                break  # an argument
            child = command.get_command(context, word)
            assert child is not None, span
            command = child
        known = {option for parameter in [*command.params, *cli.params] for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", span)) <= known, span


# kubectl


def _resources(command: Command) -> list[str]:
    """The types that a kubectl command is about."""
    words = iter(command.words[1:])
    verb, operands = "", []
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            if word in WITH_VALUE:
                next(words, None)
        elif not verb:
            verb = word
        else:
            operands.append(word)
    assert verb in ON_RESOURCES | OTHER_VERBS | {"directdownload"}, f"kubectl {verb}?"
    if verb not in ON_RESOURCES or not operands:
        return []
    slashed = [operand for operand in operands if "/" in operand and "=" not in operand]
    named = slashed or operands[:1]
    return [kind for operand in named for kind in operand.partition("/")[0].split(",")]


KUBECTL = _of("kubectl")


@pytest.mark.parametrize("command", KUBECTL, ids=_ids(KUBECTL))
def test_what_is_asked_of_kubectl_is_about_kinds_that_exist(command: Command) -> None:
    for kind in _resources(command):
        shortened = kind.partition(".spec")[0]  # explain templates.spec
        if "$" not in kind and "SUBSTITUTED" not in kind:
            assert shortened in KINDS or shortened in BUILT_IN or shortened in {base.CATEGORY, "all"}, kind


@pytest.mark.parametrize("page", docs.PAGES, ids=docs.name)
def test_short_names_exist(page: pathlib.Path) -> None:
    code = "\n".join(
        [*docs.spans(page), *(text for language in ("sh", "text", "") for text in docs.blocks(page, language))]
    )
    assert set(re.findall(r"(?<![\w./-])dd[a-z]{3,}(?![\w-])", code)) <= KINDS.keys()


def _patches() -> list[tuple[Command, str, dict[str, Any]]]:
    found = []
    for command in KUBECTL:
        if "patch" in command.words:
            options = dict(zip(command.words, command.words[1:], strict=False))
            found.append((command, _resources(command)[0], json.loads(options["-p"])))
    return found


@pytest.mark.parametrize(("command", "kind", "patch"), _patches(), ids=[str(patch[0]) for patch in _patches()])
def test_patches_change_fields_that_exist(command: Command, kind: str, patch: dict[str, Any]) -> None:
    if kind not in KINDS:
        return
    schema = crd.definition(KINDS[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def check(value: dict[str, Any], properties: dict[str, Any]) -> None:
        for name, inner in value.items():
            assert name in properties, f"{kind} has no {name}"
            if isinstance(inner, dict):
                check(inner, properties[name]["properties"])

    check(patch.get("spec", {}), schema["properties"]["spec"]["properties"])


# helm, make, files

HELM = _of("helm")


@pytest.mark.parametrize("command", HELM, ids=_ids(HELM))
def test_values_that_helm_is_given_exist(command: Command) -> None:
    values = yaml.safe_load((REPOSITORY / "charts" / "direct-download-operator" / "values.yaml").read_text())
    options = zip(command.words, command.words[1:], strict=False)
    joined = [word.partition("=")[2] for word in command.words if re.match(r"--set(-\w+)?=", word)]
    given = [value for option, value in options if re.fullmatch(r"--set(-\w+)?", option)] + joined
    for setting in (part for value in given for part in re.split(r"(?<!\\),(?![^{]*\})", value)):
        place = values
        for part in re.split(r"(?<!\\)\.", setting.partition("=")[0]):
            if place == {}:
                break  # free for the user, such as a selector
            key, _, index = part.partition("[")
            assert isinstance(place, dict), setting
            assert key in place, setting
            place = {} if index else place[key]


MAKE = _of("make")


@pytest.mark.parametrize("command", MAKE, ids=_ids(MAKE))
def test_targets_that_make_is_asked_for_exist(command: Command) -> None:
    makefiles = [REPOSITORY / "Makefile", *REPOSITORY.glob("*/*/*.mk")]
    text = "\n".join(path.read_text() for path in makefiles)
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    assert {word for word in command.words[1:] if "=" not in word} <= targets


@pytest.mark.parametrize("page", docs.PAGES, ids=docs.name)
def test_files_of_the_repository_that_commands_name_exist(page: pathlib.Path) -> None:
    for command in COMMANDS:
        if command.page == page:
            for word in command.words:
                found = re.match(r"((?:tests|charts|crds|examples|docs|operator|\.ci)/[\w./-]*)", word)
                assert not found or (REPOSITORY / found[1]).exists(), str(command)
            if "-m" in command.words and re.search(r"python3?$", command.words[0]):
                module = command.words[command.words.index("-m") + 1]
                assert importlib.util.find_spec(module), str(command)


@pytest.mark.parametrize("page", docs.PAGES, ids=docs.name)
def test_blocks_are_what_a_shell_reads(page: pathlib.Path) -> None:
    for block in docs.blocks(page, "sh"):
        result = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert not result.stderr, f"{result.stderr}\n{block}"


def test_commands_are_found() -> None:
    # A check of nothing would be green for ever.
    assert len(OURS) > 15
    assert len(KUBECTL) > 30
    assert len(HELM) > 3
    assert len(MAKE) > 5
    script = (
        "A=1 make lint; for x in $(kubectl get ddhost); do\n  helm list -q |\n  wc # not this\ndone\ncat <<E\nrm x\nE\n"
    )
    assert list(docs.split(script)) == [
        ("kubectl", "get", "ddhost"),
        ("make", "lint"),
        ("for", "x", "in", "SUBSTITUTED"),
        ("helm", "list", "-q"),
        ("wc",),
        ("done",),
        ("cat",),
    ]


# Where other files name pages

_NAMED = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")


def _naming() -> list[pathlib.Path]:
    return sorted(
        path
        for pattern in ("examples/*.yaml", "charts/**/*.yaml", "charts/**/*.txt", "operator/**/*.py", "tests/**/*.py")
        for path in REPOSITORY.glob(pattern)
        if _NAMED.search(path.read_text())
    )


@pytest.mark.parametrize("path", _naming(), ids=docs.name)
def test_pages_that_other_files_name_exist(path: pathlib.Path) -> None:
    for found in _NAMED.findall(path.read_text()):
        page, _, anchor = found.partition("#")
        assert (REPOSITORY / page).exists(), found
        headings = re.findall(r"^#+ (.*)$", (REPOSITORY / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, found


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text() for page in docs.PAGES)
    for picture in (docs.DOCS / "images").iterdir():
        assert f"images/{picture.name})" in text, picture.name
