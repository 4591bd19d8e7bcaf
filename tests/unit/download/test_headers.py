"""Headers from the files of a mounted Secret: what is one, what is refused, and that its value is never told."""

import os
import pathlib

import pytest

from directdownload.download.errors import RequestError
from directdownload.download.sources import headers
from directdownload.resources.reasons import Reason


def mounted(directory: pathlib.Path, keys: dict[str, bytes]) -> str:
    """As the kubelet does it: keys are links through `..data` into a directory with the time in its name."""
    real = directory / "..2026_01_01_00_00_00.123"
    real.mkdir()
    (directory / "..data").symlink_to(real.name)
    for name, value in keys.items():
        (real / name).write_bytes(value)
        (directory / name).symlink_to(pathlib.Path("..data") / name)
    return str(directory)


def read_error(directory: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        headers.read(directory)
    return caught.value


def test_each_key_is_a_header(tmp_path: pathlib.Path) -> None:
    directory = mounted(tmp_path, {"X-Token": b"abc\n", "Authorization": b"Bearer x.y\tz"})
    assert headers.read(directory) == (("Authorization", "Bearer x.y\tz"), ("X-Token", "abc"))


def test_without_a_secret_there_are_none() -> None:
    assert headers.read("") == ()


def test_a_secret_without_keys_gives_none(tmp_path: pathlib.Path) -> None:
    assert headers.read(mounted(tmp_path, {})) == ()


def test_a_secret_that_is_not_mounted_is_told(tmp_path: pathlib.Path) -> None:
    error = read_error(str(tmp_path / "none"))
    assert (error.reason, error.permanent) == (Reason.SECRET_NOT_FOUND, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Token", b"hunter2\r\nX-Other: injected"),
        ("X-Token", b"hunter2\nsecond line"),
        ("X-Token", b""),
        ("Range", b"hunter2"),
        ("X-Token", b"hunter2\x00"),
        ("X-Token", b"hunter2\xff"),
        ("X-Token", b"hunter2" * 2000),
        ("X-Token", b"hunter2" * 20_000),
        ("X Token", b"hunter2"),
        ("X:Token", b"hunter2"),
        ("X-T\u00f6ken", b"hunter2"),
    ],
)
def test_what_is_no_header_is_refused_without_its_value(tmp_path: pathlib.Path, name: str, value: bytes) -> None:
    error = read_error(mounted(tmp_path, {"Good": b"x", name: value}))
    assert error.reason is Reason.SECRET_FORBIDDEN
    assert repr(name) in error.message
    assert "hunter2" not in error.message


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_key_that_is_no_file_is_refused_and_does_not_block(tmp_path: pathlib.Path, make: object) -> None:
    make(tmp_path / "X-Token")  # type: ignore[operator]
    assert read_error(str(tmp_path)).reason is Reason.SECRET_FORBIDDEN
