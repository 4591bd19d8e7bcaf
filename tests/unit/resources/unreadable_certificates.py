"""For each class of certificates that Java cannot read some examples, each with a harmless neighbour that it can read.

Used by `test_java_reads_what_we_accept`.
"""

from collections.abc import Mapping

from tests.world import asn1
from tests.world.asn1 import algorithm, bits, certificate, extension, integer, name, oid, sequence, tlv, uri

from directdownload.resources.x509.der import Class

_MGF1, _SHA256, _SHA3 = "1.2.840.113549.1.1.8", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.8"
_DSA, _DH, _X942, _X25519, _ED25519 = (
    "1.2.840.10040.4.1",
    "1.2.840.113549.1.3.1",
    "1.2.840.10046.2.1",
    "1.3.101.110",
    "1.3.101.112",
)
_ML_DSA_44, _HSS = "2.16.840.1.101.3.4.3.17", "1.2.840.113549.1.9.16.3.17"
_EMPTY = sequence()
_NAMES = asn1.alternative_names(tlv(0x82, b"images.example.org"))
_NAMES_LENIENT = asn1.alternative_names(tlv(0x82, b"images.example.org"), critical=False)
_MASK_SHA256 = tlv(0xA1, algorithm(_MGF1, algorithm(_SHA256, tlv(asn1.NULL))))


def _pss(*fields: bytes) -> bytes:
    return algorithm(asn1.PSS, sequence(*fields))


def _oaep(label: bytes) -> bytes:
    return algorithm("1.2.840.113549.1.1.7", sequence(tlv(0xA2, label)))


def _critical(dotted: str, *value: bytes, critical: bool = True) -> bytes:
    return certificate(extensions=[extension(dotted, sequence(*value), critical=critical)])


def _names(*found: bytes, critical: bool = True) -> bytes:
    return certificate(extensions=[asn1.alternative_names(*found, critical=critical)])


def _constraint(found: bytes, critical: bool = True) -> bytes:
    return _critical("2.5.29.30", tlv(0xA0, sequence(found)), critical=critical)


def _key(dotted: str, key: bytes, *parameters: bytes) -> bytes:
    return certificate(key=sequence(algorithm(dotted, *parameters), bits(key)))


def _dates(first: bytes, second: bytes = b"490101000000Z") -> bytes:
    return certificate(validity=sequence(tlv(asn1.UTC_TIME, first), tlv(asn1.UTC_TIME, second)))


def _explicit_parameters() -> bytes:
    field = sequence(oid("1.2.840.10045.1.1"), integer(23))
    curve = sequence(tlv(asn1.OCTET_STRING, b"\1"), tlv(asn1.OCTET_STRING, b"\1"))
    return sequence(integer(1), field, curve, tlv(asn1.OCTET_STRING, asn1.POINT), integer(29))


def _distribution_point(address: str, critical: bool = True) -> bytes:
    return _critical("2.5.29.31", sequence(tlv(0xA0, tlv(0xA0, uri(address)))), critical=critical)


def _hss(kind: int) -> bytes:
    return b"".join(number.to_bytes(4) for number in (1, kind, 1)) + bytes(48)


_WHOLE = certificate()

#: By a word for the test's name: class, what Java cannot read, and what it can.
UNREADABLE: Mapping[str, tuple[Class, bytes, bytes]] = {
    "long-length": (Class.ENCODING, certificate(serial=b"\x02\x81\x01\x07"), certificate(serial=b"\x02\x01\x07")),
    "length-of-five-bytes": (
        Class.ENCODING,
        certificate(serial=b"\x02\x85\0\0\0\0\x01\x07"),
        certificate(serial=b"\x02\x01\x07"),
    ),
    "tag-31": (Class.ENCODING, certificate(serial=b"\x1f\x01\x07"), certificate(serial=b"\x02\x01\0")),
    "signature-bits": (
        Class.ENCODING,
        certificate(signed=tlv(asn1.BIT_STRING)),
        certificate(signed=bits(b"\xff", unused=3)),
    ),
    "signature-unused-bits": (
        Class.ENCODING,
        certificate(signed=bits(b"\xff", unused=8)),
        certificate(signed=bits(b"\xff", unused=7)),
    ),
    "oid-empty": (
        Class.SIGNATURE_ALGORITHM,
        certificate(signature=sequence(tlv(asn1.OID))),
        certificate(signature=sequence(tlv(asn1.OID, b"\x2a"))),
    ),
    "oid-cut-off": (
        Class.SIGNATURE_ALGORITHM,
        certificate(signature=sequence(tlv(asn1.OID, b"\x2a\x83"))),
        certificate(signature=sequence(tlv(asn1.OID, b"\x2a\x83\x01"))),
    ),
    "oid-useless-byte": (
        Class.SIGNATURE_ALGORITHM,
        certificate(signature=sequence(tlv(asn1.OID, b"\x2a\x80\x01"))),
        certificate(signature=sequence(tlv(asn1.OID, b"\x2a\x81\x80\x01"))),
    ),
    "open-length": (
        Class.INDEFINITE,
        certificate(validity=b"\x30\x80" + asn1.VALIDITY[2:] + b"\0\0"),
        _WHOLE,
    ),
    "no-certificate": (Class.OUTLINE, sequence(integer(1), integer(2), integer(3)), _WHOLE),
    "cut-off": (Class.OUTLINE, _WHOLE[:-1], _WHOLE + b"\0"),
    "four-fields": (Class.OUTLINE, sequence(_WHOLE[4:], tlv(asn1.NULL)), _WHOLE),
    "version-text": (
        Class.VERSION,
        certificate(version=tlv(0xA0, tlv(asn1.UTF8_STRING, b"3"))),
        certificate(version=tlv(0xA0, integer(7))),
    ),
    "serial-empty": (Class.SERIAL_NUMBER, certificate(serial=tlv(asn1.INTEGER)), certificate(serial=integer(-1))),
    "algorithm-null": (
        Class.SIGNATURE_ALGORITHM,
        certificate(signature=algorithm("1.2.840.113549.1.1.11", tlv(asn1.NULL, b"\0"))),
        certificate(signature=algorithm("1.2.840.113549.1.1.11", tlv(asn1.NULL))),
    ),
    "algorithm-more": (
        Class.SIGNATURE_ALGORITHM,
        certificate(signature=algorithm("1.2.3", tlv(asn1.NULL), tlv(asn1.NULL))),
        certificate(signature=algorithm("1.2.3", sequence(tlv(asn1.NULL), tlv(asn1.NULL)))),
    ),
    "two-algorithms": (
        Class.TWO_ALGORITHMS,
        certificate(outer=asn1.RSA_SHA256),
        certificate(outer=algorithm("1.2.840.10045.4.3.2", tlv(asn1.NULL))),
    ),
    "pss-trailer": (
        Class.PSS_PARAMETERS,
        certificate(signature=_pss(tlv(0xA3, integer(2)))),
        certificate(signature=_pss(tlv(0xA3, integer(1)))),
    ),
    "pss-mask": (
        Class.PSS_PARAMETERS,
        certificate(signature=_pss(tlv(0xA1, algorithm(_MGF1, algorithm(_SHA3))))),
        certificate(signature=_pss(_MASK_SHA256)),
    ),
    "pss-other-mask": (
        Class.PSS_PARAMETERS,
        certificate(signature=_pss(tlv(0xA1, algorithm("1.2.3", algorithm(_SHA256))))),
        certificate(signature=_pss(tlv(0xA0, algorithm("1.2.3")))),
    ),
    "pss-salt": (
        Class.PSS_PARAMETERS,
        certificate(signature=_pss(tlv(0xA2, integer(-1)))),
        certificate(signature=_pss(tlv(0xA2, integer(32)))),
    ),
    "pss-unknown-field": (
        Class.PSS_PARAMETERS,
        certificate(signature=_pss(tlv(0xA4, integer(1)))),
        certificate(signature=_pss()),
    ),
    "oaep": (
        Class.ENCRYPTION,
        certificate(key=asn1.rsa_key(2048, identifier=algorithm("1.2.840.113549.1.1.7", sequence(tlv(0xA3))))),
        certificate(key=asn1.rsa_key(2048, identifier=algorithm("1.2.840.113549.1.1.7", sequence(_MASK_SHA256)))),
    ),
    "oaep-label": (
        Class.ENCRYPTION,
        certificate(key=asn1.rsa_key(2048, identifier=_oaep(algorithm("1.2.3", tlv(asn1.OCTET_STRING))))),
        certificate(
            key=asn1.rsa_key(2048, identifier=_oaep(algorithm("1.2.840.113549.1.1.9", tlv(asn1.OCTET_STRING))))
        ),
    ),
    "aes": (
        Class.ENCRYPTION,
        certificate(signature=algorithm("2.16.840.1.101.3.4.1", tlv(asn1.OCTET_STRING, bytes(8)))),
        certificate(signature=algorithm("2.16.840.1.101.3.4.1", tlv(asn1.OCTET_STRING, bytes(16)))),
    ),
    "password": (
        Class.ENCRYPTION,
        certificate(signature=algorithm("1.2.840.113549.1.5.3", sequence(integer(1)))),
        certificate(
            signature=algorithm("1.2.840.113549.1.5.3", sequence(tlv(asn1.OCTET_STRING, bytes(8)), integer(1)))
        ),
    ),
    "password-scheme": (
        Class.ENCRYPTION,
        certificate(signature=algorithm("1.2.840.113549.1.5.13", sequence())),
        certificate(signature=algorithm("1.2.840.113549.1.5.13", tlv(asn1.NULL))),
    ),
    "issuer-empty": (Class.ISSUER_EMPTY, certificate(issuer=_EMPTY), certificate(issuer=name(""))),
    "issuer-of-empty-parts": (
        Class.ISSUER_EMPTY,
        certificate(issuer=sequence(tlv(asn1.SET))),
        certificate(issuer=sequence(tlv(asn1.SET), name("a")[2:])),
    ),
    "subject-empty": (
        Class.SUBJECT_EMPTY,
        certificate(subject=_EMPTY, extensions=[_NAMES_LENIENT]),
        certificate(subject=_EMPTY, extensions=[_NAMES]),
    ),
    "subject-empty-without-names": (
        Class.SUBJECT_EMPTY,
        certificate(subject=_EMPTY, extensions=[]),
        certificate(subject=_EMPTY),
    ),
    "subject-empty-version-1": (
        Class.SUBJECT_EMPTY,
        certificate(version=b"", subject=_EMPTY),
        certificate(version=b""),
    ),
    "name-of-a-list": (
        Class.NAME,
        certificate(issuer=sequence(sequence(name("a")[4:]))),
        certificate(issuer=sequence(name("a")[2:], name("b")[2:])),
    ),
    "name-with-two-values": (
        Class.NAME,
        certificate(subject=sequence(tlv(asn1.SET, sequence(oid("2.5.4.3"), tlv(12, b"a"), tlv(12, b"b"))))),
        certificate(
            subject=sequence(tlv(asn1.SET, *(sequence(oid("2.5.4.3"), tlv(12, text)) for text in (b"a", b"b"))))
        ),
    ),
    "name-surrogates": (
        Class.NAME,
        certificate(subject=name("😀".encode("utf-16-be"), asn1.BMP_STRING)),
        certificate(subject=name("žluť".encode("utf-16-be"), asn1.BMP_STRING)),
    ),
    "time-unknown": (Class.VALIDITY, _dates(b"251301000000Z"), _dates(b"250230000000Z")),
    "time-without-zone": (Class.VALIDITY, _dates(b"250101000000"), _dates(b"250101000000+0100")),
    "three-dates": (
        Class.VALIDITY,
        certificate(validity=sequence(*[tlv(asn1.UTC_TIME, b"250101000000Z")] * 3)),
        certificate(validity=sequence(*[tlv(asn1.UTC_TIME, b"250101000000Z")] * 2)),
    ),
    "key-more": (
        Class.PUBLIC_KEY,
        certificate(key=sequence(asn1.EC_KEY[2:], tlv(asn1.NULL))),
        certificate(key=asn1.EC_KEY),
    ),
    "rsa-three-numbers": (
        Class.PUBLIC_KEY,
        _key(asn1.RSA, sequence(integer(1 << 2047), integer(3), integer(3))),
        _key(asn1.RSA, sequence(integer(1 << 2047), integer(3))),
    ),
    "dsa": (Class.PUBLIC_KEY, _key(_DSA, b"\x04\x01\x07"), _key(_DSA, integer(7))),
    "dsa-parameters": (
        Class.PUBLIC_KEY,
        _key(_DSA, integer(7), sequence(integer(7), integer(7))),
        _key(_DSA, integer(7), sequence(integer(7), integer(7), integer(7))),
    ),
    "diffie-hellman": (
        Class.PUBLIC_KEY,
        _key(_DH, integer(7)),
        _key(_DH, integer(7), sequence(integer(7), integer(7), integer(7))),
    ),
    "diffie-hellman-parameters": (
        Class.PUBLIC_KEY,
        _key(_DH, integer(7), sequence(*[integer(7)] * 4)),
        _key(_DH, integer(7), sequence(*[integer(7)] * 2)),
    ),
    "x942": (
        Class.PUBLIC_KEY,
        _key(_X942, integer(7), sequence(integer(7), integer(7), integer(1 << 160))),
        _key(_X942, integer(7), sequence(integer(7), integer(7))),
    ),
    "x25519-short": (Class.PUBLIC_KEY, _key(_X25519, bytes(31)), _key(_X25519, bytes(32))),
    "ed25519-short": (Class.PUBLIC_KEY, _key(_ED25519, bytes(31)), _key(_ED25519, bytes(32))),
    "ml-dsa-parameters": (
        Class.PUBLIC_KEY,
        _key(_ML_DSA_44, bytes(1312), sequence()),
        _key(_ML_DSA_44, bytes(1312)),
    ),
    "hss": (Class.PUBLIC_KEY, _key(_HSS, _hss(10)), _key(_HSS, _hss(5))),
    "rsa-short": (Class.RSA_LENGTH, certificate(key=asn1.rsa_key(504)), certificate(key=asn1.rsa_key(505))),
    "rsa-long": (Class.RSA_LENGTH, certificate(key=asn1.rsa_key(16385)), certificate(key=asn1.rsa_key(16384))),
    "rsa-exponent": (
        Class.RSA_EXPONENT,
        certificate(key=asn1.rsa_key(3073, (1 << 64) + 1)),
        certificate(key=asn1.rsa_key(3072, (1 << 64) + 1)),
    ),
    "rsa-exponent-1": (
        Class.RSA_EXPONENT,
        certificate(key=asn1.rsa_key(2048, 1)),
        certificate(key=asn1.rsa_key(2048, 3)),
    ),
    "ec-explicit": (
        Class.EC_PARAMETERS,
        _key(asn1.EC, asn1.POINT, _explicit_parameters()),
        _key(asn1.EC, asn1.POINT, oid(asn1.P256)),
    ),
    "ec-no-curve": (
        Class.EC_PARAMETERS,
        _key(asn1.EC, asn1.POINT, tlv(asn1.NULL)),
        _key("1.2.840.10045.2.2", asn1.POINT, tlv(asn1.NULL)),
    ),
    "ec-unknown-curve": (
        Class.EC_PARAMETERS,
        _key(asn1.EC, asn1.POINT, oid("1.2.840.10045.3.1.8")),
        _key(asn1.EC, b"\x04" + bytes(64), oid("1.3.132.0.10")),
    ),
    "ec-compressed": (
        Class.EC_POINT,
        _key(asn1.EC, b"\x03" + asn1.POINT[1:33], oid(asn1.P256)),
        _key(asn1.EC, b"\x04" + bytes(64), oid(asn1.P256)),
    ),
    "version-1-unique-identifier": (
        Class.VERSION_FIELDS,
        certificate(version=b"", unique=tlv(0x81, b"\0\1")),
        certificate(unique=tlv(0x81, b"\0\1")),
    ),
    "version-2-extensions": (
        Class.VERSION_FIELDS,
        certificate(version=tlv(0xA0, integer(1)), extensions=[]),
        certificate(version=tlv(0xA0, integer(1)), unique=tlv(0x82, b"\0\1")),
    ),
    "unique-identifier-empty": (
        Class.UNIQUE_IDENTIFIER,
        certificate(unique=tlv(0x81)),
        certificate(unique=tlv(0x81, b"\0")),
    ),
    "extensions-no-list": (
        Class.EXTENSIONS,
        certificate(tail=tlv(0xA3, tlv(asn1.OCTET_STRING))),
        certificate(tail=tlv(0xA4, tlv(asn1.OCTET_STRING))),
    ),
    "extension-without-value": (
        Class.EXTENSIONS,
        certificate(extensions=[sequence(oid("1.2.3"))]),
        certificate(extensions=[sequence(oid("1.2.3"), tlv(asn1.OCTET_STRING))]),
    ),
    "extension-flag-of-two-bytes": (
        Class.EXTENSIONS,
        certificate(extensions=[sequence(oid("1.2.3"), tlv(asn1.BOOLEAN, b"\0\0"), tlv(asn1.OCTET_STRING))]),
        certificate(extensions=[sequence(oid("1.2.3"), tlv(asn1.BOOLEAN, b"\1"), tlv(asn1.OCTET_STRING))]),
    ),
    "extension-of-another-type": (
        Class.EXTENSIONS,
        certificate(extensions=[sequence(oid("1.2.3"), sequence(tlv(asn1.OCTET_STRING, b"\0")))]),
        certificate(extensions=[sequence(oid("1.2.3"), tlv(0x24, tlv(asn1.OCTET_STRING, b"\0")))]),
    ),
    "extension-with-a-byte-too-many": (
        Class.CRITICAL_EXTENSION,
        certificate(extensions=[extension("2.5.29.19", sequence() + b"\0")]),
        certificate(extensions=[extension("2.5.29.19", sequence() + b"\0", critical=False)]),
    ),
    "extension-that-must-be-critical-twice": (
        Class.EXTENSION_TWICE,
        certificate(extensions=[extension("2.5.29.54", integer(0))] * 2),
        # Java does not read it when it is not critical
        certificate(extensions=[extension("2.5.29.54", integer(0), critical=False)] * 2),
    ),
    "extension-twice": (
        Class.EXTENSION_TWICE,
        certificate(extensions=[extension("1.2.3", b"", critical=False)] * 2),
        certificate(extensions=[extension(f"1.2.{arc}", b"", critical=False) for arc in (3, 4)]),
    ),
    "known-extension-twice": (
        Class.EXTENSION_TWICE,
        certificate(extensions=[_NAMES_LENIENT, _NAMES]),
        # what is not critical and cannot be read does not count
        certificate(extensions=[extension("2.5.29.17", b"", critical=False)] * 2),
    ),
    "basic-constraints": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.19", tlv(asn1.BOOLEAN, b"\xff"), tlv(asn1.NULL)),
        _critical("2.5.29.19", tlv(asn1.BOOLEAN, b"\xff"), tlv(asn1.NULL), critical=False),
    ),
    "basic-constraints-path": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.19", tlv(asn1.BOOLEAN, b"\xff"), integer(1 << 40)),
        _critical("2.5.29.19", tlv(asn1.BOOLEAN, b"\xff"), integer(0)),
    ),
    "key-usage-empty": (
        Class.CRITICAL_EXTENSION,
        certificate(extensions=[extension("2.5.29.15", b"")]),
        certificate(extensions=[extension("2.5.29.15", bits(b"\x06"))]),
    ),
    "policy-without-qualifiers": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.32", sequence(oid("1.2.3"), sequence())),
        _critical("2.5.29.32", sequence(oid("1.2.3"))),
    ),
    "policy-mappings": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.33", sequence(oid("1.2.3"))),
        _critical("2.5.29.33", sequence(oid("1.2.3"), oid("1.2.4"))),
    ),
    "policy-constraints": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.36", tlv(0x82, b"\1")),
        _critical("2.5.29.36", tlv(0x80, b"\1")),
    ),
    "inhibit-any-policy": (
        Class.CRITICAL_EXTENSION,
        certificate(extensions=[extension("2.5.29.54", integer(-2))]),
        certificate(extensions=[extension("2.5.29.54", integer(-1))]),
    ),
    "private-key-usage": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.16", tlv(0x80, b"250101000000Z")),
        _critical("2.5.29.16", tlv(0x80, b"20250101000000Z")),
    ),
    "private-key-usage-twice": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.16", *[tlv(0x80, b"20250101000000Z")] * 2),
        _critical("2.5.29.16", *[tlv(tag, b"20250101000000Z") for tag in (0x80, 0x81)]),
    ),
    "authority-key": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.35", tlv(0x83, b"\1")),
        _critical("2.5.29.35", tlv(0x80, b"\1")),
    ),
    "distribution-point-without-name": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.31", sequence(tlv(0x81, b"\1\2"))),
        _critical("2.5.29.31", sequence(tlv(0x81, b"\1\2"), tlv(0xA2, tlv(0x82, b"a")))),
    ),
    "extended-key-usage": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.37", integer(1)),
        _critical("2.5.29.37"),
    ),
    "issuing-distribution-point": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.28", tlv(0x87, b"\1")),
        _critical("2.5.29.28", tlv(0x81, b"\1")),
    ),
    "access-without-place": (
        Class.CRITICAL_EXTENSION,
        _critical("1.3.6.1.5.5.7.1.1", sequence(oid("1.2.3"))),
        _critical("1.3.6.1.5.5.7.1.1", sequence(oid("1.2.3"), tlv(0x82, b"a"))),
    ),
    "uri-space": (Class.CRITICAL_URI, _names(uri("ldap:///CN=My CA")), _names(uri("ldap:///CN=My%20CA"))),
    "uri-space-lenient": (Class.CRITICAL_URI, _names(uri("a b:c")), _names(uri("a b:c"), critical=False)),
    "uri-without-scheme": (Class.CRITICAL_URI, _names(uri("images.example.org")), _names(uri("urn:images"))),
    "uri-host-with-dot": (
        Class.CRITICAL_URI,
        _names(uri("https://images.invalid./")),
        _names(uri("https://images_.invalid./")),
    ),
    "uri-opaque": (Class.CRITICAL_URI, _names(uri("urn:")), _names(uri("urn:#"), critical=False)),
    "uri-opaque-letter": (Class.CRITICAL_URI, _names(uri('urn:a"b')), _names(uri("urn:a$b"))),
    "uri-no-authority": (Class.CRITICAL_URI, _names(uri("http://")), _names(uri("http:///"))),
    "uri-authority": (Class.CRITICAL_URI, _names(uri('http://a"b/')), _names(uri("http://a$b/"))),
    "uri-scheme": (Class.CRITICAL_URI, _names(uri("1a:b")), _names(uri("a1:b"))),
    "uri-fragment": (Class.CRITICAL_URI, _names(uri("a:b#c#d")), _names(uri("a:b#c%23d"))),
    "uri-path": (Class.CRITICAL_URI, _names(uri("http://a/[")), _names(uri("http://a/?["))),
    "uri-escape": (Class.CRITICAL_URI, _names(uri("http://a/%2")), _names(uri("http://a/%2f"))),
    "uri-port": (Class.CRITICAL_URI, _names(uri("http://[::1]:2147483648/")), _names(uri("http://[::1]:2147483647/"))),
    "uri-zone": (Class.CRITICAL_URI, _names(uri("http://[fe80::1%nowhere]/")), _names(uri("http://[fe80::1%1]/"))),
    "uri-bracket": (Class.CRITICAL_URI, _names(uri("http://[::g]/")), _names(uri("http://[fe80::1%1]:80/"))),
    "distribution-point-uri": (
        Class.CRITICAL_URI,
        _distribution_point("http://crl.example.org/a b.crl"),
        _distribution_point("http://crl.example.org/a b.crl", critical=False),
    ),
    "constraint-uri-with-scheme": (
        Class.CRITICAL_URI,
        _constraint(uri("http://test.local")),
        _constraint(uri(".test.local")),
    ),
    "constraint-uri-of-a-scheme": (
        Class.CRITICAL_URI,
        _constraint(uri("x:test.local")),
        _constraint(uri("test.local")),
    ),
    "constraint-uri-no-host": (
        Class.CRITICAL_URI,
        _constraint(uri("-test.local")),
        _constraint(uri("-test.local"), critical=False),
    ),
    "constraint-of-a-third-kind": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.30", tlv(0xA2, sequence(uri(".test.local")))),
        _critical("2.5.29.30", tlv(0xA1, sequence(uri(".test.local")))),
    ),
    "constraint-bound": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.30", tlv(0xA0, sequence(uri(".test.local"), tlv(0x82, b"\1")))),
        _critical("2.5.29.30", tlv(0xA0, sequence(uri(".test.local"), tlv(0x81, b"\1")))),
    ),
    "distribution-point-field": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.31", sequence(tlv(0xA0, tlv(0xA0, uri("http://a/"))), tlv(0x83, b"\0"))),
        _critical("2.5.29.31", sequence(tlv(0xA0, tlv(0xA0, uri("http://a/"))), tlv(0x81, b"\0"))),
    ),
    "distribution-point-field-twice": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.31", sequence(tlv(0xA0, tlv(0xA0, uri("http://a/"))), *[tlv(0x81, b"\0")] * 2)),
        _critical("2.5.29.31", *[sequence(tlv(0xA0, tlv(0xA0, uri("http://a/"))), tlv(0x81, b"\0"))] * 2),
    ),
    "distribution-point-of-a-third-kind": (
        Class.CRITICAL_EXTENSION,
        _critical("2.5.29.31", sequence(tlv(0xA0, tlv(0xA2, uri("http://a/"))))),
        _critical("2.5.29.31", sequence(tlv(0xA0, tlv(0xA1, name("a")[4:])))),
    ),
    "names-empty": (Class.CRITICAL_NAME, _names(), _names(critical=False)),
    "name-email": (Class.CRITICAL_NAME, _names(tlv(0x81, b"a@")), _names(tlv(0x81, b"a@.b"))),
    "name-address": (Class.CRITICAL_NAME, _names(tlv(0x87, bytes(5))), _names(tlv(0x87, bytes(16)))),
    "name-other": (
        Class.CRITICAL_NAME,
        _names(tlv(0xA0, oid("2.5.29.17"), tlv(0xA0, tlv(asn1.NULL)))),
        _names(tlv(0xA0, oid("1.2.3"), tlv(0xA0, tlv(asn1.NULL)))),
    ),
    "name-party": (
        Class.CRITICAL_NAME,
        _names(tlv(0xA5, tlv(0xA1, tlv(asn1.UTF8_STRING, b"a")))),
        _names(tlv(0xA5, tlv(0x81, tlv(asn1.UTF8_STRING, b"a")))),
    ),
    "name-party-of-three": (
        Class.CRITICAL_NAME,
        _names(tlv(0xA5, *[tlv(0x81 + at, tlv(asn1.UTF8_STRING, b"a")) for at in range(3)])),
        _names(tlv(0xA5, *[tlv(0x81 - at, tlv(asn1.UTF8_STRING, b"a")) for at in range(2)])),
    ),
    "name-party-twice": (
        Class.CRITICAL_NAME,
        _names(tlv(0xA5, *[tlv(0x81, tlv(asn1.UTF8_STRING, b"a"))] * 2)),
        _names(tlv(0xA5, *[tlv(at, tlv(asn1.UTF8_STRING, b"a")) for at in (0x82, 0x81)])),
    ),
    "name-type": (Class.CRITICAL_NAME, _names(tlv(0x89, b"a")), _names(tlv(0xA3, b"a"))),
    "name-directory": (
        Class.CRITICAL_EXTENSION,
        _names(tlv(0xA4, sequence(integer(1)))),
        _names(tlv(0xA4, name("a")), tlv(0xA4, name("b")[2:])),
    ),
}
