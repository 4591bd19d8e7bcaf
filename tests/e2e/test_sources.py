"""One template of each kind of source, on every node: the right bytes arrive, whatever brings them; and what must not
be fetched or published leaves nothing behind.

All are deployed at once, and each test looks at its own.
"""

import contextlib
import dataclasses
import gzip
import itertools
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import TextIO

import pytest
from tests.cluster import harness
from tests.e2e.conftest import exported, remove_all, served
from tests.world import cluster as clusters
from tests.world import evidence, keystores, origin
from tests.world.certificates import Certificate
from tests.world.cluster import NAMESPACE, POOL_ROOT, Cluster, Object
from tests.world.evidence import HOSTS
from tests.world.ganesha import Ganesha
from tests.world.waiting import until

from directdownload.resources.headers import ORIGINS_ANNOTATION, SECRET_TYPE
from directdownload.resources.naming import WORK_DIRECTORY

VIRTUAL_BYTES = 64 << 20
SECRET = "origin-token"
#: What it holds: one origin demands it, and nobody else may see it.
TOKEN = "token-5d0e2c9b7f"
#: A touched file is noticed within a minute; the rest is for a busy machine.
VERIFIED_SECONDS = 100


@dataclasses.dataclass(frozen=True)
class Image:
    """A file as it is served, and as it is to lie on the nodes."""

    format: str
    served: pathlib.Path
    published: pathlib.Path
    virtual_bytes: int

    @property
    def served_digest(self) -> str:
        return f"sha256:{clusters.sha256(self.served)}"


class Witness:
    """Sees every state of the product's pods, and everything that download containers write to their logs."""

    def __init__(self, cluster: Cluster, states: pathlib.Path) -> None:
        self._states = states
        self._logs: dict[pathlib.Path, TextIO] = {}
        with states.open("wb") as file:
            kubectl = str(harness.state_root() / "bin" / "kubectl")
            command = [kubectl, "--kubeconfig", str(cluster.kubeconfig), "get", "pods", "-n", NAMESPACE, "-w"]
            self._watch = subprocess.Popen([*command, "-o", "json"], stdout=file)

    def look(self) -> None:
        """Opens new logs: an open file can be read when the pod is gone. Call it at least once in a pod's life."""
        for host in HOSTS:
            for path in harness.host_directory(host).with_name("log").glob("pods/*/download/*.log"):
                if path not in self._logs:
                    self._logs[path] = path.open()

    @property
    def states(self) -> str:
        return self._states.read_text()

    def logs(self, name: str) -> list[str]:
        """Of the pods whose name begins so."""
        found = []
        for path, file in self._logs.items():
            if path.parts[-3].startswith(f"{NAMESPACE}_{name}"):
                file.seek(0)
                found.append(file.read())
        return found

    def close(self) -> None:
        self._watch.terminate()
        self._watch.wait()
        for file in self._logs.values():
            file.close()


@dataclasses.dataclass(frozen=True)
class Sources:
    """All templates are deployed, and every copy that can be Ready is."""

    cluster: Cluster
    server: origin.Origin
    images: dict[str, Image]
    witness: Witness

    def template(self, name: str) -> Object:
        return self.cluster.get("template", name, "default")

    def requests(self, path: str) -> list[origin.Request]:
        """Of downloads."""
        return [request for request in evidence.gets(self.server) if request.path == path]


def _raw(path: pathlib.Path) -> Image:
    path.write_bytes(os.urandom(4 << 20))
    return Image("RAW", path, path, 4 << 20)


def _qcow2(path: pathlib.Path) -> Image:
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.write(os.urandom(3 << 20))
        file.truncate(VIRTUAL_BYTES)
    clusters.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))
    return Image("QCOW2", path, path, VIRTUAL_BYTES)


def _packed(path: pathlib.Path) -> Image:
    image = _qcow2(path.with_suffix(""))
    path.write_bytes(gzip.compress(image.published.read_bytes(), 1))
    return dataclasses.replace(image, served=path)


def _metalink(path: pathlib.Path, image: Image, *urls: str) -> None:
    """RFC 5854."""
    lines = ['<?xml version="1.0"?>', '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="mirrored.raw">']
    lines.append(f"<size>{image.served.stat().st_size}</size>")
    lines.append(f'<hash type="sha-256">{clusters.sha256(image.served)}</hash>')
    lines += [f'<url priority="{number}">{url}</url>' for number, url in enumerate(urls, 1)]
    path.write_text("".join([*lines, "</file></metalink>"]))


@contextlib.contextmanager
def _private_authority(cluster: Cluster, directory: pathlib.Path) -> Iterator[str]:
    """nginx's lines for a certificate of an authority that only the hosts' keystores know."""
    authority = Certificate(authority=True)
    leaf = Certificate(cluster.origin_host, issuer=authority)
    (directory / "leaf.pem").write_bytes(leaf.pem)
    (directory / "leaf.key").write_bytes(leaf.key_pem)
    for host in HOSTS:
        keystores.set_password(cluster, host, keystores.PASSWORD)
    cluster.apply(keystores.certificate("images-ca", authority))
    wait = ("--for=condition=Ready", "--timeout=120s")
    cluster.kubectl("wait", "directdownloadcertificate/images-ca", *wait)
    try:
        yield f"ssl_certificate {directory}/leaf.pem; ssl_certificate_key {directory}/leaf.key;"
    finally:
        cluster.delete("directdownloadcertificate", "images-ca")
        keystores.remove(cluster)


def _images(directory: pathlib.Path) -> dict[str, Image]:
    """By template; everywhere each of them comes to be Ready."""
    return {
        "plain": _qcow2(directory / "plain.qcow2"),
        "secure": _raw(directory / "secure.raw"),
        "exported": _raw(directory / "exported.raw"),
        "mirrored": _raw(directory / "mirrored.raw"),
        "packed": _packed(directory / "packed.qcow2.gz"),
        "guarded": _raw(directory / "guarded.raw"),
    }


def _wishes(
    cluster: Cluster, images: dict[str, Image], server: origin.Origin, tls_port: int, nfs: Ganesha
) -> Iterator[Object]:
    """Those that come to be Ready on every host, those that fail on one, and a template that nobody deploys."""
    urls = {
        "plain": server.url("plain.qcow2"),
        "secure": f"https://{cluster.origin_host}:{tls_port}/secure.raw",
        "exported": nfs.url("exported.raw"),
        "mirrored": server.url("mirrored.meta4"),
        "packed": server.url("packed.qcow2.gz"),
        "guarded": server.url("guarded.raw"),
    }
    for name, url in urls.items():
        image = images[name]
        secret = {"headersSecretRef": {"name": SECRET}} if name == "guarded" else {}
        yield clusters.template(name, url, format=image.format, checksum=image.served_digest, **secret)
        yield clusters.deployment(name)
    refused = {
        "backed": (server.url("backed.qcow2"), "QCOW2"),
        "redirected": (server.url("redirected"), "RAW"),
        "inward": (f"http://127.0.0.1:{server.port}/plain.qcow2", "QCOW2"),
        "uninvited": (server.url("guarded.raw"), "RAW"),
        "unlisted": (f"nfs://{nfs.host}/other/exported.raw", "RAW"),
    }
    for host, (name, (url, kind)) in zip(itertools.cycle(HOSTS), refused.items(), strict=False):
        yield clusters.template(name, url, format=kind)
        yield clusters.deployment(name, hosts=[host])
    yield clusters.template("registered", server.url("plain.qcow2"), format="QCOW2")


def _secret(server: origin.Origin) -> Object:
    annotations = {ORIGINS_ANNOTATION: server.url("").rstrip("/")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": "default", "annotations": annotations},
        "type": SECRET_TYPE,
        "stringData": {"X-Token": TOKEN},
    }


@pytest.fixture(scope="module")
def sources(local: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    directory, private = served(tmp_path_factory.mktemp("served")), tmp_path_factory.mktemp("private")
    images = _images(directory)
    backed = str(directory / "backed.qcow2")
    clusters.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", backed, "1M")
    tls_port, dead_port = origin.free_port(local.origin_host), origin.free_port(local.origin_host)
    with contextlib.ExitStack() as stack:
        certificate = stack.enter_context(_private_authority(local, private))
        nfs = stack.enter_context(exported(local, directory))
        extra = (
            f"listen {local.origin_host}:{tls_port} ssl; {certificate}"
            # slow enough for its pods to be seen
            f'location /guarded.raw {{ limit_rate 2m; if ($http_x_token != "{TOKEN}") {{ return 403; }} }}'
            "location = /redirected { return 302 http://169.254.169.254/latest/meta-data; }"
        )
        server = stack.enter_context(origin.Origin(directory, local.origin_host, extra=extra))
        dead = f"http://{local.origin_host}:{dead_port}/mirrored.raw"
        _metalink(directory / "mirrored.meta4", images["mirrored"], dead, server.url("mirrored.raw"))
        witness = stack.enter_context(contextlib.closing(Witness(local, private / "pods.json")))
        stack.callback(local.kubectl, "delete", "secret", SECRET, "-n", "default", "--ignore-not-found")
        stack.callback(remove_all, local)
        local.apply(_secret(server), *_wishes(local, images, server, tls_port, nfs))

        def every_copy_is_ready() -> bool:
            witness.look()
            phases = [
                placement.get("status", {}).get("phase")
                for placement in local.list("templateplacements")
                if placement["spec"]["templateRef"]["name"] in images
            ]
            return phases == ["Ready"] * len(HOSTS) * len(images)

        try:
            until("every copy", every_copy_is_ready)
        except AssertionError as error:
            error.add_note("\n".join(f"{name}: {local.reasons(name)}" for name in images))
            raise
        yield Sources(local, server, images, witness)


@pytest.fixture(autouse=True, scope="module")
def clean(sources: Sources) -> None:
    """What was deployed is shared by the module; its fixture cleans up."""


@pytest.mark.parametrize("name", ["plain", "secure", "exported", "mirrored", "packed", "guarded"])
def test_every_kind_of_source_brings_its_bytes_to_every_node(sources: Sources, name: str) -> None:
    image, cluster = sources.images[name], sources.cluster
    published = clusters.sha256(image.published)
    placements = cluster.placements(name)
    assert sorted(placements) == HOSTS
    for host, placement in placements.items():
        assert clusters.sha256(cluster.file(host, placement["spec"]["path"])) == published
        file = placement["status"]["file"]
        assert (file["sizeBytes"], file["digest"]) == (image.published.stat().st_size, image.served_digest)
        assert (file["format"], file["virtualSizeBytes"]) == (image.format, image.virtual_bytes)
        assert file.get("servedBytes") == (image.served.stat().st_size if name == "packed" else None)
        assert placement["status"]["attempts"] == 1
    until("the template's status", lambda: sources.template(name)["status"].get("digest"))
    status = sources.template(name)["status"]
    protocol = {"secure": "HTTPS", "exported": "NFS"}.get(name, "HTTP")
    assert (status["protocol"], status["digest"]) == (protocol, image.served_digest)
    assert (status["sizeBytes"], status["virtualSizeBytes"]) == (image.served.stat().st_size, image.virtual_bytes)


def test_a_source_is_asked_before_anybody_deploys_it(sources: Sources) -> None:
    def reachable(name: str) -> tuple[str, str]:
        return evidence.condition(sources.template(name), "SourceReachable")

    asked = ("registered", *sources.images)
    until("the probes", lambda: {reachable(name) for name in asked} == {("True", "SourceReachable")})
    status = sources.template("registered")["status"]
    image = sources.images["plain"]
    assert (status["sizeBytes"], status["virtualSizeBytes"]) == (image.served.stat().st_size, VIRTUAL_BYTES)
    assert status["etag"]
    assert "digest" not in status
    assert not sources.cluster.placements("registered")
    until("the probe of redirected", lambda: reachable("redirected") == ("False", "URLNotAllowed"))


@pytest.mark.parametrize(
    ("name", "reason", "word"),
    [
        ("backed", "UnsafeImage", "backing file"),
        ("redirected", "URLNotAllowed", "link-local"),
        ("uninvited", "SourceRefused", "403"),
    ],
)
def test_what_must_not_be_fetched_or_published_stalls(sources: Sources, name: str, reason: str, word: str) -> None:
    cluster = sources.cluster
    until("the refusal", lambda: list(cluster.reasons(name).values()) == [("Failed", reason)])
    ((host, placement),) = cluster.placements(name).items()
    assert evidence.condition(placement, "Stalled") == ("True", reason)
    assert word in placement["status"]["conditions"][0]["message"]
    file = cluster.file(host, placement["spec"]["path"])
    assert not file.exists()
    assert not [left for left in evidence.names(file.parent / WORK_DIRECTORY) if left.startswith(file.name)]


@pytest.mark.parametrize(("name", "word"), [("inward", "loopback"), ("unlisted", "sourcePolicy.nfsExports")])
def test_a_url_that_the_zone_refuses_gets_no_placement(sources: Sources, name: str, word: str) -> None:
    def refusal() -> Object | None:
        found = sources.cluster.get("templatedeployment", name, "default")
        return found if evidence.condition(found, "Stalled") == ("True", "URLNotAllowed") else None

    found = until("the refusal", refusal)
    assert word in found["status"]["conditions"][0]["message"]
    assert not sources.cluster.placements(name)


def test_a_secret_of_the_origin_is_seen_by_it_alone(sources: Sources) -> None:
    cluster = sources.cluster
    of_origin = {request.token for request in sources.server.requests() if request.status in (200, 206)}
    assert of_origin == {"", TOKEN}
    assert {r.token for r in sources.server.requests() if r.path != "/guarded.raw"} == {""}

    def copies() -> list[str]:
        secrets = cluster.list("secrets", NAMESPACE)
        return [secret["metadata"]["name"] for secret in secrets if secret["type"] == SECRET_TYPE]

    until("the Secret's copies to go", lambda: not copies())
    names = [placement["metadata"]["name"] for placement in cluster.placements("guarded").values()]
    logs = [log for name in names for log in sources.witness.logs(name)]
    assert len([log for log in logs if "Downloaded" in log]) == len(HOSTS)
    assert all(f'"name": "{name}-fetch-1' in sources.witness.states for name in names)
    kinds = "templates,templatedeployments,templateplacements,hosts,jobs,pods,events,configmaps"
    seen = {
        "logs of jobs": "".join(logs),
        "states of pods": sources.witness.states,
        "objects and Events": cluster.kubectl("get", kinds, "-A", "-o", "json"),
        **{
            f"logs of {pod['metadata']['name']}": cluster.kubectl("logs", "-n", NAMESPACE, pod["metadata"]["name"])
            for component in ("controller", "agent")
            for pod in evidence.pods(cluster, component)
        },
        **{
            str(path): path.read_text(errors="replace")
            for host in HOSTS
            for directory in (f"{POOL_ROOT}/{WORK_DIRECTORY}", "/var/lib/directdownload")
            for path in cluster.file(host, directory).rglob("*")
            if path.is_file()
        },
    }
    assert not [where for where, text in seen.items() if TOKEN in text]


def test_an_unpacked_archive_is_verified_and_not_fetched_again(sources: Sources) -> None:
    """The checksum is of the archive, and what lies there is the image: only the record knows what it should be."""
    cluster, image = sources.cluster, sources.images["packed"]
    before = cluster.placements("packed")["kvm-1"]
    until("what the agent sees", lambda: "observed" in cluster.placements("packed")["kvm-1"]["status"])
    cluster.file("kvm-1", before["spec"]["path"]).touch()

    def verified() -> bool:
        file = cluster.placements("packed")["kvm-1"]["status"].get("file") or {}
        return bool(file.get("verifiedTime", "") > before["status"]["file"]["verifiedTime"])

    until("the verification", verified, VERIFIED_SECONDS)
    assert cluster.reasons("packed")["kvm-1"] == ("Ready", "Verified")
    after = cluster.placements("packed")["kvm-1"]["status"]["file"]
    changing = {"verifiedTime", "revision"}
    assert {field for field, value in after.items() if before["status"]["file"].get(field) != value} == changing
    assert evidence.verbs(before["metadata"]["name"]) == ["fetch", "verify"]
    assert clusters.sha256(cluster.file("kvm-1", before["spec"]["path"])) == clusters.sha256(image.published)
    assert len(sources.requests("/packed.qcow2.gz")) == len(HOSTS)
