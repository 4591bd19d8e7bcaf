"""Writes the agent's fields of `Host.status`: one apply with all fields that the agent owns.

Fed by `supervisor`. Add every further field that the agent owns to `Report`, so that it is part of this apply: a second
apply by the same manager would erase the fields of the first.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

import directdownload
from directdownload.agent import retry
from directdownload.agent.keystore.report import KeystoreReport
from directdownload.cluster import client, errors, kinds
from directdownload.resources.base import AGENT
from directdownload.resources.host import Demand, HostStorage
from directdownload.resources.peeridentity import PeerRequest

logger = logging.getLogger(__name__)

#: A change of the list of unplaced files waits this long; their sizes wait with the other numbers.
UNPLACED_SECONDS = 60
#: A change of a number of volumes waits this long, unless the first came or the last went.
DEMANDS_SECONDS = 10
#: Changes within this time are written together.
_GATHER_SECONDS = 0.1
#: A change of free space by this share of the capacity is reported at once.
SIGNIFICANT = 0.01
#: The same for free inodes, by share of the reported number (some file systems derive it from free space).
SIGNIFICANT_INODES = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """All fields of `Host.status` that the agent owns; `uid` is that of the Host."""

    uid: str
    storage: Mapping[str, HostStorage]
    keystore: KeystoreReport
    #: None: there is no CSI plugin on this host
    demands: tuple[Demand, ...] | None = None
    #: None: the host has no peers
    peer_request: PeerRequest | None = None

    @property
    def status(self) -> dict[str, Any]:
        pools = [
            self.storage[name].model_dump(by_alias=True, exclude_defaults=True, mode="json")
            for name in sorted(self.storage)
        ]
        status = {"agentVersion": directdownload.__version__, "storage": pools, **self.keystore.status}
        if self.demands is not None:
            status["demands"] = [
                each.model_dump(by_alias=True, exclude_none=True, mode="json") for each in self.demands
            ]
        if self.peer_request is not None:
            status["peerRequest"] = self.peer_request.model_dump(by_alias=True, mode="json")
        return status


def due_seconds(
    told: Report | None, now: Report, told_seconds_ago: float, numbers_interval_seconds: float
) -> float | None:
    """How long the change from `told` to `now` may wait; None: no change. Pure."""
    if told is None or told.uid != now.uid or told.storage.keys() != now.storage.keys():
        return 0.0
    if told.keystore != now.keystore or told.peer_request != now.peer_request or _demanded(told) != _demanded(now):
        return 0.0
    if any(significant(told.storage[name], facts) for name, facts in now.storage.items()):
        return 0.0
    if told.status == now.status:
        return None
    listed = any(_unplaced(told.storage[name]) != _unplaced(facts) for name, facts in now.storage.items())
    waits = [numbers_interval_seconds]
    if listed:
        waits.append(UNPLACED_SECONDS)
    if told.demands != now.demands:
        waits.append(DEMANDS_SECONDS)
    return max(0.0, min(waits) - told_seconds_ago)


def _demanded(report: Report) -> set[tuple[object, ...]] | None:
    """What the controller decides by: which demands there are, and which of them have volumes."""
    if report.demands is None:
        return None
    return {(*each.key, each.since, each.volumes > 0) for each in report.demands}


def _unplaced(facts: HostStorage) -> tuple[bool, set[tuple[str, str]]]:
    return facts.unplaced_bytes is None, {(file.name, file.state) for file in facts.unplaced}


def significant(told: HostStorage | None, now: HostStorage) -> bool:
    """Whether the change must be reported at once."""
    if told is None or _flags(told) != _flags(now):
        return True
    capacity = now.capacity_bytes or 0
    moved = abs((told.available_bytes or 0) - (now.available_bytes or 0))
    inodes_moved = abs((told.inodes_free or 0) - (now.inodes_free or 0))
    return (moved > 0 and moved >= capacity * SIGNIFICANT) or (
        inodes_moved > 0 and inodes_moved >= (told.inodes_free or 0) * SIGNIFICANT_INODES
    )


def _flags(storage: HostStorage) -> HostStorage:
    return storage.model_copy(
        update={"available_bytes": None, "inodes_free": None, "unplaced": (), "unplaced_bytes": None}
    )


class HostReporter:
    """`want` sets the wanted status (None: there is no Host); `run` writes it until cancelled."""

    def __init__(self, api: client.Api, host: str, *, numbers_interval_seconds: float) -> None:
        self._api = api
        self._host = host
        self._numbers_interval_seconds = numbers_interval_seconds
        self._wanted: Report | None = None
        self._told: Report | None = None
        self._told_monotonic = 0.0
        self._retry_monotonic = 0.0
        self._gone_uid = ""
        #: in a row
        self._failures = 0
        self._complaint = retry.Complaint(logger)
        self._wake = asyncio.Event()
        #: set after the first write of the Host
        self.told = asyncio.Event()
        #: why the last write failed; empty: it did not
        self.failure = ""

    def want(self, report: Report | None) -> None:
        self._wanted = report
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            pause = self._pause()
            if pause == 0:
                await self._tell()
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_GATHER_SECONDS)

    def _pause(self) -> float | None:
        """Seconds until the next write; None: nothing to write."""
        wanted, now = self._wanted, time.monotonic()
        if wanted is None or wanted.uid == self._gone_uid:
            return None
        seconds = due_seconds(self._told, wanted, now - self._told_monotonic, self._numbers_interval_seconds)
        return None if seconds is None else max(seconds, self._retry_monotonic - now, 0.0)

    async def _tell(self) -> None:
        wanted = self._wanted
        if wanted is None:
            return
        body = {"metadata": {"name": self._host, "uid": wanted.uid}, "status": wanted.status}
        try:
            await self._api.apply(kinds.HOSTS, body, manager=AGENT, subresource="status")
        except errors.NotFound:
            # deleted or recreated since: the watch will report it
            self._gone_uid = wanted.uid
        except errors.ApiError as error:
            self.failure = f"cannot write the status of Host {self._host}: {error}"
            self._complaint.say(logging.WARNING, self.failure)
            self._failures += 1
            self._retry_monotonic = time.monotonic() + retry.pause_seconds(self._failures, error)
        else:
            self._told, self._told_monotonic, self._retry_monotonic = wanted, time.monotonic(), 0.0
            self._failures = 0
            self.failure = ""
            self._complaint.clear(f"Wrote the status of Host {self._host} again")
            self.told.set()
