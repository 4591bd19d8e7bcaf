"""Sources of bytes by protocol. The engine makes one only with `create`."""

import dataclasses
from collections.abc import Callable

from directdownload.download.errors import RequestError
from directdownload.download.sources import http, nfs, policy
from directdownload.download.sources.base import Ask, Source, SourceOptions, Stream, read_head
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason

__all__ = ["Ask", "Source", "SourceOptions", "Stream", "create", "read_head"]


def create(text: str, options: SourceOptions) -> Source:
    """The source for a URL; RequestError if it is not valid, not supported or not allowed."""
    url = dataclasses.replace(Url.parse(text), named_by=options.named_by)
    kinds: dict[str, Callable[[Url, SourceOptions], Source]] = {
        "http": http.HTTPSource,
        "https": http.HTTPSource,
        "nfs": nfs.NFSSource,
    }
    if url.scheme not in kinds:
        raise RequestError(
            Reason.UNSUPPORTED_PROTOCOL,
            f"{url.introduced}: protocol {url.scheme} is not supported; use an http, https or nfs URL",
        )
    policy.check_url(url, options.policy)
    return kinds[url.scheme](url, options)
