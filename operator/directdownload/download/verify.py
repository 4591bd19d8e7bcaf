"""The check of a published file: hash it again and compare.

Called by `job`. It reads at idle priority and past the page cache: a check is not urgent, and the cache is for the
virtual machines.
"""

import ctypes
import os
import platform
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from directdownload.download import lock
from directdownload.download.checksum import expected_checksums, first_mismatch
from directdownload.download.errors import DAMAGED, storage_error
from directdownload.download.guard import Guard
from directdownload.download.store import publish, seal
from directdownload.download.store.place import Place
from directdownload.download.store.record import Record, read_record
from directdownload.hostfiles import reading
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

if TYPE_CHECKING:
    from directdownload.download.peers.digests import PieceHasher

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13


def verify(document: JobDocument, place: Place, guard: Guard) -> JobResult:
    """Verified, Missing or Altered. Raises DownloadError if that cannot be determined.

    A file that can no longer be read counts as Altered, as a fresh copy is the remedy.
    """
    _be_idle()
    place.prepare()
    recorded = read_record(place.record)
    vouching = _vouching(document, place, recorded)
    expected = _expected(document, vouching)
    try:
        state = os.lstat(place.final)
        if not stat.S_ISREG(state.st_mode):
            return _altered(place, recorded, guard, f"is {publish.kind(state)}")
        descriptor = reading.open_any(place.final)
        try:
            state, digests, pieces = _hash(document, descriptor, expected, guard)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return JobResult(reason=Reason.MISSING, message=f"{place.final} does not exist", path=place.final)
    except OSError as error:
        if error.errno in DAMAGED:
            return _altered(place, recorded, guard, f"cannot be read: {error.strerror}")
        raise storage_error(error, place.final, "read") from error
    digest = str(digests[Algorithm.SHA256])
    mismatch = first_mismatch(digests, expected)
    if mismatch is not None or not expected:
        what = (
            f"expected {mismatch[0]}, found {mismatch[1]}"
            if mismatch
            else "no checksum or record says what it should hold"
        )
        result = _altered(place, recorded, guard, what)
        return result.model_copy(update={"size_bytes": state.st_size, "digest": digest})
    record = vouching
    if record is None or record.digest != digest:
        record = Record.of(state, path=place.final, digest=digest, checksum=str(expected[0]))
    owner = {"placement": document.placement, "placement_uid": document.placement_uid, "host": document.host}
    renewed = record.verified(state).model_copy(update=owner)
    publish.record_present(place, renewed, state, guard)
    content = _recorded(document, place, state.st_size, digests, pieces) if not renewed.served_digest else ""
    return JobResult(
        reason=Reason.VERIFIED,
        message="the file is as expected",
        path=place.final,
        size_bytes=state.st_size,
        served_bytes=renewed.served_bytes,
        digest=renewed.served_digest or digest,
        published_digest=digest,
        format=renewed.format or document.format,
        virtual_size_bytes=renewed.virtual_size_bytes,
        revision=renewed.revision,
        content=content,
    )


def _hash(
    document: JobDocument, descriptor: int, expected: Sequence[Checksum], guard: Guard
) -> tuple[os.stat_result, dict[Algorithm, Checksum], "PieceHasher | None"]:
    """As `publish.hash_open`; with a hasher that has gone over the pieces, if other hosts may get them."""
    if document.peers is None:
        return *publish.hash_open(descriptor, expected, guard), None
    from directdownload.download.peers.digests import PieceHasher

    hashers = []

    def new_hasher(algorithms: Iterable[Algorithm]) -> PieceHasher:
        hashers.append(PieceHasher(algorithms, peers.piece_bytes))
        return hashers[-1]

    peers = document.peers
    # the content is by the Template's checksum, and the file may be known by another one
    wanted = (*expected, *expected_checksums(document.checksum, "", SourcePolicy()))
    state, digests = publish.hash_open(descriptor, wanted, guard, new_hasher)
    return state, digests, hashers[-1]


def _recorded(
    document: JobDocument,
    place: Place,
    size_bytes: int,
    digests: dict[Algorithm, Checksum],
    pieces: "PieceHasher | None",
) -> str:
    """Write the piece log of a file that has none, for other hosts; return the content of which all is recorded."""
    if document.peers is None or pieces is None:
        return ""
    from directdownload.download.peers import logwriter, shared

    ours = shared.of(document, document.peers)
    checksums = expected_checksums(document.checksum, "", SourcePolicy())
    if ours is None or not ours.is_seed or first_mismatch(digests, checksums) is not None:
        return ""
    warrant, rest = ours.terms.warrant, pieces.take_all()
    complete = logwriter.write_complete(place.pieces, ours.header, warrant, size_bytes, rest)
    return ours.terms.content if complete else ""


def _vouching(document: JobDocument, place: Place, recorded: Record | None) -> Record | None:
    """This host's seal; or the pool's record, if it is the one that was reported to the controller.

    Version 0.1.0 reported no digest of an unpacked file to the controller, but the record's revision, a hash of it.
    """
    sealed = seal.read(place.seal, place.final)
    if sealed is not None:
        return sealed.record()
    told = recorded is not None and document.published_revision and recorded.revision == document.published_revision
    return recorded if told else None


def _expected(document: JobDocument, vouching: Record | None) -> tuple[Checksum, ...]:
    """The expected checksums of the file; empty if none are known."""
    served = expected_checksums(document.checksum, document.expected_digest, SourcePolicy())
    if document.published_digest:
        return expected_checksums(document.published_digest, "", SourcePolicy())
    if vouching is None:
        return served
    if served:
        return tuple(vouching.wanted(served))
    try:
        return (Checksum.parse(vouching.digest),)
    except ValueError:
        return ()


def _altered(place: Place, record: Record | None, guard: Guard, what: str) -> JobResult:
    """Keep the record of the published content, matching no present file; remove the seal."""
    with lock.section(place.lock, guard):
        try:
            seal.drop(place.seal)
        except OSError as error:
            raise storage_error(error, place.seal, "remove") from error
        if record is not None and read_record(place.record) == record:
            publish.write_record(place, record.distrusted())
    return JobResult(reason=Reason.ALTERED, message=f"{place.final}: {what}", path=place.final)


def _be_idle() -> None:
    """Use only idle disk time. A failure does not matter."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
