"""The volumes of this host and the demands that they make, kept in the state directory over restarts and reboots.

`book` changes the entries, `desk` saves them. A volume keeps the uid of the Template that it first had a copy of, also
when the kubelet publishes it again after a reboot. So `desk` answers Ready only for a volume that is `durable`. A
demand stays here until the controller has released it.

While the file cannot be written, writes are tried again with growing pauses; volumes whose uid is on disk go on. The
file is hostile until checked: an unreadable one counts as empty, and the plugin's next statement of its mounts brings
the mounted volumes back.
"""

import asyncio
import dataclasses
import datetime
import logging
import os
import time
from collections.abc import Mapping
from typing import Annotated

import pydantic

from directdownload.agent import retry
from directdownload.hostfiles import reading, writing
from directdownload.resources.base import Model, Time

logger = logging.getLogger(__name__)

FILE_NAME = "volumes.json"
#: More than 20,000 volumes with the longest names.
_FILE_LIMIT_BYTES = 32 * 2**20
_LABEL, _NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"

#: Namespace, template and uid of a demand, as `Demand.key` has them.
Key = tuple[str, str, str]
#: As the plugin names it.
VolumeName = Annotated[str, pydantic.Field(pattern=r"^[!-~]{1,256}$")]


def _whole_seconds(moment: datetime.datetime) -> datetime.datetime:
    """As the API has it: an answer matches its demand by this time."""
    if moment.tzinfo is None:
        raise ValueError("expected a time with its zone")
    return moment.astimezone(datetime.UTC).replace(microsecond=0)


_Time = Annotated[Time, pydantic.AfterValidator(_whole_seconds)]


class _Needed(Model):
    """A Template as a pod names it. Only names that an object can have, as the API server refuses others."""

    namespace: str = pydantic.Field(pattern=f"^{_LABEL}$")
    template: str = pydantic.Field(pattern=f"^({_LABEL}/)?{_NAME}$")
    uid: str = pydantic.Field("", pattern=r"^[-A-Za-z0-9]{0,64}$")
    #: when it was asked for first
    since: _Time

    @property
    def key(self) -> Key:
        return self.namespace, self.template, self.uid


class Volume(_Needed):
    """One volume. `uid` is empty until its first copy is there, and never changes after that."""


class Entry(_Needed):
    """One demand. `last_used_time` is None while there is a volume with its key."""

    last_used_time: _Time | None = None


class _File(Model):
    version: int = 1
    volumes: dict[VolumeName, Volume] = pydantic.Field(default_factory=dict)
    demands: tuple[Entry, ...] = ()


@dataclasses.dataclass(slots=True)
class Ledger:
    """Volumes by name and demands by key, in the file `path`. Changes are on disk once `save` returns True."""

    path: str
    volumes: dict[str, Volume] = dataclasses.field(default_factory=dict)
    demands: dict[Key, Entry] = dataclasses.field(default_factory=dict)
    #: when `save` tries again after it failed
    retry_monotonic: float = 0.0
    #: why the last `save` failed; empty: it did not
    problem: str = ""
    #: as they were saved last
    _saved_volumes: Mapping[str, Volume] = dataclasses.field(default_factory=dict)
    _saved_demands: Mapping[Key, Entry] = dataclasses.field(default_factory=dict)
    #: in a row; after one, the file may have the old or the new content
    _failures: int = 0
    _complaint: retry.Complaint = dataclasses.field(default_factory=lambda: retry.Complaint(logger))

    @classmethod
    def load(cls, state_directory: str) -> "Ledger":
        path = os.path.join(state_directory, FILE_NAME)
        try:
            content = _File.model_validate_json(reading.read(path, _FILE_LIMIT_BYTES).data)
            if content.version != 1:
                raise ValueError("expected version 1")
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, OverflowError) as error:
            logger.warning("Cannot read %s, starting with no volumes: %s", path, type(error).__name__)
            return cls(path)
        volumes, demands = content.volumes, {each.key: each for each in content.demands}
        return cls(path, dict(volumes), dict(demands), _saved_volumes=volumes, _saved_demands=demands)

    @property
    def saved(self) -> bool:
        """Whether all is on disk."""
        return not self._failures and (self._saved_volumes, self._saved_demands) == (self.volumes, self.demands)

    def durable(self, volume: str) -> bool:
        """Whether exactly this entry of the volume is on disk."""
        entry = self.volumes.get(volume)
        return entry is not None and self._saved_volumes.get(volume) == entry

    async def save(self) -> bool:
        """Writes changes durably; after a failure, not before `retry_monotonic`. Returns whether all is on disk."""
        if self.saved:
            return True
        if time.monotonic() < self.retry_monotonic:
            return False
        volumes, demands = dict(self.volumes), dict(self.demands)
        data = _File(volumes=volumes, demands=tuple(demands.values())).model_dump_json().encode()
        try:
            await asyncio.to_thread(self._write, data)
        except OSError as error:
            self._failures += 1
            self.retry_monotonic = time.monotonic() + retry.pause_seconds(self._failures, error)
            self.problem = f"cannot write {self.path}: {error.strerror}"
            text = f"{self.problem}; new volumes wait until it can be written"
            self._complaint.say(logging.WARNING, text[:1].upper() + text[1:])
            return False
        self._saved_volumes, self._saved_demands = volumes, demands
        self._failures, self.problem = 0, ""
        self._complaint.clear(f"Wrote {self.path} again")
        return self.saved

    def _write(self, data: bytes) -> None:
        writing.write_atomically(self.path, data)
        writing.sync_directory(os.path.dirname(self.path))
