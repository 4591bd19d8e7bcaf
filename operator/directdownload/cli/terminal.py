"""What objects say must not command the terminal of whoever reads it.

Names, messages and descriptions come from tenants, servers and hosts, and a terminal obeys control sequences in them:
they hide lines, change titles, on some terminals type commands. `main` puts a `Guard` in front of both streams, through
which everything printed goes. Only `progress` and `fetch` draw past it, as drawing is what such sequences are for: they
make foreign text `visible` first.
"""

import re
import sys
from typing import IO, Any, TextIO, cast

#: Control characters but line feed and tab (a carriage return overwrites a line), and what reverses or breaks a line of
#: text (Unicode's bidirectional controls, line and paragraph separator).
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """`text` with such characters in the notation of JSON, `\\u001b`, so that JSON stays what it is."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Guard:
    """A text stream that makes what is written `visible`; all else is the stream's own."""

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
    """From now on, for standard output and standard error."""
    sys.stdout, sys.stderr = cast(TextIO, Guard(sys.stdout)), cast(TextIO, Guard(sys.stderr))


def unguarded(stream: IO[str]) -> IO[str]:
    """For who draws."""
    return stream.stream if isinstance(stream, Guard) else stream
