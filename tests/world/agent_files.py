"""What the tests of the agent share: a mount namespace of their own, records and journals as jobs leave them."""

import datetime
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from tests.world import checkout

from directdownload.download.store import place, record
from directdownload.download.transfer import journal

HOST = "kvm-1"


def in_namespace(script: str, *arguments: str) -> dict[str, Any]:
    """Runs Python in a private mount namespace (as root, or as root of a user namespace); the JSON that it prints."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    environment = checkout.environment()
    finished = subprocess.run(
        [*unshare, sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    outcome: dict[str, Any] = json.loads(finished.stdout)
    return outcome


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def make_place(pool: pathlib.Path, template: str, host: str = HOST) -> place.Place:
    made = place.Place.in_pool(str(pool), template, template, host)
    made.prepare()
    return made


def write_journal(where: place.Place, placement: str, uid: str, bytes_on_disk: int, **fields: Any) -> journal.Journal:
    """As a download does every few seconds."""
    values: dict[str, Any] = {
        "source": "https://images.example.org/t.qcow2",
        "size_bytes": 1000,
        "started_time": now(),
        "updated_time": now(),
        **fields,
    }
    written = journal.Journal(placement=placement, placement_uid=uid, bytes_on_disk=bytes_on_disk, **values)
    written.write(where.journal)
    return written


def publish(where: place.Place, placement: str, uid: str, content: bytes, **fields: Any) -> record.Record:
    """As a download ends: the record, the file under its final name, no journal."""
    part = pathlib.Path(where.part)
    part.write_bytes(content)
    fields = {"host": part.name.removesuffix(".part").partition(".")[2], **fields}
    known = record.Record.of(part.stat(), path=where.final, digest="sha256:00", checksum="").model_copy(
        update={"placement": placement, "placement_uid": uid, **fields}
    )
    known.write(where.record)
    part.rename(where.final)
    pathlib.Path(where.journal).unlink(missing_ok=True)
    return known
