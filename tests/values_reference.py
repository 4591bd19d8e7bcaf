"""docs/values.md from the chart's values.yaml: `python -m tests.values_reference PAGE [--check]`.

The comment above a value is its description; a value without one fails. `make docs` runs this, `make lint` checks.
"""

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from directdownload.resources import generated

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
VALUES = REPOSITORY / "charts" / "direct-download-operator" / "values.yaml"
PAGE = REPOSITORY / "docs" / "values.md"
_HEAD = """# Values of the chart

This page lists every value of `charts/direct-download-operator`; the chart refuses others. [Installing](install.md),
[Metrics](metrics.md) and [Alerts](alerts.md) describe their use.

<!-- Generated from values.yaml by `make docs`. Do not edit. -->
"""
#: Their fields are Kubernetes' own, and described as one value.
_WHOLE = {"resources"}


def paths(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that a user can set, with its default."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in _WHOLE:
            yield from paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def comments(text: str) -> dict[str, str]:
    """The comment above each key, by its path; also of groups."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        key = re.match(r"( *)([A-Za-z]\w*):", line)
        comment = re.match(r" *# ?(.*)", line)
        if key is not None:
            depth = len(key[1])
            stack = [entry for entry in stack if entry[0] < depth]
            stack.append((depth, key[2]))
            found[".".join(name for _, name in stack)] = " ".join(" ".join(pending).split())
            pending = []
        elif comment is not None:
            pending.append(comment[1])
        else:
            pending = []
    return found


def render(text: str) -> str:
    told = comments(text)
    lines, group = [_HEAD], None
    for path, default in paths(yaml.safe_load(text)):
        top = path.partition(".")[0] if "." in path else ""
        if top != group:
            lines.append(f"\n## {top or 'General'}\n" if top or group is None else "\n## Further\n")
            if told.get(top):
                lines.append(f"{_cell(told[top])}\n")
            lines += ["| value | default | meaning |", "|---|---|---|"]
            group = top
        # A group of one purpose is described once, above its values.
        above = [told.get(path.rsplit(".", up)[0], "") for up in range(1, path.count("."))]
        meaning = told.get(path) or next(filter(None, above), "")
        if not meaning:
            raise ValueError(f"values.yaml: {path} has no comment")
        lines.append(f"| `{path}` | `{json.dumps(default)}` | {_cell(meaning)} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _cell(text: str) -> str:
    """Escape angle brackets and bars, which Markdown interprets; braces and brackets are safe."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def files(page: pathlib.Path) -> dict[pathlib.Path, str]:
    return {page: render(VALUES.read_text())}


if __name__ == "__main__":
    sys.exit(generated.main(sys.argv[1:], files, place="docs/values.md", command="make docs"))
