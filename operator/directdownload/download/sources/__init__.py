"""Sources of bytes by protocol. The engine makes one only with `create`."""

import dataclasses

from directdownload.download.errors import RequestError
from directdownload.download.sources import http, policy
from directdownload.download.sources.base import Ask, Source, SourceOptions, Stream, read_head
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason
from directdownload.resources.urls import DEFAULT_PORTS

__all__ = ["Ask", "Source", "SourceOptions", "Stream", "create", "read_head"]


def create(text: str, options: SourceOptions) -> Source:
    """The source for a URL; RequestError if it is not valid, not supported or not allowed."""
    url = dataclasses.replace(Url.parse(text), named_by=options.named_by)
    if url.scheme not in DEFAULT_PORTS:
        raise RequestError(
            Reason.UNSUPPORTED_PROTOCOL,
            f"{url.introduced}: protocol {url.scheme} is not supported; use an http, https or nfs URL",
        )
    policy.check_url(url, options.policy)
    if url.scheme != "nfs":
        return http.HTTPSource(url, options)
    # only then, as everything that is loaded at a protocol's first use: a start pays for what it needs
    from directdownload.download.sources import nfs

    return nfs.NFSSource(url, options)
