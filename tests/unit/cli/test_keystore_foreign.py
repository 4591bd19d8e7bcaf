"""`directdownload keystore` on what others have put there: certificates that are odd, old, or unreadable to Java."""

import json
import pathlib
import shlex

import pytest
from tests.unit.cli.test_keystore import Commands
from tests.unit.cli.test_start import directdownload
from tests.unit.keystore import oddities, support, test_jks, test_pkcs12, writing
from tests.unit.keystore.test_pkcs12 import cert_bag, safe
from tests.world import certificates, odd_certificates

from directdownload.keystore.entries import StoreType
from directdownload.resources import pem

pytestmark = pytest.mark.long

KNOWN = support.certificate("known")


def holding(store_type: StoreType, **found: bytes) -> bytes:
    """A store with these trusted certificates, made by nobody who looks at them."""
    if store_type == "JKS":
        return test_jks.store(*(test_jks.trusted(alias.encode(), found[alias]) for alias in found))
    return test_pkcs12.store(safe(*(cert_bag(found[alias], alias=alias, trusted=True) for alias in found)))


def quiet(keystore: Commands, *arguments: str) -> str:
    """What the program prints, run as a user does: with the warnings that Python shows by itself."""
    options = ["--keystore", str(keystore.path), "--password-file", str(keystore.password)]
    done = directdownload("keystore", *arguments, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("store_type", writing.TYPES)
def test_certificates_of_others_are_listed_and_verified_without_a_word_on_stderr(
    store_type: StoreType, tmp_path: pathlib.Path
) -> None:
    keystore = Commands(tmp_path)
    others = {**oddities.FOREIGN, "name that is no text": odd_certificates.UNPARSED}
    odd = {name.replace(" ", "-").lower(): der for name, der in others.items()}
    keystore.path.write_bytes(holding(store_type, known=KNOWN, **odd))
    for jdk in support.jdks():
        assert jdk.keytool("-list", store=keystore.path).count("trustedCertEntry") == len(odd) + 1
    found = {item["alias"]: item for item in json.loads(quiet(keystore, "list", "-o", "json"))["items"]}
    assert {alias: item["fingerprintSHA256"] for alias, item in found.items() if alias in odd} == {
        alias: pem.fingerprint_sha256(der) for alias, der in odd.items()
    }
    assert found["name-that-is-no-text"]["subject"] is None, "not known, and no reason to fail"
    assert found["known"]["subject"] == "CN=known"
    assert {item["unreadable"] for item in found.values()} == {None}
    assert len(quiet(keystore, "list").splitlines()) == len(odd) + 2
    assert quiet(keystore, "verify").startswith(f"{keystore.path}: {store_type}, {len(odd) + 1} trustedCertEntry, ")
    for alias in odd:
        assert quiet(keystore, "remove", "--alias", alias) == f"{alias} was removed from {keystore.path}.\n"
    assert quiet(keystore, "list", "-o", "name") == "known\n"


@pytest.mark.parametrize(
    "options", ["", "-legacy", "-legacy -certpbe PBE-SHA1-3DES", "-legacy -certpbe PBE-SHA1-RC2-128"]
)
def test_old_algorithms_are_no_reason_for_words_on_stderr(options: str, tmp_path: pathlib.Path) -> None:
    keystore = Commands(tmp_path)
    keystore.path.write_bytes(test_pkcs12.openssl_store(tmp_path, *options.split()))
    assert quiet(keystore, "list", "-o", "name") == "own key\n"
    assert quiet(keystore, "verify").startswith(f"{keystore.path}: PKCS12, 1 PrivateKeyEntry, ")


@pytest.mark.parametrize("case", ["serial number 0", "negative serial number", "country of three letters"])
def test_an_odd_certificate_is_imported_and_compared_without_a_word_on_stderr(
    case: str, tmp_path: pathlib.Path
) -> None:
    keystore = Commands(tmp_path)
    file = tmp_path / "odd.pem"
    file.write_text(pem.Certificate(oddities.FOREIGN[case]).pem)
    arguments = ("--alias", "odd", "--file", str(file))
    assert quiet(keystore, "import", *arguments) == f"odd is now trusted in {keystore.path}.\n"
    assert quiet(keystore, "verify", *arguments).endswith("odd holds exactly that certificate.\n")


def test_a_warning_that_nothing_expected_is_not_shown(tmp_path: pathlib.Path) -> None:
    """Whatever library it comes from, also while the options are read."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, warnings\n"
        "plain = builtins.open\n"
        "def opened(*given, **named):\n"
        "    warnings.warn('odd', UserWarning, stacklevel=2)\n"
        "    return plain(*given, **named)\n"
        "builtins.open = opened\n"
    )
    keystore = Commands(tmp_path)
    file = tmp_path / "known.pem"
    file.write_text(pem.Certificate(KNOWN).pem)
    given = ("--keystore", str(keystore.path), "--password-file", str(keystore.password))
    named = ("keystore", "import", "--alias", "known", "--file", str(file), *given)
    done = directdownload(*named, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("store_type", writing.TYPES)
@pytest.mark.parametrize("case", oddities.UNREADABLE)
def test_a_certificate_that_java_cannot_read_is_named_and_can_be_removed(
    store_type: StoreType, case: str, tmp_path: pathlib.Path
) -> None:
    keystore = Commands(tmp_path)
    odd = oddities.UNREADABLE[case]
    keystore.path.write_bytes(holding(store_type, known=KNOWN, odd=odd))
    for arguments in (("-list",), ("-delete", "-alias", "odd")):
        for jdk in support.jdks():
            with pytest.raises(AssertionError, match="keytool error"):
                jdk.keytool(*arguments, store=keystore.path)
    reason = pem.Certificate(odd).unreadable
    assert reason
    items = json.loads(keystore("list", "-o", "json"))["items"]
    assert {item["alias"]: item["unreadable"] for item in items} == {"known": None, "odd": reason}
    line = (
        f"Java cannot read odd: {reason}; Java then opens no entry of the store; "
        "remove it: directdownload keystore remove --alias odd …"
    )
    options = ["--keystore", str(keystore.path), "--password-file", str(keystore.password)]
    done = directdownload("keystore", "list", *options)
    assert (done.returncode, done.stderr) == (0, f"{line}\n")
    assert len(done.stdout.splitlines()) == 3
    done = directdownload("keystore", "verify", *options)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (3, [line])
    assert done.stderr == f"Error: {keystore.path}: Java cannot read 1 of its entries, and then opens none\n"
    advised = shlex.split(line.partition("directdownload ")[2].removesuffix("…"))
    assert directdownload(*advised, *options).stdout == f"odd was removed from {keystore.path}.\n"
    assert writing.keytool_aliases(keystore.path) == {"known"}
    assert quiet(keystore, "verify").startswith(f"{keystore.path}: {store_type}, 1 trustedCertEntry, ")


def test_what_remove_does_not_take_is_not_advised_to_be_removed(tmp_path: pathlib.Path) -> None:
    keystore = Commands(tmp_path)
    key = test_jks.key(b"own", b"x", b"no certificate")
    keystore.path.write_bytes(test_jks.store(key, test_jks.trusted(b"cloudca", b"no certificate")))
    options = ["--keystore", str(keystore.path), "--password-file", str(keystore.password)]
    done = directdownload("keystore", "verify", *options)
    assert done.returncode == 3
    lines = done.stdout.splitlines()[1:]
    assert [line.partition(":")[0] for line in lines] == ["Java cannot read cloudca", "Java cannot read own"]
    assert all(line.endswith("; restore the store from a backup") for line in lines)
    assert "cannot read 2 of its entries" in done.stderr


def test_whether_an_alias_holds_a_certificate_is_said_also_of_a_store_that_java_does_not_open(
    tmp_path: pathlib.Path,
) -> None:
    keystore = Commands(tmp_path)
    keystore.path.write_bytes(holding("JKS", known=KNOWN, odd=b"no certificate"))
    file = tmp_path / "known.pem"
    file.write_text(pem.Certificate(KNOWN).pem)
    options = ["--keystore", str(keystore.path), "--password-file", str(keystore.password), "--file", str(file)]
    done = directdownload("keystore", "verify", *options, "--alias", "known")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "known holds exactly that certificate.")
    done = directdownload("keystore", "verify", *options, "--alias", "odd")
    assert done.returncode == 3
    assert "odd is not that certificate: expected " in done.stderr


@pytest.mark.parametrize("form", ["DER", "PEM", "BOM", "CRLF and BOM", "base64"])
def test_a_certificate_is_taken_from_a_file_of_any_form(form: str, tmp_path: pathlib.Path) -> None:
    keystore = Commands(tmp_path)
    text = pem.Certificate(KNOWN).pem
    file = tmp_path / "known"
    forms = {
        "DER": KNOWN,
        "PEM": text.encode(),
        "BOM": b"\xef\xbb\xbf" + text.encode(),
        "CRLF and BOM": b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        "base64": "".join(text.splitlines()[1:-1]).encode(),
    }
    file.write_bytes(forms[form])
    keystore("import", "--alias", "known", "--file", str(file))
    assert "known holds exactly that certificate." in keystore("verify", "--alias", "known", "--file", str(file))
    assert writing.keytool_aliases(keystore.path) == {"known"}


def test_a_file_that_is_no_certificate_in_any_form_is_refused(tmp_path: pathlib.Path) -> None:
    keystore = Commands(tmp_path)
    file = tmp_path / "file"
    for content in (b"\xff\xfe", KNOWN[:-1], b"0" + KNOWN, certificates.private_key().encode()):
        file.write_bytes(content)
        text = keystore("import", "--alias", "mine", "--file", str(file), status=3)
        assert text.startswith(f"Error: {file}: expected one "), text
    assert not keystore.path.exists()
