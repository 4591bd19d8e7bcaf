"""What a host's request for certificates is answered, whatever is in it, and how often."""

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from tests.world.certificates import rsa_key

from directdownload.peer import answers, certificates
from directdownload.peer.answers import PAUSE, Step, Terms
from directdownload.peer.authority import LIFE, ROTATION, SPREAD, advanced
from directdownload.peer.certificates import CertificateError
from directdownload.resources.peeridentity import PeerIdentity, PeerRequest

NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)
SIGNING = ed25519.Ed25519PrivateKey.generate()
SPIFFE = "spiffe://system.directdownload/host/"


def csr(key: Any = None, *, uris: tuple[str, ...] = (), subject: str = "", digest: Any = hashes.SHA256) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateSigningRequestBuilder(name)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, digest() if digest else None).public_bytes(serialization.Encoding.PEM).decode()


def request(server: str = "", client: str = "", signing: str = "") -> PeerRequest:
    key = certificates.text_of_key(SIGNING.public_key())
    return PeerRequest(csr=server or csr(), client_csr=client or csr(), signing_key=signing or key)


class Host:
    """A Host as the controller serves it: its request, and what it holds."""

    def __init__(self, name: str = "kvm-1", asked: PeerRequest | None = None) -> None:
        self.name = name
        self.asked = asked or request()
        self.present: PeerIdentity | None = None

    def look(self, terms: Terms, now: datetime.datetime) -> tuple[Step, datetime.datetime | None]:
        keys = answers.requested(self.asked)
        found = answers.held(terms, self.name, self.present)
        step, due = answers.step(terms, keys, found, self.present, now)
        if step is Step.ISSUE:
            self.present = answers.issue(terms, self.name, keys, now)
        elif step is Step.SPREAD and self.present is not None:
            self.present = answers.spread(terms, self.present)
        return step, due


def terms_of(**fields: Any) -> Terms:
    return Terms(**{"authority": advanced(None, NOW), "trust_domain": "system.directdownload", "port": 10471, **fields})


def names(pem: str) -> list[str]:
    found = certificates.certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name.value for name in found.value]


@pytest.mark.parametrize("uris", [(SPIFFE + "kvm-2",), (SPIFFE + "kvm-1", SPIFFE + "kvm-2"), ("https://example.org",)])
def test_a_request_for_the_name_of_another_host_gets_the_own_name(uris: tuple[str, ...]) -> None:
    asked = request(csr(uris=uris, subject="kvm-2"), csr(uris=uris))
    host, terms = Host(asked=asked), terms_of()
    assert host.look(terms, NOW)[0] is Step.ISSUE
    assert host.present is not None
    for pem in (host.present.server_certificate, host.present.client_certificate):
        assert names(pem) == [SPIFFE + "kvm-1"]
        assert list(certificates.certificate(pem).subject) == []
        (basic,) = [
            e.value for e in certificates.certificate(pem).extensions if isinstance(e.value, x509.BasicConstraints)
        ]
        assert not basic.ca


def test_each_certificate_has_the_key_and_the_purpose_of_its_request() -> None:
    server, client = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    host, terms = Host(asked=request(csr(server), csr(client))), terms_of()
    host.look(terms, NOW)
    assert host.present is not None
    for pem, key, purpose in (
        (host.present.server_certificate, server, certificates.SERVER),
        (host.present.client_certificate, client, certificates.CLIENT),
    ):
        found = certificates.certificate(pem)
        assert found.public_key() == key.public_key()
        assert list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    assert host.present.not_after == NOW + LIFE
    assert (host.present.trust_domain, host.present.port) == ("system.directdownload", 10471)


def _forged() -> str:
    """The key of one signed by another: its signature does not verify."""
    der = bytearray(base64.b64decode("".join(csr().splitlines()[1:-1])))
    der[-1] ^= 1
    text = base64.encodebytes(bytes(der)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def test_an_ed25519_key_is_served() -> None:
    keys = answers.requested(request(csr(SIGNING, digest=None)))
    assert keys.server == SIGNING.public_key()


BAD: dict[str, PeerRequest] = {
    "signature by another key": request(_forged()),
    "RSA": request(csr(rsa_key())),
    "another curve": request(csr(ec.generate_private_key(ec.SECP384R1()))),
    "RSA of the client": request(client=csr(rsa_key())),
    "no PEM": request("hello"),
    "a certificate": request(answers.issue(terms_of(), "a", answers.requested(request()), NOW).server_certificate),
    "an empty PEM": request("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"),
    "not ASCII": request("\u202e\x00" * 100),
    "long": PeerRequest.model_construct(csr="x" * 100000, client_csr=csr(), signing_key=""),
    "signing key is no base64": request(signing="!"),
    "signing key is short": request(signing=base64.b64encode(b"a" * 31).decode()),
    "signing key in another notation": request(signing=base64.b64encode(b"\xff" * 32).decode()[:-1]),
}


@pytest.mark.parametrize("asked", BAD.values(), ids=BAD)
def test_a_request_that_is_no_request_is_refused_in_one_line(asked: PeerRequest) -> None:
    with pytest.raises(CertificateError) as caught:
        answers.requested(asked)
    assert str(caught.value).isprintable()


def test_certificates_are_renewed_at_half_of_their_life_and_not_before() -> None:
    host, terms = Host(), terms_of()
    host.look(terms, NOW)
    first = host.present
    for hours in (0, 1, 11.9):
        assert host.look(terms, NOW + hours * 60 * MINUTE) == (Step.KEEP, NOW + LIFE / 2)
    assert host.present == first
    assert host.look(terms, NOW + LIFE / 2)[0] is Step.ISSUE
    assert host.look(terms, NOW + LIFE / 2) == (Step.KEEP, NOW + LIFE)


@pytest.mark.parametrize("hours", [24, 1000, -2, -1000], ids=["expired", "long ago", "not yet valid", "years ahead"])
def test_certificates_that_do_not_count_are_replaced_at_once(hours: float) -> None:
    host, terms = Host(), terms_of()
    host.present = answers.issue(terms, host.name, answers.requested(host.asked), NOW - hours * 60 * MINUTE)
    assert host.look(terms, NOW)[0] is Step.ISSUE


def test_other_keys_of_a_host_get_certificates_once_in_ten_minutes() -> None:
    host, terms = Host(), terms_of()
    assert host.look(terms, NOW)[0] is Step.ISSUE
    issued = 0
    for second in range(1, 3600, 5):
        host.asked = request()
        issued += host.look(terms, NOW + datetime.timedelta(seconds=second))[0] is Step.ISSUE
    assert issued == 5
    host.asked, before = request(), host.present
    seconds = datetime.timedelta(seconds=3600)
    assert host.look(terms, NOW + seconds) == (Step.KEEP, NOW + datetime.timedelta(seconds=3001) + PAUSE)
    assert host.present == before


def test_a_new_authority_serves_every_host_at_once() -> None:
    host, terms = Host(), terms_of()
    host.look(terms, NOW)
    another = terms_of(authority=advanced(None, NOW + MINUTE))
    assert host.look(another, NOW + MINUTE)[0] is Step.ISSUE
    assert host.look(another, NOW + MINUTE)[0] is Step.KEEP


def test_a_new_generation_is_spread_without_new_certificates_and_used_at_the_renewal() -> None:
    start = NOW + ROTATION
    terms = terms_of()
    host = Host()
    host.look(terms, start - MINUTE)
    both = terms_of(authority=advanced(terms.authority, start))
    before = host.present
    assert before is not None
    assert host.look(both, start)[0] is Step.SPREAD
    assert host.present is not None
    assert host.present.server_certificate == before.server_certificate
    assert host.present.keys == before.keys
    assert len(certificates.authorities(host.present.bundle)) == 2
    assert host.look(both, start) == (Step.KEEP, start - MINUTE + LIFE / 2)
    # The old generation signs one more time, the new one then; neither is interrupted.
    now = start
    while now < start + SPREAD + LIFE:
        host.look(both, now)
        found = answers.held(both, host.name, host.present)
        assert found is not None
        assert found.validity.covers(now)
        now += 30 * MINUTE
    assert host.present is not None
    newest = both.authority.generations[1].certificate
    certificates.certificate(host.present.server_certificate).verify_directly_issued_by(newest)


@pytest.mark.parametrize("change", ["host", "domain", "swapped"])
def test_certificates_for_something_else_are_not_taken_for_the_hosts(change: str) -> None:
    host, terms = Host(), terms_of()
    host.look(terms, NOW)
    assert host.present is not None
    if change == "host":
        host.name = "kvm-2"
    elif change == "domain":
        terms = terms_of(authority=terms.authority, trust_domain="other.directdownload")
    else:
        swapped = {
            "server_certificate": host.present.client_certificate,
            "client_certificate": host.present.server_certificate,
        }
        host.present = host.present.model_copy(update=swapped)
    assert host.look(terms, NOW)[0] is Step.ISSUE
    assert host.look(terms, NOW)[0] is Step.KEEP


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_whatever_stands_in_the_status_is_replaced(text: str) -> None:
    host, terms = Host(), terms_of()
    host.look(terms, NOW)
    assert host.present is not None
    host.present = host.present.model_copy(update={"client_certificate": text})
    assert host.look(terms, NOW)[0] is Step.ISSUE


def test_another_port_is_spread() -> None:
    host, terms = Host(), terms_of()
    host.look(terms, NOW)
    moved = terms_of(authority=terms.authority, port=4711)
    assert host.look(moved, NOW)[0] is Step.SPREAD
    assert host.present is not None
    assert host.present.port == 4711
    assert host.look(moved, NOW)[0] is Step.KEEP
