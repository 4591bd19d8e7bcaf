"""The main paths, from a real nginx into a pool."""

import dataclasses
import fcntl
import hashlib
import os
import pathlib
import socket
import stat
import threading
import time

import pytest
from tests.unit.download.support import FAST, content, fetch, fetch_error, leftovers, make_request, sha256
from tests.world import waiting
from tests.world.origin import Origin, free_port
from tests.world.waiting import closely

from directdownload.download import engine
from directdownload.download.errors import SourceError
from directdownload.download.gathering import Progress
from directdownload.download.guard import Guard
from directdownload.download.sources.connection import Slots
from directdownload.download.sources.urls import Url
from directdownload.download.store.place import Part, Place
from directdownload.download.store.record import read_record
from directdownload.resources.checksum import Algorithm
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import PoolFile
from directdownload.resources.zone import SourcePolicy, Timeouts

DATA = content(3_000_003)


@pytest.fixture
def image(served: pathlib.Path) -> bytes:
    (served / "image").write_bytes(DATA)
    return DATA


def test_a_verified_file_and_its_record_are_all_that_stays(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    request = make_request(pool, origin.url("image"), checksum=sha256(image), file=PoolFile(mode="0640"))
    result = fetch(request)
    assert result.reason is Reason.DOWNLOADED
    assert (result.path, result.size_bytes, result.digest) == (str(pool / "uid-1"), len(image), sha256(image))
    assert result.source == origin.url("image")
    assert result.resumed_from == 0
    assert (pool / "uid-1").read_bytes() == image
    assert stat.S_IMODE((pool / "uid-1").stat().st_mode) == 0o640
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}
    record = read_record(request.place.record)
    assert record is not None
    assert record.matches((pool / "uid-1").stat())
    assert record.digest == sha256(image)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_algorithm_verifies_and_refuses(
    origin: Origin, image: bytes, pool: pathlib.Path, algorithm: Algorithm
) -> None:
    digest = hashlib.new(algorithm.value, image).hexdigest()
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    error = fetch_error(make_request(pool, origin.url("image"), checksum=f"{{{algorithm.title}}}{wrong}"))
    assert error.reason is Reason.CHECKSUM_MISMATCH
    assert wrong in error.message
    assert digest in error.message
    assert leftovers(pool) == set()
    result = fetch(make_request(pool, origin.url("image"), checksum=f"{algorithm.value}:{digest.upper()}"))
    assert result.reason is Reason.DOWNLOADED
    assert result.digest == sha256(image)


def test_without_a_checksum_the_digest_is_learnt(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    assert fetch(make_request(pool, origin.url("image"))).digest == sha256(image)


def test_an_empty_file_is_a_file(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "empty").write_bytes(b"")
    result = fetch(make_request(pool, origin.url("empty"), checksum=sha256(b"")))
    assert (result.reason, result.size_bytes) == (Reason.DOWNLOADED, 0)


def test_other_bytes_than_earlier_copies_are_refused(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    error = fetch_error(make_request(pool, origin.url("image"), expected_digest=sha256(b"other")))
    assert error.reason is Reason.SOURCE_CHANGED
    assert leftovers(pool) == set()


def test_the_second_fetch_asks_the_origin_for_nothing(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    request = make_request(pool, origin.url("image"))
    fetch(request)
    origin.wait_for_requests(1)
    assert fetch(request).reason is Reason.ALREADY_PRESENT
    assert len(origin.requests()) == 1


def test_a_file_that_was_retained_is_recorded_for_its_new_placement(
    origin: Origin, image: bytes, pool: pathlib.Path
) -> None:
    fetch(make_request(pool, origin.url("image")))
    again = make_request(pool, origin.url("image"), placement="later", placement_uid="another")
    assert fetch(again).reason is Reason.ALREADY_PRESENT
    record = read_record(again.place.record)
    assert record is not None
    assert (record.placement, record.placement_uid) == ("later", "another")


def test_a_touched_file_is_hashed_and_kept(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    request = make_request(pool, origin.url("image"), checksum=sha256(image))
    fetch(request)
    os.utime(pool / "uid-1", (1, 1))
    assert fetch(request).reason is Reason.ALREADY_PRESENT
    record = read_record(request.place.record)
    assert record is not None
    assert record.matches((pool / "uid-1").stat())


def test_a_file_without_record_is_kept_if_it_is_the_right_one(pool: pathlib.Path) -> None:
    (pool / "uid-1").write_bytes(DATA)
    request = make_request(pool, "http://127.0.0.1:9/none", expected_digest=sha256(DATA))
    result = fetch(request)
    assert (result.reason, result.digest) == (Reason.ALREADY_PRESENT, sha256(DATA))
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}


def test_an_altered_file_is_replaced(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    request = make_request(pool, origin.url("image"), checksum=sha256(image))
    fetch(request)
    with (pool / "uid-1").open("r+b") as file:
        file.write(b"altered")
    assert fetch(request).reason is Reason.DOWNLOADED
    assert (pool / "uid-1").read_bytes() == image


def test_other_files_of_the_pool_survive(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    (pool / "foreign").write_bytes(b"foreign")
    (pool / ".directdownload").mkdir()
    (pool / ".directdownload/uid-1.kvm-2.part").write_bytes(b"another host's")
    fetch(make_request(pool, origin.url("image")))
    assert (pool / "foreign").read_bytes() == b"foreign"
    assert (pool / ".directdownload/uid-1.kvm-2.part").read_bytes() == b"another host's"


@pytest.mark.parametrize("checksum", ["", "md5:" + "0" * 32])
def test_the_policy_may_ask_for_a_stronger_checksum(pool: pathlib.Path, checksum: str) -> None:
    policy = SourcePolicy(require_checksum=True, minimum_checksum="SHA-256")
    error = fetch_error(make_request(pool, "http://127.0.0.1:9/none", checksum=checksum, policy=policy))
    assert error.reason is (Reason.CHECKSUM_TOO_WEAK if checksum else Reason.CHECKSUM_REQUIRED)
    assert error.permanent


def test_a_malformed_checksum_is_refused_before_anything_else(pool: pathlib.Path) -> None:
    error = fetch_error(make_request(pool, "http://127.0.0.1:9/none", checksum="{}" + "0" * 64))
    assert error.reason is Reason.INVALID_CHECKSUM
    assert leftovers(pool) == set()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/a", Reason.UNSUPPORTED_PROTOCOL),
        ("example.org/a", Reason.INVALID_URL),
        ("/etc/passwd", Reason.INVALID_URL),
        ("http://user:secret@example.org/a", Reason.INVALID_URL),
    ],
)
def test_urls_that_cannot_be_fetched(pool: pathlib.Path, url: str, reason: Reason) -> None:
    error = fetch_error(make_request(pool, url))
    assert error.reason is reason
    assert error.permanent
    assert "secret" not in error.message
    if reason is Reason.UNSUPPORTED_PROTOCOL:
        assert "http, https or nfs" in error.message


def test_a_missing_file_is_refused_for_good(origin: Origin, pool: pathlib.Path) -> None:
    error = fetch_error(make_request(pool, origin.url("none?signature=secret")))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "404" in error.message
    assert "secret" not in error.message
    assert leftovers(pool) == set()


def test_nobody_listens(pool: pathlib.Path) -> None:
    error = fetch_error(make_request(pool, f"http://127.0.0.1:{free_port()}/image"))
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert not error.permanent
    assert leftovers(pool) == set()


def test_no_such_host(pool: pathlib.Path) -> None:
    error = fetch_error(make_request(pool, "http://no-such-host.invalid/image"))
    assert error.reason in (Reason.SOURCE_UNREACHABLE, Reason.CONNECT_TIMEOUT)
    assert "no-such-host.invalid" in error.message


def test_a_missing_pool_is_told(tmp_path: pathlib.Path) -> None:
    place = Place.in_pool(str(tmp_path / "none"), "uid-1", "uid-1", "kvm-1")
    request = make_request(tmp_path / "pool", "http://127.0.0.1:9/none")
    assert fetch_error(dataclasses.replace(request, place=place)).reason is Reason.POOL_NOT_READY


def test_a_file_that_is_too_large_is_refused_before_it_moves(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    error = fetch_error(make_request(pool, origin.url("image"), limits=Limits(max_size_bytes=len(image) - 1)))
    assert error.reason is Reason.TOO_LARGE
    assert leftovers(pool) == set()
    assert fetch(make_request(pool, origin.url("image"), limits=Limits(max_size_bytes=len(image)))).done


def test_mirrors_are_tried_in_order(origin: Origin, image: bytes, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "bad").write_bytes(content(5000, seed=2))
    request = make_request(
        pool,
        origin.url("none"),
        mirrors=(origin.url("bad"), "ftp://example.org/x", origin.url("image")),
        checksum=sha256(image),
    )
    result = fetch(request)
    assert (result.reason, result.source) == (Reason.DOWNLOADED, origin.url("image"))
    assert [entry.path for entry in origin.wait_for_requests(3)] == ["/none", "/bad", "/image"]


def test_one_transient_failure_among_the_sources_makes_it_worth_another_attempt(
    origin: Origin, pool: pathlib.Path
) -> None:
    request = make_request(pool, origin.url("none"), mirrors=(f"http://127.0.0.1:{free_port()}/x",))
    error = fetch_error(request)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "SourceRefused" in error.message


def test_wrong_bytes_from_every_source_are_one_mismatch(
    origin: Origin, image: bytes, served: pathlib.Path, pool: pathlib.Path
) -> None:
    (served / "other").write_bytes(image[::-1])
    mirrors = (origin.url("other"),)
    error = fetch_error(make_request(pool, origin.url("image"), mirrors=mirrors, checksum="sha256:" + "0" * 64))
    assert (error.reason, error.permanent) == (Reason.CHECKSUM_MISMATCH, True)
    assert error.message.endswith("(other sources: ChecksumMismatch)")


def test_headers_go_to_the_first_url_only(
    origin: Origin, image: bytes, served: pathlib.Path, pool: pathlib.Path
) -> None:
    request = make_request(pool, origin.url("none"), mirrors=(origin.url("image"),), headers=(("X-Token", "secret"),))
    assert fetch(request).done
    assert [entry.token for entry in origin.wait_for_requests(2)] == ["secret", ""]


def test_tls_with_a_trusted_leaf(served: pathlib.Path, image: bytes, pool: pathlib.Path) -> None:
    with Origin(served, tls=True) as origin:
        error = fetch_error(make_request(pool, origin.url("image")))
        assert error.reason is Reason.TLS_VERIFICATION_FAILED
        assert not error.permanent
        missing = make_request(pool, origin.url("image"), trust_bundle="/nonexistent/bundle.pem")
        assert fetch_error(missing).reason is Reason.TLS_VERIFICATION_FAILED
        result = fetch(
            make_request(pool, origin.url("image"), trust_bundle=str(origin.certificate), checksum=sha256(image))
        )
        assert result.done
        assert (pool / "uid-1").read_bytes() == image


def test_tls_with_a_leaf_whose_authority_nobody_knows(served: pathlib.Path, image: bytes, pool: pathlib.Path) -> None:
    with Origin(served, tls=True, self_signed=False) as origin:
        assert fetch(make_request(pool, origin.url("image"), trust_bundle=str(origin.certificate))).done


def test_a_pem_file_that_is_none_is_told(served: pathlib.Path, pool: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("not a certificate")
    error = fetch_error(make_request(pool, "https://127.0.0.1:9/image", trust_bundle=str(bundle)))
    assert error.reason is Reason.TLS_VERIFICATION_FAILED
    assert str(bundle) in error.message


def test_the_rate_is_limited(origin: Origin, image: bytes, pool: pathlib.Path) -> None:
    rate = 4_000_000
    started = time.monotonic()
    fetch(make_request(pool, origin.url("image"), limits=Limits(bandwidth_bytes_per_second=rate)))
    seconds = time.monotonic() - started
    assert len(image) / rate * 0.8 < seconds < len(image) / rate + waiting.DEADLINE_SECONDS


def test_the_deadline_ends_it_and_what_came_stays(served: pathlib.Path, image: bytes, pool: pathlib.Path) -> None:
    with Origin(served, rate=500_000) as origin:
        error = fetch_error(make_request(pool, origin.url("image"), limits=Limits(deadline_seconds=1)))
        assert error.reason is Reason.DEADLINE_EXCEEDED
        assert leftovers(pool) == {".directdownload/uid-1.kvm-1.part", ".directdownload/uid-1.kvm-1.journal"}


def test_progress_is_told_while_it_runs(served: pathlib.Path, image: bytes, pool: pathlib.Path) -> None:
    told: list[Progress] = []
    with Origin(served, rate=3_000_000) as origin:
        engine.fetch(make_request(pool, origin.url("image")), stop=threading.Event(), progress=told.append)
    assert len(told) > 3
    received = [progress.bytes_received for progress in told]
    assert received == sorted(received)
    assert received[-1] == told[-1].size_bytes == len(image)
    assert any(0 < count < len(image) for count in received)


def test_a_second_process_waits_and_finds_it_present(served: pathlib.Path, image: bytes, pool: pathlib.Path) -> None:
    with Origin(served, rate=3_000_000) as origin:
        request = make_request(pool, origin.url("image"), checksum=sha256(image))
        first = threading.Thread(target=fetch, args=(request,))
        first.start()
        closely("a journal", lambda: (pool / ".directdownload/uid-1.kvm-1.journal").exists())
        assert fetch(request).reason is Reason.ALREADY_PRESENT
        first.join()
        assert len(origin.wait_for_requests(1)) == 1
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}


def test_waiting_for_another_holder_ends_with_the_deadline(pool: pathlib.Path) -> None:
    request = make_request(pool, "http://127.0.0.1:9/none", limits=Limits(deadline_seconds=0.7))
    request.place.prepare()
    with open(request.place.part, "wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        assert fetch_error(request).reason is Reason.DEADLINE_EXCEEDED
        assert pathlib.Path(request.place.part).exists()


def test_a_part_that_vanished_while_it_was_locked_is_opened_anew(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_request(pool, "http://127.0.0.1:9/none").place
    place.prepare()
    flock, published = fcntl.flock, pool / "uid-1"

    def after_the_other_published(descriptor: int, operation: int) -> None:
        if not published.exists():
            os.rename(place.part, published)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_other_published)
    with Part.acquire(place, Guard.start(threading.Event())) as part:
        assert os.path.samestat(os.fstat(part.descriptor), os.stat(place.part))
        assert not os.path.samestat(os.fstat(part.descriptor), published.stat())


def test_a_resolver_that_never_answers_is_a_connect_timeout(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: ended.wait(20))
    error = fetch_error(make_request(pool, "http://images.example.org/x", timeouts=FAST))
    ended.set()
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert "images.example.org" in error.message


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_a_part_that_is_no_file_is_refused(
    origin: Origin, image: bytes, pool: pathlib.Path, tmp_path: pathlib.Path, kind: str
) -> None:
    request = make_request(pool, origin.url("image"))
    request.place.prepare()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    if kind == "symlink":
        os.symlink(victim, request.place.part)
    elif kind == "fifo":
        os.mkfifo(request.place.part)
    else:
        os.mkdir(request.place.part)
    assert fetch_error(request).reason is Reason.WRITE_FAILED
    assert victim.read_bytes() == b"precious"


def test_a_work_directory_that_is_a_link_is_refused(pool: pathlib.Path, tmp_path: pathlib.Path) -> None:
    os.symlink(tmp_path, pool / ".directdownload")
    assert fetch_error(make_request(pool, "http://127.0.0.1:9/none")).reason is Reason.WRITE_FAILED


def test_slots_of_one_origin_are_limited() -> None:
    slots, guard = Slots(limit=1), Guard.start(threading.Event())
    release = slots.acquire(Url.parse("http://a.example/x"), 0.1, guard)
    with pytest.raises(SourceError, match=r"timeouts\.connectionRequest"):
        slots.acquire(Url.parse("http://a.example/y"), 0.1, guard)
    slots.acquire(Url.parse("http://b.example/x"), 0.1, guard)()
    release()
    slots.acquire(Url.parse("http://a.example/y"), 0.1, guard)()


def test_timeouts_of_the_defaults_are_cloudstacks() -> None:
    assert Timeouts() == Timeouts(connect_seconds=5, socket_seconds=5, connection_request_seconds=5)


def test_a_name_that_the_file_system_cannot_have_is_reported(pool: pathlib.Path) -> None:
    request = make_request(pool, "http://127.0.0.1:1/image")
    named = dataclasses.replace(request.place, final=str(pool / ("n" * 300)))
    error = fetch_error(dataclasses.replace(request, place=named))
    assert error.reason is Reason.WRITE_FAILED
    assert error.message.endswith("File name too long")
