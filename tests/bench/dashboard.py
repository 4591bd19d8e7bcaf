"""The dashboard before 5,000 hosts with ten copies each: the first page, memory, CPU, bytes to a browser, the heat map.

A real kube-apiserver with etcd, which `dashboard_seed` fills, and a headless Chromium. DASHBOARD_HOSTS,
DASHBOARD_TEMPLATES and DASHBOARD_WINDOW (seconds) make it smaller.
"""

import http.client
import os
import pathlib
import statistics
import threading
import time
import urllib.parse

from playwright.sync_api import Page, expect
from tests.bench import dashboard_seed
from tests.cluster import harness
from tests.world import dashboard as fleet
from tests.world import dashboard_process as processes
from tests.world import kube as api
from tests.world.dashboard_process import Dashboard, Fleet
from tests.world.kube import Kube
from tests.world.waiting import until

from directdownload.cluster import kinds

HOSTS = int(os.environ.get("DASHBOARD_HOSTS", "5000"))
TEMPLATES = int(os.environ.get("DASHBOARD_TEMPLATES", "10"))
WINDOW_SECONDS = float(os.environ.get("DASHBOARD_WINDOW", "30"))
_ROLLOUT = f"/rollouts/{fleet.NAMESPACE}/everywhere-0"
_TICKS = os.sysconf("SC_CLK_TCK")
#: Milliseconds between frames while the page scrolls through all of the map.
_SCROLL = """async () => {
  const frames = [], height = document.documentElement.scrollHeight - innerHeight;
  let last = performance.now();
  for (let step = 1; step <= 120; step += 1) {
    scrollTo(0, height * step / 120);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
  }
  return frames;
}"""


def measure() -> str:
    """A Markdown table."""
    with harness.ControlPlane() as control_plane:
        api.install_definitions(control_plane)
        dashboard_seed.seed(control_plane, HOSTS, TEMPLATES)
        with processes.chromium() as browser:
            began = time.monotonic()
            with Dashboard(control_plane.kubeconfig()) as running:
                printed = time.monotonic()
                with processes.stranger(browser) as first:
                    asked = time.monotonic()
                    first.goto(running.addresses[-1])
                    shown = time.monotonic()
                    hosts = _number(first)
                    rows = [
                        ("command to address", f"{printed - began:.1f} s"),
                        (f"first page ({hosts} of {HOSTS} hosts counted on it)", f"{shown - asked:.1f} s"),
                    ]
                    expect(first.locator(".big").first).to_have_text(str(HOSTS), timeout=120_000)
                    rows.append((f"command to {HOSTS} hosts", f"{time.monotonic() - began:.1f} s"))
                    expect(first.locator(".notes")).to_have_count(0, timeout=300_000)
                    rows.append((f"command to {HOSTS * TEMPLATES} copies", f"{time.monotonic() - began:.1f} s"))
                    rows.append(("CPU until then", f"{_cpu_seconds(running):.1f} s"))
                    asked = time.monotonic()
                    first.goto(running.origin + _ROLLOUT)
                    rows.append(("page of a rollout", f"{time.monotonic() - asked:.1f} s"))
                    rows += _scrolled(first)
                    rows += _quiet(running)
                    rows += _changing(control_plane, running, first)
                    rows.append(("memory, at most", f"{_peak_mib(running):.0f} MiB"))
        return "\n".join(("| measured | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)))


def _number(page: Page) -> int:
    found = page.locator(".big").first
    return int(found.inner_text()) if found.count() else 0


def _scrolled(page: Page) -> list[tuple[str, str]]:
    frames = page.evaluate(_SCROLL)
    middle, slowest = statistics.median(frames), sorted(frames)[int(len(frames) * 0.95)]
    return [(f"a frame while {HOSTS} cells scroll, median and 95th percentile", f"{middle:.0f}, {slowest:.0f} ms")]


def _quiet(running: Dashboard) -> list[tuple[str, str]]:
    began = _cpu_seconds(running)
    time.sleep(WINDOW_SECONDS)
    used = (_cpu_seconds(running) - began) / WINDOW_SECONDS
    return [("CPU while nothing changes, a page open", f"{100 * used:.1f} % of a core")]


def _changing(control_plane: harness.ControlPlane, running: Dashboard, page: Page) -> list[tuple[str, str]]:
    """Copies make progress and become Ready, as fast as one client writes."""
    ended, received = threading.Event(), [0]
    (cookie,) = page.context.cookies()
    sent = f"{cookie['name']}={cookie['value']}"
    reader = threading.Thread(target=_receive, args=(running, sent, ended, received))
    reader.start()
    until("the stream", lambda: received[0] > 0)
    first_bytes, began, cpu, number = received[0], time.monotonic(), _cpu_seconds(running), 0
    with Kube(control_plane.kubeconfig()) as kube:
        written = Fleet(kube)
        while time.monotonic() - began < WINDOW_SECONDS:
            phase = ("Downloading", "Ready")[number % 2]
            document = fleet.copy(number % HOSTS, phase, of="template-0", percent=number % 100)
            written.patch(kinds.TEMPLATE_PLACEMENTS, document)
            number += 1
    seconds = time.monotonic() - began
    kib = (received[0] - first_bytes) / seconds / 1024
    used = (_cpu_seconds(running) - cpu) / seconds
    ended.set()
    reader.join()
    return [
        (f"to the browser, {number / seconds:.0f} changes of copies a second", f"{kib:.0f} KiB/s"),
        ("CPU meanwhile", f"{100 * used:.0f} % of a core"),
    ]


def _receive(running: Dashboard, cookie: str, ended: threading.Event, received: list[int]) -> None:
    """Follows the page of the rollout as its script does, and counts bytes."""
    port = int(running.origin.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    target = f"/live?{urllib.parse.urlencode({'page': _ROLLOUT})}"
    connection.request("GET", target, headers={"Cookie": cookie})
    answer = connection.getresponse()
    while not ended.is_set():
        received[0] += len(answer.read1(65536))
    connection.close()


def _cpu_seconds(running: Dashboard) -> float:
    fields = pathlib.Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mib(running: Dashboard) -> float:
    status = pathlib.Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
