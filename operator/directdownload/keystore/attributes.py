"""A file gets owner, mode, access list and SELinux label of the one that it replaces. Used by `exchange`."""

import errno
import os
import stat

#: The label, and what `setfacl` has set. The list goes after the mode, which it is a part of.
_EXTENDED = ("system.posix_acl_access", "security.selinux")
_ABSENT = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def copy(descriptor: int, path: str, status: os.stat_result) -> None:
    """From the file at `path`, of that status, to an open file of ours. Raises OSError where one cannot be given."""
    mode = stat.S_IMODE(status.st_mode)
    os.fchmod(descriptor, mode)
    for name in _EXTENDED:
        value = _get(path, name)
        if value is not None and value != _get(descriptor, name):
            os.setxattr(descriptor, name, value)
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) == (status.st_uid, status.st_gid):
        return
    # The owner last: CHOWN is enough to give a file away, but then only FOWNER could change the rest.
    os.fchown(descriptor, status.st_uid, status.st_gid)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        # giving it away has taken setuid or setgid
        os.fchmod(descriptor, mode)


def _get(file: str | int, name: str) -> bytes | None:
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
