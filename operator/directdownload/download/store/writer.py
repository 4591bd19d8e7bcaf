"""Writing blocks at positions of a file: past the page cache where that is faster, with holes for zeros.

Called by the transfer for the part and by the unpacking for its output; several threads may write at once. On a local
file system whole blocks go directly to the disk (O_DIRECT): that saves a copy and the sync at the end, and leaves the
page cache to the virtual machines. Other file systems and unaligned bytes get ordinary writes.
"""

import ctypes
import errno
import mmap
import os

from directdownload.download.errors import storage_error
from directdownload.download.transfer.schedule import BLOCK_BYTES
from directdownload.hostfiles import writing

#: the alignment that O_DIRECT requires of offsets, lengths and memory, on every known disk
ALIGNMENT_BYTES = 4096
#: ext2 to ext4, xfs (statfs(2)): direct writes of allocated blocks are as fast as the disk there
_DIRECT_FILE_SYSTEMS = frozenset({0xEF53, 0x58465342})
_HOLE_BYTES = 64 * 1024
_ZEROS = bytes(_HOLE_BYTES)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


def new_buffer() -> memoryview:
    """Memory of one block, aligned for O_DIRECT."""
    return memoryview(mmap.mmap(-1, BLOCK_BYTES))


class Writer:
    """Writes into the open file `descriptor`, whose path is `path`; raises StorageError.

    `direct` is the same file opened past the page cache, which the writer then owns; None where that is impossible.
    """

    def __init__(self, descriptor: int, path: str, direct: int | None) -> None:
        self._descriptor = descriptor
        self._path = path
        self._opened = self._direct = direct
        self._punches = True

    def close(self) -> None:
        """Close, after the last write. Idempotent."""
        self.use_page_cache()
        opened, self._opened = self._opened, None
        if opened is not None:
            os.close(opened)

    def use_page_cache(self) -> None:
        """Use ordinary writes from now on: for a file that is read back at once."""
        # it stays open: another thread may be about to write to it, and its number must not be reused for another file
        self._direct = None

    def write(self, data: memoryview, position: int) -> None:
        """Write all of `data`; zeros that fill whole blocks of 64 KiB become holes."""
        try:
            start = offset = 0
            while offset < len(data):
                length = _zeros_at(data, offset, position) if self._punches else 0
                if not length:
                    offset += _HOLE_BYTES - (position + offset) % _HOLE_BYTES
                    continue
                self._put(data[start:offset], position + start)
                if not self._punch(position + offset, length):
                    self._put(data[offset : offset + length], position + offset)
                start = offset = offset + length
            self._put(data[start:], position + start)
        except OSError as error:
            raise storage_error(error, self._path, "write") from error

    def _put(self, data: memoryview, position: int) -> None:
        direct = self._direct
        while data:
            aligned = not (position % ALIGNMENT_BYTES or len(data) % ALIGNMENT_BYTES)
            try:
                count = os.pwrite(direct if direct is not None and aligned else self._descriptor, data, position)
            except OSError as error:
                if error.errno != errno.EINVAL or direct is None:
                    raise
                # the disk requires a larger alignment
                direct = None
                continue
            data = data[count:]
            position += count

    def _punch(self, position: int, length: int) -> bool:
        """Punch a hole; return whether the file now has one there."""
        self._punches = writing.allocate(self._descriptor, position, length, punch=True)
        return self._punches


def _zeros_at(data: memoryview, offset: int, position: int) -> int:
    """The number of zero bytes from `offset` on, in whole blocks of 64 KiB of the file."""
    end = offset
    if (position + offset) % _HOLE_BYTES:
        return 0
    # the first bytes nearly always decide; only otherwise the whole block is compared
    while end + _HOLE_BYTES <= len(data) and data[end : end + 8] == _ZEROS[:8]:
        if bytes(data[end : end + _HOLE_BYTES]) != _ZEROS:
            break
        end += _HOLE_BYTES
    return end - offset


def open_direct(descriptor: int, access: int) -> int | None:
    """Open the file again, past the page cache; None where that is impossible or not faster.

    `access` is a flag of open(2). The first word of statfs is the type of the file system.
    """
    state = ctypes.create_string_buffer(256)
    if _libc.fstatfs(descriptor, state) != 0:
        return None
    kind = int.from_bytes(state.raw[: ctypes.sizeof(ctypes.c_long)], "little") & 0xFFFFFFFF
    if kind not in _DIRECT_FILE_SYSTEMS:
        return None
    try:
        return os.open(f"/proc/self/fd/{descriptor}", access | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None
