"""PKCS#12 stores of every make: what Java sees in them, what a change leaves alone, and what is refused."""

import hashlib
import hmac
import pathlib
import random
import ssl
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12 as cryptography_pkcs12
from tests.unit.keystore import support
from tests.unit.keystore.support import NOW, PASSWORD, StoreReader

from directdownload.keystore import der, formats, pbe
from directdownload.keystore.entries import Changes, EntryKind, Keystore
from directdownload.keystore.errors import ForeignEntryError, PasswordWrongError, UnreadableError

ONE, TWO, THREE = (support.certificate(name) for name in ("one", "two", "three"))
FRIENDLY_NAME = "1.2.840.113549.1.9.20"
DATA, ENCRYPTED_DATA, ENVELOPED_DATA = (f"1.2.840.113549.1.7.{number}" for number in (1, 6, 3))
KEY_BAG, SHROUDED_KEY_BAG, CERT_BAG, CRL_BAG, SECRET_BAG = (
    f"1.2.840.113549.1.12.10.1.{number}" for number in (1, 2, 3, 4, 5)
)


def load(data: bytes, password: str = PASSWORD) -> Keystore:
    return formats.load(data, password, name="store")


def put(data: bytes, certificates: dict[str, bytes], remove: Sequence[str] = ()) -> bytes:
    return load(data).changed(Changes(certificates, remove), NOW)


def sequence(*parts: bytes) -> bytes:
    return der.write(der.SEQUENCE, *parts)


def oid(dotted: str) -> bytes:
    return der.write(der.OID, der.oid(dotted))


def octets(value: bytes) -> bytes:
    return der.write(der.OCTET_STRING, value)


def attribute(dotted: str, *values: bytes) -> bytes:
    return sequence(oid(dotted), der.write_set(*values))


def bag(
    bag_type: str,
    value: bytes,
    *attributes: bytes,
    alias: str | None = None,
    key_id: bytes | None = None,
    trusted: bool = False,
) -> bytes:
    found = list(attributes)
    if alias is not None:
        found.append(attribute(FRIENDLY_NAME, der.write(der.BMP_STRING, alias.encode("utf-16-be"))))
    if key_id is not None:
        found.append(attribute("1.2.840.113549.1.9.21", octets(key_id)))
    if trusted:
        found.append(attribute("2.16.840.1.113894.746875.1.1", oid("2.5.29.37.0")))
    return sequence(oid(bag_type), der.write(der.CONTEXT_0, value), der.write_set(*found) if found else b"")


def cert_bag(
    certificate: bytes,
    *attributes: bytes,
    alias: str | None = None,
    key_id: bytes | None = None,
    trusted: bool = False,
) -> bytes:
    value = sequence(oid("1.2.840.113549.1.9.22.1"), der.write(der.CONTEXT_0, octets(certificate)))
    return bag(CERT_BAG, value, *attributes, alias=alias, key_id=key_id, trusted=trusted)


def encrypted_key() -> bytes:
    return support.own().key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )


def key_bag(alias: str | None = None, key_id: bytes | None = None) -> bytes:
    return bag(SHROUDED_KEY_BAG, encrypted_key(), alias=alias, key_id=key_id)


def secret_bag(alias: str | None = None, key_id: bytes | None = None) -> bytes:
    value = sequence(oid(SHROUDED_KEY_BAG), der.write(der.CONTEXT_0, octets(encrypted_key())))
    return bag(SECRET_BAG, value, alias=alias, key_id=key_id)


def content_info(dotted: str, content: bytes) -> bytes:
    return sequence(oid(dotted), der.write(der.CONTEXT_0, content))


def safe(*bags: bytes) -> bytes:
    return content_info(DATA, octets(sequence(*bags)))


def store(*safes: bytes, mac: bytes = b"") -> bytes:
    """Without a MAC, Java reads it too."""
    return sequence(der.write_integer(3), content_info(DATA, octets(sequence(*safes))), mac)


def identifier(dotted: str, parameters: bytes) -> bytes:
    return sequence(oid(dotted), parameters)


def encrypted(scheme: str, *parameters: bytes, data: bytes = bytes(16)) -> bytes:
    """A store whose certificates are encrypted so."""
    inner = sequence(oid(DATA), sequence(oid(scheme), *parameters), der.write(der.CONTEXT_0_PRIMITIVE, data))
    return store(content_info(ENCRYPTED_DATA, sequence(der.write_integer(0), inner)))


def openssl_store(tmp_path: pathlib.Path, *options: str) -> bytes:
    """With a private key, its certificate and another one."""
    key, chain, made = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "openssl.p12"
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(support.own().key.private_bytes(*pem))
    chain.write_text(ssl.DER_cert_to_PEM_cert(support.own().der) + ssl.DER_cert_to_PEM_cert(ONE))
    arguments = f"-inkey {key} -in {chain} -passout pass:{PASSWORD} -out {made} -name".split()
    support.command("openssl", "pkcs12", "-export", *arguments, "Own Key", *options)
    return made.read_bytes()


# --- what Java sees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(120))
def test_entries_are_those_that_java_sees_in_the_strangest_stores(
    seed: int, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    chosen = random.Random(seed)
    certificates = [ONE, TWO, THREE]

    def some_bag() -> bytes:
        alias = chosen.choice([None, "a", "B", "b", "1", "2"])
        key_id = chosen.choice([None, None, b"01", b"Time 1767225600000", b"other"])
        match chosen.randrange(7):
            case 0 | 1:
                return cert_bag(chosen.choice(certificates), alias=alias, key_id=key_id, trusted=True)
            case 2 | 3:
                return cert_bag(chosen.choice(certificates), alias=alias, key_id=key_id)
            case 4:
                return key_bag(alias, key_id)
            case 5:
                return secret_bag(alias, key_id)
            case _:
                return bag(KEY_BAG, sequence(), alias=alias, key_id=key_id)

    path = tmp_path / "store"
    path.write_bytes(
        store(*(safe(*(some_bag() for _ in range(chosen.randrange(5)))) for _ in range(chosen.randrange(1, 4))))
    )
    before = seen_by_both(path, reader)
    try:
        path.write_bytes(put(path.read_bytes(), {chosen.choice("abc1"): THREE}, chosen.choice([(), ("b",), ("2",)])))
    except ForeignEntryError:
        return
    after = seen_by_both(path, reader)
    assert {alias: kind for alias, kind, _ in before if kind is not EntryKind.TRUSTED_CERTIFICATE} == {
        alias: kind for alias, kind, _ in after if kind is not EntryKind.TRUSTED_CERTIFICATE
    }
    assert any(certificate == THREE for *_, certificate in after)


def seen_by_both(path: pathlib.Path, reader: StoreReader) -> list[tuple[str, EntryKind, bytes | None]]:
    """Alias, kind and (first) certificate of the entries, in which we agree with Java."""
    java = [entry for entry in reader.entries(path).values() if entry.kind != "none"]
    ours = [(entry.alias, entry.kind, entry.certificate) for entry in load(path.read_bytes()).entries.values()]
    assert ours == [(entry.alias, entry.kind, entry.chain[0] if entry.chain else None) for entry in java]
    return ours


@pytest.mark.parametrize(
    ("bags", "expected"),
    [
        pytest.param([("other", b"id", ONE), ("K", b"id", TWO), ("k", b"id", THREE)], TWO, id="id and alias: first"),
        pytest.param([("k", b"x", ONE), ("a", b"id", TWO), ("b", b"id", THREE)], THREE, id="id: last"),
        pytest.param([("k", b"x", ONE), ("k", b"y", TWO), ("a", b"z", THREE)], TWO, id="alias: last"),
        pytest.param([("a", b"x", ONE), (None, None, TWO)], None, id="none"),
    ],
)
def test_a_key_has_the_certificate_that_java_gives_it(
    bags: list[tuple[str | None, bytes | None, bytes]],
    expected: bytes | None,
    reader: StoreReader,
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "store"
    chain = (cert_bag(certificate, alias=alias, key_id=key_id) for alias, key_id, certificate in bags)
    path.write_bytes(store(safe(key_bag("k", b"id"), *chain)))
    assert seen_by_both(path, reader) == [("k", EntryKind.PRIVATE_KEY, expected)]


def test_a_key_has_the_date_that_java_keeps_for_it() -> None:
    ids = {"a": b"Time 1767225600123", "b": b"Time 99999999999999999999", "c": b"Time x", "d": b"1767225600123"}
    found = load(store(safe(*(key_bag(alias, key_id) for alias, key_id in ids.items())))).entries
    assert {alias: entry.created and entry.created.isoformat() for alias, entry in found.items()} == {
        "a": "2026-01-01T00:00:00.123000+00:00",
        "b": None,
        "c": None,
        "d": None,
    }


# --- what a change does -------------------------------------------------------------------------------------------


def test_every_foreign_bag_and_content_info_survives_byte_for_byte() -> None:
    unknown = attribute("1.2.3.4", octets(b"x"), octets(b"y"))
    foreign = [
        key_bag("first", b"1"),
        key_bag("second", b"2"),
        secret_bag("secret"),
        bag(KEY_BAG, sequence(), alias="plain key"),
        bag(CRL_BAG, sequence(octets(b"crl"))),
        bag("1.2.3.5", octets(b"anything"), unknown),
        cert_bag(ONE, alias="chain", key_id=b"1"),
        cert_bag(TWO, unknown, alias="foreign", trusted=True),
    ]
    first, second = safe(*foreign[:4]), safe(*foreign[4:], cert_bag(ONE, alias="ours", trusted=True))
    data = store(first, second)
    after = put(data, {"ours": THREE, "new": TWO})
    assert first in after
    assert sequence(*foreign[4:])[4:] in after
    assert load(after).entries.keys() == {"first", "second", "secret", "foreign", "ours", "new"}
    again = put(after, {}, ["new", "ours", ""])
    assert again == store(first, safe(*foreign[4:]))


def test_an_entry_is_replaced_where_it_stands_and_a_new_one_goes_to_the_end() -> None:
    ours = safe(cert_bag(TWO, alias="b", trusted=True))
    data = store(safe(cert_bag(ONE, alias="A", trusted=True), key_bag("key", b"1")), ours)
    after = put(data, {"a": THREE, "d": ONE, "c": TWO})
    assert after == store(
        safe(cert_bag(THREE, alias="a", trusted=True), key_bag_of(data)),
        safe(*(cert_bag(cert, alias=alias, trusted=True) for alias, cert in (("b", TWO), ("c", TWO), ("d", ONE)))),
    )


def key_bag_of(data: bytes) -> bytes:
    """The second bag of the first safe: a key is encrypted differently each time."""
    authenticated = der.children(der.children(der.only(data), der.SEQUENCE)[1], der.SEQUENCE)[1]
    first = der.children(der.only(der.inner(authenticated, der.OCTET_STRING).value), der.SEQUENCE)[0]
    content = der.inner(der.children(first, der.SEQUENCE)[1], der.OCTET_STRING)
    return der.children(der.only(content.value), der.SEQUENCE)[1].raw


def test_of_several_with_one_alias_none_is_left_behind() -> None:
    twice = [cert_bag(cert, alias=alias, trusted=True) for cert, alias in ((ONE, "x"), (TWO, "X"))]
    data = store(safe(*twice, cert_bag(THREE, alias="y", trusted=True)))
    assert load(data).entries["x"].certificate == TWO
    assert load(put(data, {}, ["x"])).entries.keys() == {"y"}
    assert put(data, {"x": THREE}) == store(safe(*(cert_bag(THREE, alias=alias, trusted=True) for alias in ("x", "y"))))


def test_put_and_remove_give_the_same_bytes_again() -> None:
    data = put(bytes(formats.empty("PKCS12", PASSWORD).changed(Changes(), NOW)), {"a": ONE})
    assert put(put(data, {"b": TWO}), {}, ["b"]) == data


def test_the_order_in_which_certificates_are_given_does_not_matter() -> None:
    data = formats.empty("PKCS12", PASSWORD).changed(Changes(), NOW)
    assert put(data, {"a": ONE, "b": TWO}) == put(data, {"b": TWO, "a": ONE})


@pytest.mark.parametrize("alias", ["key", "KEY"])
def test_a_key_behind_a_certificate_of_its_name_does_not_come_up(alias: str) -> None:
    """Java shows the last of them: removing it would bring up the other."""
    data = store(safe(key_bag(alias, b"1")), safe(cert_bag(ONE, alias="key", trusted=True)))
    assert load(data).entries["key"].trusts(ONE)
    with pytest.raises(ForeignEntryError, match="keystore store: the entry 'key' "):
        put(data, {}, ["key"])
    assert load(put(data, {"key": TWO})).entries["key"].trusts(TWO)


def test_an_entry_without_a_name_is_left_alone() -> None:
    """Java counts them, so that a change of one would rename the others."""
    data = store(safe(cert_bag(ONE, trusted=True), cert_bag(TWO, trusted=True)))
    assert load(data).entries.keys() == {"1", "2"}
    with pytest.raises(ForeignEntryError, match="has no alias of its own"):
        put(data, {}, ["1"])
    assert load(put(data, {"3": THREE})).entries["3"].trusts(THREE)


def test_aliases_beyond_the_basic_plane_are_those_of_java(reader: StoreReader, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(put(formats.empty("PKCS12", PASSWORD).changed(Changes(), NOW), {"schlüssel 🔑": ONE}))
    assert reader.entries(path).keys() == {"schlüssel 🔑"} == load(path.read_bytes()).entries.keys()


# --- protections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "-legacy",
        "-legacy -certpbe PBE-SHA1-3DES",
        "-certpbe AES-128-CBC -macalg sha1",
        "-certpbe AES-192-CBC -macalg sha224",
        "-certpbe AES-256-CBC -macalg sha384 -iter 1",
        "-certpbe DES-EDE3-CBC -macalg sha512",
        "-certpbe NONE",
        "-nomac",
        "-nomac -certpbe AES-256-CBC",
        "-keypbe NONE -certpbe NONE -nomac",
    ],
)
def test_stores_of_openssl_are_changed_and_read_by_openssl(options: str, tmp_path: pathlib.Path) -> None:
    data = openssl_store(tmp_path, *options.split())
    path = tmp_path / "store"
    legacy = ["-legacy"] if "-legacy" in options else []
    arguments = ["openssl", "pkcs12", "-in", str(path), "-nodes", "-passin", f"pass:{PASSWORD}", *legacy]
    path.write_bytes(data)
    before = support.command(*arguments)
    path.write_bytes(put(put(data, {"new": TWO, "old": THREE}), {}, ["old"]))
    after = support.command(*arguments)
    assert before.count("BEGIN PRIVATE KEY") == 1
    assert before.count("BEGIN CERTIFICATE") == 2
    new = "".join(ssl.DER_cert_to_PEM_cert(TWO).split())
    assert new not in "".join(before.split())
    assert new in "".join(after.split())
    assert after.startswith(before)
    if "-nomac" not in options:
        with pytest.raises(PasswordWrongError):
            load(path.read_bytes(), "other")
    if options != "-keypbe NONE -certpbe NONE -nomac":
        key = load(path.read_bytes()).entries["own key"]
        assert (key.kind, key.certificate) == (EntryKind.PRIVATE_KEY, support.own().der)


@pytest.mark.parametrize("algorithm", [hashes.SHA1, hashes.SHA256, hashes.SHA384, hashes.SHA512])
@pytest.mark.parametrize(
    "password", ["short", "x" * 31, "x" * 32, "x" * 64, "y" * 200, "pässwörd €", "🔑" * 40], ids=len
)
def test_the_mac_is_that_of_another_implementation(algorithm: type[hashes.HashAlgorithm], password: str) -> None:
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(10)
        .key_cert_algorithm(cryptography_pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(algorithm())
        .build(password.encode())
    )
    key, certificate = support.own().key, x509.load_der_x509_certificate(support.own().der)
    data = cryptography_pkcs12.serialize_key_and_certificates(b"own", key, certificate, None, encryption)
    after = load(data, password).changed(Changes({"new": TWO}), NOW)
    found = cryptography_pkcs12.load_pkcs12(after, password.encode())
    assert [extra.certificate.public_bytes(serialization.Encoding.DER) for extra in found.additional_certs] == [TWO]
    assert load(after, password).entries.keys() == {"own", "new"}


def pbkdf2(iterations: int, size: int | None, salt: bytes = b"saltsalt") -> bytes:
    prf = identifier("1.2.840.113549.2.11", der.write(der.NULL))
    length = b"" if size is None else der.write_integer(size)
    parameters = sequence(octets(salt), der.write_integer(iterations), length, prf)
    return identifier("1.2.840.113549.1.5.12", parameters)


HMAC_SHA256 = identifier("1.2.840.113549.2.9", der.write(der.NULL))


def pbmac1(digest: bytes, iterations: int = 1000, size: int | None = 32, scheme: bytes = HMAC_SHA256) -> bytes:
    """MacData as RFC 9579 section 4 has it: salt and iterations outside are not used."""
    algorithm = identifier("1.2.840.113549.1.5.14", sequence(pbkdf2(iterations, size), scheme))
    return sequence(sequence(algorithm, octets(digest)), octets(b"NOT USED"), der.write_integer(1))


def test_a_mac_of_rfc_9579_is_checked_and_made_anew() -> None:
    def mac(*safes: bytes) -> bytes:
        key = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), b"saltsalt", 1000, 32)
        return pbmac1(hmac.digest(key, sequence(*safes), "sha256"))

    key, ours = safe(key_bag("key", b"1")), safe(cert_bag(ONE, alias="new", trusted=True))
    data = store(key, mac=mac(key))
    assert put(data, {"new": ONE}) == store(key, ours, mac=mac(key, ours))
    with pytest.raises(PasswordWrongError):
        load(data, "other")


@pytest.mark.parametrize(("number", "digest"), [(12, "sha512_224"), (13, "sha512_256")])
def test_certificates_may_be_encrypted_as_java_25_can(number: int, digest: str) -> None:
    """With a key that is derived with one of the shortened digests."""
    prf = identifier(f"1.2.840.113549.2.{number}", der.write(der.NULL))
    derivation = identifier("1.2.840.113549.1.5.12", sequence(SALT, der.write_integer(1000), prf))
    cipher = pbe.Cipher("AES", hashlib.pbkdf2_hmac(digest, PASSWORD.encode(), b"12345678", 1000, 32), bytes(16))
    content = sequence(cert_bag(ONE, alias="one", trusted=True))
    data = encrypted(PBES2, sequence(derivation, AES), data=cipher.encrypt(content))
    assert load(data).entries["one"].trusts(ONE)
    assert load(put(data, {"two": TWO}, ["one"])).entries.keys() == {"two"}


def test_encrypted_certificates_without_a_mac_need_the_password(tmp_path: pathlib.Path) -> None:
    # in this order: -nomac alone turns the encryption off
    data = openssl_store(tmp_path, "-nomac", "-certpbe", "AES-256-CBC")
    assert len(der.children(der.only(data), der.SEQUENCE)) == 2
    assert load(data).entries.keys() == {"own key"}
    # one in 256 wrong keys leaves a padding that looks right
    for number in range(1000):
        with pytest.raises(PasswordWrongError):
            load(data, f"wrong{number}")


# --- what is refused ----------------------------------------------------------------------------------------------


SALT = octets(b"12345678")
BIG = der.write_integer((1 << 31) - 1)
PBES1 = "1.2.840.113549.1.12.1"
AES_256 = "2.16.840.1.101.3.4.1.42"
AES = identifier(AES_256, octets(bytes(16)))
PBES2 = "1.2.840.113549.1.5.13"
NO_DIGEST = sequence(SALT, der.write_integer(1), sequence())
SHA256 = identifier("2.16.840.1.101.3.4.2.1", der.write(der.NULL))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sequence(der.write_integer(2), content_info(DATA, octets(sequence()))), "version 2, expected 3"),
        (sequence(der.write_integer(3), content_info("1.2.840.113549.1.7.2", sequence())), "signed with a key pair"),
        (sequence(der.write_integer(3), sequence(oid(DATA), der.write(der.CONTEXT_0))), "without content"),
        (store(content_info(ENVELOPED_DATA, sequence())), "encrypted with a key pair"),
        (encrypted(f"{PBES1}.1", sequence(SALT, BIG)), r"algorithm 1\.2\.840\.113549\.1\.12\.1\.1, which is not"),
        (encrypted(f"{PBES1}.3", sequence(SALT, BIG)), "larger than 5000000"),
        (encrypted(f"{PBES1}.6", sequence(SALT, der.write_integer(0))), "iteration count of 0"),
        (encrypted(f"{PBES1}.6", sequence(octets(bytes(2000)), BIG)), "salt of 2000 bytes"),
        (encrypted(PBES2, sequence(pbkdf2(1 << 31, 32), AES)), "larger than 5000000"),
        (encrypted(PBES2, sequence(pbkdf2(1, 16), AES)), "a key of 16 bytes, expected 32"),
        (encrypted(PBES2, sequence(pbkdf2(1, 0), AES)), "a key of 0 bytes, expected 32"),
        (encrypted(PBES2, sequence(identifier("1.2.840.113549.1.5.12", NO_DIGEST), AES)), "expected 1 fields, found 0"),
        (encrypted(PBES2, sequence(identifier("1.2.3", AES), AES)), r"function 1\.2\.3"),
        (encrypted(PBES2, sequence(pbkdf2(1, 32), identifier("1.2.4", AES))), r"algorithm 1\.2\.4"),
        (encrypted(PBES2), "without parameters"),
        (encrypted(PBES2, sequence(pbkdf2(1, 32), identifier(AES_256, SALT))), "IV of 8 bytes, expected 16"),
        (encrypted(PBES2, sequence(pbkdf2(1, 32), AES), data=bytes(17)), "17 encrypted bytes"),
        (store(mac=sequence(sequence(SHA256, octets(b"x")), SALT, BIG)), "larger than 5000000"),
        (store(mac=sequence(sequence(identifier("1.2.5", AES), octets(b"x")), SALT)), r"unknown digest 1\.2\.5"),
        (store(mac=pbmac1(b"x", iterations=1 << 31)), "larger than 5000000"),
        (store(mac=pbmac1(b"x", size=1 << 31)), "a key of 2147483648 bytes, expected 1 to 128"),
        (store(mac=pbmac1(b"x", size=0)), "a key of 0 bytes, expected 1 to 128"),
        (store(mac=pbmac1(b"x", size=None)), "the key of its MAC has no length"),
        (store(mac=pbmac1(b"x", scheme=sequence())), "expected 1 fields, found 0"),
        (store(mac=sequence(sequence(sequence(), octets(b"x")), SALT)), "expected 1 fields, found 0"),
        (store(safe(bag(CERT_BAG, sequence()))), "expected 2 fields, found 0"),
        (store(safe(cert_bag(ONE, attribute(FRIENDLY_NAME, octets(b"a"))))), "expected BMPString, found OCTET"),
        (b"\x30\x80\x02\x01\x03\x30\x80\x06\x09", "rewrite it with keytool -importkeystore"),
    ],
    ids=lambda value: value if isinstance(value, str) else "store",
)
def test_what_is_damaged_unknown_or_hostile_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message) as raised:
        load(data)
    assert str(raised.value).startswith("keystore store cannot be read: ")


def test_all_keys_of_a_store_together_have_a_limit() -> None:
    keys = pbe.Keys(PASSWORD)
    keys.pkcs12("sha256", 3, b"salt", 10, 32)
    with pytest.raises(UnreadableError, match="larger than 5000000 in total"):
        keys.pkcs12("sha256", 3, b"other", pbe.ITERATION_LIMIT - 9, 32)
    assert keys.pkcs12("sha256", 3, b"good", 10, 32), "what was refused has cost nothing"


def test_a_key_is_derived_once() -> None:
    keys = pbe.Keys(PASSWORD)
    first = keys.pkcs12("sha256", 3, b"salt", 1000, 32)
    for _ in range(pbe.ITERATION_LIMIT // 1000):
        assert keys.pkcs12("sha256", 3, b"salt", 1000, 32) == first


def test_bags_of_all_safes_together_have_a_limit() -> None:
    unknown = bag("1.2.3", octets(b""))
    with pytest.raises(UnreadableError, match="a list of more than"):
        load(store(safe(*[unknown] * 3000), safe(*[unknown] * 3000)))
