"""Text from disks, mounts, archives and servers, made fit for statuses, logs and messages: the one place that does it.

Used wherever such text leaves a process: by the agent for the names that it reports, by `logs` and `health` for every
line, by `cluster.client` for what is applied. Only text that people read is escaped; code that acts on a file keeps the
true name. Promises: the result is valid Unicode, one printable line, and bounded; printable text stays as it is, so
that escaping twice changes nothing.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

#: A message of a status.
TEXT_LIMIT = 4096
#: A file in a pool, with its directory: the longest name of our own (255 bytes) is shown whole.
NAME_LIMIT = 300
_CUT = "…"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: Python's stand-ins for bytes that are not UTF-8 (`surrogateescape`): U+DC80 to U+DCFF.
_BYTES = range(0xDC80, 0xDD00)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
#: In ASCII-only JSON: an escaped backslash (the rest is text), a pair of surrogates, a single one.
_IN_JSON = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|\\u(d[89a-f][0-9a-f]{2})")


def escaped(text: str, limit: int = TEXT_LIMIT) -> str:
    r"""`text` as one printable line of at most `limit` characters; a longer one ends with `…`.

    A byte that was not UTF-8 becomes `\xff`, a control character `\x1b`, `\n`, `\r` or `\t`, any other unprintable one
    `\u202e`.
    """
    if len(text) <= limit and text.isprintable():
        return text
    # the rest is never looked at, however long it is
    shown = "".join(letter if letter.isprintable() else _escape(letter) for letter in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - len(_CUT)] + _CUT


def listed(names: Iterable[str], limit: int = 10) -> str:
    """The first of `names`, each escaped, and how many more there are."""
    found = list(names)
    shown = ", ".join(escaped(name, NAME_LIMIT) for name in found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"


def valid(text: str) -> str:
    """`text` with only those characters escaped that have no UTF-8; line breaks and all else stay."""
    return _SURROGATE.sub(lambda match: _escape(match[0]), text)


def one_json_line(line: str) -> str:
    """JSON without unprintable characters: they become JSON escapes, so that its readers still get them."""
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else _json_escape(letter) for letter in line)


def to_apply(document: Any) -> bytes:
    """`document` as JSON that the API server accepts as YAML, which is how it reads a server-side apply.

    YAML knows no pairs of surrogates, as which ASCII-only JSON writes every character beyond U+FFFF: they are written
    as UTF-8. Characters without UTF-8 are escaped: one such name must not keep a whole status from being written.
    """
    text = json.dumps(document)
    return (_IN_JSON.sub(_in_yaml, text) if "\\ud" in text else text).encode()


def _in_yaml(match: re.Match[str]) -> str:
    high, low, single = match.groups()
    if single is not None:
        return json.dumps(_escape(chr(int(single, 16))))[1:-1]
    if high is None:
        return match[0]
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))


def _json_escape(letter: str) -> str:
    number = ord(letter)
    return f"\\u{number:04x}" if number < 0x10000 else json.dumps(letter)[1:-1]


def _escape(letter: str) -> str:
    number = ord(letter)
    if number in _BYTES:
        return f"\\x{number - 0xDC00:02x}"
    if letter in _SHORT:
        return _SHORT[letter]
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
