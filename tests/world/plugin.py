"""The CSI plugin's end of the agent's socket, and volumes to ask for."""

import asyncio
import contextlib
import dataclasses
import datetime
import pathlib
from collections.abc import AsyncIterator
from typing import Any

from directdownload.agent.volumes.book import Moment
from directdownload.resources.host import Served
from directdownload.resources.volumes import Answer, MountedVolume, Publish, Request, request_line

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
NOW = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.UTC)
#: The uid of the Template that is served unless a test names another.
UID = "8f0c1d2e"
ROOT = "/var/lib/libvirt"


def at(seconds: float = 0) -> Moment:
    """A moment so long after the first one."""
    return Moment(NOW + datetime.timedelta(seconds=int(seconds)), 1000 + seconds)


def publish(volume: str = "v1", template: str = "debian-13", hold_seconds: float = 100, **fields: Any) -> Publish:
    return Publish(
        **{"namespace": "web", "pod": "p", **fields}, volume=volume, template=template, hold_seconds=hold_seconds
    )


def mounted(volume: str = "v1", template: str = "debian-13", uid: str = UID, namespace: str = "web") -> MountedVolume:
    return MountedVolume(volume, namespace, template, uid)


def served(since: datetime.datetime, state: str = "Ready", uid: str = "", **fields: Any) -> Served:
    """The answer to the demand of `publish`, by default with a copy of the Template `UID`."""
    found = {"template_uid": UID, "path": f"{ROOT}/images/{UID}"} if state == "Ready" else {}
    known = {"namespace": "web", "template": "debian-13", "uid": uid, "since": since, "state": state}
    return Served.model_validate({**known, **found, **fields})


@dataclasses.dataclass(frozen=True, slots=True)
class Plugin:
    """Asks at the socket `path`."""

    path: pathlib.Path

    @contextlib.asynccontextmanager
    async def connection(self, data: bytes = b"") -> AsyncIterator[Connection]:
        """A connection on which `data` was written."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def raw(self, data: bytes) -> bytes:
        """What comes back until the agent closes the connection."""
        async with self.connection(data) as (reader, _):
            try:
                return await reader.read()
            except ConnectionError:
                # closed before all of `data` was read
                return b""

    async def ask(self, request: Request) -> Answer:
        return Answer.read(await self.raw(request_line(request)))
