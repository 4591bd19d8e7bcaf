"""How many uploads run at once, and how long each may take. Thread-safe, no clock."""

import collections
import contextlib
import statistics
import threading
from collections.abc import Iterator
from typing import TypeVar

_K = TypeVar("_K")

#: At once: of all (each has a buffer), of one content, and of one content to one host.
UPLOADS_LIMIT, PER_CONTENT, PER_HOST = 64, 3, 2
#: A piece within the longest of these seconds, its bytes at this rate, and so many times the median of the content.
LEAST_SECONDS, LEAST_BYTES_PER_SECOND, _MEDIANS = 10.0, 1024 * 1024, 8
_SAMPLES = 31
_CONTENTS_LIMIT = 1024
_FIRST_SECONDS = 1.0
_RETRY_SECONDS = (0.05, 5.0)


class FullError(Exception):
    """As many uploads as may be run already; worth another try after `retry_seconds`."""

    def __init__(self, retry_seconds: float) -> None:
        super().__init__(f"full for {retry_seconds:.2f} s")
        self.retry_seconds = retry_seconds


class Uploads:
    """Those of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: collections.Counter[tuple[str, str]] = collections.Counter()
        self._of_content: collections.Counter[str] = collections.Counter()
        self._seconds: collections.OrderedDict[str, collections.deque[float]] = collections.OrderedDict()

    @property
    def running(self) -> int:
        return sum(self._running.values())

    @contextlib.contextmanager
    def one(self, content: str, host: str) -> Iterator[None]:
        """Room for one upload. Raises FullError."""
        with self._lock:
            if (
                self.running >= UPLOADS_LIMIT
                or self._of_content[content] >= PER_CONTENT
                or self._running[content, host] >= PER_HOST
            ):
                least, most = _RETRY_SECONDS
                raise FullError(min(most, max(least, self._median(content))))
            self._running[content, host] += 1
            self._of_content[content] += 1
        try:
            yield
        finally:
            with self._lock:
                _decrease(self._running, (content, host))
                _decrease(self._of_content, content)

    def took(self, content: str, seconds: float) -> None:
        """A piece was sent whole."""
        with self._lock:
            samples = self._seconds.setdefault(content, collections.deque(maxlen=_SAMPLES))
            samples.append(seconds)
            self._seconds.move_to_end(content)
            if len(self._seconds) > _CONTENTS_LIMIT:
                self._seconds.popitem(last=False)

    def limit(self, content: str, size_bytes: int) -> float:
        """After which a piece of `size_bytes` is given up."""
        with self._lock:
            return max(LEAST_SECONDS, size_bytes / LEAST_BYTES_PER_SECOND, _MEDIANS * self._median(content))

    def _median(self, content: str) -> float:
        samples = self._seconds.get(content)
        return statistics.median(samples) if samples else _FIRST_SECONDS


def _decrease(counts: collections.Counter[_K], key: _K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
