"""The dashboard as a whole: watches, server, and the address for the browser. Called by the command line."""

import asyncio
import contextlib
import signal
import threading
import webbrowser
from collections.abc import Callable

from directdownload.cluster import client
from directdownload.dashboard.events import HostEvents
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.server import Server
from directdownload.dashboard.watches import Watches


async def serve(
    api: client.Api,
    *,
    zone: str | None,
    namespace: str | None,
    port: int,
    browser: bool,
    tell: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM. `namespace`: show no other; None: all that may be read. `tell` gets each address,
    which is good for one browser. Raises OSError if the port is taken."""
    picture = Picture(zone)
    watches = Watches(api, picture, namespace, namespace or api.namespace)
    # A used token is replaced: the address of the next browser is told then.
    server = Server(
        picture, HostEvents(api, picture), watches.first_view, lambda: tell(f"Next browser: {server.address}"), port
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    tell(f"Dashboard: {server.address}")
    tell("Each address is good for one browser. Ctrl-C ends the dashboard.")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watches.run()), group.create_task(server.run())]
        if browser:
            # A browser of a terminal returns when it is closed: the end does not wait for it.
            threading.Thread(target=_open, args=(server.address,), daemon=True).start()
        await stopped.wait()
        for task in tasks:
            task.cancel()


def _open(address: str) -> None:
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
