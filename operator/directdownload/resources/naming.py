"""Names that every part derives the same way: placements, Jobs, files, label values.

All are deterministic, so that a restarted or second controller arrives at the same name (architecture, rule 9).
"""

import hashlib

GROUP = "directdownload.dev"
#: Connections at once to one source.
MOST_CONNECTIONS = 8
#: The longest Kubernetes label value and Job name.
NAME_LIMIT = 63
#: The highest count of attempts, and of failures: a Job's name has room for nine digits.
ATTEMPT_LIMIT = 999_999_999
#: Our directory in a pool: everything of ours there except published files.
WORK_DIRECTORY = ".directdownload"
#: There: of the progress of a download, and of the record of a published file.
JOURNAL_SUFFIX, RECORD_SUFFIX = ".journal", ".record"
#: There: the pieces that this host has of a file, for other hosts (`peer.piecelog`).
PIECES_SUFFIX = ".pieces"


def placement_name(template_name: str, template_uid: str, pool: str, host: str | None) -> str:
    """`<template, at most 30>-<10 hex>`; `host` is None for a pool that all hosts share."""
    digest = hashlib.sha256("\0".join((template_uid, pool, host or "")).encode()).hexdigest()[:10]
    # A label or Job name must not hold dots in the middle of its DNS label nor end in a hyphen.
    prefix = template_name[:30].replace(".", "-").strip("-")
    return f"{prefix}-{digest}"


def probe_name(template_name: str, template_uid: str) -> str:
    """The name for the probes of one Template, as a placement's name is for its jobs; derived in the same way."""
    return placement_name(template_name, template_uid, "", None)


def job_name(placement: str, verb: str, attempt: int) -> str:
    """`<placement>-<verb>-<attempt>`, at most 63 characters as a placement has at most 41."""
    return f"{placement}-{verb}-{attempt}"


def file_name(template_uid: str, image_format: str) -> str:
    """The published name inside a pool: the template's uid, with `.iso` for ISO images as libvirt users expect."""
    return f"{template_uid}.iso" if image_format == "ISO" else template_uid


def label_value(value: str) -> str:
    """`value` as a label value: one that is too long becomes prefix + hash."""
    if len(value) <= NAME_LIMIT:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:10]
    return f"{value[: NAME_LIMIT - 11].rstrip('-._')}-{digest}"
