"""Metrics of an agent, beside those of requests and of the process."""

from directdownload import catalogue
from directdownload.resources.host import DriftKind

CATALOGUE = catalogue.Catalogue()
KEYSTORE_DRIFT = CATALOGUE.counter(
    "keystore_drift_total",
    "entries of the agent, or whole keystores, that others changed or removed and the agent repaired; "
    "`kind` is `EntryMissing`, `EntryReplaced` or `StoreMissing`",
    *("host", "kind"),
)
LEDGER_SAVED = CATALOGUE.gauge(
    "ledger_saved",
    "1 while the agent's ledger of copies is on disk; 0 while its state directory cannot be written: published copies "
    "are then not reported yet",
    "host",
)
KEYSTORE_SYNC_SECONDS = CATALOGUE.histogram(
    "keystore_sync_duration_seconds",
    "one sync of the keystore, including reading it back",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


def begin(host: str) -> None:
    """Sets initial values, so that the first event on `host` counts as an increase."""
    for kind in set(DriftKind) - {DriftKind.UNKNOWN}:
        KEYSTORE_DRIFT.labels(host=host, kind=kind)
    LEDGER_SAVED.labels(host=host).set(1)
