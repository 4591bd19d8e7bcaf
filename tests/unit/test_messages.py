"""Messages in the cluster name fields and kubectl, as their readers may have no command line of the product."""

import ast
import re
from collections.abc import Iterator

import pytest
from tests.world import checkout

from directdownload.cli import main

#: Parts whose texts become conditions, Events, statuses and results of jobs.
PARTS = ("agent", "controller", "planning", "download", "keystore", "resources", "sourcing.py", "escaping.py")
#: Programs of the build, which never run in a cluster.
BUILD = frozenset({"generated.py", "crd.py", "reference.py"})
COMMAND = re.compile(rf"\bdirectdownload (?:{'|'.join(main.COMMANDS)})\b")
OPTION = re.compile(r"(?:^|[\s(`'])(--[a-z][a-z-]+)")
#: of other programs
FOREIGN = frozenset({"--long"})
ROOT = checkout.REPOSITORY / "operator" / "directdownload"


def texts(source: str) -> Iterator[str]:
    """Every text of a module that is no docstring; an f-string is one text."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    silent = {id(node.value) for node in first if isinstance(node, ast.Expr)}
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [value for value in node.values if isinstance(value, ast.Constant)]
            parts.update(map(id, pieces))
            yield "".join(str(value.value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | silent:
            yield node.value


def advice(text: str) -> list[str]:
    """The options and commands of the product's own command line that `text` names."""
    return [*COMMAND.findall(text), *(option for option in OPTION.findall(text) if option not in FOREIGN)]


@pytest.mark.parametrize("part", PARTS)
def test_no_message_of_the_cluster_names_the_command_line(part: str) -> None:
    place = ROOT / part
    modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert modules
    found = {
        f"{path.relative_to(ROOT)}: {text}": named
        for path in modules
        if path.name not in BUILD
        for text in texts(path.read_text())
        if (named := advice(text))
    }
    assert found == {}


def test_the_guard_sees_advice() -> None:
    source = '"""directdownload fetch"""\nA = f"{x} raise it (--socket-timeout)"\nB = "try `directdownload keystore`"\n'
    assert [advice(text) for text in texts(source)] == [["--socket-timeout"], ["directdownload keystore"]]
    assert advice("the annotation directdownload.dev/requested-at, and `zstd --long`") == []
