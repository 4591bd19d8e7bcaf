"""A leading controller on a `FakeApi`: what the tests of reconcilers and of their shared writes begin with."""

import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit.planning import build
from tests.unit.planning.build import Document
from tests.world.api import Call, FakeApi

from directdownload.cluster import errors, kinds
from directdownload.controller import context, events, settings
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.world import World
from directdownload.resources import base


async def _nothing(_: Key) -> None: ...


class Scene:
    """The API, and the `context` with the world that its controller knows."""

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[None]] = _nothing,
        *,
        memory_bytes: int = 0,
        recorder: Any = None,
    ) -> None:
        self.api = FakeApi(namespace="operator")
        for kind in kinds.OURS:
            self.api.put(kinds.DEFINITIONS, {"metadata": {"name": f"{kind.plural}.{kind.group}"}})
        self.world, self.queue = World((build.POOL_PATH,), memory_bytes), WorkQueue(reconcile)
        around = settings.Settings("operator", "pod", pathlib.Path("job.yaml"), ())
        recorder = recorder or events.Recorder(self.api, "pod")
        self.context = context.Context(self.api, self.world, self.queue, around, {}, recorder)

    def put(self, resource: kinds.Resource, *items: base.Resource | Document) -> None:
        """As others write them; the controller hears of it."""
        for item in items:
            document = item if isinstance(item, dict) else context.dump(item)
            self.context.observe(resource, self.api.put(resource, document))

    def refuse(self, verb: str, *hosts: str) -> None:
        """The API server forbids each such call for a placement on one of `hosts`."""

        def forbid(call: Call) -> None:
            if call.verb == verb and call.resource is kinds.TEMPLATE_PLACEMENTS and call.body["spec"]["host"] in hosts:
                raise errors.Forbidden(403, "Forbidden", call.name)

        self.api.on_call = forbid

    def made(self) -> list[str]:
        """The hosts of the placements that are there, in the order of their making."""
        called = [call.name for call in self.api.called("create", kinds.TEMPLATE_PLACEMENTS)]
        found = {item["metadata"]["name"]: item for item in self.api.objects(kinds.TEMPLATE_PLACEMENTS)}
        return [found[name]["spec"]["host"] for name in called if name in found]

    def asked(self) -> list[str]:
        """The placements that were asked to try again, one for each patch."""
        return [call.name for call in self.api.called("patch", kinds.TEMPLATE_PLACEMENTS)]
