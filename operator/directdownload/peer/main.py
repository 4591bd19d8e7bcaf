"""The two processes of the peer server: `directdownload peer opener` and `directdownload peer server` call these.

SIGTERM and SIGINT end both at once: a client that loses its server reads from another one.
"""

import contextlib
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable

import directdownload
from directdownload.observe import logs
from directdownload.peer import asking
from directdownload.peer.health import HealthServer
from directdownload.peer.opener import Opener
from directdownload.peer.server import Server
from directdownload.peer.settings import OpenerSettings, ServerSettings
from directdownload.resources import peers

logger = logging.getLogger(__name__)

#: A thread per connection: what it calls needs less than the 8 MiB that it would get.
_STACK_BYTES = 256 * 1024
#: Heaps of the C library: by default up to eight per processor, each of which keeps what one thread once needed.
_ARENAS = 2
_M_ARENA_MAX = -8
_DESCRIPTORS = 65536


def opener(settings: OpenerSettings) -> int:
    """Runs until a signal; returns the exit status of the process."""
    logs.configure(settings.log_format, settings.log_level)
    _be_small()
    config = os.path.join(settings.directory, peers.CONFIG)
    process = Opener(settings.socket, config, settings.pool_roots, (os.geteuid(), peers.SERVER_UID))
    try:
        process.start()
    except OSError as error:
        logger.error("The socket %s cannot be made: %s", settings.socket, error)
        return 1
    _on_signal(process.close)
    logger.info(
        "Opener %s: pool roots %s, socket %s",
        directdownload.__version__,
        ", ".join(settings.pool_roots),
        settings.socket,
    )

    def turn() -> None:
        # nothing outside can probe a process without a network: a timer of the C library ends one that stands still
        faulthandler.dump_traceback_later(settings.watchdog_seconds, exit=True)

    try:
        process.serve(turn)
    finally:
        faulthandler.cancel_dump_traceback_later()
    logger.info("Opener ends")
    return 0


def server(settings: ServerSettings) -> int:
    """Runs until a signal; returns the exit status of the process."""
    logs.configure(settings.log_format, settings.log_level)
    _be_small()
    process = Server(settings.directory, lambda content: asking.ask(settings.opener_socket, content))
    checks = {
        "/healthz": lambda: "the server takes no connections any more" if process.stuck else "",
        "/readyz": lambda: process.problem or _silence(settings.opener_socket),
    }
    try:
        health = HealthServer(settings.health_address, settings.health_port, checks)
    except OSError as error:
        logger.error("Cannot listen at port %d for health: %s", settings.health_port, error.strerror or error)
        return 1
    health.start()
    _on_signal(process.close)
    logger.info(
        "Peer server %s: files in %s, opener at %s, health at port %d",
        directdownload.__version__,
        settings.directory,
        settings.opener_socket,
        health.port,
    )
    process.serve()
    logger.info("Peer server ends")
    return 0


def _silence(opener_socket: str) -> str:
    """Why the opener cannot be asked; empty if it can."""
    try:
        asking.reach(opener_socket)
    except OSError as error:
        return f"the opener does not answer at {opener_socket}: {error.strerror or error}"
    return ""


def _be_small() -> None:
    threading.stack_size(_STACK_BYTES)
    # another C library may have no such function
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, _DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _on_signal(close: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: close())
