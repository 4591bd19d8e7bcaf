"""What Prometheus reads from an agent beside requests and process figures; docs/metrics.md is its reference."""

import prometheus_client

KEYSTORE_DRIFT = prometheus_client.Counter(
    "directdownload_keystore_drift",
    "Entries of the host's keystore that someone else changed or removed, or whole stores, and the agent repaired.",
    ["host", "kind"],
)
KEYSTORE_SYNC_SECONDS = prometheus_client.Histogram(
    "directdownload_keystore_sync_duration_seconds",
    "Bringing the host's keystore in line with the wishes, reading it back included.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
