"""Logging of controller, agent and download job: one line per event on stderr, as text or JSON, times in UTC.

They call `configure` once at start. Promises: an event is one printable line (a traceback in text adds lines), even an
uncaught error; text that looks like a credential is masked, in messages, fields and tracebacks alike; libraries that
log bodies of API answers (Secrets among them) stay silent at debug.

A line about an object names it in the JSON field `object` (text has it in the message): `concerning` for all lines of a
block, including those of libraries; `about` for one line.
"""

import contextlib
import contextvars
import datetime
import json
import logging
import re
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

from directdownload import escaping

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

#: At debug these log bodies and headers of requests.
_TALKATIVE = ("kubernetes", "aiohttp", "asyncio", "urllib3")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Fields that kopf attaches for its own handlers.
_INTERNAL = frozenset({"settings", "k8s_skip", "k8s_ref"})
#: The object that the lines of this block, or else of this process, are about.
_concerns: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("concerns", default={})  # noqa: B039 - never changed
_MASK = "***"
#: Limit on a line of text.
_LINE_LIMIT = 64 * 1024
#: Bounded in front of the sign of a secret: otherwise the work grows with the square of the length, and the text may be
#: a tenant's or a server's.
_SECRETS = (
    # user:password@ and the query (signed URLs) of a URL
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/@\s'\"?#]+@"), rf"\1{_MASK}@"),
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"?#]{1,4096}\?)[^\s'\"#]+"), rf"\1{_MASK}"),
    # a private key, also with its line breaks escaped, or cut off
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), _MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_MASK}"),
    # a JSON web token anywhere
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?"), _MASK),
    (
        re.compile(r"(?i)\b(password|passphrase|passwd|secret|token)(['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]+"),
        rf"\1\2{_MASK}",
    ),
)


def configure(log_format: str, level: str) -> None:
    """`log_format`: one of `FORMATS`; `level`: one of `LEVELS`. Replaces any earlier configuration.

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
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def about(kind: str, key: str, **fields: Any) -> dict[str, Any]:
    """`extra` of a line about the object `key`, `namespace/name` or `name`; `fields` are further facts about it."""
    namespace, _, name = key.rpartition("/")
    reference = {"kind": kind, **({"namespace": namespace} if namespace else {}), "name": name}
    return {"object": reference, **{field: value for field, value in fields.items() if value not in (None, "")}}


@contextlib.contextmanager
def concerning(kind: str, key: str, **fields: Any) -> Iterator[None]:
    """Lines of this block, and of tasks started in it, are about that object unless they name another one."""
    token = _concerns.set({**_concerns.get(), **about(kind, key, **fields)})
    try:
        yield
    finally:
        _concerns.reset(token)


def _uncaught(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(__name__).critical("Uncaught: %s", kind.__name__, exc_info=(kind, error, trace))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None:
        _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def mask(text: str) -> str:
    """`text` with everything that looks like a credential replaced by `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO directdownload.agent.main: message key=value`"""

    def format(self, record: logging.LogRecord) -> str:
        # The message names the object.
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items() if key != "object")
        # names and errors come from outside: their text must neither look like another event nor control a terminal
        line = escaping.escaped(mask(f"{record.getMessage()}{fields}"), _LINE_LIMIT)
        trace = "\n".join(escaping.escaped(part, _LINE_LIMIT) for part in _trace(self, record).split("\n"))
        return f"{_time(record)} {record.levelname} {record.name}: {line}" + (f"\n{trace}" if trace else "")


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, message, the object it is about, `extra` fields, and any `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            **_concerns.get(),
            **_reference(record),
            **_fields(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        if trace := _trace(self, record):
            event["exception"] = trace
        text = json.dumps(_masked(event), default=lambda value: escaping.valid(mask(str(value))), ensure_ascii=False)
        return escaping.one_json_line(text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in _INTERNAL}


def _reference(record: logging.LogRecord) -> dict[str, Any]:
    """kopf's reference to the object of a line."""
    found = getattr(record, "k8s_ref", None)
    if not isinstance(found, dict) or not found.get("name"):
        return {}
    namespace = found.get("namespace")
    return about(str(found.get("kind")), f"{namespace}/{found['name']}" if namespace else str(found["name"]))


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return escaping.valid(mask(value))
    if isinstance(value, dict):
        return {escaping.valid(str(key)): _masked(item) for key, item in value.items()}
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
