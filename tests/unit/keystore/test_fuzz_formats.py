"""Any bytes at all as a keystore: an answer that is right, or a KeystoreError, for bounded time and memory."""

import functools
import pathlib
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.keystore import support, test_formats, test_jks, test_pkcs12
from tests.unit.keystore.support import NOW, PASSWORD
from tests.unit.keystore.test_pkcs12 import bag, cert_bag, encrypted, identifier, key_bag, octets, safe, sequence, store
from tests.world import checkout
from tests.world.soak import ROUNDS

from directdownload.keystore import der, formats, pbe
from directdownload.keystore.entries import SIZE_LIMIT_BYTES, Changes, Entry
from directdownload.keystore.errors import KeystoreError, UnreadableError

pytestmark = pytest.mark.long

NEW = support.certificate("new")
BOUNDED = settings(max_examples=180 * ROUNDS, suppress_health_check=[HealthCheck.too_slow])


def answer(data: bytes) -> Mapping[str, Entry] | None:
    """The entries; None: a KeystoreError, in words. A store that opens is one that can be changed, or says why not."""
    try:
        found = formats.load(data, PASSWORD, name="store")
        after = found.changed(Changes({"new entry": NEW}), NOW)
    except KeystoreError as error:
        if re.search("None|Exception|Error|b'", str(error)):
            pytest.fail(f"a message of ours in words of Python's: {error}")
        return None
    assert formats.load(after, PASSWORD, name="store").entries["new entry"].trusts(NEW)
    return found.entries


@functools.cache
def real(name: str) -> bytes:
    """Stores with few iterations, that hundreds of them are read in a second."""
    ours = Changes({"one": support.certificate("one"), "two": support.certificate("two")})
    match name:
        case "jks":
            return test_formats.with_key("JKS")
        case "pkcs12":
            inner = [safe(key_bag("own", b"Time 1")), safe(cert_bag(support.own().der, key_id=b"Time 1"))]
            mac = pbe.mac(
                pbe.Keys(PASSWORD), der.only(test_pkcs12.SHA256), der.only(test_pkcs12.SALT), None, sequence(*inner)
            )
            made = store(*inner, mac=sequence(sequence(test_pkcs12.SHA256, octets(mac)), test_pkcs12.SALT))
        case "encrypted":
            scheme = test_pkcs12.PBES2, sequence(test_pkcs12.pbkdf2(1, 32), test_pkcs12.AES)
            content = sequence(key_bag("own", b"Time 1"), cert_bag(NEW, alias="new", trusted=True))
            cipher = pbe.cipher(pbe.Keys(PASSWORD), der.only(identifier(*scheme)))
            made = encrypted(*scheme, data=cipher.encrypt(content))
        case _:
            made = store(safe(key_bag("own", b"Time 1"), cert_bag(NEW, alias="new", trusted=True)))
    return formats.load(made, PASSWORD, name="store").changed(ours, NOW)


JKS_HEAD = b"\xfe\xed\xfe\xed\0\0\0\2"
#: Those whose digest covers all of their entries.
KEYED = ["jks", "pkcs12"]
ALL = [*KEYED, "encrypted", "no mac"]


@BOUNDED
@given(st.sampled_from([b"", b"\x30", JKS_HEAD, JKS_HEAD + b"\0\0\0\1\0\0\0"]), st.binary())
def test_random_bytes_give_a_clear_error(start: bytes, rest: bytes) -> None:
    assert not answer(start + rest)


@pytest.mark.parametrize("name", ALL)
@BOUNDED
@given(st.data())
def test_a_damaged_store_gives_its_entries_or_a_clear_error(name: str, data: st.DataObject) -> None:
    original = real(name)
    assert answer(original)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "drop", "double", "insert"])):
            case "flip":
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                damaged[at] = data.draw(st.sampled_from([0x00, 0x7F, 0x80, 0x81, 0x84, 0xFF, 0x30, 0x04]))
            case "cut":
                del damaged[max(at, 1) :]
            case "drop":
                del damaged[max(at, 1) : at + data.draw(st.integers(1, 20))]
            case "double":
                damaged[at:at] = damaged[at : at + data.draw(st.integers(1, 200))]
            case "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    found = answer(bytes(damaged))
    if found is not None and name in KEYED:
        assert found == formats.load(original, PASSWORD, name="store").entries


@pytest.mark.parametrize("name", ALL)
def test_a_store_cut_off_anywhere_is_unreadable(name: str) -> None:
    original = real(name)
    for size in range(0, len(original), 7):
        with pytest.raises(UnreadableError):
            formats.load(original[:size], PASSWORD, name="store")


def nested() -> bytes:
    """A SEQUENCE in a SEQUENCE, and so on, 100,000 times."""
    heads = []
    size = 0
    for _ in range(100_000):
        head = der.write(der.SEQUENCE, bytes(size))[: -size or None] if size < 128 else b"\x30\x83" + size.to_bytes(3)
        heads.append(head)
        size += len(head)
    return b"".join(reversed(heads))


#: As large as a store may be, made of as much as fits; each takes what a reader without limits would choke on.
ROOM = SIZE_LIMIT_BYTES - 1000
ATTRIBUTE = test_pkcs12.attribute("1.2.3", b"\x05\0")
LONG_ATTRIBUTE = sequence(der.write(der.OID, b"\x2a" + b"\xff\x80" * 2046 + b"\x01"), der.write(der.SET))
ENDLESS = der.write_integer((1 << 63) - 1)
BOMBS: dict[str, Callable[[], bytes]] = {
    "elements": lambda: store(safe(b"\x05\0" * (ROOM // 2))),
    "content infos": lambda: store(b"\x30\0" * (ROOM // 2)),
    "attributes": lambda: store(safe(bag("1.2.3", octets(b""), *[ATTRIBUTE] * 400_000))),
    "bags with attributes": lambda: store(safe(*[cert_bag(b"", *[ATTRIBUTE] * 30, alias="a", trusted=True)] * 5000)),
    "bags with most attributes": lambda: store(safe(*[bag("1.2.3", octets(b""), *[ATTRIBUTE] * 5000)] * 160)),
    "identifiers": lambda: store(safe(*[bag("1.2.3", octets(b""), *[LONG_ATTRIBUTE] * 200)] * 10)),
    "nested": lambda: store(safe(nested())),
    "salt": lambda: encrypted("1.2.840.113549.1.12.1.3", sequence(octets(bytes(ROOM)), der.write_integer(1000))),
    "iterations": lambda: encrypted("1.2.840.113549.1.12.1.6", sequence(octets(b"s"), ENDLESS)),
    "key length": lambda: store(mac=test_pkcs12.pbmac1(b"", size=(1 << 63) - 1)),
    "certificates": lambda: store(safe(*[cert_bag(b"x" * 1500, alias="a", trusted=True)] * 5000)),
    "jks entries": lambda: test_jks.store(count=(1 << 32) - 1) + bytes(ROOM),
    "jks certificates": lambda: test_jks.store(
        *(test_jks.trusted(b"%d" % number, bytes(1500)) for number in range(5000))
    ),
    "jks chain": lambda: test_jks.store(test_jks.key(b"a", b"x", count=(1 << 32) - 1) + bytes(ROOM)),
    "jks chains": lambda: test_jks.store(*(test_jks.key(b"%d" % number, b"x", *[b""] * 32) for number in range(5000))),
    "jks length": lambda: test_jks.store(test_jks.key(b"a", b"x")[:23] + b"\xff\xff\xff\xff" + bytes(ROOM)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_store_costs_bounded_memory_and_time(name: str) -> None:
    """In a process of its own that may use 30 s of processor and 256 MiB more than it has at its start."""
    program = f"from {__name__} import detonate; detonate({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=checkout.environment({}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def detonate(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) <= SIZE_LIMIT_BYTES or "jks" in name
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    answer(data)
