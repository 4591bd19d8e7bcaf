"""The reader and writer of DER: what it refuses is what a keystore must not make us do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directdownload.keystore import der
from directdownload.keystore.errors import UnreadableError


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_what_is_written_is_read_again(values: list[bytes]) -> None:
    data = der.write(der.SEQUENCE, *(der.write(der.OCTET_STRING, value) for value in values))
    element = der.only(data)
    assert element.raw == data
    assert [child.value for child in der.children(element, der.SEQUENCE)] == values


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536, 1 << 20])
def test_lengths_of_every_form(size: int) -> None:
    assert der.only(der.write(der.OCTET_STRING, bytes(size))).value == bytes(size)


@given(st.integers(min_value=0, max_value=(1 << 63) - 1))
def test_integers_are_read_as_written(number: int) -> None:
    assert der.integer(der.only(der.write_integer(number))) == number


def test_object_identifiers_are_encoded_as_openssl_does() -> None:
    # openssl asn1parse -genstr OID:2.16.840.1.113894.746875.1.1
    assert der.oid("2.16.840.1.113894.746875.1.1").hex() == "6086480186f966adca7b0101"
    assert der.oid("1.2.840.113549.1.7.1").hex() == "2a864886f70d010701"


def test_a_set_is_sorted_as_der_asks_for() -> None:
    assert der.write_set(b"\x04\x01b", b"\x02\x01\x05", b"\x04\x01a") == b"\x31\x09\x02\x01\x05\x04\x01a\x04\x01b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends in its header"),
        (b"\x30", "ends in its header"),
        (b"\x30\x03ab", "3 bytes where 2 are left"),
        (b"\x30\x82\x01", "an invalid length"),
        (b"\x30\x84\xff\xff\xff\xff", "4294967295 bytes where 0 are left"),
        (b"\x30\x85\x00\x00\x00\x00\x00", "an invalid length"),
        (b"\x30\x80\x00\x00", "indefinite lengths .BER."),
        (b"\x3f\x81\x01\x00", "unknown tag 0x3f"),
        (b"\x04\x00", "expected SEQUENCE, found OCTET STRING"),
        (b"\x30\x00\x00", "1 bytes follow"),
        (b"\x30\x04\x04\x03ab", "3 bytes where 2 are left"),
    ],
)
def test_what_is_no_der_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        der.children(der.only(data), der.SEQUENCE)


def test_a_child_cannot_reach_out_of_its_parent() -> None:
    data = b"\x30\x04\x30\x02\x04\x01" + b"secret"
    parent = der.parse(data)
    child = der.children(parent, der.SEQUENCE)[0]
    with pytest.raises(UnreadableError, match="1 bytes where 0 are left"):
        der.children(child, der.SEQUENCE)


def test_lists_have_a_limit() -> None:
    data = der.write(der.SEQUENCE, b"\x05\x00" * (der.COUNT_LIMIT + 1))
    with pytest.raises(UnreadableError, match="more than 5000 elements"):
        der.children(der.only(data), der.SEQUENCE)


def test_fields_are_checked_by_number_and_tag() -> None:
    element = der.only(der.write(der.SEQUENCE, der.write_integer(3), der.write(der.NULL)))
    assert len(der.fields(element, der.INTEGER, more=1)) == 2
    with pytest.raises(UnreadableError, match="expected 3 fields, found 2"):
        der.fields(element, der.INTEGER, der.NULL, der.NULL)
    with pytest.raises(UnreadableError, match="expected OCTET STRING, found NULL"):
        der.fields(element, der.INTEGER, der.OCTET_STRING)
    with pytest.raises(UnreadableError, match="more than 1 elements"):
        der.fields(element, der.INTEGER)
    with pytest.raises(UnreadableError, match="expected NULL, found nothing"):
        der.inner(der.only(der.write(der.CONTEXT_0)), der.NULL)


@pytest.mark.parametrize("size", [0, 9])
def test_integers_have_a_limit(size: int) -> None:
    with pytest.raises(UnreadableError, match=f"INTEGER of {size} bytes"):
        der.integer(der.only(der.write(der.INTEGER, bytes(size))))
