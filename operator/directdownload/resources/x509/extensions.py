"""Extensions as Java's certificate parser reads them. Used by `java` and `accepted`.

Java reads the extensions that it knows. If it cannot read a critical one, it refuses the certificate; if it cannot read
another one, it ignores it. It keeps unknown ones as they are, critical or not.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from directdownload.resources.x509 import der, names, times
from directdownload.resources.x509.der import Class, Element, Flaw, Reader

SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"


class Extension(NamedTuple):
    oid: str
    critical: bool
    value: bytes


def read(element: Element) -> list[Extension]:
    """The elements of an Extensions; those that Java keeps and knows are checked. Raises Flaw."""
    found = [_extension(each) for each in der.sequence(element, "the extensions").all()]
    kept = set()
    for extension in found:
        try:
            if (check := KNOWN.get(extension.oid)) is not None:
                check(extension)
        except Flaw as flaw:
            if extension.critical:
                kind = Class.CRITICAL_EXTENSION if flaw.kind in (Class.ENCODING, Class.VALIDITY) else flaw.kind
                raise Flaw(kind, f"its critical extension {_name(extension)} has {flaw.text}") from None
            continue
        if extension.oid in kept:
            raise Flaw(Class.EXTENSION_TWICE, f"its extension {_name(extension)} is there twice")
        kept.add(extension.oid)
    return found


def alternative_names(found: list[Extension]) -> list[Extension]:
    """The subject alternative names that Java can read."""
    return [each for each in found if each.oid == SUBJECT_ALTERNATIVE_NAME and _is_readable(each)]


def _is_readable(extension: Extension) -> bool:
    try:
        KNOWN[extension.oid](extension)
    except Flaw:
        return False
    return True


def _extension(element: Element) -> Extension:
    # Java accepts a SET as well
    fields = der.sequence(element, "an extension", der.SET if element.tag == der.SET else der.SEQUENCE)
    oid, value = der.oid(fields.next()), fields.next()
    critical = value.tag == der.BOOLEAN and der.boolean(value)
    if value.tag == der.BOOLEAN:
        value = fields.next()
    return Extension(oid, critical, der.octet_string(value))


def _name(extension: Extension) -> str:
    return _NAMES.get(extension.oid, extension.oid[:100])


def _sequence(check: Callable[[Element], object]) -> Callable[[Extension], None]:
    """For an extension that is a list of one kind of elements."""

    def checked(extension: Extension) -> None:
        for each in der.sequence(der.only(extension.value), "a list").all():
            check(each)

    return checked


def _whole(check: Callable[[Element], object]) -> Callable[[Extension], None]:
    """For an extension that is one element."""

    def checked(extension: Extension) -> None:
        check(der.only(extension.value))

    return checked


def _general_names(element: Element) -> None:
    names.general_names(element, frozenset(KNOWN))


def _general_name(element: Element, *, constraint: bool = False) -> None:
    names.general_name(element, frozenset(KNOWN), constraint=constraint)


def _key_usage(extension: Extension) -> None:
    value = extension.value
    # some have an OCTET STRING around it
    if value[:1] == bytes([der.OCTET_STRING]):
        value = der.octet_string(der.only(value))
    der.bit_string(der.only(value))


def _private_key_usage(extension: Extension) -> None:
    seen = set()
    for field in der.sequence(der.first(extension.value), "a period").all():
        number = next((number for number in (0, 1) if field.is_context(number, constructed=False)), None)
        if number is None or number in seen:
            raise Flaw(Class.CRITICAL_EXTENSION, "a field that it cannot have")
        seen.add(number)
        times.check(field, der.GENERALIZED_TIME)


def _basic_constraints(element: Element) -> None:
    fields = der.sequence(element, "a list")
    if not fields or (authority := fields.next()).tag != der.BOOLEAN:
        return
    der.boolean(authority)
    if fields:
        der.small(fields.next())


def _authority_key(element: Element) -> None:
    seen = set()
    for field in der.sequence(element, "a list").all():
        number = field.tag & 0x1F
        if number > 2 or not field.is_context(number, constructed=number == 1) or number in seen:
            raise Flaw(Class.CRITICAL_EXTENSION, "a field that it cannot have")
        seen.add(number)
        if number == 1:
            _general_names(der.retagged(field, der.SEQUENCE))
        elif number == 2:
            der.integer(der.retagged(field, der.INTEGER))


def _name_constraints(element: Element) -> None:
    seen = set()
    for field in der.sequence(element, "a list").all():
        number = field.tag & 0x1F
        if number > 1 or not field.is_context(number, constructed=True) or number in seen:
            raise Flaw(Class.CRITICAL_EXTENSION, "a field that it cannot have")
        seen.add(number)
        for subtree in Reader(field.value).all():
            parts = der.sequence(subtree, "a name constraint")
            _general_name(parts.next(), constraint=True)
            for bound in parts.all():
                if not bound.is_context(0, constructed=False) and not bound.is_context(1, constructed=False):
                    raise Flaw(Class.CRITICAL_EXTENSION, "a name constraint with a field that it cannot have")
                der.small(der.retagged(bound, der.INTEGER))


def _policy_constraints(element: Element) -> None:
    seen = set()
    for field in der.sequence(element, "a list").all():
        number = field.tag & 0x1F
        if number > 1 or not field.is_context(number, constructed=False) or number in seen:
            raise Flaw(Class.CRITICAL_EXTENSION, "a field that it cannot have")
        # Java uses -1 for an absent field
        if der.small(der.retagged(field, der.INTEGER)) != -1:
            seen.add(number)


def _policy_map(element: Element) -> None:
    fields = der.sequence(element, "a pair of policies")
    der.oid(fields.next())
    der.oid(fields.next())


def _policy(element: Element) -> None:
    fields = der.sequence(element, "a policy")
    der.oid(fields.next())
    if not fields:
        return
    qualifiers = der.sequence(fields.next(), "a list").all()
    if not qualifiers:
        raise Flaw(Class.CRITICAL_EXTENSION, "a policy with an empty list of qualifiers")
    for qualifier in qualifiers:
        der.oid(der.sequence(qualifier, "a policy qualifier").next())


def _inhibit_any_policy(extension: Extension) -> None:
    if not extension.critical:
        raise Flaw(Class.CRITICAL_EXTENSION, "no criticality, which Java expects")
    if der.small(der.only(extension.value)) < -1:
        raise Flaw(Class.CRITICAL_EXTENSION, "a negative number")


def _distribution_point(element: Element) -> None:
    seen = set()
    for field in der.sequence(element, "a distribution point").all():
        number = field.tag & 0x1F
        if number > 2 or not field.is_context(number, constructed=number != 1) or number in seen:
            raise Flaw(Class.CRITICAL_EXTENSION, "a distribution point with a field that it cannot have")
        seen.add(number)
        if number == 0:
            _distribution_point_name(der.first(field.value))
        elif number == 1:
            der.bit_string(field, implicit=True)
        else:
            _general_names(der.retagged(field, der.SEQUENCE))
    if not seen & {0, 2}:
        raise Flaw(Class.CRITICAL_EXTENSION, "a distribution point without a name")


def _distribution_point_name(element: Element) -> None:
    if element.is_context(0, constructed=True):
        _general_names(der.retagged(element, der.SEQUENCE))
    elif element.is_context(1, constructed=True):
        names.relative(der.retagged(element, der.SET))
    else:
        raise Flaw(Class.CRITICAL_EXTENSION, "a distribution point with a name of a type that does not exist")


def _issuing_distribution_point(element: Element) -> None:
    for field in der.sequence(element, "a list").all():
        if field.is_context(0, constructed=True):
            _distribution_point_name(der.first(field.value))
        elif field.is_context(3, constructed=False):
            der.bit_string(field, implicit=True)
        elif any(field.is_context(number, constructed=False) for number in (1, 2, 4, 5)):
            der.boolean(der.retagged(field, der.BOOLEAN))
        else:
            raise Flaw(Class.CRITICAL_EXTENSION, "a field that it cannot have")


def _access(element: Element) -> None:
    fields = Reader(element.value)
    der.oid(fields.next())
    _general_name(fields.next())


_distribution_points = _sequence(_distribution_point)

#: By the object identifiers that Java knows (sun.security.x509.OIDMap).
KNOWN: Mapping[str, Callable[[Extension], None]] = {
    "2.5.29.14": _whole(der.octet_string),
    "2.5.29.15": _key_usage,
    "2.5.29.16": _private_key_usage,
    SUBJECT_ALTERNATIVE_NAME: _whole(_general_names),
    "2.5.29.18": _whole(_general_names),
    "2.5.29.19": _whole(_basic_constraints),
    "2.5.29.20": _whole(der.integer),
    "2.5.29.21": _whole(lambda element: der.small(element, der.ENUMERATED)),
    "2.5.29.27": _whole(der.integer),
    "2.5.29.28": _whole(_issuing_distribution_point),
    "2.5.29.29": _whole(_general_names),
    "2.5.29.30": _whole(_name_constraints),
    "2.5.29.31": _distribution_points,
    "2.5.29.32": _sequence(_policy),
    "2.5.29.33": _sequence(_policy_map),
    "2.5.29.35": _whole(_authority_key),
    "2.5.29.36": _whole(_policy_constraints),
    "2.5.29.37": _sequence(der.oid),
    "2.5.29.46": _distribution_points,
    "2.5.29.54": _inhibit_any_policy,
    "1.3.6.1.5.5.7.1.1": _sequence(_access),
    "1.3.6.1.5.5.7.1.11": _sequence(_access),
    "1.3.6.1.5.5.7.48.1.5": lambda _: None,
    "2.16.840.1.113730.1.1": _whole(der.bit_string),
}
_NAMES = {
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.15": "keyUsage",
    "2.5.29.16": "privateKeyUsagePeriod",
    "2.5.29.17": "subjectAltName",
    "2.5.29.18": "issuerAltName",
    "2.5.29.19": "basicConstraints",
    "2.5.29.28": "issuingDistributionPoint",
    "2.5.29.29": "certificateIssuer",
    "2.5.29.30": "nameConstraints",
    "2.5.29.31": "cRLDistributionPoints",
    "2.5.29.32": "certificatePolicies",
    "2.5.29.33": "policyMappings",
    "2.5.29.35": "authorityKeyIdentifier",
    "2.5.29.36": "policyConstraints",
    "2.5.29.37": "extKeyUsage",
    "2.5.29.46": "freshestCRL",
    "2.5.29.54": "inhibitAnyPolicy",
    "1.3.6.1.5.5.7.1.1": "authorityInfoAccess",
    "1.3.6.1.5.5.7.1.11": "subjectInfoAccess",
    "2.16.840.1.113730.1.1": "nsCertType",
}
