"""Stores as CloudStack leaves them, and who writes to them. Used by the tests of `store` and of the command line."""

import functools
import pathlib
import tempfile
from collections.abc import Iterable, Mapping

from tests.unit.keystore import support

from directdownload.keystore import formats, store
from directdownload.keystore.entries import Changes, StoreType

TYPES: tuple[StoreType, ...] = ("JKS", "PKCS12")


def make(directory: pathlib.Path, store_type: StoreType = "JKS") -> pathlib.Path:
    """A store of keytool's in `directory`: a private key `cloud`, a trusted certificate `cloudca`."""
    path = directory / "cloud.jks"
    path.write_bytes(_made(store_type))
    return path


@functools.cache
def _made(store_type: StoreType) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "store")
        key = ("-genkeypair", "-alias", "cloud", "-keyalg", "EC", "-dname", "CN=kvm-1", "-storetype", store_type)
        support.jdks()[0].keytool(*key, store=path)
        keytool_import(path, "cloudca")
        return path.read_bytes()


def keytool_import(path: pathlib.Path, alias: str) -> None:
    """The certificate of that name, under that alias."""
    file = path.with_name(f"{alias}.der")
    file.write_bytes(support.certificate(alias))
    try:
        support.jdks()[0].keytool("-importcert", "-alias", alias, "-file", str(file), store=path)
    finally:
        file.unlink()


def keytool_aliases(path: pathlib.Path) -> set[str]:
    listed = support.jdks()[0].keytool("-list", store=path)
    return {
        line.partition(",")[0] for line in listed.splitlines() if line.endswith((", trustedCertEntry, ", "Entry, "))
    }


def written_by_another(path: pathlib.Path, alias: str) -> bytes:
    """The content that another writer, who reads the store now, would write: with one more certificate."""
    return formats.load(path.read_bytes(), support.PASSWORD, name=str(path)).changed(put(alias)({}), support.NOW)


def put(*aliases: str) -> store.Decide:
    """Wants the certificates of these names."""
    return lambda _: Changes(put={alias: support.certificate(alias) for alias in aliases})


def remove(*aliases: str) -> store.Decide:
    return lambda _: Changes(remove=aliases)


def put_all(path: pathlib.Path, aliases: Iterable[str], password: str = support.PASSWORD) -> store.Result:
    return store.update(str(path), password, put(*aliases), create=None)


def aliases(path: pathlib.Path) -> set[str]:
    return set(store.read(str(path), support.PASSWORD).entries)


def beside(path: pathlib.Path) -> set[str]:
    """What else lies in the directory: its name without the store's."""
    return {found.name.replace(path.name, "") for found in path.parent.iterdir() if found != path}


LOCK, BACKUP, RESCUED = "..directdownload.lock", ".directdownload.backup", ".directdownload.rescued"


def state(path: pathlib.Path) -> Mapping[str, object]:
    """All that a writer who does nothing must leave as it is."""
    status = path.stat()
    return {"bytes": path.read_bytes(), "stamp": store.stamp(str(path)), "mode": status.st_mode, "uid": status.st_uid}
