"""Metrics of an agent, beside those of requests and of the process."""

from directdownload.observe import catalogue
from directdownload.resources.host import DriftKind

CATALOGUE = catalogue.Catalogue()
KEYSTORE_DRIFT = CATALOGUE.counter(
    "keystore_drift_total",
    "repairs of the agent's entries in the keystore, or of whole stores, that something else changed or removed; "
    "`kind` is `EntryMissing`, `EntryReplaced` or `StoreMissing`",
    *("host", "kind"),
)
LEDGER_SAVED = CATALOGUE.gauge(
    "ledger_saved",
    "1 while the agent's record of copies is saved on disk; 0 while its state directory cannot be written: newly "
    "published copies then wait to be reported",
    "host",
)
KEYSTORE_SYNC_SECONDS = CATALOGUE.histogram(
    "keystore_sync_duration_seconds",
    "duration of a keystore synchronization, with reading it back",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


def begin(host: str) -> None:
    """Sets initial values, so that the first event on `host` counts as an increase."""
    for kind in set(DriftKind) - {DriftKind.UNKNOWN}:
        KEYSTORE_DRIFT.labels(host=host, kind=kind)
    LEDGER_SAVED.labels(host=host).set(1)
