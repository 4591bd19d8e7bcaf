"""What holds for keystores of both formats: recognition, passwords, and what a change may and may not do."""

import hashlib

import jks
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from tests.unit.keystore import support
from tests.unit.keystore.support import NOW, PASSWORD

from directdownload.keystore import formats
from directdownload.keystore.entries import SIZE_LIMIT_BYTES, Changes, EntryKind, StoreType
from directdownload.keystore.errors import ForeignEntryError, PasswordWrongError, UnreadableError, WriteError

ONE, TWO = support.certificate("one"), support.certificate("two")
TYPES: list[StoreType] = ["JKS", "PKCS12"]
pytestmark = pytest.mark.parametrize("store_type", TYPES)


def with_key(store_type: StoreType) -> bytes:
    """A store with a private key "own" and a trusted certificate "one"."""
    key, own = support.own().key, support.own().der
    if store_type == "JKS":
        unencrypted = serialization.NoEncryption()
        pkcs8 = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, unencrypted)
        entry = jks.PrivateKeyEntry(
            alias="own", timestamp=1767225600123, cert_chain=[("X.509", own)], pkey_pkcs8=pkcs8, encrypted=None
        )
        data = bytes(jks.KeyStore("jks", {"own": entry}).saves(PASSWORD))
    else:
        encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
        certificate = x509.load_der_x509_certificate(own)
        data = pkcs12.serialize_key_and_certificates(b"Own", key, certificate, None, encryption)
    return formats.load(data, PASSWORD, name="store").changed(Changes({"one": ONE}), NOW)


def test_the_type_is_told_by_the_content(store_type: StoreType) -> None:
    data = formats.empty(store_type, PASSWORD).changed(Changes(), NOW)
    store = formats.load(data, PASSWORD, name="cloud.jks")
    assert (store.type, store.entries) == (store_type, {})


def test_entries_have_kind_certificate_and_fingerprint(store_type: StoreType) -> None:
    entries = formats.load(with_key(store_type), PASSWORD, name="store").entries
    assert {alias: (entry.alias, entry.kind, entry.certificate) for alias, entry in entries.items()} == {
        "own": ("own", EntryKind.PRIVATE_KEY, support.own().der),
        "one": ("one", EntryKind.TRUSTED_CERTIFICATE, ONE),
    }
    assert entries["one"].fingerprint_sha256 == hashlib.sha256(ONE).digest().hex(":").upper()


def test_certificates_are_put_replaced_and_removed(store_type: StoreType) -> None:
    data = formats.empty(store_type, PASSWORD).changed(Changes({"a": ONE, "b": ONE, "c": ONE}), NOW)
    changes = Changes({"b": TWO, "d": TWO, "": TWO}, ["a", "never"])
    data = formats.load(data, PASSWORD, name="store").changed(changes, NOW)
    entries = formats.load(data, PASSWORD, name="store").entries
    assert {alias: entry.certificate for alias, entry in entries.items()} == {"b": TWO, "c": ONE, "d": TWO, "": TWO}


def test_what_changes_nothing_gives_the_same_bytes(store_type: StoreType) -> None:
    data = with_key(store_type) + b"a newline after it\n"
    store = formats.load(data, PASSWORD, name="store")
    for changes in (Changes(), Changes({"one": ONE}), Changes(remove=["absent"]), Changes({"one": ONE}, ["one"])):
        assert store.changed(changes, NOW) is data


def test_the_same_change_gives_the_same_bytes(store_type: StoreType) -> None:
    data = with_key(store_type)
    first, second = (formats.load(data, PASSWORD, name="store").changed(Changes({"new": TWO}), NOW) for _ in range(2))
    assert first == second != data


def test_a_store_that_was_read_does_not_change(store_type: StoreType) -> None:
    data = with_key(store_type)
    store = formats.load(data, PASSWORD, name="store")
    store.changed(Changes({"new": TWO}, ["one"]), NOW)
    assert store.entries.keys() == {"own", "one"}
    assert store.changed(Changes(), NOW) == data


@pytest.mark.parametrize("changes", [Changes({"own": ONE}), Changes(remove=["own"]), Changes({"own": ONE, "new": TWO})])
def test_a_key_is_never_replaced_or_removed(store_type: StoreType, changes: Changes) -> None:
    store = formats.load(with_key(store_type), PASSWORD, name="/etc/cloud.jks")
    with pytest.raises(ForeignEntryError, match=r"keystore /etc/cloud\.jks: the entry 'own' is a PrivateKeyEntry"):
        store.changed(changes, NOW)


def test_an_alias_in_upper_case_is_not_written(store_type: StoreType) -> None:
    """Java would not find it."""
    with pytest.raises(ForeignEntryError, match="'Upper'"):
        formats.empty(store_type, PASSWORD).changed(Changes({"Upper": ONE}), NOW)


@pytest.mark.parametrize("password", ["", "Changeit", "changeit ", "ünïcode", "x" * 10_000])
def test_a_wrong_password_is_told_from_damage(store_type: StoreType, password: str) -> None:
    with pytest.raises(PasswordWrongError, match=r"keystore /etc/cloud\.jks does not open with this password"):
        formats.load(with_key(store_type), password, name="/etc/cloud.jks")


@pytest.mark.parametrize("password", ["changeit", "p", "pässwörd €", "🔑 key"])
def test_a_store_opens_with_the_password_that_it_was_made_with(store_type: StoreType, password: str) -> None:
    data = formats.empty(store_type, password).changed(Changes({"one": ONE}), NOW)
    assert formats.load(data, password, name="store").entries.keys() == {"one"}
    with pytest.raises(PasswordWrongError) as raised:
        formats.load(data, f"{password}!", name="store")
    assert password not in str(raised.value).removeprefix("keystore store does not open with this password")


def test_a_password_that_is_no_text_opens_nothing(store_type: StoreType) -> None:
    with pytest.raises(
        PasswordWrongError, match="store does not open with this password: it is not Unicode text"
    ) as raised:
        formats.load(with_key(store_type), "secret\udcff", name="store")
    assert "secret" not in repr(raised.value.__context__)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11, 12, 40])
def test_a_store_that_is_cut_off_is_unreadable(store_type: StoreType, size: int) -> None:
    for data in (with_key(store_type)[:size], with_key(store_type)[:-size]):
        with pytest.raises(UnreadableError, match=r"keystore store cannot be read: "):
            formats.load(data, PASSWORD, name="store")


def test_what_is_no_keystore_is_unreadable(store_type: StoreType) -> None:
    data = with_key(store_type)
    for content, message in (
        (b"", "it is empty"),
        (b"\n", "it is neither JKS nor PKCS#12$"),
        (b"a password", "it is neither JKS nor PKCS#12$"),
        (b"\xce\xce\xce\xce" + data[4:], "it is a JCEKS keystore, which is not supported: convert it with keytool"),
        (data + bytes(SIZE_LIMIT_BYTES), "at most 8388608 are read"),
    ):
        with pytest.raises(UnreadableError, match=f"keystore store cannot be read: .*{message}"):
            formats.load(content, PASSWORD, name="store")


def test_a_store_is_never_made_larger_than_we_read(store_type: StoreType) -> None:
    many = {f"a{number}": b"x" for number in range(5000)}
    full = formats.load(formats.empty(store_type, PASSWORD).changed(Changes(many), NOW), PASSWORD, name="store")
    with pytest.raises(WriteError, match="keystore store is full: with this change it would have 5001 entries"):
        full.changed(Changes({"new": ONE}), NOW)
    assert len(formats.load(full.changed(Changes({"a0": ONE}), NOW), PASSWORD, name="store").entries) == 5000
    with pytest.raises(WriteError, match=r"in 8388\d\d\d bytes"):
        formats.empty(store_type, PASSWORD).changed(Changes({"new": bytes(SIZE_LIMIT_BYTES)}), NOW)


def test_no_object_shows_the_password(store_type: StoreType) -> None:
    store = formats.load(with_key(store_type), PASSWORD, name="store")
    assert PASSWORD not in repr(store)
