"""The pages of the documentation as tests see them: which there are, their fenced blocks, and the commands in those."""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), REPOSITORY / "tests" / "cluster" / "README.md"])

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<(?P<quote>['\"]?)(?P<word>\w+)(?P=quote)[^\n]*\n.*?^(?P=word)$", re.MULTILINE | re.DOTALL)
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
#: What may stand before a command in the shell.
_KEYWORDS = {"do", "then", "else", "while", "until", "if", "!", "exec", "test", "sudo", "nice"}


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One simple command of a fenced `sh` block, as the shell would split it."""

    page: pathlib.Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{name(self.page)}: {shlex.join(self.words)}"


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return [block["text"] for block in _FENCE.finditer(page.read_text()) if block["language"] == language]


def spans(page: pathlib.Path) -> list[str]:
    """What stands in the text between backticks."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text()))


def commands() -> list[Command]:
    """Every command of every `sh` block of every page."""
    return [Command(page, words) for page in PAGES for block in blocks(page, "sh") for words in split(block)]


def split(script: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of `script`; those in command substitutions too, but not the text of here-documents."""
    text = _HERE.sub(" ", script).replace("\\\n", " ")
    while found := _SUBSTITUTION.search(text):
        yield from split(found[1])
        # something that no command begins with, and that stays one word within quotes or without
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
    """Lines without comments; one that is inside of quotes goes on in the next."""
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
