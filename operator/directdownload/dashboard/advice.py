"""What docs/reasons.md says of each reason: what it asks of people, what it means, what to do.

`advice.json` is made from that page (`python -m directdownload.dashboard.advice docs/reasons.md`, in `make docs`), as
an installed package has no docs/.
"""

import functools
import json
import pathlib
import re
import sys
from typing import NamedTuple

_FILE = pathlib.Path(__file__).with_name("advice.json")
_ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
#: What reasons of each class ask of people.
CLASSES = {
    "good": "as wanted",
    "works": "in progress",
    "waits": "continues once the obstacle is gone",
    "retries": "is tried again by itself",
    "acts": "stays until somebody acts",
}


class Advice(NamedTuple):
    #: one of `CLASSES`
    effect: str
    meaning: str
    advice: str


@functools.cache
def _all() -> dict[str, Advice]:
    return {reason: Advice(*words) for reason, words in json.loads(_FILE.read_text()).items()}


def of(reason: str) -> Advice | None:
    """None for a reason that this version does not know."""
    return _all().get(reason)


def read(page: str) -> dict[str, Advice]:
    """From the tables of the page; the first one counts where two explain a reason."""
    found: dict[str, Advice] = {}
    for line in page.splitlines():
        if match := _ROW.match(line):
            reason, *words = match.groups()
            found.setdefault(reason, Advice(*(_LINK.sub(r"\1", word).replace("`", "") for word in words)))
    return found


def main(arguments: list[str]) -> int:
    """Writes `advice.json`; with `--check` only compares it."""
    text = json.dumps(read(pathlib.Path(arguments[0]).read_text()), indent=1, ensure_ascii=False) + "\n"
    if "--check" in arguments:
        return 0 if _FILE.read_text() == text else 1
    _FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
