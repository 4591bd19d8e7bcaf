"""Reasons: each has one meaning for a retry."""

import itertools
import re

from directdownload.resources.reasons import DONE, PERMANENT, WAITING, Reason


def test_no_reason_means_two_things() -> None:
    for one, other in itertools.combinations((DONE, PERMANENT, WAITING), 2):
        assert not one & other


def test_reasons_are_what_conditions_accept() -> None:
    for reason in Reason:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", reason.value)
        assert len(reason.value) <= 64
        assert reason.name.replace("_", "").lower() == reason.value.lower()


def test_permanent_reasons_are_the_public_ones() -> None:
    """As the reference of TemplatePlacement lists them; InvalidChecksum is a Template's, and as final."""
    listed = """InvalidURL URLNotAllowed UnsupportedProtocol ChecksumMismatch SourceRefused TooManyRedirects
    MetalinkInvalid UnsafeImage FormatMismatch DecompressionFailed TooLarge ChecksumRequired ChecksumTooWeak
    ArchitectureMismatch InvalidChecksum"""
    assert {reason.value for reason in PERMANENT} == set(listed.split())
