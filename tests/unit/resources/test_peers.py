"""Which files hosts share, in pieces of what size, and under which id."""

import pytest

from directdownload.resources import peers
from directdownload.resources.checksum import Checksum

MIB, GIB, TIB = 2**20, 2**30, 2**40


@pytest.mark.parametrize(
    ("size", "piece"),
    [(0, 1), (1, 1), (GIB, 1), (GIB + 1, 2), (10 * GIB, 16), (64 * GIB, 64), (2 * TIB, 64), (None, 16)],
)
def test_pieces_are_about_a_thousand_within_bounds(size: int | None, piece: int) -> None:
    assert peers.piece_bytes(size) == piece * MIB


def test_two_tebibytes_are_the_most() -> None:
    assert peers.pieces(2 * TIB, peers.piece_bytes(2 * TIB)) == peers.PIECES_LIMIT
    assert peers.pieces(2 * TIB + 1, peers.piece_bytes(2 * TIB + 1)) > peers.PIECES_LIMIT


def test_the_last_piece_may_be_shorter() -> None:
    assert peers.piece_range(2, MIB, 2 * MIB + 5) == (2 * MIB, 2 * MIB + 5)


def test_two_templates_never_share_a_content() -> None:
    one = peers.content_id("uid-1", "sha256:" + "a" * 64, MIB)
    assert one == peers.content_id("uid-1", "sha256:" + "a" * 64, MIB)
    others = {
        peers.content_id("uid-2", "sha256:" + "a" * 64, MIB),
        peers.content_id("uid-1", "sha256:" + "b" * 64, MIB),
        peers.content_id("uid-1", "sha256:" + "a" * 64, 2 * MIB),
    }
    assert len(others | {one}) == 4


@pytest.mark.parametrize(("text", "shared"), [("md5", False), ("sha1", False), ("sha224", False), ("sha256", True)])
def test_only_a_strong_checksum_is_shared(text: str, shared: bool) -> None:
    length = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64}[text]
    assert peers.eligible(Checksum.parse(f"{text}:{'a' * length}")) is shared
    assert not peers.eligible(None)
