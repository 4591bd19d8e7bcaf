"""Nothing unverified leaves: what a host announces and gives of its copies as they grow, change and go."""

import json
import os
import pathlib
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.peer.conftest import Pair
from tests.world import waiting
from tests.world.peerclient import Answer, Wire, state
from tests.world.peers import MIB, PeerHost, SharedFile

from directdownload.peer import contents, copies, metrics, piecelog, protocol, statements
from directdownload.peer.statements import Issuer


def announced(pair: Pair, file: SharedFile | None = None) -> set[int]:
    """What a new reader is told first."""
    file = file or pair.file
    with state(pair.seed, pair.reader, file, pair.fleet.grant(file, pair.reader)) as stream:
        return set(protocol.read_state(json.dumps(stream.line()).encode()).have)


def asked(pair: Pair, index: int, file: SharedFile | None = None) -> Answer:
    file = file or pair.file
    with Wire(pair.seed, pair.reader) as wire:
        return wire.piece(file, index, pair.fleet.grant(file, pair.reader))


@pytest.fixture
def origin(pair: Pair) -> PeerHost:
    """Another host, which is the Seed of the files below."""
    return pair.fleet.host("kvm-9")


# Corruption


def test_a_piece_that_is_corrupt_on_the_disk_never_leaves_and_is_dropped(pair: Pair) -> None:
    pair.seed.write(pair.file, range(4))
    with open(pair.seed.part_path(pair.file), "r+b") as part:
        part.seek(2 * MIB - 1)
        part.write(bytes([pair.file.data[2 * MIB - 1] ^ 1]))
    before = metrics.BAD_PIECES._value.get()
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        assert stream.line()["have"] == "Dw=="
        assert asked(pair, 1).status == 404
        assert stream.line() == {"drop": [1]}
        assert asked(pair, 1).status == 404
        assert metrics.BAD_PIECES._value.get() == before + 1
        assert asked(pair, 2).body == pair.file.piece(2)
        assert stream.line() == {"drop": [2]}
        # a job fetches it again
        pair.seed.write(pair.file, [1])
        assert stream.line() == {"add": [1]}
    assert asked(pair, 1).body == pair.file.piece(1)


def test_a_piece_that_was_announced_before_its_bytes_are_there_never_leaves(pair: Pair) -> None:
    pair.seed.append(pair.file, piecelog.piece_line(3, pair.file.digest(3)))
    assert announced(pair) == {3}
    assert asked(pair, 3).status == 404
    assert announced(pair) == set()


def test_a_part_that_is_shorter_than_its_log_says_gives_nothing(pair: Pair) -> None:
    pair.seed.write(pair.file, range(4))
    os.truncate(pair.seed.part_path(pair.file), 3 * MIB + 1)
    assert asked(pair, 3).status == 404
    assert asked(pair, 2).status == 200


def test_a_piece_is_hashed_once_for_many_readers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.seed.write(pair.file, [0])
    hashed = list[int]()
    real = copies.Copy._hash

    def counting(copy: copies.Copy, start: int, end: int) -> bytes | None:
        hashed.append(start)
        return real(copy, start, end)

    monkeypatch.setattr(copies.Copy, "_hash", counting)
    monkeypatch.setattr("directdownload.peer.offering.REST_PIECES", 0)
    for _ in range(3):
        waiting.until("the piece", lambda: asked(pair, 0).status == 200)
    assert hashed == [0]
    # written down again: its bytes may be others
    pair.seed.append(pair.file, piecelog.lost_line(0))
    pair.seed.write(pair.file, [0])
    waiting.until("the piece", lambda: asked(pair, 0).status == 200)
    assert hashed == [0, 0]


def test_bytes_that_change_under_a_published_name_give_nothing(pair: Pair) -> None:
    pair.seed.write(pair.file, range(4))
    final = pair.seed.publish(pair.file)
    assert asked(pair, 0).status == 200
    with open(final, "r+b") as file:
        file.write(b"altered")
    assert asked(pair, 0).status == 404
    assert asked(pair, 1).status == 404


# Proofs and warrants


def test_pieces_without_a_signature_on_a_host_that_is_no_seed_are_not_offered(pair: Pair, origin: PeerHost) -> None:
    file = SharedFile.of(2 * MIB, number=1)
    pair.seed.begin(file, warrant=pair.fleet.warrant(file, origin))
    pair.seed.write(file, [0])
    pair.seed.write(file, [1], signer=origin)
    assert announced(pair, file) == {1}
    assert asked(pair, 0, file).status == 404
    answer = asked(pair, 1, file)
    assert protocol.read_proof(answer.fields["piece-proof"]) == origin.proof(file, 1)


def test_a_log_without_a_warrant_offers_nothing_until_there_is_one(pair: Pair, origin: PeerHost) -> None:
    file = SharedFile.of(2 * MIB, number=1)
    pair.seed.begin(file)
    pair.seed.write(file, [0], signer=origin)
    pair.seed.write(file, [1])
    with state(pair.seed, pair.reader, file, pair.fleet.grant(file, pair.reader)) as stream:
        assert stream.line()["have"] == ""
        pair.seed.append(file, piecelog.warrant_line(pair.fleet.warrant(file, origin)))
        assert stream.line() == {"add": [0]}
        pair.seed.append(file, piecelog.warrant_line(pair.fleet.warrant(file, pair.seed, epoch=2)))
        assert stream.line() == {"add": [1]}


@pytest.mark.parametrize(
    "wrong", ["another zone", "another content", "expired", "another controller", "another piece size"]
)
def test_a_warrant_of_something_else_does_not_count(pair: Pair, wrong: str) -> None:
    file, other = SharedFile.of(2 * MIB, number=1), SharedFile.of(2 * MIB, number=1)
    fleet = pair.fleet
    if wrong == "another controller":
        token = Issuer(Ed25519PrivateKey.generate()).warrant(
            statements.Warrant(file.content, fleet.zone, MIB, pair.seed.public_key, 1, 2**33)
        )
    else:
        token = {
            "another zone": lambda: fleet.warrant(file, pair.seed, zone="zone-2"),
            "another content": lambda: fleet.warrant(other, pair.seed),
            "expired": lambda: fleet.warrant(file, pair.seed, seconds=-statements.LEEWAY_SECONDS - 60),
            "another piece size": lambda: fleet.warrant(SharedFile(file.data, file.template_uid, 2 * MIB), pair.seed),
        }[wrong]()
    pair.seed.begin(file, warrant=token)
    pair.seed.write(file, [0, 1])
    assert announced(pair, file) == set()
    assert asked(pair, 0, file).status == 404


def test_a_forged_proof_is_not_offered(pair: Pair, origin: PeerHost) -> None:
    file = SharedFile.of(4 * MIB, number=1)
    pair.seed.begin(file, warrant=pair.fleet.warrant(file, origin))
    pair.seed.write(file, [0], signer=origin)
    # by another key; of another piece; of another epoch; of other bytes
    pair.seed.write(file, [1], signer=pair.reader)
    pair.seed.append(file, piecelog.piece_line(2, file.digest(2), origin.proof(file, 3)))
    pair.seed.write(file, [3], signer=origin, epoch=2)
    assert announced(pair, file) == {0}


def test_what_a_later_seed_signs_takes_the_place(pair: Pair, origin: PeerHost) -> None:
    later = pair.fleet.warrant(pair.file, origin, epoch=2)
    pair.seed.write(pair.file, [0])
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        pair.seed.append(pair.file, piecelog.warrant_line(later))
        pair.seed.write(pair.file, [0, 1], signer=origin, epoch=2)
        assert stream.line() == {"add": [1]}
    answer = asked(pair, 0)
    assert protocol.read_proof(answer.fields["piece-proof"]).epoch == 2
    assert answer.fields["piece-warrant"] == later


def test_a_warrant_that_expires_takes_its_pieces_with_it(pair: Pair) -> None:
    pair.seed.write(pair.file, [0])
    with state(pair.seed, pair.reader, pair.file, pair.fleet.grant(pair.file, pair.reader, seconds=10**6)) as stream:
        assert stream.line()["have"] == "AQ=="
        pair.seed.clock = lambda: time.time() + 3600 + statements.LEEWAY_SECONDS + 60
        assert stream.line() == {"drop": [0]}


# Coming and going


def test_a_content_that_is_not_there_yet_is_announced_when_it_comes(pair: Pair) -> None:
    file = SharedFile.of(2 * MIB, number=1)
    with state(pair.seed, pair.reader, file, pair.fleet.grant(file, pair.reader)) as stream:
        assert stream.line() == {"pieceBytes": None, "size": None, "have": ""}
        pair.seed.begin(file, warrant=pair.fleet.warrant(file, pair.seed))
        assert stream.line() == {"size": 2 * MIB}
        pair.seed.write(file, [1])
        assert stream.line() == {"add": [1]}


def test_a_size_that_comes_late_is_announced_before_the_pieces(pair: Pair) -> None:
    file = SharedFile.of(2 * MIB, number=1)
    pair.seed.begin(file)
    header = piecelog.header_line(file.header) + piecelog.warrant_line(pair.fleet.warrant(file, pair.seed))
    pair.seed.log_path(file).write_bytes(header)
    with state(pair.seed, pair.reader, file, pair.fleet.grant(file, pair.reader)) as stream:
        assert stream.line() == {"pieceBytes": MIB, "size": None, "have": ""}
        pair.seed.append(file, piecelog.size_line(2 * MIB))
        pair.seed.write(file, [0])
        told = stream.line()
        told |= {} if "add" in told else stream.line()
        assert told == {"size": 2 * MIB, "add": [0]}


def test_a_heartbeat_shows_that_the_server_lives(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.1)
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        assert [stream.line(), stream.line()] == [{}, {}]


def test_publishing_ends_no_stream_and_breaks_no_piece(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "CONFIRM_SECONDS", 0.0)
    pair.seed.write(pair.file, range(4))
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        pair.seed.publish(pair.file)
        assert asked(pair, 0).status == 200
        assert stream.line() == {"drop": [0]}
        pair.seed.append(pair.file, piecelog.lost_line(1))
        assert stream.line() == {"drop": [1]}


@pytest.mark.parametrize("what", ["the file", "the log", "the log, for another", "the record"])
def test_a_content_that_goes_ends_its_streams(pair: Pair, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(contents, "CONFIRM_SECONDS", 0.0)
    pair.seed.write(pair.file, range(4))
    final, log = pair.seed.publish(pair.file), pair.seed.log_path(pair.file)
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        if what == "the file":
            final.unlink()
        elif what == "the log":
            log.unlink()
        elif what == "the record":
            pair.seed.record_path(pair.file).unlink()
        else:
            _exchange(log)
        list(stream.lines())
    if what == "the log, for another":
        assert announced(pair) == {0, 1, 2, 3}
    else:
        assert announced(pair) == set()
        assert asked(pair, 0).status == 404


def _exchange(path: pathlib.Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def test_a_log_that_becomes_shorter_is_another_one(pair: Pair) -> None:
    pair.seed.write(pair.file, range(4))
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        pair.seed.begin(pair.file, warrant=pair.warrant)
        list(stream.lines())
    assert announced(pair) == set()


@pytest.mark.parametrize(
    "junk", [b"junk\n", b"\xff\xfe\n", b"[" * 3000 + b"\n", b'{"piece":99,"digest":"x"}\n', b"\n" * 99]
)
def test_a_log_with_junk_in_it_still_counts(pair: Pair, junk: bytes) -> None:
    pair.seed.append(pair.file, junk)
    pair.seed.write(pair.file, [1])
    assert announced(pair) == {1}


def test_a_removed_file_is_let_go_though_nobody_asks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take its room on the disk for as long as the server runs."""
    monkeypatch.setattr(contents, "_IDLE_SECONDS", 0.1)
    pair.seed.write(pair.file, range(4))
    final = pair.seed.publish(pair.file)
    assert asked(pair, 0).status == 200
    assert _is_held(final)
    waiting.until("the file to be closed", lambda: not _is_held(final))


def _is_held(path: pathlib.Path) -> bool:
    status = path.stat()
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            state_of = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found.append((state_of.st_dev, state_of.st_ino))
    return (status.st_dev, status.st_ino) in found


def test_a_seed_gives_each_piece_to_one_host_and_again_later(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("directdownload.peer.offering.REST_PIECES", 3)
    other = pair.fleet.host("kvm-3")
    pair.seed.write(pair.file, range(4))
    with state(pair.seed, other, pair.file, pair.fleet.grant(pair.file, other)) as stream:
        assert stream.line()["have"] == "Dw=="
        assert asked(pair, 2).status == 200
        assert stream.line() == {"drop": [2]}
        assert asked(pair, 2).status == 404
        assert next(line for line in iter(stream.line, None) if line) == {"add": [2]}


def test_a_host_that_is_no_seed_offers_what_it_gave_still(pair: Pair, origin: PeerHost) -> None:
    file = SharedFile.of(2 * MIB, number=1)
    pair.seed.begin(file, warrant=pair.fleet.warrant(file, origin))
    pair.seed.write(file, [0, 1], signer=origin)
    for _ in range(3):
        assert asked(pair, 0, file).status == 200
    assert announced(pair, file) == {0, 1}


def test_two_readers_of_one_content_are_told_the_same(pair: Pair) -> None:
    other = pair.fleet.host("kvm-3")
    with (
        state(pair.seed, pair.reader, pair.file, pair.grant) as first,
        state(pair.seed, other, pair.file, pair.fleet.grant(pair.file, other)) as second,
    ):
        for stream in (first, second):
            assert stream.line()["have"] == ""
        for index in range(4):
            pair.seed.write(pair.file, [index])
            assert first.line() == second.line() == {"add": [index]}


def test_an_idle_server_has_no_thread_for_a_content(pair: Pair) -> None:
    def watching() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("watches")]

    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        assert len(watching()) == 1
    waiting.until("it to end", lambda: not watching())
