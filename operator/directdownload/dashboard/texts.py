"""Texts and amounts on pages. Every text from the cluster is hostile: `shown` is the only way onto a page.

The templates' environment (`rendering`) applies `shown` to whatever they print, and escapes it for HTML after that.
"""

import datetime
import urllib.parse

from directdownload import escaping
from directdownload.cli.view import units
from directdownload.observe import logs

#: Characters of one text on a page.
LIMIT = 2000


def shown(text: str) -> str:
    r"""One printable line of at most `LIMIT` characters: credentials and queries of URLs masked, control and
    bidirectional characters as `\x1b` and `\u202e`."""
    return escaping.escaped(logs.mask(text[: 2 * LIMIT]), LIMIT)


def moment(time: datetime.datetime | str | None) -> str:
    """Date and time in UTC, as the API has them."""
    if not time:
        return units.UNKNOWN
    if isinstance(time, str):
        return time
    try:
        return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except OverflowError:
        # the first hours of year 1, or the last ones of 9999
        return time.isoformat()


def clock(time: datetime.datetime) -> str:
    """`12:03:05` on the clock of this machine."""
    return time.astimezone().strftime("%H:%M:%S")


def path(*parts: str) -> str:
    """The address of a page of ours: each part is one segment, whatever is in it."""
    return "/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)
