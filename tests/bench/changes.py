"""Changes that concern a whole fleet at once, and how long each keeps the controller's event loop at a time.

Called by `scale`, with a fleet in which nothing is left to do. The last change takes the Zone away.
"""

import concurrent.futures
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tests.bench import seeding
from tests.bench.controller import Controller
from tests.world.kube import Kube
from tests.world.turns import Turn
from tests.world.waiting import until

from directdownload.cluster import kinds

if TYPE_CHECKING:
    from tests.bench.scale import Fleet

SCRAPES = 10
#: The queue has to stay empty for so long: counts are gathered for up to 5 s at 5,000 hosts.
_QUIET_SECONDS = 12.0
#: There are no kubelets: jobs of removals are given up, and tried again, for ever.
_ENOUGH_SECONDS = 60.0
_LONGEST_SECONDS = 1200.0
_PARALLEL = 8


def measured(fleet: "Fleet", controller: Controller, hosts: int) -> Iterator[tuple[str, Turn]]:
    """The name of each change, and its longest turn."""
    names = [seeding.host_name(number) for number in range(hosts)]
    half = names[: hosts // 2]
    scenarios: list[tuple[str, Callable[[], object]]] = [
        (f"{SCRAPES} scrapes of the metrics", lambda: _scrape(controller)),
        (f"every one of {hosts:,} agents writes its Host", lambda: _report(fleet, names)),
        (f"a deployment names {hosts:,} hosts", lambda: _name_hosts(fleet, names)),
        (f"every one of {hosts:,} nodes is relabelled", lambda: _relabel(fleet, names)),
        (f"a request on the Zone, for {hosts:,} copies of each template", lambda: _request(fleet)),
        (f"the deployment is narrowed to {len(half):,} hosts", lambda: _narrow(fleet, names, half)),
        ("the Zone is deleted", lambda: _delete_zone(fleet)),
    ]
    for name, change in scenarios:
        began = time.monotonic()
        change()
        settle(controller)
        turn = controller.turns.longest(began)
        print(f"{name}: {turn}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        yield name, turn


def settle(controller: Controller) -> None:
    """Waits until the queue is empty, and stays so, for `_ENOUGH_SECONDS` at most."""
    enough = time.monotonic() + _ENOUGH_SECONDS
    done, since = -1.0, time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS and time.monotonic() < enough:
        assert controller.process.poll() is None, controller.log.read_text()[-2000:]
        time.sleep(1)
        metrics = controller.metrics()
        now = metrics.sum("directdownload_reconcile_duration_seconds_count")
        if metrics.depth or now != done:
            done, since = now, time.monotonic()


def _scrape(controller: Controller) -> None:
    for _ in range(SCRAPES):
        controller.metrics()


def _name_hosts(fleet: "Fleet", names: list[str]) -> None:
    with fleet.world.kube() as kube:
        kube.patch(
            kinds.TEMPLATE_DEPLOYMENTS, "everywhere-0", {"spec": {"hosts": names}}, fleet.world.namespace
        ).object()


def _narrow(fleet: "Fleet", names: list[str], left: list[str]) -> None:
    _name_hosts(fleet, left)

    def marked() -> bool:
        deployment = fleet.world.deployment("everywhere-0")
        return bool(deployment["status"]["placements"]["desired"] == len(left))

    until(f"the removal from {len(names) - len(left)} hosts", marked, _LONGEST_SECONDS)


def _report(fleet: "Fleet", names: list[str]) -> None:
    patch = {"status": {"agentVersion": "bench"}}
    _each(fleet, names, lambda kube, name: kube.patch(kinds.HOSTS, name, patch, subresource="status").object())


def _relabel(fleet: "Fleet", names: list[str]) -> None:
    patch = {"metadata": {"labels": {"example.org/relabelled": "yes"}}}
    _each(fleet, names, lambda kube, name: kube.patch(kinds.NODES, name, patch).object())


def _each(fleet: "Fleet", names: list[str], write: Callable[[Kube, str], object]) -> None:
    """By several at once, as by a whole fleet, or by a tool that labels a whole cluster."""

    def work(first: int) -> None:
        with fleet.world.kube() as kube:
            for name in names[first::_PARALLEL]:
                write(kube, name)

    with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(work, range(_PARALLEL)))


def _request(fleet: "Fleet") -> None:
    patch = {"metadata": {"annotations": {"directdownload.dev/requested-at": "now"}}}
    with fleet.world.kube() as kube:
        kube.patch(kinds.ZONES, fleet.world.zone, patch).object()


def _delete_zone(fleet: "Fleet") -> None:
    with fleet.world.kube() as kube:
        kube.delete(kinds.ZONES, fleet.world.zone)
    until("the Zone to be gone", lambda: fleet.world.gone(kinds.ZONES, fleet.world.zone), 60)
