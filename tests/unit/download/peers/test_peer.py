"""A Peer gets its file from other hosts over real connections, whatever some of them do."""

import contextlib
import dataclasses
import functools
import gzip
import os
import pathlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.download.peers.parents import Authority, Parent
from tests.unit.download.peers.support import DATA, JOURNAL, LOG, MIB, PART, RECORD, Swarm, lists, pieces_of, read_log
from tests.unit.download.support import content, leftovers, run_job, start_job
from tests.world.waiting import closely

from directdownload.download import engine, job
from directdownload.download.errors import DownloadError
from directdownload.download.guard import Guard
from directdownload.download.peers import fetcher
from directdownload.download.peers import swarm as swarms
from directdownload.peer import piecelog, protocol
from directdownload.peer.protocol import Changes, State
from directdownload.resources import peers
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

PIECES = pieces_of(DATA)


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> Authority:
    directory = tmp_path / "authority"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job gives up soon."""
    monkeypatch.setattr(swarms, "PATIENCE_SECONDS", 4)
    monkeypatch.setattr(swarms, "_UNREACHED_SECONDS", 1)


@contextlib.contextmanager
def two(authority: Authority, swarm: Swarm, **fields: Any) -> Iterator[tuple[Parent, Parent]]:
    """The hosts kvm-2 and kvm-3; `fields` are of kvm-2, which is the odd one."""
    with (
        Parent(authority, swarm, "kvm-2", **fields) as one,
        Parent(authority, swarm, "kvm-3", address="127.0.0.2", port=one.port) as other,
    ):
        yield one, other


def document(pool: pathlib.Path, swarm: Swarm, authority: Authority, *parents: Parent, **fields: Any) -> dict[str, Any]:
    told = swarm.document(pool, "Peer", **fields)
    told["peers"] |= {
        "parents": [parent.told() for parent in parents],
        "port": next((parent.port for parent in parents), 1),
        "directory": authority.client("kvm-1"),
    }
    return told


def fetch(told: dict[str, Any], stop: threading.Event | None = None) -> JobResult:
    """In this process."""
    request = dataclasses.replace(job._request(JobDocument.model_validate(told)), confined=False)
    return engine.fetch(request, stop=stop or threading.Event())


@contextlib.contextmanager
def once(what: str, condition: Callable[[], object], then: Callable[[], None]) -> Iterator[None]:
    """While the block runs: `then`, as soon as `condition` holds."""

    def wait() -> None:
        closely(what, condition)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def failure(told: dict[str, Any]) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(told)
    return caught.value


def published(pool: pathlib.Path) -> bool:
    """Whether the file is there, with all that belongs to it; it is right if it is there."""
    if not (pool / "uid-1").exists():
        return False
    assert (pool / "uid-1").read_bytes() == DATA
    assert lists(read_log(pool))
    assert leftovers(pool) == {"uid-1", RECORD, LOG}
    return True


def recorded(pool: pathlib.Path, index: int) -> bool:
    return index in read_log(pool).entries


def give_once_asked(parent: Parent, other: Parent) -> threading.Thread:
    """`other` has all pieces as soon as `parent` was asked for one."""

    def wait() -> None:
        closely("it was asked", lambda: parent.asked)
        other.add(0, 1, 2, 3)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_peer_publishes_the_same_bytes(pool: pathlib.Path, authority: Authority) -> None:
    swarm, origin = Swarm(), socket.create_server(("127.0.0.1", 0))
    with two(authority, swarm) as (one, other), origin:
        url = f"http://127.0.0.1:{origin.getsockname()[1]}/image"
        status, result = run_job(document(pool, swarm, authority, one, other, url=url))
        assert (status, result.reason) == (0, Reason.DOWNLOADED), result
        assert sorted(one.asked + other.asked) == [0, 1, 2, 3]
        origin.setblocking(False)
        with pytest.raises(BlockingIOError):
            origin.accept()
    assert published(pool)
    assert (result.content, result.origin_bytes, result.peer_bytes) == (swarm.content, 0, len(DATA))
    assert result.source in ("1 other host", "2 other hosts")
    told = read_log(pool)
    assert told.complete
    assert all(entry.proof is not None for entry in told.entries.values())
    assert told.warrants == list(dict.fromkeys((one.warrant, other.warrant)))[: len(told.warrants)]


def test_pieces_are_fetched_as_they_come(pool: pathlib.Path, authority: Authority) -> None:
    """A parent that has nothing yet, not even the size, is waited for."""
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.has, parent.size = set(), None
        found: list[JobResult] = []
        thread = threading.Thread(target=lambda: found.append(fetch(document(pool, swarm, authority, parent))))
        thread.start()
        closely("it is asked", lambda: parent.states)
        parent.say(protocol.changes_line(Changes(len(DATA))))
        for index in (2, 0, 3, 1):
            parent.add(index)
            closely("the piece is here", functools.partial(recorded, pool, index))
        thread.join(60)
    assert [result.reason for result in found] == [Reason.DOWNLOADED]
    assert parent.asked == [2, 0, 3, 1]
    assert published(pool)


def test_an_archive_is_unpacked_and_its_log_goes(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm(gzip.compress(DATA, 1))
    with Parent(authority, swarm, "kvm-2") as parent:
        result = fetch(document(pool, swarm, authority, parent))
    assert (result.reason, result.content) == (Reason.DOWNLOADED, "")
    assert (pool / "uid-1").read_bytes() == DATA
    assert leftovers(pool) == {"uid-1", RECORD}


# Parents that lie


def corrupt(parent: Parent) -> None:
    parent.body = lambda index: parent.pieces[index][:-1] + b"x"


def forged(parent: Parent) -> None:
    parent.proof = lambda index: parent.swarm.proof(index, parent.pieces[index], key=Ed25519PrivateKey.generate())


def of_another_piece(parent: Parent) -> None:
    parent.proof = lambda index: parent.swarm.proof((index + 1) % 4, parent.pieces[index])


def of_other_bytes(parent: Parent) -> None:
    corrupt(parent)
    key = Ed25519PrivateKey.generate()
    parent.proof = lambda index: parent.swarm.proof(index, parent.body(index), key=key)


def of_another_epoch(parent: Parent) -> None:
    parent.proof = lambda index: parent.swarm.proof(index, parent.pieces[index], epoch=parent.epoch + 1)


def of_no_controller(parent: Parent) -> None:
    parent.warrant = Swarm().warrant(parent.swarm.seed, content=parent.swarm.content)


def of_another_content(parent: Parent) -> None:
    parent.warrant = parent.swarm.warrant(content="0" * 64)


def of_another_zone(parent: Parent) -> None:
    parent.warrant = parent.swarm.warrant(zone="zone-2")


def of_a_grant(parent: Parent) -> None:
    parent.warrant = parent.swarm.grant("kvm-2")


def of_nothing(parent: Parent) -> None:
    parent.warrant = ""


LIARS = [
    *(corrupt, forged, of_another_piece, of_other_bytes, of_another_epoch, of_no_controller),
    *(of_another_content, of_another_zone, of_a_grant, of_nothing),
]


@pytest.mark.parametrize("lie", LIARS)
def test_a_parent_that_lies_about_a_piece_is_asked_once(
    pool: pathlib.Path, authority: Authority, lie: Callable[[Parent], None]
) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        lie(liar)
        liar.add(0)
        honest.has = set()
        told = document(pool, swarm, authority, liar, honest)
        thread = give_once_asked(liar, honest)
        result = fetch(told)
        thread.join()
        assert len(liar.asked) == 1
    assert result.bad_host == "kvm-2"
    assert result.source == "1 other host"
    assert published(pool)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("lie", [corrupt, forged])
def test_nothing_unverified_is_kept(pool: pathlib.Path, authority: Authority, lie: Callable[[Parent], None]) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as liar:
        lie(liar)
        error = failure(document(pool, swarm, authority, liar))
    assert error.reason is Reason.PEERS_UNAVAILABLE
    assert "no host is left to ask (kvm-2: " in error.message
    assert error.bad_host == "kvm-2"
    assert not published(pool)
    assert read_log(pool).entries == {}
    assert '"ranges":[]' in (pool / JOURNAL).read_text()


@pytest.mark.usefixtures("impatient")
def test_a_warrant_that_has_expired_counts_no_more(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (late, honest):
        late.warrant = swarm.warrant(expiry=int(time.time()) - 301)
        assert fetch(document(pool, swarm, authority, late, honest)).bad_host == ""
        assert published(pool)
        (pool / "uid-1").unlink()
        assert failure(document(pool, swarm, authority, late)).reason is Reason.PEERS_UNAVAILABLE
    assert not published(pool)


HOSTILE = [
    b"{\n",
    b"[]\n",
    b"null\n",
    b'{"add":[' + b"[" * 50_000 + b"\n",
    b'{"add":[-1]}\n',
    b'{"add":[32768]}\n',
    b'{"add":"all"}\n',
    b'{"size":0}\n',
    b'{"size":1e400}\n',
    b'{"size":' + b"9" * 5000 + b"}\n",
    b"\xff\xfe\n",
    b'{"x":"' + b"x" * (protocol.LINE_LIMIT_BYTES + 10) + b'"}\n',
    b"{}\n" * 100_000,
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("first", [True, False])
def test_a_hostile_state_costs_only_its_parent(
    pool: pathlib.Path, authority: Authority, line: bytes, first: bool
) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        liar.has = set()
        if first:
            liar.first_line = line
        else:
            liar.say(line)
        result = fetch(document(pool, swarm, authority, liar, honest))
        assert liar.asked == []
    assert (result.reason, result.source) == (Reason.DOWNLOADED, "1 other host")
    assert published(pool)


def test_a_hostile_state_is_not_read_again(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as liar:
        liar.first_line = b"[]\n"
        error = failure(document(pool, swarm, authority, liar))
        assert liar.states == 1
    assert "no host is left to ask (kvm-2: a line of the state is no object)" in error.message


def test_a_parent_that_never_stops_talking_is_left(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as liar:
        liar.has = set()
        liar.say(b"{}\n" * 100_000)
        error = failure(document(pool, swarm, authority, liar))
    assert "no host is left to ask (kvm-2: it says more of its state than a server does)" in error.message


#: For a job: its confined process can load no module any more.
_LOADS_NOTHING = """
import sys
from directdownload.download.sandbox import confinement
class Refusing:
    @staticmethod
    def find_spec(name, *_):
        raise OSError(f"loads {name}")
confine = confinement.confine
def confine_and_load_nothing(readable):
    confine(readable)
    sys.meta_path.insert(0, Refusing)
confinement.confine = confine_and_load_nothing
"""


def test_a_confined_peer_has_loaded_and_read_all_that_it_needs(pool: pathlib.Path, authority: Authority) -> None:
    """Also its certificate, which only root can read."""
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        corrupt(liar)
        told = document(pool, swarm, authority, liar, honest)
        key = pathlib.Path(told["peers"]["directory"]) / peers.KEY
        key.chmod(0o400)
        key.parent.chmod(0o700)
        status, result = run_job(told, code=_LOADS_NOTHING)
    assert (status, result.reason) == (0, Reason.DOWNLOADED), result
    assert published(pool)


def test_pieces_that_a_parent_announces_and_has_not_cost_a_request_each(
    pool: pathlib.Path, authority: Authority
) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        liar.piece = lambda _index: None
        fetch(document(pool, swarm, authority, liar, honest))
        assert len(liar.asked) == len(set(liar.asked))
    assert published(pool)


def test_another_size_of_most_parents_counts(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with (
        two(authority, swarm) as (liar, one),
        Parent(authority, swarm, "kvm-4", address="127.0.0.3", port=one.port) as other,
    ):
        liar.size = len(DATA) - MIB
        liar.has = {0, 1, 2}
        hidden = State(None, None, frozenset())
        one.first_line = other.first_line = protocol.state_line(hidden)
        told = document(pool, swarm, authority, liar, one, other)

        def come() -> None:
            for parent in (one, other):
                parent.first_line = None
                parent.say(protocol.changes_line(Changes(len(DATA), (0, 1, 2, 3))))

        with once("the liar was first", lambda: liar.asked, come):
            assert fetch(told).reason is Reason.DOWNLOADED
    assert published(pool)


@pytest.mark.parametrize("size", [peers.PIECES_LIMIT * MIB, 10**9])
def test_no_parent_makes_the_file_too_large(pool: pathlib.Path, authority: Authority, size: int) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        liar.size = size
        told = document(pool, swarm, authority, liar, honest)
        told["limits"] |= {"maxSizeBytes": len(DATA)}
        assert fetch(told).reason is Reason.DOWNLOADED
    assert published(pool)


def huge(pool: pathlib.Path, told: dict[str, Any], parent: Parent) -> None:
    """`parent` names a size that does not fit, and the job has room for the file."""
    state = os.statvfs(pool)
    parent.size = peers.PIECES_LIMIT * MIB
    told["pool"]["reserve"] = str(max(0, state.f_bavail * state.f_frsize - parent.size // 2))


def test_a_size_that_does_not_fit_costs_the_host_that_names_it(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        honest.first_line = protocol.state_line(State(None, None, frozenset()))
        told = document(pool, swarm, authority, liar, honest)
        huge(pool, told, liar)

        def come() -> None:
            honest.first_line = None
            honest.say(protocol.changes_line(Changes(len(DATA), (0, 1, 2, 3))))

        with once("the liar was first", lambda: liar.states, come):
            assert fetch(told).reason is Reason.DOWNLOADED
    assert published(pool)


def test_where_all_hosts_name_a_size_that_does_not_fit_the_source_has_its_turn(
    pool: pathlib.Path, authority: Authority, impatient: None
) -> None:
    """Lack of space is no reason to ask the same hosts for ever."""
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as liar:
        told = document(pool, swarm, authority, liar)
        huge(pool, told, liar)
        error = failure(told)
    assert error.reason is Reason.PEERS_UNAVAILABLE
    assert f"kvm-2: the file has {liar.size} bytes there" in error.message
    assert "bytes are needed" in error.message


def test_hosts_that_are_the_most_and_name_a_size_that_does_not_fit_end_the_attempt(
    pool: pathlib.Path, authority: Authority
) -> None:
    """The honest host is first, and the others outvote it: the size is believed before anybody names it again."""
    swarm = Swarm()
    with (
        two(authority, swarm) as (honest, one),
        Parent(authority, swarm, "kvm-4", address="127.0.0.3", port=one.port) as other,
    ):
        honest.has = {0}
        told = document(pool, swarm, authority, honest, one, other)
        for liar in (one, other):
            huge(pool, told, liar)
            liar.first_line = protocol.state_line(State(None, None, frozenset()))

        def come() -> None:
            for liar in (one, other):
                liar.first_line = None
                liar.say(protocol.changes_line(Changes(liar.size, ())))

        with once("the honest host was first", lambda: honest.asked, come):
            error = failure(told)
    assert error.reason is Reason.PEERS_UNAVAILABLE
    assert f"most hosts: the file has {one.size} bytes there" in error.message


def test_a_failed_attempt_keeps_no_space_for_a_size_that_hosts_name(
    pool: pathlib.Path, authority: Authority, impatient: None
) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as liar:
        liar.size, liar.has = 256 * MIB, {0, 1}
        assert failure(document(pool, swarm, authority, liar)).reason is Reason.PEERS_UNAVAILABLE
    assert (pool / PART).stat().st_size == 2 * MIB
    with Parent(authority, swarm, "kvm-2") as honest:
        result = fetch(document(pool, swarm, authority, honest))
    assert (result.reason, result.resumed_from) == (Reason.DOWNLOADED, 2 * MIB)
    assert published(pool)


def empty(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", ""]).encode()


ODD_ANSWERS = [
    empty("503 Busy", "Piece-Retry-After: 0.05"),
    empty("503 Busy", "Piece-Retry-After: soon"),
    empty("503 Busy"),
    empty("401 Unauthorized"),
    empty("200 OK"),
    empty("206 Partial Content"),
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1048576\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n",
    b"\r\n",
    b"SSH-2.0-x\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
]


@pytest.mark.parametrize("answer", ODD_ANSWERS, ids=range(len(ODD_ANSWERS)))
def test_an_odd_answer_costs_a_pause(pool: pathlib.Path, authority: Authority, answer: bytes) -> None:
    """The pieces come from this parent all the same, as soon as it gives them."""
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.answers = [answer]
        told = document(pool, swarm, authority, parent)

        def announce() -> None:
            closely("it was asked", lambda: parent.asked)
            parent.say(protocol.changes_line(Changes(add=(0, 1, 2, 3))))

        thread = threading.Thread(target=announce)
        thread.start()
        assert fetch(told).bad_host == ""
        thread.join()
    assert published(pool)


class Chaos:
    """For a parent: something else with each piece."""

    def __init__(self, parent: Parent, seed: int) -> None:
        self._parent = parent
        self._chance = random.Random(seed)
        parent.piece = self.piece

    def piece(self, index: int) -> bytes | None:
        data = self._parent.pieces[index]
        other = self._chance.randrange(4)
        odd = [
            data,
            data,
            None,
            data[:-1],
            data + b"x",
            self._chance.randbytes(len(data)),
            self._parent.pieces[other],
            b"",
        ]
        return self._chance.choice(odd)


@pytest.mark.parametrize("seed", range(6))
def test_a_compromised_parent_never_makes_an_unverified_byte_published(
    pool: pathlib.Path, authority: Authority, seed: int
) -> None:
    swarm = Swarm()
    with two(authority, swarm) as (liar, honest):
        Chaos(liar, seed)
        honest.has = set()
        thread = give_once_asked(liar, honest)
        assert fetch(document(pool, swarm, authority, liar, honest)).reason is Reason.DOWNLOADED
        thread.join()
    assert published(pool)


# Parents that are slow, gone or others


def test_a_slow_piece_comes_from_another_parent(
    pool: pathlib.Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarms, "_SLOW_SECONDS", 0.5)
    swarm = Swarm()
    with two(authority, swarm) as (slow, other):
        slow.rate = MIB / 16
        other.has = set()
        told = document(pool, swarm, authority, slow, other)
        thread = give_once_asked(slow, other)
        result = fetch(told)
        thread.join()
        assert len(slow.asked) == 1
        assert set(slow.asked) <= set(other.asked)
    assert result.source == "1 other host"
    assert published(pool)


def test_a_stalled_parent_is_left(pool: pathlib.Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nobody else has the piece."""
    monkeypatch.setattr(fetcher, "_SILENCE_SECONDS", 0.5)
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.stalls_after = MIB // 2
        told = document(pool, swarm, authority, parent)

        def recover() -> None:
            closely("it was asked twice", lambda: len(parent.asked) > 1)
            parent.stalls_after = None

        thread = threading.Thread(target=recover)
        thread.start()
        assert fetch(told).reason is Reason.DOWNLOADED
        thread.join()
    assert published(pool)


@pytest.mark.usefixtures("impatient")
def test_a_parent_with_the_certificate_of_another_host_is_not_asked(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2", named="kvm-9") as parent:
        error = failure(document(pool, swarm, authority, parent))
        assert (parent.states, parent.asked) == (0, [])
    assert error.reason is Reason.PEERS_UNAVAILABLE
    assert "is of spiffe://cluster.example/host/kvm-9, expected spiffe://cluster.example/host/kvm-2" in error.message


@pytest.mark.usefixtures("impatient")
def test_a_parent_of_another_authority_is_not_asked(
    pool: pathlib.Path, authority: Authority, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "other").mkdir()
    swarm = Swarm()
    with Parent(Authority(tmp_path / "other"), swarm, "kvm-2") as parent:
        error = failure(document(pool, swarm, authority, parent))
        assert parent.states == 0
    assert "kvm-2: its certificate is not trusted" in error.message


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "localhost", "fe80::1%lo", ""])
def test_a_parent_at_a_denied_address_is_not_asked(pool: pathlib.Path, authority: Authority, address: str) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        told = document(pool, swarm, authority, parent, policy={"allowedHosts": ["x"], "protocols": ["NFS"]})
        told["peers"]["parents"][0]["addresses"] = [address]
        error = failure(told)
        assert parent.states == 0
    assert "is no address that may be asked: it is " in error.message


def test_the_addresses_of_a_parent_are_tried_in_turn(pool: pathlib.Path, authority: Authority) -> None:
    """Rules for sources do not concern parents, but for the addresses that are always denied."""
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        rules = {"allowedHosts": ["x"], "protocols": ["NFS"], "allowedCIDRs": ["127.0.0.0/8"]}
        told = document(pool, swarm, authority, parent, policy=rules)
        told["peers"]["parents"][0]["addresses"] = ["127.0.0.9", "127.0.0.1"]
        assert fetch(told).reason is Reason.DOWNLOADED


@pytest.mark.usefixtures("impatient")
def test_parents_that_are_gone_end_the_attempt(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with two(authority, swarm) as parents:
        told = document(pool, swarm, authority, *parents)
    error = failure(told)
    assert (error.reason, error.permanent) == (Reason.PEERS_UNAVAILABLE, False)
    assert "no host has answered for 1 s (kvm-2: " in error.message


@pytest.mark.usefixtures("impatient")
def test_parents_that_have_nothing_more_end_the_attempt(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.has = {0, 2}
        told = document(pool, swarm, authority, parent)
        error = failure(told)
        assert "no host has had a further piece" in error.message
        assert read_log(pool).entries.keys() == {0, 2}
        parent.has = {0, 1, 2, 3}
        result = fetch(told)
        assert sorted(parent.asked) == [0, 1, 2, 3]
    assert (result.resumed_from, result.peer_bytes) == (2 * MIB, len(DATA) - 2 * MIB)
    assert published(pool)


def test_without_the_certificate_of_this_host_nobody_is_asked(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        told = document(pool, swarm, authority, parent)
        told["peers"]["directory"] = "/nonexistent"
        error = failure(told)
    assert error.reason is Reason.PEERS_UNAVAILABLE
    assert "the certificate of this host in /nonexistent cannot be used" in error.message


# Going on


def test_a_killed_peer_goes_on_with_the_pieces_that_it_has(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.has = {0, 1, 2}
        told = document(pool, swarm, authority, parent)
        with start_job(told) as process:
            closely("three pieces are there", lambda: (pool / LOG).exists() and len(read_log(pool).entries) == 3)
            process.kill()
            process.communicate(timeout=120)
        with (pool / PART).open("r+b") as part:
            part.seek(MIB + 5)
            part.write(b"damage")
        parent.has = {0, 1, 2, 3}
        parent.asked.clear()
        status, result = run_job(told)
        assert (status, result.reason) == (0, Reason.DOWNLOADED)
        assert sorted(parent.asked) == [1, 3]
    assert result.resumed_from == 2 * MIB
    assert piecelog.lost_line(1) in (pool / LOG).read_bytes()
    assert published(pool)


def test_pieces_that_nobody_has_signed_are_fetched(pool: pathlib.Path, authority: Authority) -> None:
    """What this host has read as a Seed, or others have written into the pool."""
    swarm = Swarm()
    (pool / LOG).parent.mkdir(mode=0o700)
    stranger = swarm.proof(1, PIECES[1], key=Ed25519PrivateKey.generate())
    lines = [
        piecelog.header_line(swarm.header),
        piecelog.size_line(len(DATA)),
        piecelog.warrant_line(swarm.warrant()),
        piecelog.piece_line(0, swarm.proof(0, PIECES[0]).digest),
        piecelog.piece_line(1, stranger.digest, stranger),
    ]
    (pool / LOG).write_bytes(b"".join(lines))
    (pool / PART).write_bytes(DATA)
    for path in (pool / LOG, pool / PART):
        path.chmod(0o600)
    with Parent(authority, swarm, "kvm-2") as parent:
        assert fetch(document(pool, swarm, authority, parent)).resumed_from == 0
        assert sorted(parent.asked) == [0, 1, 2, 3]
    assert published(pool)


@pytest.mark.usefixtures("impatient")
def test_after_a_wrong_file_only_pieces_that_a_later_seed_signs_otherwise_are_fetched(
    pool: pathlib.Path, authority: Authority
) -> None:
    swarm = Swarm()
    wrong = DATA[:MIB] + content(MIB, seed=5) + DATA[2 * MIB :]
    with Parent(authority, swarm, "kvm-2", data=wrong) as parent:
        told = document(pool, swarm, authority, parent)
        error = failure(told)
        assert error.reason is Reason.PEERS_DIFFER
        assert "the pieces that other hosts have do not match: expected checksum" in error.message
        assert not published(pool)
        assert read_log(pool).entries.keys() == {0, 1, 2, 3}
        assert (pool / PART).read_bytes()[: len(wrong)] == wrong
    later = Ed25519PrivateKey.generate()
    with two(authority, swarm, data=wrong) as (stale, parent):
        parent.epoch = 2000
        parent.warrant = swarm.warrant(later, epoch=2000)
        parent.proof = lambda index: swarm.proof(index, PIECES[index], 2000, later)
        result = fetch(document(pool, swarm, authority, stale, parent))
    assert (result.reason, result.peer_bytes) == (Reason.DOWNLOADED, MIB)
    assert published(pool)
    entries = read_log(pool).entries.values()
    assert {entry.proof.epoch for entry in entries if entry.proof is not None} == {2000}


def test_a_stopped_peer_keeps_its_pieces(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.has = {0, 1}
        told = document(pool, swarm, authority, parent)
        with start_job(told) as process:
            closely("two pieces are there", lambda: (pool / LOG).exists() and len(read_log(pool).entries) == 2)
            process.terminate()
            output, _ = process.communicate(timeout=120)
    result = JobResult.model_validate_json(output.splitlines()[-1])
    assert result.reason is Reason.INTERRUPTED
    assert leftovers(pool) == {PART, JOURNAL, LOG}


def test_the_deadline_counts(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.has = {0}
        told = document(pool, swarm, authority, parent)
        told["limits"] |= {"deadlineSeconds": 1}
        assert failure(told).reason is Reason.DEADLINE_EXCEEDED


def test_the_limit_of_the_rate_counts(
    pool: pathlib.Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Guard, "wait", lambda _guard, seconds: waited.append(seconds))
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        told = document(pool, swarm, authority, parent)
        told["limits"] |= {"bandwidthBytesPerSecond": MIB // 64}
        fetch(told)
    # within a piece no longer than its server has patience for
    assert sum(waited) > 60
    assert published(pool)


def test_a_document_of_another_content_opens_nothing(pool: pathlib.Path, authority: Authority) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        told = document(pool, swarm, authority, parent)
        told["peers"]["content"] = "0" * 64
        status, result = run_job(told)
        assert (parent.states, parent.asked) == (0, [])
    assert (status, result.reason) == (1, Reason.PEERS_UNAVAILABLE)
    assert leftovers(pool) == set()
