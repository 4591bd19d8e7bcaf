"""JKS stores: what pyjks alone would lose or trust too much."""

import datetime
import hashlib
import pathlib
import struct

import pytest
from tests.unit.keystore import support
from tests.unit.keystore.support import NOW, PASSWORD, StoreReader

from directdownload.keystore import formats
from directdownload.keystore.entries import Changes, Entry, EntryKind, Keystore
from directdownload.keystore.errors import PasswordWrongError, UnreadableError

ONE, TWO = support.certificate("one"), support.certificate("two")
DATE = 1_767_225_600_123


def load(data: bytes) -> Keystore:
    return formats.load(data, PASSWORD, name="store")


def entries(data: bytes) -> dict[str, Entry]:
    return dict(load(data).entries)


def text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def blob(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def trusted(alias: bytes, certificate: bytes, date: int = DATE, kind: bytes = b"X.509") -> bytes:
    return struct.pack(">I", 2) + text(alias) + struct.pack(">Q", date) + text(kind) + blob(certificate)


def key(alias: bytes, encrypted: bytes, *chain: bytes, count: int | None = None) -> bytes:
    size = struct.pack(">I", len(chain) if count is None else count)
    certificates = b"".join(text(b"X.509") + blob(certificate) for certificate in chain)
    return struct.pack(">I", 1) + text(alias) + struct.pack(">Q", DATE) + blob(encrypted) + size + certificates


def store(*found: bytes, count: int | None = None, version: int = 2, password: str = PASSWORD) -> bytes:
    """As JavaKeyStore.engineStore writes it."""
    head = struct.pack(">III", 0xFEEDFEED, version, len(found) if count is None else count)
    body = head + b"".join(found)
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()  # noqa: S324


def test_all_that_is_not_changed_stays_byte_for_byte_and_in_order() -> None:
    found = [
        key(b"own", b"encrypted with another password", ONE, TWO),
        trusted(b"z", ONE),
        trusted("Ünïcode €".encode(), TWO, date=0),
        key(b"no chain", b"x"),
        trusted(b"other type", TWO, kind=b"X509"),
        trusted(b"UPPER", ONE, date=(1 << 64) - 1),
    ]
    milliseconds = int(NOW.timestamp() * 1000)
    after = load(store(*found)).changed(Changes({"new": TWO, "z": TWO}), NOW)
    assert after == store(found[0], trusted(b"z", TWO, milliseconds), *found[2:], trusted(b"new", TWO, milliseconds))
    assert load(after).changed(Changes({}, ["new", "z"]), NOW) == store(found[0], *found[2:])


def test_entries_have_their_dates() -> None:
    found = entries(store(trusted(b"a", ONE), trusted(b"far", ONE, date=(1 << 63)), key(b"key", b"x", TWO)))
    date = datetime.datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=datetime.UTC)
    assert [(entry.kind, entry.certificate, entry.created) for entry in found.values()] == [
        (EntryKind.TRUSTED_CERTIFICATE, ONE, date),
        (EntryKind.TRUSTED_CERTIFICATE, ONE, None),
        (EntryKind.PRIVATE_KEY, TWO, date),
    ]


def test_an_alias_with_upper_case_letters_is_none_as_for_java(reader: StoreReader, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(store(trusted(b"Web", ONE), trusted(b"web", TWO), trusted(b"Other", ONE)))
    java = reader.entries(path)
    assert {alias for alias, entry in java.items() if entry.kind != "none"} >= {"web"}
    assert entries(path.read_bytes()).keys() == {"web"}
    after = load(path.read_bytes()).changed(Changes({"other": TWO}, ["web"]), NOW)
    milliseconds = int(NOW.timestamp() * 1000)
    assert after == store(trusted(b"Web", ONE), trusted(b"Other", ONE), trusted(b"other", TWO, milliseconds))


@pytest.mark.parametrize("alias", ["schlüssel €", "🔑 key", "nul\0nul", "x" * 65535])
def test_aliases_are_those_of_java(alias: str, reader: StoreReader, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(formats.empty("JKS", PASSWORD).changed(Changes({alias: ONE}), NOW))
    assert reader.entries(path).keys() == {alias} == entries(path.read_bytes()).keys()


@pytest.mark.parametrize("password", ["pässwörd €", "🔑🔑🔑", "x" * 100])
def test_passwords_are_those_of_java(password: str, reader: StoreReader, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(formats.empty("JKS", password).changed(Changes({"one": ONE}), NOW))
    java = reader.entries(path, password)
    assert (java["one"].chain, java["one"].created) == ((ONE,), NOW)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (store(count=(1 << 32) - 1), "more than 5000 entries"),
        (store(count=5_000), "cut off"),
        (store(trusted(b"a", ONE), count=2), "damaged or cut off"),
        (store(version=3), "a JKS store of version 3, expected 2"),
        (store(b"\0\0\0\3" + trusted(b"a", ONE)[4:]), "damaged or cut off$"),
        (store(key(b"a", b"", ONE)), "a private key that is empty"),
        (store(key(b"a", b"x", count=(1 << 32) - 1)), "more than 32 certificates"),
        (store(struct.pack(">I", 2) + text(b"a") + struct.pack(">Q", 0) + text(b"X.509") + b"\xff" * 8), "4294967295"),
        (store(trusted(b"\xff", ONE)), "an alias that is not Unicode"),
        (store(trusted(b"\xed\xa0\x80", ONE)), "an alias that is not Unicode"),
        # four bytes, as pyjks would write it: Java cannot read that
        (store(trusted("🔑".encode(), ONE)), "in an encoding that Java does not write"),
    ],
    ids=lambda value: value if isinstance(value, str) else "store",
)
def test_what_is_damaged_or_hostile_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message) as raised:
        load(data)
    assert str(raised.value).startswith("keystore store cannot be read: ")


def test_a_flipped_bit_is_noticed() -> None:
    data = bytearray(store(trusted(b"a", ONE)))
    data[100] ^= 1
    with pytest.raises(PasswordWrongError, match="or was changed without it"):
        load(bytes(data))
