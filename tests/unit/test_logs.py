"""Logs: one line per event, in UTC, without what looks like a credential."""

import datetime
import json
import logging
from collections.abc import Iterator

import pytest

from directdownload import logs

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


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
