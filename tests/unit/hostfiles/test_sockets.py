"""A unix socket has its mode from its first moment, and takes the place of no other file than a socket."""

import os
import pathlib
import socket
import stat

import pytest

from directdownload.hostfiles import sockets


def test_only_its_user_can_open_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    umask = os.umask(0)
    try:
        with sockets.bound(str(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_it_takes_the_place_of_one_that_was_left(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    sockets.bound(path).close()
    with sockets.bound(path) as made, socket.socket(socket.AF_UNIX) as client:
        made.listen()
        client.connect(path)


def test_a_file_that_is_no_socket_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(OSError, match="expected a socket or nothing"):
        sockets.bound(str(path))
    assert path.read_text() == "mine"


def test_a_directory_that_is_absent_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        sockets.bound(str(tmp_path / "none" / "s"))
