"""The one reader of DER, by those who read with it: a keystore's is as lenient as Java's, a certificate's as strict."""

import pytest

from directdownload.keystore import der as keystore
from directdownload.keystore.errors import UnreadableError
from directdownload.resources.x509 import der as certificate


@pytest.mark.parametrize("length", ["8101", "820001", "8400000001"])
def test_a_length_may_be_longer_than_needed_in_a_keystore_only(length: str) -> None:
    data = bytes.fromhex(f"04{length}78")
    assert keystore.only(data).value == b"x"
    with pytest.raises(certificate.Flaw, match="longer than needed") as caught:
        certificate.only(data)
    assert caught.value.kind is certificate.Class.ENCODING


@pytest.mark.parametrize(
    ("data", "words", "kind"),
    [
        ("04", "ends within a field", certificate.Class.ENCODING),
        ("1f0100", r"a tag that Java does not know .0x1f", certificate.Class.ENCODING),
        ("30800000", "left open .BER.", certificate.Class.INDEFINITE),
        ("04850000000001", "no length that can be", certificate.Class.ENCODING),
        ("0403ffff", "a field of 3 bytes where 2 are left", certificate.Class.ENCODING),
    ],
)
def test_what_is_no_der_is_a_flaw_and_unreadable(data: str, words: str, kind: certificate.Class) -> None:
    with pytest.raises(certificate.Flaw, match=words) as caught:
        certificate.only(bytes.fromhex(data))
    assert caught.value.kind is kind
    with pytest.raises(UnreadableError):
        keystore.only(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "empty, cut off or too long"),
        ("2a86", "empty, cut off or too long"),
        ("2a" * 4097, "empty, cut off or too long"),
        ("2a8001", "a useless byte"),
    ],
)
def test_both_refuse_the_same_object_identifiers(value: str, words: str) -> None:
    data = keystore.write(keystore.OID, bytes.fromhex(value))
    with pytest.raises(certificate.Flaw, match=words):
        certificate.oid(certificate.only(data))
    with pytest.raises(UnreadableError, match="an invalid OBJECT IDENTIFIER"):
        keystore.expect(keystore.only(data), keystore.OID)
    good = keystore.write(keystore.OID, keystore.oid("2.16.840.1.113894.746875.1.1"))
    assert certificate.oid(certificate.only(good)) == "2.16.840.1.113894.746875.1.1"
    keystore.expect(keystore.only(good), keystore.OID)
