"""The NFS server and file of a URL, and the directory that the source policy allows it below.

Called by `policy.check_url` and by the NFS source. Nothing here touches the network.
"""

import functools
import re
import urllib.parse

from directdownload.download.errors import RequestError
from directdownload.download.settings import Setting
from directdownload.download.urls import Url
from directdownload.resources.jobs import Policy
from directdownload.resources.nfsexports import NFSExport
from directdownload.resources.reasons import Reason

#: MNTPATHLEN, RFC 1813, section 5.1.4
_PATH_LIMIT_BYTES = 1024
_NAME_LIMIT_BYTES = 255
_DEPTH_LIMIT = 32
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: useless in the name of an image, and dangerous where a path is passed to a shell
_SHELL = re.compile(r"[;|`\\]|\$\(")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NAMED_LIMIT = 10


def check_nfs_url(url: Url) -> str:
    """The path of an nfs URL, decoded once. Raises RequestError(InvalidURL) if it names no file or is dangerous."""
    encoded = url.target.partition("?")[0]
    if "?" in url.text or "#" in url.text:
        raise _invalid(url, "an nfs URL has no query and no fragment (write ? as %3F and # as %23)")
    if _BAD_ESCAPE.search(encoded):
        raise _invalid(url, "its path has a % that is not followed by two hexadecimal digits")
    try:
        path = urllib.parse.unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise _invalid(url, "its path is not UTF-8") from None
    if re.search("%2f", encoded, re.IGNORECASE):
        raise _invalid(url, "its path has an encoded slash")
    if _CONTROL.search(path):
        raise _invalid(url, "its path has control characters")
    if found := _SHELL.search(path):
        raise _invalid(url, f"its path has {found[0]!r}, which is not allowed")
    names = [name for name in path.split("/") if name]
    if "." in names or ".." in names:
        raise _invalid(url, "its path has . or .. in it")
    if not names or path.endswith("/"):
        raise _invalid(url, "it names no file")
    path = "/" + "/".join(names)
    too_long = len(path.encode()) > _PATH_LIMIT_BYTES or any(len(name.encode()) > _NAME_LIMIT_BYTES for name in names)
    if too_long or len(names) > _DEPTH_LIMIT:
        raise _invalid(
            url,
            f"its path is too long: allowed are {_PATH_LIMIT_BYTES} bytes, {_DEPTH_LIMIT} names and "
            f"{_NAME_LIMIT_BYTES} bytes in each",
        )
    return path


def allowed_root(url: Url, policy: Policy) -> str:
    """The directory above the file of an nfs URL that no symbolic link may lead out of.

    It is the longest of `nfsExports` that contains the file; the root of the server where every export is allowed.
    Raises RequestError(InvalidURL, URLNotAllowed).
    """
    names = check_nfs_url(url).split("/")[1:]
    if policy.nfs_exports is None:
        return "/"
    holding = [export for export in _exports(policy.nfs_exports) if export.holds(url.host, url.port, names)]
    if holding:
        return max(holding, key=lambda export: len(export.names)).path
    missing = NFSExport(url.host, url.port, tuple(names[:-1]))
    allows = ", ".join(policy.nfs_exports[:_NAMED_LIMIT]) or "none"
    raise RequestError(
        Reason.URL_NOT_ALLOWED,
        f"{url}: this NFS export is not allowed; to allow it, add to {Setting.NFS_EXPORTS} "
        f"the line {missing.quoted()}; allowed so far: {allows}",
    )


@functools.lru_cache(maxsize=16)
def _exports(texts: tuple[str, ...]) -> tuple[NFSExport, ...]:
    try:
        return tuple(NFSExport.parse(text) for text in texts)
    except ValueError as error:
        raise RequestError(Reason.URL_NOT_ALLOWED, f"{Setting.NFS_EXPORTS}: {error}") from None


def _invalid(url: Url, problem: str) -> RequestError:
    return RequestError(
        Reason.INVALID_URL,
        f"URL '{url}' is not valid: {problem}; for example nfs://storage.example.org/export/images/debian-13.qcow2",
    )
