"""Lists of a control plane for those who look many times a second: the API is asked only after a write.

etcd counts all writes. To ask it for their number costs a small part of what one list costs the API server, itself and
the reader, and most looks find nothing new.
"""

import http.client
import json
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

from tests.world.kube import Kube, Object

from directdownload.cluster import kinds

T = TypeVar("T")
#: The key does not exist; each answer has the number of writes. etcd is alone, so it has applied what it acknowledged.
_ASK = json.dumps({"key": "AA==", "count_only": True, "serializable": True})


class Lists:
    """For one thread. `kube` is asked, and the etcd at `etcd_url`, which demands no credentials."""

    def __init__(self, kube: Kube, etcd_url: str) -> None:
        self._kube = kube
        self._etcd = http.client.HTTPConnection(str(urllib.parse.urlsplit(etcd_url).netloc), timeout=120)
        self._writes = ""
        self._items: dict[str, list[Object]] = {}
        self._read: dict[str, list[Any]] = {}

    def look(self) -> None:
        """From now on lists are as they are now, or newer."""
        self._etcd.request("POST", "/v3/kv/range", _ASK)
        writes = json.loads(self._etcd.getresponse().read())["header"]["revision"]
        if writes != self._writes:
            self._writes = writes
            self._items.clear()
            self._read.clear()

    def items(self, kind: kinds.Resource, namespace: str | None = None) -> list[Object]:
        """For reading only."""
        path = kind.path(None, namespace)
        if path not in self._items:
            self._items[path] = list(self._kube.request("GET", path).object()["items"])
        return self._items[path]

    def read(self, kind: kinds.Resource, reader: Callable[[Object], T]) -> list[T]:
        """The items of a kind as `reader`, always the same one, makes them."""
        if kind.plural not in self._read:
            self._read[kind.plural] = [reader(item) for item in self.items(kind)]
        return self._read[kind.plural]

    def close(self) -> None:
        self._etcd.close()
