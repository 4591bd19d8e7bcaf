"""A job's result in its termination message, read as what it is: foreign bytes. Pure.

Called by `world`. A job has read bytes from a server, and root on its host can write in its name.
"""

import datetime

from directdownload.observe import logs
from directdownload.resources import quantities
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import JobResult

#: The kubelet's limit for one container (`MaxContainerTerminationMessageLength`); a job of ours leaves less.
_LIMIT_BYTES = 4096


def read(message: str | None) -> JobResult | None:
    """The result in `message`; None if there is none that can be read and that a status could hold."""
    if not message or len(message.encode()) > _LIMIT_BYTES:
        return None
    try:
        result = JobResult.model_validate_json(message)
        for digest in filter(None, (result.digest, result.published_digest)):
            Checksum.parse(digest)
        # OverflowError: an offset that leads to a year out of range.
        verified = result.verified_time.astimezone(datetime.UTC) if result.verified_time is not None else None
    except (ValueError, OverflowError):
        return None
    # A larger one would make every write of the status fail.
    sizes = (
        *(result.size_bytes, result.served_bytes, result.virtual_size_bytes),
        *(result.origin_bytes, result.peer_bytes),
    )
    if any(size is not None and not 0 <= size <= quantities.LARGEST_INTEGER for size in sizes):
        return None
    # The text in a status is for people; a job has read foreign bytes, and need not be ours.
    texts = {name: getattr(result, name) for name in ("message", "format", "source", "etag", "media_type", "bad_host")}
    masked = {name: logs.mask(_printable(text)) for name, text in texts.items()}
    return result.model_copy(update={**masked, "verified_time": verified})


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
