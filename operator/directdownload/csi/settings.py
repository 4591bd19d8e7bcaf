"""Settings of the plugin: built once from flags and environment by the command line, then only passed on."""

import dataclasses
import os.path

from directdownload.resources import naming, volumes


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Each interval has the default that production uses; tests shorten some."""

    #: the Node, as kubelet calls it
    node_name: str
    #: host directories with pools, mounted at the same path
    pool_roots: tuple[str, ...]
    #: of the host, mounted at the same path with mounts going both ways
    kubelet_directory: str = "/var/lib/kubelet"
    agent_socket: str = "/run/directdownload/agent.sock"
    #: the longest time that the agent keeps a call of kubelet waiting; a deleted pod waits for the end of its call
    hold_seconds: float = 100
    log_format: str = "text"
    log_level: str = "info"
    #: a pool in which no file can be opened within this time counts as hung
    open_seconds: float = 20
    mounted_interval_seconds: float = volumes.MOUNTED_SECONDS
    #: an event loop that stands still for this long ends the process
    watchdog_seconds: float = 60

    def __post_init__(self) -> None:
        # paths of kubelet are compared with these, and have no trailing slash
        object.__setattr__(self, "pool_roots", tuple(os.path.normpath(root) for root in self.pool_roots))
        object.__setattr__(self, "kubelet_directory", os.path.normpath(self.kubelet_directory))

    @property
    def pods(self) -> str:
        """The directory in which all targets are."""
        return os.path.join(self.kubelet_directory, "pods")

    @property
    def socket(self) -> str:
        """kubelet looks for plugins in this directory, whatever their name."""
        return os.path.join(self.kubelet_directory, "plugins_registry", f"{naming.GROUP}.sock")
