"""A published file that is lost or altered behind the product's back is put right; what libvirt does to it is no alarm.

All damage is done at once, as the agents look at the files now and then: each test looks at what became of its own.
"""

import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Image, remove_all
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import POOL_ROOT, Cluster, Object
from tests.world.waiting import until

from directdownload.resources.naming import WORK_DIRECTORY

#: An agent looks every 30 s; what is promised is a minute, and the rest is for a busy machine.
NOTICED_SECONDS = 75
REPAIRED_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Damage:
    """What was there before, and an origin that still serves it."""

    cluster: Cluster
    server: origin.Origin
    images: dict[str, Image]
    placements: dict[str, dict[str, Object]]
    repairs: float
    #: nobody's, two days old and new
    old_leftovers: list[pathlib.Path]
    new_leftover: pathlib.Path

    def path(self, template: str, host: str) -> pathlib.Path:
        return self.cluster.file(host, self.placements[template][host]["spec"]["path"])

    def name(self, template: str, host: str) -> str:
        return str(self.placements[template][host]["metadata"]["name"])

    def status(self, template: str, host: str) -> Object:
        return dict(self.cluster.placements(template)[host]["status"])

    def observed(self) -> bool:
        return all("observed" in self.status(template, host) for template, on in self.placements.items() for host in on)

    def intact(self, template: str, host: str) -> bool:
        """The file is as published, and the product says so of what lies there now."""
        ready = self.status(template, host)["phase"] == "Ready"
        return ready and clusters.sha256(self.path(template, host)) == self.images[template].sha256

    def verified_again(self, template: str, host: str) -> bool:
        before = self.placements[template][host]["status"]["file"]["verifiedTime"]
        file = self.status(template, host).get("file") or {}
        return bool(file.get("verifiedTime", before) != before)

    def repaired_by(self, template: str, host: str) -> list[str]:
        """The verbs of the Jobs since the damage: a busy machine may have needed several to get the file at first."""
        before = self.placements[template][host]["status"]["attempts"]
        return evidence.verbs(self.name(template, host))[before:]

    def gets(self, template: str) -> int:
        path = f"/{self.images[template].path.name}"
        return sum(request.path == path for request in evidence.gets(self.server))


def _alter(path: pathlib.Path) -> None:
    """One byte becomes another; size, modification time and inode stay as they were."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(state.st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (state.st_size, state.st_mtime_ns, state.st_ino)


def _leave(work: pathlib.Path) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Parts that no placement knows of, as a host that was away for long may have: old ones, and a new one."""
    stem = "0e6f4a52-0000-4000-8000-00000000000"
    old, new = [work / f"{stem}0.kvm-2.part", work / f"{stem}0.kvm-2.journal"], work / f"{stem}1.kvm-2.part"
    two_days_ago = time.time() - 2 * 86400
    for path in (*old, new):
        path.write_bytes(b"part")
        if path != new:
            os.utime(path, (two_days_ago, two_days_ago))
    return old, new


@pytest.fixture(scope="module")
def damage(local: Cluster, shared_directory: pathlib.Path) -> Iterator[Damage]:
    scheduled, wiped = f"{POOL_ROOT}/scheduled", f"{POOL_ROOT}/wiped"
    for path in (scheduled, wiped):
        local.file("kvm-1", path).mkdir(exist_ok=True)
    templates = {"lost": ["local"], "labelled": ["local"], "quiet": ["scheduled"], "emptied": ["wiped"]}
    images = {name: Image(shared_directory, f"{name}.raw", 4 << 20) for name in templates}
    first = {"matchLabels": {"kubernetes.io/hostname": "kvm-1"}}
    with origin.Origin(shared_directory, local.origin_host) as server:
        local.apply(
            clusters.pool("scheduled", path=scheduled, verifyInterval="1m", hostSelector=first),
            clusters.pool("wiped", path=wiped, hostSelector=first),
            *(clusters.template(n, server.url(i.path.name), checksum=i.checksum) for n, i in images.items()),
            *(clusters.deployment(name, pools=pools) for name, pools in templates.items()),
        )
        for name, pools in templates.items():
            local.converged(name, 3 if pools == ["local"] else 1)
        leftovers = _leave(local.file("kvm-2", f"{POOL_ROOT}/{WORK_DIRECTORY}"))
        found = Damage(
            local,
            server,
            images,
            {name: local.placements(name) for name in templates},
            evidence.metric(local, "controller", "directdownload_repairs_total"),
            *leftovers,
        )
        # Each unchanged file has been looked at, so that what follows is a change.
        until("the agents to have looked", found.observed)
        found.path("lost", "kvm-1").unlink()
        os.truncate(found.path("lost", "kvm-2"), 1 << 20)
        found.path("lost", "kvm-3").touch()
        os.chown(found.path("labelled", "kvm-1"), 64055, 108)
        found.path("labelled", "kvm-2").chmod(0o600)
        # what libvirt's security drivers leave on a disk
        os.setxattr(found.path("labelled", "kvm-3"), "trusted.libvirt.security.dac", b"+0:+0")
        _alter(found.path("quiet", "kvm-1"))
        for entry in local.file("kvm-1", wiped).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield found
    remove_all(local)
    local.delete("storagepools", "scheduled", "wiped")
    for path in (scheduled, wiped):
        shutil.rmtree(local.file("kvm-1", path))


@pytest.fixture(autouse=True, scope="module")
def clean(damage: Damage) -> None:
    """The damage is shared by the module; its fixture cleans up."""


def test_a_deleted_file_is_fetched_again(damage: Damage) -> None:
    path = damage.path("lost", "kvm-1")
    until("the deleted file", path.exists, NOTICED_SECONDS + REPAIRED_SECONDS)
    until("a Ready copy", lambda: damage.intact("lost", "kvm-1"), REPAIRED_SECONDS)
    name = damage.name("lost", "kvm-1")
    assert damage.repaired_by("lost", "kvm-1") == ["fetch"]
    assert "Missing" in evidence.events(damage.cluster, name)
    repairs = evidence.metric(damage.cluster, "controller", "directdownload_repairs_total")
    assert repairs > damage.repairs


def test_a_truncated_file_is_verified_and_fetched_again(damage: Damage) -> None:
    until("the whole file", lambda: damage.intact("lost", "kvm-2"), NOTICED_SECONDS + REPAIRED_SECONDS)
    name = damage.name("lost", "kvm-2")
    assert damage.repaired_by("lost", "kvm-2") == ["verify", "fetch"]
    assert "Altered" in evidence.events(damage.cluster, name)


def test_a_touched_file_is_verified_and_not_fetched(damage: Damage) -> None:
    before = damage.path("lost", "kvm-3").stat()
    until("a verification", lambda: damage.verified_again("lost", "kvm-3"), NOTICED_SECONDS + REPAIRED_SECONDS)
    assert damage.intact("lost", "kvm-3")
    assert damage.repaired_by("lost", "kvm-3") == ["verify"]
    after = damage.path("lost", "kvm-3").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # three at first, and one each for the deleted and the truncated one
    until("the other copies", lambda: damage.gets("lost") == 5, REPAIRED_SECONDS)


def test_a_byte_that_stat_cannot_see_is_found_by_the_scheduled_verification(damage: Damage) -> None:
    until("the byte to be right again", lambda: damage.intact("quiet", "kvm-1"), 2 * NOTICED_SECONDS)
    name = damage.name("quiet", "kvm-1")
    made = damage.repaired_by("quiet", "kvm-1")
    assert (made[-1], set(made[:-1])) == ("fetch", {"verify"})
    assert "Altered" in evidence.events(damage.cluster, name)


def test_a_wiped_pool_is_filled_again(damage: Damage) -> None:
    path = damage.path("emptied", "kvm-1")
    until("the file", path.exists, NOTICED_SECONDS + REPAIRED_SECONDS)
    until("a Ready copy", lambda: damage.intact("emptied", "kvm-1"), REPAIRED_SECONDS)
    record = path.parent / WORK_DIRECTORY / f"{path.name}.record"
    until("its record", record.exists)


def test_what_libvirt_does_to_a_file_raises_no_alarm(damage: Damage) -> None:
    # Done at the same time as the other damage, and looked at by the same scans.
    until("the others to be noticed", lambda: damage.verified_again("lost", "kvm-3"), NOTICED_SECONDS)
    for host in evidence.HOSTS:
        name = damage.name("labelled", host)
        assert damage.repaired_by("labelled", host) == []
        assert not set(evidence.events(damage.cluster, name)) & {"Altered", "Missing"}
        assert damage.status("labelled", host)["phase"] == "Ready"
    assert damage.path("labelled", "kvm-1").stat().st_uid == 64055
    assert damage.path("labelled", "kvm-2").stat().st_mode & 0o777 == 0o600
    assert damage.gets("labelled") == 3


def test_leftovers_of_nobody_are_swept_after_a_day(damage: Damage) -> None:
    until("the old ones to go", lambda: evidence.gone(damage.old_leftovers), NOTICED_SECONDS)
    assert damage.new_leftover.exists()
