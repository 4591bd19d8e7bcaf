"""What the tests of resources try: good and bad objects of every kind, defaults, statuses and their columns.

`MINIMAL` and `FULL` are good objects (specs); other tests may start from them. A new field of a model belongs into
`FULL`, its bad values into `BAD`, its default into `DEFAULTS`: test_resources.py fails until it is there.
"""

import hashlib
from typing import Any

from tests.world.kube import Object

from directdownload.cluster.kinds import (
    CERTIFICATES,
    HOSTS,
    STORAGE_POOLS,
    TEMPLATE_DEPLOYMENTS,
    TEMPLATE_PLACEMENTS,
    TEMPLATES,
    ZONES,
    Resource,
)
from directdownload.resources.checksum import Algorithm

DIGESTS = {each: hashlib.new(each.value, b"0123456789" * 8 + b"\n").hexdigest() for each in Algorithm}
SHA256 = "c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"
MD5 = "d141a8eeaf6bba779d1d1dc5102a81c5"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
URL = "https://images.example.org/debian-13.qcow2"
NAMESPACE = "default"
MISSING = object()

#: The least that each kind asks for.
MINIMAL: dict[Resource, Object] = {
    ZONES: {"nodeSelector": {}},
    HOSTS: {"nodeName": "kvm-1", "zone": "zone-1"},
    STORAGE_POOLS: {"zone": "zone-1", "path": "/var/lib/libvirt/images"},
    TEMPLATES: {"url": URL, "format": "QCOW2"},
    TEMPLATE_DEPLOYMENTS: {"templateRef": {"name": "debian-13"}, "zone": "zone-1"},
    TEMPLATE_PLACEMENTS: {
        "templateRef": {"namespace": "default", "name": "debian-13", "uid": "8f0c0000-0000-4000-8000-000000000000"},
        "zone": "zone-1",
        "pool": "local",
        "host": "kvm-1",
        "path": "/var/lib/libvirt/images/8f0c0000-0000-4000-8000-000000000000",
    },
    CERTIFICATES: {"zone": "zone-1", "alias": "my-ca", "certificate": PEM},
}
SELECTOR = {
    "matchLabels": {"topology.kubernetes.io/zone": "zone-1"},
    "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "example.org/b", "operator": "NotIn", "values": ["z"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ],
}
#: Every field that a person may write, with a value that is not its default.
FULL: dict[Resource, Object] = {
    ZONES: {
        "enabled": False,
        "placementsPerNamespace": 0,
        "nodeSelector": SELECTOR,
        "templateNamespaces": SELECTOR,
        "certificates": {"expiryWarning": "360h", "syncInterval": "0s"},
        "timeouts": {"connect": "500ms", "socket": "1m30s", "connectionRequest": "2.5s"},
        "downloads": {
            "maxParallel": 0,
            "maxParallelPerHost": 1,
            "maxParallelPerSource": 3,
            "maxParallelPerNamespace": 4,
            "connectionsPerSource": 8,
            "bandwidthPerHost": "100Mi",
            "minimumRate": "1Mi",
            "deadline": 0,
            "maxSize": "1.5Ti",
            "maxVirtualSize": 1073741824,
            "retry": {"initial": "1s", "maximum": "1h"},
        },
        "sourcePolicy": {
            "protocols": ["HTTPS"],
            "allowedHosts": ["images.example.org", "*.example.net"],
            "allowedCIDRs": ["127.0.0.0/8", "fd00::/8"],
            "nfsExports": [
                "nfs.example.org:/export/templates",
                "[fd00::5]:2050:/a b/..c",
                "10.0.0.5:/",
                "nas:65535:/é",
            ],
            "nfsUser": {"uid": 0, "gid": 4294967295},
            "maxRedirects": 0,
            "requireChecksum": True,
            "requireDirect": True,
            "minimumChecksum": "SHA-256",
        },
        "onDemand": {"enabled": True, "namespaces": SELECTOR, "pool": "local", "keep": "90m", "maxPerHost": 0},
        "peers": {"maxParallel": 200},
    },
    HOSTS: {
        "nodeName": "kvm-1",
        "zone": "zone-1",
        "allocationState": "Maintenance",
        "keystore": {
            "path": "/etc/other/cloud.jks",
            "passwordFrom": {"file": "/etc/other/keystore.pass"},
            "type": "PKCS12",
            "createIfMissing": False,
        },
        "peerAddresses": ["192.0.2.7", "2001:db8::7"],
    },
    STORAGE_POOLS: {
        "zone": "zone-1",
        "type": "SharedMountPoint",
        "path": "/srv/pools/nfs-1",
        "hostSelector": SELECTOR,
        "verifyInterval": "24h",
        "reserve": "20Gi",
        "file": {"uid": 64055, "gid": 64055, "mode": "0640"},
    },
    TEMPLATES: {
        "displayText": "Debian 13 (genericcloud)",
        "url": "nfs://nas.example.org/exports/templates/debian-13.qcow2",
        "mirrors": [URL, "http://mirror.example.org:8080/debian-13.qcow2", "https://[fd00::1]/debian.meta4"],
        "checksum": "{SHA-256}" + SHA256,
        "connectionsPerSource": 2,
        "format": "RAW",
        "hypervisor": "KVM",
        "architecture": "aarch64",
        "type": "ROUTING",
        "zones": ["zone-1", "zone-2"],
        "allowedNamespaces": {},
        "headersSecretRef": {"name": "token"},
        "details": {"rootDiskController": "virtio"},
    },
    TEMPLATE_DEPLOYMENTS: {
        "templateRef": {"name": "debian-13", "namespace": "images"},
        "zone": "zone-1",
        "hostSelector": SELECTOR,
        "hosts": ["kvm-1", "kvm-2.example.org"],
        "pools": ["local"],
        "rollout": {"maxParallel": "25%", "paused": True},
        "deletionPolicy": "Retain",
    },
    TEMPLATE_PLACEMENTS: MINIMAL[TEMPLATE_PLACEMENTS],
    CERTIFICATES: {
        "zone": "zone-1",
        "alias": "my-ca_2.old",
        "hypervisor": "KVM",
        "certificateRef": {"kind": "Secret", "name": "images-ca", "key": "ca.crt"},
        "revoked": True,
        "revokedHosts": ["kvm-1"],
        "keepPrevious": "1h",
    },
}
KINDS = list(MINIMAL)


#: What a minimal object becomes.
DEFAULTS: dict[Resource, Object] = {
    ZONES: {
        "enabled": True,
        "placementsPerNamespace": 10000,
        "certificates": {"expiryWarning": "720h", "syncInterval": "10m"},
        "timeouts": {"connect": "5s", "socket": "5s", "connectionRequest": "5s"},
        "downloads": {
            "maxParallel": 20,
            "maxParallelPerHost": 2,
            "maxParallelPerSource": 16,
            "maxParallelPerNamespace": 16,
            "connectionsPerSource": 0,
            "bandwidthPerHost": 0,
            "minimumRate": "64Ki",
            "deadline": "12h",
            "maxSize": 0,
            "maxVirtualSize": 0,
            "retry": {"initial": "5s", "maximum": "10m"},
        },
        "sourcePolicy": {
            "protocols": ["HTTP", "HTTPS", "NFS"],
            "nfsUser": {"uid": 65534, "gid": 65534},
            "maxRedirects": 5,
            "requireChecksum": False,
            "requireDirect": False,
            "minimumChecksum": "MD5",
        },
        "onDemand": {"enabled": False, "keep": "1h", "maxPerHost": 20},
        "peers": {"maxParallel": 0},
    },
    HOSTS: {
        "allocationState": "Enabled",
        "keystore": {
            "path": "/etc/cloudstack/agent/cloud.jks",
            "type": "JKS",
            "createIfMissing": True,
        },
    },
    STORAGE_POOLS: {
        "type": "Filesystem",
        "verifyInterval": "168h",
        "reserve": "5%",
        "file": {"uid": 0, "gid": 0, "mode": "0644"},
    },
    TEMPLATES: {"connectionsPerSource": 0, "hypervisor": "KVM", "architecture": "x86_64", "type": "USER"},
    TEMPLATE_DEPLOYMENTS: {"rollout": {"maxParallel": 0, "paused": False}, "deletionPolicy": "Delete"},
    TEMPLATE_PLACEMENTS: {},
    CERTIFICATES: {"hypervisor": "KVM", "revoked": False, "keepPrevious": "24h"},
}


DURATIONS = ["5", 5, "-5s", "5 s", "5d", "soon", "9" * 13 + "s", "0." + "9" * 13 + "s", ""]
QUANTITIES = ["-1", -1, "100MB", "1 Gi", "lots", "Gi", "9" * 21, ""]
OBJECT_NAMES = ["Zone-1", "-zone", "zone_1", "zone-", "zone 1", "", "a/b"]
URLS = [
    "images.example.org/debian.qcow2",
    "ftp://images.example.org/debian.qcow2",
    "file:///etc/shadow",
    "https:///debian.qcow2",
    "https://",
    "https:/images.example.org/x",
    "https://user:secret@images.example.org/debian.qcow2",
    "https://token@images.example.org/debian.qcow2",
    "https://images.example.org/debian 13.qcow2",
    "https://images.example.org/debian.qcow2\n",
    "https://images.example.org/\u0007",
    "javascript:alert(1)",
    "https://-o.example.org/debian.qcow2",
    "https://.example.org/debian.qcow2",
    "https://images.example.org:port/debian.qcow2",
    "https://images.example.org:123456/debian.qcow2",
    "https://exa$(id).org/debian.qcow2",
    "https://[::1/debian.qcow2",
    "https://images.example.org\\debian.qcow2",
    "nfs://nas/export/../../etc/shadow",
    "nfs://nas/export/%2E%2e/shadow",
    "nfs://-o/export/debian.qcow2",
    "nfs://nas/export/..",
    "nfs://nas/export/",
    "nfs://nas",
    "nfs://nas/export/debian.qcow2?version=3",
    "nfs://nas/export/a;b",
    "",
]
#: CloudStack's rejected strings, and further ones.
CHECKSUMS = [
    SHA256,
    "{}" + SHA256,
    "{MD5}" + SHA256,
    "{SHA-256}" + SHA256 + "XXXXX",
    "{SHA-256}" + SHA256[:-1],
    "{SHA-256}" + SHA256[:-1] + "g",
    "{SHA-256} " + SHA256,
    "{SHA-3}" + SHA256,
    "{CRC32}d141a8ee",
    "sha256=" + SHA256,
    "sha256:",
    ":" + SHA256,
    "{SHA-256" + SHA256,
    "SHA-256}" + SHA256,
    MD5[:-1],
    MD5 + "0",
    "sha512:" + DIGESTS[Algorithm.SHA384],
    "",
]
EXPORTS = [
    *("", "nas", "/export", "nas/export", "nas:export", ":/export", "nfs://nas/export", "nas://export", "nas:/a\n"),
    *("nas:/a\x7f", "nas:/export/../other", "nas:/..", "nas:/./a", "nas:/a/.", "nas:0:/a", "nas:65536:/a", "nas:x:/a"),
    *("fd00::5:/export", "[nas]:/export", "[10.0.0.5]:/export", "[:::1]:/export", "[fe80::1%eth0]:/export"),
    *("*.example.org:/export", "user@nas:/export", "-nas:/export", "nas.:/export", "nfs example:/a"),
]
POOL_PATHS = ["pool", "/", "/pool/", "/a//b", "/a/../b", "/a/./b", "/..", "/a/..", "/a\nb", ""]
FILE_PATHS = ["cloud.jks", "/a/../b", "/a/..", "/a\nb", "/a\0b", ""]
ALIASES = [
    "cloud",
    "CLOUD",
    "cloudca",
    "CloudCA",
    "cloudca.1",
    "my-ca-previous",
    "My-CA-Previous",
    "my ca",
    "-x",
    "",
    "ä",
]

#: (kind, field, bad values): refused, with the field's name, what was expected, and an example.
BAD: list[tuple[Resource, str, list[Any]]] = [
    (ZONES, "nodeSelector", [MISSING]),
    (ZONES, "placementsPerNamespace", [-1]),
    *((ZONES, f"certificates.{field}", DURATIONS) for field in ("expiryWarning", "syncInterval")),
    *((ZONES, f"timeouts.{field}", DURATIONS) for field in ("connect", "socket", "connectionRequest")),
    *((ZONES, f"downloads.maxParallel{what}", [-1]) for what in ("", "PerHost", "PerSource", "PerNamespace")),
    *(
        (ZONES, f"downloads.{field}", QUANTITIES)
        for field in ("bandwidthPerHost", "minimumRate", "maxSize", "maxVirtualSize")
    ),
    *((ZONES, f"downloads.{field}", DURATIONS) for field in ("deadline", "retry.initial", "retry.maximum")),
    (ZONES, "sourcePolicy.protocols", [["FTP"], ["https"], [""]]),
    (
        ZONES,
        "sourcePolicy.allowedHosts",
        [["https://example.org"], ["a b"], ["*"], ["a.*.org"], ["example.org:443"], [""]],
    ),
    (ZONES, "sourcePolicy.allowedCIDRs", [["10.0.0.0"], ["10.0.0.0/33"], ["any"], [""]]),
    (ZONES, "sourcePolicy.nfsExports", [[entry] for entry in EXPORTS]),
    *((ZONES, f"sourcePolicy.nfsUser.{field}", [-1, 2**32]) for field in ("uid", "gid")),
    (ZONES, "sourcePolicy.maxRedirects", [-1, 21]),
    (ZONES, "sourcePolicy.minimumChecksum", ["CRC32", "sha256", ""]),
    (HOSTS, "nodeName", [MISSING, "kvm-2", *OBJECT_NAMES]),
    (HOSTS, "zone", [MISSING, *OBJECT_NAMES]),
    (HOSTS, "allocationState", ["Disabled", ""]),
    (HOSTS, "keystore.path", FILE_PATHS),
    (HOSTS, "keystore.type", ["BKS", "jks"]),
    (HOSTS, "keystore.passwordFrom", [{}, {"file": "/a", "agentProperties": "/b"}]),
    (HOSTS, "keystore.passwordFrom.file", FILE_PATHS),
    (HOSTS, "peerAddresses", [[each] for each in ("", "kvm-1", "10.0.0.1/32", "127.0.0.1", "169.254.1.1")]),
    (HOSTS, "peerAddresses", [["0.0.0.0"]]),  # noqa: S104 - the address that is to be refused
    (HOSTS, "peerAddresses", [[each] for each in ("224.0.0.1", "::", "::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1")]),
    (HOSTS, "peerAddresses", [["192.0.2.7", "192.0.2.8"], ["2001:db8::7", "2001:db8::8"]]),
    (STORAGE_POOLS, "zone", [MISSING, *OBJECT_NAMES]),
    (STORAGE_POOLS, "path", [MISSING, *POOL_PATHS]),
    (STORAGE_POOLS, "type", ["NFS", "filesystem", ""]),
    (STORAGE_POOLS, "verifyInterval", DURATIONS),
    (STORAGE_POOLS, "reserve", ["100%", "5.5%", "-5%", "%", "all", -1, "9" * 21, ""]),
    (STORAGE_POOLS, "file.uid", [-1, 4294967295]),
    (STORAGE_POOLS, "file.gid", [-1, 4294967295]),
    (STORAGE_POOLS, "file.mode", ["644x", "0888", "7", "rw-r--r--", "04755", ""]),
    (TEMPLATES, "url", [MISSING, *URLS]),
    (TEMPLATES, "mirrors", [[URL, url] for url in URLS]),
    (TEMPLATES, "checksum", CHECKSUMS),
    (TEMPLATES, "format", [MISSING, "QCOW", "qcow2", ""]),
    (TEMPLATES, "hypervisor", ["XenServer", ""]),
    (TEMPLATES, "architecture", ["amd64", ""]),
    (TEMPLATES, "type", ["BUILTIN", "system", ""]),
    (TEMPLATES, "zones", [[name] for name in OBJECT_NAMES]),
    (TEMPLATES, "headersSecretRef.name", OBJECT_NAMES),
    (TEMPLATES, "details", [{"x" * 254: "y"}]),
    (TEMPLATE_DEPLOYMENTS, "templateRef", [MISSING]),
    (TEMPLATE_DEPLOYMENTS, "templateRef.name", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "templateRef.namespace", OBJECT_NAMES),
    (TEMPLATE_DEPLOYMENTS, "zone", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "hosts", [[name] for name in OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "pools", [[name] for name in OBJECT_NAMES]),
    (TEMPLATE_DEPLOYMENTS, "rollout.maxParallel", ["101%", "-1%", "ten", "10", -1, ""]),
    (TEMPLATE_DEPLOYMENTS, "deletionPolicy", ["Keep", "delete", ""]),
    (TEMPLATE_PLACEMENTS, "templateRef", [MISSING]),
    (TEMPLATE_PLACEMENTS, "templateRef.namespace", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "templateRef.name", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "templateRef.uid", [MISSING]),
    (TEMPLATE_PLACEMENTS, "zone", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "pool", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "host", [MISSING, *OBJECT_NAMES]),
    (TEMPLATE_PLACEMENTS, "path", [MISSING, "image", "/", "/a/", "/a//b", "/a\nb", ""]),
    (CERTIFICATES, "zone", [MISSING, *OBJECT_NAMES]),
    (CERTIFICATES, "alias", [MISSING, *ALIASES]),
    (CERTIFICATES, "hypervisor", ["VMware"]),
    (CERTIFICATES, "certificate", ["-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"]),
    (CERTIFICATES, "revokedHosts", [[name] for name in OBJECT_NAMES]),
    (CERTIFICATES, "keepPrevious", DURATIONS),
    (CERTIFICATES, "certificateRef.kind", [MISSING, "Pod"]),
    (CERTIFICATES, "certificateRef.name", [MISSING, *OBJECT_NAMES]),
    (CERTIFICATES, "certificateRef.key", [MISSING]),
]
#: Selectors, wherever they are.
BAD += [
    (
        kind,
        f"{field}.matchExpressions",
        [
            [{"key": "a", "operator": "Is"}],
            [{"operator": "Exists"}],
            [{"key": "a"}],
            [{"key": "a", "operator": "In"}],
            [{"key": "a", "operator": "NotIn", "values": []}],
            [{"key": "a", "operator": "Exists", "values": ["b"]}],
        ],
    )
    for kind, field in (
        (ZONES, "nodeSelector"),
        (ZONES, "templateNamespaces"),
        (STORAGE_POOLS, "hostSelector"),
        (TEMPLATES, "allowedNamespaces"),
        (TEMPLATE_DEPLOYMENTS, "hostSelector"),
    )
]
#: (kind, field, bad value): limits and types, where the API server speaks for itself.
LIMITS: list[tuple[Resource, str, Any]] = [
    (ZONES, "enabled", "yes"),
    (ZONES, "placementsPerNamespace", "many"),
    (ZONES, "downloads.maxParallel", "many"),
    (ZONES, "downloads.maxParallel", 1.5),
    (ZONES, "sourcePolicy.protocols", ["HTTP"] * 4),
    (ZONES, "timeouts.connect", "1" * 33 + "s"),
    (ZONES, "sourcePolicy.allowedHosts", ["a.example.org"] * 257),
    (ZONES, "sourcePolicy.nfsExports", ["nas:/a"] * 33),
    (ZONES, "sourcePolicy.nfsExports", ["nas:/" + "a" * 256]),
    (HOSTS, "keystore.createIfMissing", "no"),
    (HOSTS, "zone", "z" * 254),
    (STORAGE_POOLS, "path", "/" + "p" * 1024),
    (STORAGE_POOLS, "file.mode", 420),
    (TEMPLATES, "url", URL + "x" * 2048),
    (TEMPLATES, "mirrors", [URL] * 17),
    (TEMPLATES, "mirrors", URL),
    (TEMPLATES, "details", {str(number): "x" for number in range(65)}),
    (TEMPLATES, "displayText", "x" * 4097),
    (TEMPLATE_DEPLOYMENTS, "rollout.paused", "no"),
    (TEMPLATE_DEPLOYMENTS, "pools", ["local"] * 257),
    (CERTIFICATES, "alias", "a" * 129),
    (CERTIFICATES, "revoked", 1),
    (CERTIFICATES, "certificate", "x" * 65537),
    *((kind, "nonsense", 1) for kind in KINDS),
]


#: kind → (field, another valid value); the second list may change.
IMMUTABLE: dict[Resource, dict[str, Any]] = {
    HOSTS: {"nodeName": "kvm-2"},
    STORAGE_POOLS: {"zone": "zone-2", "type": "Filesystem", "path": "/srv/pools/nfs-2"},
    TEMPLATES: {
        "url": URL,
        "checksum": MD5,
        "format": "ISO",
    },
    TEMPLATE_DEPLOYMENTS: {"templateRef": {"name": "other"}, "zone": "zone-2"},
    TEMPLATE_PLACEMENTS: {
        "templateRef": {"name": "other"},
        "zone": "zone-2",
        "pool": "other",
        "path": "/var/lib/libvirt/images/other",
    },
    CERTIFICATES: {"alias": "other"},
}
MUTABLE: dict[Resource, dict[str, Any]] = {
    ZONES: DEFAULTS[ZONES],
    HOSTS: {"zone": "zone-2", **DEFAULTS[HOSTS]},
    STORAGE_POOLS: {key: value for key, value in DEFAULTS[STORAGE_POOLS].items() if key != "type"},
    TEMPLATES: {
        **{"displayText": "x", "mirrors": [], "architecture": "x86_64"},
        **{"type": "USER", "zones": [], "headersSecretRef": None},
    },
    TEMPLATE_DEPLOYMENTS: {**DEFAULTS[TEMPLATE_DEPLOYMENTS], "hosts": [], "pools": [], "hostSelector": None},
    TEMPLATE_PLACEMENTS: {"host": "kvm-2"},
    CERTIFICATES: {"revoked": False, "revokedHosts": [], "keepPrevious": "2h", "zone": "zone-2"},
}


_TIME = "2026-01-31T12:00:00Z"


def condition(name: str, status: str = "True", reason: str = "Ready", generation: int = 1) -> Object:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": "words",
        "lastTransitionTime": _TIME,
        "observedGeneration": generation,
    }


#: kind → (a status, the columns of `kubectl get` but Age, what `-o wide` adds)
COLUMNS: dict[Resource, tuple[Object, Object, Object]] = {
    ZONES: (
        {"hosts": {"total": 3, "up": 2}, "peers": {"unavailable": 1}},
        {"ENABLED": "false", "HOSTS": "3", "UP": "2", "READY": "True", "REASON": "Ready"},
        {},
    ),
    HOSTS: (
        {"state": "Up", "agentVersion": "0.1.0", "architecture": "aarch64"},
        {"ZONE": "zone-1", "STATE": "Up", "REASON": "Ready", "AGENT": "0.1.0"},
        {"ARCHITECTURE": "aarch64"},
    ),
    STORAGE_POOLS: (
        {
            "hosts": {"total": 3, "ready": 1},
            **{"capacityBytes": 10, "capacity": "10 B", "availableBytes": 5, "available": "5 B"},
        },
        {
            "ZONE": "zone-1",
            "TYPE": "SharedMountPoint",
            "PATH": "/srv/pools/nfs-1",
            "HOSTS": "3",
            "USABLE": "1",
            "CAPACITY": "10 B",
            "AVAILABLE": "5 B",
            "READY": "True",
        },
        {"REASON": "Ready"},
    ),
    TEMPLATES: (
        {
            "protocol": "NFS",
            "sizeBytes": 123,
            "size": "123 B",
            "virtualSizeBytes": 456,
            "virtualSize": "456 B",
            "etag": '"x"',
            "probe": {
                "attempts": 2,
                "recentFailures": 1,
                "nextAttemptTime": _TIME,
                "lastHandledRequest": "x",
                "observedInputs": "x",
            },
            "digest": f"sha256:{SHA256}",
            "bytesFrom": {"origin": 123, "peers": 246},
            "placements": {"total": 3, "ready": 2, "downloading": 1, "pending": 0, "failed": 0},
        },
        {"FORMAT": "RAW", "TYPE": "ROUTING", "SIZE": "123 B", "COPIES": "2", "READY": "True"},
        {"REASON": "Ready", "URL": FULL[TEMPLATES]["url"], "BYTES": "123"},
    ),
    TEMPLATE_DEPLOYMENTS: (
        {
            "placements": {"desired": 5, "ready": 1, "downloading": 1, "pending": 2, "failed": 1},
            "waiting": [{"reason": "HostDown", "count": 2, "hosts": ["kvm-2", "kvm-3"], "message": "words"}],
            "bytes": {"total": 30, "downloaded": 10, "progress": "10 B of 30 B"},
            "failures": [{"host": "kvm-1", "pool": "local", "reason": "TooLarge", "message": "words"}],
        },
        {
            "TEMPLATE": "debian-13",
            "ZONE": "zone-1",
            "DESIRED": "5",
            "READY": "1",
            "DOWNLOADING": "1",
            "PENDING": "2",
            "FAILED": "1",
            "REASON": "Ready",
        },
        {"PROGRESS": "10 B of 30 B", "MESSAGE": "words"},
    ),
    TEMPLATE_PLACEMENTS: (
        {
            "phase": "Downloading",
            "observed": {"present": False, "sizeBytes": 0, "size": "0 B", "mtime": _TIME},
            "startedTime": _TIME,
            "progress": {
                "bytesDownloaded": 50,
                "downloaded": "50 B",
                "bytesTotal": 100,
                "total": "100 B",
                "bytesPerSecond": 7,
                "rate": "7 B/s",
                "etaSeconds": 8,
                "eta": "8 s",
                "percent": 50,
                "source": "https://images.example.org",
                "updatedTime": _TIME,
            },
            "file": {
                "path": "/p",
                "sizeBytes": 100,
                "size": "100 B",
                "servedBytes": 50,
                "served": "50 B",
                "digest": "sha256:x",
                "format": "QCOW2",
                "virtualSizeBytes": 200,
                "virtualSize": "200 B",
                "verifiedTime": _TIME,
                "content": "x",
                "bytesFrom": {"origin": 0, "peers": 100},
            },
            "peers": {"role": "Peer", "unavailable": 1, "distrustedEpoch": 1},
            "attempts": 1,
            "nextAttemptTime": _TIME,
        },
        {
            "NAMESPACE": "default",
            "TEMPLATE": "debian-13",
            "HOST": "kvm-1",
            "POOL": "local",
            "PHASE": "Downloading",
            "PERCENT": "50",
            "RATE": "7 B/s",
            "ETA": "8 s",
        },
        {"SIZE": "100 B", "PATH": MINIMAL[TEMPLATE_PLACEMENTS]["path"], "REASON": "Ready"},
    ),
    CERTIFICATES: (
        {
            "certificate": PEM,
            "subject": "CN=a",
            "issuer": "CN=b",
            "serialNumber": "01",
            "fingerprintSHA256": "aa",
            "notBefore": _TIME,
            "notAfter": "2100-01-31T12:00:00Z",
            "hosts": {"desired": 3, "uploaded": 2, "revoked": 0, "failed": 1, "pending": 0, "down": 0},
            "failures": [{"host": "kvm-1", "reason": "AliasConflict", "message": "words"}],
        },
        {
            "ZONE": "zone-1",
            "ALIAS": "my-ca_2.old",
            "HOSTS": "3",
            "UPLOADED": "2",
            "EXPIRES": "2100-01-31T12:00:00Z",
            "READY": "True",
        },
        {"REASON": "Ready"},
    ),
}
