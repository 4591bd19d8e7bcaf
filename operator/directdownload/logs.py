"""Logging for long-running processes: one line per event on stderr, as text or JSON, times in UTC.

Controller and agent call `configure` once at start. Promises: an event is one line (a traceback in text adds lines);
what looks like a credential is masked, in messages, fields and tracebacks alike; libraries that log bodies of API
answers (Secrets among them) stay silent at debug.
"""

import datetime
import json
import logging
import re
import sys
from typing import Any

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

#: What these log at debug holds bodies and headers of requests.
_TALKATIVE = ("kubernetes", "aiohttp", "asyncio", "urllib3")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Fields that kopf attaches for its own handlers.
_INTERNAL = frozenset({"settings", "k8s_skip"})
_MASK = "***"
_SECRETS = (
    # user:password@ and the query (signed URLs) of a URL
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/@\s'\"?#]+@"), rf"\1{_MASK}@"),
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"?#]+\?)[^\s'\"#]+"), rf"\1{_MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_MASK}"),
    # a JSON web token anywhere
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?"), _MASK),
    (
        re.compile(r"(?i)\b(password|passphrase|passwd|secret|token)(['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]+"),
        rf"\1\2{_MASK}",
    ),
)


def configure(log_format: str, level: str) -> None:
    """`log_format`: one of `FORMATS`; `level`: one of `LEVELS`. Replaces whatever was configured before.

    Raises ValueError for anything else.
    """
    if log_format not in FORMATS:
        raise ValueError(f"log format {log_format!r}: expected one of {', '.join(FORMATS)}")
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r}: expected one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(threshold, logging.INFO))
    logging.captureWarnings(True)


def mask(text: str) -> str:
    """`text` with what looks like a credential replaced by `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO directdownload.agent.main: message key=value`"""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        # a line break inside a message (names and errors come from outside) must not look like another event
        line = mask(f"{record.getMessage()}{fields}").replace("\r", "\\r").replace("\n", "\\n")
        trace = _trace(self, record)
        return f"{_time(record)} {record.levelname} {record.name}: {line}" + (f"\n{trace}" if trace else "")


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, message, the fields given as `extra`, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            **_fields(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        if trace := _trace(self, record):
            event["exception"] = trace
        return json.dumps(_masked(event), default=lambda value: mask(str(value)), ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in _INTERNAL}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {str(key): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return mask("\n".join(parts))


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
