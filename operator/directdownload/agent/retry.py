"""Backoff for retries, and logging of a repeated failure once. Used by everything that may fail for long."""

import logging
import random
from collections.abc import Mapping

from directdownload.cluster import errors

FIRST_SECONDS = 0.5
LIMIT_SECONDS = 30
#: A refusal ends when somebody changes something; frequent retries do not help.
REFUSED_LIMIT_SECONDS = 300


class Backoff:
    """Doubling delays with jitter; `reset` after a success."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def after(self, error: Exception) -> float:
        """Seconds to wait after one more failure; longer after a refusal of the API server."""
        limit = REFUSED_LIMIT_SECONDS if isinstance(error, errors.Forbidden | errors.Invalid) else LIMIT_SECONDS
        seconds = min(limit, FIRST_SECONDS * 2.0 ** min(self._failures, 16)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures += 1
        if isinstance(error, errors.TooManyRequests):
            seconds = max(seconds, error.retry_after_seconds)
        return seconds


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
