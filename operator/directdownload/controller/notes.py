"""What the controller remembers of an object beside what the API has of it, for as long as the object exists.

A reconcile may outlive its object: what it notes after a request must not stay for ever.
"""

import collections
from typing import Any, TypeVar

from directdownload.cluster.reflector import Projected, Store

V = TypeVar("V")


class Notes(collections.UserDict[str, V]):
    """By uid. A value of an object that no store has (any more) is not kept."""

    def __init__(self, *stores: Store[Any]) -> None:
        super().__init__()
        self._existing: set[str] = set()
        for store in stores:
            store.subscribe(self._changed)

    def __setitem__(self, uid: str, value: V) -> None:
        if uid in self._existing:
            super().__setitem__(uid, value)

    def _changed(self, _: str, old: Projected | None, new: Projected | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._existing.discard(old.uid)
            self.pop(old.uid, None)
        if new is not None:
            self._existing.add(new.uid)
