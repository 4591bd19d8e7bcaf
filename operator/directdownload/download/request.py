"""The request of a fetch. The caller of the engine makes it."""

import dataclasses
from typing import TYPE_CHECKING

from directdownload.download import sources
from directdownload.download.sources.proxy import Proxies
from directdownload.download.store.place import Place
from directdownload.download.terms import Limits, PoolFile, SourcePolicy, Timeouts

if TYPE_CHECKING:
    from directdownload.download.peers.shared import Shared


@dataclasses.dataclass(frozen=True, slots=True)
class FetchRequest:
    """The sources, the place and the limits of a fetch. `headers` go to the origin of `url` only."""

    url: str
    place: Place
    timeouts: Timeouts
    limits: Limits
    policy: SourcePolicy
    mirrors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    checksum: str = ""
    expected_digest: str = ""
    #: empty: any format, kept as served
    image_format: str = ""
    trust_bundle: str = ""
    proxies: Proxies = dataclasses.field(default_factory=Proxies)
    reserve: str = "0"
    #: None: the caller's owner, and the mode by umask
    file: PoolFile | None = None
    placement: str = ""
    placement_uid: str = ""
    host: str = ""
    #: handle foreign bytes in a process that can open no files (`sandbox`)
    confined: bool = False
    #: how the file is shared with other hosts; None: it is not
    shared: "Shared | None" = None

    def source(self, url: str, *, first: bool, named_by: str = "") -> sources.Source:
        """The source of `url` with the settings of the request. Raises RequestError if it is not allowed."""
        options = sources.SourceOptions(
            timeouts=self.timeouts,
            policy=self.policy,
            trust_bundle=self.trust_bundle,
            headers=self.headers if first else (),
            proxies=self.proxies,
            named_by=named_by,
        )
        return sources.create(url, options)
