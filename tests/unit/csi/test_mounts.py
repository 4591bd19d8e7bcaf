"""Mounts of volumes, for real: read-only whatever a runtime does, complete or not there, and never through a link."""

import contextlib
import errno
import os
import pathlib
import re
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tests.world import private_mounts
from tests.world.csi_world import CONTENT, UID, Host

from directdownload.csi import mounts, mountsource, syscalls
from directdownload.hostfiles import mountinfo
from directdownload.resources.volumes import MountedVolume

VOLUME = MountedVolume(volume="csi-1", namespace="team-a", template="golden/debian-13", uid=UID)
LONG = MountedVolume(
    volume="v" * 253, namespace="n" * 63, template=f"{'n' * 63}/{'.'.join(['t' * 63] * 3)}.{'t' * 61}", uid=UID
)


def attach(host: Host, volume: MountedVolume = VOLUME, name: str = "image") -> mounts.Target:
    target = mounts.Target(str(host.kubelet / "pods"), str(host.target(name)))
    tree = mounts.open_image(str(host.image), str(host.pool.parent))
    try:
        mounts.attach(target, volume, tree)
    finally:
        os.close(tree)
    return target


def found(host: Host) -> Any:
    return mounts.at(mountinfo.read(), str(host.target()))


def layers(host: Host) -> list[str]:
    return [each.point for each in mountinfo.read() if mountinfo.below(each.point, str(host.kubelet))]


@private_mounts.alone
def test_a_volume_is_one_readable_file(host: Host) -> None:
    attach(host)
    assert os.listdir(host.target()) == [mounts.DISK]
    assert (host.target() / mounts.DISK).read_bytes() == CONTENT
    assert stat.S_IMODE(host.target().stat().st_mode) == 0o755


@private_mounts.alone
def test_both_mounts_are_read_only_without_setuid_devices_and_programs(host: Host) -> None:
    attach(host)
    by_point = {each.point: each for each in mountinfo.read()}
    top, disk = by_point[str(host.target())], by_point[f"{host.target()}/{mounts.DISK}"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= top.options
    assert {"ro", "nosuid", "nodev", "noexec"} <= disk.options
    assert "ro" in top.super_options
    assert {"size=64k", "nr_inodes=16"} <= top.super_options


@private_mounts.alone
def test_a_runtime_that_makes_the_mount_writable_gains_nothing(host: Host) -> None:
    attach(host)
    # what runc does from 1.2 on for a pod that asks for rw
    subprocess.run(["mount", "-o", "remount,bind,rw", host.target()], check=True)
    for change in (
        lambda: (host.target() / "other").write_bytes(b""),
        lambda: (host.target() / mounts.DISK).write_bytes(b"other"),
        lambda: (host.target() / mounts.DISK).unlink(),
        lambda: (host.target() / mounts.DISK).chmod(0o777),
    ):
        with pytest.raises(OSError, match=r"Read-only file system|Device or resource busy"):
            change()
    assert host.image.read_bytes() == CONTENT
    assert found(host) == VOLUME


@private_mounts.alone
def test_the_mounts_say_whose_volume_it_is_however_long_the_names(host: Host) -> None:
    attach(host, LONG)
    pods = str(host.kubelet / "pods")
    assert mounts.mounted(mountinfo.read(), pods) == (LONG,)
    assert mounts.mounted(mountinfo.read(), "/elsewhere") == ()


@private_mounts.alone
def test_a_half_made_volume_counts_as_mounted(host: Host) -> None:
    host.target().mkdir()
    private_mounts.mount(mountsource.source(VOLUME), str(host.target()), "tmpfs", 0)
    assert mounts.mounted(mountinfo.read(), str(host.kubelet)) == (VOLUME,)
    assert isinstance(found(host), mounts.Partial)


@private_mounts.alone
def test_a_volume_is_unmounted_with_its_directory_while_it_is_in_use(host: Host) -> None:
    target = attach(host)
    with open(host.target() / mounts.DISK, "rb") as file:
        mounts.detach(target)
        assert file.read() == CONTENT
    assert not host.target().exists()
    assert layers(host) == []
    mounts.detach(target)


@private_mounts.alone
def test_nothing_is_unmounted_twice_and_a_missing_pod_is_no_error(host: Host) -> None:
    mounts.detach(mounts.Target(str(host.kubelet / "pods"), str(host.kubelet / "pods" / "gone" / "x" / "mount")))


@private_mounts.alone
def test_all_layers_of_ours_are_unmounted(host: Host) -> None:
    attach(host)
    private_mounts.mount(mountsource.source(VOLUME), str(host.target()), "tmpfs", 0)
    mounts.detach(attach(host))
    assert layers(host) == []


STEPS = ("mount_tmpfs", "open_beneath", "move")


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("call", STEPS)
def test_a_step_that_fails_leaves_nothing(host: Host, monkeypatch: pytest.MonkeyPatch, call: str, times: int) -> None:
    """Each call fails at its first, second and third time; one that is not made so often is not reached."""
    _fail_at(monkeypatch, call, times)

    @private_mounts.alone
    def body() -> None:
        with contextlib.suppress(OSError):
            attach(host)
            assert found(host) == VOLUME
            return
        monkeypatch.undo()
        monkeypatch.setattr(mountinfo, "MOUNTINFO", "/proc/thread-self/mountinfo")
        assert layers(host) == []
        assert not host.target().exists() or os.listdir(host.target()) == []
        mounts.detach(attach(host))

    body()


def _fail_at(monkeypatch: pytest.MonkeyPatch, call: str, times: int) -> None:
    real: Callable[..., Any] = getattr(syscalls, call)
    left = [times]

    def failing(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, "failed by the test")
        return real(*arguments)

    monkeypatch.setattr(syscalls, call, failing)


class KilledError(BaseException):
    """Nothing of the product may run after it."""


@pytest.mark.parametrize(("call", "times"), [("mount_tmpfs", 1), ("move", 1), ("mount_tmpfs", 2)])
def test_a_process_that_is_killed_leaves_what_the_next_recognises_and_replaces(
    host: Host, monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    real: Callable[..., Any] = getattr(syscalls, call)
    left = [times]

    def killed(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KilledError
        return real(*arguments)

    @private_mounts.alone
    def body() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(syscalls, call, killed)
            patch.setattr(mounts, "detach", lambda _: None)
            with pytest.raises(KilledError):
                attach(host)
        state = found(host)
        assert state is None if (call, times) == ("mount_tmpfs", 1) else isinstance(state, mounts.Partial)
        target = mounts.Target(str(host.kubelet / "pods"), str(host.target()))
        mounts.detach(target)
        attach(host)
        assert found(host) == VOLUME

    body()


@private_mounts.alone
def test_a_volume_whose_file_became_writable_is_not_complete(host: Host) -> None:
    attach(host)
    subprocess.run(["mount", "-o", "remount,bind,rw,nosuid,nodev,noexec", host.target() / mounts.DISK], check=True)
    assert isinstance(found(host), mounts.Partial)


@private_mounts.alone
def test_a_foreign_mount_at_the_target_is_neither_used_nor_unmounted(host: Host) -> None:
    target = attach(host)
    private_mounts.mount("tmpfs", str(host.target()), "tmpfs", 0)
    with pytest.raises(mounts.ForeignMountError, match=re.escape(str(host.target()))):
        found(host)
    with pytest.raises(mounts.ForeignMountError):
        mounts.detach(target)
    assert len(layers(host)) == 3


@private_mounts.alone
def test_a_target_that_is_a_link_is_not_followed(host: Host) -> None:
    elsewhere = host.directory / "elsewhere"
    elsewhere.mkdir()
    host.target().symlink_to(elsewhere)
    with pytest.raises(OSError, match="openat2"):
        attach(host)
    with pytest.raises(NotADirectoryError):
        mounts.detach(mounts.Target(str(host.kubelet / "pods"), str(host.target())))
    assert host.target().is_symlink()
    assert os.listdir(elsewhere) == []


@private_mounts.alone
def test_a_link_above_the_target_is_not_followed(host: Host) -> None:
    elsewhere = host.directory / "elsewhere"
    elsewhere.mkdir()
    host.target("other").parent.symlink_to(elsewhere)
    with pytest.raises(OSError, match="openat2"):
        attach(host, name="other")
    with pytest.raises(OSError, match="openat2"):
        mounts.detach(mounts.Target(str(host.kubelet / "pods"), str(host.target("other"))))
    assert os.listdir(elsewhere) == []


def open_image(host: Host, path: pathlib.Path | str) -> None:
    os.close(mounts.open_image(str(path), str(host.pool.parent)))


@private_mounts.alone
def test_the_file_is_opened_through_no_link_and_only_if_it_is_a_regular_one(host: Host) -> None:
    secret = host.directory / "secret"
    secret.mkdir()
    (secret / UID).write_bytes(b"not a template")
    link = host.pool.parent / "link"
    link.symlink_to(secret)
    (host.pool / "linked").symlink_to(secret / UID)
    os.mkfifo(host.pool / "pipe")
    open_image(host, host.image)
    for path in (link / UID, f"{host.pool.parent}/../secret/{UID}"):
        with pytest.raises(OSError, match="openat2"):
            open_image(host, path)
    for path in (host.pool / "linked", host.pool / "pipe", host.pool):
        with pytest.raises(mounts.NotRegularError):
            open_image(host, path)
    with pytest.raises(FileNotFoundError):
        open_image(host, host.pool / "gone")


@private_mounts.alone
def test_no_descriptor_stays_open(host: Host) -> None:
    before = len(os.listdir("/proc/self/fd"))
    mounts.detach(attach(host))
    with pytest.raises(FileNotFoundError):
        open_image(host, host.pool / "gone")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", ["clone", "make_read_only", "open_beneath"])
def test_a_file_that_cannot_be_mounted_leaves_no_descriptor(
    host: Host, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    _fail_at(monkeypatch, call, 1)

    @private_mounts.alone
    def body() -> None:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="failed by the test"):
            open_image(host, host.image)
        assert os.listdir("/proc/self/fd") == before

    body()


def test_this_kernel_has_all_calls() -> None:
    assert syscalls.missing() == ""


def test_a_call_that_no_kernel_has_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_MOUNT_SETATTR", 9999)
    assert syscalls.missing() == "mount_setattr"
