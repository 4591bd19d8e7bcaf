"""Damage to real certificates: changed bytes; fields removed, doubled, swapped or replaced, with matching lengths."""

import copy
import dataclasses
import random
from collections.abc import Sequence

from tests.world import asn1

_NUMBERS = (b"", b"\0", b"\1", b"\x7f", b"\x80", b"\0\x80", b"\xff", b"\0\1", b"\xff\xff", b"\1\0\1")
_LARGE_NUMBERS = (b"\x7f\xff\xff\xff", b"\0\x80\0\0\0", b"\x80\0\0\0", b"\xff\x7f\xff\xff\xff", b"\1" * 9)
_TEXTS = tuple(
    b". a@ a@. @b http://a.example/ http://a_b/ http://a./ urn:x ldap:///CN=a http://[::1]/ http://[::g]/ .example.org "
    b"example.org http://a:99999999999/x http://a%zz/ http://%41/ http: //a :a 1:a http:// http:///x http://1.2.3.4/ "
    b"http://1.2.3.256 http://a-/ http://u@h:1/p?q#f x#y http://[fe80::1%1]/ http://[fe80::1%nowhere]/ ex%61mple.org "
    b"-a.org http://123/ http://a.1/ mailto:a@b http://a:/ http://@a/ http://a@b@c/ http://a]b/ "
    b"http://[1:2:3:4:5:6:1.2.3.4]/ http://[::1.2.3.04]/ a:b:c".split()
)
_OTHER_TEXTS = (b"a b", b"\xff\xfe", b"ldap:///CN=a b", b"http://a/#\xff", b"\xd8\x3d\xde\x00", b"\xd8\0\xd8\0\xdc\0")
_TIMES = tuple(
    b"250101000000Z 2501010000Z 250101000000+0100 250230000000Z 20250101000000Z 202501010000Z 20250101000000.5Z "
    b"20250101000000.123456789Z 20250101000000.Z 250101240000Z 250101000060Z 2501010000+0100 20250101000000,5+0100 "
    b"00000101000000Z 250132000000Z 2501010000000Z 20250101000000.5 20250101000000".split()
)
_OIDS = tuple(
    asn1.oid(dotted)[2:]
    for dotted in (
        asn1.RSA,
        asn1.EC,
        asn1.PSS,
        asn1.P256,
        "1.3.132.0.34",
        "1.3.101.110",
        "1.3.101.112",
        "1.3.101.113",
        "1.2.840.10040.4.1",
        "1.2.840.10046.2.1",
        "1.2.840.113549.1.3.1",
        "1.2.840.113549.1.1.8",
        "1.2.840.113549.1.1.11",
        "2.16.840.1.101.3.4.2.8",
        *(f"2.5.29.{arc}" for arc in (14, 15, 16, 17, 18, 19, 20, 21, 27, 28, 29, 30, 31, 32, 33, 35, 36, 37, 46, 54)),
        "1.3.6.1.5.5.7.1.1",
        "1.3.6.1.5.5.7.1.11",
        "2.16.840.1.113730.1.1",
    )
)
_TAGS = bytes.fromhex("0102030405060a0c13141617181e1c24303180818283848586878889a0a1a2a3a4a51f41e4")
_CONSTRUCTED, _CONTEXT = 0x20, 0x80


@dataclasses.dataclass
class Node:
    """One element; `prefix` precedes the content of an OCTET STRING or BIT STRING that contains elements."""

    tag: int
    value: "bytes | list[Node]"
    prefix: bytes = b""

    @property
    def encoded(self) -> bytes:
        value = self.value if isinstance(self.value, bytes) else b"".join(child.encoded for child in self.value)
        return asn1.tlv(self.tag, self.prefix, value)


def damaged(certificate: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """`certificate` with one to three changes, after some of its extensions became critical."""
    root = _parse(certificate)
    if root is None:
        return certificate
    _make_critical(root, chance)
    if chance.random() < 0.25:
        return _flip(root.encoded if chance.random() < 0.5 else certificate, chance)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3))):
        places = _places(root)
        if places:
            _change(*chance.choice(places), others, chance)
    return root.encoded


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at, kind = chance.randrange(len(changed)), chance.random()
        if kind < 0.6:
            changed[at] = chance.choice((changed[at] ^ 1 << chance.randrange(8), chance.randrange(256), 0, 0xFF, 0x30))
        elif kind < 0.8:
            del changed[at : at + chance.randrange(1, 4)]
        else:
            changed[at:at] = chance.randbytes(chance.randrange(1, 4))
    return bytes(changed)


def _change(siblings: list[Node], at: int, others: Sequence[bytes], chance: random.Random) -> None:
    node, kind = siblings[at], chance.random()
    any_value = (*_NUMBERS, *_LARGE_NUMBERS, *_TEXTS, *_OTHER_TEXTS, *_TIMES)
    if kind < 0.12:
        del siblings[at]
    elif kind < 0.2:
        siblings.insert(at, copy.deepcopy(node))
    elif kind < 0.3:
        node.tag = chance.choice(_TAGS)
    elif kind < 0.35:
        node.tag ^= chance.choice((0x20, 0x80, 0x40, 1, 2))
    elif kind < 0.4:
        node.value, node.prefix = b"", b""
    elif kind < 0.48:
        foreign = _parse(chance.choice(others))
        if foreign is not None:
            parents, index = chance.choice(_places(foreign))
            siblings[at] = parents[index]
    elif kind < 0.54:
        siblings.insert(at, Node(chance.choice(_TAGS), chance.choice(any_value)))
    elif isinstance(node.value, list):
        _change_list(node.value, chance)
    else:
        node.value = _other_value(node.tag, node.value, chance)


def _change_list(children: list[Node], chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.3:
        children.append(Node(chance.choice(_TAGS), chance.choice((*_NUMBERS, *_TEXTS))))
    elif kind < 0.5:
        chance.shuffle(children)
    elif kind < 0.7 and children:
        children.pop()
    else:
        children.clear()


def _other_value(tag: int, value: bytes, chance: random.Random) -> bytes:
    if tag == asn1.INTEGER:
        return chance.choice((*_NUMBERS, *_LARGE_NUMBERS))
    if tag in (asn1.UTC_TIME, 0x18):
        return chance.choice(_TIMES)
    if tag == asn1.OID:
        return chance.choice((*_OIDS, b"", b"\x80\1\0", b"\x2a\x80"))
    if tag == asn1.BOOLEAN:
        return chance.choice((b"\xff", b"\0", b"", b"\1", b"\0\0"))
    if tag == asn1.BIT_STRING:
        return chance.choice(
            (b"", b"\0", b"\7\x80", b"\x08\0", b"\3\xff", value[:-1], value + b"\0", b"\1" + value[1:])
        )
    if tag & 0xC0 == _CONTEXT:
        return chance.choice((*_TEXTS, *_OTHER_TEXTS, *_NUMBERS, bytes(4), bytes(5), bytes(8), bytes(16), bytes(32)))
    return chance.choice((*_TEXTS, *_OTHER_TEXTS, *_NUMBERS))


def _make_critical(root: Node, chance: random.Random) -> None:
    for siblings, at in _places(root):
        node = siblings[at]
        if node.tag == 0xA3 and isinstance(node.value, list) and node.value and isinstance(node.value[0].value, list):
            for extension in node.value[0].value:
                if isinstance(extension.value, list) and len(extension.value) == 2 and chance.random() < 0.8:
                    extension.value.insert(1, Node(asn1.BOOLEAN, b"\xff"))
            return


def _places(root: Node) -> list[tuple[list[Node], int]]:
    """The places for a change: a list, and the index of an element of it."""
    found: list[tuple[list[Node], int]] = []
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node.value, list):
            found.extend((node.value, at) for at in range(len(node.value)))
            todo.extend(node.value)
    return found


def _parse(data: bytes) -> Node | None:
    found = _elements(data)
    return found[0] if found else None


def _elements(data: bytes) -> list[Node] | None:
    """The elements of `data`; None if it has none."""
    found: list[Node] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F or data[at + 1] == 0x80:
            return None
        tag, size, body = data[at], data[at + 1], at + 2
        if size > 0x80:
            body += size & 0x7F
            size = int.from_bytes(data[at + 2 : body])
        if body + size > len(data):
            return None
        found.append(_node(tag, data[body : body + size]))
        at = body + size
    return found


def _node(tag: int, value: bytes) -> Node:
    prefix = value[:1] if tag == asn1.BIT_STRING and value[:2] == b"\0\x30" else b""
    if tag & _CONSTRUCTED or (tag == asn1.OCTET_STRING and len(value) > 1) or prefix:
        children = _elements(value[len(prefix) :])
        if children is not None and (tag & _CONSTRUCTED or len(children) == 1):
            return Node(tag, children, prefix)
    return Node(tag, value)
