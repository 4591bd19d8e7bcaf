"""The plugin's process: `directdownload csi` calls `main` with its settings.

SIGTERM and SIGINT end it cleanly. Mounts stay, so that running pods notice nothing; all that it knows is in the table
of mounts, so that it may end at any time.
"""

import asyncio
import contextlib
import logging
import os
import signal

import directdownload
from directdownload.csi import privileges, syscalls, watchdog
from directdownload.csi.publishing import Publishing
from directdownload.csi.reports import Reports
from directdownload.csi.server import Server
from directdownload.csi.settings import Settings
from directdownload.hostfiles import mountinfo
from directdownload.observe import logs

logger = logging.getLogger(__name__)


def main(settings: Settings) -> int:
    """Runs the plugin until a signal ends it; returns the exit status of the process."""
    logs.configure(settings.log_format, settings.log_level)
    # at debug hpack logs every header, and grpclib reports each call that kubelet cancels
    for name in ("grpclib", "hpack", "h2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with logs.concerning("Host", settings.node_name, host=settings.node_name):
        try:
            if problem := _problem(settings):
                logger.error("%s", problem)
                return 1
            privileges.drop()
        except privileges.PrivilegesError as error:
            logger.error("%s", error)
            return 1
        return asyncio.run(run(settings))


async def run(settings: Settings) -> int:
    """Returns 0 after SIGTERM or SIGINT; 1 if the socket cannot be made."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reports = Reports(settings.agent_socket, settings.pods, settings.mounted_interval_seconds)
    server = Server(settings, Publishing(settings, reports))
    try:
        await server.start()
    except OSError as error:
        logger.error("The socket %s cannot be made: %s", settings.socket, error)
        return 1
    logger.info(
        "CSI plugin %s of host %s: pool roots %s, socket %s",
        directdownload.__version__,
        settings.node_name,
        ", ".join(settings.pool_roots),
        settings.socket,
    )
    tasks = [asyncio.create_task(watchdog.run(settings.watchdog_seconds)), asyncio.create_task(reports.run())]
    stopped = asyncio.create_task(_wait(stop))
    try:
        await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                # a defect: the process must not go on without it
                await task
    finally:
        await server.close()
        for task in (*tasks, stopped):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    logger.info("CSI plugin ends")
    return 0


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


def _problem(settings: Settings) -> str:
    """What keeps the plugin from working on this host; empty if nothing does."""
    if missing := syscalls.missing():
        return f"This kernel lacks {missing}: volumes need Linux 5.12 or later"
    for path in (settings.kubelet_directory, *settings.pool_roots):
        if os.path.realpath(path) != path:
            return f"{path}: expected an absolute path without links; name {os.path.realpath(path)}"
    for path in (settings.pods, os.path.dirname(settings.socket)):
        if not os.path.isdir(path):
            return f"{path}: expected a directory; set --kubelet-directory to kubelet's --root-dir"
    below = mountinfo.covering(mountinfo.read(), settings.pods)
    if below is None or not below.shared:
        # pods would start with an empty directory
        return f"{settings.pods}: mounts do not reach the host; expected mountPropagation: Bidirectional"
    return ""
