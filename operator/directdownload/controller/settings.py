"""The controller's settings; built once from flags and environment by `cli/pods.py`."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """`job_template` is a complete batch/v1 Job manifest; `pool_roots` the host directories that jobs mount."""

    namespace: str
    pod_name: str
    job_template: pathlib.Path
    pool_roots: tuple[str, ...]
    lease_name: str = "direct-download-operator"
    health_port: int = 8080
    #: none: metrics are served at the health port, to everybody
    metrics_port: int | None = None
    #: none: a self-signed certificate
    metrics_certificate: pathlib.Path | None = None
    #: none: hosts do not serve each other
    peers_port: int | None = None
    #: with the authority of the peers
    peers_secret: str = "direct-download-operator-peers"  # noqa: S105 - a name
    log_format: str = "text"
    log_level: str = "info"
