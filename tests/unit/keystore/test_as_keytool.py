"""Odd stores beside the keytool of every JDK: what it lists is listed, what it refuses is refused."""

import hashlib
import pathlib
import struct
from collections.abc import Sequence

import pytest
from tests.unit.keystore import test_jks
from tests.unit.keystore.support import NOW, PASSWORD, JavaError, Jdk, StoreReader
from tests.unit.keystore.test_pkcs12 import (
    CERT_BAG,
    FRIENDLY_NAME,
    ONE,
    SECRET_BAG,
    THREE,
    TWO,
    bag,
    cert_bag,
    key_bag,
    octets,
    oid,
    openssl_store,
    safe,
    secret_bag,
    seen_by_both,
    sequence,
    store,
)

from directdownload.keystore import der, formats
from directdownload.keystore.entries import Changes, EntryKind
from directdownload.keystore.errors import UnreadableError

pytestmark = pytest.mark.long

LOCAL_KEY_ID, TRUSTED_KEY_USAGE = "1.2.840.113549.1.9.21", "2.16.840.1.113894.746875.1.1"
#: Of a key that belongs to the machine: Microsoft's, and never with a value.
LOCAL_MACHINE_KEYSET = "1.3.6.1.4.1.311.17.2"
TRUSTED, PRIVATE, SECRET = EntryKind.TRUSTED_CERTIFICATE, EntryKind.PRIVATE_KEY, EntryKind.SECRET_KEY
SDSI_CERTIFICATE = "1.2.840.113549.1.9.22.2"


def attribute(dotted: str, *values: bytes) -> bytes:
    """With its values in this order."""
    return sequence(oid(dotted), der.write(der.SET, *values))


def name(encoded: bytes) -> bytes:
    return attribute(FRIENDLY_NAME, der.write(der.BMP_STRING, encoded))


def text(letters: str) -> bytes:
    return der.write(der.BMP_STRING, letters.encode("utf-16-be"))


def trusted(*attributes: bytes, alias: str | None = "a") -> bytes:
    return cert_bag(ONE, *attributes, alias=alias, trusted=True)


def listed(jdk: Jdk, path: pathlib.Path) -> list[tuple[str, str]]:
    """Alias and kind of each entry, as `keytool -list` prints them."""
    lines = [line.split(", ") for line in jdk.keytool("-list", store=path).splitlines()]
    return [(words[0], words[-2]) for words in lines if len(words) > 2 and words[-2].endswith("Entry")]


UNKNOWN_BAG = "1.2.3.5"
LISTED: dict[str, tuple[bytes, Sequence[tuple[str, EntryKind]]]] = {
    "an attribute with an empty SET": (trusted(attribute(LOCAL_MACHINE_KEYSET)), [("a", TRUSTED)]),
    "an attribute with odd values": (
        trusted(attribute("1.2.3", b"\x30\x02\x02\x05", b"\xc5\x01x", der.write(der.NULL, b"x"))),
        [("a", TRUSTED)],
    ),
    "many attributes": (trusted(*[attribute(f"1.2.{at}", octets(b"x")) for at in range(40)]), [("a", TRUSTED)]),
    "many values": (trusted(attribute("1.2.3", *[octets(b"x")] * 40)), [("a", TRUSTED)]),
    "two names in one attribute": (
        trusted(attribute(FRIENDLY_NAME, text("X"), octets(b"y")), alias=None),
        [("x", TRUSTED)],
    ),
    "two attributes with a name": (
        trusted(attribute(FRIENDLY_NAME, text("x")), attribute(FRIENDLY_NAME, text("y")), alias=None),
        [("y", TRUSTED)],
    ),
    "an empty name": (trusted(name(b""), alias=None), [("", TRUSTED)]),
    "a name of odd size": (trusted(name(b"\0a\0"), alias=None), [("a\ufffd", TRUSTED)]),
    "half a pair and a letter": (trusted(name(b"\xd8\0\0a\0b"), alias=None), [("\ufffdb", TRUSTED)]),
    "half a pair at the end": (trusted(name(b"\0a\xd8\0\0"), alias=None), [("a\ufffd", TRUSTED)]),
    "the second half of a pair": (trusted(name(b"\xdc\0\0a"), alias=None), [("\ufffda", TRUSTED)]),
    "a localKeyId of two values": (trusted(attribute(LOCAL_KEY_ID, octets(b"x"), text("y"))), [("a", TRUSTED)]),
    "trusted for nothing": (cert_bag(ONE, attribute(TRUSTED_KEY_USAGE), alias="a"), [("a", TRUSTED)]),
    "attributes that are no SET": (
        sequence(cert_bag(ONE)[4:], sequence(octets(b"x"))),
        [],
    ),
    "a certificate of another type": (
        bag(CERT_BAG, sequence(oid(SDSI_CERTIFICATE), der.write(der.CONTEXT_0, octets(ONE))), alias="a", trusted=True),
        [("a", TRUSTED)],
    ),
    "a key without a certificate": (key_bag("k", b"id"), [("k", PRIVATE)]),
    "a key without a certificate or an id": (key_bag("k"), [("k", PRIVATE)]),
    "an empty attribute of a key": (secret_bag("s"), [("s", SECRET)]),
}


@pytest.mark.parametrize("case", LISTED)
def test_a_bag_that_java_lists_is_listed_and_kept_byte_for_byte(
    case: str, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    odd, expected = LISTED[case]
    path = tmp_path / "store"
    path.write_bytes(store(safe(odd)))
    assert [(alias, kind) for alias, kind, _ in seen_by_both(path, reader)] == expected
    changes = Changes({"new": TWO})
    path.write_bytes(formats.load(path.read_bytes(), PASSWORD, name="store").changed(changes, NOW))
    assert odd in path.read_bytes()
    assert [(alias, kind) for alias, kind, _ in seen_by_both(path, reader)] == [*expected, ("new", TRUSTED)]


BAD_OIDS = {
    "empty": b"",
    "unfinished": b"\x2a\x80\x81",
    "padded": b"\x2a\x80\x01",
    "longer than any": b"\x2a" + b"\xff" * 4095 + b"\x01",
}
REFUSED = {
    "a name without a value": (trusted(attribute(FRIENDLY_NAME)), "attribute friendlyName without a value"),
    "a localKeyId without a value": (trusted(attribute(LOCAL_KEY_ID)), "attribute localKeyId without a value"),
    "a bag of unknown type with such a name": (
        bag(UNKNOWN_BAG, octets(b"x"), attribute(FRIENDLY_NAME)),
        "attribute friendlyName without a value",
    ),
    "a name in UTF-8": (
        trusted(attribute(FRIENDLY_NAME, der.write(0x0C, b"x")), alias=None),
        "expected BMPString, found tag 0x0c",
    ),
    "a localKeyId of letters": (trusted(attribute(LOCAL_KEY_ID, text("x"))), "expected OCTET STRING, found BMPString"),
    "a purpose that is none": (
        cert_bag(ONE, attribute(TRUSTED_KEY_USAGE, octets(b"x")), alias="a"),
        "expected OBJECT IDENTIFIER, found OCTET STRING",
    ),
    "an attribute without a SET": (trusted(sequence(oid("1.2.3"))), "expected 2 fields, found 1"),
    "an attribute with an OCTET STRING": (trusted(sequence(oid("1.2.3"), octets(b"x"))), "expected SET, found OCTET"),
    "a bag without content": (sequence(oid(UNKNOWN_BAG), der.write(der.CONTEXT_0)), "a SafeBag without content"),
    "a certificate in letters": (
        bag(CERT_BAG, sequence(oid(SDSI_CERTIFICATE), der.write(der.CONTEXT_0, der.write(0x16, b"x")))),
        "expected OCTET STRING, found tag 0x16",
    ),
    "a secret that is none": (bag(SECRET_BAG, octets(b"x"), alias="s"), "expected SEQUENCE, found OCTET STRING"),
    "a secret of no bytes": (
        bag(SECRET_BAG, sequence(oid("1.2"), der.write(der.CONTEXT_0, der.write_integer(1))), alias="s"),
        "expected OCTET STRING, found INTEGER",
    ),
    **{
        f"a purpose whose identifier is {case}": (
            cert_bag(ONE, attribute(TRUSTED_KEY_USAGE, der.write(der.OID, value)), alias="a"),
            "an invalid OBJECT IDENTIFIER",
        )
        for case, value in BAD_OIDS.items()
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bag_for_which_java_refuses_the_store_is_refused(
    case: str, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    odd, words = REFUSED[case]
    path = tmp_path / "store"
    path.write_bytes(store(safe(odd)))
    with pytest.raises(JavaError):
        reader.entries(path)
    with pytest.raises(UnreadableError, match=words):
        formats.load(path.read_bytes(), PASSWORD, name="store")


def test_what_a_windows_machine_exports_is_listed_as_by_keytool_and_kept(
    jdk: Jdk, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "store"
    path.write_bytes(openssl_store(tmp_path, "-LMK"))
    keyset = attribute(LOCAL_MACHINE_KEYSET)
    assert keyset in path.read_bytes()
    found = formats.load(path.read_bytes(), PASSWORD, name="store")
    assert listed(jdk, path) == [(entry.alias, entry.kind) for entry in found.entries.values()]
    before = reader.entries(path)["own key"]
    path.write_bytes(found.changed(Changes({"new": THREE}), NOW))
    assert keyset in path.read_bytes()
    after = reader.entries(path)
    assert after.keys() == {"own key", "new"}
    assert (after["own key"].key, after["own key"].chain) == (before.key, before.chain)


@pytest.mark.parametrize("options", ["-legacy -certpbe PBE-SHA1-RC2-128", "-macalg sha512-224", "-macalg sha512-256"])
def test_rarer_protections_that_java_reads_are_read(
    options: str, jdk: Jdk, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "store"
    path.write_bytes(openssl_store(tmp_path, *options.split()))
    found = formats.load(path.read_bytes(), PASSWORD, name="store")
    assert listed(jdk, path) == [(entry.alias, entry.kind) for entry in found.entries.values()]
    path.write_bytes(found.changed(Changes({"new": THREE}), NOW))
    assert reader.entries(path).keys() == {"own key", "new"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(test_jks.store(test_jks.key(b"a", b"x")), ("a", "SecretKeyEntry"), id="JKS"),
        pytest.param(store(safe(key_bag("a", b"1"))), ("a", "PrivateKeyEntry"), id="PKCS12"),
    ],
)
def test_a_key_without_a_chain_is_what_keytool_calls_it(
    data: bytes, expected: tuple[str, str], jdk: Jdk, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "store"
    path.write_bytes(data)
    assert listed(jdk, path) == [expected]
    found = formats.load(data, PASSWORD, name="store")
    assert [(entry.alias, entry.kind) for entry in found.entries.values()] == [expected]
    after = found.changed(Changes({"new": TWO}), NOW)
    assert [entry.kind for entry in formats.load(after, PASSWORD, name="store").entries.values()] == [
        expected[1],
        TRUSTED,
    ]


def version_1() -> bytes:
    """As Java 1.1 wrote it: without the types of certificates."""
    body = struct.pack(">IIII", 0xFEEDFEED, 1, 1, 2) + test_jks.text(b"a") + struct.pack(">Q", test_jks.DATE)
    body += test_jks.blob(TWO)
    return body + hashlib.sha1(PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()  # noqa: S324


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            test_jks.store(test_jks.trusted(b"a", ONE), test_jks.trusted(b"b", ONE), test_jks.trusted(b"a", TWO)),
            "two of its entries have the alias 'a', and Java sees only the last one",
            id="an alias twice",
        ),
        pytest.param(
            test_jks.store(test_jks.key(b"a", b"x", ONE), test_jks.trusted(b"a", TWO)),
            "two of its entries have the alias 'a', and Java sees only the last one",
            id="a key and a certificate",
        ),
        pytest.param(version_1(), "a JKS store of version 1, expected 2", id="version 1"),
    ],
)
def test_a_jks_that_java_alone_reads_is_refused_for_what_it_is_and_keytool_mends_it(
    data: bytes, message: str, jdk: Jdk, tmp_path: pathlib.Path
) -> None:
    path, converted = tmp_path / "store", tmp_path / "converted"
    path.write_bytes(data)
    assert ("a", "trustedCertEntry") in listed(jdk, path)
    with pytest.raises(UnreadableError, match=message) as raised:
        formats.load(data, PASSWORD, name="store")
    assert "damaged" not in str(raised.value)
    words = str(raised.value).split("keytool ")[1].split(",")[0].split()
    jdk.keytool(*words, "-srckeystore", str(path), "-srcstorepass", PASSWORD, store=converted)
    assert formats.load(converted.read_bytes(), PASSWORD, name="store").entries["a"].trusts(TWO)


@pytest.mark.parametrize("kind", [b"PGP", b""])
@pytest.mark.parametrize("where", ["trusted", "chain"])
def test_a_jks_with_a_certificate_of_a_type_that_java_has_none_of_is_refused(
    kind: bytes, where: str, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    odd = test_jks.trusted(b"a", ONE, kind=kind)
    if where == "chain":
        odd = test_jks.key(b"a", b"x", ONE).replace(test_jks.text(b"X.509"), test_jks.text(kind))
    path = tmp_path / "store"
    path.write_bytes(test_jks.store(odd))
    with pytest.raises(JavaError, match="not found"):
        reader.entries(path)
    with pytest.raises(UnreadableError, match=f"the entry 'a' has a certificate of type '{kind.decode()}'"):
        formats.load(path.read_bytes(), PASSWORD, name="store")


def test_a_long_or_odd_alias_is_shown_on_one_bounded_line() -> None:
    alias = ("x\n" * 200).encode()
    with pytest.raises(UnreadableError) as raised:
        formats.load(test_jks.store(*[test_jks.trusted(alias, ONE)] * 2), PASSWORD, name="store")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
