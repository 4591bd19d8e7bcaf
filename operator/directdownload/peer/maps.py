"""Maps of pieces: an int whose bit i stands for piece i. Pure; used by the choice and the offering."""

from collections.abc import Iterable

_BITS_OF_BYTE = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
#: from so many pieces on a bytearray is faster than one new int for each
_MANY = 16


def full(pieces: int) -> int:
    return (1 << pieces) - 1


def of(indices: Iterable[int], pieces: int) -> int:
    """The map of `indices`; those outside 0 to `pieces` - 1 are left out."""
    known = [index for index in indices if 0 <= index < pieces]
    if len(known) < _MANY:
        found = 0
        for index in known:
            found |= 1 << index
        return found
    data = bytearray((pieces + 7) // 8)
    for index in known:
        data[index >> 3] |= 1 << (index & 7)
    return int.from_bytes(data, "little")


def indices(found: int) -> list[int]:
    """The pieces of a map, ascending."""
    if found.bit_count() < _MANY:
        few = []
        while found:
            lowest = found & -found
            few.append(lowest.bit_length() - 1)
            found ^= lowest
        return few
    data = found.to_bytes((found.bit_length() + 7) // 8, "little")
    return [base * 8 + bit for base, byte in enumerate(data) if byte for bit in _BITS_OF_BYTE[byte]]


def first(found: int) -> int:
    """The lowest piece of a map; -1 if it has none."""
    return (found & -found).bit_length() - 1


def first_of(found: int, count: int) -> int:
    """The map of the `count` lowest pieces of a map, or of all if there are fewer."""
    if found.bit_count() <= count:
        return found
    base = first(found)
    found >>= base
    # Usually the map is dense, and a narrow part of it has enough.
    high = count
    while (found & full(high)).bit_count() < count:
        high *= 2
    low = high // 2 if high > count else count
    while low < high:
        middle = (low + high) // 2
        if (found & full(middle)).bit_count() < count:
            low = middle + 1
        else:
            high = middle
    return (found & full(low)) << base


def nth(found: int, number: int) -> int:
    """The piece before which `number` pieces of the map lie; the map must have more than that."""
    base = first(found)
    found >>= base
    for _ in range(number):
        found &= found - 1
    return base + first(found)
