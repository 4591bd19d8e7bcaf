"""Unix sockets between processes of one host."""

import contextlib
import os
import socket
import stat


def bound(path: str) -> socket.socket:
    """A socket at `path` that only this user can open, in place of one that an ended process left. Raises OSError.

    Anything there that is no socket stays: then it raises FileExistsError.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path}: expected a socket or nothing")
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # before it has a name: bind(2) gives the file this mode
        os.fchmod(made.fileno(), 0o600)
        made.bind(path)
    except OSError:
        made.close()
        raise
    return made
