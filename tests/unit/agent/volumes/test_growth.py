"""Twice the volumes cost no more than three times the CPU."""

import gc
import time
from collections.abc import Callable

import pytest
from tests.world.plugin import NOW, at, mounted

from directdownload.agent.volumes import demands
from directdownload.agent.volumes.book import VolumeBook
from directdownload.agent.volumes.ledger import Entry, Ledger, Volume
from directdownload.resources.host import Served

ENTRIES, VOLUMES = 100, 1000
RATIO = 3.0
#: Another process may disturb one measurement, but not all of them.
ROUNDS = 6

Call = Callable[[], object]


def filled(times: int) -> Ledger:
    """`times` 100 demands of ten volumes each."""
    ledger = Ledger("/nowhere")
    for number in range(times * ENTRIES):
        entry = Entry(namespace="web", template=f"t{number}", uid="u", since=NOW)
        ledger.demands[entry.key] = entry
    for number in range(times * VOLUMES):
        template = f"t{number % (times * ENTRIES)}"
        ledger.volumes[f"v{number}"] = Volume(namespace="web", template=template, uid="u", since=NOW)
    return ledger


def report(times: int) -> Call:
    ledger = filled(times)
    return lambda: demands.report(ledger.volumes.values(), ledger.demands, {})


def released(times: int) -> Call:
    ledger = filled(times)
    counts = demands.counted(ledger.volumes.values(), {})
    served = {
        key: Served(namespace=key[0], template=key[1], uid=key[2], since=NOW, state="Released")
        for key in ledger.demands
    }
    return lambda: list(demands.released(counts, ledger.demands, served))


def stated(times: int) -> Call:
    """All are mounted, and then none is."""
    ledger = filled(times)
    mounts = [mounted(name, volume.template, "u") for name, volume in ledger.volumes.items()]

    def state() -> None:
        book = VolumeBook(ledger, at())
        book.state(mounts, at(1))
        book.state([], at(2000))
        book.state(mounts, at(2001))

    return state


CASES = {each.__name__: each for each in (report, released, stated)}


def cpu_seconds(call: Call) -> float:
    gc.disable()
    try:
        began = time.process_time()
        call()
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.parametrize("case", CASES)
def test_twice_the_volumes_cost_no_three_times_the_cpu(case: str) -> None:
    once, twice = CASES[case](1), CASES[case](2)
    for call in (once, twice):
        call()
    least, most = float("inf"), float("inf")
    for _ in range(ROUNDS):
        least, most = min(least, cpu_seconds(once)), min(most, cpu_seconds(twice))
        if most < RATIO * least:
            return
    pytest.fail(
        f"{VOLUMES} cost {least:.4f} s of CPU, {2 * VOLUMES} cost {most:.4f} s: {most / least:.1f} times as much"
    )
