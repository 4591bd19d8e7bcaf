"""What a pool is worth on this host: by tables, and on real mounts as a container gets them."""

import errno
import pathlib
from typing import Any

import pytest
from tests.world import agent_files

from directdownload.agent.cluster_view import Target
from directdownload.agent.pools import monitor
from directdownload.hostfiles import mountinfo
from directdownload.resources.reasons import Reason

ROOTS = ("/pools", "/var/lib/libvirt")
GIB = 1024**3


def mounts(*lines: str) -> tuple[mountinfo.Mount, ...]:
    return mountinfo.parse(["1 0 0:1 / / rw - ext4 a rw", "2 1 0:2 /pools /pools rw master:1 - ext4 a rw", *lines])


NFS = "3 2 0:3 / /pools/nfs rw - nfs4 s:/x rw"


def facts(path: str, **fields: Any) -> monitor.Facts:
    numbers = {"capacity_bytes": 100 * GIB, "available_bytes": 60 * GIB, "inodes_free": 1000}
    return monitor.Facts(**{"directory": True, "real_path": path, **numbers, **fields})


CASES = [
    ("local, on the root", "/pools", False, facts("/pools"), (), None),
    ("local, below the root", "/pools/a", False, facts("/pools/a"), (), None),
    ("local, on a mount of its own", "/pools/nfs", False, facts("/pools/nfs"), (NFS,), None),
    ("shared and mounted", "/pools/nfs", True, facts("/pools/nfs"), (NFS,), None),
    ("shared, not mounted", "/pools/nfs", True, facts("/pools/nfs"), (), Reason.NOT_MOUNTED),
    ("shared, below its mount", "/pools/nfs/a", True, facts("/pools/nfs/a"), (NFS,), Reason.NOT_MOUNTED),
    (
        "shared, only the automounter there",
        "/pools/nfs",
        True,
        facts("/pools/nfs"),
        ("3 2 0:3 / /pools/nfs rw - autofs a rw",),
        Reason.NOT_MOUNTED,
    ),
    (
        "file system read-only",
        "/pools/nfs",
        True,
        facts("/pools/nfs"),
        ("3 2 0:3 / /pools/nfs rw - nfs4 s:/x ro",),
        Reason.NOT_WRITABLE,
    ),
    (
        "mount below the root read-only",
        "/pools/nfs",
        False,
        facts("/pools/nfs"),
        ("3 2 0:3 / /pools/nfs ro - nfs4 s:/x rw",),
        Reason.NOT_WRITABLE,
    ),
    (
        "root read-only",
        "/pools/a",
        False,
        facts("/pools/a"),
        ("3 2 0:2 /pools /pools ro - ext4 a rw",),
        Reason.NOT_WRITABLE,
    ),
    ("a file", "/pools/a", False, facts("/pools/a", directory=False), (), Reason.NOT_WRITABLE),
    ("absent", "/pools/a", False, monitor.Facts(error_number=errno.ENOENT), (), Reason.PATH_MISSING),
    ("a file on the way", "/pools/a", False, monitor.Facts(error_number=errno.ENOTDIR), (), Reason.PATH_MISSING),
    ("stale", "/pools/a", False, monitor.Facts(error_number=errno.ESTALE), (), Reason.POOL_NOT_READY),
    ("hung", "/pools/a", False, None, (), Reason.POOL_NOT_READY),
    ("a link to elsewhere", "/pools/a", False, facts("/tmp/a"), (), Reason.PATH_NOT_EXPOSED),
    ("a link within the roots", "/pools/a", False, facts("/var/lib/libvirt/a"), (), None),
]


@pytest.mark.parametrize(
    ("path", "shared", "found", "table", "reason"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_judge(
    path: str, shared: bool, found: monitor.Facts | None, table: tuple[str, ...], reason: Reason | None
) -> None:
    target = Target("p", path, shared)
    outcome = monitor.judge(target, ROOTS, mounts(*table), found)
    assert (outcome.reason, outcome.writable, outcome.pool, outcome.path) == (reason, reason is None, "p", path)
    # numbers of a disk that is not the pool's would mislead
    assert (outcome.capacity_bytes is not None) == (
        reason in (None, Reason.NOT_WRITABLE) and bool(found and found.directory)
    )


DISK = "3 2 0:3 / /pools/disk rw - xfs b rw"
#: What the agent sees at the root /var/lib/libvirt/images: the host's directory, or the disk that it mounts there.
IMAGES = "/var/lib/libvirt/images"
DIRECTORY_THERE = f"4 1 0:2 {IMAGES} {IMAGES} rw - ext4 a rw"
SUBVOLUME_DIRECTORY_THERE = f"4 1 0:2 /@{IMAGES} {IMAGES} rw - btrfs a rw"
DISK_THERE = f"4 1 0:3 / {IMAGES} rw - xfs b rw"
SUBVOLUME_THERE = f"4 1 0:3 /@vms {IMAGES} rw - btrfs b rw"


@pytest.mark.parametrize(
    ("path", "table", "own"),
    [
        pytest.param("/pools/disk", [DISK], True, id="a disk below a root"),
        pytest.param("/pools/disk/a", [DISK], True, id="below it"),
        pytest.param("/pools/disk", [], False, id="its mount point"),
        pytest.param("/pools", [DISK], False, id="the root beside it"),
        pytest.param(IMAGES, [DISK_THERE], True, id="a disk at a root"),
        pytest.param(f"{IMAGES}/a", [DISK_THERE], True, id="below that"),
        pytest.param(IMAGES, [SUBVOLUME_THERE], True, id="a subvolume at a root"),
        pytest.param(IMAGES, [DIRECTORY_THERE], False, id="a plain directory as root"),
        pytest.param(f"{IMAGES}/a", [SUBVOLUME_DIRECTORY_THERE], False, id="one in a subvolume"),
        pytest.param(IMAGES, [], False, id="no mount of the agent's"),
        pytest.param("/elsewhere", [DISK], False, id="outside of the roots"),
    ],
)
def test_a_local_pool_on_a_mount_of_its_own_is_recognised(path: str, table: list[str], own: bool) -> None:
    assert monitor.on_own_mount((*ROOTS, IMAGES), mounts(*table), facts(path)) is own


@pytest.mark.parametrize(
    ("options", "missing"),
    [("rw", ("nosuid", "nodev")), ("rw,nosuid", ("nodev",)), ("rw,nodev,nosuid,relatime", ())],
)
def test_a_mount_on_which_programs_get_rights_is_told(options: str, missing: tuple[str, ...]) -> None:
    table = mounts(f"3 2 0:3 / /pools/disk {options} - ext4 a rw")
    outcome = monitor.judge(Target("p", "/pools/disk", False), ROOTS, table, facts("/pools/disk"))
    assert (outcome.missing_mount_options, outcome.reason) == (missing, None), "it is used all the same"


def test_numbers_that_the_api_cannot_hold_are_cut() -> None:
    """As a file server that claims 2^64 - 1 bytes."""
    found = facts("/pools/a", capacity_bytes=2**76, available_bytes=2**64 - 1, inodes_free=2**64 - 1)
    outcome = monitor.judge(Target("p", "/pools/a", False), ROOTS, mounts(), found)
    assert {outcome.capacity_bytes, outcome.available_bytes, outcome.inodes_free} == {2**63 - 1}


@pytest.mark.parametrize(
    ("was_own", "table", "recorded", "reason"),
    [
        pytest.param(True, [DISK], False, None, id="mounted"),
        pytest.param(True, [], False, Reason.NOT_MOUNTED, id="unmounted"),
        pytest.param(True, [], True, None, id="moved with its copies"),
        pytest.param(False, [], False, None, id="never had one"),
    ],
)
def test_a_local_pool_whose_own_mount_went_is_not_used(
    was_own: bool, table: list[str], recorded: bool, reason: Reason | None
) -> None:
    target, found = Target("p", "/pools/disk", False), facts("/pools/disk", recorded=recorded)
    outcome = monitor.judge(target, ROOTS, mounts(*table), found, was_own_mount=was_own)
    assert (outcome.reason, outcome.mounted) == (reason, reason is None)
    assert (outcome.capacity_bytes is None) == (reason is Reason.NOT_MOUNTED)


@pytest.mark.parametrize(
    ("path", "shared", "exposed"),
    [
        ("/pools", False, True),
        ("/pools", True, False),
        ("/pools/a", True, True),
        ("/poolside", False, False),
        ("/", False, False),
        ("/var/lib/libvirt/images", False, True),
        ("/var/lib", False, False),
    ],
)
def test_a_pool_lies_under_a_root_and_a_shared_one_strictly_below(path: str, shared: bool, exposed: bool) -> None:
    target = Target("p", path, shared)
    assert monitor.exposed(target, ROOTS) is exposed
    assert monitor.not_exposed(target).reason == Reason.PATH_NOT_EXPOSED


REAL = """
import asyncio, json, os, subprocess, sys
from directdownload.agent.cluster_view import Target
from directdownload.agent.pools import monitor, worker
from directdownload.hostfiles import mountinfo

base = sys.argv[1]
def run(*command): subprocess.run(command, check=True)
def made(*names):
    path = os.path.join(base, *names)
    os.makedirs(path, exist_ok=True)
    return path

run("mount", "--make-rprivate", "/")
# the host's side
run("mount", "-t", "tmpfs", "-o", "size=8m", "disk", made("root"))
for name in ("local", "unmounted", "a b"): made("root", name)
run("mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=100", "x", made("root", "a b", "shared"))
run("mount", "-t", "tmpfs", "-o", "size=4m,ro", "x", made("root", "read-only-super"))
run("mount", "-t", "tmpfs", "-o", "size=4m", "x", made("root", "read-only-mount"))
run("mount", "-o", "remount,bind,ro", made("root", "read-only-mount"))
for name in ("disk", "disk/a"): made("root", name)
run("mount", "-t", "tmpfs", "-o", "size=4m", "x", made("root", "disk"))
open(os.path.join(base, "root", "file"), "w").close()
os.symlink("/tmp", os.path.join(base, "root", "link"))
# the agent's: the root again, recursively; and another one that is a plain directory of the host
run("mount", "--rbind", made("root"), made("root"))
for name in ("plain", "plain/local"): made(name)
run("mount", "--rbind", made("plain"), made("plain"))
made("root", "disk", "a")

async def main():
    outcome = {}
    for name, shared in (("", 0), ("local", 0), ("unmounted", 1), ("a b/shared", 1), ("read-only-super", 1),
                         ("read-only-mount", 1), ("file", 0), ("absent", 0), ("link", 0),
                         ("disk", 0), ("disk/a", 0), ("../plain", 0), ("../plain/local", 0)):
        target = Target(name, os.path.normpath(os.path.join(base, "root", name)), bool(shared))
        child = worker.PoolWorker(target.path, timeout_seconds=10)
        facts = monitor.Facts(**await child.ask("facts", work_directory=".directdownload", record_suffix=".record"))
        await child.close()
        roots = [os.path.join(base, "root"), os.path.join(base, "plain")]
        judged = monitor.judge(target, roots, mountinfo.read(), facts)
        outcome[name] = {**judged.model_dump(exclude_none=True, mode="json"),
                         "own": monitor.on_own_mount(roots, mountinfo.read(), facts)}
    print(json.dumps(outcome))

asyncio.run(main())
"""


def test_real_mounts_are_judged_as_the_host_sees_them(tmp_path: pathlib.Path) -> None:
    outcome = agent_files.in_namespace(REAL, str(tmp_path))
    reasons = {name: facts.get("reason") for name, facts in outcome.items()}
    assert reasons == {
        "": None,
        "local": None,
        "unmounted": "NotMounted",
        "a b/shared": None,
        "read-only-super": "NotWritable",
        "read-only-mount": "NotWritable",
        "file": "NotWritable",
        "absent": "PathMissing",
        "link": "PathNotExposed",
        "disk": None,
        "disk/a": None,
        "../plain": None,
        "../plain/local": None,
    }
    own = {name for name, facts in outcome.items() if facts["own"]}
    # the root is a file system of its own on this host, the other one is not
    assert own == {
        "",
        "local",
        "unmounted",
        "a b/shared",
        "read-only-super",
        "read-only-mount",
        "file",
        "disk",
        "disk/a",
    }
    shared = outcome["a b/shared"]
    assert (shared["capacityBytes"], shared["mounted"]) == (4 * 1024**2, True)
    assert 0 < shared["inodesFree"] < 100
    assert 0 < shared["availableBytes"] <= 4 * 1024**2
