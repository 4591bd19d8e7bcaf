"""RAW over HTTP: what its server calls a page, and sizes that no disk has."""

import pathlib
import threading

import pytest
from tests.unit.download.support import content, fetch, fetch_error, leftovers, make_request, sha256
from tests.world.http import HostileServer, answer

from directdownload.download import probe
from directdownload.download.errors import SourceError
from directdownload.download.guard import Guard
from directdownload.resources.reasons import Reason

DATA = content(1024 * 1024)
HTML = "Content-Type: text/html; charset=utf-8\r\n"


def serving(data: bytes, headers: str = "") -> HostileServer:
    return HostileServer(lambda connection, _request, _number: answer(connection, data, headers=headers))


def test_a_page_by_its_media_type_is_refused(pool: pathlib.Path) -> None:
    with serving(DATA, HTML) as server:
        error = fetch_error(make_request(pool, server.url(), image_format="RAW"))
    assert (error.reason, error.permanent) == (Reason.FORMAT_MISMATCH, True)
    assert "seems to be a web page, expected RAW" in error.message
    assert leftovers(pool) == set()


@pytest.mark.parametrize("field", ["checksum", "expected_digest"])
def test_a_digest_counts_more_than_a_media_type(pool: pathlib.Path, field: str) -> None:
    with serving(DATA, HTML) as server:
        request = make_request(pool, server.url(), image_format="RAW", **{field: sha256(DATA)})
        assert probe.probe(request, Guard.start(threading.Event())).format == "RAW"
        assert fetch(request).done


def test_another_source_may_have_the_disk(pool: pathlib.Path) -> None:
    with serving(DATA, HTML) as page, serving(DATA) as server:
        request = make_request(pool, page.url(), mirrors=(server.url(),), image_format="RAW")
        assert fetch(request).source == server.url()


def test_a_probe_sees_a_page_too(pool: pathlib.Path) -> None:
    with serving(DATA, HTML) as server, pytest.raises(SourceError, match="seems to be a web page"):
        probe.probe(make_request(pool, server.url(), image_format="RAW"), Guard.start(threading.Event()))


def test_without_a_format_a_page_is_kept_as_it_is(pool: pathlib.Path) -> None:
    with serving(b"<html>it works</html>", HTML) as server:
        assert fetch(make_request(pool, server.url())).done


@pytest.mark.parametrize(("image_format", "more", "said"), [("RAW", 1, True), ("RAW", 512, False), ("", 1, False)])
def test_a_size_that_no_disk_has_is_mentioned(
    pool: pathlib.Path, caplog: pytest.LogCaptureFixture, image_format: str, more: int, said: bool
) -> None:
    with serving(DATA + bytes(more)) as server:
        result = fetch(make_request(pool, server.url(), image_format=image_format))
    assert result.done
    for text in (result.message, caplog.text):
        assert (f"its size, {len(DATA) + more} bytes, is no multiple of 512" in text) is said
