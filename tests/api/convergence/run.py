"""A random run: hundreds of steps by people, machines and accidents, then the world must be what the objects say.

`Run` takes the steps and tells the model (`model.py`) of each before it takes it. What a step does depends
on the seed, its number and the wishes so far, never on what the controller has done, so that a seed gives the same
steps each time. From time to time, and at the end, `settle` heals what is broken, waits, and compares.
"""

import random
import time
from collections.abc import Callable, Collection

from tests.api.convergence.accidents import ACCIDENTS
from tests.api.convergence.check import World, compare, held_up
from tests.api.convergence.healing import heal_all_but_hosts, heal_hosts
from tests.api.convergence.stage import Stage
from tests.api.convergence.steps import OPENING, STEPS
from tests.world.kube import Kube
from tests.world.simulation import Simulation, succeed

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult

#: Steps between two times of quiet.
EPOCH = 60
QUIET_SECONDS = 90.0
#: For so long nothing is written any more once all is as it should be.
REST_SECONDS = 1.5
#: Of each controller's log, for those who look for the cause.
_LOG_CHARACTERS = 20_000
_LONGEST_PAUSE_SECONDS = 0.3
_WEIGHTS = [weight for weight, _ in [*STEPS, *ACCIDENTS]]
_STEPS = [step for _, step in [*STEPS, *ACCIDENTS]]


class Run:
    """One run of `steps` steps; those whose numbers are in `skip` are left out, to find out which ones matter."""

    def __init__(self, simulation: Simulation, kube: Kube, seed: int, steps: int, skip: Collection[int] = ()) -> None:
        self._stage = Stage(simulation, kube)
        self._simulation = simulation
        self._seed = seed
        self._steps = steps
        self._skip = skip
        # The order in which jobs are asked depends on the machine, so this one takes no part in what the steps are.
        self._pace = random.Random(seed)
        simulation.behaviour = self._work
        # Requests are among the steps, and the last ones are to be served before all has to be quiet.
        simulation.request_interval_seconds = 2
        simulation.kubelets.linger_seconds = lambda: self._pace.choice([0.0, 0.0, 0.3])

    def play(self) -> None:
        """AssertionError with seed, trace and everything that is wrong."""
        self._stage.build()
        for number in range(1, self._steps + 1):
            rng = random.Random(f"{self._seed}/{number}")
            if number not in self._skip:
                self._step(number, rng)
            if number % EPOCH == 0 or number == self._steps:
                self.settle(rng)
        self._check_logs()

    def _work(self, document: JobDocument) -> JobResult | None:
        """Most jobs end soon; those of every fourth placement take seconds."""
        likely = 0.03 if document.placement_uid[-1] in "048c" else 0.4
        return succeed(document) if self._pace.random() < likely else None

    def _step(self, number: int, rng: random.Random) -> None:
        stage = self._stage
        words = None
        while words is None:
            (step,) = OPENING[number - 1 : number] or rng.choices(_STEPS, _WEIGHTS)
            words = step(stage, rng)
        stage.trace.append(f"{number}: {words}")
        stage.make()
        self._check()
        time.sleep(rng.uniform(0, _LONGEST_PAUSE_SECONDS))

    def _check(self) -> None:
        stage = self._stage
        self._simulation.check()
        items = stage.kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"]
        stage.invariants.look_at_placements(items, {pool.name for pool in stage.wishes.pools if pool.shared})
        if stage.complaints:
            self._fail(stage.complaints)

    def settle(self, rng: random.Random) -> None:
        """Lost hosts hold up no others; and when they are back as well, soon all is as the objects say."""
        stage = self._stage
        heal_all_but_hosts(stage)
        self._until(lambda: held_up(World.read(stage.kube), self._simulation))
        heal_hosts(stage, rng)
        asked: set[str] = set()
        self._until(lambda: self._compare(asked))
        orphans = compare(World.read(stage.kube), self._simulation, stage.wishes.may_stay).orphans
        stage.wishes.quiet(orphans)
        stage.trace.append("all is quiet")

    def _until(self, wrong: Callable[[], list[str]]) -> None:
        """Waits until nothing is wrong."""
        end = time.monotonic() + QUIET_SECONDS
        while True:
            self._stage.make()
            self._stage.keep_controller()
            self._check()
            problems = wrong()
            if not problems:
                return
            if time.monotonic() > end:
                self._fail(problems)
            time.sleep(0.2)

    def _compare(self, asked: set[str]) -> list[str]:
        self._verify_tampered(asked)
        world = World.read(self._stage.kube)
        found = compare(world, self._simulation, self._stage.wishes.may_stay).differences
        return found or ([] if self._rests(world) else ["the controller goes on writing"])

    def _rests(self, before: World) -> bool:
        time.sleep(REST_SECONDS)
        return World.read(self._stage.kube).versions() == before.versions()

    def _verify_tampered(self, asked: set[str]) -> None:
        """Asks for a verification of what was changed so that no agent can see it, once its placement is Ready."""
        stage = self._stage
        if not stage.tampered:
            return
        for placement in stage.kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"]:
            spec, uid = placement["spec"], placement["metadata"]["uid"]
            file = self._simulation.disk(spec["host"], spec["pool"]).name, spec["path"].rpartition("/")[2]
            if file in stage.tampered and placement.get("status", {}).get("phase") == "Ready" and uid not in asked:
                stage.request(kinds.TEMPLATE_PLACEMENTS, placement["metadata"]["name"])
                asked.add(uid)

    def _check_logs(self) -> None:
        for controller in self._stage.controllers:
            text = controller.log.read_text(errors="replace")
            if "Traceback" in text:
                self._fail([f"the log of {controller.user} has a traceback: {text[text.index('Traceback') :][:3000]}"])

    def _fail(self, problems: list[str]) -> None:
        trace = "\n".join(f"  {line}" for line in self._stage.trace)
        wrong = "\n".join(f"  {problem}" for problem in problems)
        logs = "\n".join(
            f"{c.user}:\n{c.log.read_text(errors='replace')[-_LOG_CHARACTERS:]}" for c in self._stage.controllers
        )
        told = f"{trace}\nwhat is wrong:\n{wrong}\nwhat the controllers said last:\n{logs}"
        raise AssertionError(f"seed {self._seed}, {self._steps} steps:\n{told}")
