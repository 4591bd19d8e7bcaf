"""Pages at fleet size: twice the hosts cost no three times the CPU, and no page of 5,000 holds the event loop long."""

import functools

import pytest
from tests.unit.dashboard import support
from tests.unit.planning.test_growth import RATIO, ROUNDS, cpu_seconds
from tests.world import dashboard as fleet

from directdownload.dashboard import live
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.rendering import Renderer

NUMBER = 400
#: Of one turn of the event loop.
MOST_SECONDS = 0.2
_PHASES = ("Ready", "Downloading", "Pending", "Failed")
_RENDERER = Renderer()


@functools.cache
def pictured(number: int) -> Picture:
    return support.pictured((fleet.copy(each, _PHASES[each % 4]) for each in range(number)), hosts=number)


def shown(target: str, number: int) -> None:
    page = support.page(pictured(number), target)
    _RENDERER.document(page, "/live", "run-1", {})


def followed(target: str, number: int) -> None:
    """As at each tick of a page that is open."""
    page = support.page(pictured(number), target)
    live.Channel("run").update(_RENDERER.parts(page), page.map)


@pytest.mark.parametrize("target", support.PAGES)
def test_twice_the_hosts_cost_no_three_times_the_cpu(target: str) -> None:
    once, twice = (functools.partial(shown, target, number) for number in (NUMBER, 2 * NUMBER))
    for call in (once, twice):
        call()
    least, most = float("inf"), float("inf")
    for _ in range(ROUNDS):
        least, most = min(least, cpu_seconds(once)), min(most, cpu_seconds(twice))
        if most < RATIO * least:
            return
    pytest.fail(f"{NUMBER} cost {least:.4f} s of CPU, {2 * NUMBER} cost {most:.4f} s: {most / least:.1f} times as much")


@pytest.mark.parametrize("target", [support.ROLLOUT, "/hosts", "/certificates/my-ca", "/"])
def test_a_page_of_5000_hosts_takes_short_turns_of_the_event_loop(target: str) -> None:
    """CPU, the best of some: others use the machine meanwhile."""
    for work in (shown, followed):
        best = float("inf")
        for _ in range(ROUNDS):
            best = min(best, cpu_seconds(functools.partial(work, target, 5000)))
            if best < MOST_SECONDS:
                break
        assert best < MOST_SECONDS, work.__name__
