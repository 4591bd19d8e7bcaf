"""UTCTime and GeneralizedTime as Java's certificate parser reads them. Used by `java` and `extensions`."""

import re

from directdownload.resources.x509.der import GENERALIZED_TIME, UTC_TIME, Class, Element, Flaw

_UTC = re.compile(rb"\d\d(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:Z|[+-](\d\d)(\d\d))|Z)")
_GENERALIZED = re.compile(rb"\d{4}(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:[.,]\d+)?(?:Z|[+-](\d\d)(\d\d))|Z)")


def check(element: Element, tag: int | None = None) -> None:
    """Raises Flaw. Java accepts days that no calendar has, such as 30 February; not those beyond 31."""
    kinds = {UTC_TIME: _UTC, GENERALIZED_TIME: _GENERALIZED}
    pattern = kinds.get(element.tag if tag is None else tag)
    match = pattern.fullmatch(element.value) if pattern else None
    if match is None:
        raise Flaw(Class.VALIDITY, "a date that is not written as a UTCTime or GeneralizedTime")
    month, day, hour, minute, second, east_hours, east_minutes = (int(part or 0) for part in match.groups())
    possible = 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60
    if not possible or east_hours >= 24 or east_minutes >= 60:
        raise Flaw(Class.VALIDITY, "a date or time of day that cannot be")
