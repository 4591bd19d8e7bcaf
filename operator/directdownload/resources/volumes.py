"""The words between `directdownload csi` and the agent of its host, over a unix socket that only root can open.

The plugin mounts, and knows nothing of the cluster; the agent knows it, and mounts nothing. One request per connection:
the plugin writes a request as one line of JSON, and the agent an answer. A plugin that closes the connection no longer
waits. Neither imports pydantic for this: the plugin stays small.
"""

import dataclasses
import json
from typing import Any, Self, TypeVar

#: A line is at most this long. The longest is `Mounted`, with some hundred bytes per volume.
LINE_BYTES = 2**20
#: How often the plugin repeats which volumes are mounted, so that an agent that starts anew knows.
MOUNTED_SECONDS = 10.0


_T = TypeVar("_T")


class MalformedError(ValueError):
    """A line that is no request or answer of this protocol."""


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """A pod needs a volume. `template` is `name` or `namespace/name`, `namespace` that of the pod.

    The first request of a volume is answered as soon as it is known how things stand, later ones once the copy is there
    or refused, or after `hold_seconds`.
    """

    volume: str
    namespace: str
    pod: str
    template: str
    hold_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Unpublish:
    """A volume is unmounted, or its pod no longer needs it. The answer is empty."""

    volume: str


@dataclasses.dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that is mounted on this host, as its mount says."""

    volume: str
    namespace: str
    template: str
    uid: str


@dataclasses.dataclass(frozen=True, slots=True)
class Mounted:
    """All volumes that are mounted now. The answer is empty."""

    volumes: tuple[MountedVolume, ...]


Request = Publish | Unpublish | Mounted
_REQUESTS: dict[str, type[Publish | Unpublish | Mounted]] = {
    "publish": Publish,
    "unpublish": Unpublish,
    "mounted": Mounted,
}


#: The states of an answer: with `path` and `uid`, for now without, and for good, with `reason` and `message`.
READY, WAITING, REFUSED = "Ready", "Waiting", "Refused"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """To `Publish`: `state` is READY, WAITING or REFUSED."""

    state: str = ""
    path: str = ""
    uid: str = ""
    reason: str = ""
    message: str = ""

    def line(self) -> bytes:
        return _line(dataclasses.asdict(self))

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Raises MalformedError."""
        return _made(cls, _object(line))


def request_line(request: Request) -> bytes:
    name = next(name for name, kind in _REQUESTS.items() if isinstance(request, kind))
    return _line({name: dataclasses.asdict(request)})


def read_request(line: bytes) -> Request:
    """Raises MalformedError."""
    document = _object(line)
    if len(document) != 1 or (kind := _REQUESTS.get(name := next(iter(document)))) is None:
        raise MalformedError(f"expected one of {', '.join(_REQUESTS)}")
    values = document[name]
    if kind is Mounted and isinstance(values, dict) and isinstance(values.get("volumes"), list):
        values = {**values, "volumes": tuple(_made(MountedVolume, each) for each in values["volumes"])}
    return _made(kind, values)


#: By the type of a field: the types of its value.
_TYPES: dict[Any, type | tuple[type, ...]] = {str: str, float: (int, float), tuple[MountedVolume, ...]: tuple}


def _line(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"expected a line of JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedError("expected a JSON object")
    return document


def _made(kind: type[_T], values: Any) -> _T:
    """`values` as a `kind`: all its fields that have no default, no others, each of its type."""
    if not isinstance(values, dict):
        raise MalformedError(f"expected an object for {kind.__name__}")
    fields = {field.name: field.type for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := values.keys() - fields.keys():
        raise MalformedError(f"{kind.__name__}: unknown fields {sorted(unknown)}")
    for name, value in values.items():
        expected = _TYPES[fields[name]]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise MalformedError(f"{kind.__name__}.{name}: not of the expected type")
    try:
        return kind(**values)
    except TypeError as error:
        raise MalformedError(f"{kind.__name__}: {error}") from None
