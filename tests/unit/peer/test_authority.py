"""The authority of peers: what it signs, how its generations follow one another, and what a Secret may hold."""

import base64
import datetime
import json
import pathlib
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from tests.world.certificates import rsa_key

from directdownload.peer import authority as authorities
from directdownload.peer import certificates
from directdownload.peer.authority import BELIEVED, LIFE, ROTATION, SPREAD, Authority, AuthorityError, advanced

NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
NAME = "spiffe://system.directdownload/host/kvm-1"


def issued(authority: Authority, now: datetime.datetime = NOW, **fields: Any) -> x509.Certificate:
    key = fields.pop("key", None) or ec.generate_private_key(ec.SECP256R1()).public_key()
    purpose = fields.pop("purpose", certificates.SERVER)
    return certificates.certificate(authorities.issue(authority.current(now), key, NAME, purpose, now))


def believed(authority: Authority, found: x509.Certificate, now: datetime.datetime) -> bool:
    """Whether a host that has the bundle of `authority` takes `found` for the server of NAME."""
    try:
        bundle = certificates.authorities(authority.bundle)
        validity = certificates.check(found, name=NAME, purpose=certificates.SERVER, authorities=bundle)
    except certificates.CertificateError:
        return False
    return validity.covers(now)


def test_a_certificate_counts_from_an_hour_before_for_a_day_and_for_one_purpose() -> None:
    authority = advanced(None, NOW)
    found = issued(authority)
    assert found.not_valid_before_utc == NOW - HOUR
    assert found.not_valid_after_utc == NOW + LIFE
    assert list(found.subject) == []
    of = found.extensions.get_extension_for_class
    assert list(of(x509.SubjectAlternativeName).value) == [x509.UniformResourceIdentifier(NAME)]
    assert list(of(x509.ExtendedKeyUsage).value) == [certificates.SERVER]
    assert not of(x509.BasicConstraints).value.ca
    other = issued(authority, purpose=certificates.CLIENT)
    assert list(other.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [certificates.CLIENT]


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()], ids=["EC", "Ed25519"]
)
def test_openssl_believes_the_certificates_in_both_directions(
    tmp_path: pathlib.Path, key: certificates.PrivateKey
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority = advanced(None, now)
    contexts = []
    for side, purpose in (
        (ssl.PROTOCOL_TLS_SERVER, certificates.SERVER),
        (ssl.PROTOCOL_TLS_CLIENT, certificates.CLIENT),
    ):
        pem = authorities.issue(authority.current(now), key.public_key(), NAME, purpose, now)
        path = tmp_path / f"{purpose.dotted_string}.pem"
        path.write_bytes(pem.encode() + certificates.private_pem(key))
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=authority.bundle)
        contexts.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = contexts[0].wrap_bio(to_server, to_client, server_side=True)
    client = contexts[1].wrap_bio(to_client, to_server)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in (client, server):
        shown = end.getpeercert() or {}
        assert shown["subjectAltName"] == (("URI", NAME),)


def test_the_secret_holds_what_was_made_and_nothing_of_it_shows() -> None:
    authority = advanced(advanced(None, NOW), NOW + ROTATION)
    again = Authority.parse(authority.encoded())
    assert len(again.generations) == 2
    assert (again.bundle, again.keys) == (authority.bundle, authority.keys)
    assert believed(authority, issued(again), NOW)
    assert "PRIVATE" not in repr(again)


def test_a_lost_secret_is_a_new_authority_that_signs_at_once() -> None:
    before, after = advanced(None, NOW), advanced(None, NOW + HOUR)
    assert not believed(before, issued(after, NOW + HOUR), NOW + HOUR)
    assert believed(after, issued(after, NOW + HOUR), NOW + HOUR)


def test_a_new_generation_is_spread_for_a_day_before_it_signs_and_the_old_one_is_believed_until_all_has_expired() -> (
    None
):
    assert datetime.timedelta(days=1) == SPREAD
    assert BELIEVED > LIFE == datetime.timedelta(days=1)
    old = advanced(None, NOW)
    assert advanced(old, NOW + ROTATION - HOUR) is old
    begin = NOW + ROTATION
    both = advanced(old, begin)
    assert both.generations[0] is old.generations[0]
    assert [len(each) for each in (both.generations, certificates.authorities(both.bundle))] == [2, 2]
    # It has signed the warrants of copies that exist.
    assert both.keys == old.keys
    assert len(both.keys) == 1
    # Hosts that have not heard of the new one yet believe what is signed meanwhile.
    last = begin + SPREAD - HOUR
    assert advanced(both, last) is both
    assert both.current(last) is both.generations[0]
    assert believed(old, issued(both, last), last)
    switched = begin + SPREAD
    assert both.current(switched) is both.generations[1]
    assert not believed(old, issued(both, switched), switched)
    # What both have signed counts side by side for a day and longer.
    while last < switched + LIFE - HOUR:
        assert advanced(both, last) is both
        for signed in (begin + SPREAD - HOUR, switched):
            assert believed(both, issued(both, signed), max(signed, last)) is (max(signed, last) < signed + LIFE)
        last += HOUR
    assert advanced(both, switched + BELIEVED - HOUR) is both
    alone = advanced(both, switched + BELIEVED)
    assert alone.generations == both.generations[1:]


def test_rotations_go_on_for_years() -> None:
    authority, now = advanced(None, NOW), NOW
    seen = set()
    for _ in range(3 * 365 * 2):
        authority = advanced(authority, now)
        assert 1 <= len(authority.generations) <= 2
        assert authority.current(now).can_sign(now)
        assert advanced(authority, now) is authority
        seen.add(authority.current(now).certificate.serial_number)
        now += HOUR * 12
    assert len(seen) == 12 + 1


@pytest.mark.parametrize("away", [datetime.timedelta(days=100), datetime.timedelta(days=119), datetime.timedelta(400)])
def test_nobody_looked_for_months(away: datetime.timedelta) -> None:
    now = NOW + away
    authority = advanced(advanced(None, NOW), now)
    assert len(authority.generations) == 2
    assert authority.current(now).can_sign(now)
    assert believed(authority, issued(authority, now), now)


def test_a_clock_that_was_years_ahead_leaves_no_authority_that_cannot_sign() -> None:
    ahead = advanced(None, NOW + datetime.timedelta(days=4000))
    authority = advanced(ahead, NOW)
    assert believed(authority, issued(authority), NOW)
    assert advanced(authority, NOW) is authority


# --- what a Secret may hold


def _document(change: Callable[[dict[str, Any]], object]) -> bytes:
    told = json.loads(advanced(advanced(None, NOW), NOW + ROTATION).encoded())
    change(told)
    return json.dumps(told).encode()


def _set(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["generations"][1].__setitem__(name, value)


def _leaf() -> str:
    return certificates.pem(issued(advanced(None, NOW)))


def _odd_authority() -> str:
    """Of an RSA key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    builder = x509.CertificateBuilder(name, name, rsa_key().public_key(), 1, NOW, NOW + LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return certificates.pem(builder.sign(rsa_key(), hashes.SHA256()))


def _both(told: dict[str, Any]) -> str:
    return "".join(each["certificate"] for each in told["generations"])


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "deep": b"[" * 100000,
    "no object": b"[]",
    "a number": b"1",
    "not UTF-8": b"\xff\xfe",
    "too long": b" " * 70000,
    "another version": _document(lambda told: told.update(version=2)),
    "no generations": _document(lambda told: told.update(generations=[])),
    "not a list": _document(lambda told: told.update(generations={"a": 1})),
    "three": _document(lambda told: told["generations"].append(told["generations"][0])),
    "twice the same": _document(lambda told: told.update(generations=told["generations"][:1] * 2)),
    "no entry": _document(lambda told: told.update(generations=["a"])),
    "no certificate": _document(_set("certificate", None)),
    "certificate is no PEM": _document(_set("certificate", "-----BEGIN CERTIFICATE-----\n!")),
    "certificate of no authority": _document(_set("certificate", _leaf())),
    "certificate of an RSA key": _document(_set("certificate", _odd_authority())),
    "two certificates": _document(lambda t: t["generations"][1].update(certificate=_both(t))),
    "key of another": _document(lambda t: t["generations"][1].update(key=t["generations"][0]["key"])),
    "key is a certificate": _document(lambda t: t["generations"][1].update(key=t["generations"][1]["certificate"])),
    "key is no text": _document(_set("key", 1)),
    "key is not ASCII": _document(_set("key", "\ud800\u202e")),
    "grant key is EC": _document(lambda t: t["generations"][1].update(grantKey=t["generations"][1]["key"])),
    "key is Ed25519": _document(lambda t: t["generations"][1].update(key=t["generations"][1]["grantKey"])),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_secret_is_refused_in_one_line_without_a_key(data: bytes) -> None:
    with pytest.raises(AuthorityError) as caught:
        Authority.parse(data)
    message = str(caught.value)
    assert message.isprintable()
    assert 0 < len(message) < 200
    assert "PRIVATE" not in message


def test_a_byte_that_is_changed_is_refused_or_changes_nothing_that_counts() -> None:
    data = advanced(None, NOW).encoded()
    step = max(1, len(data) // 300)
    for position in range(0, len(data), step):
        broken = bytes((*data[:position], data[position] ^ 0x15, *data[position + 1 :]))
        try:
            Authority.parse(broken)
        except AuthorityError:
            continue


def test_keys_of_grants_are_told_as_base64_of_32_bytes() -> None:
    (key,) = advanced(None, NOW).keys
    assert len(base64.b64decode(key, validate=True)) == 32
    assert certificates.text_of_key(certificates.key_of_text(key)) == key
