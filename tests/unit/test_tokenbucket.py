"""How much may happen at once, and when more may."""

import pytest

from directdownload.tokenbucket import TokenBucket


def test_a_full_bucket_gives_its_burst_at_once_and_then_one_token_at_a_time() -> None:
    bucket, waits = TokenBucket.full(seconds_per_token=2, burst=3, now=100), list[float]()
    for _ in range(5):
        bucket, lacking_seconds = bucket.take(100)
        waits.append(lacking_seconds)
    assert waits == [0, 0, 0, 2, 4]
    assert bucket.take(104)[1] == pytest.approx(2)


def test_it_is_never_fuller_than_full() -> None:
    bucket = TokenBucket.full(seconds_per_token=1, burst=2, now=0)
    assert [bucket.take(1e9, tokens)[1] for tokens in (2, 3)] == [0, 1]


def test_a_clock_that_is_set_back_takes_no_tokens_away() -> None:
    bucket, _ = TokenBucket.full(seconds_per_token=1, burst=2, now=100).take(100)
    bucket, lacking_seconds = bucket.take(0)
    assert (bucket.tokens, lacking_seconds) == (0, 0)
