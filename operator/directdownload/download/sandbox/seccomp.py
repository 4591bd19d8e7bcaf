"""A seccomp(2) filter that denies a process with foreign bytes the system calls that it does not need.

Called by `confinement`, beside Landlock, which does not prevent: connecting to a socket of another process of the host
and passing it open files, leaving a process behind that has them, and becoming root in a user namespace.
"""

import ctypes
import errno
import logging
import platform
import socket
import struct

logger = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
#: linux/bpf_common.h, linux/seccomp.h: load a word, compare, compare bits, return; offsets in struct seccomp_data
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x00010000
#: the flag of the other system call numbers of an x86_64 kernel, its x32 variant
_X32 = 0x40000000
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)

#: AUDIT_ARCH of linux/audit.h, and the numbers of calls by name.
_MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            **{"socket": 41, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "ptrace": 101},
            **{"add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "setns": 308},
            **{"process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "execveat": 322, "userfaultfd": 323},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            **{"unshare": 97, "ptrace": 117, "socket": 198, "add_key": 217, "request_key": 218, "keyctl": 219},
            **{"clone": 220, "execve": 221, "perf_event_open": 241, "setns": 268, "process_vm_readv": 270},
            **{"process_vm_writev": 271, "bpf": 280, "execveat": 281, "userfaultfd": 282},
        },
    ),
}
#: the same numbers on every architecture
_CLONE3 = 435
_LATER = {"io_uring_setup": 425, "pidfd_getfd": 438}


def forbid() -> None:
    """Install the filter for this thread and all threads that it starts, for good. Requires no_new_privs."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        logger.debug("no list of system calls for %s: none is denied", platform.machine())
        return
    code = _program(*machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _program(architecture: int, numbers: dict[str, int]) -> bytes:
    """The program: each instruction returns its answer on a match, else continues with the next one."""
    denied = _FAIL | errno.EPERM
    body = [
        *_return_if(_AT_LEAST, _X32, denied),
        # a filter cannot read its flags, which are in memory: the C library falls back to `clone`
        *_return_if(_EQUAL, _CLONE3, _FAIL | errno.ENOSYS),
    ]
    for name, number in (numbers | _LATER).items():
        if name not in ("socket", "clone"):
            body += _return_if(_EQUAL, number, denied)
    clone = [(_LOAD, 0, 0, _FIRST_ARGUMENT), *_return_if(_ANY_BIT, _CLONE_THREAD, _ALLOW), (_RETURN, 0, 0, denied)]
    families = [each for family in _FAMILIES for each in _return_if(_EQUAL, family, _ALLOW)]
    asked = [(_LOAD, 0, 0, _FIRST_ARGUMENT), *families, (_RETURN, 0, 0, denied)]
    for name, block in (("clone", clone), ("socket", asked)):
        body += [(_EQUAL, 0, len(block), numbers[name]), *block]
    whole = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        *body,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in whole)


def _return_if(comparison: int, value: int, answer: int) -> list[tuple[int, int, int, int]]:
    return [(comparison, 0, 1, value), (_RETURN, 0, 0, answer)]
