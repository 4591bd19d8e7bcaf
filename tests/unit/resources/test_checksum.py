"""Every notation of a checksum, and every string that must be refused."""

import hashlib

import pytest

from directdownload.resources.checksum import Algorithm, Checksum

SAMPLE = b"0123456789" * 8
DIGESTS = {algorithm: hashlib.new(algorithm.value, SAMPLE + b"\n").hexdigest() for algorithm in Algorithm}
LEADING_ZERO_MD5 = hashlib.md5(SAMPLE + b"b\n", usedforsecurity=False).hexdigest()
LEADING_ZERO_SHA256 = hashlib.sha256(SAMPLE + b"h\n").hexdigest()
SHA256 = DIGESTS[Algorithm.SHA256]
MD5 = DIGESTS[Algorithm.MD5]


def test_samples_are_the_known_ones() -> None:
    assert MD5 == "d141a8eeaf6bba779d1d1dc5102a81c5"
    assert DIGESTS[Algorithm.SHA1] == "49e4b2f4292b63e88597c127d11bc2cc0f2ca0ff"
    assert SHA256 == "c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"
    assert LEADING_ZERO_MD5.startswith("0")
    assert LEADING_ZERO_SHA256.startswith("0")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize(
    "notation",
    ["{{{title}}}{hex}", "{{{name}}}{hex}", "{name}:{hex}", "{title}:{hex}", "{lower}:{hex}", "{upper}:{hex}"],
)
@pytest.mark.parametrize("upper_hex", [False, True])
def test_notations(algorithm: Algorithm, notation: str, upper_hex: bool) -> None:
    digits = DIGESTS[algorithm]
    text = notation.format(
        title=algorithm.title,
        name=algorithm.value,
        lower=algorithm.title.lower(),
        upper=algorithm.value.upper(),
        hex=digits.upper() if upper_hex else digits,
    )
    assert Checksum.parse(text) == Checksum(algorithm, digits)
    assert str(Checksum.parse(text)) == f"{algorithm.value}:{digits}"


@pytest.mark.parametrize("text", [MD5, MD5.upper(), LEADING_ZERO_MD5])
def test_bare_digits_are_md5(text: str) -> None:
    assert Checksum.parse(text) == Checksum(Algorithm.MD5, text.lower())


def test_leading_zeros_stay() -> None:
    assert str(Checksum.parse("{SHA-256}" + LEADING_ZERO_SHA256)) == f"sha256:{LEADING_ZERO_SHA256}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHA256, "without an algorithm a checksum is MD5"),
        ("{}" + SHA256, "not a checksum algorithm"),
        (":" + SHA256, "not a checksum algorithm"),
        ("{MD5}" + SHA256, "expected 32 hexadecimal digits for MD5, found 64"),
        ("{SHA-256}" + SHA256 + "XXXXX", "nothing after them"),
        ("{SHA-256}" + SHA256 + "00", "found 66"),
        ("{SHA-256}" + SHA256[:-1], "found 63"),
        ("{SHA-256}", "found 0"),
        ("{SHA-256" + SHA256, "MD5"),
        ("{SHA3-256}" + SHA256, "not a checksum algorithm"),
        ("crc32:00000000", "not a checksum algorithm"),
        ("sha256:sha256:" + SHA256, "nothing after them"),
        ("{SHA-256}{SHA-256}" + SHA256, "nothing after them"),
        ("\u0660" * 32, "hexadecimal"),
        ("", "found 0"),
        ("z" * 32, "hexadecimal"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Checksum.parse(text)
    assert "for example sha256:" in str(caught.value)


def test_strength_order() -> None:
    titles = [algorithm.title for algorithm in sorted(Algorithm, key=lambda a: a.strength)]
    assert titles == ["MD5", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"]
    weak = Checksum(Algorithm.SHA1, DIGESTS[Algorithm.SHA1])
    assert weak.at_least(Algorithm.parse("MD5"))
    assert weak.at_least(Algorithm.parse("SHA-1"))
    assert not weak.at_least(Algorithm.parse("sha-224"))
