"""`directdownload dashboard` as a process, the fleet in a real API server that it shows, and a headless Chromium."""

import asyncio
import contextlib
import copy
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.cluster import harness
from tests.world import checkout
from tests.world.cluster_support import Proxy, proxied
from tests.world.kube import Kube, Object
from tests.world.waiting import until

from directdownload.cluster.kinds import Resource

_CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--renderer-process-limit=1", "--in-process-gpu"),
)
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")


class Dashboard:
    """The process; use as a context manager. It has ended well at the end."""

    def __init__(self, kubeconfig: pathlib.Path, *arguments: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._output = pathlib.Path(self._directory.name) / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [checkout.DIRECTDOWNLOAD, "dashboard", "--no-browser", "--kubeconfig", str(kubeconfig), *arguments],
                env=checkout.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        until("the address of the dashboard", lambda: self.process.poll() is not None or self.addresses)
        assert self.addresses, self.output
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        status, output = self.process.wait(60), self.output
        self._directory.cleanup()
        assert (status, "Traceback" in output) == (0, False), output

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def addresses(self) -> list[str]:
        """All that it has printed: the last one is good for one browser."""
        return _ADDRESS.findall(self.output)

    @property
    def origin(self) -> str:
        return self.addresses[0].partition("/?")[0]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's, without a window."""
    subprocess.run([str(harness.CLUSTER_DIRECTORY / "tools.sh"), "browser"], check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, headless=True, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def stranger(browser: Browser, **options: Any) -> Iterator[Page]:
    """An empty page of a browser without cookies."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(60_000)
    try:
        yield context.new_page()
    finally:
        context.close()


@contextlib.contextmanager
def entered(browser: Browser, dashboard: Dashboard, path: str = "/", **options: Any) -> Iterator[Page]:
    """A page of a browser of its own that has used the last address."""
    with stranger(browser, **options) as page:
        page.goto(dashboard.addresses[-1])
        if path != "/":
            page.goto(dashboard.origin + path)
        yield page


def axe() -> str:
    """The script of axe-core."""
    return (harness.state_root() / "cache" / "axe" / "axe.min.js").read_text()


class Fleet:
    """Writes objects of `tests.world.dashboard` through the API, with their status."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def put(self, kind: Resource, document: Object) -> None:
        body = copy.deepcopy(document)
        status, metadata = body.pop("status", None), body["metadata"]
        for field in ("uid", "resourceVersion", "generation", "creationTimestamp"):
            metadata.pop(field, None)
        namespace = metadata.get("namespace")
        self._kube.apply(kind, body, "test", namespace).object()
        if status is not None:
            # an apply, so that fields that are left out vanish
            head = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {"name": metadata["name"]}}
            self._kube.apply(kind, {**head, "status": status}, "test-status", namespace, subresource="status").object()

    def patch(self, kind: Resource, document: Object) -> None:
        """Only the status, which replaces what it names."""
        metadata = document["metadata"]
        patch = {"status": document["status"]}
        self._kube.patch(kind, metadata["name"], patch, metadata.get("namespace"), subresource="status").object()


@contextlib.contextmanager
def behind_proxy(kubeconfig: pathlib.Path, directory: pathlib.Path) -> Iterator[tuple[Proxy, pathlib.Path, Any]]:
    """A proxy before the API server in a thread of its own, a kubeconfig that leads through it, and what calls a
    method of the proxy in that thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    way = proxied(kubeconfig, directory)
    try:
        proxy, path = asyncio.run_coroutine_threadsafe(way.__aenter__(), loop).result(60)
        yield proxy, path, loop.call_soon_threadsafe
        asyncio.run_coroutine_threadsafe(way.__aexit__(None, None, None), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
