"""`make bench`: speed and memory, as tables of docs/performance.md. One alone: `python -m tests.bench sources`.

`scale` takes ten minutes, and is run by its name only (`make bench-scale`), as is `turns`, a part of it; so does
`swarm`, five thousand simulated hosts that serve each other.
"""

import argparse
import os
import platform
import sys

from tests.bench import (
    certificates,
    dashboard,
    failover,
    keystore,
    peers,
    peerserver,
    planning,
    pods,
    rollout,
    scale,
    sources,
    swarm,
    volumes,
)
from tests.world import checkout

BENCHES = {
    "sources": sources.measure,
    "rollout": rollout.measure,
    "planning": planning.measure,
    "keystore": keystore.measure,
    "certificates": certificates.three_hosts,
    "fleet": certificates.fleet,
    "failover": failover.measure,
    "volumes": volumes.measure,
    "dashboard": dashboard.measure,
    "peers": peers.measure,
    "swarm": swarm.measure,
    "peerserver": peerserver.measure,
    "pods": pods.measure,
    "scale": scale.measure,
    "turns": scale.measure_turns,
}
LONG = ("scale", "turns", "swarm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", metavar="BENCH", help=f"one of {', '.join(BENCHES)}")
    chosen = parser.parse_args().bench or [name for name in BENCHES if name not in LONG]
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {unknown[0]}: expected one of {', '.join(BENCHES)}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    # Control planes collect garbage and use processors as in production: 5,000 hosts fill the memory anyway.
    os.environ.setdefault("GOGC", "100")
    os.environ.setdefault("GOMAXPROCS", str(os.cpu_count()))
    # Programs that a bench starts are this checkout's.
    os.environ.update(checkout.environment())
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}")
    for name in chosen:
        print(f"\n{BENCHES[name]()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
