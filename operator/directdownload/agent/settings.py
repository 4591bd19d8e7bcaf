"""Settings of the agent: built once from flags and environment by the command line, then only passed on."""

import dataclasses
import os.path
import pathlib

from directdownload.agent.pools import prober


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Each interval has the default that production uses; tests shorten some."""

    #: the Host of the same name is ours
    node_name: str
    #: host directories with pools, mounted at the same path
    pool_roots: tuple[str, ...]
    #: host directories with keystore and password file, mounted at the same path
    keystore_roots: tuple[str, ...] = ()
    #: directory on the host's disk for state that must survive a restart
    state_directory: str = "/var/lib/directdownload"
    #: 0 takes a free port
    health_port: int = 8081
    #: None: the health port serves metrics, to everybody
    metrics_port: int | None = None
    #: None: a self-signed certificate
    metrics_certificate: pathlib.Path | None = None
    #: for logs, and for agents that wait for the state directory
    pod_name: str = ""
    pod_namespace: str = ""
    #: None: the pod's service account
    kubeconfig: str | None = None
    log_format: str = "text"
    log_level: str = "info"
    #: interval of checks of a pool's facts; the longest time that a full or lost pool stays unnoticed
    facts_interval_seconds: float = 15
    #: intervals of journal scans, with and without a running download
    active_scan_seconds: float = 1
    idle_scan_seconds: float = 2
    #: interval of checks of published files and leftovers; the longest time that a lost file stays unnoticed
    observe_interval_seconds: float = 30
    #: one placement that files on disk name is read per interval; each again after ten intervals
    check_interval_seconds: float = 30
    #: the longest time until a host that took over a copy of a shared pool notices its loss or change
    foreign_interval_seconds: float = 60
    #: small changes of free space wait this long
    numbers_interval_seconds: float = 300
    #: a pool that does not answer within this time counts as hung
    pool_timeout_seconds: float = 5
    #: limits of one pool's work directory; a pool over them is not usable
    pool_budget: prober.Budget = dataclasses.field(default_factory=prober.Budget)
    #: socket for the CSI plugin of this host; empty: no volumes
    csi_socket: str = ""
    #: a volume's first request waits this long for the controller to see it
    first_answer_seconds: float = 5
    #: whether this host serves others, and reads from them
    peers: bool = False
    #: interval of checks of keystore and password file; the longest time that a change stays unnoticed
    keystore_poll_seconds: float = 1

    def __post_init__(self) -> None:
        # roots are compared with paths, which have no trailing slash
        for name in ("pool_roots", "keystore_roots"):
            object.__setattr__(self, name, tuple(os.path.normpath(root) for root in getattr(self, name)))
