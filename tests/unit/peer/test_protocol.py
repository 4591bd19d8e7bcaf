"""What hosts say to each other is read as it was written, and nothing else is read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directdownload.peer import protocol
from directdownload.peer.protocol import Changes, ProtocolError, State, Target
from directdownload.peer.statements import Proof
from directdownload.resources import peers

MIB = 2**20
CONTENT = "5" * 64


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.frozensets(st.integers(0, n - 1)))))
def test_a_state_is_read_as_it_was_written(drawn: tuple[int, frozenset[int]]) -> None:
    number, have = drawn
    state = State(MIB, number * MIB - 1, have)
    assert protocol.read_state(protocol.state_line(state)) == state


def test_a_state_without_a_size_has_no_pieces() -> None:
    assert protocol.read_state(protocol.state_line(State(MIB, None, frozenset()))) == State(MIB, None, frozenset())
    with pytest.raises(ProtocolError):
        protocol.read_state(protocol.state_line(State(MIB, None, frozenset({1}))))


def test_a_host_that_has_nothing_yet_names_no_size_of_a_piece() -> None:
    assert protocol.read_state(protocol.state_line(State(None, None, frozenset()))) == State(None, None, frozenset())
    for unlikely in (State(None, None, frozenset({1})), State(None, MIB, frozenset())):
        with pytest.raises(ProtocolError):
            protocol.read_state(protocol.state_line(unlikely))


@given(st.lists(st.integers(0, peers.PIECES_LIMIT - 1)), st.lists(st.integers(0, peers.PIECES_LIMIT - 1)))
def test_changes_are_read_as_they_were_written(add: list[int], drop: list[int]) -> None:
    changes = Changes(None, tuple(add), tuple(drop))
    assert protocol.read_changes(protocol.changes_line(changes)) == changes


def test_a_map_of_all_pieces_fits_its_line() -> None:
    everything = frozenset(range(peers.PIECES_LIMIT))
    state = State(64 * MIB, peers.PIECES_LIMIT * 64 * MIB, everything)
    line = protocol.state_line(state)
    assert len(line) <= protocol.LINE_LIMIT_BYTES
    assert protocol.read_state(line) == state
    assert len(protocol.changes_line(Changes(add=tuple(everything)))) <= protocol.LINE_LIMIT_BYTES


@given(st.binary(max_size=200))
def test_any_line_is_refused_in_one_way(line: bytes) -> None:
    for read in (protocol.read_state, protocol.read_changes):
        with contextlib.suppress(ProtocolError):
            read(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"pieceBytes":1048576,"size":1048576,"have":"//8="}',
        b'{"pieceBytes":1,"size":1048576,"have":""}',
        b'{"pieceBytes":1048576,"size":-1,"have":""}',
        b'{"pieceBytes":1048576,"size":true,"have":""}',
        b'{"pieceBytes":1048576,"size":1048576,"have":[1]}',
        b'{"pieceBytes":1048576,"size":1048576,"have":"%s"}' % (b"A" * 100_000),
        b'{"pieceBytes":1048576,"size":999999999999999999999,"have":""}',
        b"[" * 100_000,
    ],
)
def test_a_state_out_of_bounds_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_state(line)


@pytest.mark.parametrize("line", [b'{"add":[-1]}', b'{"add":[32768]}', b'{"drop":[true]}', b'{"add":1}', b'{"size":0}'])
def test_changes_out_of_bounds_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_changes(line)


def test_a_path_names_the_state_or_a_piece_of_a_content() -> None:
    for target in (Target(CONTENT), Target(CONTENT, 0), Target(CONTENT, peers.PIECES_LIMIT - 1)):
        assert Target.of(target.path()) == target
    for path in (
        "/",
        f"/v1/{CONTENT}",
        f"/v1/{CONTENT}/pieces/32768",
        f"/v1/{CONTENT}/pieces/01",
        f"/v1/{CONTENT}/pieces/-1",
        f"/v1/{CONTENT}/pieces/\N{ARABIC-INDIC DIGIT ONE}",
        f"/v1/{CONTENT.replace('5', 'A')}/state",
        f"/v1/{CONTENT}/state/",
        f"/v1/{CONTENT}/state\n",
        f"http://host/v1/{CONTENT}/state",
    ):
        with pytest.raises(ProtocolError):
            Target.of(path)


def test_a_proof_is_read_as_it_was_written() -> None:
    proof = Proof(7, b"d" * 32, b"s" * 64)
    assert protocol.read_proof(protocol.proof_header(proof)) == proof
    for text in ("", "7", "7 a b", "-7 " + "A" * 43 + " " + "A" * 86, "9" * 17 + " " + "A" * 43 + " " + "A" * 86):
        with pytest.raises(ProtocolError):
            protocol.read_proof(text)
