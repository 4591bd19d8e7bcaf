"""The words between `server` and `opener`: one question on a connection, and its answer with two descriptors.

A line of JSON each way: `{"content": "<id>"}`, and `{"found": true, "published": false}` with the descriptors of piece
log and data (SCM_RIGHTS), or `{"found": false}`.
"""

import array
import contextlib
import json
import os
import re
import socket
from collections.abc import Callable

from directdownload.peer.table import Opened

#: of either side
LINE_BYTES = 256
#: The opener answers earlier, also where a pool hangs.
ASK_SECONDS = 5.0
_CONTENT = re.compile(r"[0-9a-f]{64}", re.ASCII)

#: What `ask` is to those that use it. Raises OSError.
Ask = Callable[[str], Opened | None]


def ask(path: str, content: str) -> Opened | None:
    """The open files of a content from the opener at `path`; None if it has none. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(path)
        connection.sendall(json.dumps({"content": content}).encode() + b"\n")
        room = socket.CMSG_SPACE(2 * array.array("i").itemsize)
        line, ancillary, _, _ = connection.recvmsg(LINE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    told = _read(line)
    if len(descriptors) == 2 and told.get("found") is True:
        return Opened(descriptors[0], descriptors[1], published=told.get("published") is True)
    for descriptor in descriptors:
        os.close(descriptor)
    return None


def reach(path: str) -> None:
    """Whether an opener listens at `path`: raises OSError if not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(path)


def receive(connection: socket.socket) -> str:
    """The content that is asked for. Raises OSError, ValueError."""
    line = b""
    while not line.endswith(b"\n"):
        if len(line) > LINE_BYTES or not (more := connection.recv(LINE_BYTES)):
            raise ValueError("expected a line")
        line += more
    content = _read(line).get("content")
    if not isinstance(content, str) or not _CONTENT.fullmatch(content):
        raise ValueError("expected the id of a content")
    return content


def answer(connection: socket.socket, opened: Opened | None) -> None:
    """Send the answer; the descriptors stay the caller's. Never raises: the server may be gone."""
    with contextlib.suppress(OSError):
        if opened is None:
            connection.sendall(b'{"found": false}\n')
            return
        line = json.dumps({"found": True, "published": opened.published}).encode() + b"\n"
        socket.send_fds(connection, [line], [opened.log, opened.data])


def _read(line: bytes) -> dict[str, object]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
