"""`directdownload keystore` on stores of keytool's: what it does, says and ends with."""

import base64
import contextlib
import datetime
import io
import json
import pathlib

import pytest
import yaml
from tests.unit.cli.test_start import directdownload, imported
from tests.unit.keystore import support, writing
from tests.world import certificates

from directdownload.cli import main
from directdownload.keystore.entries import StoreType
from directdownload.resources import pem


def certificate_file(directory: pathlib.Path, name: str) -> str:
    path = directory / f"{name}.pem"
    path.write_text(pem.Certificate(support.certificate(name)).pem)
    return str(path)


def expiring(days: float) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    return certificates.der("expiring", begins=now - datetime.timedelta(900), ends=now + datetime.timedelta(days))


class Commands:
    """Runs them on one store; asserts the exit status and gives what is printed."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "cloud.jks"
        self.password = directory / "password"
        self.password.write_text(f"{support.PASSWORD}\n")

    def __call__(self, *arguments: str, status: int = 0) -> str:
        options = ["--keystore", str(self.path), "--password-file", str(self.password)]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
            returned = main.run(["keystore", *arguments, *options])
        assert returned == status, errors.getvalue()
        assert support.PASSWORD not in out.getvalue() + errors.getvalue()
        return out.getvalue() if status == 0 else errors.getvalue()


@pytest.fixture(params=writing.TYPES)
def keystore(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Commands:
    store_type: StoreType = request.param
    commands = Commands(tmp_path)
    writing.make(tmp_path, store_type)
    return commands


def test_import_list_verify_and_remove(keystore: Commands, tmp_path: pathlib.Path) -> None:
    file, path = certificate_file(tmp_path, "mine"), keystore.path
    assert keystore("import", "--alias", "My-CA", "--file", file) == f"my-ca is now trusted in {path}.\n"
    stamp = path.stat().st_mtime_ns
    assert keystore("import", "--alias", "my-ca", "--file", file) == f"my-ca was already trusted in {path}.\n"
    assert path.stat().st_mtime_ns == stamp
    assert writing.keytool_aliases(path) == {"cloud", "cloudca", "my-ca"}
    assert keystore("list", "-o", "name") == "cloud\ncloudca\nmy-ca\n"
    assert "my-ca holds exactly that certificate." in keystore("verify", "--alias", "my-ca", "--file", file)
    assert keystore("remove", "--alias", "MY-ca") == f"my-ca was removed from {path}.\n"
    assert keystore("remove", "--alias", "my-ca") == f"my-ca is not in {path}.\n"
    assert writing.keytool_aliases(path) == {"cloud", "cloudca"}
    assert "has no entry my-ca" in keystore("verify", "--alias", "my-ca", "--file", file, status=3)


@pytest.mark.parametrize("store_type", writing.TYPES)
def test_import_makes_a_store_of_the_type_asked_for(tmp_path: pathlib.Path, store_type: StoreType) -> None:
    keystore = Commands(tmp_path)
    file = certificate_file(tmp_path, "mine")
    keystore("import", "--alias", "mine", "--file", file, *([] if store_type == "JKS" else ["--type", store_type]))
    assert json.loads(keystore("list", "-o", "json"))["type"] == store_type
    assert writing.keytool_aliases(keystore.path) == {"mine"}


def test_the_list_names_every_entry_with_its_certificate(keystore: Commands) -> None:
    lines = keystore("list").splitlines()
    assert lines[0].split() == ["ALIAS", "KIND", "EXPIRES", "SUBJECT", "SHA256", "FINGERPRINT"]
    assert [line.split()[:2] for line in lines[1:]] == [["cloud", "PrivateKeyEntry"], ["cloudca", "trustedCertEntry"]]
    certificate = pem.Certificate(support.certificate("cloudca"))
    assert lines[2].endswith(f"CN=cloudca   {certificate.fingerprint_sha256}")
    for document in (json.loads(keystore("list", "-o", "json")), yaml.safe_load(keystore("list", "-o", "yaml"))):
        assert document["keystore"] == str(keystore.path)
        assert document["items"][1] == {
            "alias": "cloudca",
            "kind": "trustedCertEntry",
            "created": document["items"][1]["created"],
            "fingerprintSHA256": certificate.fingerprint_sha256,
            "subject": "CN=cloudca",
            "issuer": "CN=cloudca",
            "notBefore": certificate.not_before.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "notAfter": certificate.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "unreadable": None,
        }


def test_another_certificate_is_replaced_only_when_asked_for(keystore: Commands, tmp_path: pathlib.Path) -> None:
    one, two = certificate_file(tmp_path, "one"), certificate_file(tmp_path, "two")
    keystore("import", "--alias", "mine", "--file", one)
    text = keystore("import", "--alias", "mine", "--file", two, status=3)
    assert "has another certificate named mine; choose another alias, or use --replace" in text
    keystore("verify", "--alias", "mine", "--file", one)
    text = keystore("verify", "--alias", "mine", "--file", two, status=3)
    assert f"expected {pem.fingerprint_sha256(support.certificate('two'))}, found a trustedCertEntry with " in text
    keystore("import", "--alias", "mine", "--file", two, "--replace")
    keystore("verify", "--alias", "mine", "--file", two)


def test_a_key_is_neither_replaced_nor_removed(keystore: Commands, tmp_path: pathlib.Path) -> None:
    support.jdks()[0].keytool("-genkeypair", "-alias", "mine", "-keyalg", "EC", "-dname", "CN=x", store=keystore.path)
    before = keystore.path.read_bytes()
    arguments = ("--alias", "mine", "--file", certificate_file(tmp_path, "one"), "--replace")
    assert "has a PrivateKeyEntry named mine, which is never replaced" in keystore("import", *arguments, status=3)
    assert "mine is a PrivateKeyEntry; only trusted cert" in keystore("remove", "--alias", "mine", status=3)
    assert keystore.path.read_bytes() == before


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ("cloud", "cloud is CloudStack's own"),
        ("CloudCA", "cloudca is CloudStack's own"),
        ("cloudca.2", "cloudca.2 is CloudStack's own"),
        ("my-ca-Previous", "my-ca-previous is reserved"),
        ("my ca", "expected letters, digits"),
        ("", "expected letters, digits"),
        ("a" * 129, "expected letters, digits"),
    ],
)
def test_reserved_aliases_are_refused_in_any_case(tmp_path: pathlib.Path, alias: str, words: str) -> None:
    keystore = Commands(tmp_path)
    text = keystore("import", "--alias", alias, "--file", certificate_file(tmp_path, "one"), status=2)
    assert words in " ".join(text.split())
    assert not keystore.path.exists()
    if "CloudStack" in words:
        assert words in keystore("remove", "--alias", alias, status=2)


def test_verify_tells_what_is_in_the_store_and_what_expires(tmp_path: pathlib.Path) -> None:
    keystore = Commands(tmp_path)
    writing.make(tmp_path)
    for alias, days in (("soon", 5.0), ("later", 50.0), ("gone", -1.0)):
        file = tmp_path / f"{alias}.der"
        file.write_bytes(expiring(days))
        support.jdks()[0].keytool("-importcert", "-alias", alias, "-file", str(file), store=keystore.path)
    lines = keystore("verify").splitlines()
    assert lines[0].startswith(f"{keystore.path}: JKS, 1 PrivateKeyEntry, 4 trustedCertEntry, SHA-256 ")
    assert [line.rpartition(" on ")[0] for line in lines[1:]] == ["gone expired", "soon expires"]


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: pathlib.Path) -> None:
    keystore = Commands(tmp_path)
    two = "".join(pem.Certificate(support.certificate(name)).pem for name in ("one", "two"))
    cases = {
        two.encode(): "expected one certificate, found 2",
        pem.Certificate(expiring(-1)).pem.encode(): "the certificate expired on ",
        b"-----BEGIN PRIVATE KEY-----": "a block that begins with -----BEGIN PRIVATE KEY",
    }
    for content, words in cases.items():
        file = tmp_path / "file"
        file.write_bytes(content)
        assert words in keystore("import", "--alias", "mine", "--file", str(file), status=3)
    assert "cannot be read: no such" in keystore("import", "--alias", "m", "--file", "/nonexistent", status=2)
    one_line = tmp_path / "one-line"
    one_line.write_bytes(base64.b64encode(support.certificate("one")))
    keystore("import", "--alias", "mine", "--file", str(one_line))


def test_errors_of_the_store_end_with_their_status(keystore: Commands, tmp_path: pathlib.Path) -> None:
    before = keystore.path.read_bytes()
    keystore.password.write_text("wrong")
    assert f"{keystore.path} does not open with this password" in keystore("list", status=3)
    keystore.password.write_text("")
    assert "is empty; expected the keystore's password" in keystore("list", status=3)
    keystore.password.write_text(support.PASSWORD)
    lock = keystore.path.with_name(".cloud.jks.directdownload.lock")
    lock.mkdir()
    file = certificate_file(tmp_path, "one")
    assert str(lock) in keystore("import", "--alias", "mine", "--file", file, status=1)
    assert keystore.path.read_bytes() == before
    keystore.path.unlink()
    for arguments in (["list"], ["verify"], ["remove", "--alias", "mine"]):
        assert f"{keystore.path} does not exist" in keystore(*arguments, status=3)


def test_the_password_may_stand_in_agent_properties(tmp_path: pathlib.Path) -> None:
    path, properties = writing.make(tmp_path), tmp_path / "agent.properties"
    properties.write_text(f"host=10.0.0.1\nkeystore.passphrase={support.PASSWORD}\n")
    given = ("keystore", "list", "-o", "name", "--keystore", str(path), "--agent-properties", str(properties))
    assert directdownload(*given).stdout == "cloud\ncloudca\n"
    for arguments in (given[:-2], (*given, "--password-file", str(properties))):
        done = directdownload(*arguments)
        assert done.returncode == 2
        assert "Expected one of '--password-file' and '--agent-properties'" in done.stderr


def test_alias_and_file_of_verify_go_together(tmp_path: pathlib.Path) -> None:
    assert "Expected both '--alias' and '--file', or neither" in Commands(tmp_path)(
        "verify", "--alias", "mine", status=2
    )


@pytest.mark.parametrize("command", ["--help", "list", "import", "remove", "verify"])
def test_no_client_of_a_cluster_is_loaded(tmp_path: pathlib.Path, command: str) -> None:
    keystore = Commands(tmp_path)
    writing.make(tmp_path)
    options = ["--keystore", str(keystore.path), "--password-file", str(keystore.password)]
    more = {"import": ["--alias", "mine", "--file", certificate_file(tmp_path, "one")], "remove": ["--alias", "absent"]}
    found = imported("keystore", command, *([] if command == "--help" else options), *more.get(command, []))
    # rich is for the width of a table's cells
    assert set(found) <= {"rich"}
