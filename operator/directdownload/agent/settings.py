"""Settings of the agent: built once from flags and environment by the command line, then only passed on."""

import dataclasses
import os.path
import pathlib

from directdownload.agent import prober


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Each interval has the default that production uses; tests shorten some."""

    #: the Host of the same name is ours
    node_name: str
    #: host directories mounted at the same path; pools lie below
    pool_roots: tuple[str, ...]
    #: host directories mounted at the same path; the keystore and the file of its password lie below
    keystore_roots: tuple[str, ...] = ()
    #: what must survive a restart; on the host's disk
    state_directory: str = "/var/lib/directdownload"
    #: 0 takes a free port
    health_port: int = 8081
    #: none: metrics are served at the health port, to everybody
    metrics_port: int | None = None
    #: none: a certificate of our own making
    metrics_certificate: pathlib.Path | None = None
    #: for logs, and for who finds the state directory taken
    pod_name: str = ""
    pod_namespace: str = ""
    #: none: the pod's service account
    kubeconfig: str | None = None
    log_format: str = "text"
    log_level: str = "info"
    #: how often a pool's size is asked for; also how long a full or lost pool goes unnoticed
    facts_interval_seconds: float = 15
    #: how often journals are looked at while a download runs here, and while none does
    active_scan_seconds: float = 1
    idle_scan_seconds: float = 2
    #: how often published files are looked at, and what else lies there: how long a lost file goes unnoticed
    observe_interval_seconds: float = 30
    #: one placement that files on disk name is asked for at a time: is it still there? Each again after ten of these
    check_interval_seconds: float = 30
    #: how long a host that took over a copy of a shared pool may take to notice that it is lost or changed
    foreign_interval_seconds: float = 60
    #: small changes of free space wait this long
    numbers_interval_seconds: float = 300
    #: a pool that does not answer for so long is taken for hung
    pool_timeout_seconds: float = 5
    #: what one pool's work directory may hold; a pool with more is not usable
    pool_budget: prober.Budget = dataclasses.field(default_factory=prober.Budget)
    #: how often the keystore's file is looked at, and the file of its password: how long a change goes unnoticed
    keystore_poll_seconds: float = 1

    def __post_init__(self) -> None:
        # roots are compared with paths, which have no trailing slash
        for name in ("pool_roots", "keystore_roots"):
            object.__setattr__(self, name, tuple(os.path.normpath(root) for root in getattr(self, name)))
