"""Whatever plugin, controller, clock and restarts do, and in which order: no volume changes its Template, and nothing
looks released that is in use.
"""

import asyncio
import datetime
import shutil
import tempfile
from typing import Any

import hypothesis
from hypothesis import stateful, strategies
from tests.world import soak
from tests.world.plugin import at, mounted

from directdownload.agent.volumes import demands
from directdownload.agent.volumes.book import Moment, VolumeBook
from directdownload.agent.volumes.ledger import Key, Ledger
from directdownload.resources.host import Demand, Served

ROOTS = ("/pools",)
NAMES = strategies.sampled_from(["v1", "v2", "v3", "v4"])
TEMPLATES = strategies.sampled_from(["a", "b"])
STATES = strategies.sampled_from(["Waiting", "Ready", "Refused", "Released", "OfTomorrow"])
UIDS = strategies.sampled_from(["u1", "u2"])


class Volumes(stateful.RuleBasedStateMachine):
    """One host. A volume's template is that of its name: the kubelet asks for nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.runner = asyncio.Runner()
        self.seconds = 0
        #: of the machine; the monotonic clock is of its boot
        self.wall_seconds = 0
        self.template_of: dict[str, str] = {}
        #: as the kernel has them: uid by volume
        self.mounts: dict[str, str] = {}
        #: every uid that a volume was ever answered
        self.had: dict[str, str] = {}
        self.served: dict[Key, Served] = {}
        #: what the cluster has
        self.status: tuple[Demand, ...] = ()
        #: the plugin has spoken to this process
        self.stated = False
        self.start()

    def teardown(self) -> None:
        self.runner.close()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        self.ledger = Ledger.load(self.directory)
        self.book = VolumeBook(self.ledger, self.now())
        self.book.remember(self.status, self.now())
        self.book.hear(self.served.values())
        self.stated = False

    def now(self) -> Moment:
        return Moment(at(self.wall_seconds).time, float(self.seconds))

    def save(self) -> None:
        assert self.runner.run(self.ledger.save())

    @stateful.rule(name=NAMES, template=TEMPLATES)
    def publish(self, name: str, template: str) -> None:
        template = self.template_of.setdefault(name, template)
        if name in self.mounts:
            # the plugin answers by itself
            return
        self.book.ask(name, "web", template, self.now())
        self.save()
        self.status = self.book.demands()

    @stateful.rule(name=NAMES, template=TEMPLATES, uid=UIDS)
    def mount(self, name: str, template: str, uid: str) -> None:
        """All goes well."""
        self.publish(name, template)
        for number, demand in enumerate(self.status):
            if demand.template == self.template_of[name]:
                self.serve("Ready", demand.uid or uid, number, stale=False)
        self.look(name)

    @stateful.rule(name=NAMES)
    def look(self, name: str) -> None:
        """The answer to a held request; Ready is mounted."""
        volume = self.book.volume(name)
        if volume is None or name in self.mounts:
            return
        answer = demands.judged(volume, self.book.answer(volume), ROOTS)
        if answer.state != "Ready":
            return
        if not volume.uid:
            self.book.resolve(name, answer.uid, self.now())
        self.save()
        assert self.ledger.durable(name)
        assert self.had.setdefault(name, answer.uid) == answer.uid
        self.book.handed_over(name, self.now())
        self.mounts[name] = answer.uid

    @stateful.rule(name=NAMES, state=STATES, uid=UIDS)
    def answer(self, name: str, state: str, uid: str) -> None:
        """Of a demand that has volumes, whatever the controller says; then the request is looked at."""
        volume = self.book.volume(name)
        keys = [demand.key for demand in self.status]
        if volume is not None and volume.key in keys:
            self.serve(state, uid, keys.index(volume.key), stale=False)
            self.look(name)

    @stateful.rule(name=NAMES)
    def unpublish(self, name: str) -> None:
        self.mounts.pop(name, None)
        self.had.pop(name, None)
        self.book.unpublish(name, self.now())
        self.save()

    @stateful.rule(name=NAMES)
    def unmount(self, name: str) -> None:
        """Without a word to the agent."""
        self.mounts.pop(name, None)

    @stateful.rule()
    def state_mounts(self) -> None:
        stated = [mounted(name, self.template_of[name], uid) for name, uid in self.mounts.items()]
        assert self.book.state(stated, self.now()) == []
        self.stated = True
        self.had = {name: uid for name, uid in self.had.items() if self.book.volume(name) is not None}
        self.save()

    @stateful.rule(state=STATES, uid=UIDS, number=strategies.integers(0, 7), stale=strategies.booleans())
    def serve(self, state: str, uid: str, number: int, stale: bool) -> None:
        """The controller answers one demand of the status; a stale answer is to an earlier one."""
        if not self.status:
            return
        demand = self.status[number % len(self.status)]
        fields: dict[str, Any] = {"template_uid": uid, "path": f"/pools/{uid}"} if state == "Ready" else {}
        since = demand.since - datetime.timedelta(seconds=1) if stale else demand.since
        named = {"namespace": demand.namespace, "template": demand.template, "uid": demand.uid}
        answer = Served.model_validate({**named, **fields, "since": since, "state": state})
        self.served[answer.key] = answer
        self.book.hear(self.served.values())
        self.save()

    @stateful.rule(seconds=strategies.sampled_from([1, 10, 100, 700]))
    def wait(self, seconds: int) -> None:
        self.seconds += seconds
        self.wall_seconds += seconds

    @stateful.rule(seconds=strategies.integers(-5000, 5000))
    def set_clock(self, seconds: int) -> None:
        self.wall_seconds += seconds

    @stateful.rule()
    def restart(self) -> None:
        before = (dict(self.ledger.volumes), dict(self.ledger.demands))
        self.start()
        assert (self.ledger.volumes, self.ledger.demands) == before

    @stateful.rule(state=STATES, uid=UIDS)
    def reboot(self, state: str, uid: str) -> None:
        """The kubelet publishes again what it had, and the controller may have another Template by then."""
        names = list(self.mounts)
        self.mounts.clear()
        self.seconds = 0
        self.start()
        for name in names:
            self.publish(name, self.template_of[name])
            self.answer(name, state, uid)

    @stateful.rule()
    def lose_the_ledger(self) -> None:
        """The disk was replaced under a running machine: mounts and the cluster know."""
        shutil.rmtree(self.directory)
        self.directory = tempfile.mkdtemp()
        self.had = dict(self.mounts)
        self.start()
        self.save()

    @stateful.invariant()
    def the_disk_has_what_memory_has(self) -> None:
        assert self.ledger.saved
        again = Ledger.load(self.directory)
        assert (again.volumes, again.demands) == (self.ledger.volumes, self.ledger.demands)

    @stateful.invariant()
    def a_volume_is_demanded(self) -> None:
        volumes = {demand.key: demand.volumes for demand in self.book.demands()}
        assert all(volumes[volume.key] > 0 for volume in self.ledger.volumes.values())

    @stateful.invariant()
    def a_mounted_volume_is_demanded(self) -> None:
        volumes = {demand.key: demand.volumes for demand in self.book.demands()}
        for name, uid in self.mounts.items():
            assert volumes.get(("web", self.template_of[name], uid), 0) > 0, (name, uid)

    @stateful.invariant()
    def a_demand_goes_only_when_it_is_released_or_has_become_one_of_its_template(self) -> None:
        now = self.book.demands()
        found = {demand.key: demand for demand in now}
        for demand in self.status:
            if demand.key in found:
                continue
            answer = self.served.get(demand.key)
            ended = answer is not None and answer.state in ("Released", "Refused") and answer.since == demand.since
            renamed = not demand.uid and any(
                (each.namespace, each.template) == (demand.namespace, demand.template) and each.uid and each.volumes
                for each in now
            )
            assert ended or renamed, demand
        self.status = now

    @stateful.invariant()
    def only_a_demand_without_volumes_has_a_time_of_last_use(self) -> None:
        for demand in self.book.demands():
            assert (demand.last_used_time is None) == (demand.volumes > 0)


Volumes.TestCase.settings = hypothesis.settings(max_examples=60 * soak.ROUNDS, stateful_step_count=40)
TestVolumes = Volumes.TestCase
