"""Watches one pool of this host: its storage facts, journals, records and leftovers.

`supervisor` runs a `PoolMonitor` per pool and gets its results by callbacks. A pool that hangs delays only its own
monitor. The functions judge, without I/O, what the worker found of the pool, for `Host.status.storage`. The agent
mounts each pool root as the host has it, so that mount options, of a root or below it, are the host's own.
"""

import asyncio
import dataclasses
import datetime
import errno
import logging
import os.path
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from directdownload import escaping
from directdownload.agent.cluster_view import Target
from directdownload.agent.copies import Wanted
from directdownload.agent.pools import book, leftovers, worker
from directdownload.agent.retry import Complaint
from directdownload.agent.settings import Settings
from directdownload.agent.status.placements import Owners
from directdownload.agent.status.told import Told
from directdownload.hostfiles import mountinfo
from directdownload.observe import logs
from directdownload.resources import quantities
from directdownload.resources.host import HostStorage, UnplacedFile
from directdownload.resources.naming import RECORD_SUFFIX, WORK_DIRECTORY
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: Published files per request: the answer stays below 2 MiB, whatever their names are.
_LOOK_AT_ONCE = 1000
#: With these options, writers of a pool can create neither setuid programs nor devices.
_WANTED = ("nosuid", "nodev")
_ABSENT = (errno.ENOENT, errno.ENOTDIR)

OnStorage = Callable[[HostStorage], None]
#: pool, wanted status of its placements, uids of placements that have or had a record
OnCopies = Callable[[str, list[Wanted], Mapping[str, str]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The worker's findings at a pool's path; `error_number` of the failed call, or 0."""

    error_number: int = 0
    directory: bool = False
    real_path: str = ""
    #: device of the directory; it changes with a mount or unmount
    device: int = 0
    #: the pool has records
    recorded: bool = False
    capacity_bytes: int = 0
    available_bytes: int = 0
    inodes_free: int = 0


def exposed(target: Target, pool_roots: Sequence[str]) -> bool:
    """Whether the path is exposed. A local pool may be a root itself; a shared one must be below, because its mount
    would otherwise be undetectable."""
    root = mountinfo.root_of(target.path, pool_roots)
    return root is not None and not (target.shared and root == target.path)


def not_exposed(target: Target) -> HostStorage:
    return _unusable(target, Reason.PATH_NOT_EXPOSED)


def over_budget(target: Target) -> HostStorage:
    """The state of a pool whose work directory is over its budget."""
    return _unusable(target, Reason.POOL_NOT_READY)


def judge(
    target: Target,
    pool_roots: Sequence[str],
    mounts: Sequence[mountinfo.Mount],
    facts: Facts | None,
    *,
    was_own_mount: bool = False,
) -> HostStorage:
    """The state of a pool. `facts` is None if it does not answer (a hung network file system).

    `was_own_mount`: the pool had copies while `on_own_mount` was true. A local pool needs no mount of its own. But a
    pool that had one, and now has neither mount nor record, is an unmounted disk: its files are not lost, and must not
    be fetched again onto the disk below.
    """
    if facts is None:
        return _unusable(target, Reason.POOL_NOT_READY)
    if facts.error_number:
        absent = facts.error_number in _ABSENT
        return _unusable(target, Reason.PATH_MISSING if absent else Reason.POOL_NOT_READY)
    # A link out of the roots leads into the agent's own file system, not the host's.
    root = mountinfo.root_of(facts.real_path, pool_roots)
    if root is None:
        return not_exposed(target)
    if not facts.directory:
        return _unusable(target, Reason.NOT_WRITABLE)
    mount = mountinfo.covering(mounts, facts.real_path)
    if target.shared and not mountinfo.is_pool_mount(mount, facts.real_path, root):
        # without numbers, which would be those of the disk below
        return _unusable(target, Reason.NOT_MOUNTED)
    if was_own_mount and not facts.recorded and not on_own_mount(pool_roots, mounts, facts):
        return _unusable(target, Reason.NOT_MOUNTED)
    read_only = mount is not None and "ro" in mount.super_options | mount.options
    return HostStorage(
        pool=target.pool,
        path=target.path,
        # some file systems (and servers of network file systems) claim more than the API can hold
        capacity_bytes=min(facts.capacity_bytes, quantities.LARGEST_INTEGER),
        available_bytes=min(facts.available_bytes, quantities.LARGEST_INTEGER),
        inodes_free=min(facts.inodes_free, quantities.LARGEST_INTEGER),
        writable=not read_only,
        mounted=True,
        reason=Reason.NOT_WRITABLE if read_only else None,
        missing_mount_options=() if mount is None else tuple(each for each in _WANTED if each not in mount.options),
    )


def on_own_mount(pool_roots: Sequence[str], mounts: Sequence[mountinfo.Mount], facts: Facts) -> bool:
    """Whether the host mounts a file system for the pool, at a pool root or below one, apart from the root's parent.

    A pool root is always a mount of the agent. If it is a plain directory of the host, the mount's root is a path with
    the same last name. If the host has mounted a file system there, the mount's root is the top of that.
    """
    root, mount = mountinfo.root_of(facts.real_path, pool_roots), mountinfo.covering(mounts, facts.real_path)
    if root is None or mount is None:
        return False
    if mount.point == root:
        return os.path.basename(mount.root) != os.path.basename(root)
    return mountinfo.below(mount.point, root)


class PoolMonitor:
    """`run` ends only when cancelled, and ends its child process then."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        told: Told,
        owners: Owners,
        *,
        on_storage: OnStorage,
        on_copies: OnCopies,
    ) -> None:
        self.target = target
        self._settings = settings
        self._told = told
        self._owners = owners
        self._on_storage = on_storage
        self._on_copies = on_copies
        self._worker = worker.PoolWorker(target.path, timeout_seconds=settings.pool_timeout_seconds)
        self._book = book.PoolBook(target, settings.node_name, told.remembered(target.pool, target.path))
        self._about = logs.about("StoragePool", target.pool)
        self._complaint = Complaint(logger)
        self._sweep_complaint = Complaint(logger)
        self._budget_complaint = Complaint(logger)
        self._mount_complaint = Complaint(logger)
        #: device of the pool at the last check of its facts
        self._device = 0
        #: the work directory was over its budget at the last scan
        self._over_budget = False
        self._storage = not_exposed(target)
        self._leftovers: list[leftovers.Leftover] = []
        #: the work directory was listed since the pool is usable
        self._listed = False
        # remembered placements count also while the pool is unusable
        owners.want(target.pool, copies=self._book.placements().items(), leftovers=())

    async def run(self) -> None:
        facts_due = observe_due = 0.0
        usable = False
        try:
            while True:
                now = time.monotonic()
                look_around = now >= facts_due
                if look_around:
                    usable = await self._facts()
                    facts_due = time.monotonic() + self._settings.facts_interval_seconds
                pause = facts_due - time.monotonic()
                if usable:
                    observe = now >= observe_due
                    usable = await self._look(observe)
                    # a pool over its budget stays so for a while, and each check costs a listing
                    look_around = look_around or self._over_budget
                    if observe and usable:
                        observe_due = time.monotonic() + self._settings.observe_interval_seconds
                    busy = self._book.active(_now()) or self._book.unsettled(_now())
                    scan = self._settings.active_scan_seconds if busy else self._settings.idle_scan_seconds
                    pause = min(pause, scan)
                    # request facts next from a pool that stopped answering
                    facts_due = facts_due if usable or self._over_budget else 0
                    pause = facts_due - time.monotonic() if self._over_budget else pause
                if not usable:
                    observe_due = 0
                if look_around:
                    self._report()
                await asyncio.sleep(max(0.01, pause))
        finally:
            await self._worker.close()

    async def _facts(self) -> bool:
        """Updates the storage facts; returns whether the pool can be scanned."""
        facts: Facts | None
        try:
            answer = await self._worker.ask("facts", work_directory=WORK_DIRECTORY, record_suffix=RECORD_SUFFIX)
            facts = Facts(**answer)
            self._complaint.clear(f"Pool {self.target.pool} answers again", self._about)
        except worker.NoAnswerError as error:
            facts = None
            self._complaint.say(logging.WARNING, f"Pool {self.target.pool} does not answer: {error}", self._about)
        roots, mounts = self._settings.pool_roots, mountinfo.read()
        pool, path = self.target.pool, self.target.path
        # without copies there, nothing can be lost
        was_own_mount = self._told.own_mount(pool, path) and bool(self._told.remembered(pool, path))
        self._storage = judge(self.target, roots, mounts, facts, was_own_mount=was_own_mount)
        if self._storage.missing_mount_options:
            missing = " and ".join(self._storage.missing_mount_options)
            text = (
                f"Pool {pool}: {path} is mounted without {missing}; mount it with them, because others write its files"
            )
            self._mount_complaint.say(logging.WARNING, text, self._about)
        if facts is None or self._storage.mounted is not True or not facts.directory:
            self._listed = False
            return False
        self._device = facts.device
        self._told.note_pool(pool, path, own_mount=on_own_mount(roots, mounts, facts))
        return True

    async def _look(self, observe: bool) -> bool:
        """Scans the pool. False: it stopped answering, is over its budget, or its path has another file system."""
        try:
            await self._copies(observe)
            if observe:
                await self._list()
        except worker.OverBudgetError as error:
            work_directory = f"{self.target.path}/{WORK_DIRECTORY}"
            text = (
                f"Pool {self.target.pool} is not usable: {work_directory} holds {error}; find out who wrote there, and "
                "remove files that the product did not create"
            )
            self._budget_complaint.say(logging.WARNING, text, self._about)
            self._over_budget, self._listed = True, False
            self._storage = over_budget(self.target)
            return False
        except worker.NoAnswerError as error:
            self._complaint.say(logging.WARNING, f"Pool {self.target.pool} does not answer: {error}", self._about)
            return False
        self._over_budget = False
        self._budget_complaint.clear(f"Pool {self.target.pool} is within its budget again", self._about)
        return True

    async def _copies(self, observe: bool) -> None:
        budget = self._settings.pool_budget
        scan = await self._ask("scan", work_directory=WORK_DIRECTORY, suffixes=list(book.SUFFIXES), budget=budget)
        self._book.take(scan["present"], scan["changed"], _now(), complete=scan["complete"])
        self._book.forget(self._owners.gone)
        if (observe or self._book.unsettled(_now())) and (names := self._book.file_names()):
            for start in range(0, len(names), _LOOK_AT_ONCE):
                answer = await self._ask("files", names=names[start : start + _LOOK_AT_ONCE])
                self._book.look(answer["files"])
        self._on_copies(self.target.pool, self._book.wanted(_now()), self._book.placements())

    async def _list(self) -> None:
        """Lists the leftovers of the work directory, and removes those that have belonged to nobody for a day."""
        answer = await self._ask(
            "leftovers",
            work_directory=WORK_DIRECTORY,
            suffixes=list(leftovers.SUFFIXES),
            idle_seconds=leftovers.IDLE_SECONDS,
            budget=self._settings.pool_budget,
        )
        empty_records = self._book.records_without_file(self._owners.gone)
        self._leftovers = leftovers.group(answer["leftovers"], self._book.journals(), empty_records)
        self._listed = True
        now = time.time()
        self._owners.want(
            self.target.pool,
            copies=self._book.placements().items(),
            leftovers=leftovers.asked_for(self._leftovers, now),
        )
        if self._storage.writable and (doomed := leftovers.swept(self._leftovers, self._owners.owner, now)):
            await self._sweep(doomed, now - leftovers.SWEEP_SECONDS)

    async def _sweep(self, doomed: list[leftovers.Leftover], before: float) -> None:
        answer = await self._ask(
            "sweep",
            work_directory=WORK_DIRECTORY,
            leftovers=[{"names": each.names, "lock": each.lock} for each in doomed],
            before=before,
        )
        if answer["removed"]:
            names = escaping.listed(answer["removed"])
            text = "Pool %s: removed files that belonged to no placement for a day: %s"
            logger.info(text, self.target.pool, names, extra=self._about)
            gone = set(answer["removed"])
            self._leftovers = [each for each in self._leftovers if not gone & set(each.names)]
        if answer["error"]:
            text = f"Pool {self.target.pool}: cannot remove {answer['error']}"
            self._sweep_complaint.say(logging.WARNING, text, self._about)

    async def _ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        """Sends a request for the file system of the last facts, and for no other."""
        return await self._worker.ask(operation, device=self._device, **arguments)

    def _report(self) -> None:
        if not self._listed:
            self._on_storage(self._storage)
            return
        files: list[UnplacedFile] = [
            *self._book.unplaced(self._owners.gone),
            *leftovers.partial(self._leftovers, self._owners.owner, time.time()),
        ]
        unplaced, unplaced_bytes = leftovers.report(files)
        self._on_storage(self._storage.model_copy(update={"unplaced": unplaced, "unplaced_bytes": unplaced_bytes}))


def _unusable(target: Target, reason: Reason) -> HostStorage:
    mounted = reason not in (Reason.NOT_MOUNTED, Reason.PATH_MISSING, Reason.PATH_NOT_EXPOSED)
    return HostStorage(pool=target.pool, path=target.path, writable=False, mounted=mounted, reason=reason)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
