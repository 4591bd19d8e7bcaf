"""The agent's own entries by keystore, and the certificates taken back from the host: `Ownership` by path, and `Taken`.

Both types are from `planning.keystores`; the state directory keeps them. `sync` saves before it writes a keystore.
Without the file, entries of deleted certificates are unknown, and published certificates are adopted. So a damaged file
counts as empty. A file that cannot be read may be readable later, and is not overwritten.
"""

import dataclasses
import logging
import os

import pydantic

from directdownload.hostfiles import writing
from directdownload.planning import keystores
from directdownload.resources.host import PasswordSource
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

FILE_NAME = "keystores.json"


class _Document(Document):
    """Ignores fields of a newer version, so that they do not void the ledger."""

    model_config = pydantic.ConfigDict(extra="ignore")


class _Entry(_Document):
    certificate: str
    fingerprints: frozenset[str]
    placed: bool = False
    #: absent unless true: version 0.1.0 discards a ledger with an unknown field
    adopted: bool | None = None


class _Store(_Document):
    password_from: PasswordSource
    entries: dict[str, _Entry]


class _Taken(_Document):
    alias: str
    fingerprint: str
    certificate: str


class _File(_Document):
    version: int = 1
    #: by path
    stores: dict[str, _Store] = pydantic.Field(default_factory=dict)
    #: oldest first; an older file has none
    taken: tuple[_Taken, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """The ledger of one keystore, and the source of its password."""

    password_from: PasswordSource
    ledger: keystores.Ownership


class Ownership:
    """`stores` (by path) and `taken` equal the file once `known` is true. Methods raise OSError."""

    def __init__(self, state_directory: str) -> None:
        self.path = os.path.join(state_directory, FILE_NAME)
        self.stores: dict[str, Store] = {}
        self.taken: keystores.Taken = {}
        #: whether `read` has succeeded
        self.known = False

    def read(self) -> None:
        """Reads the file once; nobody else writes it."""
        if self.known:
            return
        content = self._content()
        self.stores = {path: _store(store) for path, store in content.stores.items()}
        self.taken = {(each.alias, each.fingerprint): each.certificate for each in content.taken}
        self.known = True

    def of(self, path: str) -> keystores.Ownership:
        return self.stores[path].ledger if path in self.stores else {}

    def save(self, path: str, password_from: PasswordSource, ledger: keystores.Ownership) -> None:
        """Saves the ledger of the keystore at `path`, durably on return; removes an empty one."""
        stores = {name: store for name, store in self.stores.items() if name != path}
        if ledger:
            stores[path] = Store(password_from, dict(ledger))
        self._write(stores, self.taken)

    def take(self, taken: keystores.Taken) -> None:
        """Replaces `taken`, durably on return."""
        self._write(self.stores, taken)

    def _write(self, stores: dict[str, Store], taken: keystores.Taken) -> None:
        if (stores, taken) == (self.stores, self.taken):
            return
        content = _File(
            stores={path: _document(store) for path, store in stores.items()},
            taken=tuple(_Taken(alias=key[0], fingerprint=key[1], certificate=name) for key, name in taken.items()),
        )
        writing.write_atomically(self.path, content.model_dump_json(exclude_none=True).encode())
        writing.sync_directory(os.path.dirname(self.path))
        self.stores, self.taken = stores, taken

    def _content(self) -> _File:
        try:
            with open(self.path, "rb") as file:
                content = _File.model_validate_json(file.read())
        except FileNotFoundError:
            return _File()
        except pydantic.ValidationError:
            logger.warning("%s is damaged, starting with an empty ledger", self.path)
            return _File()
        if content.version == 1:
            return content
        logger.warning("%s has the unknown version %d, starting with an empty ledger", self.path, content.version)
        return _File()


def _document(store: Store) -> _Store:
    entries = {
        alias: _Entry(
            certificate=owned.certificate,
            fingerprints=owned.fingerprints,
            placed=owned.placed,
            adopted=owned.adopted or None,
        )
        for alias, owned in store.ledger.items()
    }
    return _Store(password_from=store.password_from, entries=entries)


def _store(document: _Store) -> Store:
    ledger = {
        alias: keystores.Owned(entry.certificate, entry.fingerprints, entry.placed, bool(entry.adopted))
        for alias, entry in document.entries.items()
    }
    return Store(document.password_from, ledger)
