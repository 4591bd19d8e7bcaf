"""Logs: one line per event, in UTC, without what looks like a credential."""

import asyncio
import datetime
import json
import logging
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from tests.world import checkout

from directdownload.observe import logs

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


def test_json_lines_carry_time_level_logger_message_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logging.getLogger("a.b").warning("two\nlines of %s", "text", extra={"pool": "p", "bytes": 5, "path": object})
    event = json.loads(capsys.readouterr().err)
    moment = datetime.datetime.fromisoformat(event.pop("time"))
    assert moment.utcoffset() == datetime.timedelta()
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 60
    assert event.pop("path")
    assert event == {"level": "warning", "logger": "a.b", "message": "two\nlines of text", "pool": "p", "bytes": 5}


def test_text_is_one_line_whatever_the_message_holds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    logging.getLogger("a.b").info("name\n2026-01-01T00:00:00.000Z ERROR forged", extra={"pool": "p"})
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.split(" ", 1)[1] == "INFO a.b: name\\n2026-01-01T00:00:00.000Z ERROR forged pool=p\n"


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_nothing_that_a_terminal_obeys_and_no_byte_that_is_no_text_stands_in_a_line(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    logs.configure(log_format, "info")
    name = "a\udcff\x1b[2J\x7f\x9b\u202e"
    try:
        raise OSError(name)
    except OSError:
        logging.getLogger("a.b").exception("Cannot read %s", name, extra={"file": name, name: [name]})
    text = capsys.readouterr().err
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\xff" in text
    if log_format == "json":
        shown = name.replace("\udcff", "\\xff")
        event = json.loads(text)
        assert event["message"] == f"Cannot read {shown}", "readers of JSON get what was meant"
        assert (event["file"], event[shown]) == (shown, [shown])
    else:
        assert "Cannot read a\\xff\\x1b[2J\\x7f\\u009b\\u202e" in text


@pytest.mark.parametrize("log_format", logs.FORMATS)
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET https://user:hunter2-x@example.org/a failed", "hunter2-x"),
        ("GET https://example.org/a?X-Amz-Signature=deadbeef&x=1 failed", "deadbeef"),
        ("Authorization: Bearer abcdefgh.ijkl", "abcdefgh"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        (f"got {JWT}", "eyJ"),
        ("{'password': 'hunter2-x'}", "hunter2-x"),
        ("keystore.passphrase=hunter2-x", "hunter2-x"),
    ],
)
def test_what_looks_like_a_credential_is_masked_everywhere(
    capsys: pytest.CaptureFixture[str], log_format: str, text: str, secret: str
) -> None:
    logs.configure(log_format, "info")
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("a").exception("failed: %s", text, extra={"field": text, "nested": {"list": [text]}})
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "***" in written
    assert secret not in written


@pytest.mark.parametrize("piece", ["a-", "eyJabcdefgh-", "http://a", "token=token=", "bearer "])
def test_a_long_hostile_text_costs_little(piece: str) -> None:
    """256 KiB took half a minute when the work grew with the square of the length, and all else waits meanwhile."""
    text = piece * (262144 // len(piece))
    began = time.process_time()
    logs.mask(text)
    assert time.process_time() - began < 3


def test_what_is_no_credential_stays(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    text = "GET https://example.org:8080/a/b failed; PATCH /apis/x/hosts/kvm-1/status (403): sha256:abc basic idea"
    logging.getLogger("a").info(text)
    assert text in capsys.readouterr().err


def test_libraries_do_not_tell_bodies_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "debug")
    logging.getLogger("kubernetes.client.rest").debug("response body: secret")
    logging.getLogger("directdownload.x").debug("ours")
    logging.getLogger("kubernetes.client.rest").warning("theirs")
    written = capsys.readouterr().err
    assert "secret" not in written
    assert "ours" in written
    assert "theirs" in written


@pytest.mark.parametrize(("log_format", "level"), [("xml", "info"), ("text", "loud")])
def test_other_formats_and_levels_are_refused(log_format: str, level: str) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        logs.configure(log_format, level)


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_lines_of_a_block_and_of_its_tasks_say_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logger = logging.getLogger("a")

    async def work() -> None:
        logger.info("inside")

    with logs.concerning("Template", "images/debian", host="kvm-1", reason=""):
        task = asyncio.create_task(work())
        logging.getLogger("a.library").warning("theirs")
        logger.info("another", extra=logs.about("Host", "kvm-2", attempt=3))
    await task
    logger.info("outside")
    template = {"kind": "Template", "namespace": "images", "name": "debian"}
    found = [(e["message"], e.get("object"), e.get("host"), e.get("attempt")) for e in written(capsys)]
    assert found == [
        ("theirs", template, "kvm-1", None),
        ("another", {"kind": "Host", "name": "kvm-2"}, "kvm-1", 3),
        ("inside", template, "kvm-1", None),
        ("outside", None, None, None),
    ]


def test_what_kopf_says_of_an_object_is_a_reference_like_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("json", "info")
    logger = logging.getLogger("kopf.objects")
    # Where kopf is loaded, a handler of its own takes the settings for real ones.
    monkeypatch.setattr(logger, "handlers", [])
    reference = {"apiVersion": "v1", "kind": "Zone", "name": "zone-1", "namespace": None, "uid": "u"}
    logger.warning("kept", extra={"k8s_ref": reference, "k8s_skip": True, "settings": 1})
    (event,) = written(capsys)
    assert event["object"] == {"kind": "Zone", "name": "zone-1"}
    assert set(event) == {"time", "level", "logger", "message", "object"}


def test_text_names_the_object_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    with logs.concerning("Host", "kvm-1"):
        logging.getLogger("a").info("Host kvm-1: Up", extra=logs.about("Host", "kvm-1", reason="Up"))
    assert capsys.readouterr().err.endswith("INFO a: Host kvm-1: Up reason=Up\n")


def test_warnings_and_libraries_write_lines_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    # pytest records warnings; this is what Python does with one outside of it.
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("json", "info")
        warnings.warn("old\nthing", DeprecationWarning, stacklevel=1)
    for name in ("kopf.activities", "aiohttp.server", "asyncio"):
        logging.getLogger(name).error("theirs", exc_info=ValueError("password=hunter2-x"))
    events = written(capsys)
    assert [event["logger"] for event in events] == ["py.warnings", "kopf.activities", "aiohttp.server", "asyncio"]
    assert "old" in events[0]["message"]
    assert all("hunter2-x" not in event["exception"] for event in events[1:])


@pytest.mark.parametrize("where", ["raise failure", "import threading; threading.Thread(target=fail).start()"])
def test_what_nobody_caught_is_one_line_as_well(where: str) -> None:
    program = (
        "from directdownload.observe import logs\n"
        "failure = ValueError('https://user:hunter2-x@example.org/')\n"
        "def fail(): raise failure\n"
        "logs.configure('json', 'info')\n" + where
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=checkout.environment(), capture_output=True, text=True, check=False
    )
    (event,) = (json.loads(line) for line in done.stderr.splitlines())
    assert (event["level"], event["message"]) == ("critical", "Uncaught: ValueError")
    assert "Traceback" in event["exception"]
    assert "hunter2-x" not in done.stderr


@pytest.mark.parametrize("end", ["\n-----END EC PRIVATE KEY-----", ""])
@pytest.mark.parametrize("line_break", ["\n", "\\n"])
def test_a_private_key_is_masked(line_break: str, end: str) -> None:
    key = f"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoGCCqGSM49{end}"
    masked = logs.mask(f"found {key.replace(chr(10), line_break)}")
    assert masked == "found ***"
