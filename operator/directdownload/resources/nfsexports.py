"""NFS exports as people write them: `nfs.example.org:/export/templates`, the notation of mount(8).

Called by the source policy of the download engine and by the command line; CEL checks the same in Zones. Pure: no I/O.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from typing import Self

DEFAULT_PORT = 2049
EXAMPLE = "nfs.example.org:/export/templates"
_NOTATION = re.compile(
    r"(?:\[(?P<address6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_](?:[-A-Za-z0-9._]*[A-Za-z0-9_])?))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?:(?P<path>/(?!/)[^\x00-\x1f\x7f]*)",
    re.ASCII,
)


@dataclasses.dataclass(frozen=True, slots=True)
class NFSExport:
    """A directory of one server, with everything below it. `host` as in a parsed URL: lower case, IPv6 compressed and
    without brackets; `names` are those on the way from the server's root, none of them empty, `.` or `..`."""

    host: str
    port: int
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that says what was expected, also for a URL. No percent-encoding. Default port: NFS's."""
        match = _NOTATION.fullmatch(text)
        if match is None:
            raise _invalid(text)
        host, port = match["host"], int(match["port"] or DEFAULT_PORT)
        if host is None:
            try:
                host = str(ipaddress.IPv6Address(match["address6"]))
            except ValueError:
                raise _invalid(text) from None
        names = tuple(name for name in match["path"].split("/") if name)
        if port >= 2**16 or "." in names or ".." in names:
            raise _invalid(text)
        return cls(host.lower(), port, names)

    @property
    def path(self) -> str:
        return "/" + "/".join(self.names)

    def holds(self, host: str, port: int, names: Sequence[str]) -> bool:
        """Whether the file at `names` of a server is below this directory."""
        own = self.names
        return (host, port) == (self.host, self.port) and len(names) > len(own) and tuple(names[: len(own)]) == own

    def quoted(self) -> str:
        """As an entry of a list in YAML: an IPv6 address begins with a bracket, a name may hold anything."""
        text = str(self)
        import json

        return f"- {json.dumps(text, ensure_ascii=not text.isprintable())}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}{'' if self.port == DEFAULT_PORT else f':{self.port}'}:{self.path}"


def _invalid(text: str) -> ValueError:
    return ValueError(
        f"{text[:64]!r} is not an NFS export: expected a host and a directory without . and .., for example {EXAMPLE}"
    )
