"""A piece log says what was appended to it, however it is cut, and believes no line that is out of bounds."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directdownload.peer import piecelog
from directdownload.peer.piecelog import Entry, Header, PieceLog
from directdownload.peer.statements import Proof
from directdownload.resources import peers

MIB = 2**20
HEADER = Header("11111111-2222-3333-4444-555555555555", "sha256:" + "a" * 64, MIB)
PROOF = Proof(7, b"d" * 32, b"s" * 64)
WHOLE = b"".join(
    (
        piecelog.header_line(HEADER),
        piecelog.warrant_line("a.b"),
        piecelog.size_line(3 * MIB - 1),
        piecelog.piece_line(0, b"x" * 32),
        piecelog.piece_line(2, b"d" * 32, PROOF),
        piecelog.piece_line(1, b"y" * 32),
        piecelog.lost_line(0),
    )
)


def read(*parts: bytes) -> tuple[PieceLog, set[int]]:
    log, changed = PieceLog(), set[int]()
    for part in parts:
        changed |= log.feed(part)
    return log, changed


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_it_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    log, changed = read(*(WHOLE[a:b] for a, b in itertools.pairwise(edges)))
    assert log.header == HEADER
    assert log.header.content == peers.content_id(HEADER.template_uid, HEADER.checksum, MIB)
    assert (log.warrants, log.size_bytes) == (["a.b"], 3 * MIB - 1)
    assert log.entries == {2: Entry(b"d" * 32, PROOF), 1: Entry(b"y" * 32, None)}
    assert changed == {0, 1, 2}
    assert not log.complete


def test_it_is_complete_with_its_last_piece() -> None:
    log, _ = read(WHOLE, piecelog.piece_line(0, b"x" * 32))
    assert log.complete


def test_a_line_that_a_crash_cut_off_counts_for_nothing() -> None:
    cut = piecelog.piece_line(0, b"x" * 32)[:-5]
    log, _ = read(WHOLE, cut, piecelog.FRESH_LINE, piecelog.lost_line(1), piecelog.piece_line(0, b"z" * 32))
    assert log.entries == {0: Entry(b"z" * 32, None), 2: Entry(b"d" * 32, PROOF)}


def test_a_piece_counts_only_within_the_file() -> None:
    sized = piecelog.header_line(HEADER) + piecelog.size_line(3 * MIB)
    log, changed = read(piecelog.header_line(HEADER), piecelog.piece_line(0, b"x" * 32))
    assert (log.entries, changed) == ({}, set())
    for line in (
        piecelog.piece_line(3, b"x" * 32),
        piecelog.piece_line(-1, b"x" * 32),
        b'{"piece":true,"digest":"%s"}\n' % (b"A" * 43),
        b'{"piece":0,"digest":"short"}\n',
        b'{"piece":0,"digest":"%s","signature":5,"epoch":1}\n' % (b"A" * 43),
        b'{"lost":true}\n',
        b"[1]\n",
        b'{"size":true}\n',
        b'{"size":0}\n',
        b'{"size":%d}\n' % (MIB * (peers.PIECES_LIMIT + 1)),
    ):
        log, changed = read(sized, line)
        assert (log.entries, changed, log.size_bytes) == ({}, set(), 3 * MIB), line


def test_a_smaller_size_takes_the_pieces_beyond_it() -> None:
    log, changed = read(WHOLE, piecelog.size_line(MIB))
    assert (log.entries, 2 in changed) == ({}, True)


@pytest.mark.parametrize(
    "line",
    [
        b"nothing\n",
        b"[]\n",
        b"{}\n",
        piecelog.header_line(Header("u", "md5:" + "a" * 32, 3 * MIB)),
        piecelog.header_line(Header("u", "sha256:" + "A" * 64, MIB)),
        piecelog.header_line(Header("", "sha256:" + "a" * 64, MIB)),
        piecelog.header_line(Header("u", "sha256:" + "a" * 64, 2**40)),
        b"[" * 5000 + b"\n",
    ],
)
def test_a_file_that_begins_otherwise_is_no_log(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of a number, a checksum or our own
        read(line)


def test_it_takes_no_more_than_its_limit() -> None:
    log = PieceLog()
    log.feed(WHOLE)
    for _ in range(31):
        log.feed(b" " * MIB)
    with pytest.raises(ValueError, match="too long"):
        log.feed(b" " * MIB)
    assert len(log._rest) <= piecelog.LINE_LIMIT_BYTES + 1


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_line_raises_after_the_header(lines: list[bytes]) -> None:
    log, _ = read(WHOLE, b"\n".join(lines), b"\n")
    assert set(log.entries) <= {0, 1, 2}
