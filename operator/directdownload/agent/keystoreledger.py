"""Which entries of which keystore are ours, kept in the state directory: `planning.keystores.Ledger` by path.

Used by `keystoresync`, which saves before it writes a keystore. Losing it loses only the knowledge of entries whose
certificates are gone, too: what is still published is adopted. So whatever is unreadable counts as empty.
"""

import dataclasses
import logging
import os

import pydantic

from directdownload.download import files
from directdownload.planning import keystores
from directdownload.resources.host import PasswordSource
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

FILE_NAME = "keystores.json"


class _Entry(Document):
    certificate: str
    fingerprints: frozenset[str]
    placed: bool = False


class _Store(Document):
    password_from: PasswordSource
    entries: dict[str, _Entry]


class _File(Document):
    version: int = 1
    #: by path
    stores: dict[str, _Store] = pydantic.Field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """The ledger of one keystore, and how to open that."""

    password_from: PasswordSource
    ledger: keystores.Ledger


class KeystoreLedger:
    """`stores` by path is what is on disk."""

    def __init__(self, state_directory: str) -> None:
        self.path = os.path.join(state_directory, FILE_NAME)
        self.stores: dict[str, Store] = self._load()

    def of(self, path: str) -> keystores.Ledger:
        return self.stores[path].ledger if path in self.stores else {}

    def save(self, path: str, password_from: PasswordSource, ledger: keystores.Ledger) -> None:
        """The ledger of the keystore at `path`, durably on return; an empty one is forgotten. Raises OSError."""
        stores = {name: store for name, store in self.stores.items() if name != path}
        if ledger:
            stores[path] = Store(password_from, dict(ledger))
        if stores == self.stores:
            return
        files.write_atomically(
            self.path, _File(stores={n: _document(s) for n, s in stores.items()}).model_dump_json().encode()
        )
        files.sync_directory(os.path.dirname(self.path))
        self.stores = stores

    def _load(self) -> dict[str, Store]:
        try:
            with open(self.path, "rb") as file:
                content = _File.model_validate_json(file.read())
        except FileNotFoundError:
            return {}
        except (OSError, pydantic.ValidationError) as error:
            logger.warning("Cannot read %s, beginning anew: %s", self.path, type(error).__name__)
            return {}
        return {path: _store(store) for path, store in content.stores.items()} if content.version == 1 else {}


def _document(store: Store) -> _Store:
    entries = {
        alias: _Entry(certificate=owned.certificate, fingerprints=owned.fingerprints, placed=owned.placed)
        for alias, owned in store.ledger.items()
    }
    return _Store(password_from=store.password_from, entries=entries)


def _store(document: _Store) -> Store:
    ledger = {
        alias: keystores.Owned(entry.certificate, entry.fingerprints, entry.placed)
        for alias, entry in document.entries.items()
    }
    return Store(document.password_from, ledger)
