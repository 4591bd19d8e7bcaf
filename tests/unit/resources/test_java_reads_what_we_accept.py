"""Whatever is written into a keystore, Java can read: verdicts on certificates, held against real JDKs.

One entry that Java cannot read makes KeyStore.load fail for the whole keystore. Each certificate is put into a JKS by
the code that writes to hosts, those that are called readable into a PKCS#12 too, and every JDK loads them. Certificates
are those of the parser's own tests, those that Debian trusts, ours for each class, and damaged ones of all these.
"""

import base64
import datetime
import functools
import importlib.resources
import itertools
import pathlib
import random
import re
import subprocess
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
from tests.unit.resources import refused_certificates, unreadable_certificates
from tests.world import certificates, damage, jdks, soak

from directdownload.keystore import formats
from directdownload.keystore.entries import Changes, StoreType
from directdownload.resources import pem
from directdownload.resources.x509 import accepted, java
from directdownload.resources.x509.accepted import Reason
from directdownload.resources.x509.der import Class, Flaw

pytestmark = pytest.mark.long

NOW = datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC)
_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([^-]+)-----END")
_DEBIAN = pathlib.Path("/usr/share/ca-certificates")
#: Of one PKCS#12, which is a fraction of what we write.
_AT_ONCE = 500

#: Why what Java reads is not taken all the same. What has no reason here must be taken.
REVIEWED: Mapping[Reason, str] = {
    Reason.VERSION: "hardly anything is of version 2, and other versions do not exist, which Java does not check",
    Reason.SERIAL_NUMBER: "RFC 5280 has 20 bytes; numbers without bounds are shown in a status",
    Reason.NAME_STRING: "a name is made of strings; nothing can be shown of others",
    Reason.KEY_ALGORITHM: "no TLS server has such a key, and what Java keeps unread today, one to come may read",
    Reason.RSA_LENGTH: "Java trusts no key of less than 1024 bits",
    Reason.RSA_EXPONENT: "an even exponent is no key, and Java reads more than 64 bits of it with short keys only",
    Reason.CURVE: "Java trusts no curve of less than 224 bits, and the parser knows none but these",
    Reason.EC_POINT: "the key is another one than it says, although Java overlooks it",
    Reason.SIGNATURE_ALGORITHM: "nobody could verify it",
    Reason.SIGNATURE_PARAMETERS: "Java reads parameters of what it knows, and others in versions to come",
    Reason.TWO_ALGORITHMS: "RFC 5280 has them be the same, and it was never taken",
    Reason.UNIQUE_IDENTIFIER: "RFC 5280 has authorities make none",
    Reason.CRITICAL_EXTENSION: "no Java accepts a chain with it, and one to come may read it",
    Reason.TRAILING_BYTES: "Java drops them: the keystore would not have what was published",
    Reason.PARSER: "it was never taken: the parser of this program cannot read it",
}
#: Java may read these: each JDK reads open lengths at other places, and fails at others.
_NOT_EXACT = frozenset({Class.INDEFINITE})


def _store(store_type: StoreType, ders: Iterable[bytes]) -> bytes:
    put = {f"certificate-{number}": der for number, der in enumerate(ders)}
    return formats.empty(store_type, jdks.PASSWORD).changed(Changes(put=put), NOW)


def _flaw(der: bytes) -> Flaw | None:
    try:
        java.read(der)
    except Flaw as flaw:
        return flaw
    return None


def _reason(der: bytes) -> Reason | None:
    try:
        accepted.check(der)
    except accepted.Refusal as refusal:
        return refusal.reason
    return None


def _is_taken(der: bytes) -> bool:
    try:
        pem.read(der)
    except pem.CertificateError:
        return False
    return True


def _wrong(ders: Sequence[bytes]) -> list[str]:
    """What the verdicts on these certificates have wrong."""
    found = []
    for der, said in zip(ders, jdks.verdicts([_store("JKS", [der]) for der in ders]), strict=True):
        refused = {name: words for name, words in said.items() if words != "ok"}
        certificate, flaw = pem.Certificate(der), _flaw(der)
        shown = f"{refused or 'all JDKs read it'}: {base64.b64encode(der[:6000]).decode()}"
        if refused and certificate.unreadable is None:
            found.append(f"some JDK refuses what is called readable: {shown}")
        if flaw is not None and not refused and flaw.kind not in _NOT_EXACT:
            found.append(f"all JDKs read what is called unreadable ({flaw.kind}: {flaw.text}): {shown}")
        if (certificate.refusal is None) is not _is_taken(der):
            found.append(f"what is taken does not follow the verdict {certificate.refusal}: {shown}")
        if certificate.unreadable is None and (reason := _reason(der)) is not None and reason not in REVIEWED:
            found.append(f"refused for {reason}, which nobody has reviewed: {shown}")
    readable = [der for der in ders if pem.Certificate(der).unreadable is None]
    batches = [readable[at : at + _AT_ONCE] for at in range(0, len(readable), _AT_ONCE)]
    for said in jdks.verdicts([_store("PKCS12", batch) for batch in batches]):
        found.extend(f"{name} refuses a PKCS#12: {words}" for name, words in said.items() if words != "ok")
    return found


@functools.cache
def _vectors() -> tuple[bytes, ...]:
    """All that the parser's own tests have of certificates, good and bad, and of what is none."""
    root = importlib.resources.files("cryptography_vectors") / "x509"
    found: dict[bytes, None] = {}
    todo = [root]
    while todo:
        for entry in todo.pop().iterdir():
            if entry.is_dir():
                todo.append(entry)
                continue
            content = entry.read_bytes()
            if content[:1] == b"0":
                found[content] = None
            found.update((base64.b64decode(match[1]), None) for match in _PEM.finditer(content))
    return tuple(found)


@functools.cache
def _debian() -> tuple[bytes, ...]:
    files = sorted(_DEBIAN.rglob("*.crt"))
    return tuple(base64.b64decode(match[1]) for file in files for match in _PEM.finditer(file.read_bytes()))


def _ours() -> tuple[bytes, ...]:
    pairs = [(bad, good) for _, bad, good in unreadable_certificates.UNREADABLE.values()]
    return (*itertools.chain(*pairs), *(der for _, der in refused_certificates.NOT_TAKEN.values()), certificates.der())


def test_java_reads_all_of_the_parsers_certificates_that_we_accept_and_refuses_what_we_call_unreadable() -> None:
    found = _vectors()
    assert len(found) > 1000
    assert _wrong(found) == []


def test_every_authority_that_debian_trusts_is_taken_and_read() -> None:
    found = _debian()
    assert len(found) > 100, f"no certificates in {_DEBIAN}: run make tools"
    assert [pem.Certificate(der).refusal for der in found if not _is_taken(der)] == []
    assert _wrong(found) == []


_SELF_SIGNED = "openssl req -x509 -nodes -keyout key.pem -out FILE -days 900 -subj /CN=a"


_MAKES = (
    f"{_SELF_SIGNED} -key rsa.pem",
    f"{_SELF_SIGNED} -newkey rsa:1024 -sha1",
    f"{_SELF_SIGNED} -key rsa.pem -md5",
    f"{_SELF_SIGNED} -key rsa.pem -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -sha256",
    f"{_SELF_SIGNED} -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048",
    *(
        f"{_SELF_SIGNED} -newkey ec -pkeyopt ec_paramgen_curve:{curve}"
        for curve in ("P-256", "P-384", "P-521", "secp224r1", "secp256k1", "brainpoolP256r1", "brainpoolP512r1")
    ),
    f"{_SELF_SIGNED} -newkey ed25519",
    f"{_SELF_SIGNED} -newkey ed448",
    f"{_SELF_SIGNED} -newkey ed448 -addext nameConstraints=critical,permitted;DNS:example.org,permitted;URI:.a.org,"
    "permitted;email:example.org,excluded;IP:10.0.0.0/255.0.0.0 -addext certificatePolicies=critical,1.2.3 "
    "-addext policyConstraints=critical,requireExplicitPolicy:0 -addext extendedKeyUsage=critical,serverAuth "
    "-addext subjectAltName=critical,DNS:*.example.org,URI:https://a.example.org/?q,IP:::1,email:a@b,RID:1.2.3 "
    "-addext crlDistributionPoints=URI:http://a.example.org/crl -addext authorityInfoAccess=OCSP;URI:http://a/b",
)


def test_what_openssl_makes_is_taken(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rsa.pem").write_bytes(certificates.key_pem(certificates.rsa_key()))
    made = []
    for line in _MAKES:
        done = subprocess.run(line.split(), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        made.append(pem.read((tmp_path / "FILE").read_bytes()).der)
    assert _wrong(made) == []


def test_what_openssl_makes_of_a_request_is_taken_as_of_version_1(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key.pem").write_bytes(certificates.key_pem(certificates.rsa_key()))
    for command in (
        "openssl req -new -key key.pem -out request -subj /O=x/CN=a",
        "openssl x509 -req -in request -signkey key.pem -days 900 -out FILE",
    ):
        subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True, timeout=120)
    found = pem.read((tmp_path / "FILE").read_bytes())
    assert java.read(found.der).version == java.V1
    assert _wrong([found.der]) == []


@pytest.mark.parametrize("word", unreadable_certificates.UNREADABLE)
def test_what_java_cannot_read_is_named_and_its_harmless_neighbour_is_not(word: str) -> None:
    kind, unreadable, readable = unreadable_certificates.UNREADABLE[word]
    flaw = _flaw(unreadable)
    assert flaw is not None
    assert flaw.kind is kind, flaw.text
    assert _flaw(readable) is None


def test_real_jdks_refuse_both_stores_with_each_of_the_classes_and_open_those_of_its_neighbour() -> None:
    """The whole keystore, with a certificate in it that has nothing wrong."""
    assert {kind for kind, _, _ in unreadable_certificates.UNREADABLE.values()} == set(Class)
    types: tuple[StoreType, ...] = ("JKS", "PKCS12")
    asked, stores = [], []
    for word, (_, unreadable, readable) in unreadable_certificates.UNREADABLE.items():
        for store_type, (bad, der) in itertools.product(types, ((True, unreadable), (False, readable))):
            asked.append((word, store_type, bad))
            stores.append(_store(store_type, [certificates.der(), der]))
    wrong = [
        (question, said)
        for question, said in zip(asked, jdks.verdicts(stores), strict=True)
        if question[2] is all(words == "ok" for words in said.values())
    ]
    assert wrong == []


@pytest.mark.parametrize("word", refused_certificates.NOT_TAKEN)
def test_what_is_not_on_the_list_is_refused_with_its_reason_and_taken_from_no_host(word: str) -> None:
    reason, der = refused_certificates.NOT_TAKEN[word]
    with pytest.raises(accepted.Refusal) as caught:
        accepted.check(der)
    assert caught.value.reason is reason, caught.value.text
    certificate = pem.Certificate(der)
    assert certificate.unreadable is None
    assert certificate.refusal == f"this certificate is not accepted: {caught.value.text}"


def test_our_own_hold_and_every_reason_is_shown_and_reviewed() -> None:
    assert {reason for reason, _ in refused_certificates.NOT_TAKEN.values()} == set(Reason) == set(REVIEWED)
    assert _wrong(_ours()) == []


@pytest.mark.soak
@pytest.mark.parametrize("number", soak.EACH_ROUND)
def test_damaged_certificates_are_read_by_java_or_called_unreadable(number: int) -> None:
    chance = random.Random(soak.seed_of(number))
    whole = [der for der in (*_vectors(), *_debian(), *_ours()) if len(der) < 4000 and _flaw(der) is None]
    damaged = {damage.damaged(chance.choice(whole), whole, chance) for _ in range(3000)}
    ders = sorted(der for der in damaged if der)
    assert sum(_flaw(der) is None for der in ders) > 500
    assert _wrong(ders) == []


def test_whatever_the_bytes_are_there_is_an_answer_in_one_line_and_no_other_error() -> None:
    """Nor a warning, and no panic of the parser."""
    chance = random.Random(3)
    whole = [der for der in (*_vectors(), *_ours()) if len(der) < 4000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5000):
            _answers(damage.damaged(chance.choice(whole), whole, chance))
        for size in (*range(40), 1000):
            _answers(chance.randbytes(size))
            _answers(b"\x30\x82" + chance.randbytes(size))


def _answers(der: bytes) -> None:
    certificate = pem.Certificate(der)
    tells = [functools.partial(getattr, certificate, name) for name in ("subject", "issuer", "serial_number")]
    reads = [functools.partial(pem.read, der), functools.partial(pem.parse, base64.b64encode(der).decode())]
    told = [certificate.unreadable, certificate.refusal, *map(_told, tells)]
    assert all(words is None or (words.isprintable() and len(words) <= pem.FIELD_LIMIT) for words in told)
    assert certificate.unreadable is None or certificate.refusal == certificate.unreadable
    if certificate.refusal is None:
        assert [ask() for ask in reads] == [certificate] * 2
        assert certificate.not_before.tzinfo is certificate.not_after.tzinfo is datetime.UTC
    for ask in reads:
        assert certificate.refusal is None or _told(ask).isprintable()


def _told(ask: Callable[[], object]) -> str:
    """What it says, or the error of ours that it raises."""
    try:
        return str(ask())
    except pem.CertificateError as error:
        return str(error)
