"""Java keystores on the nodes of the local cluster: made by keytool as CloudStack does it, and looked at by keytool."""

import functools
import os
import pathlib
import re
import subprocess
import tempfile

from tests.world import checkout, jdks
from tests.world import cluster as clusters
from tests.world.certificates import Certificate
from tests.world.cluster import Cluster, Object
from tests.world.evidence import HOSTS

from directdownload.resources import pem

DIRECTORY = "/etc/cloudstack/agent"
KEYSTORE = f"{DIRECTORY}/cloud.jks"
PROPERTIES = f"{DIRECTORY}/agent.properties"
PASSWORD = "k3ystore-passphrase"
KEY_ALIAS, CA_ALIAS = "cloud", "cloudca"

_ENTRY = re.compile(
    r"^Alias name: (?P<alias>.+?)$.*?^Entry type: (?P<type>\w+)$(?P<rest>.*?)(?=^Alias name: |\Z)", re.M | re.S
)
_FINGERPRINT = re.compile(r"SHA256: ([0-9A-F:]{95})")


def certificate(name: str, cert: Certificate, **spec: object) -> Object:
    """A DirectDownloadCertificate of the zone of all tests; its alias is its name."""
    body = {"zone": "zone-1", "alias": name, "certificate": cert.pem.decode(), **spec}
    return {
        "apiVersion": "directdownload.dev/v1alpha1",
        "kind": "DirectDownloadCertificate",
        "metadata": {"name": name},
        "spec": body,
    }


def fingerprint(cert: Certificate) -> str:
    return pem.parse(cert.pem.decode()).fingerprint_sha256


def set_password(cluster: Cluster, host: str, password: str) -> None:
    """As CloudStack's agent has it."""
    path = cluster.file(host, PROPERTIES)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"guid=8a3f\nkeystore.passphrase={password}\nhost=10.0.0.1\n")
    path.chmod(0o600)


def make(cluster: Cluster, host: str, store_type: str) -> None:
    """A store with the host's own key and its authority, as CloudStack's setup leaves it."""
    path = cluster.file(host, KEYSTORE)
    path.unlink(missing_ok=True)
    own = ("-alias", KEY_ALIAS, "-keyalg", "EC", "-dname", f"CN={host}", "-validity", "30", "-keypass", PASSWORD)
    keytool(path, "-genkeypair", *own, "-storetype", store_type)
    authority = path.with_name("authority.pem")
    Certificate(authority=True).save(authority)
    keytool(path, "-importcert", "-noprompt", "-alias", CA_ALIAS, "-file", str(authority))
    authority.unlink()
    path.chmod(0o600)


def remove(cluster: Cluster) -> None:
    """All that lies in the agents' directory on the nodes."""
    for host in HOSTS:
        for left in cluster.file(host, DIRECTORY).iterdir():
            left.unlink()


def keytool(path: pathlib.Path, *arguments: str) -> str:
    command = ("keytool", *jdks.BRIEF_KEYTOOL, *arguments, "-keystore", str(path), "-storepass:env", "STOREPASS")
    return clusters.run(*command, env={**os.environ, "STOREPASS": PASSWORD, "LC_ALL": "C"})


def entries(cluster: Cluster, host: str) -> dict[str, tuple[str, str]]:
    """Type and SHA-256 fingerprint of each entry by alias, as keytool sees them; empty without a store."""
    path = cluster.file(host, KEYSTORE)
    return dict(_entries(path.read_bytes())) if path.exists() else {}


@functools.lru_cache(maxsize=64)
def _entries(store: bytes) -> dict[str, tuple[str, str]]:
    # Tests look again and again until a store has changed, and a keytool for each look is a third of a second of CPU.
    with tempfile.NamedTemporaryFile() as file:
        file.write(store)
        file.flush()
        listed = keytool(pathlib.Path(file.name), "-list", "-v")
    found = {}
    for entry in _ENTRY.finditer(listed):
        printed = _FINGERPRINT.search(entry["rest"])
        found[entry["alias"]] = (entry["type"], printed[1] if printed else "")
    return found


def trusted(cluster: Cluster, host: str) -> dict[str, str]:
    """Fingerprints of the trusted certificates by alias, but the authority that was there before."""
    return {
        alias: printed
        for alias, (kind, printed) in entries(cluster, host).items()
        if kind == "trustedCertEntry" and alias != CA_ALIAS
    }


def proofs(cluster: Cluster, name: str) -> dict[str, tuple[str, str]]:
    """What each host says of the certificate: its state, and its fingerprint or the reason that it has none."""
    return {
        host["metadata"]["name"]: (entry["state"], entry.get("fingerprintSHA256") or entry.get("reason", ""))
        for host in cluster.list("hosts")
        for entry in host.get("status", {}).get("certificates", ())
        if entry["name"] == name
    }


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`directdownload …` as an administrator types it."""
    return subprocess.run(
        [checkout.DIRECTDOWNLOAD, "--kubeconfig", str(cluster.kubeconfig), *arguments],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
