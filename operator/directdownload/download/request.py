"""What is to be fetched. Made by whoever calls the engine."""

import dataclasses

from directdownload.download import sources
from directdownload.download.place import Place
from directdownload.download.sources.proxy import Proxies
from directdownload.resources.jobs import FileMode, Limits, Policy, Timeouts


@dataclasses.dataclass(frozen=True, slots=True)
class FetchRequest:
    """What to fetch, to where, within which limits. `headers` go to the origin of `url` only."""

    url: str
    place: Place
    mirrors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    checksum: str = ""
    expected_digest: str = ""
    #: empty: whatever it is, kept as it is served
    image_format: str = ""
    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    limits: Limits = dataclasses.field(default_factory=Limits)
    policy: Policy = dataclasses.field(default_factory=Policy)
    trust_bundle: str = ""
    proxies: Proxies = dataclasses.field(default_factory=Proxies)
    reserve: str = "0"
    #: None: the caller's own, by umask
    file: FileMode | None = None
    placement: str = ""
    placement_uid: str = ""
    host: str = ""
    #: foreign bytes meet a process that can open nothing (`sandbox`)
    confined: bool = False

    def source(self, url: str, *, first: bool) -> sources.Source:
        """The source of `url` as the request wants it; RequestError if it is not allowed."""
        options = sources.SourceOptions(
            timeouts=self.timeouts,
            policy=self.policy,
            trust_bundle=self.trust_bundle,
            headers=self.headers if first else (),
            proxies=self.proxies,
        )
        return sources.create(url, options)
