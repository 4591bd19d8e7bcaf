"""The simulated zone of `tests/world/swarm.py`: from ten hosts to a whole fleet, and hosts whose pods start over time.

A ramp of 10 pods per second is one of 80 per copy, where a copy takes 8 s: 10 GB at 10 Gbit/s. SWARM_HOSTS (such as
`10,100`) and SWARM_PIECES make it smaller.
"""

import os
import sys
import time

from tests.world.swarm import Settings, simulate

HOSTS = [int(each) for each in os.environ.get("SWARM_HOSTS", "10,100,1000,5000").split(",")]
PIECES = int(os.environ.get("SWARM_PIECES", "256"))
_COPY_SECONDS = 8.0
#: pods per second; None: all at once
_RAMPS = (None, 10.0, 20.0)


def measure() -> str:
    """A Markdown table: times are in copies, the time that a link takes for one."""
    head = "| hosts | pods start | last complete | after the last start | from the origin | from the Seed | CPU s |"
    return "\n".join(
        [head, "|---|---|---|---|---|---|---|", *(_row(hosts, ramp) for ramp in _RAMPS for hosts in HOSTS)]
    )


def _row(hosts: int, ramp: float | None) -> str:
    starts = None if ramp is None else ramp * _COPY_SECONDS
    began = time.process_time()
    found = simulate(Settings(hosts, PIECES, starts))
    seconds = time.process_time() - began
    last_start = 0.0 if starts is None else (hosts - 1) / starts
    words = "at once" if ramp is None else f"{ramp:.0f} per second"
    figures = (found.last, found.last - last_start, found.origin_copies, found.seed_copies)
    row = f"| {hosts:,} | {words} | {' | '.join(f'{each:.2f}' for each in figures)} | {seconds:.0f} |"
    print(row, file=sys.stderr, flush=True)
    return row
