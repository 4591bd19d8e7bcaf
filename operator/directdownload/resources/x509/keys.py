"""Public keys as Java's certificate parser reads them. Used by `java` and `accepted`.

Java keeps a key of an algorithm that it does not know as it is.
"""

from typing import NamedTuple

from directdownload.resources.x509 import algorithms, der
from directdownload.resources.x509.algorithms import Algorithm
from directdownload.resources.x509.der import Bits, Class, Element, Flaw

ED25519, ED448 = "1.3.101.112", "1.3.101.113"
#: All names that Java has for RSA keys.
_RSA = frozenset({algorithms.RSA, algorithms.PSS, "1.2.840.113549.1.1", "2.5.8.1.1"})
#: X25519, X448 and those for signatures, by the bytes of a key.
_SIZES = {"1.3.101.110": 32, "1.3.101.111": 56, ED25519: 32, ED448: 57}
#: ML-DSA and ML-KEM, which JDK 25 knows: without parameters.
_BARE = frozenset({f"2.16.840.1.101.3.4.{arcs}" for arcs in ("3.17", "3.18", "3.19", "4.1", "4.2", "4.3")})
#: HSS/LMS, which the JDKs from 21 on know, with SHA-256.
_HSS = "1.2.840.113549.1.9.16.3.17"
_HSS_BYTES = 60


class PublicKey(NamedTuple):
    algorithm: Algorithm
    bits: Bits


class RsaNumbers(NamedTuple):
    modulus: int
    exponent: int


def read(element: Element) -> PublicKey:
    """A SubjectPublicKeyInfo. Raises Flaw."""
    fields = der.sequence(element, "a public key")
    found = PublicKey(algorithms.read(fields.next()), der.bit_string(fields.next()))
    _check(found)
    if fields:
        raise Flaw(Class.PUBLIC_KEY, "more than an algorithm and a key")
    return found


def rsa_numbers(key: PublicKey) -> RsaNumbers:
    fields = der.sequence(der.only(key.bits.value), "an RSA key")
    found = RsaNumbers(der.positive(fields.next()), der.positive(fields.next()))
    if fields:
        raise Flaw(Class.PUBLIC_KEY, "an RSA key has more than two numbers")
    return found


def _check(key: PublicKey) -> None:
    oid, parameters = key.algorithm
    if oid in _RSA:
        _check_rsa(rsa_numbers(key))
    elif oid == algorithms.EC:
        _check_point(key)
    elif oid in algorithms.DSA or oid in algorithms.DIFFIE_HELLMAN:
        if parameters is None and oid in algorithms.DIFFIE_HELLMAN:
            raise Flaw(Class.PUBLIC_KEY, "a Diffie-Hellman key without parameters")
        der.integer(der.first(key.bits.value))
    elif oid in _SIZES:
        if key.bits.bits != _SIZES[oid] * 8:
            raise Flaw(Class.PUBLIC_KEY, f"a key of {key.bits.bits} bits; its algorithm has {_SIZES[oid] * 8}")
    elif oid in _BARE:
        if parameters is not None:
            raise Flaw(Class.PUBLIC_KEY, "an ML-DSA or ML-KEM key with parameters")
    elif oid == _HSS:
        _check_hss(key.bits.value)


def _check_rsa(numbers: RsaNumbers) -> None:
    """sun.security.rsa.RSAKeyFactory.checkKeyLengths, which rounds up to bytes, and checkExponentRange."""
    bits = numbers.modulus.bit_length()
    rounded, exponent_bits = (bits + 7) // 8 * 8, numbers.exponent.bit_length()
    if not 512 <= rounded <= 16384:
        raise Flaw(Class.RSA_LENGTH, f"an RSA key of {bits} bits; Java reads 512 to 16384")
    if rounded > 3072 and exponent_bits > 64:
        raise Flaw(
            Class.RSA_EXPONENT,
            f"an RSA key of {bits} bits with an exponent of {exponent_bits} bits; with more than 3072 bits Java reads "
            "exponents of at most 64",
        )
    if not 3 <= numbers.exponent < numbers.modulus:
        raise Flaw(Class.RSA_EXPONENT, "an RSA key whose exponent is below 3 or above its modulus")


def _check_point(key: PublicKey) -> None:
    """Java does not check here whether the point is on the curve, and accepts an extra byte."""
    if key.algorithm.parameters is None:
        raise Flaw(Class.EC_PARAMETERS, "an EC key that does not name its curve")
    size = algorithms.CURVES[algorithms.curve(der.only(key.algorithm.parameters))]
    if key.bits.value[:1] != b"\x04" or (len(key.bits.value) - 1) // 2 != size:
        raise Flaw(Class.EC_POINT, "an EC key that is not written as an uncompressed point of its curve")


def _check_hss(key: bytes) -> None:
    if key[:1] == bytes([der.OCTET_STRING]) and len(key) == _HSS_BYTES + 2 and key[1] == _HSS_BYTES:
        key = key[2:]
    lms, ots = key[4:8], key[8:12]
    if len(key) != _HSS_BYTES or not 5 <= int.from_bytes(lms) <= 9 or not 1 <= int.from_bytes(ots) <= 4:
        raise Flaw(Class.PUBLIC_KEY, "an HSS/LMS key of a type that Java does not know")
