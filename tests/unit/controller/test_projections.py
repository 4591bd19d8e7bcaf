"""What an agent says and nobody can read counts as absent: it takes no copy out of service.

That nothing which the definitions admit raises is shown in `test_admitted.py`; that the API server refuses what cannot
be read, in `tests/api/test_resources.py`.
"""

import copy
from typing import Any

import hypothesis
from hypothesis import strategies
from tests.unit.planning import build

_TEXTS = strategies.text(strategies.characters(codec="utf-8"), max_size=20)
_ANYTHING = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | _TEXTS,
    lambda inner: strategies.lists(inner, max_size=2) | strategies.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=4,
)
_WORDS = strategies.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("bytesDownloaded", "bytesTotal", "updatedTime", "present", "changed", "revision"), _ANYTHING
    ),
)


@hypothesis.given(progress=_ANYTHING | _WORDS, seen=_ANYTHING | _WORDS)
def test_an_agents_word_that_cannot_be_read_counts_as_absent(progress: Any, seen: Any) -> None:
    """It takes no copy out of service, whatever it is; what the controller has written is read."""
    document = build.placement_document(phase="Ready", status={**build.file_status(), "attempts": 3})
    spoilt = copy.deepcopy(document)
    spoilt["status"] |= {"progress": progress, "observed": seen}
    found, plain = build.VIEWS.placement(spoilt), build.VIEWS.placement(document)
    assert (found.phase, found.file, found.attempts, found.conditions) == (
        plain.phase,
        plain.file,
        plain.attempts,
        plain.conditions,
    )
    numbers = (found.bytes_downloaded, found.bytes_total)
    assert all(type(each) is int for each in numbers)
    assert (type(found.observed_present), type(found.observed_changed), type(found.observed_revision)) == (
        bool,
        bool,
        str,
    )


def test_a_file_without_a_path_counts_as_absent() -> None:
    document = build.placement_document(phase="Ready", status={"file": {"digest": build.DIGEST}})
    assert build.VIEWS.placement(document).file is None
