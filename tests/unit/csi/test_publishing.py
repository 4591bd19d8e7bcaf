"""Volumes from kubelet's call to the mount and back: the real socket, real mounts, and an agent of the test."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.world import private_mounts, waiting
from tests.world.csi_world import CONTENT, CONTEXT, UID, VOLUME, Agent, Host, Kubelet, plugin

from directdownload.csi import mounts, mountsource
from directdownload.hostfiles import mountinfo
from directdownload.resources import volumes
from directdownload.resources.volumes import Answer, MountedVolume

MOUNTED = MountedVolume(volume=VOLUME, namespace="team-a", template="debian-13", uid=UID)
SECOND = "csi-" + "2e" * 32


async def refused(call: Awaitable[Any]) -> GRPCError:
    with pytest.raises(GRPCError) as found:
        await call
    message = found.value.message or ""
    assert "%" not in message
    assert message.isprintable()
    return found.value


def disk(host: Host, name: str = "image") -> bytes:
    return (host.target(name) / mounts.DISK).read_bytes()


@private_mounts.alone
async def test_a_file_that_is_ready_is_mounted_and_unmounted(host: Host) -> None:
    async with Agent(lambda _: host.ready()).serving(host.agent_socket) as agent, plugin(host.settings()) as kubelet:
        await kubelet.publish(host.request())
        assert disk(host) == CONTENT
        assert agent.requests == [volumes.Publish(VOLUME, "team-a", "vm-0", "debian-13", 100)]
        await kubelet.unpublish(host.target())
        assert not host.target().exists()
        await waiting.until_async("the agent knows", lambda: agent.requests[1:] == [volumes.Unpublish(VOLUME)])


@private_mounts.alone
async def test_a_volume_that_is_mounted_is_confirmed_and_unmounted_without_the_agent(host: Host) -> None:
    async with plugin(host.settings()) as kubelet:
        async with Agent(lambda _: host.ready()).serving(host.agent_socket):
            await kubelet.publish(host.request())
        await kubelet.publish(host.request())
        assert disk(host) == CONTENT
        await kubelet.unpublish(host.target())
        await kubelet.unpublish(host.target())
        assert not host.target().exists()


@private_mounts.alone
async def test_a_plugin_that_starts_anew_knows_its_volumes(host: Host) -> None:
    async with Agent(lambda _: host.ready()).serving(host.agent_socket) as agent:
        async with plugin(host.settings()) as kubelet:
            await kubelet.publish(host.request())
        assert disk(host) == CONTENT
        agent.mounted.clear()
        async with plugin(host.settings()) as kubelet:
            await waiting.until_async("the agent knows", lambda: agent.mounted == [volumes.Mounted((MOUNTED,))])
            await kubelet.publish(host.request())
            assert len(agent.requests) == 1
            await kubelet.unpublish(host.target())


@private_mounts.alone
async def test_the_agent_hears_again_and_again_what_is_mounted(host: Host) -> None:
    settings = host.settings(mounted_interval_seconds=0.01)
    async with plugin(settings) as kubelet, Agent(lambda _: host.ready()).serving(host.agent_socket) as agent:
        await kubelet.publish(host.request())
        await waiting.until_async("told", lambda: agent.mounted[-1:] == [volumes.Mounted((MOUNTED,))])
        agent.mounted.clear()
        await waiting.until_async("told again", lambda: len(agent.mounted) > 2)


@private_mounts.alone
async def test_an_agent_that_was_away_hears_of_volumes_that_are_no_longer_needed(host: Host) -> None:
    async with plugin(host.settings(mounted_interval_seconds=0.01)) as kubelet:
        await kubelet.unpublish(host.target())
        async with Agent(lambda _: host.ready()).serving(host.agent_socket) as agent:
            await waiting.until_async("told", lambda: agent.requests == [volumes.Unpublish(VOLUME)])
            agent.mounted.clear()
            await waiting.until_async("not again", lambda: len(agent.mounted) > 2)
            assert len(agent.requests) == 1


def test_a_volume_that_is_needed_again_is_not_reported_as_gone(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    @private_mounts.alone
    async def body() -> None:
        async with plugin(host.settings(mounted_interval_seconds=600)) as kubelet:
            await kubelet.unpublish(host.target())
            silent = "the agent of this host does not answer"
            await waiting.until_async("tried in vain", lambda: sum(silent in each for each in caplog.messages) > 1)
            async with Agent(lambda _: host.ready()).serving(host.agent_socket) as agent:
                await kubelet.publish(host.request())
                await kubelet.unpublish(host.target("second"), volume=SECOND)
                await waiting.until_async("told", lambda: volumes.Unpublish(SECOND) in agent.requests)
                assert volumes.Unpublish(VOLUME) not in agent.requests

    with caplog.at_level(logging.DEBUG, logger="directdownload"):
        body()


@private_mounts.alone
async def test_a_volume_that_another_pod_uses_is_still_needed(host: Host) -> None:
    host.target("second").parent.mkdir()
    settings = host.settings(mounted_interval_seconds=0.01)
    async with Agent(lambda _: host.ready()).serving(host.agent_socket) as agent, plugin(settings) as kubelet:
        await kubelet.publish(host.request())
        await kubelet.publish(host.request(target_path=str(host.target("second"))))
        await kubelet.unpublish(host.target())
        agent.mounted.clear()
        await waiting.until_async("reported", lambda: len(agent.mounted) > 2)
        assert agent.mounted[-1] == volumes.Mounted((MOUNTED,))
        assert volumes.Unpublish(VOLUME) not in agent.requests
        await kubelet.unpublish(host.target("second"))
        await waiting.until_async("told", lambda: volumes.Unpublish(VOLUME) in agent.requests)
        assert [type(each) for each in agent.requests] == [volumes.Publish, volumes.Publish, volumes.Unpublish]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(state="Waiting", message="download at 251 of 612 MiB"), "download at 251 of 612 MiB"),
        (Answer(state="Waiting", reason="SlotsFull", message="41% free\n"), "SlotsFull: 41 per cent free\\n"),
        (Answer(state="Waiting"), "Template debian-13: Waiting"),
        (Answer(state="Refused", reason="NotAllowed", message="no"), "NotAllowed: no"),
        (Answer(state="Later"), "unknown answer 'Later'"),
        (Answer(), "unknown answer ''"),
        (b"", "it closed the connection"),
        (b'{"state":"Ready"', "it closed the connection"),
        (b"garbage\n", "does not understand (expected a line of JSON"),
        (b"[]\n", "does not understand (expected a JSON object)"),
        (b'{"state":1}\n', "does not understand (Answer.state"),
        (b'{"state":"Ready","more":1}\n', "does not understand (Answer: unknown fields"),
        (b"[" * 100_000 + b"\n", "does not understand"),
        (b"\xff\n", "does not understand"),
        (b"x" * (volumes.LINE_BYTES + 70_000) + b"\n", "does not answer ("),
    ],
)
def test_what_the_agent_says_is_an_answer_after_which_kubelet_tries_again_and_unpublishes(
    host: Host, answer: Answer | bytes, words: str
) -> None:
    @private_mounts.alone
    async def body() -> None:
        async with Agent(lambda _: answer).serving(host.agent_socket), plugin(host.settings()) as kubelet:
            error = await refused(kubelet.publish(host.request()))
            assert (error.status, words in (error.message or "")) == (Status.UNAVAILABLE, True), error
        assert not host.target().exists()

    body()


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        ("{pool}/{uid}.qcow2", UID),
        ("{pool}/{uid}", "another"),
        ("{pool}/../pool/{uid}", UID),
        ("{pool}/./{uid}", UID),
        ("/etc/{uid}", UID),
        ("{pool}x/../../../etc/{uid}", UID),
        ("{uid}", UID),
        ("", ""),
        ("{pool}/..", ".."),
        ("{pool}/.iso", ""),
    ],
)
def test_a_file_that_is_none_of_a_template_below_a_pool_root_is_not_mounted(host: Host, path: str, uid: str) -> None:
    @private_mounts.alone
    async def body() -> None:
        answer = Answer(state="Ready", path=path.format(pool=host.pool, uid=UID), uid=uid)
        async with Agent(lambda _: answer).serving(host.agent_socket), plugin(host.settings()) as kubelet:
            error = await refused(kubelet.publish(host.request()))
            assert (error.status, "the agent named the file" in (error.message or "")) == (Status.UNAVAILABLE, True)
        assert not host.target().exists()

    body()


@private_mounts.alone
async def test_an_iso_image_is_mounted(host: Host) -> None:
    (host.pool / f"{UID}.iso").write_bytes(b"iso")
    answer = Answer(state="Ready", path=f"{host.pool}/{UID}.iso", uid=UID)
    async with Agent(lambda _: answer).serving(host.agent_socket), plugin(host.settings()) as kubelet:
        await kubelet.publish(host.request())
        assert disk(host) == b"iso"


@private_mounts.alone
async def test_an_agent_that_is_away_is_named(host: Host) -> None:
    async with plugin(host.settings()) as kubelet:
        error = await refused(kubelet.publish(host.request()))
        assert error.status is Status.UNAVAILABLE
        assert "the agent of this host does not answer (No such file or directory)" in (error.message or "")


@private_mounts.alone
async def test_an_agent_that_answers_too_late_is_given_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("directdownload.csi.publishing._ANSWER_SECONDS", 0.05)
    agent = Agent(lambda _: asyncio.sleep(600, Answer()))
    async with agent.serving(host.agent_socket), plugin(host.settings(hold_seconds=0)) as kubelet:
        error = await refused(kubelet.publish(host.request()))
        assert (error.status, "no answer within 0.05 seconds" in (error.message or "")) == (Status.UNAVAILABLE, True)
        await waiting.until_async("the connection is closed", lambda: agent.left == 1)


@private_mounts.alone
async def test_a_file_that_is_gone_is_named(host: Host) -> None:
    os.unlink(host.image)
    async with Agent(lambda _: host.ready()).serving(host.agent_socket), plugin(host.settings()) as kubelet:
        error = await refused(kubelet.publish(host.request()))
        assert (error.status, error.message) == (
            Status.UNAVAILABLE,
            f"{host.image} is not there any more; the agent is asked again",
        )
        assert not host.target().exists()


@private_mounts.alone
async def test_a_call_that_kubelet_gives_up_no_longer_waits_for_the_agent(host: Host) -> None:
    agent = Agent(lambda _: asyncio.sleep(600, Answer()))
    async with agent.serving(host.agent_socket), plugin(host.settings()) as kubelet:
        call = asyncio.create_task(kubelet.publish(host.request()))
        await waiting.until_async("asked", lambda: agent.requests)
        call.cancel()
        await waiting.until_async("the connection is closed", lambda: agent.left == 1)
        agent.asked = lambda _: host.ready()
        await kubelet.publish(host.request())
        assert disk(host) == CONTENT


@private_mounts.alone
async def test_the_deadline_of_a_call_ends_it(host: Host) -> None:
    agent = Agent(lambda _: asyncio.sleep(600, Answer()))
    async with agent.serving(host.agent_socket), plugin(host.settings()) as kubelet:
        with pytest.raises((asyncio.TimeoutError, GRPCError)):
            await kubelet.publish(host.request(), seconds=0.2)
        await waiting.until_async("the connection is closed", lambda: agent.left == 1)


@private_mounts.alone
async def test_calls_for_one_volume_exclude_each_other_and_those_for_others_go_on(host: Host) -> None:
    host.target("second").parent.mkdir()
    go = asyncio.Event()

    async def held() -> Answer:
        await go.wait()
        return host.ready()

    def asked(request: volumes.Request) -> Answer | Awaitable[Answer]:
        return held() if isinstance(request, volumes.Publish) and request.volume == VOLUME else host.ready()

    agent = Agent(asked)
    async with agent.serving(host.agent_socket), plugin(host.settings()) as kubelet:
        first = asyncio.create_task(kubelet.publish(host.request()))
        await waiting.until_async("asked", lambda: agent.requests)
        for second in (kubelet.publish(host.request()), kubelet.unpublish(host.target())):
            assert (await refused(second)).status is Status.ABORTED
        await kubelet.publish(host.request(volume_id=SECOND, target_path=str(host.target("second"))))
        assert disk(host, "second") == CONTENT
        go.set()
        await first
        assert disk(host) == CONTENT


@private_mounts.alone
async def test_a_pool_that_hangs_delays_no_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.target("second").parent.mkdir()
    hung = host.pool.parent / "hung"
    hung.mkdir()
    real: Callable[[str, str], int] = mounts.open_image
    reading, writing = os.pipe()

    def opened(path: str, root: str) -> int:
        if path.startswith(str(hung)):
            os.read(reading, 1)
        return real(path, root)

    monkeypatch.setattr(mounts, "open_image", opened)

    def asked(request: volumes.Request) -> Answer:
        hangs = isinstance(request, volumes.Publish) and request.volume != SECOND
        return Answer(state="Ready", path=str((hung if hangs else host.pool) / UID), uid=UID)

    async with Agent(asked).serving(host.agent_socket), plugin(host.settings(open_seconds=0.05)) as kubelet:
        for _ in range(6):
            error = await refused(kubelet.publish(host.request()))
            assert (error.status, error.message) == (
                Status.UNAVAILABLE,
                f"{hung} does not answer within 0.05 seconds; check the file system of this pool",
            )
        await kubelet.publish(host.request(volume_id=SECOND, target_path=str(host.target("second"))))
        assert disk(host, "second") == CONTENT
        await kubelet.unpublish(host.target())
        # it wakes up, too late for all who asked
        (hung / UID).write_bytes(CONTENT)
        os.write(writing, b"x" * 4096)
        await waiting.until_async("usable again", lambda: _served(kubelet, host))
        assert disk(host) == CONTENT
    os.close(reading)
    os.close(writing)


async def _served(kubelet: Kubelet, host: Host) -> bool:
    try:
        await kubelet.publish(host.request())
    except GRPCError:
        return False
    return True


@private_mounts.alone
async def test_half_a_volume_is_made_again(host: Host) -> None:
    host.target().mkdir()
    private_mounts.mount(mountsource.source(MOUNTED), str(host.target()), "tmpfs", 0)
    async with Agent(lambda _: host.ready()).serving(host.agent_socket), plugin(host.settings()) as kubelet:
        await kubelet.publish(host.request())
        assert disk(host) == CONTENT
        assert len([each for each in mountinfo.read() if each.point == str(host.target())]) == 1
        await kubelet.unpublish(host.target())
        assert not [each for each in mountinfo.read() if mountinfo.below(each.point, str(host.kubelet))]


@private_mounts.alone
async def test_another_volume_at_the_target_stays(host: Host) -> None:
    async with Agent(lambda _: host.ready()).serving(host.agent_socket), plugin(host.settings()) as kubelet:
        await kubelet.publish(host.request())
        for changed in (
            {"volume_id": SECOND},
            {"volume_context": {**CONTEXT, "template": "other"}},
            {"volume_context": {**CONTEXT, "csi.storage.k8s.io/pod.namespace": "team-b"}},
        ):
            error = await refused(kubelet.publish(host.request(**changed)))
            assert error.status is Status.UNAVAILABLE
            assert f"volume {VOLUME} with Template debian-13 for namespace team-a is mounted" in (error.message or "")
        assert disk(host) == CONTENT


@private_mounts.alone
async def test_a_foreign_mount_at_the_target_is_left_to_the_administrator(host: Host) -> None:
    host.target().mkdir()
    private_mounts.mount("other", str(host.target()), "tmpfs", 0)
    async with Agent(lambda _: host.ready()).serving(host.agent_socket), plugin(host.settings()) as kubelet:
        for call, status in (
            (kubelet.publish(host.request()), Status.UNAVAILABLE),
            (kubelet.unpublish(host.target()), Status.INTERNAL),
        ):
            error = await refused(call)
            assert (error.status, "'other' (tmpfs)" in (error.message or "")) == (status, True)
    assert [each.source for each in mountinfo.read() if each.point == str(host.target())] == ["other"]


@private_mounts.alone
async def test_a_target_that_is_a_link_is_refused_both_ways(host: Host) -> None:
    elsewhere = host.directory / "elsewhere"
    elsewhere.mkdir()
    host.target().symlink_to(elsewhere)
    async with Agent(lambda _: host.ready()).serving(host.agent_socket), plugin(host.settings()) as kubelet:
        assert (await refused(kubelet.publish(host.request()))).status is Status.UNAVAILABLE
        assert (await refused(kubelet.unpublish(host.target()))).status is Status.INTERNAL
    assert host.target().is_symlink()
    assert os.listdir(elsewhere) == []


@private_mounts.alone
async def test_a_request_that_can_never_be_served_asks_nobody(host: Host) -> None:
    async with Agent(lambda _: host.ready()).serving(host.agent_socket) as agent, plugin(host.settings()) as kubelet:
        error = await refused(kubelet.publish(host.request(readonly=False)))
        assert error.status is Status.INVALID_ARGUMENT
        assert (await refused(kubelet.unpublish(host.target(), volume=""))).status is Status.INVALID_ARGUMENT
        assert (await refused(kubelet.unpublish(host.kubelet))).status is Status.INVALID_ARGUMENT
        assert agent.requests == []
