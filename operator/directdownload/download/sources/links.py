"""Symbolic links on a server, resolved as the server's own system does, but never out of a directory.

Called by the NFS session, which asks the server.
"""

from collections.abc import Callable, Sequence

#: the limit of Linux (path_resolution(7))
LIMIT = 40


class AstrayError(Exception):
    """A link leads out of the directory, or there are too many links; the message says which."""


def resolve(names: Sequence[str], root: Sequence[str], read: Callable[[Sequence[str]], str | None]) -> list[str]:
    """Resolve all links in `names`, the path to a file from the server's root. `names` begin with `root`, which stays.

    `read` returns the target of the link at some names, None if it is not a link. Absolute targets start at the
    server's root. Raises AstrayError for a link out of `root`, and for more than LIMIT links.
    """
    reached, ahead = list(root), list(reversed(names[len(root) :]))
    followed = 0
    while ahead:
        name = ahead.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if len(reached) == len(root):
                raise AstrayError(f"a symbolic link leads out of {_path(root)}")
            reached.pop()
            continue
        target = read([*reached, name])
        if target is None:
            reached.append(name)
            continue
        followed += 1
        if followed > LIMIT:
            raise AstrayError(f"more than {LIMIT} symbolic links are in the path")
        if target.startswith("/"):
            parts = [part for part in target.split("/") if part not in ("", ".")]
            if parts[: len(root)] != list(root):
                raise AstrayError(f"a symbolic link leads out of {_path(root)}")
            reached, target = list(root), "/".join(parts[len(root) :])
        ahead += reversed(target.split("/"))
    return reached


def _path(names: Sequence[str]) -> str:
    return "/" + "/".join(names)
