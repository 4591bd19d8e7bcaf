"""The trust bundle: what goes in, what is left out and named in the log, and what a revocation leaves alone."""

import logging
import pathlib
import ssl

import pytest
from cryptography import x509
from tests.unit.keystore import oddities, support, test_jks
from tests.world import certificates, stores

from directdownload.agent.keystore.bundle import Bundle
from directdownload.download.errors import SourceError
from directdownload.download.sources import tls
from directdownload.keystore import der
from directdownload.resources import pem

A, B, C = (stores.certificate(name).der for name in ("a", "b", "c"))
#: The reader takes them in the order of their bytes: this one comes behind all others, by its length.
LAST = certificates.der(
    extensions=(x509.SubjectAlternativeName([x509.DNSName(f"{n}.example.org") for n in range(64)]),)
)
#: Each of them OpenSSL reads while it is alone.
SPOILING = {
    "a byte behind it": A + b"x",
    "BER": b"\x30\x80" + der.only(A).value + b"\0\0",
    "the head of BER behind it": A + b"\x30\x80",
}
USELESS = {**SPOILING, **oddities.UNREADABLE, "two": A + B, "cut off": A[:-1]}


def path_of(directory: pathlib.Path) -> pathlib.Path:
    return directory / "trust" / "bundle.pem"


def trusted(directory: pathlib.Path) -> frozenset[bytes]:
    """As a download job reads it, and as OpenSSL then has it."""
    found = tls.trust(str(path_of(directory)))
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alone.load_verify_locations(cadata=b"".join(sorted(found.certificates)))
    assert alone.cert_store_stats()["x509"] == len(found.certificates), "one of them hides others"
    return found.certificates


def fingerprints(*found: bytes) -> set[str]:
    return {pem.fingerprint_sha256(each) for each in found}


@pytest.mark.parametrize("case", USELESS)
def test_one_that_would_cost_the_reader_others_is_left_out_and_named(
    case: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    Bundle(str(tmp_path)).write([B, USELESS[case], C])
    assert trusted(tmp_path) == {B, C}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(
        f"Trust bundle {path_of(tmp_path)}: left out certificate {pem.fingerprint_sha256(USELESS[case])}: "
    )
    assert ".c:" not in warnings[0], "a line of somebody's source"


@pytest.mark.parametrize("case", SPOILING)
def test_in_the_bundle_it_would_cost_the_others_though_java_reads_it(case: str, tmp_path: pathlib.Path) -> None:
    """Why it is left out."""
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_text("".join(pem.Certificate(each).pem for each in (B, SPOILING[case], LAST)))
    assert max(SPOILING[case], LAST) == LAST
    with pytest.raises((SourceError, AssertionError), match=r"is damaged|hides others"):
        trusted(tmp_path)
    path = tmp_path / "store"
    path.write_bytes(test_jks.store(test_jks.trusted(b"a", SPOILING[case])))
    jdks = support.jdks()
    assert jdks, "these tests need a JDK, on PATH or below /usr/lib/jvm"
    for jdk in jdks:
        assert pem.fingerprint_sha256(A) in jdk.keytool("-list", store=path)


def test_what_is_left_out_is_logged_once_for_each_change(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = Bundle(str(tmp_path))

    def logged(*found: bytes) -> int:
        caplog.clear()
        bundle.write(found)
        return sum("left out" in record.getMessage() for record in caplog.records)

    one, two = b"no certificate", A + b"x"
    assert logged(B, one) == 1
    assert logged(B, one) == 0
    assert logged(B, one, two) == 1, "also when the bundle stays the same"
    assert logged(C, one, two) == 0
    assert logged(C, two) == 0
    assert logged(C, one, two) == 1, "it has come back"


@pytest.mark.parametrize("case", oddities.FOREIGN)
def test_while_the_keystore_cannot_be_read_nothing_of_others_falls_out(case: str, tmp_path: pathlib.Path) -> None:
    """Some of them are no certificates to the parser that judges what people upload."""
    bundle = Bundle(str(tmp_path))
    bundle.write([A, oddities.FOREIGN[case], B])
    before = path_of(tmp_path).read_bytes()
    assert trusted(tmp_path) >= {oddities.FOREIGN[case]}
    bundle.drop(fingerprints(A))
    assert path_of(tmp_path).read_bytes() == before.replace(pem.Certificate(A).pem.encode(), b"")
    bundle.drop(fingerprints(oddities.FOREIGN[case]))
    assert trusted(tmp_path) == {B}


def test_what_is_dropped_is_told_by_its_bytes_and_the_rest_stays_byte_for_byte(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text = {each: pem.Certificate(each).pem.encode() for each in (A, B, C)}
    parts = [
        b"# of the host\n",
        text[A].replace(b"\n", b"\r\n"),
        b"-----BEGIN CERTIFICATE-----\nno base64: \xff\n-----END CERTIFICATE-----\n",
        text[B],
        text[C].removesuffix(b"\n"),
    ]
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_bytes(b"".join(parts))
    bundle = Bundle(str(tmp_path))
    bundle.drop(fingerprints(b"another"))
    stamp = bundle.stamp()
    assert path_of(tmp_path).read_bytes() == b"".join(parts)
    bundle.drop(fingerprints(b"another"))
    assert bundle.stamp() == stamp, "nothing is written"
    bundle.drop(fingerprints(A))
    assert path_of(tmp_path).read_bytes() == b"".join([parts[0], *parts[2:]])
    bundle.drop(fingerprints(C))
    assert path_of(tmp_path).read_bytes() == b"".join([parts[0], *parts[2:4]])
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"Trust bundle {path_of(tmp_path)}: removed certificates that are no longer trusted"] * 2


def test_a_revoked_one_does_not_stay_for_the_way_in_which_it_is_written(tmp_path: pathlib.Path) -> None:
    """The reader takes whatever OpenSSL's base64 takes: so must what removes."""
    block = pem.Certificate(A).pem.replace("\n", "\n!", 3) + pem.Certificate(B).pem
    path_of(tmp_path).parent.mkdir()
    path_of(tmp_path).write_text(block)
    assert trusted(tmp_path) == {A, B}
    Bundle(str(tmp_path)).drop(fingerprints(A))
    assert trusted(tmp_path) == {B}


def test_a_certificate_of_any_serial_number_gets_into_the_bundle(tmp_path: pathlib.Path) -> None:
    odd = [*oddities.FOREIGN.values(), certificates.der("x", serial=1 << 158)]
    Bundle(str(tmp_path)).write(odd)
    assert trusted(tmp_path) == set(odd)
