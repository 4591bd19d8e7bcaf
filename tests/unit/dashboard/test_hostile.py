"""Every text from the cluster is shown as text, and no secret of a URL is shown."""

import copy
import html.parser
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.dashboard import support
from tests.world import dashboard as fleet
from tests.world.kube import Object

from directdownload.cluster import kinds
from directdownload.cluster.kinds import Resource
from directdownload.dashboard import live, texts, watches
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.rendering import Renderer
from directdownload.dashboard.views import hosts

HOSTILE = '<script>alert(1)</script>"\' onmouseover="x" javascript:alert(2) \u202e\u2066\x1b[31m\x07</textarea>{{7*7}}'
SECRET = "S3CR3T"
#: What an object is found by, and what the API server admits of it: DNS names.
NAMES = frozenset({"name", "namespace", "zone", "pool", "host", "uid", "nodeName", "apiVersion", "kind"})
DOCUMENTS: list[tuple[Resource, Object]] = [
    (kinds.ZONES, fleet.zone()),
    *((kinds.HOSTS, fleet.host(number)) for number in range(3)),
    (kinds.STORAGE_POOLS, fleet.pool()),
    (
        kinds.TEMPLATES,
        fleet.template(displayText="x", mirrors=["https://a.example.org/x"], checksum="x", zones=["zone-1"]),
    ),
    (
        kinds.TEMPLATE_DEPLOYMENTS,
        fleet.deployment(
            status={
                "waiting": [{"reason": "HostDown", "count": 1, "hosts": ["kvm-1"], "message": "words"}],
                "failures": [{"host": "kvm-1", "pool": "local", "reason": "TooLarge", "message": "words"}],
            }
        ),
    ),
    (kinds.TEMPLATE_PLACEMENTS, fleet.copy(0, "Failed")),
    (kinds.TEMPLATE_PLACEMENTS, fleet.copy(1, "Downloading")),
    (kinds.TEMPLATE_PLACEMENTS, fleet.copy(2, "Pending", nextAttemptTime=fleet.TIME)),
    (kinds.CERTIFICATES, fleet.certificate(proved=1)),
]
EVENTS = hosts.events_of([{"type": HOSTILE, "reason": HOSTILE, "message": HOSTILE, "lastTimestamp": HOSTILE}])


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all texts that are not names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        if isinstance(each, str) and key not in NAMES:
            yield (*path, key)
        yield from _leaves(each, (*path, key))


def _planted(kind: Resource, document: Object) -> tuple[Object, int]:
    """`document` with the hostile text wherever it is read, and the number of places."""
    planted, number = copy.deepcopy(document), 0
    for path in _leaves(document):
        trial = copy.deepcopy(planted)
        target: Any = trial
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = HOSTILE
        try:
            watches.PROJECTIONS[kind](trial)
        except Exception:  # noqa: S112
            # a time, a number, a word of a list: no text
            continue
        planted, number = trial, number + 1
    return planted, number


@pytest.fixture(scope="module")
def picture() -> Picture:
    found, places = Picture(), 0
    for kind, document in DOCUMENTS:
        planted, number = _planted(kind, document)
        support.put(found, kind, planted)
        places += number
    assert places > 100
    return support.complete(found)


class Read(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("target", support.PAGES)
def test_hostile_text_is_shown_as_text(picture: Picture, target: str) -> None:
    text = support.document(picture, target, EVENTS)
    for raw in ("<script>alert", "\u202e", "\u2066", "\x1b", "\x07"):
        assert raw not in text, raw
    reader = Read()
    reader.feed(text)
    assert [attributes for tag, attributes in reader.tags if tag == "script"] == [
        {"src": "/static/live.js", "defer": None}
    ]
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#", "?")), (tag, attributes)
            assert not (attributes.get(name) or "").startswith("//")


def test_the_hostile_text_was_there(picture: Picture) -> None:
    """Or else the test above says nothing."""
    for target in ("/", support.ROLLOUT, f"/hosts/{fleet.host_name(0)}", "/certificates/my-ca"):
        text = support.document(picture, target, EVENTS)
        assert "&lt;script&gt;alert(1)" in text
        assert r"\u202e" in text
        assert r"\x1b[31m" in text
        assert "{{7*7}}" in text


def test_live_changes_are_as_harmless_as_pages(picture: Picture) -> None:
    page = support.page(picture, support.ROLLOUT)
    channel = live.Channel("run")
    channel.update(Renderer().parts(page), page.map)
    event = channel.event("")
    for raw in ("<script>alert", "\u202e", "\x1b"):
        assert raw not in event
    assert event.count("\n\n") == 1


def test_groups_and_cells_of_a_map_are_shown_as_text() -> None:
    """Kubernetes admits no such label and no such name: the page does not rest on that."""
    picture = Picture()
    for number in range(2):
        host = fleet.host(number)
        host["metadata"]["labels"] = {fleet.RACK: f"{HOSTILE}{number}"}
        host["metadata"]["name"] = f"{HOSTILE}{number}"
        support.put(picture, kinds.HOSTS, host)
    text = support.document(support.complete(picture), "/hosts")
    for raw in ("<script>alert", 'onmouseover="', "\u202e", "\x1b"):
        assert raw not in text
    assert text.count("<h3>&lt;script&gt;") == 2
    assert text.count('data-host="&lt;script&gt;') == 2


def test_a_hostile_question_is_shown_as_text() -> None:
    text = support.document(support.pictured(), "/search?q=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE")
    assert "<script>alert" not in text
    assert "\u202e" not in text


def test_addresses_stay_on_this_server_whatever_the_name() -> None:
    assert texts.path("hosts", "//evil.example/x?y#z") == "/hosts/%2F%2Fevil.example%2Fx%3Fy%23z"
    assert texts.path("hosts", "javascript:alert(1)").startswith("/hosts/javascript%3A")


@pytest.mark.parametrize("target", support.PAGES)
def test_no_secret_of_a_url_is_shown(target: str) -> None:
    url = f"https://user:{SECRET}@images.example.org/x.qcow2?signature={SECRET}"
    message = f"GET {url}: 403, Authorization: Bearer {SECRET}{SECRET}, password={SECRET}"
    picture = support.pictured([fleet.copy(0, "Failed", message=message)])
    template = fleet.template(url=url, mirrors=[url], displayText=f"from {url}")
    template["status"]["conditions"][0]["message"] = message
    support.put(picture, kinds.TEMPLATES, template, 2)
    failures = [{"host": "kvm-1", "pool": "local", "reason": "TooLarge", "message": message}]
    support.put(picture, kinds.TEMPLATE_DEPLOYMENTS, fleet.deployment(status={"failures": failures}), 2)
    events = hosts.events_of([{"message": message}])
    assert SECRET not in support.document(picture, target, events)
