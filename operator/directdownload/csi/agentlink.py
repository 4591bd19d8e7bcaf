"""The plugin's side of the words between plugin and agent (`resources.volumes`): one request per connection."""

import asyncio
import contextlib
import os
import re

from directdownload.csi import mountsource
from directdownload.csi.errors import UnavailableError
from directdownload.hostfiles import mountinfo
from directdownload.resources import volumes

_CONNECT_SECONDS = 5.0
_FILE = re.compile(rf"({mountsource.UID.pattern})(\.iso)?")


async def ask(socket: str, request: volumes.Request, seconds: float) -> volumes.Answer:
    """The agent's answer. Cancelled, or after `seconds`, the connection is closed: nobody waits any more.

    Raises UnavailableError.
    """
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket, limit=volumes.LINE_BYTES)
    except (OSError, TimeoutError) as error:
        raise _silent(getattr(error, "strerror", None) or "timeout") from None
    try:
        async with asyncio.timeout(seconds):
            writer.write(volumes.request_line(request))
            await writer.drain()
            line = await reader.readline()
    except TimeoutError:
        raise _silent(f"no answer within {seconds:g} seconds") from None
    except (OSError, ValueError) as error:
        # a line over the limit is a ValueError
        raise _silent(str(error)) from None
    finally:
        # what it leaves unread is of no use, and closing waits for nothing
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not line.endswith(b"\n"):
        raise _silent("it closed the connection")
    try:
        return volumes.Answer.read(line)
    except volumes.MalformedError as error:
        raise UnavailableError(
            f"the agent of this host gave an answer that the CSI plugin does not understand ({error}); "
            "both must be of the same version"
        ) from None


def image(answer: volumes.Answer, roots: tuple[str, ...]) -> tuple[str, str]:
    """The path of the file of a Ready answer and the pool root that it is below, checked. Raises UnavailableError."""
    root = mountinfo.root_of(answer.path, roots)
    name = _FILE.fullmatch(os.path.basename(answer.path))
    if root is None or name is None or name[1] != answer.uid or os.path.normpath(answer.path) != answer.path:
        raise UnavailableError(
            f"the agent named the file '{answer.path}' for the Template with uid '{answer.uid}': expected the uid as "
            f"its name, with or without .iso, below {' or '.join(roots)}"
        )
    return answer.path, root


def _silent(why: str) -> UnavailableError:
    return UnavailableError(
        f"the agent of this host does not answer ({why}); see the logs of its container 'agent' on this host"
    )
