"""Objects by a part of their name. Pure."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common
from directdownload.dashboard.views.common import Frame, Link

#: Of each kind: a longer list helps nobody.
MOST_FOUND = 50
#: Characters of a question: no name is longer.
MOST_CHARACTERS = 320


class Found(NamedTuple):
    kind: str
    links: Sequence[Link]
    more: int


@dataclasses.dataclass(frozen=True)
class SearchPage:
    question: str
    frame: Frame
    found: Sequence[Found]

    @property
    def number(self) -> int:
        return sum(len(each.links) + each.more for each in self.found)


def page(picture: Picture, question: str) -> SearchPage:
    """Names that contain `question`, in any case; those that begin with it come first."""
    question = question.strip()[:MOST_CHARACTERS]
    sources: list[tuple[str, Iterable[str], Callable[[str], Link]]] = [
        ("Rollouts", (each.key for each in picture.rollouts()), common.rollout_link),
        ("Templates", (each.key for each in picture.templates), common.template_link),
        ("Hosts", (each.name for each in picture.hosts), common.host_link),
        ("Certificates", (each.name for each in picture.certificates), common.certificate_link),
    ]
    found = []
    for kind, names, link in sources:
        wanted = question.lower()
        hits = [name for name in names if wanted in name.lower()] if wanted else []
        hits.sort(key=lambda name: (not name.rpartition("/")[2].lower().startswith(wanted), name))
        if hits:
            found.append(Found(kind, tuple(map(link, hits[:MOST_FOUND])), max(0, len(hits) - MOST_FOUND)))
    return SearchPage(question, common.frame(picture), tuple(found))
