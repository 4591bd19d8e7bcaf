"""Random objects that the API server admits, from the schemas of the definitions, and the values that it refuses.

A `Draw` has a seed: the same seed draws the same objects, so a failing test reports it. Values are corners: empty,
0, the largest number, a text of every character that the field may have. The limits of a rule in CEL are not in the
schema: `NARROWED` has values for each rule, which `tests/api/test_admitted.py` shows to a real API server.
"""

import datetime
import functools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.world import samples

from directdownload.cluster import kinds
from directdownload.resources import base, crd, template, zone
from directdownload.resources.checksum import Algorithm

Schema = Mapping[str, Any]
Document = dict[str, Any]

LARGEST = 2**63 - 1
KINDS = {each.DEFINITION.plural: each for each in crd.KINDS}
#: Few, so that objects refer to one another.
NAMES = ("a", "b", "a.b-c", "n" * 253)
NAMESPACES = ("a", "n" * 63)
UIDS = ("u", "00000000-0000-4000-8000-000000000001", "x" * 64)
TEXTS = (
    *("", " ", "a", "0", "-1", "None", "Unknown", "True", "%s{}\\", "a,b;c", "\N{LATIN SMALL LETTER E WITH ACUTE}"),
    *("\x00", "\x1b[2J", "\n\r\t", "\u2028", "\u202e", "\ufeff", "\U0001d54f", "\uffff", "a/../b", "sha256:", "{SHA}"),
)
#: The number of items of a long list, within its limit.
_MANY = 64
#: The characters of the longest texts.
_LETTERS = ("a", "\U0001d54f", "\x00", "\u0130", "\n")
_NUMBERS = (0, 1, 2, 100, 2**31 - 1, 2**31, 2**53 + 1, LARGEST - 1, LARGEST)
#: Times that the format date-time and our pattern admit.
TIMES = (
    *("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2025-01-31T11:59:00.123456Z", "2025-01-31T12:00:00Z"),
    *("2025-01-31T12:00:01.5Z", "2026-11-29T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"),
)
_DURATIONS = (
    *(0, "0", "0s", "0.000000000001ms", "1ms", "5s", "1h30m", "720h", "999999999999h"),
    *("999999999999h999999999999h", "0.999999999999h" * 2, "9" * 12 + "." + "9" * 12 + "h"),
)
_QUANTITIES = (
    *(0, 1, LARGEST, "0", "1", "1.5Gi", "0.00000000000000000001", "9" * 20 + "." + "9" * 9 + "Ei", "9" * 20 + "Ei"),
)
_LONG_HOST = ".".join(["h" * 62] * 4)
URLS = (
    *("https://images.example.org/a.qcow2", "HTTP://a", "nfs://a/b", "NFS://[::1]/b.META4", "https://a:0/b.iso"),
    *("https://a:99999/", "https://[:]", "nfs://\u2100/b", "https://\u00df\u3002a/", "nfs://a/%", "http://a."),
    *("http://a\u2003b/c", "https://a/" + "\U0001d54f" * 500, "https://" + "a" * 2000, "nfs://a/%zz", "http://a..b"),
    *(f"https://{_LONG_HOST}/", "https://xn--/", "https://0x7f.1/", "http://a/b;c?d#e", "http://1.2.3.4.5/"),
)
#: 0.1.0 admitted these, and they stay.
EARLIER_URLS = (
    *("https://a:99999999999/", "https://a:port/", "https://[", "https://[::1", "http://]a", "https://[v1.x]/"),
    *("https://[fe80::1%25eth0]/", "http://?", "http://#", "http://:80", "https://%00/%", "http://\\", "https://."),
    *("http://-", "nfs://a/b/../c", "nfs://a", "nfs://a/b?c"),
)
#: A mirror may have the length of any text of a spec.
_MIRRORS = tuple(url for url in URLS if len(url) <= 1024)
_PATHS = ("/a", "/var/lib/libvirt/images", "/" + "p" * 1023, "/ ", "/\u202e", "/a/...", "/\U0001d54f", "/a\\b")
_ABSOLUTE = ("/", "/a", "//", "/a/", "/..a", "/" + "\U0001d54f" * 4095, "/etc/cloudstack/agent/cloud.jks", "/\u2028")
_CHECKSUMS = (
    *(f"{each.value}:{'aB' * (each.hex_length // 2)}" for each in Algorithm),
    *("{SHA-256}" + "0" * 64, "f" * 32, "sHa1:" + "0" * 40, "{mD5}" + "F" * 32, "sha-512:" + "a" * 128),
)
_NAME_RULE = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')"
_CHECKSUM_RULE = f"self.matches('^({template._CHECKSUM}|[0-9a-fA-F]{{32}})$')"
#: By the first rule of a field: values that all rules of the field admit.
NARROWED: Mapping[str, Sequence[Any]] = {
    base.DURATION_RULE[0]: _DURATIONS,
    base.QUANTITY_RULE[0]: _QUANTITIES,
    base.RESERVE_RULE[0]: (*_QUANTITIES, "0%", "99%", "05%"),
    base.COUNT_OR_PERCENT_RULE[0]: (0, 1, LARGEST, "0%", "00%", "1%", "100%"),
    "self >= 0": (0, 1, 2, LARGEST),
    "self >= 0 && self <= 4294967295": (0, 65534, 4294967295),
    "self >= 0 && self <= 20": (0, 20),
    "self >= 0 && self <= 8": (0, 1, 8),
    "self >= 0 && self <= 4294967294": (0, 1, 64055, 4294967294),
    _NAME_RULE: NAMES,
    _CHECKSUM_RULE: _CHECKSUMS,
    "self.matches('^0?[0-7]{3}$')": ("000", "0000", "0644", "777"),
    template._URL_CHECKS[0][0]: URLS,
    f"self.all(u, {template._URL_CHECKS[0][0].replace('self', 'u')})": (
        [],
        [URLS[0]],
        *([url] for url in _MIRRORS),
        [*_MIRRORS[:16]],
    ),
    "self.all(k, size(k) <= 317)": ({}, {"a": "b"}, {"zone": ""}, {"k" * 317: "v" * 1024, "\u202e": "\x00"}),
    "self.all(k, size(k) <= 253)": ({}, {"": ""}, {"k" * 253: "v" * 1024, "\u202e": "\x00"}),
    "self.all(h, isIP(h) || h.matches('^([*][.])?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$'))": (
        *([], ["a"], ["*.example.org", "IMAGES.example.org", "::1", "127.0.0.1", "a..b"], ["a" * 253] * 256),
    ),
    "self.all(a, isIP(a) && ip(a).isGlobalUnicast())": (
        *([], ["10.0.0.1"], ["fd00::1"], ["2001:db8::7", "192.0.2.7"], ["2001:0db8:0000:0000:0000:0000:0000:0001"]),
    ),
    "self.all(c, isCIDR(c))": ([], ["0.0.0.0/0", "::/0"], ["127.0.0.0/8", "fd00::/8", "10.0.0.1/32", "::1/127"]),
    zone._NFS_EXPORTS: (
        *([], ["nfs.example.org:/"], ["[::1]:65535:/a"], ["NFS_1.example.org:2049:/export/a b"]),
        ["h:/" + "d" * 253] * 32,
    ),
    "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..') && !self.matches('[[:cntrl:]]')": (
        _ABSOLUTE
    ),
    "self.matches('^(/[^/[:cntrl:]]+)+$') && !self.matches('(^|/)[.][.]?(/|$)')": _PATHS,
    "self.matches('^(/[^/[:cntrl:]]+)+$')": (
        "/a",
        "/a/b",
        "/var/lib/libvirt/images/u",
        "/" + "p" * 2047,
        "/..",
        "/ /\U0001d54f",
    ),
    "self.matches('^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$')": ("a", "My-CA", "A._-9", "a" * 128),
}
#: Rules of a whole object, and the functions that make an object obey.
_OBEY: Mapping[str, Callable[[Document, random.Random], object]] = {
    "!has(self.operator) || (self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)": (
        lambda item, _: (
            item.update(values=item.get("values") or [""])
            if item["operator"] in ("In", "NotIn")
            else item.pop("values", None)
        )
    ),
    "has(self.agentProperties) != has(self.file)": lambda item, dice: _one_of(item, dice, "agentProperties", "file"),
    "has(self.certificate) != has(self.certificateRef)": lambda item, dice: _one_of(
        item, dice, "certificate", "certificateRef"
    ),
    # No text or URL here has this.
    "!has(self.certificate) || !self.certificate.contains('PRIVATE KEY')": lambda *_: None,
    "!has(self.url) || !self.url.matches('^[^/?#]*//[^/?#]*@')": lambda *_: None,
}
_ONE_OF = {"agentProperties": "/a", "file": "/b", "certificate": samples.PEM}
_ONE_OF_REFERENCE = {"kind": "Secret", "name": "a", "key": "ca.crt"}
_REQUIRED = re.compile(r"has\(self\.(\w+)\)")
#: Annotations may have any value.
ANNOTATIONS = (*TEXTS, "\U0001d54f" * 300, "9" * 4400, "2025-01-31T12:00:00Z", "a b\u2003c", "1", "999999999", "-7")


def _one_of(item: Document, dice: random.Random, *names: str) -> None:
    """Keep or create exactly one of the fields `names`."""
    kept = dice.choice([name for name in names if name in item] or names)
    for name in names:
        if name != kept:
            item.pop(name, None)
    item.setdefault(kept, _ONE_OF.get(kept, _ONE_OF_REFERENCE))


@functools.cache
def schema_of(kind: kinds.Resource) -> Schema:
    """`spec` and `status` of `kind`."""
    version = crd.definition(KINDS[kind.plural])["spec"]["versions"][0]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]
    return found


class Draw(random.Random):
    """Draws values that `schema` admits. `newer`: with fields and words of a future version. `names`: the names of
    objects, also in references."""

    def __init__(self, seed: int, *, newer: bool = True, names: Sequence[str] = NAMES) -> None:
        super().__init__(seed)
        self.newer = newer
        self.names = names

    def chance(self, share: float) -> bool:
        return self.random() < share

    def text(self, limit: int = 1024) -> str:
        if self.chance(0.1):
            return self.choice(_LETTERS) * limit
        return self.choice(TEXTS)[:limit]

    def value(self, schema: Schema, *, status: bool = False) -> Any:
        rules = [each["rule"] for each in schema.get("x-kubernetes-validations", ())]
        if schema.get("type") != "object" or "properties" not in schema:
            if rules and rules[0] not in NARROWED:
                raise ValueError(f"tests.world.admitted.NARROWED: expected values that obey the rule {rules[0]}")
            if rules:
                return self.choice(self.names if rules[0] == _NAME_RULE else NARROWED[rules[0]])
        if "enum" in schema:
            return "OfTomorrow" if status and self.newer and self.chance(0.1) else self.choice(schema["enum"])
        match schema["type"]:
            case "object" if "properties" in schema:
                return self._object(schema, rules, status=status)
            case "object":
                names = [self.text(64) for _ in range(self.randrange(3))]
                return {name: self.value(schema["additionalProperties"], status=status) for name in names}
            case "array":
                return self._array(schema, status=status)
            case "integer":
                lowest = schema.get("minimum", -LARGEST - 1)
                found = [*_NUMBERS, *((-1, lowest) if lowest < 0 else ())]
                return min(schema.get("maximum", LARGEST), max(lowest, self.choice(found)))
            case "boolean":
                return self.chance(0.5)
        if schema.get("format") == "date-time":
            return self.choice(TIMES)
        return self.text(schema["maxLength"])

    def _object(self, schema: Schema, rules: list[str], *, status: bool) -> Document:
        required = {*schema.get("required", ()), *(found[1] for rule in rules if (found := _REQUIRED.fullmatch(rule)))}
        share = self.choice((0.1, 0.5, 0.9, 1.0))
        item = {
            name: self.value(each, status=status)
            for name, each in schema["properties"].items()
            if name in required or self.chance(share)
        }
        for rule in rules:
            if "oldSelf" in rule or _REQUIRED.fullmatch(rule):
                continue
            if rule not in _OBEY:
                raise ValueError(f"tests.world.admitted: expected to know how an object obeys the rule {rule}")
            _OBEY[rule](item, self)
        if self.newer and self.chance(0.05):
            item["ofTomorrow"] = self.choice(({"a": [1]}, "a", 1, True))
        return item

    def _array(self, schema: Schema, *, status: bool) -> list[Any]:
        length = min(schema["maxItems"], _MANY) if self.chance(0.02) else self.randrange(min(4, schema["maxItems"] + 1))
        found = [self.value(schema["items"], status=status) for _ in range(length)]
        keys = schema.get("x-kubernetes-list-map-keys")
        return list({tuple(item[key] for key in keys): item for item in found}.values()) if keys else found

    def conditions(self, document: Document) -> None:
        """Mostly the condition types of the product, which planners interpret."""
        for each in document.get("status", {}).get("conditions", ()):
            if self.chance(0.8):
                each["type"] = self.choice(("Ready", "Stalled", "Reconciling", "KeystoreSynced", "SourceReachable"))
        found = {each["type"]: each for each in document.get("status", {}).get("conditions", ())}
        if "conditions" in document.get("status", {}):
            document["status"]["conditions"] = list(found.values())

    def labels(self) -> dict[str, str]:
        keys = ("a", "example.org/b", "zone", "directdownload.dev/pool")
        return {key: self.choice(("", "a", "b", "x" * 63)) for key in keys if self.chance(0.3)}

    def annotations(self) -> dict[str, str]:
        keys = (base.REQUESTED_AT, "a", "directdownload.dev/verb", "kubectl.kubernetes.io/last-applied-configuration")
        return {key: self.choice(ANNOTATIONS) for key in keys if self.chance(0.3)}

    def metadata(self, name: str, *, namespace: str = "", served: bool = True) -> Document:
        """`served`: with the fields that only the API server writes."""
        found: Document = {"name": name}
        if namespace:
            found["namespace"] = namespace
        for field, value in (("labels", self.labels()), ("annotations", self.annotations())):
            if value:
                found[field] = value
        if self.chance(0.3):
            found["finalizers"] = self.choice(([base.FINALIZER], ["example.org/a", base.FINALIZER], ["example.org/a"]))
        if served:
            found |= {
                "uid": self.choice(UIDS),
                "resourceVersion": str(self.randrange(1, 10**9)),
                "generation": self.choice((1, 2, LARGEST)),
                "creationTimestamp": "2025-01-31T11:00:00Z",
            }
            if self.chance(0.15):
                found |= {"deletionTimestamp": "2025-01-31T11:30:00Z", "deletionGracePeriodSeconds": 0}
        return found

    def document(self, kind: kinds.Resource, name: str | None = None, *, served: bool = True) -> Document:
        """An object of `kind`; not `served`: as a user would create it."""
        name = name or self.choice(self.names)
        namespace = self.choice(NAMESPACES) if kind.namespaced else ""
        schema = schema_of(kind)
        found: Document = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": self.metadata(name, namespace=namespace, served=served),
            "spec": self.value(schema["spec"]),
        }
        if served and kind is kinds.TEMPLATES and self.chance(0.2):
            found["spec"] |= {"url": self.choice(EARLIER_URLS), "mirrors": self.sample(EARLIER_URLS, 2)}
        if kind is kinds.HOSTS:
            found["spec"]["nodeName"] = name
        if served and self.chance(0.9):
            found["status"] = self.value(schema["status"], status=True)
            self.conditions(found)
        return found


def refused(schema: Schema, value: Any, path: str = "status") -> Iterator[str]:
    """The objections of the API server to `value`, by the schema, without rules in CEL."""
    match schema.get("type"):
        case "object":
            if not isinstance(value, dict):
                yield f"{path}: {type(value).__name__}"
                return
            yield from (f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value)
            for name, each in value.items():
                below = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
                if below is None:
                    yield f"{path}.{name} is not in the schema"
                else:
                    yield from refused(below, each, f"{path}.{name}")
        case "array":
            if len(value) > schema["maxItems"]:
                yield f"{path}: {len(value)} items, at most {schema['maxItems']}"
            for index, each in enumerate(value):
                yield from refused(schema["items"], each, f"{path}[{index}]")
            if keys := schema.get("x-kubernetes-list-map-keys"):
                found = [tuple(each.get(key) for key in keys) for each in value]
                if len(set(found)) < len(found):
                    yield f"{path}: two of the same {keys}"
        case "integer":
            lowest, highest = schema.get("minimum", -LARGEST - 1), schema.get("maximum", LARGEST)
            if type(value) is not int or not lowest <= value <= highest:
                yield f"{path}: {value}, expected an integer from {lowest} to {highest}"
        case "boolean":
            if type(value) is not bool:
                yield f"{path}: {value!r}"
        case "string":
            if not isinstance(value, str):
                yield f"{path}: {value!r}"
            elif "enum" in schema and value not in schema["enum"]:
                yield f"{path}: {value!r} is none of {schema['enum']}"
            elif schema.get("format") == "date-time":
                if re.search(schema["pattern"], value) is None:
                    yield f"{path}: {value!r} is no time"
                datetime.datetime.fromisoformat(value)
            elif "maxLength" in schema and len(value) > schema["maxLength"]:
                yield f"{path}: {len(value)} characters, at most {schema['maxLength']}"
