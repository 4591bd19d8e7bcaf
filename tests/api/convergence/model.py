"""What was wished so far in a random run, and what each wish orders, permits and forbids to happen to files.

The driver (`run.py`) notes every step here before it takes it. The model is not the planner written twice: it
knows neither placements nor time. It only tells, of a file that went, whether anybody ordered that, and of a file that
is nobody's, whether it may lie there. Where the outcome depends on how soon the controller sees a step, both are
allowed until the next time that all is quiet.
"""

import dataclasses
from collections.abc import Callable, Iterator

Key = tuple[str, str]
#: name of the disk, name of the file
FileKey = tuple[str, str]


@dataclasses.dataclass(slots=True)
class WishedTemplate:
    namespace: str
    name: str
    url: str
    checksum: str = ""
    iso: bool = False
    #: None: only its own namespace; empty: all; else those with this label `team`
    allowed_team: str | None = None
    zones: tuple[str, ...] = ()
    #: empty until it was made
    uid: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def file_name(self) -> str:
        return f"{self.uid}.iso" if self.iso else self.uid


@dataclasses.dataclass(slots=True)
class WishedDeployment:
    namespace: str
    name: str
    template: Key
    zone: str
    hosts: tuple[str, ...] = ()
    #: label `tier` of the hosts; empty: all
    tier: str = ""
    pools: tuple[str, ...] = ()
    policy: str = "Delete"
    paused: bool = False
    max_parallel: str = "0"
    made: bool = False

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclasses.dataclass(slots=True)
class WishedHost:
    """`zone` is the one that has it: the last that selected its node. `selected`: one does now."""

    name: str
    zone: str
    tier: str = ""
    selected: bool = True
    #: there is a Node
    node: bool = True
    #: there is a Host, or will be as soon as the controller looks
    present: bool = True
    online: bool = True
    agent: bool = True
    cordoned: bool = False
    maintenance: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    name: str
    zone: str
    shared: bool


class Wishes:
    """`disk_name` tells where a pool lies on a host; `teams` are the labels `team` of namespaces that have one."""

    def __init__(self, disk_name: Callable[[str, str], str], teams: dict[str, str]) -> None:
        self._disk_name = disk_name
        self.teams = teams
        self.templates: dict[Key, WishedTemplate] = {}
        self.deployments: dict[Key, WishedDeployment] = {}
        self.hosts: dict[str, WishedHost] = {}
        self.pools: list[Pool] = []
        #: files that somebody has ordered to go since all was quiet
        self.ordered: set[FileKey] = set()
        #: files that may lie there without a placement
        self.may_stay: set[FileKey] = set()
        #: deployments that wanted a file and do not any more, with their policy then
        self._withdrawn: dict[FileKey, dict[Key, str]] = {}
        #: of each of these files the template, and the zone
        self._origin: dict[FileKey, tuple[Key, str]] = {}
        #: deployments that select otherwise than before
        self._narrowed: set[Key] = set()
        #: templates and zones of those among them that say Retain, which counts for all that is given up meanwhile
        self._retaining: set[tuple[Key, str]] = set()
        #: deployments that were refused, or may have been seen so, since all was quiet: what they give up may stay, and
        #: what others give up they may not keep
        self._denied: set[Key] = set()
        #: label `tier` that hosts had before
        self._tiers: dict[str, set[str]] = {}
        #: zones that hosts have left
        self._left: dict[str, set[str]] = {}

    # --- what happens to wishes

    def made(self, key: Key) -> None:
        """It was not there before, or another one of its name was still going."""
        self.deployments[key].made = True
        self.note_rights()
        self._allow_mistaken(self.deployments[key])

    def delete_deployment(self, key: Key, *, unseen: bool) -> None:
        """`unseen`: the controller may never have known of it, so that it cannot retain what others withdrew."""
        gone = self.deployments.pop(key)
        self._withdraw(gone, None)
        for file, withdrawn in self._withdrawn.items():
            if unseen and key in withdrawn and "Delete" in withdrawn.values():
                self.ordered.add(file)

    def narrow(self, key: Key, after: WishedDeployment) -> None:
        """`after` replaces the deployment; it may select less, or more."""
        before = self.deployments[key]
        self.deployments[key] = after
        self._withdraw(before, after)
        self._narrowed.add(key)
        self._note_retaining(after)
        self._allow_mistaken(after)

    def change_policy(self, key: Key, policy: str) -> None:
        """Counts also for what was withdrawn a moment ago, if the controller has not seen that yet."""
        self.deployments[key].policy = policy
        for file, withdrawn in self._withdrawn.items():
            if key in withdrawn:
                self._allow(file, self.deployments[key])
        if key in self._narrowed:
            self._note_retaining(self.deployments[key])

    def delete_template(self, key: Key) -> None:
        gone = self.templates.pop(key)
        for file, pool, host in self._files(gone, lately=True):
            wanting = [d for d in self._naming(key) if self._covers(d, pool, host)]
            self._origin[file] = key, pool.zone
            for deployment in wanting:
                self._note_withdrawn(file, deployment)
            if not any(d.policy == "Retain" and self._selects(d, pool, host) and self._counts(d) for d in wanting):
                self.ordered.add(file)
            if any(d.policy == "Retain" for d in self._naming(key, pool.zone)) or self._retained(file):
                self.may_stay.add(file)

    def leave(self, host: str) -> None:
        """It goes, or changes zone, or its Host is deleted: its files stay with it, except what was ordered to go."""
        for template in self.templates.values():
            for file, _, where in self._files(template):
                if where == host:
                    self.may_stay.add(file)
        # Also what belonged to templates and deployments that are gone, and was being removed.
        self.may_stay.update(file for file in self.ordered if file[0].startswith(f"{host}:"))
        # A controller that looks only later may find that zone in the Host still.
        self._left.setdefault(host, set()).add(self.hosts[host].zone)

    def relabel(self, host: str, tier: str, unseen: set[Key]) -> None:
        """`unseen`: deployments whose last change the controller may not know yet; it cannot tell what came first."""
        before = self.hosts[host].tier
        self.hosts[host].tier = tier
        self._tiers.setdefault(host, set()).add(before)
        for key in unseen & self.deployments.keys():
            deployment = self.deployments[key]
            for file, _, where in self.files_of(deployment):
                if where == host and deployment.tier == before != tier and not self._wanted(file, deployment):
                    self._allow(file, deployment)

    def release(self, file: FileKey) -> None:
        """Its placement was deleted by hand, or it was published by a job that nobody knew of any more."""
        self.may_stay.add(file)

    def quiet(self, orphans: set[FileKey]) -> None:
        """All is as it should be, and `orphans` lie on disks without a placement."""
        self.ordered.clear()
        self._withdrawn.clear()
        self._origin.clear()
        self._narrowed.clear()
        self._retaining.clear()
        self._tiers.clear()
        self._left.clear()
        self._denied.clear()
        self.note_rights()
        self.may_stay = orphans

    def note_rights(self) -> None:
        """Before and after who may deploy what changes."""
        self._denied |= {deployment.key for deployment in self.deployments.values() if self._refused(deployment)}

    # --- who wants what

    def _refused(self, deployment: WishedDeployment) -> bool:
        template = self.templates.get(deployment.template)
        if template is None:
            return False
        foreign = template.namespace != deployment.namespace
        team = self.teams.get(deployment.namespace)
        allowed = template.allowed_team is not None and template.allowed_team in ("", team)
        return (foreign and not allowed) or bool(template.zones and deployment.zone not in template.zones)

    def _counts(self, deployment: WishedDeployment) -> bool:
        return deployment.key not in self._denied

    def _withdraw(self, before: WishedDeployment, after: WishedDeployment | None) -> None:
        for file, pool, host in self.files_of(before, lately=True):
            if after is not None and self._selects(after, pool, host):
                continue
            self._note_withdrawn(file, before)
            if self._wanted(file, after):
                continue
            self._allow(file, before)
            # Who is narrowed is told from others by what is in its status, which may lag.
            others = self._naming(before.template, before.zone) if after is not None else []
            if self._retained(file) or any(d.policy == "Retain" for d in others):
                self.may_stay.add(file)

    def _allow_mistaken(self, deployment: WishedDeployment) -> None:
        """The Host follows the labels of its node: until then copies are made on a host that is not selected any more,
        and given up at once."""
        for file, _, host in self.files_of(deployment):
            if deployment.tier in self._tiers.get(host, ()) and not self._wanted(file, None):
                self._allow(file, deployment)

    def _note_withdrawn(self, file: FileKey, by: WishedDeployment) -> None:
        self._withdrawn.setdefault(file, {})[by.key] = by.policy
        self._origin[file] = by.template, by.zone

    def _note_retaining(self, deployment: WishedDeployment) -> None:
        origin = deployment.template, deployment.zone
        if deployment.policy == "Retain":
            self._retaining.add(origin)
            self.may_stay.update(file for file, of in self._origin.items() if of == origin)

    def _retained(self, file: FileKey) -> bool:
        """Whether anyone who has given it up lately, or may have, says Retain."""
        return "Retain" in self._withdrawn.get(file, {}).values() or self._origin.get(file) in self._retaining

    def _allow(self, file: FileKey, by: WishedDeployment) -> None:
        """What becomes of a file that `by` gives up. If that may not say so, it goes only by the order of others."""
        if by.policy == "Delete":
            self.ordered.add(file)
        if by.policy == "Retain" or not self._counts(by):
            self.may_stay.add(file)
        if any(policy == "Delete" for policy in self._withdrawn.get(file, {}).values()) and not self._counts(by):
            self.ordered.add(file)

    def _wanted(self, file: FileKey, apart: WishedDeployment | None) -> bool:
        """Whether some deployment, `apart` from that one, certainly wants it."""
        return any(
            file == other and self._selects(deployment, pool, host)
            for deployment in self.deployments.values()
            if deployment is not apart and self._counts(deployment)
            for other, pool, host in self.files_of(deployment)
        )

    def _naming(self, template: Key, zone: str = "") -> list[WishedDeployment]:
        return [d for d in self.deployments.values() if d.made and d.template == template and zone in ("", d.zone)]

    def files_of(self, deployment: WishedDeployment, *, lately: bool = False) -> Iterator[tuple[FileKey, Pool, str]]:
        """The files that it names, on hosts that its selector matches or not, with pool and host (empty: shared)."""
        template = self.templates.get(deployment.template)
        if template is not None and deployment.made:
            for file, pool, host in self._files(template, lately=lately):
                if self._covers(deployment, pool, host):
                    yield file, pool, host

    def _files(self, template: WishedTemplate, *, lately: bool = False) -> Iterator[tuple[FileKey, Pool, str]]:
        """All that there can be; `lately`: also on hosts that were of the pool's zone a moment ago."""
        if not template.uid:
            return
        for pool in self.pools:
            hosts = [
                host.name
                for host in self.hosts.values()
                if pool.zone == host.zone or (lately and pool.zone in self._left.get(host.name, ()))
            ]
            for host in [""] if pool.shared else hosts:
                yield (self._disk_name(host, pool.name), template.file_name), pool, host

    def _covers(self, deployment: WishedDeployment, pool: Pool, host: str) -> bool:
        named = deployment.zone == pool.zone and (not deployment.pools or pool.name in deployment.pools)
        return named and (pool.shared or not deployment.hosts or host in deployment.hosts)

    def _selects(self, deployment: WishedDeployment, pool: Pool, host: str) -> bool:
        tier = deployment.tier
        return self._covers(deployment, pool, host) and (pool.shared or not tier or self.hosts[host].tier == tier)
