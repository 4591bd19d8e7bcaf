"""The agent's pauses after failures, and a log that has a repeated failure once. For everything that may fail long."""

import dataclasses
import logging
from collections.abc import Mapping

from directdownload.backoff import Backoff
from directdownload.cluster import errors

_BACKOFF = Backoff(0.5, 30, (0.5, 1.0))
#: A refusal ends when somebody changes something; frequent retries do not help.
_AFTER_REFUSAL = dataclasses.replace(_BACKOFF, most_seconds=300)


def pause_seconds(failures: int, error: Exception) -> float:
    """Seconds to wait after `error`, the last of `failures` in a row; longer after a refusal of the API server."""
    refused = isinstance(error, errors.Forbidden | errors.Invalid)
    asked = error.retry_after_seconds if isinstance(error, errors.TooManyRequests) else 0.0
    return max((_AFTER_REFUSAL if refused else _BACKOFF).pause_seconds(failures), asked)


class Complaint:
    """Logs a message only when it differs from the last one."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last = ""

    def say(self, level: int, text: str, about: Mapping[str, object] | None = None) -> None:
        """`about` is as `logs.about` makes it, or further fields of the line."""
        if text != self._last:
            self._logger.log(level, text, extra=about)
        self._last = text

    def clear(self, text: str, about: Mapping[str, object] | None = None) -> None:
        """Ends the complaint; logs `text` if there was one."""
        if self._last:
            self._logger.info(text, extra=about)
        self._last = ""
