"""Objects of a store by some name that they carry, or by several, instead of a walk over all of them."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from directdownload.cluster.reflector import Projected, Store

T = TypeVar("T", bound=Projected)


class Index(Generic[T]):
    """The objects of a store by the names that they carry, one or several, kept current by the store's changes."""

    def __init__(self, store: Store[T], name_of: Callable[[T], str | frozenset[str]]) -> None:
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
        before, after = self._names(old), self._names(new)
        for name in before - after:
            self._keys[name].pop(key, None)
            if not self._keys[name]:
                del self._keys[name]
        for name in after:
            self._keys.setdefault(name, {})[key] = None

    def _names(self, item: T | None) -> frozenset[str]:
        if item is None:
            return frozenset()
        found = self._name_of(item)
        return frozenset((found,)) if isinstance(found, str) else found
