"""Text from outside that is made fit for statuses, logs and messages."""

import json
import os
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from directdownload import escaping

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
NAMES = st.binary(min_size=1, max_size=255).map(os.fsdecode)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(ANY_TEXT | NAMES, st.integers(1, 400))
def test_what_comes_out_is_one_bounded_printable_line_of_valid_unicode(text: str, limit: int) -> None:
    shown = escaping.escaped(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert shown.encode().decode() == shown
    assert escaping.escaped(shown, limit) == shown


@given(NAMES, NAMES)
def test_names_that_differ_in_a_byte_that_is_no_text_are_shown_differently(one: str, other: str) -> None:
    if "\\" not in one + other:
        assert (escaping.escaped(one) == escaping.escaped(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (os.fsdecode(b"\xff.part"), "\\xff.part"),
        (os.fsdecode("größe 😀.part".encode()), "größe 😀.part"),
        ("a\x1b[2J\x7f", "a\\x1b[2J\\x7f"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egnp.exe\x85\u2028", "\\u202egnp.exe\\u0085\\u2028"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_the_notation_is_that_of_bytes_and_code_points(text: str, shown: str) -> None:
    assert escaping.escaped(text) == shown


def test_what_is_too_long_says_so() -> None:
    assert escaping.escaped("x" * 301, 300) == "x" * 299 + "…"
    assert escaping.escaped("x" * 300, 300) == "x" * 300
    assert escaping.listed([f"n{number}\n" for number in range(12)], 2) == "n0\\n, n1\\n and 10 more"
    assert escaping.listed(["a", "b"], 2) == "a, b"


def with_escapes(value: Any) -> Any:
    """What the API server shall read: surrogates that are no characters in writing, all else as it was."""
    if isinstance(value, str):
        return escaping.valid(value)
    if isinstance(value, list):
        return [with_escapes(item) for item in value]
    if isinstance(value, dict):
        return {escaping.valid(name): with_escapes(item) for name, item in value.items()}
    return value


#: What a reader of YAML lets pass unescaped: go-yaml (yaml_reader_read) and PyYAML agree.
NO_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff\x7f]")


@given(DOCUMENTS)
def test_every_document_can_be_applied_and_loses_nothing(document: Any) -> None:
    text = escaping.to_apply(document).decode()
    # a high and a low surrogate that stand side by side are one character for every reader of JSON
    expected = with_escapes(json.loads(json.dumps(document)))
    assert json.loads(text) == expected
    assert not NO_YAML.search(text)


@given(DOCUMENTS)
def test_lines_of_json_are_printable_and_mean_the_same(document: Any) -> None:
    line = escaping.one_json_line(json.dumps(with_escapes(document), ensure_ascii=False))
    assert line.isprintable()
    assert json.loads(line) == with_escapes(document)


def test_an_escaped_backslash_begins_no_surrogate() -> None:
    document = {"name": "\\ud83d\\ude00 \\\\udcff", "emoji": "😀", "byte": "\\\udcff"}
    assert yaml.safe_load(escaping.to_apply(document)) == {**document, "byte": "\\\\xff"}
