"""Drops for good what the plugin does not need of its privileges.

Called by `main` before anything else runs: the kernel keeps these per thread, and later threads inherit them. A
privileged container is needed for mounts that reach the host; what remains is CAP_SYS_ADMIN, which mount(2) wants. The
process has an own network namespace without a network: it talks through unix sockets, which are files.
"""

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_ADMIN = 21
_LAST = "/proc/sys/kernel/cap_last_cap"


class PrivilegesError(Exception):
    """The process lacks what it needs, or could not drop what it does not need."""


def drop() -> None:
    """Leaves this process, which must have one thread, CAP_SYS_ADMIN alone. Raises PrivilegesError."""
    if len(os.listdir("/proc/self/task")) != 1:
        raise PrivilegesError("privileges are dropped before there are threads")
    try:
        _call("unshare", _libc.unshare(_CLONE_NEWNET))
        with open(_LAST, encoding="ascii") as file:
            last = int(file.read())
        for capability in range(last + 1):
            if capability != _SYS_ADMIN:
                _call("prctl", _prctl(_PR_CAPBSET_DROP, capability))
        _call("prctl", _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL))
        header = struct.pack("=II", _CAPABILITY_VERSION_3, 0)
        # effective, permitted and inheritable, of the lower and the upper 32 capabilities
        data = struct.pack("=IIIIII", 1 << _SYS_ADMIN, 1 << _SYS_ADMIN, 0, 0, 0, 0)
        _call("capset", _libc.capset(header, data))
        _call("prctl", _prctl(_PR_SET_NO_NEW_PRIVS, 1))
    except OSError as error:
        raise PrivilegesError(
            f"privileges cannot be dropped ({error.strerror}): expected a privileged container of root, as the "
            "chart's csi.enabled makes it"
        ) from None
    os.umask(0o077)


def _prctl(option: int, value: int) -> int:
    done: int = _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return done


def _call(name: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
