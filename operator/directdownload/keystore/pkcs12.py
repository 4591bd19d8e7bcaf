"""PKCS#12 keystores (RFC 7292) as Java's PKCS12KeyStore sees them. A change keeps all foreign parts.

Used by `formats`. A keystore is a list of ContentInfos, each with a list of bags. Unchanged parts are written again
byte for byte: every ContentInfo, and every other bag of a changed one, known or unknown. (Libraries that read a
keystore into keys and certificates and write it again lose a second private key, secret keys and attributes.)

An entry is replaced or removed in its place. A new entry goes into a separate ContentInfo at the end, which is not
encrypted, because certificates are public. keytool moves all certificates into its encrypted ContentInfo; this module
decrypts that, changes one bag, and encrypts it again with the same parameters. Salt and IV stay, so that the result
depends only on the content. The MAC is computed again with its own parameters; a keystore without MAC gets none.
"""

import codecs
import dataclasses
import datetime
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from directdownload.keystore import der, pbe
from directdownload.keystore.entries import Entry, EntryKind, StoreType
from directdownload.keystore.errors import PasswordWrongError, UnreadableError

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DATA = der.oid("1.2.840.113549.1.7.1")
_ENCRYPTED_DATA = der.oid("1.2.840.113549.1.7.6")
_SHROUDED_KEY_BAG = der.oid("1.2.840.113549.1.12.10.1.2")
_CERT_BAG = der.oid("1.2.840.113549.1.12.10.1.3")
_SECRET_BAG = der.oid("1.2.840.113549.1.12.10.1.5")
_X509_CERTIFICATE = der.oid("1.2.840.113549.1.9.22.1")
_FRIENDLY_NAME = der.oid("1.2.840.113549.1.9.20")
_LOCAL_KEY_ID = der.oid("1.2.840.113549.1.9.21")
#: Oracle's attribute: with it, Java trusts a certificate.
_TRUSTED_KEY_USAGE = der.oid("2.16.840.1.113894.746875.1.1")
_ANY_EXTENDED_KEY_USAGE = der.oid("2.5.29.37.0")


class _Bag(NamedTuple):
    """A SafeBag. `kind` is None if it is no entry by itself, such as a certificate of a key's chain."""

    raw: bytes
    kind: EntryKind | None
    alias: str | None = None
    key_id: bytes | None = None
    certificate: bytes | None = None


class _Attributes(NamedTuple):
    """The attributes of a bag that Java reads."""

    alias: str | None = None
    key_id: bytes | None = None
    trusted: bool = False


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Safe:
    """A ContentInfo and its bags. `wrap` makes the ContentInfo of other bags."""

    raw: bytes
    bags: tuple[_Bag, ...]
    plain: bool
    wrap: Callable[[bytes], bytes]

    def with_bags(self, bags: tuple[_Bag, ...]) -> "_Safe":
        content = der.write(der.SEQUENCE, *(bag.raw for bag in bags))
        return dataclasses.replace(self, raw=self.wrap(content), bags=bags)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Content:
    """An open keystore. `mac_data` makes the MacData of an AuthenticatedSafe; None: it has no MAC."""

    data: bytes
    safes: tuple[_Safe, ...]
    mac_data: Callable[[bytes], bytes] | None
    entries: Mapping[str, Entry]
    type: StoreType = "PKCS12"

    @property
    def room(self) -> int:
        """How many more entries are within the limits; negative: too many."""
        return der.COUNT_LIMIT - max(len(self.safes), sum(len(safe.bags) for safe in self.safes))

    def changed(self, put: Mapping[str, bytes], remove: Set[str], now: datetime.datetime) -> "Content":
        """The keystore with the trusted certificates `put`, without the aliases `remove`. The format has no dates."""
        pending = dict(put)
        safes: list[_Safe] = []
        # backwards, because Java uses the last of several bags with one alias
        for safe in reversed(self.safes):
            bags: list[_Bag] = []
            for bag in reversed(safe.bags):
                alias = bag.alias.lower() if bag.alias is not None else None
                if bag.kind is not EntryKind.TRUSTED_CERTIFICATE or (alias not in put and alias not in remove):
                    bags.append(bag)
                elif alias in pending:
                    bags.append(_trusted(alias, pending.pop(alias)))
            bags.reverse()
            if tuple(bags) == safe.bags:
                safes.append(safe)
            elif bags:
                safes.append(safe.with_bags(tuple(bags)))
        safes.reverse()
        if pending:
            added = tuple(_trusted(alias, pending[alias]) for alias in sorted(pending))
            last = safes[-1] if safes else None
            if last and last.plain and all(bag.kind is EntryKind.TRUSTED_CERTIFICATE for bag in last.bags):
                safes[-1] = last.with_bags(last.bags + added)
            else:
                safes.append(_Safe(b"", (), True, _wrap_plain).with_bags(added))
        authenticated = der.write(der.SEQUENCE, *(safe.raw for safe in safes))
        data = _pfx(authenticated, self.mac_data(authenticated) if self.mac_data else b"")
        return Content(data, tuple(safes), self.mac_data, _entries(safes))


def read(data: bytes, keys: pbe.Keys) -> Content:
    """Opens a keystore. Raises UnreadableError, PasswordWrongError."""
    version, content, *rest = der.fields(der.parse(data), der.INTEGER, der.SEQUENCE, more=1)
    if der.integer(version) != 3:
        raise UnreadableError(f"a PKCS#12 store of version {der.integer(version)}, expected 3")
    content_type, authenticated = _content_info(content)
    if content_type != _DATA:
        raise UnreadableError(
            "a PKCS#12 store that is signed with a key pair; only stores with a password are supported"
        )
    safe_data = der.expect(authenticated, der.OCTET_STRING).value
    mac_data = _check_mac(keys, rest[0], safe_data) if rest else None
    left = der.COUNT_LIMIT
    safes = []
    for info in der.children(der.only(safe_data), der.SEQUENCE):
        safe = _read_safe(keys, info, left)
        left -= len(safe.bags)
        safes.append(safe)
    return Content(data, tuple(safes), mac_data, _entries(safes))


def empty(password: str) -> Content:
    """A keystore without entries, with the protection of Java 17's keytool."""
    algorithm = der.write(der.SEQUENCE, der.write(der.OID, pbe.SHA256), der.write(der.NULL))
    authenticated = der.write(der.SEQUENCE)
    keys = pbe.Keys(password)
    salt, iterations = der.write(der.OCTET_STRING, secrets.token_bytes(20)), der.write_integer(10_000)
    mac_data = _mac_data(keys, der.parse(algorithm), der.parse(salt), der.parse(iterations))
    return Content(_pfx(authenticated, mac_data(authenticated)), (), mac_data, {})


def _pfx(authenticated: bytes, mac_data: bytes) -> bytes:
    return der.write(der.SEQUENCE, der.write_integer(3), _wrap_plain(authenticated), mac_data)


def _wrap_plain(content: bytes) -> bytes:
    """A ContentInfo of type data with `content`."""
    octets = der.write(der.OCTET_STRING, content)
    return der.write(der.SEQUENCE, der.write(der.OID, _DATA), der.write(der.CONTEXT_0, octets))


def _content_info(info: der.Element) -> tuple[bytes, der.Element]:
    """Type and content of a ContentInfo."""
    content_type, wrapped = der.fields(info, der.OID, der.CONTEXT_0)
    return content_type.value, _content(wrapped, "ContentInfo")


def _content(wrapped: der.Element, of: str) -> der.Element:
    """The only element in an EXPLICIT [0], of any tag. Raises UnreadableError."""
    found = der.children(wrapped, der.CONTEXT_0, 1)
    if not found:
        raise UnreadableError(f"damaged: a {of} without content")
    return found[0]


def _check_mac(keys: pbe.Keys, element: der.Element, data: bytes) -> Callable[[bytes], bytes]:
    """Checks the MAC of `data`, and returns a function for the MacData of other data. Raises PasswordWrongError."""
    digest_info, salt, *iterations = der.fields(element, der.SEQUENCE, der.OCTET_STRING, more=1)
    algorithm, digest = der.fields(digest_info, der.SEQUENCE, der.OCTET_STRING)
    count = iterations[0] if iterations else None
    if not hmac.compare_digest(pbe.mac(keys, algorithm, salt, count, data), digest.value):
        raise PasswordWrongError(" (or was changed without it)")
    return _mac_data(keys, algorithm, salt, count)


def _mac_data(
    keys: pbe.Keys, algorithm: der.Element, salt: der.Element, iterations: der.Element | None
) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        digest = der.write(der.OCTET_STRING, pbe.mac(keys, algorithm, salt, iterations, data))
        count = iterations.raw if iterations else b""
        return der.write(der.SEQUENCE, der.write(der.SEQUENCE, algorithm.raw, digest), salt.raw, count)

    return make


def _read_safe(keys: pbe.Keys, info: der.Element, limit: int) -> _Safe:
    content_type, content = _content_info(info)
    if content_type == _DATA:
        safe_contents = der.only(der.expect(content, der.OCTET_STRING).value)
        return _Safe(info.raw, _read_bags(safe_contents, limit), True, _wrap_plain)
    if content_type != _ENCRYPTED_DATA:
        raise UnreadableError("a part of it is encrypted with a key pair; only encryption with a password is supported")
    version, encrypted, *attributes = der.fields(content, der.INTEGER, der.SEQUENCE, more=1)
    inner_type, algorithm, octets = der.fields(encrypted, der.OID, der.SEQUENCE, der.CONTEXT_0_PRIMITIVE)
    cipher = pbe.cipher(keys, algorithm)

    def wrap(content: bytes) -> bytes:
        octets = der.write(der.CONTEXT_0_PRIMITIVE, cipher.encrypt(content))
        encrypted = der.write(der.SEQUENCE, inner_type.raw, algorithm.raw, octets)
        data = der.write(der.SEQUENCE, version.raw, encrypted, *(element.raw for element in attributes))
        return der.write(der.SEQUENCE, der.write(der.OID, _ENCRYPTED_DATA), der.write(der.CONTEXT_0, data))

    decrypted = cipher.decrypt(octets.value)
    try:
        safe_contents = der.expect(der.only(decrypted), der.SEQUENCE)
    except UnreadableError:
        # one of 256 wrong keys leaves valid padding
        raise PasswordWrongError from None
    return _Safe(info.raw, _read_bags(safe_contents, limit), False, wrap)


def _read_bags(safe_contents: der.Element, limit: int) -> tuple[_Bag, ...]:
    return tuple(_read_bag(element) for element in der.children(safe_contents, der.SEQUENCE, limit))


def _read_bag(element: der.Element) -> _Bag:
    """Reads a bag exactly as strictly as Java, which refuses the whole keystore for one bad bag."""
    bag_id, wrapped, *attributes = der.fields(element, der.OID, der.CONTEXT_0, more=1)
    content = _content(wrapped, "SafeBag")
    # Java ignores attributes that are no SET
    named = _attributes(attributes[0]) if attributes and attributes[0].tag == der.SET else _Attributes()
    kind = certificate = None
    if bag_id.value == _SHROUDED_KEY_BAG:
        kind = EntryKind.PRIVATE_KEY
    elif bag_id.value == _SECRET_BAG:
        _octets(content)
        kind = EntryKind.SECRET_KEY
    elif bag_id.value == _CERT_BAG:
        certificate = _octets(content)
        kind = EntryKind.TRUSTED_CERTIFICATE if named.trusted else None
    return _Bag(element.raw, kind, named.alias, named.key_id, certificate)


def _attributes(attributes: der.Element) -> _Attributes:
    """The attributes that Java reads, by their first value. Others are not checked: Windows writes an empty one."""
    alias = key_id = None
    trusted = False
    for attribute in der.children(attributes, der.SET):
        attribute_id, values = der.fields(attribute, der.OID, der.SET)
        if attribute_id.value == _FRIENDLY_NAME:
            alias = _text(_first(values, "friendlyName"))
        elif attribute_id.value == _LOCAL_KEY_ID:
            key_id = der.expect(_first(values, "localKeyId"), der.OCTET_STRING).value
        elif attribute_id.value == _TRUSTED_KEY_USAGE:
            for usage in der.children(values, der.SET):
                der.expect(usage, der.OID)
            trusted = True
    return _Attributes(alias, key_id, trusted)


def _first(values: der.Element, name: str) -> der.Element:
    found = der.children(values, der.SET)
    if not found:
        raise UnreadableError(f"damaged: an attribute {name} without a value")
    return found[0]


def _octets(content: der.Element) -> bytes:
    """The content of a CertBag or SecretBag. Java ignores the type: it reads every CertBag as X.509."""
    _, value = der.fields(der.expect(content, der.SEQUENCE), der.OID, der.CONTEXT_0)
    return der.inner(value, der.OCTET_STRING).value


def _text(element: der.Element) -> str:
    return der.expect(element, der.BMP_STRING).value.decode("utf-16-be", _AS_JAVA)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """U+FFFD as from Java's UTF-16 decoder: once for half a pair and the unit after it."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    half = 0xD8 <= error.object[error.start] < 0xDC
    return "\ufffd", min(error.start + (4 if half else 2), len(error.object))


_AS_JAVA = "directdownload.keystore.pkcs12"
codecs.register_error(_AS_JAVA, _replaced)


def _trusted(alias: str, certificate: bytes) -> _Bag:
    """A trusted certificate as keytool writes it, with anyExtendedKeyUsage."""
    value = der.write(der.CONTEXT_0, der.write(der.OCTET_STRING, certificate))
    cert_bag = der.write(der.SEQUENCE, der.write(der.OID, _X509_CERTIFICATE), value)
    attributes = der.write_set(
        _attribute(_FRIENDLY_NAME, der.write(der.BMP_STRING, alias.encode("utf-16-be"))),
        _attribute(_TRUSTED_KEY_USAGE, der.write(der.OID, _ANY_EXTENDED_KEY_USAGE)),
    )
    raw = der.write(der.SEQUENCE, der.write(der.OID, _CERT_BAG), der.write(der.CONTEXT_0, cert_bag), attributes)
    return _Bag(raw, EntryKind.TRUSTED_CERTIFICATE, alias, None, certificate)


def _attribute(oid: bytes, value: bytes) -> bytes:
    return der.write(der.SEQUENCE, der.write(der.OID, oid), der.write_set(value))


def _entries(safes: Sequence[_Safe]) -> dict[str, Entry]:
    """Entries by lower-case alias. Names, order and dates follow Java's PKCS12KeyStore.engineLoad."""
    found: dict[str, Entry] = {}
    owners: dict[str, bytes] = {}
    # certificates of keys; Java looks one up by localKeyId and alias, then by localKeyId, then by alias
    both: dict[tuple[bytes | None, str | None], bytes] = {}
    by_key_id: dict[bytes | None, bytes] = {}
    by_alias: dict[str | None, bytes] = {}
    private_keys = unnamed = 0
    for safe in safes:
        for position, bag in enumerate(safe.bags):
            private = bag.kind is EntryKind.PRIVATE_KEY
            private_keys += private
            key_id, alias = bag.key_id, bag.alias.lower() if bag.alias is not None else None
            if key_id is None and private_keys == 1 and (private or position == 0):
                # a keystore with one key needs no localKeyId: the first certificate is the key's
                key_id = b"01"
            if bag.kind is None and bag.certificate is not None:
                both.setdefault((key_id, alias), bag.certificate)
                by_key_id[key_id] = by_alias[alias] = bag.certificate
            if bag.kind is None or (private and key_id is None):
                continue
            if alias is None:
                unnamed += 1
                alias = str(unnamed)
            found[alias] = Entry(alias, bag.kind, bag.certificate, _created(bag))
            owners[alias] = key_id or b""
    for alias, entry in found.items():
        if entry.kind is EntryKind.PRIVATE_KEY:
            owner = owners[alias]
            certificate = both.get((owner, alias)) or by_key_id.get(owner) or by_alias.get(alias)
            found[alias] = dataclasses.replace(entry, certificate=certificate)
    return found


def _created(bag: _Bag) -> datetime.datetime | None:
    """The creation time: Java keeps it in the localKeyId of keys, in milliseconds, and has none for certificates."""
    prefix, _, milliseconds = (bag.key_id or b"").partition(b" ")
    if bag.kind is EntryKind.TRUSTED_CERTIFICATE or prefix != b"Time" or not milliseconds.isdigit():
        return None
    # 14 digits reach to the year 5138
    return _EPOCH + datetime.timedelta(milliseconds=int(milliseconds)) if len(milliseconds) <= 14 else None
