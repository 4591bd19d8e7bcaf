"""The configuration and the root file system of an image, read from an OCI archive without unpacking it.

`make image` leaves such an archive in `.cluster/images/`; `podman save --format oci-archive` writes one of any image.
Used by `sbom.py` and by the tests of the image. For the layout see image-layout.md and layer.md of
https://github.com/opencontainers/image-spec.
"""

import dataclasses
import json
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

_WHITEOUT = ".wh."


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory or link of the root file system."""

    path: str
    #: permission bits, set-user-id and the like included
    mode: int
    kind: str
    link: str = ""
    #: of a requested file
    content: bytes = b""

    @property
    def is_file(self) -> bool:
        return self.kind == "file"


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    #: sha256:<hex> of the manifest, the image's name in a registry
    digest: str
    #: `config` of the image's configuration: User, Entrypoint, Env, Labels
    config: dict[str, Any]
    created: str
    architecture: str
    #: by absolute path
    entries: dict[str, Entry]

    def text(self, path: str) -> str:
        """The content of a requested file."""
        return self.entries[path].content.decode()

    def resolve(self, path: str) -> Entry | None:
        """The entry at a path with links followed; None if there is none."""
        current, parts = "/", [part for part in path.split("/") if part]
        for _ in range(1000):
            if not parts:
                return self.entries.get(current)
            part = parts.pop(0)
            if part == "..":
                current = current.rpartition("/")[0] or "/"
                continue
            current = f"{current.rstrip('/')}/{part}"
            entry = self.entries.get(current)
            if entry is None:
                return None
            if entry.kind == "link":
                base = "/" if entry.link.startswith("/") else current.rpartition("/")[0]
                parts = [*(p for p in f"{base}/{entry.link}".split("/") if p and p != "."), *parts]
                current = "/"
        return None


def read(path: pathlib.Path, wanted: Callable[[str], bool]) -> Image:
    """The image of an archive with one image; it includes the content of files whose absolute path is `wanted`."""
    with tarfile.open(path) as archive:

        def blob(digest: str) -> Any:
            file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            if file is None:
                raise ValueError(f"{path}: {digest} is no file")
            return file

        index_file = archive.extractfile("index.json")
        if index_file is None:
            raise ValueError(f"{path} is no OCI archive: index.json is no file")
        (described,) = json.load(index_file)["manifests"]
        digest = str(described["digest"])
        manifest = json.load(blob(digest))
        configuration = json.load(blob(manifest["config"]["digest"]))
        entries: dict[str, Entry] = {"/": Entry("/", 0o755, "directory")}
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"])) as members:
                for member in members:
                    _apply(entries, members, member, wanted)
    return Image(
        digest, configuration.get("config", {}), configuration["created"], configuration["architecture"], entries
    )


def _apply(
    entries: dict[str, Entry], members: tarfile.TarFile, member: tarfile.TarInfo, wanted: Callable[[str], bool]
) -> None:
    path, mode = "/" + member.name.removeprefix("./").strip("/"), member.mode & 0o7777
    folder, _, name = path.rpartition("/")
    if name.startswith(_WHITEOUT):
        gone = f"{folder}/{name.removeprefix(_WHITEOUT)}"
        for known in [known for known in entries if known == gone or known.startswith(f"{gone}/")]:
            del entries[known]
        return
    if member.isdir():
        entries[path] = Entry(path, mode, "directory")
    elif member.issym():
        entries[path] = Entry(path, mode, "link", member.linkname)
    elif member.islnk():
        entries[path] = dataclasses.replace(entries["/" + member.linkname.removeprefix("./").strip("/")], path=path)
    elif member.isreg():
        file = members.extractfile(member) if wanted(path) else None
        entries[path] = Entry(path, mode, "file", content=file.read() if file is not None else b"")
    else:
        entries[path] = Entry(path, mode, "device")
