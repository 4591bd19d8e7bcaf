"""The pages of the documentation for tests: the list of pages, their fenced blocks, and the commands in those."""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

import yaml
from tests.world.checkout import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), REPOSITORY / "tests" / "cluster" / "README.md"])

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<(?P<quote>['\"]?)(?P<word>\w+)(?P=quote)[^\n]*\n.*?^(?P=word)$", re.MULTILINE | re.DOTALL)
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
#: Words that may precede a command in the shell.
_KEYWORDS = {"do", "then", "else", "while", "until", "if", "!", "exec", "test", "sudo", "nice"}


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One simple command of a fenced `sh` block, split as by the shell."""

    page: pathlib.Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{name(self.page)}: {shlex.join(self.words)}"


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return [block["text"] for block in _FENCE.finditer(page.read_text()) if block["language"] == language]


def manifests(page: pathlib.Path) -> list[str]:
    """The `yaml` blocks as whole objects: one that begins with `spec:` replaces those fields of the first one."""
    found = blocks(page, "yaml")
    return [_within(found[0], block) if block.startswith("spec:") else block for block in found]


def _within(example: str, fragment: str) -> str:
    document = yaml.safe_load(example)
    document["spec"].update(yaml.safe_load(fragment)["spec"])
    return yaml.safe_dump(document, sort_keys=False)


def outputs(page: pathlib.Path) -> list[tuple[str, str]]:
    """Each command of a `console` block, and what the page shows that it prints."""
    found = [re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE) for block in blocks(page, "console")]
    return [pair for parts in found for pair in zip(parts[1::2], parts[2::2], strict=True)]


def spans(page: pathlib.Path) -> list[str]:
    """The spans between backticks in the text."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text()))


def commands() -> list[Command]:
    """Every command of every `sh` block of every page."""
    return [Command(page, words) for page in PAGES for block in blocks(page, "sh") for words in split(block)]


def split(script: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of `script`; those in command substitutions too, but not the text of here-documents."""
    text = _HERE.sub(" ", script).replace("\\\n", " ")
    while found := _SUBSTITUTION.search(text):
        yield from split(found[1])
        # a word that no command begins with, and that stays one word with or without quotes
        text = f"{text[: found.start()]}SUBSTITUTED{text[found.end() :]}"
    for line in _lines(text):
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        for word in [*lexer, ";"]:
            if word and set(word) <= set("();<>|&"):
                if words:
                    yield tuple(words)
                words = []
            elif words or not (word in _KEYWORDS or _ASSIGNMENT.fullmatch(word) or word == "export"):
                words.append(word)


def _lines(text: str) -> Iterator[str]:
    """Lines without comments; an open quote joins a line with the next."""
    pending = ""
    for line in text.splitlines():
        pending = f"{pending}\n{line}" if pending else re.sub(r"(^|\s)#\s.*$", "", line)
        try:
            shlex.split(pending)
        except ValueError:
            continue
        yield pending
        pending = ""
    assert not pending, f"a quote is never closed: {pending}"
