"""Algorithm identifiers and their parameters as Java's certificate parser reads them. Used by `java` and `keys`.

Java reads the parameters of the algorithms that it knows, wherever they are; it keeps unknown ones as they are.
"""

from collections.abc import Callable
from typing import NamedTuple

from directdownload.resources.x509 import der
from directdownload.resources.x509.der import Class, Element, Flaw, Reader

RSA, PSS, EC = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10", "1.2.840.10045.2.1"
DSA = frozenset({"1.2.840.10040.4.1", "1.3.14.3.2.12"})
DIFFIE_HELLMAN = frozenset({"1.2.840.113549.1.3.1", "1.2.840.10046.2.1"})
_MGF1, _LABEL = "1.2.840.113549.1.1.8", "1.2.840.113549.1.1.9"
#: The hash functions that every JDK knows for MGF1: SHA-1 and the family of SHA-2.
_MASK_HASHES = frozenset({"1.3.14.3.2.26", *(f"2.16.840.1.101.3.4.2.{arc}" for arc in range(1, 7))})
#: Named curves that the JDKs 11 to 25 read, by the bytes of a coordinate.
CURVES = {
    **{f"1.2.840.10045.3.0.{arc}": size for arc, size in {5: 24, 6: 24, 7: 24, 11: 30, 12: 30, 13: 30, 18: 45}.items()},
    **{f"1.2.840.10045.3.1.{arc}": size for arc, size in {1: 24, 2: 24, 3: 24, 4: 30, 5: 30, 6: 30, 7: 32}.items()},
    **{
        f"1.3.132.0.{arc}": size
        for arc, size in {1: 21, 2: 21, 3: 30, 4: 15, 5: 15, 6: 14, 7: 14, 8: 20, 9: 20}.items()
    },
    **{f"1.3.132.0.{arc}": size for arc, size in {10: 32, 15: 21, 16: 36, 17: 36, 22: 17, 23: 17, 24: 25}.items()},
    **{f"1.3.132.0.{arc}": size for arc, size in {25: 25, 26: 30, 27: 30, 28: 16, 29: 16, 30: 20, 31: 24}.items()},
    **{
        f"1.3.132.0.{arc}": size
        for arc, size in {32: 28, 33: 28, 34: 48, 35: 66, 36: 52, 37: 52, 38: 72, 39: 72}.items()
    },
    **{f"1.3.36.3.3.2.8.1.1.{arc}": size for arc, size in {1: 20, 3: 24, 5: 28, 7: 32, 9: 40, 11: 48, 13: 64}.items()},
    "1.2.840.10045.3.0.20": 54,
}


class Algorithm(NamedTuple):
    oid: str
    #: none: they are absent or NULL, which Java treats alike
    parameters: bytes | None


def read(element: Element) -> Algorithm:
    """Raises Flaw."""
    fields = der.sequence(element, "an algorithm")
    found = der.oid(fields.next())
    parameters = fields.next() if fields else None
    if fields:
        raise Flaw(Class.SIGNATURE_ALGORITHM, "an algorithm has more than parameters")
    if parameters is None or parameters.tag == der.NULL:
        if parameters is not None and parameters.value:
            raise Flaw(Class.SIGNATURE_ALGORITHM, "the parameters of an algorithm are a NULL with content")
        return Algorithm(found, None)
    if (check := _PARAMETERS.get(found)) is not None:
        check(parameters)
    return Algorithm(found, parameters.encoded)


def curve(parameters: Element) -> str:
    if parameters.tag != der.OID:
        raise Flaw(Class.EC_PARAMETERS, "an EC key with parameters of its own; Java knows named curves only")
    found = der.oid(parameters)
    if found not in CURVES:
        raise Flaw(Class.EC_PARAMETERS, f"an EC key of the curve {found[:100]}, which Java does not know")
    return found


def _dsa(element: Element) -> None:
    fields = der.sequence(element, "the parameters of a DSA key").all()
    if len(fields) != 3:
        raise Flaw(Class.PUBLIC_KEY, f"a DSA key with {len(fields)} parameters; Java knows 3")
    for field in fields:
        der.integer(field)


def _diffie_hellman(element: Element) -> None:
    fields = der.sequence(element, "the parameters of a Diffie-Hellman key").all()
    if not 2 <= len(fields) <= 3:
        raise Flaw(Class.PUBLIC_KEY, f"a Diffie-Hellman key with {len(fields)} parameters; Java knows 2 or 3")
    for field in fields[:2]:
        der.integer(field)
    for field in fields[2:]:
        der.small(field)


def _pss(element: Element) -> None:
    for field in der.sequence(element, "RSASSA-PSS parameters").all():
        inner = Reader(field.value)
        if field.is_context(0):
            read(inner.next())
        elif field.is_context(1):
            _check_mask(inner.next())
        elif field.is_context(2):
            if der.small(inner.next()) < 0:
                raise Flaw(Class.PSS_PARAMETERS, "RSASSA-PSS with a salt of negative length")
        elif field.is_context(3):
            if (trailer := der.small(inner.next())) != 1:
                raise Flaw(Class.PSS_PARAMETERS, f"RSASSA-PSS with the trailer field {trailer}; Java knows 1 only")
        else:
            raise Flaw(Class.PSS_PARAMETERS, "RSASSA-PSS with a parameter that does not exist")


def _check_mask(element: Element) -> None:
    mask = read(element)
    if mask.oid != _MGF1 or mask.parameters is None:
        raise Flaw(Class.PSS_PARAMETERS, "another mask than MGF1 with a hash function")
    if read(der.only(mask.parameters)).oid not in _MASK_HASHES:
        raise Flaw(Class.PSS_PARAMETERS, "MGF1 with a hash function that Java does not know")


def _oaep(element: Element) -> None:
    checks: list[Callable[[Element], object]] = [read, _check_mask, _check_label]
    at = -1
    for field in der.sequence(element, "RSAES-OAEP parameters").all():
        number = field.tag & 0x1F
        if not field.is_context(number) or not at < number < len(checks):
            raise Flaw(Class.ENCRYPTION, "RSAES-OAEP with a parameter that does not exist")
        checks[number](der.only(field.value))
        at = number


def _check_label(element: Element) -> None:
    label = read(element)
    if label.oid != _LABEL or label.parameters is None:
        raise Flaw(Class.ENCRYPTION, "RSAES-OAEP with a label that Java does not know")
    der.octet_string(der.only(label.parameters))


def _iv(size: int) -> Callable[[Element], None]:
    def check(element: Element) -> None:
        if element.tag != der.OCTET_STRING or len(element.value) != size:
            raise Flaw(Class.ENCRYPTION, f"an algorithm for encryption without its {size} bytes")

    return check


def _password(element: Element) -> None:
    fields = der.sequence(element, "the parameters of an encryption with a password").all()
    if len(fields) != 2 or fields[0].tag != der.OCTET_STRING:
        raise Flaw(Class.ENCRYPTION, "an encryption with a password without salt and count")
    der.small(fields[1])


def _password_scheme(_: Element) -> None:
    """PBES2 is read in many ways; a certificate never has it."""
    raise Flaw(Class.ENCRYPTION, "an algorithm for encryption with a password")


_PARAMETERS: dict[str, Callable[[Element], object]] = {
    PSS: _pss,
    EC: curve,
    **dict.fromkeys(DSA, _dsa),
    **dict.fromkeys(DIFFIE_HELLMAN, _diffie_hellman),
    "1.2.840.113549.1.1.7": _oaep,
    "2.16.840.1.101.3.4.1": _iv(16),
    "1.3.14.3.2.17": _iv(8),
    "1.3.6.1.4.1.3029.1.1.2": _iv(8),
    "1.2.840.113549.1.9.16.3.18": _iv(12),
    **{f"1.2.840.113549.1.{arcs}": _password for arcs in ("5.3", "12.1.1", "12.1.2", "12.1.3", "12.1.5", "12.1.6")},
    "1.2.840.113549.1.5.13": _password_scheme,
}
