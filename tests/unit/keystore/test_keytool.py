"""Stores made by the keytool of every JDK of the machine, changed by us: Java finds just what it should."""

import base64
import hashlib
import pathlib
import re
import ssl

import pytest
from tests.unit.keystore import support
from tests.unit.keystore.support import KEY_PASSWORD, NOW, PASSWORD, Jdk, StoreReader

from directdownload.keystore import formats
from directdownload.keystore.entries import Changes, EntryKind, StoreType
from directdownload.keystore.errors import PasswordWrongError, UnreadableError

pytestmark = pytest.mark.long

COUNT = 300
NEW, REPLACING = support.certificate("new"), support.certificate("replacing")
CHANGES = Changes({"server-7": REPLACING, "new": NEW, "zwölf": NEW}, ("server-9", "not-there"))


@pytest.fixture(scope="session")
def made(jdk: Jdk, store_type: StoreType, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """By keytool: hundreds of certificates, keys with aliases of all kinds, and what only one of the types can have."""
    directory = tmp_path_factory.mktemp(f"{jdk.name}-{store_type}")
    ours, path = directory / "ours", directory / "store"
    ours.write_bytes(changed(formats.empty(store_type, PASSWORD).changed(Changes(), NOW), support.certificates(COUNT)))
    convert(jdk, ours, path, store_type)
    keys = ["-genkeypair", "-dname", "CN=key", "-storetype", store_type]
    # only JKS can have a password for each key
    own_password = ["-keypass", KEY_PASSWORD] if store_type == "JKS" else []
    jdk.keytool(*keys, "-alias", "RSA", "-keyalg", "RSA", "-keysize", "2048", *own_password, store=path)
    jdk.keytool(*keys, "-alias", "Ünïcode €", "-keyalg", "EC", "-groupname", "secp256r1", *own_password, store=path)
    if store_type == "PKCS12":
        jdk.keytool("-genseckey", "-alias", "secret", "-keyalg", "AES", "-keysize", "256", store=path)
    return path


def changed(data: bytes, put: dict[str, bytes]) -> bytes:
    return formats.load(data, PASSWORD, name="store").changed(Changes(put), NOW)


def convert(jdk: Jdk, source: pathlib.Path, target: pathlib.Path, store_type: str, java: tuple[str, ...] = ()) -> None:
    """Keytool reads everything and writes it anew."""
    arguments = ["-importkeystore", "-srckeystore", str(source), "-srcstorepass", PASSWORD]
    jdk.keytool(*arguments, "-deststoretype", store_type, store=target, java=java)


def key_password(store_type: StoreType) -> str:
    return KEY_PASSWORD if store_type == "JKS" else PASSWORD


def listed(text: str) -> dict[str, str]:
    """SHA-256 of the (first) certificate by alias, of `keytool -list -rfc`; empty for a secret key."""
    found = {}
    for part in text.split("Alias name: ")[1:]:
        pem = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", part, re.DOTALL)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[0])).hexdigest() if pem else ""
        found[part.splitlines()[0]] = digest
    return found


def pkcs8(pem: str) -> bytes:
    """In DER."""
    return base64.b64decode("".join(pem.splitlines()[1:-1]))


def test_entries_are_those_that_java_finds(made: pathlib.Path, store_type: StoreType, reader: StoreReader) -> None:
    ours = formats.load(made.read_bytes(), PASSWORD, name="store").entries
    java = reader.entries(made, key_password=key_password(store_type))
    assert {
        (entry.alias, str(entry.kind), (entry.certificate,) if entry.certificate else ()) for entry in ours.values()
    } == {(entry.alias, entry.kind, entry.chain[:1]) for entry in java.values()}
    assert len(ours) == COUNT + (2 if store_type == "JKS" else 3)
    dated = {alias: entry.created for alias, entry in ours.items() if entry.created}
    assert dated == {alias: java[alias].created for alias in dated}
    assert {"rsa", "ünïcode €"} <= dated.keys()


def test_keytool_lists_exactly_what_was_there_after_put_replace_and_remove(
    made: pathlib.Path, jdk: Jdk, tmp_path: pathlib.Path
) -> None:
    store = formats.load(made.read_bytes(), PASSWORD, name="store")
    target = tmp_path / "store"
    target.write_bytes(store.changed(CHANGES, NOW))
    expected = {
        alias: hashlib.sha256(entry.certificate).hexdigest() if entry.certificate else ""
        for alias, entry in store.entries.items()
    }
    del expected["server-9"]
    new, replacing = (hashlib.sha256(der).hexdigest() for der in (NEW, REPLACING))
    assert listed(jdk.keytool("-list", "-rfc", store=target)) == expected | {
        "server-7": replacing,
        "new": new,
        "zwölf": new,
    }


def test_keys_secret_keys_and_chains_survive_with_their_passwords(
    made: pathlib.Path, store_type: StoreType, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    before = reader.entries(made, key_password=key_password(store_type))
    target = tmp_path / "store"
    target.write_bytes(formats.load(made.read_bytes(), PASSWORD, name="store").changed(CHANGES, NOW))
    after = reader.entries(target, key_password=key_password(store_type))
    keys = {alias: entry for alias, entry in before.items() if entry.key}
    assert len(keys) == (2 if store_type == "JKS" else 3)
    assert {alias: entry for alias, entry in after.items() if entry.key} == keys
    if store_type == "PKCS12":
        text = support.command("openssl", "pkcs12", "-in", target, "-nodes", "-passin", f"pass:{PASSWORD}")
        private = {entry.key for entry in keys.values() if entry.chain}
        assert {pkcs8(pem) for pem in re.findall("-----BEGIN PRIVATE KEY.*?KEY-----\n", text, re.DOTALL)} == private
        assert ssl.DER_cert_to_PEM_cert(NEW) in text


def test_what_keytool_writes_after_us_is_changed_by_us_again(
    made: pathlib.Path, store_type: StoreType, jdk: Jdk, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    target, pem = tmp_path / "store", tmp_path / "third.pem"
    before = reader.entries(made, key_password=key_password(store_type))
    target.write_bytes(changed(made.read_bytes(), {"first": NEW, "second": NEW}))
    pem.write_text(ssl.DER_cert_to_PEM_cert(support.certificate("third")))
    jdk.keytool("-importcert", "-alias", "third", "-file", str(pem), store=target)
    store = formats.load(target.read_bytes(), PASSWORD, name="store")
    target.write_bytes(store.changed(Changes({"second": REPLACING}, ["first"]), NOW))
    after = reader.entries(target, key_password=key_password(store_type))
    own = {alias: after[alias].chain for alias in ("second", "third")}
    assert own == {"second": (REPLACING,), "third": (support.certificate("third"),)}
    kept = {alias: (entry.key, entry.chain) for alias, entry in after.items() if alias not in own}
    assert kept == {alias: (entry.key, entry.chain) for alias, entry in before.items()}


def test_a_store_that_we_made_is_one_for_keytool(
    store_type: StoreType, jdk: Jdk, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    target, pem = tmp_path / "store", tmp_path / "theirs.pem"
    target.write_bytes(formats.empty(store_type, PASSWORD).changed(Changes(), NOW))
    assert reader.entries(target) == {}
    pem.write_text(ssl.DER_cert_to_PEM_cert(NEW))
    jdk.keytool("-importcert", "-alias", "Theirs", "-file", str(pem), store=target)
    assert formats.load(target.read_bytes(), PASSWORD, name="store").entries["theirs"].trusts(NEW)
    target.write_bytes(changed(target.read_bytes(), {"ours": REPLACING}))
    assert {alias: entry.chain for alias, entry in reader.entries(target).items()} == {
        "theirs": (NEW,),
        "ours": (REPLACING,),
    }


def test_the_password_of_keytool_is_told_from_a_wrong_one(made: pathlib.Path) -> None:
    with pytest.raises(PasswordWrongError, match="/some/path does not open with this password"):
        formats.load(made.read_bytes(), "other", name="/some/path")


@pytest.mark.parametrize(
    "options",
    [
        # what Java 8 wrote: RC2 of 40 bits, 3DES, a MAC of SHA-1
        pytest.param(("keystore.pkcs12.legacy",), id="legacy"),
        pytest.param(
            ("keystore.pkcs12.certProtectionAlgorithm=NONE", "keystore.pkcs12.macAlgorithm=NONE"), id="passwordless"
        ),
        pytest.param(("keystore.pkcs12.macAlgorithm=NONE",), id="no-mac"),
        pytest.param(
            (
                "keystore.pkcs12.certProtectionAlgorithm=PBEWithHmacSHA512AndAES_128",
                "keystore.pkcs12.certPbeIterationCount=77",
                "keystore.pkcs12.macAlgorithm=HmacPBESHA512",
                "keystore.pkcs12.macIterationCount=1",
            ),
            id="sha512-aes128",
        ),
    ],
)
def test_protections_that_java_can_be_set_to_are_kept(
    options: tuple[str, ...], jdk: Jdk, reader: StoreReader, tmp_path: pathlib.Path
) -> None:
    ours, target = tmp_path / "ours", tmp_path / "store"
    data = formats.empty("PKCS12", PASSWORD).changed(Changes(support.certificates(3)), NOW)
    ours.write_bytes(data)
    arguments = ["-genkeypair", "-alias", "own", "-dname", "CN=own", "-keyalg", "EC", "-groupname", "secp256r1"]
    # keytool takes the protection of the store that it finds: it has to make one
    jdk.keytool(*arguments, "-storetype", "PKCS12", store=target, java=options)
    convert(jdk, ours, target, "PKCS12", java=options)
    before = reader.entries(target)
    assert before.keys() == {"own", "server-0", "server-1", "server-2"}
    store = formats.load(target.read_bytes(), PASSWORD, name="store")
    if options[-1] != "keystore.pkcs12.macAlgorithm=NONE" or len(options) == 1:
        with pytest.raises(PasswordWrongError):
            formats.load(target.read_bytes(), "other", name="store")
    target.write_bytes(store.changed(Changes({"server-1": REPLACING, "new": NEW}, ["server-2"]), NOW))
    after = reader.entries(target)
    assert {alias: (entry.key, entry.chain) for alias, entry in after.items()} == {
        "own": (before["own"].key, before["own"].chain),
        "server-0": (None, (support.certificate("server-0"),)),
        "server-1": (None, (REPLACING,)),
        "new": (None, (NEW,)),
    }
    assert formats.load(target.read_bytes(), PASSWORD, name="store").entries["own"].kind is EntryKind.PRIVATE_KEY


def test_jceks_is_refused_and_what_the_message_says_helps(jdk: Jdk, tmp_path: pathlib.Path) -> None:
    path, converted = tmp_path / "jceks", tmp_path / "converted"
    arguments = ["-genkeypair", "-alias", "own", "-dname", "CN=own", "-keyalg", "EC", "-groupname", "secp256r1"]
    jdk.keytool(*arguments, "-storetype", "JCEKS", store=path)
    with pytest.raises(UnreadableError, match="JCEKS") as raised:
        formats.load(path.read_bytes(), PASSWORD, name="store")
    words = str(raised.value).split("keytool ")[1].split()
    jdk.keytool(*words, "-srckeystore", str(path), "-srcstorepass", PASSWORD, store=converted)
    assert formats.load(converted.read_bytes(), PASSWORD, name="store").entries.keys() == {"own"}
