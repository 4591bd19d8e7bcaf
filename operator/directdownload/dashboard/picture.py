"""Everything that the pages know, at one moment: the objects that the user may read, and sums over them that are kept
up to date with each change. No I/O; views read it, `watches` fills it.

A page of a rollout reads the copies of one template, one of a host those of one host; nothing reads all of them.
"""

import collections
import datetime
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from directdownload.cluster import kinds
from directdownload.cluster.reflector import Projected, Store
from directdownload.dashboard import history
from directdownload.dashboard.copies import Copy, Tally
from directdownload.dashboard.feeds import Feed
from directdownload.planning import observed
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.zone import Zone

T = TypeVar("T", bound=Projected)
#: Nothing of the peers' keys and certificates is shown, and they are the larger part of a Host.
_NOT_KEPT = ("peer", "peerRequest")
UNKNOWN_STATE = "Unknown"
_views = observed.Views()


def project_host(document: Mapping[str, Any]) -> observed.ObservedHost:
    status = {name: value for name, value in (document.get("status") or {}).items() if name not in _NOT_KEPT}
    return _views.host({**document, "status": status})


class Picture:
    """`zone`: only what belongs to it; None: everything. `version` rises with each change of anything."""

    def __init__(self, zone: str | None = None) -> None:
        self.zone = zone
        self.version = 0
        self.zones: Store[Zone] = Store()
        self.hosts: Store[observed.ObservedHost] = Store()
        self.pools: Store[StoragePool] = Store()
        self.templates: Store[Template] = Store()
        self.deployments: Store[TemplateDeployment] = Store()
        self.certificates: Store[DirectDownloadCertificate] = Store()
        self.copies: Store[Copy] = Store()
        self.feeds = {resource: Feed(resource) for resource in kinds.OURS}
        self.history = history.History()
        #: by zone and state
        self.host_states: collections.Counter[tuple[str, str]] = collections.Counter()
        #: labels of hosts: how many have each value, by key
        self.labels: dict[str, collections.Counter[str]] = {}
        #: by template and zone
        self.tallies: dict[tuple[str, str], Tally] = {}
        self._of_template: dict[str, dict[str, Copy]] = {}
        self._of_host: dict[str, dict[str, Copy]] = {}
        for store in self.stores.values():
            store.subscribe(self._changed)
            store.unreadable.subscribe(self._changed)
        self.hosts.subscribe(self._host)
        self.copies.subscribe(self._copy)

    @property
    def stores(self) -> dict[kinds.Resource, Store[Any]]:
        return {
            kinds.ZONES: self.zones,
            kinds.HOSTS: self.hosts,
            kinds.STORAGE_POOLS: self.pools,
            kinds.TEMPLATES: self.templates,
            kinds.TEMPLATE_DEPLOYMENTS: self.deployments,
            kinds.TEMPLATE_PLACEMENTS: self.copies,
            kinds.CERTIFICATES: self.certificates,
        }

    @property
    def all_feeds(self) -> list[Feed]:
        return list(self.feeds.values())

    @property
    def copies_known(self) -> bool:
        """Whether every copy is known, so that counts of them count."""
        return self.feeds[kinds.TEMPLATE_PLACEMENTS].complete

    @property
    def hosts_by_name(self) -> Mapping[str, observed.ObservedHost]:
        return self.hosts.by_key

    def rollouts(self) -> Iterator[TemplateDeployment]:
        """The deployments of the zone that is shown."""
        return (each for each in self.deployments if self.zone in (None, each.spec.zone))

    def copies_of(self, template: str) -> Mapping[str, Copy]:
        return self._of_template.get(template, {})

    def copies_on(self, host: str) -> Mapping[str, Copy]:
        return self._of_host.get(host, {})

    def tally(self, template: str, zone: str) -> Tally:
        return self.tallies.get((template, zone)) or Tally()

    def clear(self, resource: kinds.Resource) -> None:
        """Forgets all objects of a kind that may not be shown any more. They may come back as they were."""
        store = self.stores[resource]
        for each in (store, store.unreadable):
            for item in list(each):
                each.forget(item.key, item.resource_version)
        store.rewind()

    def touch(self) -> None:
        """Something other than an object has changed: a connection, a sample of the history."""
        self.version += 1

    def sample(self, now: datetime.datetime, progress: Mapping[str, tuple[int, int]]) -> None:
        """Remembers how far each rollout is: `progress` is ready and desired copies by deployment."""
        if self.history.sample(now, progress):
            self.touch()

    def _changed(self, _key: str, _old: object, _new: object) -> None:
        self.version += 1

    def _host(self, _key: str, old: observed.ObservedHost | None, new: observed.ObservedHost | None) -> None:
        for host, number in ((old, -1), (new, 1)):
            if host is not None:
                self.host_states[host.spec.zone, str(host.status.state or UNKNOWN_STATE)] += number
                for label, value in host.metadata.labels.items():
                    values = self.labels.setdefault(label, collections.Counter())
                    values[value] += number
                    if not values[value]:
                        del values[value]

    def _copy(self, key: str, old: Copy | None, new: Copy | None) -> None:
        if old is not None:
            self._tally_of(old).add(old, -1)
            _drop(self._of_template, old.template, key)
            _drop(self._of_host, old.host, key)
        if new is not None:
            self._tally_of(new).add(new)
            self._of_template.setdefault(new.template, {})[key] = new
            self._of_host.setdefault(new.host, {})[key] = new

    def _tally_of(self, copy: Copy) -> Tally:
        return self.tallies.setdefault((copy.template, copy.zone), Tally())


def _drop(index: dict[str, dict[str, Copy]], name: str, key: str) -> None:
    held = index[name]
    del held[key]
    if not held:
        del index[name]
