"""The request headers for the origin of a template, from the files of a mounted Secret.

Called by the job. The controller has checked the Secret; the files are checked again, as they go into a request.
"""

import os

from directdownload.download.errors import RequestError
from directdownload.download.settings import Setting
from directdownload.hostfiles import reading
from directdownload.resources import headers
from directdownload.resources.reasons import Reason


def read(directory: str) -> tuple[tuple[str, str], ...]:
    """Name and value of each; none for an empty path. Raises RequestError(SecretForbidden) if one is not a header."""
    if not directory:
        return ()
    found = []
    try:
        # the kubelet keeps its own links and directories beside the keys
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError as error:
        raise RequestError(Reason.SECRET_NOT_FOUND, f"{directory} cannot be read: {error.strerror}") from error
    for name in names:
        # a key is a link to a file of the same Secret
        value = (reading.read_small(os.path.realpath(os.path.join(directory, name))) or b"").strip(b"\r\n")
        try:
            headers.check(name, value)
        except ValueError as error:
            raise RequestError(Reason.SECRET_FORBIDDEN, f"the Secret of {Setting.HEADERS}: {error}") from None
        found.append((name, value.decode("ascii")))
    return tuple(found)
