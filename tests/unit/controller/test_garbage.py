"""What has survived a long garbage collection is looked at no more."""

import gc
import time
from collections.abc import Iterator

import pytest

from directdownload.controller import garbage


@pytest.fixture
def survivors() -> Iterator[None]:
    known = list(gc.callbacks)
    garbage.Survivors().watch()
    # Only those collections count that a test asks for.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.callbacks[:] = known
        gc.unfreeze()


def seconds() -> float:
    began = time.thread_time()
    gc.collect()
    return time.thread_time() - began


@pytest.mark.usefixtures("survivors")
def test_only_the_first_collection_of_many_objects_takes_long() -> None:
    kept = [{number: [number]} for number in range(400_000)]
    first, later = seconds(), seconds()
    assert gc.get_freeze_count() > len(kept)
    assert later < first / 4


@pytest.mark.usefixtures("survivors")
def test_a_short_one_leaves_everything_as_it_is() -> None:
    gc.collect()
    before = gc.get_freeze_count()
    gc.collect()
    assert gc.get_freeze_count() == before


@pytest.mark.usefixtures("survivors")
def test_what_nothing_refers_to_goes_all_the_same() -> None:
    class Object:
        gone = 0

        def __del__(self) -> None:
            Object.gone += 1

    kept = [Object() for _ in range(200_000)]
    gc.collect()
    kept.clear()
    assert Object.gone == 200_000
