"""What a job says at its end, in the termination message of its pod."""

from directdownload import logs
from directdownload.cluster.objects import PodView
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import JobResult


def read(pod: PodView | None) -> JobResult | None:
    """The result in the termination message; None when there is none that can be read. It is hostile until checked."""
    if pod is None or not pod.termination_message:
        return None
    try:
        result = JobResult.model_validate_json(pod.termination_message)
        if result.digest:
            Checksum.parse(result.digest)
    except ValueError:
        return None
    # The API's integers have 64 bits: a larger one would make every write of the status fail.
    sizes = (result.size_bytes, result.served_bytes, result.virtual_size_bytes)
    if any(size is not None and not 0 <= size < 2**63 for size in sizes):
        return None
    # What goes into a status for people; a job has read foreign bytes, and need not be ours.
    texts = {name: getattr(result, name) for name in ("message", "format", "source", "etag", "media_type")}
    return result.model_copy(update={name: logs.mask(_printable(text)) for name, text in texts.items()})


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
