"""A minute of random wishes and mishaps; when it is over, the nodes' disks hold exactly what the objects say.

A failure names its seed; `DIRECTDOWNLOAD_SEED=… pytest tests/e2e/test_convergence.py` takes the same steps again. What
they meet may differ: real processes have their own pace.
"""

import contextlib
import os
import pathlib
import random
import time
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, POOL_ROOT, Cluster, CommandError
from tests.world.evidence import HOSTS
from tests.world.soak import EACH_ROUND, seed_of
from tests.world.waiting import until

from directdownload.resources.naming import WORK_DIRECTORY

STEPS = 40
LONGEST_PAUSE_SECONDS = 2.0
#: A file that is lost in the last step is noticed within a minute, and fetched while two controllers may be starting.
CONVERGED_SECONDS = 240


class Driver:
    """Takes steps that depend on the seed alone, and knows what they should come to."""

    def __init__(self, cluster: Cluster, directory: pathlib.Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.steps: list[str] = []
        #: template → hosts that its deployment names
        self.wishes: dict[str, list[str]] = {}
        self._cluster = cluster
        self._directory = directory
        self._port = origin.free_port(cluster.origin_host)
        self._origin: origin.Origin | None = None
        self.images = {f"image-{n}": Image(directory, f"image-{n}.raw", n << 21) for n in range(1, 5)}

    def begin(self) -> None:
        self.serve()
        url = f"http://{self._cluster.origin_host}:{self._port}"
        self._cluster.apply(
            *(clusters.template(n, f"{url}/{i.path.name}", checksum=i.checksum) for n, i in self.images.items())
        )
        templates = {name: self._cluster.get("template", name, "default") for name in self.images}
        self.uids = {name: template["metadata"]["uid"] for name, template in templates.items()}

    def step(self) -> None:
        """One thing happens, then a while nothing."""
        actions: dict[Callable[[], str], int] = {
            self._deploy: 12,
            self._withdraw: 4,
            self._lose_file: 6,
            self._cut_file: 3,
            self._kill_job: 4,
            self._kill_controller: 1,
            self._kill_agent: 2,
            self._switch_origin: 3,
        }
        (action,) = self.random.choices(list(actions), list(actions.values()))
        self.steps.append(action())
        # Not a wait for anything: the time in which the product gets into some state or other.
        time.sleep(self.random.uniform(0, LONGEST_PAUSE_SECONDS))

    def serve(self) -> None:
        if self._origin is None:
            self._origin = origin.Origin(self._directory, self._cluster.origin_host, port=self._port, rate=4 << 20)

    def stop_serving(self) -> None:
        if self._origin is not None:
            self._origin.stop()
            self._origin = None

    def difference(self) -> list[str]:
        """What is not as the objects say; empty when all is."""
        wrong: list[str] = []
        wanted = {(name, host) for name, hosts in self.wishes.items() for host in hosts}
        phases = {
            (p["spec"]["templateRef"]["name"], p["spec"]["host"]): p.get("status", {}).get("phase")
            for p in self._cluster.list("templateplacements")
        }
        if phases != dict.fromkeys(wanted, "Ready"):
            wrong.append(f"placements: {phases}")
        for host in HOSTS:
            pool = self._cluster.file(host, POOL_ROOT)
            expected = {self.uids[name]: self.images[name].sha256 for name, on in wanted if on == host}
            found = {name: clusters.sha256(pool / name) for name in evidence.names(pool) - {WORK_DIRECTORY}}
            if found != expected:
                wrong.append(f"{host} has {found}, expected {expected}")
            work = evidence.names(pool / WORK_DIRECTORY)
            if work != {f"{uid}.record" for uid in expected}:
                wrong.append(f"{host} has {sorted(work)} in {WORK_DIRECTORY}")
        if jobs := self._cluster.list("jobs", NAMESPACE):
            wrong.append(f"jobs: {[job['metadata']['name'] for job in jobs]}")
        return wrong

    def _deploy(self) -> str:
        """A new wish, or one that is narrowed or widened."""
        name = self._template()
        self.wishes[name] = hosts = sorted(self.random.sample(HOSTS, self.random.randint(1, len(HOSTS))))
        self._cluster.apply(clusters.deployment(name, hosts=hosts))
        return f"deploy {name} on {', '.join(hosts)}"

    def _withdraw(self) -> str:
        name = self._template()
        self.wishes.pop(name, None)
        # Waits until it is gone: a new one of the same name would be refused before.
        self._cluster.delete("templatedeployment", name, namespace="default", missing_ok=True)
        return f"withdraw {name}"

    def _lose_file(self) -> str:
        host, name = self.random.choice(HOSTS), self._template()
        self._published(host, name).unlink(missing_ok=True)
        return f"lose {name} on {host}"

    def _cut_file(self) -> str:
        host, name = self.random.choice(HOSTS), self._template()
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._published(host, name), 1000)
        return f"cut {name} on {host}"

    def _kill_job(self) -> str:
        place = self.random.random()
        jobs = sorted(job["metadata"]["name"] for job in self._cluster.list("jobs", NAMESPACE))
        if not jobs:
            return "kill no job"
        name = jobs[int(place * len(jobs))]
        self._cluster.kubectl("delete", "job", name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
        return f"kill job {name}"

    def _kill_controller(self) -> str:
        return self._kill("controller", "")

    def _kill_agent(self) -> str:
        return self._kill("agent", self.random.choice(HOSTS))

    def _kill(self, component: str, host: str) -> str:
        pods = [pod for pod in evidence.pods(self._cluster, component) if host in ("", pod["spec"].get("nodeName"))]
        for pod in pods:
            # One that went by itself meanwhile is as dead.
            with contextlib.suppress(CommandError):
                name = pod["metadata"]["name"]
                self._cluster.delete("pod", name, namespace=NAMESPACE, grace_seconds=0)
        return f"kill {component} {host}"

    def _switch_origin(self) -> str:
        if self._origin is None:
            self.serve()
            return "origin on"
        self.stop_serving()
        return "origin off"

    def _template(self) -> str:
        return self.random.choice(list(self.images))

    def _published(self, host: str, template: str) -> pathlib.Path:
        return self._cluster.file(host, f"{POOL_ROOT}/{self.uids[template]}")


@pytest.fixture(params=EACH_ROUND)
def driver(request: pytest.FixtureRequest, local: Cluster, directory: pathlib.Path) -> Iterator[Driver]:
    seed = int(os.environ.get("DIRECTDOWNLOAD_SEED") or seed_of(request.param))
    found = Driver(local, directory, seed)
    found.steps.append(f"DIRECTDOWNLOAD_SEED={seed}")
    yield found
    found.stop_serving()


@pytest.mark.soak
@pytest.mark.timeout(600, func_only=True)
def test_after_random_mishaps_the_disks_hold_what_the_objects_say(driver: Driver) -> None:
    driver.begin()
    try:
        for _ in range(STEPS):
            driver.step()
        driver.serve()
        try:
            until("exactly what was wished for", lambda: not driver.difference(), CONVERGED_SECONDS)
        except AssertionError as error:
            error.add_note("\n".join(driver.difference()))
            raise
    except BaseException as error:
        error.add_note("\n".join(driver.steps))
        raise
