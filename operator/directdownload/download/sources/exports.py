"""The directory that the source policy allows the file of an nfs URL below.

Called by `policy.check_url` and by the NFS source. Nothing here touches the network.
"""

import functools

from directdownload.download.errors import RequestError
from directdownload.download.settings import Setting
from directdownload.download.sources.urls import Url
from directdownload.download.terms import SourcePolicy
from directdownload.resources.nfsexports import NFSExport
from directdownload.resources.reasons import Reason

_NAMED_LIMIT = 10


def allowed_root(url: Url, policy: SourcePolicy) -> str:
    """The directory above the file of an nfs URL that no symbolic link may lead out of.

    It is the longest of `nfsExports` that contains the file; the root of the server where every export is allowed.
    Raises RequestError(URLNotAllowed).
    """
    names = url.nfs_names
    if policy.nfs_exports is None:
        return "/"
    holding = [export for export in _exports(policy.nfs_exports) if export.holds(url.host, url.port, names)]
    if holding:
        return max(holding, key=lambda export: len(export.names)).path
    missing = NFSExport(url.host, url.port, tuple(names[:-1]))
    allows = ", ".join(policy.nfs_exports[:_NAMED_LIMIT]) or "none"
    raise RequestError(
        Reason.URL_NOT_ALLOWED,
        f"{url.introduced}: this NFS export is not allowed; to allow it, add to {Setting.NFS_EXPORTS} "
        f"the line {missing.quoted()}; allowed so far: {allows}",
    )


@functools.lru_cache(maxsize=16)
def _exports(texts: tuple[str, ...]) -> tuple[NFSExport, ...]:
    try:
        return tuple(NFSExport.parse(text) for text in texts)
    except ValueError as error:
        raise RequestError(Reason.URL_NOT_ALLOWED, f"{Setting.NFS_EXPORTS}: {error}") from None
