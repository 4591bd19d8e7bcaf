"""A name has the old or the new content, also where a write fails, and nothing is left beside it."""

import errno
import os
import pathlib
import stat

import pytest

from directdownload.hostfiles import writing


@pytest.mark.parametrize(("temporary", "put"), [("", "file.tmp"), ("part", "part")])
def test_a_leftover_is_replaced_and_a_link_in_its_place_leads_nowhere(
    tmp_path: pathlib.Path, temporary: str, put: str
) -> None:
    path = tmp_path / "file"
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / put).symlink_to("precious")
    writing.write_atomically(str(path), b"new", temporary=temporary and str(tmp_path / temporary))
    assert (path.read_bytes(), (tmp_path / "precious").read_bytes()) == (b"new", b"precious")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"file", "precious"}


def test_attributes_are_set_before_the_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def finish(descriptor: int) -> None:
        assert path.read_bytes() == b"old"
        assert os.fstat(descriptor).st_size == 3
        os.fchmod(descriptor, 0o644)

    writing.write_atomically(str(path), b"new", finish=finish)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o644)


def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path: pathlib.Path) -> None:
    path, descriptors = tmp_path / "file", len(os.listdir("/proc/self/fd"))
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(PermissionError):
        writing.write_atomically(str(path), b"new", finish=fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert len(os.listdir("/proc/self/fd")) == descriptors
