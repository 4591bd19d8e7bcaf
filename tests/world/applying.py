"""Server-side apply, as `api.FakeApi` does it: an object is its leaves, by their paths.

An item of a list that is a map is one level of a path, by its key; any other list is a leaf.
"""

import copy
from collections.abc import Iterator, Mapping, Set
from typing import Any

Path = tuple[str, ...]
#: `x-kubernetes-list-map-keys` of our definitions, by the field.
_LIST_KEYS = {"conditions": "type", "storage": "pool"}


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif key := _list_key(value, path):
        for inner in value:
            yield from leaves(inner, (*path, inner[key]))
    else:
        yield path


def _list_key(value: Any, path: Path) -> str | None:
    return _LIST_KEYS.get(path[-1]) if path and isinstance(value, list) else None


def at_path(item: Any, path: Path) -> Any:
    """None where there is none."""
    at: Path = ()
    for name in path:
        if key := _list_key(item, at):
            item = next((each for each in item if each[key] == name), None)
        else:
            item = item.get(name) if isinstance(item, Mapping) else None
        at = (*at, name)
    return item


def put_in(item: dict[str, Any], wanted: Mapping[str, Any], path: Path = ()) -> None:
    for name, value in wanted.items():
        here = (*path, name)
        if isinstance(value, Mapping) and value and isinstance(item.get(name), Mapping):
            put_in(item[name], value, here)
        elif (key := _list_key(value, here)) and isinstance(item.get(name), list):
            for each in value:
                old = next((one for one in item[name] if one[key] == each[key]), None)
                if old is None:
                    item[name].append(copy.deepcopy(each))
                else:
                    put_in(old, each, (*here, each[key]))
        else:
            item[name] = copy.deepcopy(value)


def take_out(item: dict[str, Any], path: Path, owned: Set[Path]) -> None:
    """What is empty then goes as well, unless others own it; the key of an item goes with the item."""
    is_key = len(path) > 2 and _LIST_KEYS.get(path[-3]) == path[-1]
    for length in range(len(path) - is_key, 0, -1):
        above, here = path[: length - 1], path[length - 1]
        outer, value = at_path(item, above), at_path(item, path[:length])
        if any(each[:length] == path[:length] for each in owned):
            return
        if outer is None or (length < len(path) and value not in ({}, [], None) and not _is_bare(value, path[:length])):
            return
        if key := _list_key(outer, above):
            outer[:] = [each for each in outer if each[key] != here]
        else:
            outer.pop(here, None)


def _is_bare(value: Any, path: Path) -> bool:
    """An item of a list that is a map, of which nothing but its key is left."""
    key = _LIST_KEYS.get(path[-2]) if len(path) > 1 else None
    return key is not None and isinstance(value, Mapping) and value.keys() <= {key}
