"""Keeps control sequences in foreign texts away from the user's terminal.

Names, messages and descriptions come from tenants, servers and hosts. A terminal obeys control sequences in them: they
hide lines, change titles and on some terminals type commands. `main` puts a `Guard` in front of both streams. Only
`progress` and `fetch` bypass it, because they draw with control sequences; they make foreign text `visible` first.
"""

import re
import sys
from typing import IO, Any, TextIO, cast

#: Control characters but line feed and tab (a carriage return overwrites a line), and what reverses or breaks a line of
#: text (Unicode's bidirectional controls, line and paragraph separator).
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """`text` with such characters in JSON's notation, `\\u001b`, so that JSON stays valid and equal."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Guard:
    """A text stream that makes all written text `visible` and passes everything else to `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard() -> None:
    """Guards standard output and standard error from now on."""
    sys.stdout, sys.stderr = cast(TextIO, Guard(sys.stdout)), cast(TextIO, Guard(sys.stderr))


def unguarded(stream: IO[str]) -> IO[str]:
    """The stream behind the guard, for drawing."""
    return stream.stream if isinstance(stream, Guard) else stream
