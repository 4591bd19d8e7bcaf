"""The tests that SECURITY.md names exist: a test that was renamed or dropped shows nothing any more."""

import pathlib
import re
from collections.abc import Iterator

from tests.world.checkout import REPOSITORY

_PAGE = REPOSITORY / "SECURITY.md"
_SHOWN = re.compile(r"\*Shown\s+by\s+(?P<what>.*?)\*", re.DOTALL)
_NAMED = re.compile(r"`([^`]+)`")


def _named(text: str) -> Iterator[tuple[pathlib.Path, str]]:
    """Each file or directory that `text` names, with a test in it, or with an empty name.

    A file without its directory is beside the one before it, and a test is in the file before it.
    """
    for shown in _SHOWN.finditer(text):
        path = REPOSITORY
        for name in _NAMED.findall(shown["what"]):
            if name.startswith("test_") and not name.endswith(".py"):
                yield path, name
                continue
            if name.startswith("tests/"):
                path = REPOSITORY / name
            elif name.endswith(".py"):
                path = (path if path.is_dir() else path.parent) / name
            else:
                # What is no test: a role, a label.
                continue
            yield path, ""


def _missing(text: str) -> list[str]:
    found = []
    for path, name in _named(text):
        if not path.exists():
            found.append(str(path.relative_to(REPOSITORY)))
        elif name and not re.search(rf"^\s*(async )?def {name}\(", path.read_text(), re.MULTILINE):
            found.append(f"{path.relative_to(REPOSITORY)} ({name})")
    return found


def test_every_test_that_the_page_names_exists() -> None:
    named = list(_named(_PAGE.read_text()))
    assert len({path for path, name in named if not name}) > 40, "the page says otherwise which tests show what it says"
    assert sum(bool(name) for _, name in named) > 8
    assert not _missing(_PAGE.read_text())


def test_every_promise_is_shown_in_the_same_words() -> None:
    """Another notation would escape the test above."""
    text = _PAGE.read_text()
    assert len(re.findall(r"[Ss]hown\s+by\b", text)) == len(_SHOWN.findall(text))


def test_every_promise_is_shown_or_said_not_to_be_one() -> None:
    threats = _PAGE.read_text().partition("## Threats")[2].partition("## Hardening")[0]
    points = re.findall(r"^- (.*?)(?=\n- |\n\n)", threats, re.DOTALL | re.MULTILINE)
    assert len(points) > 40
    assert [point for point in points if not (_SHOWN.search(point) or "**Not defended**" in point)] == []


def test_a_test_that_is_gone_is_named() -> None:
    here = "tests/unit/test_security_page.py"
    good = f"*Shown by `{here}`, `test_docs.py` (`test_links_between_pages_resolve`), by the role `edit`.*"
    assert _missing(good) == []
    assert _missing(f"*Shown by `{here}` (`test_of_yesterday`).*") == [f"{here} (test_of_yesterday)"]
    assert _missing(f"*Shown by `{here}`,\n  `test_of_yesterday.py`.*") == ["tests/unit/test_of_yesterday.py"]
    assert _missing("*Shown by `tests/unit/of_yesterday/`.*") == ["tests/unit/of_yesterday"]
