"""Objects of a store by some name that they carry, instead of a walk over all of them."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from directdownload.cluster.reflector import Projected, Store

T = TypeVar("T", bound=Projected)


class Index(Generic[T]):
    """The objects of a store by some name that they carry, kept current by the store's changes."""

    def __init__(self, store: Store[T], name_of: Callable[[T], str]) -> None:
        self._store = store
        self._name_of = name_of
        self._keys: dict[str, dict[str, None]] = {}
        store.subscribe(self._changed)

    def __getitem__(self, name: str) -> Iterator[T]:
        for key in tuple(self._keys.get(name, ())):
            item = self._store.get(key)
            if item is not None:
                yield item

    def count(self, name: str) -> int:
        return len(self._keys.get(name, ()))

    def _changed(self, key: str, old: T | None, new: T | None) -> None:
        before, after = (self._name_of(item) if item is not None else None for item in (old, new))
        if before != after and before is not None:
            self._keys[before].pop(key, None)
            if not self._keys[before]:
                del self._keys[before]
        if after is not None:
            self._keys.setdefault(after, {})[key] = None
