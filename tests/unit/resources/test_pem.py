"""One certificate, however it was pasted; anything else is refused with words that never repeat it."""

import base64
import contextlib
import datetime
import pathlib
import subprocess
import textwrap
from collections.abc import Callable

import hypothesis
import jks
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import strategies
from tests.world import certificates, jdks
from tests.world.soak import ROUNDS

from directdownload.resources import pem

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
DER = certificates.der()
BARE = base64.b64encode(DER).decode()
PEM = "\n".join([BEGIN, *textwrap.wrap(BARE, 64), END, ""])
OTHER = certificates.pem("other.example.org")


def refusal(text: str) -> str:
    with pytest.raises(pem.CertificateError) as caught:
        pem.parse(text)
    return str(caught.value)


# --- what is accepted


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", "\r"),
        PEM.rstrip("\n"),
        f"{BEGIN}{BARE}{END}",
        f"{BEGIN} {BARE} {END}",
        " ".join([BEGIN, *textwrap.wrap(BARE, 76), END]),
        BARE,
        "\n".join(textwrap.wrap(BARE, 20)),
        f"\n\t {PEM}\n\n",
        PEM.replace("\n", " \n\t"),
    ],
    ids=["wrapped", "CRLF", "CR", "no newline", "one line", "spaces", "76", "bare", "bare lines", "around", "indented"],
)
def test_however_it_was_pasted_it_is_the_same_certificate(text: str) -> None:
    found = pem.parse(text)
    assert (found.der, found.pem) == (DER, PEM)
    assert found == pem.parse(PEM)


def test_bytes_of_any_size_are_written_in_lines_of_64() -> None:
    der = bytes(range(256)) * (1 << 16)
    begin, *lines, end, rest = pem.Certificate(der).pem.split("\n")
    assert (begin, end, rest) == (BEGIN, END, "")
    assert "".join(lines) == base64.b64encode(der).decode()
    assert {len(line) for line in lines[:-1]} == {64}
    assert 0 < len(lines[-1]) <= 64
    assert pem.Certificate(b"").pem == f"{BEGIN}\n{END}\n"


def test_facts_are_as_keytool_and_openssl_print_them() -> None:
    begins, ends = (datetime.datetime(year, 2, 3, 4, 5, 6, tzinfo=datetime.UTC) for year in (2024, 2049))
    found = pem.parse(certificates.pem("a,b", begins=begins, ends=ends))
    assert (found.subject, found.issuer, found.serial_number) == (r"CN=a\,b", r"CN=a\,b", "1234abcd")
    assert (found.not_before, found.not_after) == (begins, ends)
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
        input=found.pem,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert told.strip().partition("=")[2] == found.fingerprint_sha256


def patched(old: bytes, new: bytes) -> str:
    assert DER.count(old) >= 1
    assert len(old) == len(new)
    return base64.b64encode(DER.replace(old, new)).decode()


SERIAL = bytes.fromhex("02041234abcd")


@pytest.mark.parametrize(
    ("serial", "shown"),
    [("0204ff34abcd", "-cb5433"), ("020480000001", "-7fffffff"), ("020400800000", "800000")],
)
def test_a_serial_number_that_rfc_5280_forbids_is_told_and_does_not_matter(serial: str, shown: str) -> None:
    found = pem.parse(patched(SERIAL, bytes.fromhex(serial)))
    assert found.serial_number == shown


def test_serial_number_0_is_told() -> None:
    shorter = DER.replace(SERIAL, bytes.fromhex("020100"))
    lengths = {at: int.from_bytes(DER[at : at + 2]) - 3 for at in (2,)}
    changed = bytearray(shorter)
    changed[2:4] = lengths[2].to_bytes(2)
    # the tbsCertificate: one or two bytes of length
    if changed[5] == 0x81:
        changed[6] -= 3
    else:
        changed[6:8] = (int.from_bytes(changed[6:8]) - 3).to_bytes(2)
    assert pem.parse(base64.b64encode(bytes(changed)).decode()).serial_number == "0"


def test_names_are_one_bounded_printable_line() -> None:
    found = pem.parse(certificates.pem("a\nb\0c\u202ed" + "é"))
    assert found.subject == "CN=a\\0Ab\\00c\\E2\\80\\AEdé"


def test_a_name_of_40_kilobytes_is_cut() -> None:
    der = certificates.der("n" * 20000, attribute=NameOID.POSTAL_ADDRESS)
    found = pem.parse(base64.b64encode(der).decode())
    assert len(found.subject) == len(found.issuer) == pem.FIELD_LIMIT
    assert found.subject.startswith("2.5.4.16=nnn")
    assert found.subject.endswith("n…")


# --- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected one certificate in PEM, found nothing"),
        (" \n", "expected one certificate in PEM, found nothing"),
        (PEM + OTHER, "expected one certificate, found 2: create one object for each, with an alias of its own"),
        (PEM + "\n# comment", "expected one certificate and nothing else, found text after it"),
        (PEM + "XXXXX", "expected one certificate and nothing else, found text after it"),
        ("subject=CN\n" + PEM, "expected one certificate and nothing else, found text before it"),
        (PEM[:200], f"expected {END} at the end, found none: the certificate is cut off"),
        (BARE[:200], "expected one X.509 certificate, found base64 of something else (or of a part of one)"),
        (BARE + "XXXX", "expected one"),
        ("XXXX", "expected one X.509 certificate, found base64 of something else (or of a part of one)"),
        (f"{BEGIN}\nXXXX\n{END}", "expected one X.509 certificate, found base64 of something else"),
        ("certificate", "expected one certificate in PEM or base64, found something that is not base64"),
        ("žluťoučký", "expected one certificate in PEM or base64, found something that is not base64"),
        (f"{BEGIN}\n{END}", "expected one X.509 certificate, found base64 of something else"),
        (f"{END}\n{BEGIN}", f"expected {END} at the end, found none: the certificate is cut off"),
        ("A" * 65537, "expected one certificate, found 65537 characters (at most 65536)"),
        (PEM.replace("CERTIFICATE", "X509 CRL"), "found a block that begins with -----BEGIN X509 CRL"),
        (PEM.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "-----BEGIN TRUSTED CERTIFICATE"),
        (PEM.replace("CERTIFICATE", "PKCS7"), "found a block that begins with -----BEGIN PKCS7"),
        (base64.b64encode(DER + b"\0").decode(), "more bytes follow it; expected one certificate and nothing else"),
        (base64.b64encode(DER + DER).decode(), "more bytes follow it; expected one certificate and nothing else"),
        (base64.b64encode(b"\x30\x80" + DER).decode(), "a length that is left open"),
        (PEM.strip().replace("\n", "\\n"), "something that is not base64"),
    ],
)
def test_what_is_not_one_certificate_is_refused_with_the_words_that_help(text: str, words: str) -> None:
    assert words in refusal(text)


def test_a_private_key_is_refused_and_never_repeated() -> None:
    key = certificates.private_key()
    body = "".join(key.splitlines()[1:-1])
    for text in (key, PEM + key, key + PEM, body, key.replace("PRIVATE KEY", "EC PRIVATE KEY"), key.replace("\n", "")):
        words = refusal(text)
        assert not any(body[at : at + 12] in words for at in range(len(body) - 12))
    assert "-----BEGIN PRIVATE KEY" in refusal(key)


def test_what_stands_where_a_label_would_is_not_repeated() -> None:
    assert "hunter2" not in refusal(f"-----BEGIN hunter2-----\n{BARE}\n-----END hunter2-----")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a003020102", "a003020107", "this certificate is not accepted: it is of version 8; expected 3, or 1"),
        (
            "06082a8648ce3d030107",
            "05082a8648ce3d030107",
            "Java cannot read this certificate, nor a keystore that holds it: its public key: the parameters of an "
            "algorithm are a NULL with content",
        ),
        (
            "06082a8648ce3d030107",
            "06082a8648ce3d03017f",
            "its public key: an EC key of the curve 1.2.840.10045.3.1.127",
        ),
        (
            b"images.example.org".hex(),
            "ff" * 18,
            "this certificate is not accepted: the parser of this program cannot read it, although Java can: a value "
            "that it may not have, in subject",
        ),
    ],
    ids=["version", "no curve", "unknown curve", "name"],
)
def test_what_only_looks_like_a_certificate_is_refused_with_what_is_wrong_with_it(
    old: str, new: str, words: str
) -> None:
    assert words in refusal(patched(bytes.fromhex(old), bytes.fromhex(new)))


def test_a_signature_of_two_algorithms_is_refused() -> None:
    algorithm = bytes.fromhex("06082a8648ce3d040302")
    assert DER.count(algorithm) == 2
    once = DER.replace(algorithm, bytes.fromhex("06082a8648ce3d040303"), 1)
    both = DER.replace(algorithm, bytes.fromhex("06082a8648ce3d040303"))
    assert "it names two different algorithms for its signature" in refusal(base64.b64encode(once).decode())
    assert pem.parse(base64.b64encode(both).decode()).der == both


def test_java_reads_a_keystore_with_whatever_is_accepted(tmp_path: pathlib.Path) -> None:
    """Java refuses a whole keystore for one certificate in it that it cannot read."""
    extensions = (
        x509.BasicConstraints(ca=True, path_length=0),
        x509.SubjectAlternativeName([x509.DNSName("a.example.org")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    der = certificates.der(extensions=extensions)
    accepted = []
    for at, value in enumerate(der):
        for damaged in (value ^ 1, value ^ 0x80, 0):
            text = base64.b64encode(der[:at] + bytes([damaged]) + der[at + 1 :]).decode()
            with contextlib.suppress(pem.CertificateError):
                accepted.append(pem.parse(text).der)
    entries = [jks.TrustedCertEntry.new(f"ca-{number}", each) for number, each in enumerate(accepted)]
    store = tmp_path / "store.jks"
    jks.KeyStore.new("jks", entries).save(str(store), "changeit")
    listed = subprocess.run(
        ["keytool", *jdks.BRIEF_KEYTOOL, "-list", "-keystore", str(store), "-storepass", "changeit"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert f"contains {len(accepted)} entries" in listed.stdout, listed.stdout[-500:]


@pytest.mark.parametrize(
    ("impossible", "words"),
    [
        (b"241303000000Z", "its validity: a date or time of day that cannot be"),
        (b"240230000000Z", "a value that it may not have, in UtcTime of not before of validity"),
        (b"240203250000Z", "its validity: a date or time of day that cannot be"),
        (b"2402030000000", "its validity: a date that is not written as a UTCTime or GeneralizedTime"),
    ],
)
def test_dates_that_no_calendar_has_are_refused(impossible: bytes, words: str) -> None:
    der = certificates.der(begins=datetime.datetime(2024, 2, 3, tzinfo=datetime.UTC))
    changed = der.replace(b"240203000000Z", impossible)
    assert changed != der
    assert refusal(base64.b64encode(changed).decode()).endswith(words)


def test_an_unknown_key_algorithm_is_not_taken() -> None:
    """Java keeps such a key as it is, until one comes that knows it."""
    ec_public_key = bytes.fromhex("06072a8648ce3d0201")
    unknown = patched(ec_public_key, bytes.fromhex("06072a8648ce3d027f"))
    assert "its key is of the algorithm 1.2.840.10045.2.127; expected RSA, EC, Ed25519 or Ed448" in refusal(unknown)
    assert pem.decode(unknown).unreadable is None


def test_extensions_that_stand_there_twice_are_refused() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("a.example.org")])
    usage = x509.IssuerAlternativeName([x509.DNSName("a.example.org")])
    der = certificates.der(extensions=(names, usage))
    twice = der.replace(bytes.fromhex("0603551d12"), bytes.fromhex("0603551d11"))
    assert twice != der
    assert "its extension subjectAltName is there twice" in refusal(base64.b64encode(twice).decode())


# --- anything


def _either(text: str) -> None:
    """A correct answer or a clear error, and nothing else."""
    try:
        found = pem.parse(text)
    except pem.CertificateError:
        return
    assert pem.parse(found.pem) == found
    for value in (found.subject, found.issuer, found.serial_number):
        assert value.isprintable()
        assert len(value) <= pem.FIELD_LIMIT
    assert found.not_before.tzinfo is found.not_after.tzinfo is datetime.UTC


def _with(change: Callable[[bytearray, int, int], None]) -> Callable[[int, int], bytes]:
    def changed(at: int, value: int) -> bytes:
        found = bytearray(DER)
        change(found, at % len(DER), value)
        return bytes(found)

    return changed


def _set(data: bytearray, at: int, value: int) -> None:
    data[at] = value


def _cut(data: bytearray, at: int, value: int) -> None:
    del data[at : at + value]


def _insert(data: bytearray, at: int, value: int) -> None:
    data[at:at] = bytes([value]) * (value % 7 + 1)


@hypothesis.given(strategies.text() | strategies.binary(max_size=300).map(lambda b: base64.b64encode(b).decode()))
def test_any_text_is_refused_or_read(text: str) -> None:
    _either(text)
    _either(f"{BEGIN}\n{text}\n{END}")


@pytest.mark.parametrize("change", [_set, _cut, _insert])
@hypothesis.given(at=strategies.integers(0, 10**6), value=strategies.integers(0, 255))
@hypothesis.settings(max_examples=240 * ROUNDS)
def test_any_damage_to_a_certificate_is_refused_or_read(
    change: Callable[[bytearray, int, int], None], at: int, value: int
) -> None:
    _either(base64.b64encode(_with(change)(at, value)).decode())


@hypothesis.given(strategies.integers(0, len(PEM)), strategies.text(max_size=20))
def test_any_text_within_a_pem_is_refused_or_read(at: int, text: str) -> None:
    _either(PEM[:at] + text + PEM[at:])
