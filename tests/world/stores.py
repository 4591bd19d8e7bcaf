"""Keystores, their passwords and certificates for the tests of the agent: real files, made by the product's library."""

import functools
import pathlib
from typing import Any

from tests.world import certificates

from directdownload.keystore import store
from directdownload.keystore.entries import Changes, Entry, StoreType
from directdownload.resources.pem import Certificate

PASSWORD = "a password of 1 store"


@functools.cache
def certificate(name: str) -> Certificate:
    """A self-signed one of that name, the same for each call."""
    return Certificate(certificates.der(name))


class HostFiles:
    """The directory of a host's agent: `cloud.jks` and `agent.properties`, as CloudStack has them."""

    def __init__(self, directory: pathlib.Path, password: str = PASSWORD) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.path = directory / "cloud.jks"
        self.properties = directory / "agent.properties"
        self.password = ""
        self.set_password(password)

    @property
    def spec(self) -> dict[str, Any]:
        """`Host.spec.keystore`"""
        return {"path": str(self.path), "passwordFrom": {"agentProperties": str(self.properties)}}

    def set_password(self, password: str) -> None:
        self.password = password
        written = self.directory / "agent.properties.new"
        written.write_text(f"guid=1\nkeystore.passphrase={password}\n")
        written.rename(self.properties)

    def put(self, store_type: StoreType = "JKS", **trusted: Certificate) -> None:
        """As another tool does; makes the store if there is none. `_` in a name stands for `-` in the alias."""
        changes = Changes({name.replace("_", "-"): each.der for name, each in trusted.items()})
        store.update(str(self.path), self.password, lambda _: changes, create=store_type)

    def remove(self, *aliases: str) -> None:
        store.update(str(self.path), self.password, lambda _: Changes(remove=aliases), create=None)

    def entries(self) -> dict[str, Entry]:
        return dict(store.read(str(self.path), self.password).entries)

    def fingerprints(self) -> dict[str, str | None]:
        """By alias; none when there is no store."""
        if not self.path.exists():
            return {}
        return {alias: entry.fingerprint_sha256 for alias, entry in self.entries().items()}
