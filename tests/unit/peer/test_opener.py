"""What the opener opens: its own host's copies in order, and nothing else that lies in a pool."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.world import waiting
from tests.world.peers import MIB, Fleet, PeerHost, SharedFile

from directdownload.download.store.record import read_record
from directdownload.peer import asking, opener, piecelog, table
from directdownload.peer.opener import Opener
from directdownload.resources import peers

FILE = SharedFile.of(MIB + 1)
OTHER = SharedFile.of(MIB, number=1)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> PeerHost:
    """With `FILE` as a part."""
    found = Fleet(tmp_path).host("kvm-1.example.org", pools=2)
    found.begin(FILE)
    found.write(FILE, [0, 1])
    return found


def config(host: PeerHost) -> str:
    return str(host.server_directory / peers.CONFIG)


def root(host: PeerHost) -> str:
    return str(host.directory)


@contextlib.contextmanager
def serving(host: PeerHost, *uids: int) -> Iterator[Opener]:
    found = Opener(host.opener_socket, config(host), [root(host)], uids or (os.geteuid(),))
    found.start()
    thread = threading.Thread(target=found.serve)
    thread.start()
    try:
        yield found
    finally:
        found.close()
        thread.join()


def found(host: PeerHost, file: SharedFile = FILE) -> tuple[bytes, bool] | None:
    """What a new opener gives: the bytes of the data and whether they are published."""
    with serving(host):
        opened = asking.ask(host.opener_socket, file.content)
    if opened is None:
        return None
    try:
        log = os.pread(opened.log, 2**16, 0)
        assert log == host.log_path(file).read_bytes()
        return os.pread(opened.data, 2 * len(file.data), 0), opened.published
    finally:
        opened.close()


def test_a_part_is_opened(host: PeerHost) -> None:
    assert found(host) == (FILE.data, False)


def test_a_published_copy_is_opened_if_its_record_matches(host: PeerHost) -> None:
    host.publish(FILE)
    assert found(host) == (FILE.data, True)


def test_a_published_copy_in_one_pool_goes_before_a_part_in_another(host: PeerHost) -> None:
    shutil.copytree(host.work, host.pools[1] / host.work.name, dirs_exist_ok=True)
    host.publish(FILE)
    assert found(host) == (FILE.data, True)


def test_the_descriptors_are_for_reading(host: PeerHost) -> None:
    with serving(host):
        opened = asking.ask(host.opener_socket, FILE.content)
    assert opened is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(opened.data, b"x", 0)
    opened.close()


def test_an_empty_part_is_that_of_a_job_that_only_looks(host: PeerHost) -> None:
    host.publish(FILE)
    host.part_path(FILE).touch()
    assert found(host) == (FILE.data, True)


def test_records_of_the_engine_are_understood(host: PeerHost) -> None:
    """`table` reads them by itself: each field decides."""
    host.publish(FILE)
    record = read_record(str(host.record_path(FILE)))
    assert record is not None
    for change in ({"size_bytes": 1}, {"mtime_ns": 1}, {"inode": 1}, {"path": record.path + "x"}):
        record.model_copy(update=change).write(str(host.record_path(FILE)))
        assert found(host) is None
    record.distrusted().write(str(host.record_path(FILE)))
    assert found(host) is None
    record.write(str(host.record_path(FILE)))
    assert found(host) == (FILE.data, True)


def test_a_changed_file_is_not_opened(host: PeerHost) -> None:
    final = host.publish(FILE)
    os.utime(final, ns=(0, 0))
    assert found(host) is None


def test_a_record_of_another_pool_leads_nowhere(host: PeerHost) -> None:
    final = host.publish(FILE)
    record = read_record(str(host.record_path(FILE)))
    assert record is not None
    record.model_copy(update={"path": str(host.pools[1] / final.name)}).write(str(host.record_path(FILE)))
    assert found(host) is None


@pytest.mark.parametrize("place", ["elsewhere", "above", "below", "the pool itself", "relative"])
def test_a_record_leads_only_to_a_file_directly_in_its_pool(host: PeerHost, place: str) -> None:
    final = host.publish(FILE)
    record = read_record(str(host.record_path(FILE)))
    assert record is not None
    (host.pool / "sub").mkdir()
    elsewhere = host.directory / "secret"
    for path in (elsewhere, host.pool / "sub" / "file"):
        os.link(final, path)
    final.unlink()
    told = {
        "elsewhere": str(elsewhere),
        "above": f"{host.pool}/../secret",
        "below": f"{host.pool}/sub/file",
        "the pool itself": f"{host.pool}/.",
        "relative": "secret",
    }[place]
    record.model_copy(update={"path": told}).write(str(host.record_path(FILE)))
    assert found(host) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version":1,"path":7}', '{"version":1,"path":"a\\u0000"}', "[" * 9000]
)
def test_a_record_that_is_none_leads_nowhere(host: PeerHost, text: str) -> None:
    host.publish(FILE)
    host.record_path(FILE).write_text(text)
    assert found(host) is None


@pytest.mark.parametrize("which", ["log", "part", "published", "record"])
@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "directory", "socket"])
def test_only_regular_files_with_one_name_are_opened(host: PeerHost, which: str, kind: str) -> None:
    if which in ("published", "record"):
        host.publish(FILE)
    path = {
        "log": host.log_path(FILE),
        "part": host.part_path(FILE),
        "published": host.pool / FILE.template_uid,
        "record": host.record_path(FILE),
    }[which]
    aside = host.directory / "aside"
    path.rename(aside)
    if kind == "symlink":
        path.symlink_to(aside)
    elif kind == "hard link":
        os.link(aside, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)
    assert found(host) is None


@pytest.mark.parametrize("which", ["pool", "work directory"])
def test_a_directory_that_is_a_link_is_not_followed(host: PeerHost, which: str) -> None:
    path = {"pool": host.pool, "work directory": host.work}[which]
    aside = host.directory / "aside"
    path.rename(aside)
    path.symlink_to(aside)
    assert found(host) is None


def test_the_log_of_another_host_of_a_shared_pool_is_not_its_own(host: PeerHost) -> None:
    host.log_path(FILE).rename(host.work / f"{FILE.template_uid}.kvm-2.example.org.pieces")
    assert found(host) is None


def test_a_log_under_the_name_of_another_template_is_not_believed(host: PeerHost) -> None:
    """Else whoever writes a pool decides which file a host with a grant for `OTHER` reads."""
    shutil.copy(host.log_path(FILE), host.log_path(OTHER))
    shutil.copy(host.part_path(FILE), host.part_path(OTHER))
    host.log_path(FILE).unlink()
    assert found(host) is None
    assert found(host, OTHER) is None


def test_a_forged_header_gives_no_other_content(host: PeerHost) -> None:
    header = piecelog.Header(FILE.template_uid, OTHER.checksum, MIB)
    host.log_path(FILE).write_bytes(piecelog.header_line(header))
    assert found(host) is None
    assert header.content != FILE.content


def test_a_log_that_is_exchanged_after_the_scan_is_looked_at_again(host: PeerHost) -> None:
    with serving(host):
        opened = asking.ask(host.opener_socket, FILE.content)
        assert opened is not None
        opened.close()
        forged = piecelog.header_line(piecelog.Header(FILE.template_uid, OTHER.checksum, MIB))
        host.log_path(FILE).write_bytes(forged)
        assert asking.ask(host.opener_socket, FILE.content) is None


@pytest.mark.parametrize("data", [b"", b"\n", b"x" * 5000, b"[" * 2000 + b"\n", b'{"version":2}\n', b"\xff\n"])
def test_a_log_that_is_none_hides_no_other(host: PeerHost, data: bytes) -> None:
    host.begin(OTHER)
    host.log_path(OTHER).write_bytes(data)
    assert found(host, OTHER) is None
    assert found(host) == (FILE.data, False)


def test_the_number_of_logs_is_bounded(host: PeerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "LOGS_LIMIT", 2)
    for _ in range(5):
        host.begin(SharedFile.of(1))
    assert len(table.scan(str(host.pool), host.name)) == 2
    monkeypatch.setattr(table, "NAMES_LIMIT", 0)
    assert table.scan(str(host.pool), host.name) == {}


def test_pools_come_and_go_with_the_config(host: PeerHost) -> None:
    with serving(host) as opener_:
        host.configure(pools=[str(host.pools[1])])
        assert opener_.find(FILE.content) is None
        host.configure()
        found_again = opener_.find(FILE.content)
        assert found_again is not None
        found_again.close()
        (host.server_directory / peers.CONFIG).unlink()
        assert opener_.find(FILE.content) is None


def test_a_pool_outside_of_the_roots_is_not_looked_at(host: PeerHost) -> None:
    host.configure(pools=[str(host.pool)])
    with contextlib.closing(Opener(host.opener_socket, config(host), [f"{host.pool}-roots"], (os.geteuid(),))) as one:
        assert one.find(FILE.content) is None


def test_a_copy_that_comes_is_found_soon(host: PeerHost) -> None:
    with serving(host):
        assert asking.ask(host.opener_socket, OTHER.content) is None
        host.begin(OTHER)
        opened = waiting.until("the copy", lambda: asking.ask(host.opener_socket, OTHER.content))
        opened.close()


def test_a_pool_that_hangs_keeps_no_other_from_being_read(host: PeerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    late: list[table.Opened] = []
    scan, open_content = table.scan, table.open_content

    def hanging_scan(pool: str, name: str) -> dict[str, str]:
        if pool == str(host.pools[1]):
            released.wait(waiting.DEADLINE_SECONDS)
            return {FILE.content: FILE.template_uid}
        return scan(pool, name)

    def late_open(pool: str, name: str, uid: str, content: str) -> table.Opened | None:
        if pool == str(host.pools[1]):
            late.append(table.Opened(os.dup(0), os.dup(0), published=True))
            return late[-1]
        return open_content(pool, name, uid, content)

    monkeypatch.setattr(table, "scan", hanging_scan)
    monkeypatch.setattr(table, "open_content", late_open)
    monkeypatch.setattr(opener, "WAIT_SECONDS", 0.2)
    with serving(host) as opener_:
        for _ in range(5):
            opened = asking.ask(host.opener_socket, FILE.content)
            assert opened is not None
            assert not opened.published
            opened.close()
        # it is asked once, and not again while it hangs
        assert [pool._asked.qsize() for pool in opener_._pools.values()] == [0, 0]
        released.set()
        # what comes too late is closed
        waiting.until("the late answer", lambda: late and not _is_open(late[0].log) and not _is_open(late[0].data))


def _is_open(descriptor: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def test_no_descriptor_is_left_open(host: PeerHost) -> None:
    host.begin(OTHER)
    host.part_path(OTHER).unlink()
    with serving(host) as opener_:
        ask_all(host)
        before = _open_files()
        for _ in range(20):
            ask_all(host)
        waiting.until("no descriptor more than before", lambda: _open_files() <= before)
        assert opener_.find(OTHER.content) is None


def ask_all(host: PeerHost) -> None:
    for content in (FILE.content, OTHER.content, "0" * 64):
        opened = asking.ask(host.opener_socket, content)
        if opened is not None:
            opened.close()
    time.sleep(opener.SCAN_SECONDS / 10)


def _open_files() -> int:
    """Of this process, those of threads that end just now among them."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\n",
        b"x" * 1000,
        b'{"content":"../../etc/passwd"}\n',
        b'{"content":7}\n',
        json.dumps({"content": "A" * 64}).encode() + b"\n",
        json.dumps({"content": "a" * 64 + "\n"}).encode() + b"\n",
        b"[" * 200 + b"\n",
    ],
)
def test_a_question_that_is_none_gets_no_answer_and_others_do(host: PeerHost, question: bytes) -> None:
    with serving(host):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(waiting.DEADLINE_SECONDS)
            connection.connect(host.opener_socket)
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
            assert _answer(connection) == b""
        opened = asking.ask(host.opener_socket, FILE.content)
        assert opened is not None
        opened.close()


def _answer(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except ConnectionResetError:
        # the question was not read
        return b""


def test_another_user_gets_no_answer(host: PeerHost) -> None:
    """Even one that got hold of a connection: the socket itself is its owner's and the server's group's."""
    with serving(host, 1, os.geteuid()):
        assert os.stat(host.opener_socket).st_mode & 0o777 == 0o660
        opened = asking.ask(host.opener_socket, FILE.content)
        assert opened is not None
        opened.close()
    other = Opener(host.opener_socket, config(host), [root(host)], (os.geteuid() + 1,))
    ours, theirs = socket.socketpair()
    with ours, contextlib.closing(other):
        ours.sendall(json.dumps({"content": FILE.content}).encode() + b"\n")
        other._room.acquire()
        other._converse(theirs)
        assert _answer(ours) == b""


def test_an_answer_with_other_descriptors_than_two_is_none_and_leaks_nothing(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer(*descriptors: int) -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                socket.send_fds(connection, [b'{"found": true}\n'], descriptors)

        for count in (0, 1, 3):
            before = _open_files()
            thread = threading.Thread(target=answer, args=[0] * count)
            thread.start()
            opened = asking.ask(path, FILE.content)
            thread.join()
            if opened is not None:
                # of three the kernel gives the two that there is room for
                opened.close()
            assert _open_files() == before
