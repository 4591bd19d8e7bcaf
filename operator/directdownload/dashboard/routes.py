"""Which page an address shows, from the picture alone. Pure. `server` and `live` both ask here."""

import dataclasses
import datetime
import urllib.parse
from collections.abc import Mapping
from typing import Any

from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import certificates, fleet, hosts, rollouts, search, templates
from directdownload.dashboard.views.heatmap import HeatMap
from directdownload.dashboard.views.hosts import Events

#: Characters of an address: no name makes a longer one.
MOST_CHARACTERS = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """`path` as in the request, `query` with the first value of each name."""

    path: str
    query: Mapping[str, str]

    @classmethod
    def parse(cls, target: str) -> "Address":
        path, _, query = target[:MOST_CHARACTERS].partition("?")
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=10)
        return cls(path, dict(reversed(pairs)))

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(map(urllib.parse.unquote, self.path.strip("/").split("/"))) if self.path != "/" else ()

    @property
    def host(self) -> str | None:
        """The host whose page it is."""
        match self.segments:
            case ("hosts", name):
                return name
        return None

    @property
    def text(self) -> str:
        """The same page has the same text."""
        kept = {name: self.query[name] for name in ("by", "q") if name in self.query}
        return f"{self.path}?{urllib.parse.urlencode(kept)}" if kept else self.path


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """`template` in `pages/`; `content` is one of the views' pages."""

    template: str
    #: the entry of the navigation
    section: str
    title: str
    content: Any

    @property
    def map(self) -> HeatMap | None:
        return getattr(self.content, "map", None)


def resolve(picture: Picture, address: Address, now: datetime.datetime, events: Events) -> Page | None:
    """None: there is no such page, or no such object that the user may see."""
    by = address.query.get("by")
    found: Any
    match address.segments:
        case ():
            return Page("fleet", "fleet", "Fleet", fleet.page(picture, now))
        case ("rollouts",):
            return Page("rollouts", "rollouts", "Rollouts", rollouts.listing(picture))
        case ("templates",):
            return Page("templates", "templates", "Templates", templates.listing(picture))
        case ("hosts",):
            return Page("hosts", "hosts", "Hosts", hosts.listing(picture, by))
        case ("certificates",):
            return Page("certificates", "certificates", "Certificates", certificates.listing(picture, now))
        case ("search",):
            return Page("search", "search", "Search", search.page(picture, address.query.get("q", "")))
        case ("rollouts", namespace, name):
            found = rollouts.page(picture, f"{namespace}/{name}", by, now)
            return Page("rollout", "rollouts", f"Rollout {name}", found) if found else None
        case ("templates", namespace, name):
            found = templates.page(picture, f"{namespace}/{name}")
            return Page("template", "templates", f"Template {name}", found) if found else None
        case ("hosts", name):
            found = hosts.page(picture, name, events)
            return Page("host", "hosts", f"Host {name}", found) if found else None
        case ("certificates", name):
            found = certificates.page(picture, name, by, now)
            return Page("certificate", "certificates", f"Certificate {name}", found) if found else None
    return None
