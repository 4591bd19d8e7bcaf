"""What a job was given in confidence is in nothing that it leaves, whatever a server makes of it.

Real job processes and a server that repeats what it was sent wherever HTTP has a place for it.
"""

import base64
import json
import os
import pathlib
import socket
import urllib.parse
from collections.abc import Callable

import pytest
from tests.unit.download.support import LOCAL_CIDRS, content, fetch_error, job_document, make_request, start_job
from tests.world.http import HostileServer, Received, answer

from directdownload.download import secrets
from directdownload.resources.jobs import JobDocument
from directdownload.resources.zone import SourcePolicy

TOKEN = "planted-token-4711"
PASSWORD = "planted-password-0815"
SIGNATURE = "planted-signature-42"
PROXY_PASSWORD = "planted-proxy-password"
PLANTED = (TOKEN, PASSWORD, SIGNATURE, PROXY_PASSWORD)
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
DATA = content(100_000)
TAGGED = f'ETag: "{TOKEN}"\r\nContent-Type: application/{TOKEN}\r\nAccept-Ranges: bytes\r\n'


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def echoes(request: Received) -> str:
    """All that it was sent, in one line."""
    query = request.target.partition("?")[2]
    return f"{request.headers.get('authorization', '')} {request.headers.get('x-token', '')} {query}"


def refuse(connection: socket.socket, request: Received, _: int) -> None:
    said = echoes(request)
    challenge = f'WWW-Authenticate: Bearer error="{said}"'
    connection.sendall(head(f"401 Not {said}", challenge, "Content-Length: 0") + said.encode())


def fail(connection: socket.socket, request: Received, _: int) -> None:
    connection.sendall(head(f"500 {echoes(request)}", "Content-Type: text/plain") + echoes(request).encode())


def redirect_in_the_query(connection: socket.socket, request: Received, _: int) -> None:
    said = urllib.parse.quote(echoes(request))
    connection.sendall(head("302 Found", f"Location: /denied?because={said}", "Content-Length: 0"))


def redirect_in_the_path(connection: socket.socket, request: Received, number: int) -> None:
    if number > 1:
        return connection.sendall(head("404 Not Found", "Content-Length: 0"))
    said = urllib.parse.quote(echoes(request), safe="")
    connection.sendall(head("302 Found", f"Location: /denied/{said}/{TOKEN}/{SIGNATURE}", "Content-Length: 0"))


def redirect_elsewhere(connection: socket.socket, request: Received, _: int) -> None:
    connection.sendall(head("302 Found", f"Location: gopher://{TOKEN}.example.org/{PASSWORD}", "Content-Length: 0"))


def speak_something_else(connection: socket.socket, request: Received, _: int) -> None:
    connection.sendall(f"SSH-2.0-{echoes(request)}\r\n".encode())


def encode(connection: socket.socket, request: Received, _: int) -> None:
    connection.sendall(head("200 OK", f"Content-Encoding: {TOKEN}", "Content-Length: 5") + b"12345")


def transfer(connection: socket.socket, request: Received, _: int) -> None:
    connection.sendall(head("200 OK", f"Transfer-Encoding: {TOKEN}", "Content-Length: 5") + b"12345")


def tag(connection: socket.socket, request: Received, _: int) -> None:
    answer(connection, DATA, length=len(DATA) + 1, headers=TAGGED)


def serve(connection: socket.socket, request: Received, _: int) -> None:
    answer(connection, DATA, headers=TAGGED)


@pytest.mark.parametrize("verb", ["fetch", "probe"])
@pytest.mark.parametrize(
    "respond",
    [
        refuse,
        fail,
        redirect_in_the_query,
        redirect_in_the_path,
        redirect_elsewhere,
        speak_something_else,
        encode,
        transfer,
        tag,
        serve,
    ],
)
def test_nothing_that_a_job_leaves_holds_what_it_was_given(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, verb: str, respond: Callable[..., None]
) -> None:
    directory, pool, message = tmp_path / "headers", tmp_path / "pool", tmp_path / "termination"
    directory.mkdir()
    (directory / "Authorization").write_text(f"Basic {BASIC}")
    (directory / "X-Token").write_text(TOKEN)
    monkeypatch.setenv("DIRECTDOWNLOAD_TERMINATION_LOG", str(message))
    monkeypatch.setenv("https_proxy", f"http://user:{PROXY_PASSWORD}@127.0.0.1:9")
    seen: dict[str, str] = {}

    def look_and_respond(connection: socket.socket, request: Received, number: int) -> None:
        # While it runs: what anybody on the host may read of a process, and what its user may.
        for name in ("cmdline", "environ"):
            seen[name] = pathlib.Path(f"/proc/{process.pid}/{name}").read_bytes().decode()
        respond(connection, request, number)

    with HostileServer(look_and_respond) as server:
        url = server.url(f"image.raw?signature={SIGNATURE}")
        fields = {"url": url, "headersDirectory": str(directory), "limits": {"progressIntervalSeconds": 0.01}}
        document = job_document(pool, verb, **fields)
        if verb == "probe":
            for name in ("placement", "placementUid", "pool", "fileName"):
                del document[name]
        process = start_job(document)
        output, errors = process.communicate(timeout=120)
    # It was sent, so that it could come back.
    assert server.received[0].headers["authorization"] == f"Basic {BASIC}"
    assert json.loads(output.splitlines()[-1])["reason"]
    left = {"output": output, "errors": errors, "termination message": message.read_text(), "cmdline": seen["cmdline"]}
    for path in pool.rglob("*"):
        if path.is_file():
            left[str(path)] = path.read_bytes().decode(errors="replace")
    for where, text in left.items():
        for value in (*PLANTED, BASIC):
            assert value not in text, where
    # Headers come as files; the query is part of the Template's URL, and a proxy's URL of the pod's environment.
    for value in (TOKEN, PASSWORD, BASIC):
        assert value not in seen["environ"]


@pytest.mark.parametrize(
    "value",
    ['Planted|{"$}', "/planted\\secret", "planted<se\tcret>^`", "Basic " + base64.b64encode(b"me:Plan|ted{").decode()],
)
@pytest.mark.parametrize("place", ["http://other.example/{}/x", "http://x.{}/x"])
def test_an_echo_in_a_redirect_is_known_as_it_is_read(tmp_path: pathlib.Path, value: str, place: str) -> None:
    plain = base64.b64decode(value[6:]).decode().partition(":")[2] if value.startswith("Basic") else value
    location = place.format(plain)
    with HostileServer(lambda c, r, n: answer(c, b"", status="302 F", headers=f"Location: {location}\r\n")) as server:
        policy = SourcePolicy(allowed_hosts=("127.0.0.1",), allowed_cidrs=LOCAL_CIDRS)
        error = fetch_error(make_request(tmp_path / "pool", server.url(), headers=(("X-Token", value),), policy=policy))
    shown = secrets.Secrets.of_headers([("X-Token", value)]).hide(error.message)
    assert secrets.MASK in shown
    assert "plan" not in shown.lower()
    assert "cret" not in shown


@pytest.mark.parametrize(
    "url", ["http://[foo/x?sig=abcdefgh", "http://h/x?sig=größer_x", "http://h/x?sig=" + 6 * "\udcff" + "#x?no-secret"]
)
def test_the_query_of_any_url_is_hidden(tmp_path: pathlib.Path, url: str) -> None:
    value = url.partition("=")[2].partition("#")[0]
    document = JobDocument.model_validate(job_document(tmp_path / "pool")).model_copy(update={"url": url})
    request = make_request(tmp_path / "pool", url)
    for each in (secrets.Secrets.of_request(request), secrets.Secrets.of_job(document, {})):
        sent = urllib.parse.quote(value, errors="surrogateescape")
        assert each.hide(f"{value} {sent} no-secret") == "*** *** no-secret"


@pytest.mark.parametrize("value", ["a\\bcdefgh", "abc'de\"fgh"])
@pytest.mark.parametrize(
    "echo",
    [
        "302 Found\r\nLocation: x:{}",
        "302 Found\r\nLocation: http://{}/",
        "200 OK\r\nTransfer-Encoding: {}",
        "200 OK\r\n{}",
    ],
)
def test_an_echo_with_a_backslash_or_quotes_is_hidden(tmp_path: pathlib.Path, value: str, echo: str) -> None:
    head = f"HTTP/1.1 {echo.format(value)}\r\n\r\n".encode()
    with HostileServer(lambda c, r, n: c.sendall(head)) as server:
        error = fetch_error(make_request(tmp_path / "pool", server.url(), headers=(("X-Token", value),)))
    shown = secrets.Secrets.of_headers([("X-Token", value)]).hide(error.message)
    assert secrets.MASK in shown
    assert "fgh" not in shown


def test_what_is_short_stays_and_the_longest_is_hidden_first() -> None:
    found = secrets.Secrets(["*/*", "abc", "Bearer abcdefgh", "abcdefghijkl"])
    assert (
        found.hide("GET */* abc: Bearer abcdefgh, abcdefghijkl; Bearer other") == "GET */* abc: ***, ***; Bearer other"
    )
    assert secrets.Secrets([]).hide("as it is") == "as it is"


@pytest.mark.parametrize(
    "echo",
    [
        "p%40ss%20word%21",
        urllib.parse.quote("p@ss word!", safe=""),
        base64.b64encode(b"p@ss word!").decode(),
        base64.b64encode(b"user:p@ss word!").decode(),
    ],
)
def test_a_proxys_password_is_known_in_all_its_forms(tmp_path: pathlib.Path, echo: str) -> None:
    environment = {**os.environ, "HTTPS_PROXY": "http://user:p%40ss%20word%21@proxy.example.org:3128"}
    document = JobDocument.model_validate(job_document(tmp_path))
    assert secrets.Secrets.of_job(document, environment).hide(f"<{echo}>") == "<***>"
