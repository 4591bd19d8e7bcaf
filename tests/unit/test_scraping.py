"""Metrics with authentication: what a gate remembers, and the certificate, over real TLS."""

import asyncio
import datetime
import pathlib
import ssl

import aiohttp
import prometheus_client
import pytest
from cryptography import x509
from tests.world import certificates

from directdownload.observe import scraping, servingcertificate
from directdownload.observe.scraping import Access, Gate
from directdownload.observe.servingcertificate import ServingCertificate

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """Says what it is told to, and counts how often it was asked."""

    def __init__(self, **accesses: Access) -> None:
        self.accesses = accesses
        self.asked: list[str] = []
        self.now = 0.0
        self.gate = Gate(self._review, lambda: self.now)

    async def _review(self, token: str) -> Access:
        self.asked.append(token)
        await asyncio.sleep(0)
        return self.accesses.get(token, Access.UNAUTHENTICATED)


async def test_what_is_allowed_is_remembered_for_a_minute() -> None:
    authority = Authority(good=Access.ALLOWED)
    assert await authority.gate.judge("good") is Access.ALLOWED
    authority.accesses["good"] = Access.FORBIDDEN
    authority.now = 59
    assert await authority.gate.judge("good") is Access.ALLOWED
    authority.now = 61
    assert await authority.gate.judge("good") is Access.FORBIDDEN
    assert authority.asked == ["good", "good"]


async def test_what_is_refused_is_remembered_for_seconds() -> None:
    authority = Authority()
    assert await authority.gate.judge("new") is Access.UNAUTHENTICATED
    authority.accesses["new"] = Access.ALLOWED
    authority.now = 4
    assert await authority.gate.judge("new") is Access.UNAUTHENTICATED
    authority.now = 6
    assert await authority.gate.judge("new") is Access.ALLOWED


async def test_many_requests_with_one_token_ask_once() -> None:
    authority = Authority(good=Access.ALLOWED)
    accesses = await asyncio.gather(*(authority.gate.judge("good") for _ in range(scraping.WAITING)))
    assert accesses == [Access.ALLOWED] * scraping.WAITING
    assert authority.asked == ["good"]


async def test_a_crowd_of_bad_tokens_is_sent_away_and_costs_a_good_one_nothing() -> None:
    authority = Authority(good=Access.ALLOWED)
    assert await authority.gate.judge("good") is Access.ALLOWED
    crowd = [authority.gate.judge(f"bad-{number}") for number in range(scraping.WAITING + 5)]
    results = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(isinstance(result, scraping.BusyError) for result in results) == 5
    for number in range(1000, 1000 + 2 * scraping.REMEMBERED):
        await authority.gate.judge(f"bad-{number}")
    asked = len(authority.asked)
    assert await authority.gate.judge("good") is Access.ALLOWED
    assert len(authority.asked) == asked
    # the oldest of those that were refused are forgotten
    await authority.gate.judge("bad-1000")
    assert len(authority.asked) == asked + 1


async def test_a_review_that_fails_is_not_remembered() -> None:
    answers: list[Access | Exception] = [OSError("no API server"), Access.ALLOWED]

    async def review(_: str) -> Access:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    gate = Gate(review)
    with pytest.raises(OSError, match="no API server"):
        await gate.judge("token")
    assert await gate.judge("token") is Access.ALLOWED


# The certificate


async def served(certificate: ServingCertificate, *, trusts: str | None = None) -> bytes:
    """Connects anew: the certificate that a client gets, who trusts `trusts` alone (None: everybody)."""
    authority = Authority(good=Access.ALLOWED)
    registry = prometheus_client.CollectorRegistry()
    async with scraping.ScrapeServer(0, gate=authority.gate, certificate=certificate, registry=registry) as server:
        return await presented(server.port, trusts)


async def presented(port: int, trusts: str | None = None) -> bytes:
    context = ssl.create_default_context(cadata=trusts)
    if trusts is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown
    finally:
        writer.close()
        await writer.wait_closed()


def put(directory: pathlib.Path, name: str) -> bytes:
    """A pair for `localhost` in `directory`, as a Secret is mounted; the certificate as DER."""
    certificate = certificates.pem(name, extensions=(x509.SubjectAlternativeName([x509.DNSName("localhost")]),))
    (directory / "tls.crt").write_text(certificate)
    (directory / "tls.key").write_text(certificates.private_key())
    return ssl.PEM_cert_to_DER_cert(certificate)


async def test_a_process_signs_a_certificate_of_its_own() -> None:
    first, second = ServingCertificate(None), ServingCertificate(None)
    shown = x509.load_der_x509_certificate(await served(first))
    assert shown.not_valid_before_utc < datetime.datetime.now(datetime.UTC) < shown.not_valid_after_utc
    assert await served(second) != await served(first)
    with pytest.raises(ssl.SSLCertVerificationError):
        await served(first, trusts=certificates.pem("another"))


def test_it_is_made_anew_in_the_middle_of_its_year() -> None:
    certificate = ServingCertificate(None)
    assert certificate.refresh(NOW)
    assert not certificate.refresh(NOW + datetime.timedelta(days=182))
    assert certificate.refresh(NOW + datetime.timedelta(days=183))
    assert not certificate.refresh(NOW + datetime.timedelta(days=184))


async def test_files_are_served_and_their_successors_without_a_restart(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servingcertificate, "POLL_SECONDS", 0.01)
    pairs = {name: tmp_path / name for name in ("before", "unfit", "after")}
    for path in pairs.values():
        path.mkdir()
    shown = {name: put(path, name) for name, path in pairs.items()}
    (pairs["unfit"] / "tls.key").write_bytes(certificates.Certificate().key_pem)

    def mount(name: str) -> None:
        """As the kubelet does: all files of a volume change at once."""
        (tmp_path / "new").symlink_to(pairs[name])
        (tmp_path / "new").replace(tmp_path / "mounted")

    mount("before")
    certificate = ServingCertificate(tmp_path / "mounted")
    async with scraping.ScrapeServer(0, gate=Authority().gate, certificate=certificate) as server:
        trusted = (pairs["before"] / "tls.crt").read_text()
        assert await presented(server.port, trusts=trusted) == shown["before"]
        # What was served before is served on, and it is told once.
        mount("unfit")
        async with asyncio.timeout(10):
            while "cannot be replaced" not in caplog.text:  # noqa: ASYNC110 - a log tells nobody
                await asyncio.sleep(0.01)
        assert await presented(server.port, trusts=trusted) == shown["before"]
        mount("after")
        async with asyncio.timeout(10):
            while await presented(server.port) != shown["after"]:  # noqa: ASYNC110 - nor does a handshake
                await asyncio.sleep(0.01)
    assert caplog.text.count("cannot be replaced") == 1
    assert "PRIVATE KEY" not in caplog.text


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
async def test_files_that_cannot_be_used_are_an_error_at_start(tmp_path: pathlib.Path, missing: str) -> None:
    put(tmp_path, "name")
    (tmp_path / missing).write_text("")
    server = scraping.ScrapeServer(0, gate=Authority().gate, certificate=ServingCertificate(tmp_path))
    with pytest.raises(OSError, match=r"(?i)pem|key"):
        await server.start()
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError):
        await server.start()


# What is answered


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("good", 401),
        ("Basic good", 401),
        ("Bearer", 401),
        ("Bearer  ", 401),
        ("Bearer bad", 401),
        ("Bearer poor", 403),
        ("Bearer good", 200),
        ("bearer good", 200),
    ],
)
async def test_a_token_decides_what_is_answered(header: str | None, status: int) -> None:
    authority = Authority(good=Access.ALLOWED, poor=Access.FORBIDDEN)
    certificate = ServingCertificate(None)
    async with (
        scraping.ScrapeServer(0, gate=authority.gate, certificate=certificate) as server,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://127.0.0.1:{server.port}/metrics"
        headers = {"Authorization": header} if header is not None else {}
        async with session.get(url, ssl=False, headers=headers) as answer:
            assert answer.status == status
            assert ("directdownload_build_info" in await answer.text()) is (status == 200)
            assert ("WWW-Authenticate" in answer.headers) is (status == 401)
        async with session.head(url, ssl=False, headers={"Authorization": "Bearer good"}) as answer:
            assert answer.status == 405
        async with session.get(f"https://127.0.0.1:{server.port}/healthz", ssl=False) as answer:
            assert answer.status == 404
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{server.port}/metrics")
    if header is None:
        assert authority.asked == []
