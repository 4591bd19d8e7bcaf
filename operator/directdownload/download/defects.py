"""An error that nobody foresaw: a defect of this program, reported once in the log and as a reason of its own.

Called where a job, or its process for foreign bytes, would otherwise end without a result. The words of such an error
come from anywhere, so the caller hides what nobody else may see; a traceback quotes code, and no values.
"""

import logging
import traceback
from collections.abc import Callable

from directdownload.download.errors import DownloadError
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: Gives a text without its secrets.
Hide = Callable[[str], str]


def report(error: BaseException, hide: Hide) -> DownloadError:
    """Logs `error` with its traceback; returns the failure to end with, which is tried again."""
    # Unlike `str`, this never raises.
    words = hide("unexpected: " + "".join(traceback.format_exception_only(error)).strip())
    trace = hide("".join(traceback.format_exception(error)))
    # Not as `exc_info`, from which the log would format the words anew.
    logger.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, words, (), None, sinfo=trace.rstrip()))
    return DownloadError(Reason.INTERNAL_ERROR, words)
