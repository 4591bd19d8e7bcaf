"""Journals are hostile until read: whatever lies there, none is believed that is none, and none breaks a download."""

import datetime
import json
import os
import pathlib
import shutil
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from tests.unit.download.support import content, fetch, make_request, sha256
from tests.world.origin import Origin
from tests.world.soak import ROUNDS

from directdownload.download.transfer.journal import RANGES_LIMIT, SOURCES_LIMIT, Journal, read_journal

DATA = content(300_000)
WORK = ".directdownload"
JOURNAL, PART = f"{WORK}/uid-1.kvm-1.journal", f"{WORK}/uid-1.kvm-1.part"
NOW = "2026-01-01T00:00:00Z"

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50)
_json = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=20), inner))
_positions = st.integers(-1, len(DATA) + 10) | st.sampled_from([0, len(DATA), 2**62, 2**63, 2**80])
#: near to a journal, so that many are accepted
_journals = st.fixed_dictionaries(
    {"version": st.sampled_from([2, 2, 2, 1, "2", None]), "source": st.text(max_size=30)},
    optional={
        "sizeBytes": st.none() | _positions | st.just(len(DATA)),
        "ranges": st.lists(st.tuples(_positions, _positions), max_size=4).map(sorted)
        | st.just([[0, 100_000]])
        | st.just([[10, 20], [100_000, 200_000]]),
        "bytesOnDisk": _positions,
        "resumedFrom": _positions,
        "placement": st.text(max_size=10),
        "progressIntervalSeconds": st.floats() | st.just(2),
        "startedTime": st.just(NOW) | st.text(max_size=20),
        "updatedTime": st.just(NOW) | st.integers(),
        "sources": st.lists(
            st.fixed_dictionaries(
                {"digest": st.just("SOURCE") | st.text(max_size=5)}, optional={"validator": st.text(max_size=20)}
            ),
            max_size=3,
        ),
    },
).map(lambda found: {"startedTime": NOW, "updatedTime": NOW, **found})


@hypothesis.settings(deadline=None, max_examples=180 * ROUNDS)
@hypothesis.given(st.binary(max_size=2000) | _json.map(json.dumps).map(str.encode) | st.text().map(str.encode))
def test_whatever_lies_there_reads_as_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.journal"
    path.write_bytes(data)
    assert read_journal(str(path)) is None


@hypothesis.settings(deadline=None, max_examples=180 * ROUNDS)
@hypothesis.given(_journals)
def test_what_reads_as_a_journal_keeps_its_promises(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "near.journal"
    path.write_text(json.dumps(found))
    journal = read_journal(str(path))
    if journal is None:
        return
    last = -1
    for start, end in journal.ranges:
        assert last < start < end
        last = end
    assert journal.size_bytes is None or last <= journal.size_bytes
    assert len(journal.ranges) <= RANGES_LIMIT
    assert journal.started_time.timestamp() >= 0
    journal.write(str(path))
    assert read_journal(str(path)) == journal


@hypothesis.settings(deadline=None, max_examples=36 * ROUNDS)
@hypothesis.given(found=_journals, checksum=st.booleans(), length=st.sampled_from([0, 100_000, len(DATA), 400_000]))
def test_no_journal_breaks_a_download(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, Any], checksum: bool, length: int
) -> None:
    """What it says of the part is a lie or the truth: the file that is published is the one of the source."""
    base = tmp_path_factory.mktemp("download")
    (base / "image").write_bytes(DATA)
    pool = base / "pool"
    with Origin(base) as origin:
        request = make_request(pool, origin.url("image"), checksum=sha256(DATA) if checksum else "")
        digest = request.source(request.url, first=True).url.digest
        (pool / WORK).mkdir(parents=True)
        (pool / JOURNAL).write_text(json.dumps(found).replace("SOURCE", digest))
        (pool / PART).write_bytes((DATA + bytes(100_000))[:length])
        (pool / PART).chmod(0o600)
        assert fetch(request).digest == sha256(DATA)
    assert (pool / "uid-1").read_bytes() == DATA
    shutil.rmtree(base)


def test_the_largest_journal_that_is_written_is_read_back(tmp_path: pathlib.Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    journal = Journal.model_validate(
        {
            "source": "x" * 2048,
            "sources": [{"digest": f"{number:064}", "validator": f'"{"v" * 1024}"'} for number in range(SOURCES_LIMIT)],
            "sizeBytes": 2**62,
            "ranges": [(number * 2**50, number * 2**50 + 1) for number in range(RANGES_LIMIT)],
            "startedTime": now,
            "updatedTime": now,
        }
    )
    journal.write(str(tmp_path / "journal"))
    assert read_journal(str(tmp_path / "journal")) == journal
    assert os.listdir(tmp_path) == ["journal"]
