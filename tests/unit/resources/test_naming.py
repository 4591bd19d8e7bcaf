"""Names: deterministic, short enough, valid wherever they stand, and never the same for two different things."""

import itertools
import re

import pytest

from directdownload.resources import naming

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
NAMES = ["a", "debian-13", "debian.13.amd64", "9-lives", "x" * 253, "a" * 29 + ".b", "a" * 28 + "-.b", "a" * 29 + "-b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_placement_and_its_jobs_have_valid_names(name: str) -> None:
    placement = naming.placement_name(name, "uid", "local", "kvm-1")
    assert len(placement) <= 41
    for verb, attempt in itertools.product(("fetch", "verify", "remove", "probe"), (1, 10**9)):
        assert DNS_LABEL.fullmatch(naming.job_name(placement, verb, attempt))
    assert naming.placement_name(name, "uid", "local", "kvm-1") == placement


@pytest.mark.parametrize("name", NAMES)
def test_the_probes_of_a_template_have_a_name_of_their_own(name: str) -> None:
    found = naming.probe_name(name, "uid")
    assert DNS_LABEL.fullmatch(naming.job_name(found, "probe", 10**9))
    assert found == naming.probe_name(name, "uid")
    others = (naming.probe_name(name, "other"), naming.placement_name(name, "uid", "local", None))
    assert found not in others


def test_names_that_are_public_do_not_change() -> None:
    """Another hash would orphan every file that lies in a pool."""
    assert naming.placement_name("debian-13", "uid-1", "local", "kvm-1") == "debian-13-cf8932855e"
    assert naming.placement_name("debian-13", "uid-1", "local", None) == "debian-13-455e5b05a1"


def test_what_differs_has_another_name() -> None:
    parts = itertools.product(("u1", "u2", "u1\0a"), ("a", "b", "ab", "a\0b"), (None, "a", "b", "ab"))
    names = [naming.placement_name("t", uid, pool, host) for uid, pool, host in parts if "\0" not in uid + pool]
    assert len(names) == len(set(names)) == 24
    assert naming.placement_name("t", "u", "ab", "c") != naming.placement_name("t", "u", "a", "bc")


@pytest.mark.parametrize(
    ("image_format", "expected"), [("QCOW2", "uid-1"), ("RAW", "uid-1"), ("OVA", "uid-1"), ("ISO", "uid-1.iso")]
)
def test_file_names(image_format: str, expected: str) -> None:
    assert naming.file_name("uid-1", image_format) == expected


@pytest.mark.parametrize("value", ["", "kvm-1", "a.b_c", "x" * 63])
def test_a_label_value_that_fits_is_left_alone(value: str) -> None:
    assert naming.label_value(value) == value


@pytest.mark.parametrize("value", ["x" * 64, "x" * 253, "a." * 126 + "a", "a" * 51 + "-._" + "b" * 100])
def test_a_label_value_that_is_too_long_is_shortened(value: str) -> None:
    short = naming.label_value(value)
    assert LABEL_VALUE.fullmatch(short)
    assert short[:50] == value[:50]
    assert short != naming.label_value(value[:-1] + "z")
