"""Copies owner, mode, access list and SELinux label of a file to its replacement. Used by `keystore.exchange`."""

import errno
import os
import stat

#: Access list (setfacl) and label. They are set after the mode, because the mode is part of the list.
_EXTENDED = ("system.posix_acl_access", "security.selinux")
_ABSENT = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def copy(descriptor: int, path: str, status: os.stat_result) -> None:
    """Copies the attributes of `path` (with `status`) to an open file. Raises OSError if one cannot be set."""
    mode = stat.S_IMODE(status.st_mode)
    os.fchmod(descriptor, mode)
    for name in _EXTENDED:
        value = _get(path, name)
        if value is not None and value != _get(descriptor, name):
            os.setxattr(descriptor, name, value)
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) == (status.st_uid, status.st_gid):
        return
    # The owner last: CHOWN suffices to change it, but changes after that would need FOWNER.
    os.fchown(descriptor, status.st_uid, status.st_gid)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        # the change of owner has cleared setuid or setgid
        os.fchmod(descriptor, mode)


def _get(file: str | int, name: str) -> bytes | None:
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
