"""Tag, length and value: DER (X.690) as far as certificates and keystores need it.

Used by `x509.der` and `keystore.der`, which say in their own words what is wrong. Promises: nothing outside the given
bounds is read, and whatever the bytes are, the result is an element or a Malformed.
"""

import enum
import itertools

#: Java's limit.
_OID_LIMIT_BYTES = 4096


class Problem(enum.Enum):
    """What is wrong. In brackets: the numbers of `Malformed`."""

    HEADER = "ends within tag and length"
    TAG = "a tag of several bytes (its first)"
    INDEFINITE = "an indefinite length: BER"
    LENGTH = "a length of too many bytes"
    PADDED_LENGTH = "a length of more bytes than needed"
    CUT_OFF = "longer than what is left (the length, what is left)"
    OID = "an object identifier that is empty, cut off or too long"
    PADDED_OID = "an object identifier with a useless byte"


class Malformed(Exception):  # noqa: N818 - a finding, which its readers turn into their own
    """It is no DER."""

    def __init__(self, problem: Problem, *numbers: int) -> None:
        super().__init__(problem, *numbers)
        self.problem, self.numbers = problem, numbers


def read(data: bytes, start: int, end: int, *, shortest: bool) -> tuple[int, int, int]:
    """Tag, begin and end of the value of the element at `start` of `data[:end]`. Raises Malformed.

    `shortest`: its length must have as few bytes as possible.
    """
    body = start + 2
    if body > end:
        raise Malformed(Problem.HEADER)
    tag, size = data[start], data[start + 1]
    if tag & 0x1F == 0x1F:
        raise Malformed(Problem.TAG, tag)
    if size == 0x80:
        raise Malformed(Problem.INDEFINITE)
    if size > 0x80:
        count = size & 0x7F
        if count > 4 or body + count > end:
            raise Malformed(Problem.LENGTH)
        size = int.from_bytes(data[body : body + count])
        if shortest and (data[body] == 0 or size < 0x80):
            raise Malformed(Problem.PADDED_LENGTH)
        body += count
    if body + size > end:
        raise Malformed(Problem.CUT_OFF, size, end - body)
    return tag, body, body + size


def check_oid(value: bytes) -> None:
    """Checks the value of an OBJECT IDENTIFIER (X.690 8.19) as Java does. Raises Malformed."""
    if not 0 < len(value) <= _OID_LIMIT_BYTES or value[-1] & 0x80:
        raise Malformed(Problem.OID)
    if 0x80 in value and any(byte == 0x80 and before < 0x80 for before, byte in itertools.pairwise(b"\0" + value)):
        raise Malformed(Problem.PADDED_OID)


def write(tag: int, *parts: bytes) -> bytes:
    """An element with this value."""
    value = b"".join(parts)
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + value
