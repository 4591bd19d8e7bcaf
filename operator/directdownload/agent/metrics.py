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
VOLUMES = CATALOGUE.gauge(
    "volumes",
    "volumes of pods on the host; `state` is `mounted`, or `waiting` for a copy; only with a CSI plugin",
    *("host", "state"),
)
VOLUME_WAITING_SECONDS = CATALOGUE.gauge(
    "volume_waiting_seconds",
    "how long the volume that has waited longest has waited for its copy; 0: none waits",
    "host",
)
VOLUME_PUBLISH_SECONDS = CATALOGUE.histogram(
    "volume_publish_duration_seconds",
    "time from a volume's first request until its copy was there to be mounted",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600),
)
CSI_CONNECTED = CATALOGUE.gauge(
    "csi_connected",
    "1 while the CSI plugin reports its mounts to the agent, at least every 60 s, else 0; only with a CSI plugin",
    "host",
)


def begin(host: str) -> None:
    """Sets initial values, so that the first event on `host` counts as an increase."""
    for kind in set(DriftKind) - {DriftKind.UNKNOWN}:
        KEYSTORE_DRIFT.labels(host=host, kind=kind)
    LEDGER_SAVED.labels(host=host).set(1)
