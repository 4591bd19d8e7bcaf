"""The part of DER that PKCS#12 needs, over `resources.tlv`: a bounded reader that keeps positions, and a writer.

Used by `pbe` and `pkcs12`. Promises: no read outside its element, every list has a limit, and anything but DER raises
UnreadableError (of contents, only an OBJECT IDENTIFIER is checked, as Java does). The reader keeps positions, so that
unknown parts can be written again byte for byte. Indefinite lengths (BER, as NSS writes them) are refused: Java and
OpenSSL write none.
"""

from typing import NamedTuple

from directdownload.keystore.errors import UnreadableError
from directdownload.resources import tlv

INTEGER, OCTET_STRING, NULL, OID, BMP_STRING, SEQUENCE, SET = 0x02, 0x04, 0x05, 0x06, 0x1E, 0x30, 0x31
#: [0], constructed (EXPLICIT) and primitive (IMPLICIT of an OCTET STRING).
CONTEXT_0, CONTEXT_0_PRIMITIVE = 0xA0, 0x80
#: Limit of elements in one list. The largest list of a keystore is that of its certificates.
COUNT_LIMIT = 5_000
_NAMES = {
    INTEGER: "INTEGER",
    OCTET_STRING: "OCTET STRING",
    NULL: "NULL",
    OID: "OBJECT IDENTIFIER",
    BMP_STRING: "BMPString",
    SEQUENCE: "SEQUENCE",
    SET: "SET",
    CONTEXT_0: "[0]",
    CONTEXT_0_PRIMITIVE: "[0] OCTET STRING",
}
_TEXTS = {
    tlv.Problem.HEADER: "damaged or cut off: an element ends in its header",
    tlv.Problem.TAG: "damaged: unknown tag 0x{:02x}",
    tlv.Problem.INDEFINITE: (
        "it has indefinite lengths (BER), which are not supported: rewrite it with keytool -importkeystore"
    ),
    tlv.Problem.LENGTH: "damaged or cut off: an element has an invalid length",
    tlv.Problem.CUT_OFF: "damaged or cut off: an element of {} bytes where {} are left",
}
write = tlv.write


class Element(NamedTuple):
    """One tag-length-value of `data`: it begins at `start`, its value is `data[body:end]`."""

    data: bytes
    tag: int
    start: int
    body: int
    end: int

    @property
    def raw(self) -> bytes:
        return self.data[self.start : self.end]

    @property
    def value(self) -> bytes:
        return self.data[self.body : self.end]


def parse(data: bytes) -> Element:
    """The first element of `data`. Raises UnreadableError."""
    return _read(data, 0, len(data))


def only(data: bytes) -> Element:
    """The only element of `data`. Raises UnreadableError if bytes follow it."""
    element = parse(data)
    if element.end != len(data):
        raise UnreadableError(f"damaged: {len(data) - element.end} bytes follow its end")
    return element


def children(element: Element, tag: int, limit: int = COUNT_LIMIT) -> list[Element]:
    """The elements in `element`, which must have the constructed tag `tag`. Raises UnreadableError."""
    expect(element, tag)
    found: list[Element] = []
    position = element.body
    while position < element.end:
        if len(found) == limit:
            raise UnreadableError(f"a list of more than {limit} elements")
        child = _read(element.data, position, element.end)
        found.append(child)
        position = child.end
    return found


def fields(element: Element, *tags: int, more: int = 0) -> list[Element]:
    """The elements of a SEQUENCE: first those with `tags`, then at most `more`. Raises UnreadableError."""
    found = children(element, SEQUENCE, len(tags) + more)
    if len(found) < len(tags):
        raise UnreadableError(f"damaged: expected {len(tags)} fields, found {len(found)}")
    for field, tag in zip(found, tags, strict=False):
        expect(field, tag)
    return found


def inner(element: Element, tag: int) -> Element:
    """The only element in an EXPLICIT [0], which must have `tag`. Raises UnreadableError."""
    found = children(element, CONTEXT_0, 1)
    if not found:
        raise UnreadableError(f"damaged: expected {_NAMES[tag]}, found nothing")
    return expect(found[0], tag)


def expect(element: Element, tag: int) -> Element:
    if element.tag != tag:
        found = _NAMES.get(element.tag, f"tag 0x{element.tag:02x}")
        raise UnreadableError(f"damaged: expected {_NAMES[tag]}, found {found}")
    if tag == OID:
        try:
            tlv.check_oid(element.value)
        except tlv.Malformed:
            raise UnreadableError("damaged: an invalid OBJECT IDENTIFIER") from None
    return element


def integer(element: Element) -> int:
    """The value of an INTEGER of at most eight bytes, which suffices for keystores. Raises UnreadableError."""
    expect(element, INTEGER)
    size = element.end - element.body
    if not 1 <= size <= 8:
        raise UnreadableError(f"an INTEGER of {size} bytes; at most 8 are read")
    return int.from_bytes(element.value, signed=True)


def write_set(*parts: bytes) -> bytes:
    """A SET OF, in the order of X.690 11.6."""
    return write(SET, *sorted(parts))


def write_integer(value: int) -> bytes:
    """An INTEGER; `value` must not be negative."""
    return write(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def oid(dotted: str) -> bytes:
    """The value of an OBJECT IDENTIFIER (X.690 8.19), without tag and length."""
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        encoded.extend(reversed(groups))
    return bytes(encoded)


def _read(data: bytes, start: int, end: int) -> Element:
    try:
        tag, body, after = tlv.read(data, start, end, shortest=False)
    except tlv.Malformed as error:
        raise UnreadableError(_TEXTS[error.problem].format(*error.numbers)) from None
    return Element(data, tag, start, body, after)
