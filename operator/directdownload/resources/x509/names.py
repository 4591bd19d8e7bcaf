"""X.500 names and general names as Java's certificate parser reads them. Used by `java` and `extensions`."""

from directdownload.resources.x509 import der, uris
from directdownload.resources.x509.der import Class, Element, Flaw, Reader

_OTHER, _EMAIL, _DNS, _X400, _DIRECTORY, _EDI, _URI, _IP, _OID = range(9)
_STRINGS = frozenset({0x0C, 0x13, 0x14, 0x16, 0x1B, 0x1C, 0x1E})
_ADDRESS_SIZES = frozenset({4, 8, 16, 32})
_CONSTRUCTED = frozenset({_OTHER, _X400, _DIRECTORY, _EDI})


def read(element: Element) -> int:
    """The number of attributes of an X.500 name: without any it is empty, however many parts it has. Raises Flaw."""
    return _count(der.sequence(element, "a name").all())


def relative(element: Element) -> int:
    """The number of attributes of one part of a name."""
    attributes = der.sequence(element, "a part of a name", der.SET).all()
    for attribute in attributes:
        fields = der.sequence(attribute, "an attribute of a name")
        der.oid(fields.next())
        value = fields.next()
        if fields:
            raise Flaw(Class.NAME, "an attribute of a name has more than a value")
        if value.tag == der.BMP_STRING and _has_surrogates(value.value):
            raise Flaw(Class.NAME, "a name has characters beyond U+FFFF in a BMPString")
    return len(attributes)


def general_names(element: Element, foreign: frozenset[str]) -> None:
    """A GeneralNames, which must have at least one. `foreign`: see `general_name`."""
    names = der.sequence(element, "a list of names").all()
    if not names:
        raise Flaw(Class.CRITICAL_NAME, "a list of names with no name")
    for name in names:
        general_name(name, foreign)


def general_name(element: Element, foreign: frozenset[str], *, constraint: bool = False) -> None:
    """A GeneralName. `foreign`: types that no otherName may have, as Java maps them to classes of its own."""
    number = element.tag & 0x1F
    if not element.is_context(number, constructed=number in _CONSTRUCTED) or number > _OID:
        raise Flaw(Class.CRITICAL_NAME, f"a name of a type that does not exist (tag 0x{element.tag:02x})")
    text = element.value.decode("ascii", "replace")
    match number:
        case 0:
            fields = Reader(element.value)
            kind = der.oid(fields.next())
            if not fields.next().is_context(0, constructed=True) or kind in foreign:
                raise Flaw(Class.CRITICAL_NAME, f"an otherName of the type {kind} with a value that it cannot have")
        case 1:
            domain = text.partition("@")[2] if "@" in text else text
            if domain in ("", "."):
                raise Flaw(Class.CRITICAL_NAME, "an e-mail address without a domain")
        case 4:
            _directory(element.value)
        case 5:
            _party(element.value)
        case 6:
            (uris.check_constraint if constraint else uris.check)(text)
        case 7:
            if len(element.value) not in _ADDRESS_SIZES:
                raise Flaw(Class.CRITICAL_NAME, f"an IP address of {len(element.value)} bytes")
        case 8:
            der.oid(der.retagged(element, der.OID))


def _count(parts: list[Element]) -> int:
    return sum(relative(part) for part in parts)


def _directory(content: bytes) -> None:
    """Java also accepts the parts of a name alone, without the SEQUENCE around them."""
    try:
        parts = der.sequence(der.first(content), "a name").all()
    except Flaw:
        parts = Reader(content).all()
    _count(parts)


def _party(content: bytes) -> None:
    """An EDIPartyName; Java expects the string within a primitive field."""
    fields = Reader(content).all()
    seen = {0: False, 1: False}
    if not 1 <= len(fields) <= 2:
        raise Flaw(Class.CRITICAL_NAME, "an ediPartyName of more than two fields")
    for found in fields:
        field = found
        for number in seen:
            if field.is_context(number, constructed=False):
                if seen[number]:
                    raise Flaw(Class.CRITICAL_NAME, "an ediPartyName with a field that is there twice")
                field = der.first(field.value)
                seen[number] = field.tag in _STRINGS
    if not seen[1]:
        raise Flaw(Class.CRITICAL_NAME, "an ediPartyName without a party")


def _has_surrogates(value: bytes) -> bool:
    """A pair of them, as Java decodes it: a high one takes the next unit with it, whatever that is."""
    units = [int.from_bytes(value[at : at + 2]) for at in range(0, len(value) - 1, 2)]
    at = 0
    while at < len(units) - 1:
        if 0xD800 <= units[at] < 0xDC00:
            if 0xDC00 <= units[at + 1] < 0xE000:
                return True
            at += 1
        at += 1
    return False
