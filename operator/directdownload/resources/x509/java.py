"""Whether Java reads a certificate when it loads a keystore: as X509CertImpl of the JDKs 11 to 25 does.

One entry that Java cannot read makes KeyStore.load fail, and with it the whole keystore. Used by `resources.pem` and
`accepted`. Promises: `read` returns or raises a Flaw, whatever the bytes are; if the JDKs differ, a refusal by any of
them is a Flaw. The tests compare it with real ones. Java checks no signature here, and no dates against a clock.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from directdownload.resources.x509 import algorithms, der, extensions, keys, names, times
from directdownload.resources.x509.algorithms import Algorithm
from directdownload.resources.x509.der import Class, Element, Flaw
from directdownload.resources.x509.extensions import Extension
from directdownload.resources.x509.keys import PublicKey

V1, V3 = 0, 2
T = TypeVar("T")


class Certificate(NamedTuple):
    """As Java has it. `version` counts from 0; it need not be one of those that exist."""

    version: int
    serial_number: Element
    issuer: Element
    subject: Element
    signature_algorithm: Algorithm
    #: the one in the signed part
    signature_algorithm_encoded: bytes
    public_key: PublicKey
    has_unique_identifiers: bool = False
    extensions: Sequence[Extension] = ()
    #: Java treats absent parameters and NULL alike
    has_one_signature_algorithm: bool = True


def read(encoded: bytes) -> Certificate:
    """Raises Flaw. Java ignores bytes that follow the certificate."""
    try:
        outer = der.sequence(der.first(encoded), "a certificate")
        signed, algorithm, signature = outer.next(), outer.next(), outer.next()
        if outer or signed.tag != der.SEQUENCE:
            raise Flaw(Class.OUTLINE, "")
    except Flaw as flaw:
        if flaw.kind is Class.INDEFINITE:
            raise
        raise Flaw(Class.OUTLINE, "it is something else than a certificate, or a part of one") from None
    outer_algorithm = _part("its signature algorithm", Class.SIGNATURE_ALGORITHM, algorithms.read, algorithm)
    _part("its signature", Class.ENCODING, der.bit_string, signature)
    found = _signed(signed)
    if found.signature_algorithm != outer_algorithm:
        raise Flaw(Class.TWO_ALGORITHMS, "it names two different algorithms for its signature")
    return found._replace(has_one_signature_algorithm=found.signature_algorithm_encoded == algorithm.encoded)


def _part(what: str, kind: Class, reading: Callable[[Element], T], element: Element) -> T:
    """The content of `element`. A flaw of the encoding alone becomes one of this class."""
    try:
        return reading(element)
    except Flaw as flaw:
        raise Flaw(kind if flaw.kind is Class.ENCODING else flaw.kind, f"{what}: {flaw.text}") from None


def _signed(element: Element) -> Certificate:
    fields = der.Reader(element.value)

    def part(what: str, kind: Class, reading: Callable[[Element], T]) -> T:
        try:
            found = fields.next()
        except Flaw as flaw:
            raise Flaw(flaw.kind, f"{what}: {flaw.text}") from None
        return _part(what, kind, reading, found)

    version, serial_number = V1, part("its serial number", Class.SERIAL_NUMBER, _itself)
    if serial_number.is_context(0):
        version = _part("its version", Class.VERSION, _version, serial_number)
        serial_number = part("its serial number", Class.SERIAL_NUMBER, _itself)
    _part("its serial number", Class.SERIAL_NUMBER, der.integer, serial_number)
    encoded, algorithm = part(
        "its signature algorithm", Class.SIGNATURE_ALGORITHM, lambda found: (found.encoded, algorithms.read(found))
    )
    issuer, count = part("its issuer", Class.NAME, lambda found: (found, names.read(found)))
    if not count:
        raise Flaw(Class.ISSUER_EMPTY, "its issuer is empty: give the authority a subject, such as a common name")
    part("its validity", Class.VALIDITY, _check_validity)
    subject, count = part("its subject", Class.NAME, lambda found: (found, names.read(found)))
    if not count and version == V1:
        raise Flaw(Class.SUBJECT_EMPTY, "its subject is empty, which a certificate of version 1 may not have")
    key = part("its public key", Class.PUBLIC_KEY, keys.read)
    certificate = Certificate(version, serial_number, issuer, subject, algorithm, encoded, key)
    if not fields:
        return certificate
    if version == V1:
        raise Flaw(Class.VERSION_FIELDS, "it is of version 1 and has fields that only later versions have")
    last = part("its fields behind the key", Class.ENCODING, _itself)
    for number in (1, 2):
        if last.is_context(number):
            _part("its unique identifier", Class.UNIQUE_IDENTIFIER, _check_unique_identifier, last)
            certificate = certificate._replace(has_unique_identifiers=True)
            if not fields:
                return certificate
            last = part("its fields behind the key", Class.ENCODING, _itself)
    if version != V3:
        raise Flaw(Class.VERSION_FIELDS, f"it is of version {version + 1} and has extensions, which only version 3 has")
    found: list[Extension] = []
    if last.is_context(3, constructed=True):
        found = _part("its extensions", Class.EXTENSIONS, lambda outer: extensions.read(der.first(outer.value)), last)
    if not count and not any(each.critical for each in extensions.alternative_names(found)):
        raise Flaw(
            Class.SUBJECT_EMPTY,
            "its subject is empty and it has no critical subjectAltName: give it a subject, such as a common name",
        )
    return certificate._replace(extensions=found)


def _itself(element: Element) -> Element:
    return element


def _version(element: Element) -> int:
    """Java skips a primitive [0]."""
    return der.small(der.first(element.value)) if element.is_context(0, constructed=True) else V1


def _check_validity(element: Element) -> None:
    fields = der.sequence(element, "two dates").all()
    if len(fields) != 2:
        raise Flaw(Class.VALIDITY, f"{len(fields)} dates; expected two")
    for field in fields:
        times.check(field)


def _check_unique_identifier(element: Element) -> None:
    der.bit_string(element, implicit=True)
