"""Dropping the rights of a process for good, before it handles foreign bytes.

Called by `sandbox` in its own process. The process keeps its open descriptors, the network, and reading of libraries
and of the system's configuration. It can start no process and connect to no other process of the host. Landlock
(landlock(7)) is used where the kernel has it; without it the process still has no privileges, but world-readable files
stay readable.
"""

import contextlib
import ctypes
import logging
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable

from directdownload.download.errors import StorageError
from directdownload.download.sandbox import seccomp
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: Of user and group. No account of a distribution, of systemd (up to 65519) or of common images (65532, 65534).
NOBODY = 65531
#: Files for resolving names, checking certificates and loading modules; absent ones are left out.
_SYSTEM = ("/bin", "/lib", "/lib64", "/usr", "/etc", "/dev/null", "/dev/urandom", "/run/systemd/resolve")

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_SET_NO_NEW_PRIVS = 38
#: capability.h: the version of the header, and the bit of a capability
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_BIND_SERVICE = 1 << 10
#: the same numbers on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
#: The number of file rights of each version of Landlock; later versions have those of the last.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_SCOPED_SINCE, _SCOPES = 6, 0b11
_NET_SINCE = 4


def confine(readable: Iterable[str]) -> None:
    """Confine this process, which must have one thread; `readable` are further files and directories it may read.

    Raises StorageError if it stays root.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        _become_nobody()
    _keep_only(_CAP_NET_BIND_SERVICE & _permitted())
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _landlock((*_SYSTEM, *_python(), *readable))
    seccomp.forbid()
    # last: a change of user resets it
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_nobody() -> None:
    # NFS servers accept requests only from ports below 1024; in the host's network a pod needs a capability for those
    _prctl(_PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except PermissionError:
        raise StorageError(
            Reason.WRITE_FAILED,
            "cannot drop root privileges before the download: expected the capabilities SETUID and SETGID, which the "
            "chart's Job template adds",
        ) from None


def _permitted() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1], 16) for line in status if line.startswith("CapPrm:")), 0)


def _keep_only(capabilities: int) -> None:
    header = struct.pack("=II", _CAPABILITY_VERSION_3, 0)
    # effective, permitted and inheritable, of the lower and the upper 32 capabilities
    data = struct.pack("=IIIIII", capabilities, capabilities, 0, 0, 0, 0)
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _python() -> tuple[str, ...]:
    """The directories of modules, also of those not loaded yet."""
    return (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *filter(os.path.isabs, sys.path))


def _landlock(readable: Iterable[str]) -> None:
    version = _libc.syscall(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    if version < 1:
        logger.debug("this kernel has no Landlock: a process of user %d can read world-readable files", os.geteuid())
        return
    handled = (1 << _FILE_RIGHTS.get(version, max(_FILE_RIGHTS.values()))) - 1
    scopes = _SCOPES if version >= _SCOPED_SINCE else 0
    # a shorter structure is that of an earlier version
    size = 24 if version >= _SCOPED_SINCE else 16 if version >= _NET_SINCE else 8
    ruleset = _libc.syscall(_CREATE_RULESET, struct.pack("=QQQ", handled, 0, scopes), size, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        for path in dict.fromkeys(readable):
            _allow_reading(ruleset, path)
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = _EXECUTE | _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
            if _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, beneath), 0) != 0:
                raise OSError(ctypes.get_errno(), f"landlock_add_rule: {path}")
        finally:
            os.close(beneath)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
