"""The failures of a download: the exit status of each, its words on the command line, and its words in a cluster.

Each is caused by a server: nginx, openssl, or a scripted one for what no server does.
"""

import contextlib
import gzip
import json
import pathlib
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.download.support import LOCAL, PATIENT, content, fetch_error, make_request
from tests.world import openssl
from tests.world.certificates import Certificate, bundle
from tests.world.http import HostileServer, Received, answer, reset, tls_server
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.cli import fetch as command
from directdownload.download.errors import SourceError, plain
from directdownload.download.guard import Guard
from directdownload.download.settings import Setting
from directdownload.download.sources import connection, libnfs, tls, tlswords
from directdownload.download.sources.nfssession import Session
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import PERMANENT, TRANSIENT, Reason
from directdownload.resources.zone import Timeouts

DATA = content(300_000)
#: `TLSV13_ALERT_CERTIFICATE_REQUIRED`, `_ssl.c:1006`, `[Errno 111]`, `Error -3 while decompressing`
CONSTANT = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+|\.c:\d|\[Errno|Error -?\d")
FIELD = re.compile(
    r"of the (Zone|Template|StoragePool)|\b(timeouts|downloads|sourcePolicy|spec)\.[a-z]|headersSecretRef"
)
FLAG = re.compile(r"(^|[\s(])--[a-z]")
CLIENT_CERTIFICATE = "the server demands a client certificate; direct download has none to send"

Caused = tuple[str, list[str], dict[str, Any]]


class World:
    """What a cause needs: directories, and an authority that the request trusts."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.served = directory / "served"
        self.served.mkdir()
        (self.served / "image").write_bytes(DATA)
        self.authority = Certificate(authority=True)
        self.trusted = bundle(directory, [self.authority])
        self.certificate = Certificate("127.0.0.1", issuer=self.authority)

    def secure(self, url: str) -> Caused:
        return url, ["--ca", self.trusted], {"trust_bundle": self.trusted}


def _openssl(*options: str) -> Any:
    @contextlib.contextmanager
    def cause(world: World) -> Iterator[Caused]:
        with openssl.serving(world.certificate, world.directory, *options) as url:
            yield world.secure(url)

    return cause


def _nginx(extra: str, path: str = "image", *, tls: bool = False, scheme: str = "") -> Any:
    @contextlib.contextmanager
    def cause(world: World) -> Iterator[Caused]:
        (world.directory / "clients.pem").write_bytes(world.authority.pem)
        text = extra.format(authority=world.directory / "clients.pem")
        with Origin(world.served, tls=tls, extra=text) as origin:
            url = origin.url(path)
            pem = str(origin.certificate)
            options = ["--ca", pem] if tls else []
            yield f"{scheme or url.partition(':')[0]}:{url.partition(':')[2]}", options, {"trust_bundle": pem}

    return cause


def _hostile(sent: bytes, *, secure: bool = False, waits: bool = False) -> Any:
    @contextlib.contextmanager
    def cause(_world: World) -> Iterator[Caused]:
        def respond(connected: socket.socket, _request: Received, _number: int) -> None:
            if secure:
                connected.recv(65536)
            connected.sendall(sent)
            if waits:
                server.ended.wait()

        with HostileServer(respond, reads_request=not secure) as server:
            yield (server.secure_url() if secure else server.url()), [], {}

    return cause


def _presented(*names: str, trusted: bool, days: tuple[int, int] = (-1, 1)) -> Any:
    @contextlib.contextmanager
    def cause(world: World) -> Iterator[Caused]:
        presented = Certificate(*names, issuer=world.authority, days=days)
        with tls_server(presented, world.directory, lambda c, r, n: answer(c, DATA)) as server:
            url, options, fields = world.secure(server.secure_url())
            yield (url, options, fields) if trusted else (url, [], {})

    return cause


def _served(name: str, body: bytes) -> Any:
    @contextlib.contextmanager
    def cause(world: World) -> Iterator[Caused]:
        (world.served / name).write_bytes(body)
        with Origin(world.served) as origin:
            yield origin.url(name), ["--format", "raw"], {"image_format": "RAW"}

    return cause


def _url(text: str, *options: str, **fields: Any) -> Any:
    @contextlib.contextmanager
    def cause(_world: World) -> Iterator[Caused]:
        yield text, list(options), fields

    return cause


_ALERT = b"\x15\x03\x03\x00\x02\x02"
_MUTUAL = "ssl_client_certificate {authority}; ssl_verify_client on; ssl_protocols "
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: "

#: cause: reason, words on the command line
CAUSES: dict[str, tuple[Any, Reason, str]] = {
    "client certificate, TLS 1.2": (_openssl("-Verify", "1", "-tls1_2"), Reason.SOURCE_REFUSED, CLIENT_CERTIFICATE),
    "client certificate, TLS 1.3": (_openssl("-Verify", "1", "-tls1_3"), Reason.SOURCE_REFUSED, CLIENT_CERTIFICATE),
    "client certificate, nginx with TLS 1.2": (
        _nginx(_MUTUAL + "TLSv1.2;", tls=True),
        Reason.SOURCE_REFUSED,
        CLIENT_CERTIFICATE,
    ),
    "client certificate, nginx with TLS 1.3": (
        _nginx(_MUTUAL + "TLSv1.3;", tls=True),
        Reason.SOURCE_REFUSED,
        CLIENT_CERTIFICATE,
    ),
    "no version in common": (
        _openssl("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        Reason.SOURCE_REFUSED,
        "no version or cipher of TLS in common",
    ),
    "no cipher in common": (
        _openssl("-tls1_2", "-cipher", "CAMELLIA256-SHA:@SECLEVEL=0"),
        Reason.SOURCE_REFUSED,
        "no version or cipher of TLS in common",
    ),
    "no host of this name": (
        _hostile(_ALERT + b"\x70", secure=True),
        Reason.SOURCE_REFUSED,
        "the server has no host of the name 127.0.0.1",
    ),
    "another alert": (
        _hostile(_ALERT + b"\x50", secure=True),
        Reason.TLS_VERIFICATION_FAILED,
        "the server ended the TLS handshake: internal error",
    ),
    "https without TLS": (
        _nginx("", scheme="https"),
        Reason.SOURCE_UNREACHABLE,
        "the server speaks no TLS at this port",
    ),
    "http with TLS, nginx": (_nginx("", tls=True, scheme="http"), Reason.SOURCE_REFUSED, "use an https URL"),
    "http with TLS": (_hostile(_ALERT + b"\x0a"), Reason.SOURCE_UNREACHABLE, "use an https URL"),
    "no HTTP": (_hostile(b"SSH-2.0-OpenSSH\r\n"), Reason.SOURCE_UNREACHABLE, "not HTTP"),
    "closed in the handshake": (
        _hostile(b"", secure=True),
        Reason.SOURCE_UNREACHABLE,
        "the server closed the connection in the TLS handshake",
    ),
    "closed in the handshake, as TLS closes": (
        _hostile(b"\x15\x03\x03\x00\x02\x01\x00", secure=True),
        Reason.SOURCE_UNREACHABLE,
        "the server closed the connection in the TLS handshake",
    ),
    "unknown authority": (
        _presented("127.0.0.1", trusted=False),
        Reason.TLS_VERIFICATION_FAILED,
        "to trust it, add its authority by --ca",
    ),
    "expired": (_presented("127.0.0.1", trusted=True, days=(-3, -1)), Reason.TLS_VERIFICATION_FAILED, "has expired"),
    "another name": (_presented("localhost", trusted=True), Reason.TLS_VERIFICATION_FAILED, "not valid for"),
    "nobody listens": (_url("http://127.0.0.1:9/image"), Reason.SOURCE_UNREACHABLE, "Connection refused"),
    "no name": (_url("http://none.invalid/image"), Reason.SOURCE_UNREACHABLE, "has no address"),
    "denied address": (
        _url("http://127.0.0.2/image", policy=LOCAL.model_copy(update={"allowed_cidrs": ()})),
        Reason.URL_NOT_ALLOWED,
        "to allow it, add it to --allow-cidr",
    ),
    "denied export": (
        _url(
            "nfs://127.0.0.1/export/image",
            "--nfs-export",
            "127.0.0.1:/other",
            policy=LOCAL.model_copy(update={"nfs_exports": ("127.0.0.1:/other",)}),
        ),
        Reason.URL_NOT_ALLOWED,
        "to allow it, add to --nfs-export",
    ),
    "credentials in the URL": (_url("http://user:hush@127.0.0.1/image"), Reason.INVALID_URL, "give them by --header"),
    "another scheme": (_url("ftp://127.0.0.1/image"), Reason.UNSUPPORTED_PROTOCOL, "use an http, https or nfs URL"),
    "malformed checksum": (
        _url("http://127.0.0.1/image", "--checksum", "none", checksum="none"),
        Reason.INVALID_CHECKSUM,
        "checksum",
    ),
    "404": (_nginx("", "none"), Reason.SOURCE_REFUSED, "404 Not Found"),
    "503": (_nginx("location / {{ return 503; }}"), Reason.SOURCE_UNAVAILABLE, "503 Service Unavailable"),
    "redirects without end": (
        _nginx("location / {{ return 302 /image; }}"),
        Reason.TOO_MANY_REDIRECTS,
        "(the limit of this command)",
    ),
    "a redirect to another scheme": (
        _nginx("location / {{ return 302 ftp://ftp.example.org/image; }}"),
        Reason.UNSUPPORTED_PROTOCOL,
        "only http and https are supported",
    ),
    "encoded": (
        _nginx("location / {{ gzip_static always; }}", "packed"),
        Reason.SOURCE_REFUSED,
        "expected no encoding",
    ),
    "unknown transfer coding": (_hostile(_CHUNKED + b"gzip\r\n\r\n"), Reason.SOURCE_REFUSED, "transfer encoding"),
    "endless head": (
        _hostile(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000),
        Reason.SOURCE_REFUSED,
        "expected a head of at most 65536 bytes",
    ),
    "malformed head": (
        _hostile(b"HTTP/1.1 200 OK\r\nX-Powered-By PHP\r\n\r\n"),
        Reason.SOURCE_UNAVAILABLE,
        "expected a header",
    ),
    "cut head": (_hostile(b"HTTP/1.1 200 OK\r\nX: y\r\n"), Reason.SOURCE_UNREACHABLE, "within the head of its answer"),
    "malformed chunks": (_hostile(_CHUNKED + b"chunked\r\n\r\nx\r\n"), Reason.TRUNCATED, "malformed chunks"),
    "cut": (_hostile(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), Reason.TRUNCATED, "announced 9 bytes"),
    "silence": (_hostile(b"", waits=True), Reason.SOCKET_TIMEOUT, "(--socket-timeout)"),
    "silence in the handshake": (_hostile(b"", secure=True, waits=True), Reason.CONNECT_TIMEOUT, "(--connect-timeout)"),
    "damaged gzip": (
        _served("a.gz", gzip.compress(DATA)[:10] + b"\xff" * 1000),
        Reason.DECOMPRESSION_FAILED,
        "is damaged",
    ),
    "damaged zip": (
        _served("a.zip", b"PK\x03\x04\x14\0\0\0\x08\0" + b"\0" * 16 + b"\x01\0\0\0a" + b"\xff" * 99),
        Reason.DECOMPRESSION_FAILED,
        "is damaged",
    ),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command.fetch, [*arguments, "--quiet", "--json"])


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tests' own process stay."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    made = World(tmp_path)
    (made.served / "packed.gz").write_bytes(gzip.compress(DATA))
    return made


@pytest.mark.parametrize("cause", CAUSES)
def test_each_failure_has_its_exit_status_and_plain_words(world: World, cause: str) -> None:
    caused, reason, words = CAUSES[cause]
    quick = Timeouts(connect_seconds=2, socket_seconds=1, connection_request_seconds=2)
    with caused(world) as (url, options, fields):
        allow = [] if "127.0.0.2" in url else ["--allow-cidr", "127.0.0.0/8"]
        timeouts = ["--connect-timeout", "2s", "--socket-timeout", "1s"]
        ended = run(url, "-o", str(world.directory / "out"), *allow, *timeouts, *options)
        error = fetch_error(make_request(world.directory / "pool", url, **{"timeouts": quick, **fields}))
    told = json.loads(ended.stdout.splitlines()[-1])
    assert (told["reason"], error.reason) == (reason, reason), (told, error.message)
    assert ended.exit_code == (3 if reason in PERMANENT else 1)
    assert words in told["message"]
    assert not FIELD.search(told["message"])
    assert not FLAG.search(error.message), "a placement names no option of the command line"
    for message in (told["message"], error.message):
        assert not CONSTANT.search(message), message
    assert told["message"] == command.named(error.message), "both say the same, each with the names of its reader"


def test_a_full_disk_names_no_pool_on_the_command_line(world: World) -> None:
    with _hostile(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000000000\r\n\r\n")(world) as (url, *_):
        ended = run(url, "-o", str(world.directory / "out"), "--allow-cidr", "127.0.0.0/8")
    told = json.loads(ended.stdout.splitlines()[-1])
    assert (ended.exit_code, told["reason"]) == (1, Reason.INSUFFICIENT_SPACE)
    assert told["message"].endswith(" are free; free some space")


def test_the_table_covers_both_kinds_and_every_failure_is_of_one() -> None:
    reasons = {reason for _, reason, _ in CAUSES.values()}
    assert reasons & PERMANENT
    assert reasons & TRANSIENT
    assert not PERMANENT & TRANSIENT


def test_each_setting_has_the_name_of_a_real_option_or_fetch_does_not_limit_it() -> None:
    options = {name for parameter in command.fetch.params for name in parameter.opts}
    for setting, name in command.NAMES.items():
        assert name in options or setting is Setting.MAX_REDIRECTS
        assert command.named(f"the limit ({setting})") == f"the limit ({name})"
    unlimited = {
        *(Setting.MAX_SIZE, Setting.MAX_VIRTUAL_SIZE, Setting.PROTOCOLS, Setting.ALLOWED_HOSTS, Setting.NFS_USER),
        *(Setting.REQUIRE_CHECKSUM, Setting.MINIMUM_CHECKSUM, Setting.RESERVE),
    }
    assert set(Setting) == {*command.NAMES, *unlimited}
    assert all(FIELD.search(setting) for setting in Setting if setting is not Setting.CERTIFICATES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("not a certificate", "it holds no certificate"),
        (Certificate("a").key_pem.decode(), "it holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "one of its certificates is damaged"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "one of its certificates is damaged"),
        ("\0" * (17 * 1024 * 1024), "it has more than 16777216 bytes"),
    ],
)
def test_a_bad_file_of_ca_is_refused_before_anything_is_asked(world: World, text: str | None, words: str) -> None:
    path = world.directory / "ca.pem"
    if text is not None:
        path.write_text(text)
    refused_before_asking(world, str(path), words, status=2 if text is None else 3)


def test_a_directory_or_a_file_that_cannot_be_read_is_no_ca(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refused_before_asking(world, str(world.directory), "is a directory", status=2)
    # root may read every file, but there is none in the memory of a process at 0
    refused_before_asking(world, "/proc/self/mem", "it cannot be read: input/output error")


def refused_before_asking(world: World, path: str, words: str, status: int = 3) -> None:
    with Origin(world.served) as origin:
        ended = run(
            origin.url("image"), "-o", str(world.directory / "out"), "--allow-cidr", "127.0.0.0/8", "--ca", path
        )
        assert origin.requests() == []
    assert ended.exit_code == status
    assert "'--ca'" in ended.stderr
    assert path in ended.stderr.replace("\n", "")
    assert words in ended.stderr
    assert not CONSTANT.search(ended.stderr)


def test_an_output_in_no_directory_is_a_usage_error(world: World) -> None:
    ended = run("http://127.0.0.1:9/image", "-o", str(world.directory / "none" / "out"))
    assert ended.exit_code == 2
    assert "'-o'" in ended.stderr
    assert "create it" in ended.stderr


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://user:hush@:9"])
def test_a_malformed_proxy_variable_is_a_usage_error(world: World, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    out = str(world.directory / "out")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    ended = run("https://images.example.org/image", "-o", out)
    assert (ended.exit_code, "HTTPS_PROXY is not the URL of an http proxy" in ended.stderr) == (2, True)
    assert "hush" not in ended.stderr
    # a URL that needs no proxy is not concerned
    assert run("http://127.0.0.1:9/image", "-o", out).exit_code == 3


def test_an_alert_is_read_although_the_request_could_not_be_sent(world: World) -> None:
    """A server that has closed the connection may refuse the request before its alert was read."""
    context = world.certificate.server_context(world.directory)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    closed = threading.Event()

    def respond(connected: socket.socket, _request: Received, _number: int) -> None:
        raw = connected.dup()
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(connected, server_side=True)
        reset(raw)
        closed.set()

    with HostileServer(respond, reads_request=False) as server:
        url = Url.parse(server.secure_url())
        effort = connection.Effort.begin(url, PATIENT, Guard.start(threading.Event()))
        wire = tls.connect(lambda: connection.connect(effort, LOCAL), effort, tls.trust(world.trusted))
        closely("the server has closed", closed.is_set)
        failures: list[SourceError] = []

        def refused() -> bool:
            try:
                wire.send(b"GET / HTTP/1.1\r\n\r\n")
            except SourceError as error:
                failures.append(error)
            return bool(failures)

        closely("the request cannot be sent", refused)
        wire.close()
    assert failures[0].reason is Reason.SOURCE_REFUSED
    assert CLIENT_CERTIFICATE in failures[0].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[SSL: UNKNOWN_THING] unknown thing (_ssl.c:1006)", "unknown thing"),
        ("EOF occurred in violation of protocol (_ssl.c:1006)", "EOF occurred in violation of protocol"),
        ("[Errno 5] Input/output error", "Input/output error"),
        ("Error -3 while decompressing data: invalid block type", "invalid block type"),
        ("BAD_STATEID", "bad stateid"),
        ("it holds PEM", "it holds PEM"),
    ],
)
def test_unknown_constants_become_words(text: str, words: str) -> None:
    assert plain(text) == words


def test_the_original_goes_to_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger=tlswords.__name__), _openssl("-Verify", "1", "-tls1_3")(world) as caused:
        url, _, fields = caused
        fetch_error(make_request(world.directory / "pool", url, **fields))
    assert "TLSV13_ALERT_CERTIFICATE_REQUIRED" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NFS4: (path /a) failed with NFS4ERR_IO", "the server cannot read its disk"),
        ("RPC error: Mount failed with error MNT3ERR_SERVERFAULT(-5)", "the server failed"),
        ("READ failed with NFS3ERR_JUKEBOX(-11)", "the server is busy and asks to come later"),
        ("OPEN failed with NFS4ERR_BAD_STATEID", "the server answers with the status 'bad stateid'"),
        ("rpc_service: UNKNOWN_THING (socket.c:12)", "unknown thing"),
        ("", "the server rejects the call"),
    ],
)
def test_the_statuses_of_nfs_are_words(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    """A server in order answers none of them: the texts are those of libnfs."""
    monkeypatch.setattr(libnfs.Context, "error", text)
    url = Url.parse("nfs://127.0.0.1/export/image")
    session = Session(url, 4, None, PATIENT, Guard.start(threading.Event()))
    call = libnfs.Call()
    call.finish(-5 if text else -71, None)
    error = session.failure(call, "the file cannot be read")
    session.close()
    assert error.reason is Reason.NFS_ERROR
    assert words in error.message
    assert not CONSTANT.search(error.message)
