"""Sources of bytes by protocol. `create` is the only way that the engine makes one."""

from directdownload.download import policy
from directdownload.download.errors import RequestError
from directdownload.download.sources import http
from directdownload.download.sources.base import Ask, Source, SourceOptions, Stream
from directdownload.download.urls import Url
from directdownload.resources.reasons import Reason

__all__ = ["Ask", "Source", "SourceOptions", "Stream", "create"]

_METALINK_SUFFIXES = (".metalink", ".meta4")


def create(text: str, options: SourceOptions) -> Source:
    """The source for a URL; RequestError if it is not valid, not supported or not allowed."""
    url = Url.parse(text)
    path = url.target.partition("?")[0].lower()
    # CloudStack's rule: a metalink is one by its name, whatever the scheme
    kind = "metalink" if path.endswith(_METALINK_SUFFIXES) else url.scheme
    if kind not in ("http", "https"):
        raise RequestError(
            Reason.UNSUPPORTED_PROTOCOL, f"{url}: {kind} is not supported; supported are URLs of http and https"
        )
    policy.check_url(url, options.policy)
    return http.HTTPSource(url, options)
