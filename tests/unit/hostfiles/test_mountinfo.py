"""Which mount a path lies on, from tables as the kernel writes them."""

import pytest

from directdownload.hostfiles import mountinfo

ROOT = "21 1 254:1 / / rw,relatime - ext4 /dev/vda rw\n"
TABLE = [
    ROOT,
    "30 21 0:25 / /mnt ro,relatime master:1 shared:7 - tmpfs tmpfs rw,size=64k\n",
    "31 30 0:26 /export/a /mnt/with\\040space rw - nfs4 server:/export/a\\011b rw,vers=4.2\n",
    "32 21 254:1 /var/lib/images /mnt-beside rw - ext4 /dev/vda ro\n",
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", 21),
        ("/etc/hosts", 21),
        ("/mnt", 30),
        ("/mnt/a", 30),
        ("/mnt/with space", 31),
        ("/mnt/with space/deep/er", 31),
        ("/mnt/with spaces", 30),
        ("/mnt-beside/x", 32),
    ],
)
def test_a_path_is_on_the_mount_with_the_nearest_mount_point(path: str, expected: int) -> None:
    mount = mountinfo.covering(mountinfo.parse(TABLE), path)
    assert mount is not None
    assert mount.id == expected


def test_fields_are_told_apart_whatever_optional_fields_there_are() -> None:
    mount = mountinfo.parse(TABLE)[1]
    assert (mount.point, mount.type, mount.parent) == ("/mnt", "tmpfs", 21)
    assert "ro" in mount.options
    assert mount.shared
    assert "ro" not in mount.super_options
    nfs = mountinfo.parse(TABLE)[2]
    assert (nfs.root, nfs.source) == ("/export/a", "server:/export/a\tb")


def test_a_mount_over_another_hides_it_and_what_is_below() -> None:
    stacked = [ROOT, *_lines((40, 21, "/a/b"), (41, 21, "/a"), (42, 41, "/a"), (43, 42, "/a/c"))]
    mounts = mountinfo.parse(stacked)
    covering = {path: mountinfo.covering(mounts, path) for path in ("/a/b/x", "/a", "/a/c/x")}
    assert {path: mount.id for path, mount in covering.items() if mount} == {"/a/b/x": 42, "/a": 42, "/a/c/x": 43}


def test_a_root_whose_parent_is_itself_or_missing_is_found_and_loops_end() -> None:
    assert mountinfo.covering(mountinfo.parse(["1 1 0:1 / / rw - rootfs rootfs rw\n"]), "/x") is not None
    loop = mountinfo.parse([ROOT, *_lines((50, 51, "/l"), (51, 50, "/l"))])
    mount = mountinfo.covering(loop, "/l/x")
    assert mount is not None
    assert mount.id == 21


@pytest.mark.parametrize("line", ["", "\n", "1 2 3\n", "x 1 0:1 / / rw - ext4 a rw\n", "1 2 0:1 / / rw ext4 a rw\n"])
def test_other_lines_are_left_out(line: str) -> None:
    assert mountinfo.parse([line]) == ()
    assert mountinfo.covering((), "/x") is None


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/mnt", "/", True),
        ("/mnt", None, True),
        ("/mnt/with space", "/mnt", True),
        ("/mnt", "/mnt", False),
        ("/mnt/a", "/mnt", False),
        ("/mnt/with space/deep", "/mnt", False),
        ("/mnt-beside", "/mnt", False),
        ("/mnt/auto", "/mnt", False),
    ],
)
def test_a_pool_is_mounted_if_it_is_a_mount_point_strictly_below_its_root(
    path: str, root: str | None, expected: bool
) -> None:
    mounts = mountinfo.parse([*TABLE, "33 30 0:27 / /mnt/auto rw - autofs systemd-1 rw\n"])
    assert mountinfo.is_pool_mount(mountinfo.covering(mounts, path), path, root) is expected
    assert not mountinfo.is_pool_mount(None, path, root)


def test_the_root_of_a_path_is_the_innermost() -> None:
    roots = ("/a", "/a/b", "/a/bc")
    assert [mountinfo.root_of(path, roots) for path in ("/a/b/c", "/a/b", "/a/x", "/ab")] == [
        "/a/b",
        "/a/b",
        "/a",
        None,
    ]


def test_the_table_of_this_process_is_understood() -> None:
    mount = mountinfo.covering(mountinfo.read(), "/proc/self")
    assert mount is not None
    assert (mount.point, mount.type) == ("/proc", "proc")


def _lines(*mounts: tuple[int, int, str]) -> list[str]:
    return [f"{number} {parent} 0:{number} / {point} rw - tmpfs t rw\n" for number, parent, point in mounts]
