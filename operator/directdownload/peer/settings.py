"""Settings of the two processes of the peer server: built once by the command line, then only passed on."""

import dataclasses

from directdownload.resources import peers


@dataclasses.dataclass(frozen=True, slots=True)
class OpenerSettings:
    #: host directories with pools, mounted at the same path; pools elsewhere are left out
    pool_roots: tuple[str, ...]
    directory: str = peers.SERVER_DIRECTORY
    socket: str = peers.OPENER_SOCKET
    log_format: str = "text"
    log_level: str = "info"
    #: an accepting thread that stands still for this long ends the process
    watchdog_seconds: float = 60


@dataclasses.dataclass(frozen=True, slots=True)
class ServerSettings:
    directory: str = peers.SERVER_DIRECTORY
    opener_socket: str = peers.OPENER_SOCKET
    #: of /healthz, /readyz and /metrics; an empty address: all
    health_address: str = ""
    health_port: int = 0
    log_format: str = "text"
    log_level: str = "info"
