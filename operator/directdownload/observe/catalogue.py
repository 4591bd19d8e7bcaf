"""Metrics that carry their own description: the help text that a scrape shows is the row of docs/metrics.md.

`health`, `controller/metrics.py` and `agent/metrics.py` each define theirs through a `Catalogue`; `metrics_reference`
makes the tables of the page from them, and tests compare alerts and dashboard with them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import prometheus_client
from prometheus_client.core import GaugeMetricFamily

Type = Literal["counter", "gauge", "histogram"]


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """One metric. `name` is the family's: the series of a histogram append `_bucket`, `_sum` and `_count`."""

    name: str
    type: Type
    labels: tuple[str, ...]
    meaning: str


class Catalogue:
    """The metrics of one part of the product. All names begin with `directdownload_`, which callers leave out."""

    def __init__(self) -> None:
        self._descriptions: dict[str, Description] = {}

    @property
    def descriptions(self) -> Mapping[str, Description]:
        """By name, in the order of definition."""
        return self._descriptions

    def counter(self, name: str, meaning: str, *labels: str) -> prometheus_client.Counter:
        """`name` ends in `_total`."""
        return prometheus_client.Counter(self._describe(name, "counter", labels, meaning), meaning, labels)

    def gauge(self, name: str, meaning: str, *labels: str) -> prometheus_client.Gauge:
        return prometheus_client.Gauge(self._describe(name, "gauge", labels, meaning), meaning, labels)

    def histogram(self, name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> prometheus_client.Histogram:
        described = self._describe(name, "histogram", labels, meaning)
        return prometheus_client.Histogram(described, meaning, labels, buckets=buckets)

    def computed_gauge(self, name: str, meaning: str, *labels: str) -> "ComputedGauge":
        """A gauge whose samples a collector computes at each scrape."""
        return ComputedGauge(self._describe(name, "gauge", labels, meaning), meaning, labels)

    def _describe(self, name: str, kind: Type, labels: tuple[str, ...], meaning: str) -> str:
        full = f"directdownload_{name}"
        self._descriptions[full] = Description(full, kind, labels, meaning)
        return full


@dataclasses.dataclass(frozen=True, slots=True)
class ComputedGauge:
    """A gauge that a collector fills at a scrape."""

    name: str
    meaning: str
    labels: tuple[str, ...]

    def family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)
