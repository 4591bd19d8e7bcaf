"""A disk that a virtual machine boots from in an instant: it says so on its serial port, writes to itself, and ends.

126 bytes of 16-bit code in the first sector, which the BIOS loads to 0x7C00. No kernel, no file system: what is to be
shown is that a machine reads these bytes, and where its writes go.
"""

import struct

SECTOR_BYTES = 512
#: The status of qemu with `-device isa-debug-exit,iobase=0xf4,iosize=1`: twice the byte that the code sends, and one.
ENDED = 2 * 0x10 + 1
WROTE, FAILED = "wrote its disk", "could not write its disk"


def image(marker: str, size_bytes: int = 1 << 20) -> bytes:
    """A RAW image that prints `marker`, writes its second sector, and prints `WROTE` or `FAILED`, each on a line."""
    texts = [f"{text}\r\n".encode() + b"\0" for text in (marker, WROTE, FAILED)]
    # The length of the code does not depend on the addresses in it.
    addresses, position = [], 0x7C00 + len(_code([0, 0, 0]))
    for text in texts:
        addresses.append(position)
        position += len(text)
    sector = _code(addresses) + b"".join(texts)
    if len(sector) > SECTOR_BYTES - 2:
        raise ValueError(f"the marker is too long by {len(sector) - SECTOR_BYTES + 2} bytes")
    return (sector.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa").ljust(size_bytes, b"\0")


def _code(addresses: list[int]) -> bytes:
    booted, wrote, failed = (struct.pack("<H", address) for address in addresses)
    show = bytes.fromhex(
        "ac 84c0 7412"  # next: lodsb; test al, al; jz done
        "88c4 bafd03"  # mov ah, al; mov dx, 0x3fd (the state of the serial port)
        "ec a820 74fb"  # busy: in al, dx; test al, 0x20; jz busy
        "88e0 baf803 ee"  # mov al, ah; mov dx, 0x3f8; out dx, al
        "ebe9 c3"  # jmp next; done: ret
    )
    before = bytes.fromhex("fa 31c0 8ed8 8ec0 8ed0 bc007c 52") + b"\xbe" + booted  # stack at 0x7c00; push dx (the disk)
    write = bytes.fromhex(
        "5a b80103 b90200 b600 bb007c cd13"
    )  # int 0x13: write one sector, cylinder 0, head 0, sector 2
    after = b"\xbe" + wrote + bytes.fromhex("7303") + b"\xbe" + failed  # jnc over the second
    end = bytes.fromhex("b010 e6f4 f4 ebfd")  # out 0xf4, 0x10; hlt for ever
    to_show = len(write) + len(after) + 3 + len(end)
    return (
        before
        + b"\xe8"
        + struct.pack("<h", to_show)
        + write
        + after
        + b"\xe8"
        + struct.pack("<h", len(end))
        + end
        + show
    )
