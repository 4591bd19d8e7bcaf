"""flock(2): between processes of one host and, where the file system shares it, between hosts.

Every lock of the product is one: those in pools (`download.lock`, `agent.pools.prober`), of a keystore
(`keystore.files`), of a state directory (`agent.statelock`). They decide where the file is, how long to wait, and
whether the file stays. The kernel releases a lock when its process ends. Kind and files stay: an old version of the
product may run beside this one.
"""

import fcntl
import os

from directdownload.hostfiles import reading


def open_file(path: str) -> int:
    """Open the lock file, or create it with mode 0600. Raises OSError, also reading.NotRegularError."""
    return reading.open_regular(path, os.O_RDWR | os.O_CREAT)[0]


def take(descriptor: int, *, shared: bool = False) -> bool:
    """Lock the open file; False if another process has it. Raises OSError. Closing the file releases the lock."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def same_file(descriptor: int, path: str, *, dir_fd: int | None = None) -> bool:
    """Whether `path` is still the open file. Raises OSError if that cannot be determined."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False
