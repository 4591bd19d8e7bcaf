"""Certificates come to the keystore of every node, are proved, decide which servers are trusted, and go again.

The keystores are those that CloudStack's setup leaves: on the first node PKCS#12, as keytool makes them today, on the
second JKS, and none on the third. What keytool says of them is what counts.
"""

import concurrent.futures
import contextlib
import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, keystores, origin
from tests.world.certificates import Certificate
from tests.world.cluster import Cluster, Object
from tests.world.evidence import HOSTS
from tests.world.waiting import until

KIND = "directdownloadcertificate"
REPAIR_SECONDS = 20
MANY = 200


@pytest.fixture(scope="module")
def stores(local: Cluster) -> Iterator[Cluster]:
    """The cluster with a keystore on two of three nodes."""
    for host in HOSTS:
        keystores.set_password(local, host, keystores.PASSWORD)
    keystores.make(local, "kvm-1", "PKCS12")
    keystores.make(local, "kvm-2", "JKS")
    local.file("kvm-3", keystores.KEYSTORE).unlink(missing_ok=True)
    yield local
    keystores.remove(local)


@pytest.fixture(autouse=True)
def no_certificates(stores: Cluster) -> Iterator[None]:
    yield
    stores.delete_all(KIND)
    until("nothing of ours", lambda: not any(keystores.trusted(stores, host) for host in HOSTS), REPAIR_SECONDS)


def ready(cluster: Cluster, name: str) -> tuple[str, str]:
    return evidence.condition(cluster.get(KIND, name), "Ready")


def provisioned(cluster: Cluster, name: str, seconds: float = 120) -> None:
    until(f"the proof of {name}", lambda: ready(cluster, name) == ("True", "Provisioned"), seconds)


def hosts_of(cluster: Cluster, name: str) -> Object:
    return {key: count for key, count in cluster.get(KIND, name)["status"]["hosts"].items() if count}


def on_every_host(cluster: Cluster, name: str, cert: Certificate) -> bool:
    printed = keystores.fingerprint(cert)
    return all(keystores.trusted(cluster, host).get(name) == printed for host in HOSTS)


def test_an_upload_reaches_every_host_beside_all_that_was_there(stores: Cluster) -> None:
    before = {host: keystores.entries(stores, host) for host in HOSTS}
    cert = Certificate(authority=True)
    stores.apply(keystores.certificate("uploaded", cert))
    provisioned(stores, "uploaded")
    printed = keystores.fingerprint(cert)
    assert keystores.proofs(stores, "uploaded") == dict.fromkeys(HOSTS, ("Uploaded", printed))
    assert hosts_of(stores, "uploaded") == {"desired": 3, "uploaded": 3}
    for host in HOSTS:
        added = {"uploaded": ("trustedCertEntry", printed)}
        assert keystores.entries(stores, host) == before[host] | added
    assert set(before["kvm-1"]) == set(before["kvm-2"]) == {keystores.KEY_ALIAS, keystores.CA_ALIAS}
    kinds = {h["metadata"]["name"]: h["status"]["keystore"]["type"] for h in stores.list("hosts")}
    assert kinds == {"kvm-1": "PKCS12", "kvm-2": "JKS", "kvm-3": "JKS"}

    stores.kubectl("patch", KIND, "uploaded", "--type=merge", "-p", '{"spec": {"revoked": true}}')
    until("the revoke", lambda: ready(stores, "uploaded") == ("True", "Revoked"))
    assert {state for state, _ in keystores.proofs(stores, "uploaded").values()} == {"Revoked"}
    assert {host: keystores.trusted(stores, host) for host in HOSTS} == {host: {} for host in HOSTS}
    assert [keystores.entries(stores, host) for host in ("kvm-1", "kvm-2")] == [before["kvm-1"], before["kvm-2"]]


def test_one_host_is_revoked_and_gets_it_again(stores: Cluster, tmp_path: pathlib.Path) -> None:
    cert = Certificate(authority=True)
    file = cert.save(tmp_path / "ca.pem")
    named = ("--name", "Partly", "--zone", "zone-1")
    done = keystores.command(stores, "certificate", "upload", *named, "--file", file, "--wait", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert '"UPLOADED"' in done.stdout
    done = keystores.command(stores, "certificate", "revoke", *named, "--host", "kvm-2", "--wait", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert "REVOKED" in done.stdout
    holding = [host for host in HOSTS if "partly" in keystores.trusted(stores, host)]
    assert holding == ["kvm-1", "kvm-3"]
    assert hosts_of(stores, "partly") == {"desired": 2, "uploaded": 2, "revoked": 1}
    done = keystores.command(stores, "certificate", "provision", "--name", "partly", "--host", "kvm-2", "--wait")
    assert done.returncode == 0, done.stderr
    assert on_every_host(stores, "partly", cert)


def test_downloads_from_a_private_server_work_while_its_authority_is_uploaded(
    stores: Cluster, directory: pathlib.Path, image: Image, tmp_path: pathlib.Path
) -> None:
    authority = Certificate(authority=True)
    with private_server(stores, directory, authority, tmp_path) as server:
        url = server.url(image.path.name)
        stores.apply(
            clusters.template("private", url, checksum=image.checksum),
            clusters.deployment("private"),
        )
        refused = ("Pending", "TLSVerificationFailed")
        until("the refusals", lambda: stores.reasons("private") == dict.fromkeys(HOSTS, refused))
        stores.apply(keystores.certificate("private-ca", authority))
        stores.converged("private", 3, 60)
        for host, placement in stores.placements("private").items():
            assert clusters.sha256(stores.file(host, placement["spec"]["path"])) == image.sha256

        named = ("--name", "private-ca", "--zone", "zone-1", "--wait")
        done = keystores.command(stores, "certificate", "revoke", *named)
        assert done.returncode == 0, done.stderr
        stores.apply(
            clusters.template("late", url, checksum=image.checksum),
            clusters.deployment("late"),
        )
        until("the refusals after the revoke", lambda: stores.reasons("late") == dict.fromkeys(HOSTS, refused))


@contextlib.contextmanager
def private_server(
    cluster: Cluster, directory: pathlib.Path, authority: Certificate, private: pathlib.Path
) -> Iterator[origin.Origin]:
    """Its certificate is signed by `authority`, which nobody knows."""
    leaf = Certificate(cluster.origin_host, issuer=authority)
    (private / "leaf.pem").write_bytes(leaf.pem)
    (private / "leaf.key").write_bytes(leaf.key_pem)
    port = origin.free_port(cluster.origin_host)
    lines = f"ssl_certificate {private}/leaf.pem; ssl_certificate_key {private}/leaf.key;"
    with origin.Origin(
        directory, cluster.origin_host, extra=f"listen {cluster.origin_host}:{port} ssl; {lines}"
    ) as found:
        found.port, found.tls = port, True
        yield found


@pytest.mark.parametrize("accident", ["entry removed", "entry replaced", "store made anew", "store deleted"])
def test_drift_is_repaired_within_seconds_and_told(stores: Cluster, accident: str, tmp_path: pathlib.Path) -> None:
    cert = Certificate(authority=True)
    stores.apply(keystores.certificate("kept", cert))
    provisioned(stores, "kept")
    host = "kvm-1"
    counted = evidence.metric(stores, "agent", "directdownload_keystore_drift_total")
    path = stores.file(host, keystores.KEYSTORE)
    if accident == "entry removed":
        keystores.keytool(path, "-delete", "-alias", "kept")
    if accident == "entry replaced":
        # Aside, as what is done in two steps is repaired between them.
        aside = pathlib.Path(shutil.copy(path, tmp_path))
        other = Certificate(authority=True).save(tmp_path / "other.pem")
        keystores.keytool(aside, "-delete", "-alias", "kept")
        keystores.keytool(aside, "-importcert", "-noprompt", "-alias", "kept", "-file", other)
        shutil.copy(aside, path)
    if accident == "store made anew":
        keystores.make(stores, host, "PKCS12")
    if accident == "store deleted":
        path.unlink()
    printed = keystores.fingerprint(cert)
    until("the repair", lambda: keystores.trusted(stores, host) == {"kept": printed}, REPAIR_SECONDS)

    def told() -> bool:
        events = stores.list("events", "default")
        return any(e["reason"] == "KeystoreRepaired" and e["involvedObject"]["name"] == host for e in events)

    until("the event", told, REPAIR_SECONDS)
    assert evidence.metric(stores, "agent", "directdownload_keystore_drift_total") > counted
    provisioned(stores, "kept")
    if accident == "store deleted":
        keystores.make(stores, host, "PKCS12")
        until("it in the store of before", lambda: keystores.trusted(stores, host) == {"kept": printed}, REPAIR_SECONDS)


def test_a_host_that_fails_says_why_and_holds_up_no_other(stores: Cluster) -> None:
    keystores.set_password(stores, "kvm-2", "another one")
    try:
        stores.apply(keystores.certificate("held", Certificate(authority=True)))
        until("the failure", lambda: ready(stores, "held") == ("False", "ProvisioningFailed"))
        until("the others", lambda: hosts_of(stores, "held") == {"desired": 3, "uploaded": 2, "failed": 1})
        (failure,) = stores.get(KIND, "held")["status"]["failures"]
        assert (failure["host"], failure["reason"]) == ("kvm-2", "KeystorePasswordWrong")
        assert keystores.PROPERTIES in failure["message"]
        host = stores.get("host", "kvm-2")
        assert evidence.condition(host, "KeystoreSynced") == ("False", "KeystorePasswordWrong")
        assert host["status"]["state"] == "Up"
        for secret in (keystores.PASSWORD, "another one"):
            assert secret not in json.dumps([host, stores.get(KIND, "held"), stores.list("events", "default")])
    finally:
        keystores.set_password(stores, "kvm-2", keystores.PASSWORD)
    provisioned(stores, "held")


def test_a_host_that_was_down_during_a_revoke_is_put_right_when_it_returns(stores: Cluster) -> None:
    for name in ("revoked", "deleted"):
        stores.apply(keystores.certificate(name, Certificate(authority=True)))
        provisioned(stores, name)
    stores.node("stop", "kvm-3")
    try:
        until("kvm-3 to be Down", lambda: stores.get("host", "kvm-3")["status"]["state"] == "Down")
        stores.kubectl("patch", KIND, "revoked", "--type=merge", "-p", '{"spec": {"revoked": true}}')
        stores.delete(KIND, "deleted")
        until("the revoke", lambda: ready(stores, "revoked") == ("True", "Revoked"))
        # A node that is busy for a moment counts as Down as well.
        until("the counts", lambda: hosts_of(stores, "revoked") == {"revoked": 2, "down": 1})
        assert set(keystores.trusted(stores, "kvm-3")) == {"revoked", "deleted"}
    finally:
        stores.node("start", "kvm-3")
    until("kvm-3 without them", lambda: not keystores.trusted(stores, "kvm-3"))
    until("kvm-3 to be Up", lambda: stores.get("host", "kvm-3")["status"]["state"] == "Up")
    until("its proof", lambda: hosts_of(stores, "revoked") == {"revoked": 3})


def test_a_host_that_joins_late_gets_every_certificate(stores: Cluster) -> None:
    certs = {f"early-{number}": Certificate(authority=True) for number in range(3)}
    stores.apply(*(keystores.certificate(name, cert) for name, cert in certs.items()))
    stores.node("add", "kvm-4")
    try:
        missing = ("Failed", "KeystorePasswordMissing")
        until("what it lacks", lambda: keystores.proofs(stores, "early-0").get("kvm-4") == missing)
        keystores.set_password(stores, "kvm-4", keystores.PASSWORD)
        wanted = {name: keystores.fingerprint(cert) for name, cert in certs.items()}
        until("all of them", lambda: keystores.trusted(stores, "kvm-4") == wanted)
        four = {"desired": 4, "uploaded": 4}
        until("four proofs", lambda: all(hosts_of(stores, name) == four for name in certs))
    finally:
        stores.node("remove", "kvm-4")
        stores.delete("host", "kvm-4", missing_ok=True)


def test_a_changed_secret_of_cert_manager_rotates_the_certificate(stores: Cluster) -> None:
    """Its type, and its keys; the controller alone reads it."""

    def secret(cert: Certificate) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "images-ca", "namespace": clusters.NAMESPACE},
            "type": "kubernetes.io/tls",
            "stringData": {
                "ca.crt": cert.pem.decode(),
                "tls.crt": cert.pem.decode(),
                "tls.key": cert.key_pem.decode(),
            },
        }

    first, second = Certificate(authority=True), Certificate(authority=True)
    stores.apply(secret(first))
    wish = keystores.certificate(
        "rotating", first, certificateRef={"kind": "Secret", "name": "images-ca", "key": "ca.crt"}
    )
    del wish["spec"]["certificate"]
    wish["spec"]["keepPrevious"] = "15s"
    stores.apply(wish)
    try:
        provisioned(stores, "rotating")
        stores.apply(secret(second))
        both = {
            "rotating": keystores.fingerprint(second),
            "rotating-previous": keystores.fingerprint(first),
        }
        with_both: set[str] = set()

        def all_had_both() -> bool:
            with_both.update(host for host in HOSTS if keystores.trusted(stores, host) == both)
            return with_both == set(HOSTS)

        until("both of them on each host, at the same time or not", all_had_both)
        alone = {"rotating": keystores.fingerprint(second)}
        until("the new one alone", lambda: all(keystores.trusted(stores, host) == alone for host in HOSTS))
        provisioned(stores, "rotating")
    finally:
        stores.delete("secret", "images-ca", namespace=clusters.NAMESPACE)


def test_two_hundred_certificates_reach_every_host_and_go_again(stores: Cluster) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        certs = dict(pool.map(lambda number: (f"many-{number:03}", Certificate(authority=True)), range(MANY)))
    stores.apply(*(keystores.certificate(name, cert) for name, cert in certs.items()))
    wanted = {name: keystores.fingerprint(cert) for name, cert in certs.items()}

    def all_proved() -> bool:
        return {(c["metadata"]["name"], *evidence.condition(c, "Ready")) for c in stores.list(KIND)} == {
            (name, "True", "Provisioned") for name in certs
        }

    until("the proof of all", all_proved)
    for host in HOSTS:
        assert keystores.trusted(stores, host) == wanted
        proved = {c["name"]: c.get("fingerprintSHA256") for c in stores.get("host", host)["status"]["certificates"]}
        assert proved == wanted


def test_what_is_not_one_certificate_is_refused_with_its_reason(stores: Cluster) -> None:
    cert, other = Certificate(authority=True), Certificate(authority=True)
    past = Certificate(authority=True, days=(-3, -1))
    cases = {
        "two": (cert.pem + other.pem, "InvalidCertificate", "found 2"),
        "noise": (b"XXXX", "InvalidCertificate", "X.509"),
        "past": (past.pem, "Expired", datetime.datetime.now(datetime.UTC).strftime("%Y")),
    }
    for name, case in cases.items():
        stores.apply(keystores.certificate(name, cert, certificate=case[0].decode()))

    def refused() -> bool:
        return {name: ready(stores, name) for name in cases} == {
            name: ("False", reason) for name, (_, reason, _) in cases.items()
        }

    until("the refusals", refused)
    for name, (_, _, words) in cases.items():
        (condition,) = (c for c in stores.get(KIND, name)["status"]["conditions"] if c["type"] == "Stalled")
        assert condition["status"] == "True"
        assert words in condition["message"]
    assert {host: keystores.trusted(stores, host) for host in HOSTS} == {host: {} for host in HOSTS}
