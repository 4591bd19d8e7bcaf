"""What the CSI plugin is answered at the agent's socket."""

import asyncio
import contextlib
import pathlib
import stat
from collections.abc import AsyncIterator
from typing import Any

import prometheus_client
import pytest
from tests.world.plugin import ROOT, UID, Plugin, mounted, publish
from tests.world.waiting import until_async

from directdownload.agent import cluster_view as views
from directdownload.agent.settings import Settings
from directdownload.agent.volumes import desk as desks
from directdownload.agent.volumes.desk import VolumeDesk
from directdownload.agent.volumes.ledger import FILE_NAME, Ledger
from directdownload.resources.host import Demand, Served
from directdownload.resources.templateplacement import Progress
from directdownload.resources.volumes import LINE_BYTES, Answer, Mounted, Unpublish, request_line

MIB = 2**20
READY = Answer("Ready", f"{ROOT}/images/{UID}", UID)
#: Longer than any test: what ends earlier was ended by something else.
LONG = 250


class World:
    """A desk, the plugin that asks it, and the controller's half of the Host."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir()
        self.plugin = Plugin(directory / "csi.sock")
        self.progress: dict[str, Progress] = {}
        self.changes = 0
        self.version = 0
        self.desk = self.made()

    def made(self, **fields: Any) -> VolumeDesk:
        defaults: dict[str, Any] = {"csi_socket": str(self.plugin.path), "state_directory": str(self.state)}
        settings = Settings(**{"node_name": "kvm-1", "pool_roots": (ROOT,), **defaults, **fields})
        return VolumeDesk(settings, progress=self.progress.get, on_change=self.changed)

    def changed(self) -> None:
        self.changes += 1

    @contextlib.asynccontextmanager
    async def running(self, **fields: Any) -> AsyncIterator[None]:
        """A new desk, which is cancelled in the end."""
        self.desk = self.made(**fields)
        task = asyncio.ensure_future(self.desk.run())
        try:
            await until_async("an answer", lambda: answers(self.plugin))
            self.changes = 0
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def host(self, uid: str = "h1", **status: Any) -> None:
        self.version += 1
        self.desk.hear(views.HostView("kvm-1", uid, self.version, 1, "zone-1", {}, None, status))

    def serve(self, state: str = "Ready", **fields: Any) -> None:
        """Answers all demands alike."""
        found = {"templateUID": UID, "path": READY.path} if state == "Ready" else {}
        answers = [{**named(demand), "state": state, **found, **fields} for demand in self.desk.demands]
        self.host(served=answers)

    async def demand(self, uid: str = "", volumes: int = 1) -> None:
        await until_async("the demand", lambda: (uid, volumes) in [(d.uid, d.volumes) for d in self.desk.demands])

    async def known(self, name: str = "v1") -> None:
        """Lets the first request of a volume go by."""
        self.serve("Waiting")
        answer = asyncio.ensure_future(self.plugin.ask(publish(name)))
        await self.demand(volumes=len(self.saved().volumes) + 1)
        self.serve("Waiting", reason="WaitingForSlot", message="2 of 2 downloads run")
        assert (await answer).state == "Waiting"

    def saved(self) -> Ledger:
        return Ledger.load(str(self.state))


def named(demand: Demand) -> dict[str, Any]:
    return demand.model_dump(by_alias=True, mode="json", include={"namespace", "template", "uid", "since"})


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return World(tmp_path)


async def answers(plugin: Plugin) -> bool:
    try:
        return await plugin.ask(Unpublish("none")) == Answer()
    except OSError:
        return False


def metric(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(f"directdownload_{name}", labels) or 0.0


# --- Publish


async def test_the_first_request_is_answered_as_soon_as_the_controller_has_said_anything(world: World) -> None:
    async with world.running(first_answer_seconds=LONG):
        answer = asyncio.ensure_future(world.plugin.ask(publish(hold_seconds=LONG)))
        await world.demand()
        assert world.changes > 0, "the Host's status is due"
        world.serve("Waiting", reason="WaitingForSlot", message="2 of 2 downloads run")
        assert await answer == Answer(
            "Waiting",
            reason="WaitingForSlot",
            message="waiting for Template debian-13: 2 of 2 downloads run",
        )


async def test_a_copy_that_is_there_is_ready_at_once_and_its_uid_is_on_disk_before(world: World) -> None:
    async with world.running(first_answer_seconds=LONG):
        answer = asyncio.ensure_future(world.plugin.ask(publish()))
        await world.demand()
        world.serve()
        assert await answer == READY
        assert world.saved().volumes["v1"].uid == UID
        assert [demand.uid for demand in world.desk.demands] == [UID]


async def test_a_controller_that_says_nothing_is_not_waited_for(world: World) -> None:
    async with world.running(first_answer_seconds=0.1):
        answer = await world.plugin.ask(publish(hold_seconds=LONG))
    assert answer == Answer("Waiting", message="waiting for Template debian-13: the controller has not answered yet")


async def test_a_later_request_is_held_until_the_copy_is_there(world: World) -> None:
    async with world.running():
        await world.known()
        answer = asyncio.ensure_future(world.plugin.ask(publish(hold_seconds=LONG)))
        for message in ("1 of 2 downloads run", "downloading"):
            world.serve("Waiting", message=message)
            await asyncio.sleep(0.05)
            assert not answer.done()
        world.serve()
        assert await answer == READY


async def test_a_later_request_is_held_until_the_template_is_refused(world: World) -> None:
    async with world.running():
        await world.known()
        answer = asyncio.ensure_future(world.plugin.ask(publish(hold_seconds=LONG)))
        world.serve("Refused", reason="TemplateNotFound", message="there is none")
        assert await answer == Answer("Refused", reason="TemplateNotFound", message="there is none")


async def test_at_the_end_of_a_hold_the_answer_says_how_far_the_download_is(world: World) -> None:
    async with world.running():
        await world.known()
        world.progress[UID] = Progress(bytes_downloaded=251 * MIB, bytes_total=612 * MIB)
        world.serve("Waiting", templateUID=UID, message="downloading")
        answer = await world.plugin.ask(publish(hold_seconds=0.05))
        assert answer.message == "waiting for Template debian-13 (251.0 of 612.0 MiB): downloading"


async def test_a_volume_keeps_its_template_over_a_restart(world: World) -> None:
    async with world.running():
        await world.known()
        world.serve()
        assert await world.plugin.ask(publish()) == READY
    async with world.running():
        world.host()
        answer = asyncio.ensure_future(world.plugin.ask(publish(hold_seconds=LONG)))
        await world.demand(uid=UID)
        world.serve(templateUID="another", path=f"{ROOT}/another")
        await asyncio.sleep(0.1)
        assert not answer.done(), "it is another Template by now"
        world.serve()
        assert await answer == READY


async def test_a_ready_copy_elsewhere_than_in_a_pool_is_not_handed_over(world: World) -> None:
    async with world.running():
        await world.known()
        world.serve(path=f"/etc/{UID}")
        answer = await world.plugin.ask(publish(hold_seconds=0.05))
        assert answer.state == "Waiting"
        assert "below a pool root" in answer.message


async def test_while_the_state_directory_cannot_be_written_only_known_volumes_are_ready(world: World) -> None:
    async with world.running(first_answer_seconds=1):
        await world.known()
        world.serve()
        assert await world.plugin.ask(publish()) == READY
        world.serve()
        # a directory in the way of the temporary file
        blocked = world.state / f"{FILE_NAME}.tmp"
        (blocked / "x").mkdir(parents=True)
        new = asyncio.ensure_future(world.plugin.ask(publish("v2", hold_seconds=LONG)))
        await world.demand()
        world.serve()
        assert await world.plugin.ask(publish()) == READY
        answer = await new
        assert answer.state == "Waiting"
        assert "cannot write" in answer.message
        held = asyncio.ensure_future(world.plugin.ask(publish("v2", hold_seconds=LONG)))
        (blocked / "x").rmdir()
        blocked.rmdir()
        assert await held == READY
        assert world.saved().volumes["v2"].uid == UID


@pytest.mark.parametrize("template", ["", "a/b/c", "../a", "A", "a" * 300, "a\n", "\ud800"])
async def test_a_name_that_no_template_can_have_is_refused(world: World, template: str) -> None:
    async with world.running():
        answer = await world.plugin.ask(publish(template=template))
        assert (answer.state, answer.reason) == ("Refused", "TemplateNotFound")
        assert world.desk.demands == ()


async def test_a_volume_of_another_pod_is_refused(world: World) -> None:
    async with world.running():
        await world.known()
        answer = await world.plugin.ask(publish(namespace="db"))
        assert (answer.state, answer.reason) == ("Refused", "TemplateNotFound")


async def test_more_templates_than_a_host_can_report_wait_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running(first_answer_seconds=0.05):
        await asyncio.gather(*(world.plugin.ask(publish(f"v{each}", f"t{each}")) for each in range(100)))
        assert len(world.desk.demands) == 100
        answer = await world.plugin.ask(publish("more", "x"))
        assert (answer.state, answer.reason) == ("Waiting", "TooManyDemands")
        with monkeypatch.context() as patch:
            patch.setattr("directdownload.agent.volumes.book.VOLUMES_LIMIT", 101)
            answer = await world.plugin.ask(publish("full", "t1"))
        assert (answer.state, answer.reason) == ("Waiting", "TooManyDemands")


# --- the end of a request


async def test_a_closed_connection_is_not_waited_for(world: World) -> None:
    async with world.running():
        await world.known()
        async with world.plugin.connection(request_line(publish(hold_seconds=LONG))):
            await until_async("the request", lambda: world.desk.connections == 1)
        await until_async("the end of the request", lambda: world.desk.connections == 0)


async def test_an_unpublished_volume_is_not_held(world: World) -> None:
    async with world.running():
        await world.known()
        answer = asyncio.ensure_future(world.plugin.ask(publish(hold_seconds=LONG)))
        await until_async("the request", lambda: world.desk.connections == 1)
        assert await world.plugin.ask(Unpublish("v1")) == Answer()
        assert (await answer).message == "the volume was unpublished meanwhile"
        await until_async("the ledger", lambda: world.saved().volumes == {})
        assert [demand.volumes for demand in world.desk.demands] == [0]


async def test_the_end_of_the_agent_ends_its_requests(world: World) -> None:
    async with world.running():
        await world.known()
        held = asyncio.ensure_future(world.plugin.raw(request_line(publish(hold_seconds=LONG))))
        await until_async("the request", lambda: world.desk.connections == 1)
    assert await held == b""


# --- Unpublish and Mounted


async def test_an_unpublished_volume_that_is_not_known_is_no_error(world: World) -> None:
    async with world.running():
        assert await world.plugin.ask(Unpublish("v1")) == Answer()
        assert world.desk.demands == ()


async def test_mounted_volumes_come_back_into_a_lost_ledger(world: World) -> None:
    async with world.running():
        assert await world.plugin.ask(Mounted((mounted(), mounted("bad name")))) == Answer()
        assert [(demand.uid, demand.volumes) for demand in world.desk.demands] == [(UID, 1)]
        await until_async("the ledger", lambda: world.saved().volumes.keys() == {"v1"})


async def test_a_host_keeps_the_demands_of_its_status_until_the_plugin_has_spoken(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"namespace": "web", "template": "debian-13", "uid": UID, "since": "2025-01-31T12:00:00Z", "volumes": 2}
    async with world.running():
        world.host(demands=[{"namespace": "unreadable"}, known])
        assert [(demand.uid, demand.volumes) for demand in world.desk.demands] == [(UID, 2)]
        assert "skipped what is not understood" in caplog.text
        await world.plugin.ask(Mounted(()))
        assert [(demand.uid, demand.volumes) for demand in world.desk.demands] == [(UID, 0)]


async def test_an_answer_that_cannot_be_read_hides_no_other_and_is_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running(first_answer_seconds=LONG):
        answer = asyncio.ensure_future(world.plugin.ask(publish()))
        await world.demand()
        (demand,) = world.desk.demands
        good = {**named(demand), "state": "Ready", "templateUID": UID, "path": READY.path}
        for _ in range(2):
            world.host(served=[{"state": "Ready"}, good])
        assert await answer == READY
        assert caplog.text.count("skipped what is not understood") == 1


# --- the socket


async def test_only_root_can_open_the_socket(world: World) -> None:
    async with world.running():
        status = world.plugin.path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o600


async def test_the_socket_of_an_earlier_agent_is_replaced(world: World) -> None:
    async with world.running():
        pass
    assert world.plugin.path.is_socket()
    async with world.running():
        pass


async def test_what_is_no_socket_stays_and_the_agent_waits_until_it_is_gone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plugin.path.write_text("precious")
    task = asyncio.ensure_future(world.made().run())
    await until_async("the complaint", lambda: "Cannot listen at" in caplog.text)
    assert world.plugin.path.read_text() == "precious"
    world.plugin.path.unlink()
    await until_async("an answer", lambda: answers(world.plugin))
    assert not task.done()
    task.cancel()


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"{}\n",
        b"nonsense\n",
        b"\xff\n",
        b'{"unpublish":{}}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (LINE_BYTES + 1) + b"\n",
        request_line(publish(hold_seconds=-1)),
        request_line(publish(hold_seconds=float("nan"))),
        request_line(publish(hold_seconds=float("inf"))),
        request_line(publish(hold_seconds=LONG)) * 2,
    ],
    ids=lambda data: data[:20].decode(errors="replace").strip() or "empty",
)
async def test_what_is_no_request_closes_its_connection_and_no_other(
    world: World, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running():
        await world.known()
        held = asyncio.ensure_future(world.plugin.ask(publish(hold_seconds=LONG)))
        assert await world.plugin.raw(data) == b""
        assert "whose request is not understood" in caplog.text
        world.serve()
        assert await held == READY


async def test_a_connection_without_a_request_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "_READ_SECONDS", 0.05)
    async with world.running():
        assert await world.plugin.raw(b'{"unpub') == b""


async def test_a_connection_that_ends_without_a_request_is_no_complaint(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running():
        async with world.plugin.connection():
            await until_async("the connection", lambda: world.desk.connections == 1)
        await until_async("its end", lambda: world.desk.connections == 0)
    assert "not understood" not in caplog.text


async def test_the_number_of_connections_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(desks, "CONNECTIONS_LIMIT", 2)
    async with world.running(), contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(world.plugin.connection())
        await until_async("the connections", lambda: world.desk.connections == 2)
        assert await world.plugin.raw(request_line(Unpublish("v1"))) == b""
        assert "refused further ones" in caplog.text
    async with world.running():
        assert await world.plugin.ask(Unpublish("v1")) == Answer()


# --- metrics


async def test_metrics_follow_a_volume(world: World) -> None:
    async with world.running():
        assert metric("csi_connected", host="kvm-1") == 0
        await world.plugin.ask(Mounted(()))
        assert metric("csi_connected", host="kvm-1") == 1
        published = metric("volume_publish_duration_seconds_count")
        await world.known()
        assert (metric("volumes", host="kvm-1", state="waiting"), metric("volumes", host="kvm-1", state="mounted")) == (
            1,
            0,
        )
        assert metric("volume_waiting_seconds", host="kvm-1") > 0
        world.serve()
        await world.plugin.ask(publish())
        assert metric("volume_publish_duration_seconds_count") == published + 1
        assert (metric("volumes", host="kvm-1", state="waiting"), metric("volumes", host="kvm-1", state="mounted")) == (
            0,
            1,
        )
        assert metric("volume_waiting_seconds", host="kvm-1") == 0


def test_served_entries_of_the_api_are_read() -> None:
    """The names that these tests write are those of the API."""
    document = {"namespace": "web", "template": "a", "since": "2025-01-31T12:00:00Z", "state": "Ready"}
    assert Served.model_validate({**document, "templateUID": UID}).template_uid == UID
