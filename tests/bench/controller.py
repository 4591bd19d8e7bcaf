"""A controller's process that a bench has started: what it says of itself, and what the system says of it."""

import collections
import dataclasses
import os
import pathlib
import subprocess
import urllib.request

from prometheus_client import parser
from tests.bench import turns


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (sample.name, sample.labels, sample.value)
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        return sum(
            value
            for found, has, value in self._samples
            if found == name and all(has.get(key) == wanted for key, wanted in labels.items())
        )

    @property
    def depth(self) -> float:
        return self.sum("directdownload_queue_depth")

    def reconciles(self) -> dict[str, dict[float, float]]:
        """How many took at most so many seconds, by kind."""
        found: dict[str, dict[float, float]] = collections.defaultdict(lambda: collections.defaultdict(float))
        for name, has, value in self._samples:
            if name == "directdownload_reconcile_duration_seconds_bucket":
                found[has["kind"]][float(has["le"])] += value
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Controller:
    process: subprocess.Popen[bytes]
    port: int
    log: pathlib.Path
    began: float
    turns: turns.Record

    def metrics(self) -> Metrics:
        """Raises OSError while nothing answers."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return Metrics(answer.read().decode())

    def says(self, words: str) -> bool:
        return words in self.log.read_text()

    def cpu_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, field: str) -> float:
        """MiB; `VmHWM` is the peak, `VmRSS` what it has now."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024
