"""Templates whose URL is a metalink: its mirrors, sizes, digests and pieces decide."""

import hashlib
import pathlib
import socket
from typing import Any

import pytest
from tests.unit.download.support import content, fetch, fetch_error, leftovers, make_request, sha256
from tests.world.origin import Origin, free_port

from directdownload.download.errors import RequestError
from directdownload.download.sources import offers
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

MIB = 1024 * 1024
DATA = content(5 * MIB + 321)
PIECE = MIB


def metalink(
    *urls: str, size: int | None = len(DATA), digest: str = "", pieces: bool = False, name: str = "image"
) -> str:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<metalink xmlns="urn:ietf:params:xml:ns:metalink">']
    lines.append(f'<file name="{name}">')
    lines += [f"<size>{size}</size>"] if size is not None else []
    lines += [f'<hash type="sha-256">{digest}</hash>'] if digest else []
    if pieces:
        lines.append(f'<pieces length="{PIECE}" type="sha-1">')
        parts = [DATA[start : start + PIECE] for start in range(0, len(DATA), PIECE)]
        lines += [f"<hash>{hashlib.sha1(part, usedforsecurity=False).hexdigest()}</hash>" for part in parts]
        lines.append("</pieces>")
    lines += [f'<url priority="{number}">{url}</url>' for number, url in enumerate(urls, 1)]
    return "\n".join([*lines, "</file>", "</metalink>"])


@pytest.fixture
def image(served: pathlib.Path) -> bytes:
    (served / "image").write_bytes(DATA)
    return DATA


def hex_digest(data: bytes) -> str:
    return sha256(data).partition(":")[2]


@pytest.mark.parametrize("name", ["image.metalink", "image.META4"])
def test_a_dead_first_mirror_is_passed_over(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path, name: str
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/image"
    (served / name).write_text(metalink(dead, origin.url("image"), digest=hex_digest(image)))
    result = fetch(make_request(pool, origin.url(name)))
    assert (result.reason, result.source, result.digest) == (Reason.DOWNLOADED, origin.url("image"), sha256(image))
    assert (pool / "uid-1").read_bytes() == image


def test_the_digest_of_the_metalink_is_expected(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    (served / "image.meta4").write_text(metalink(origin.url("image"), digest="0" * 64))
    assert fetch_error(make_request(pool, origin.url("image.meta4"))).reason is Reason.CHECKSUM_MISMATCH
    assert leftovers(pool) == set()


def test_the_size_of_the_metalink_is_expected(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    (served / "image.meta4").write_text(metalink(origin.url("image"), size=len(image) + 1))
    error = fetch_error(make_request(pool, origin.url("image.meta4")))
    assert error.reason is Reason.CHECKSUM_MISMATCH
    assert "(from the metalink)" in error.message


def test_a_corrupt_piece_is_fetched_from_another_mirror(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    """Only that piece, and what the corrupt mirror had not sent yet."""
    spoiled = image[: 2 * PIECE + 100] + b"x" + image[2 * PIECE + 101 :]
    (served / "spoiled").write_bytes(spoiled)
    urls = (origin.url("spoiled"), origin.url("image"))
    (served / "image.meta4").write_text(metalink(*urls, digest=hex_digest(image), pieces=True))
    assert fetch(make_request(pool, origin.url("image.meta4"))).done
    assert (pool / "uid-1").read_bytes() == image
    good = [entry for entry in origin.wait_for_requests(3) if entry.path == "/image"]
    assert good[0].range.startswith(f"bytes={2 * PIECE}-")
    assert sum(entry.bytes_sent for entry in good) < len(image) // 2 + PIECE * 2


def test_a_piece_that_nobody_has_right_fails(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    (served / "spoiled").write_bytes(b"x" + image[1:])
    (served / "image.meta4").write_text(metalink(origin.url("spoiled"), digest=hex_digest(image), pieces=True))
    error = fetch_error(make_request(pool, origin.url("image.meta4")))
    assert error.reason is Reason.CHECKSUM_MISMATCH
    assert leftovers(pool) == set()
    assert len(origin.wait_for_requests(3)) <= 4, "asked once more, and not for ever"


def test_a_metalink_that_is_none_is_told(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.metalink").write_text("<html>it works</html>")
    error = fetch_error(make_request(pool, origin.url("image.metalink")))
    assert (error.reason, error.permanent) == (Reason.METALINK_INVALID, True)


def test_mirrors_of_the_template_help_when_its_metalink_does_not(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    (served / "image.metalink").write_text("nonsense")
    request = make_request(pool, origin.url("image.metalink"), mirrors=(origin.url("image"),), checksum=sha256(image))
    assert fetch(request).source == origin.url("image")


def test_every_url_of_a_metalink_is_checked_against_the_policy(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    urls = ("http://169.254.169.254/latest/meta-data", "https://elsewhere.example.org/image")
    (served / "image.meta4").write_text(metalink(*urls, digest=hex_digest(image)))
    policy = SourcePolicy(allowed_hosts=("127.0.0.1", "169.254.169.254"), allowed_cidrs=("127.0.0.0/8",))
    error = fetch_error(make_request(pool, origin.url("image.meta4"), policy=policy))
    assert error.reason is Reason.URL_NOT_ALLOWED
    told = f"the metalink {origin.url('image.meta4')} names http://169.254.169.254/latest/meta-data: host "
    assert error.message.startswith(told)


def test_a_name_in_a_metalink_that_has_a_denied_address_is_blamed_on_it(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    url = f"http://localhost:{origin.port}/image"
    (served / "image.meta4").write_text(metalink(url, digest=hex_digest(image)))
    policy = SourcePolicy(allowed_cidrs=(f"{origin.host}/32",))
    resolved = socket.getaddrinfo

    def elsewhere(host: str, *others: Any, **options: Any) -> list[Any]:
        return resolved("127.0.0.2" if host == "localhost" else host, *others, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", elsewhere)
        error = fetch_error(make_request(pool, origin.url("image.meta4"), policy=policy))
    assert error.reason is Reason.URL_NOT_ALLOWED
    assert error.message.startswith(
        f"the metalink {origin.url('image.meta4')} names {url}: host localhost is 127.0.0.2"
    )


def test_headers_go_to_the_metalink_and_never_to_its_mirrors(
    origin: Origin, served: pathlib.Path, image: bytes, pool: pathlib.Path
) -> None:
    (served / "image.meta4").write_text(metalink(origin.url("image"), digest=hex_digest(image)))
    assert fetch(make_request(pool, origin.url("image.meta4"), headers=(("X-Token", "secret"),))).done
    assert [entry.token for entry in origin.wait_for_requests(2)] == ["secret", ""]


def test_the_same_source_twice_counts_once(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    request = make_request(pool, origin.url("image"), mirrors=(origin.url("image"), origin.url("image")))

    def create(url: str, *, first: bool) -> object:
        if "ftp" in url:
            raise RequestError(Reason.UNSUPPORTED_PROTOCOL, url)
        return request.source(url, first=first)

    mirrors = (*request.mirrors, "ftp://x/y")
    offer = offers.collect(request.url, mirrors, create, guard_of_nothing(), offers.Known())  # type: ignore[arg-type]
    assert [str(source.url) for source in offer.sources] == [origin.url("image")]
    assert [error.reason for error in offer.failures] == [Reason.UNSUPPORTED_PROTOCOL]


def guard_of_nothing() -> object:
    """A list of plain URLs needs no network, so nothing ever looks at it."""
    return None
