"""A certificate in a file, in other forms than PEM, and as it was published before."""

import base64
import codecs
import concurrent.futures
import pathlib
import subprocess
import warnings

import pytest
from cryptography.x509.oid import NameOID
from tests.unit.resources.test_pem import BARE, BEGIN, DER, END, OTHER, PEM, refusal
from tests.world import asn1, certificates

from directdownload.resources import pem


@pytest.mark.parametrize(
    "content",
    [
        PEM.encode(),
        BARE.encode(),
        PEM.encode("utf-8-sig"),
        PEM.replace("\n", "\r\n").encode("utf-16"),
        codecs.BOM_UTF16_BE + PEM.encode("utf-16-be"),
        DER,
    ],
    ids=["PEM", "base64", "UTF-8 with a mark", "UTF-16", "UTF-16, big", "DER"],
)
def test_a_file_is_read_as_it_is(content: bytes) -> None:
    assert pem.read(content).der == DER


def test_a_byte_order_mark_does_not_matter() -> None:
    assert pem.parse("\ufeff" + PEM).der == pem.decode("\ufeff" + PEM).der == DER


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found nothing"),
        (b"\xff\xfe", "found nothing"),
        (b"\xff\xfe\0", "found something that is neither"),
        (b"\x80\x81", "expected one certificate in PEM or DER, found something that is neither"),
        (DER[:-1], "found bytes of something else (or of a part of one)"),
        (DER + b"\n", "more bytes follow it; expected one certificate and nothing else"),
        (DER + bytes(65536), f"found {len(DER) + 65536} bytes (at most 65536)"),
        ("ž" * 20, "found something that is not base64"),
    ],
    ids=["empty", "mark", "half", "neither", "cut", "newline", "large", "letters"],
)
def test_a_file_that_holds_something_else_is_refused(content: bytes | str, words: str) -> None:
    with pytest.raises(pem.CertificateError) as caught:
        pem.read(content.encode() if isinstance(content, str) else content)
    assert words in str(caught.value)


def test_what_is_published_is_decoded_whatever_it_is() -> None:
    """It was judged when it was new; it must be found in keystores again to be taken out of them."""
    for der in (b"", b"\0", DER[:-1], b"\x30\x80" + DER):
        found = pem.decode(base64.b64encode(der).decode() if der else f"{BEGIN}\n{END}")
        assert found.der == der
        assert found.unreadable is not None
        assert found.fingerprint_sha256
        with pytest.raises(pem.CertificateError):
            _ = found.subject
    with pytest.raises(pem.CertificateError, match="found 2"):
        pem.decode(PEM + OTHER)


def test_the_pem_of_what_is_taken_fits_into_a_status() -> None:
    der = certificates.der("n" * 24400, attribute=NameOID.POSTAL_ADDRESS)
    bare = base64.b64encode(der).decode()
    assert len(bare) <= pem.TEXT_LIMIT
    assert f"found {len(pem.Certificate(der).pem)} characters in PEM (at most 65536)" in refusal(bare)


def _openssl(*arguments: str | pathlib.Path, stdin: bytes = b"") -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=120).stdout


def _pkcs7(form: str) -> bytes:
    chain = (PEM + OTHER).encode()
    return _openssl("crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", form, stdin=chain)


def _other_forms() -> dict[str, bytes]:
    return {
        "x509": PEM.replace("CERTIFICATE", "X509 CERTIFICATE").encode(),
        "trusted": _openssl("x509", "-trustout", "-addtrust", "serverAuth", stdin=PEM.encode()),
        "pkcs7": _pkcs7("PEM"),
        "pkcs7-signed": _pkcs7("PEM").replace(b" PKCS7", b" PKCS #7 SIGNED DATA"),
        "pkcs7-der": _pkcs7("DER"),
        "pkcs7-base64": base64.b64encode(_pkcs7("DER")),
    }


@pytest.mark.parametrize("form", ["x509", "trusted", "pkcs7", "pkcs7-signed", "pkcs7-der", "pkcs7-base64"])
def test_another_form_is_refused_with_the_command_that_converts_it(form: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "FILE").write_bytes(_other_forms()[form])
    with pytest.raises(pem.CertificateError) as caught:
        pem.read((tmp_path / "FILE").read_bytes())
    words, command, rest = str(caught.value).split("`")
    assert words.endswith(": convert it with ")
    assert rest == ""
    subprocess.run(["sh", "-ec", command], check=True, timeout=120, cwd=tmp_path)
    assert pem.read((tmp_path / "NEW-FILE").read_bytes()).der == DER


def test_a_warning_of_the_parser_reaches_nobody_whatever_the_thread() -> None:
    """It warns of serial numbers; filters belong to the process, and a test turns warnings into errors."""
    ders = [asn1.certificate(serial=asn1.integer(number)) for number in (-1, -2)]
    texts = [base64.b64encode(der).decode() for der in ders] * 200
    with concurrent.futures.ThreadPoolExecutor(8) as pool, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(pool.map(lambda text: pem.parse(text).serial_number, texts))
    assert set(found) == {"-1", "-2"}
    assert caught == []


def test_a_certificate_of_cert_manager_with_dns_names_only_says_what_to_do() -> None:
    """Its selfSigned issuer makes issuer and subject of the (empty) subject."""
    names = asn1.alternative_names(asn1.tlv(0x82, b"images.example.org"))
    der = asn1.certificate(issuer=asn1.sequence(), subject=asn1.sequence(), extensions=[names])
    assert refusal(base64.b64encode(der).decode()) == (
        "Java cannot read this certificate, nor a keystore that holds it: its issuer is empty: give the authority a "
        "subject, such as a common name"
    )
