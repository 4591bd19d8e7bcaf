"""The tables of docs/metrics.md, made from the catalogues.

`python -m directdownload.observe.metrics_reference PAGE [--check]`

`make docs` writes them, `make lint` checks them. Text outside the marks is written by hand.
"""

import re
import sys
from collections.abc import Sequence

from directdownload.agent import metrics as agent_metrics
from directdownload.controller import metrics as controller_metrics
from directdownload.observe import health
from directdownload.observe.catalogue import Catalogue, Description
from directdownload.peer import metrics as peer_metrics
from directdownload.resources import generated

#: The page's heading for each part, in its order.
PARTS: dict[str, Catalogue] = {
    "controller": controller_metrics.CATALOGUE,
    "agent": agent_metrics.CATALOGUE,
    "both": health.CATALOGUE,
    "peer": peer_metrics.CATALOGUE,
}
_SECTION = re.compile(
    r"(?P<begin><!-- metrics of (?P<part>\w+): made by `make docs` -->\n).*?(?P<end><!-- end -->)", re.S
)


def descriptions() -> dict[str, Description]:
    """Every metric of the product by name."""
    return {name: each for catalogue in PARTS.values() for name, each in catalogue.descriptions.items()}


def filled(page: str) -> str:
    """`page` with current tables. Raises ValueError if a part has no place in it, or two."""
    parts = [match["part"] for match in _SECTION.finditer(page)]
    if sorted(parts) != sorted(PARTS):
        raise ValueError(f"expected one place for each of {', '.join(PARTS)}, found: {', '.join(parts) or 'none'}")
    return _SECTION.sub(lambda match: f"{match['begin']}{_table(PARTS[match['part']])}{match['end']}", page)


def _table(catalogue: Catalogue) -> str:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|", *map(_row, catalogue.descriptions.values())]
    return "".join(f"{row}\n" for row in rows)


def _row(metric: Description) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.meaning.replace('|', chr(92) + '|')} |"


def main(arguments: Sequence[str]) -> int:
    """`PAGE [--check]`; the exit status."""
    return generated.main(
        arguments, lambda page: {page: filled(page.read_text())}, place="docs/metrics.md", command="make docs"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
