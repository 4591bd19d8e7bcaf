"""A file goes only when no virtual machine has it as a disk or under its disk; and what is published, is as it came."""

import pathlib
import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import POOL_ROOT, Cluster
from tests.world.evidence import HOSTS
from tests.world.waiting import until

from directdownload.resources.naming import WORK_DIRECTORY

#: Debian's libvirt-qemu and kvm
QEMU_UID, QEMU_GID = 64055, 108


@pytest.fixture
def files(local: Cluster, server: origin.Origin, image: Image) -> dict[str, pathlib.Path]:
    """The published file of each host, of a deployment `used` that has converged."""
    local.apply(
        clusters.template("used", server.url(image.path.name), checksum=image.checksum), clusters.deployment("used")
    )
    local.converged("used", 3)
    return {host: local.file(host, p["spec"]["path"]) for host, p in local.placements("used").items()}


def delete_deployment(cluster: Cluster, name: str) -> None:
    """Returns when the object is gone: whoever deletes it need not wait for the hosts."""
    cluster.delete("templatedeployment", name, namespace="default")


def test_a_file_that_qemu_holds_open_stays_until_qemu_ends(
    local: Cluster, files: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    command = ["qemu-nbd", "--read-only", "--persistent", "--format=raw", f"--socket={tmp_path / 'nbd'}"]
    # Locks belong to the file, so it does not matter that this process sees it by another path.
    with subprocess.Popen([*command, str(files["kvm-1"])]) as machine:
        try:
            until("qemu to have it open", (tmp_path / "nbd").exists)
            delete_deployment(local, "used")
            until("the reason", lambda: local.reasons("used") == {"kvm-1": ("Removing", "InUse")})
            until("the others to go", lambda: evidence.gone(files[host] for host in HOSTS[1:]))
            assert "InUse" in evidence.events(local, local.placements("used")["kvm-1"]["metadata"]["name"])
            # through further attempts
            before = int(local.placements("used")["kvm-1"]["status"]["attempts"])
            until("more attempts", lambda: local.placements("used")["kvm-1"]["status"]["attempts"] > before + 1)
            assert files["kvm-1"].exists()
        finally:
            machine.terminate()
    until("the file to go", lambda: not files["kvm-1"].exists())
    until("its placement to go", lambda: not local.placements("used"))


def test_a_file_that_an_overlay_has_under_it_stays_until_the_overlay_goes(
    local: Cluster, files: dict[str, pathlib.Path]
) -> None:
    overlay = f"{POOL_ROOT}/vm-1.qcow2"
    base = f"{POOL_ROOT}/{files['kvm-2'].name}"
    local.node("exec", "kvm-2", "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    try:
        delete_deployment(local, "used")
        until("the reason", lambda: local.reasons("used") == {"kvm-2": ("Removing", "InUse")})
        until("the others to go", lambda: evidence.gone((files["kvm-1"], files["kvm-3"])))
        assert files["kvm-2"].exists()
        message = local.placements("used")["kvm-2"]["status"]["conditions"][0]["message"]
        assert pathlib.Path(overlay).name in message
    finally:
        local.file("kvm-2", overlay).unlink()
    until("the file to go", lambda: not files["kvm-2"].exists())
    until("its placement to go", lambda: not local.placements("used"))


def test_what_goes_with_a_file_and_what_is_not_ours_stays(local: Cluster, files: dict[str, pathlib.Path]) -> None:
    pool = local.file("kvm-1", POOL_ROOT)
    (pool / "vm-disk.raw").write_bytes(b"another's")
    work = pool / WORK_DIRECTORY
    assert f"{files['kvm-1'].name}.record" in evidence.names(work)
    try:
        delete_deployment(local, "used")
        until("the placements to go", lambda: not local.placements("used"))
        assert evidence.names(pool) - {WORK_DIRECTORY} == {"vm-disk.raw"}
        assert not evidence.names(work)
    finally:
        (pool / "vm-disk.raw").unlink()


@pytest.fixture
def owned_pool(local: Cluster) -> Iterator[str]:
    """A pool whose files belong to qemu's user."""
    path = f"{POOL_ROOT}/owned"
    for host in HOSTS:
        local.file(host, path).mkdir()
    local.apply(clusters.pool("owned", path=path, file={"uid": QEMU_UID, "gid": QEMU_GID, "mode": "0640"}))
    yield path
    local.delete_all("templatedeployments", "default")
    until("the placements to go", lambda: not local.list("templateplacements"))
    local.delete("storagepool", "owned")
    for host in HOSTS:
        for name in evidence.names(local.file(host, path)):
            local.file(host, f"{path}/{name}").rmdir()
        local.file(host, path).rmdir()


def test_an_iso_image_is_published_as_it_is_served_and_owned_as_the_pool_says(
    local: Cluster, server: origin.Origin, owned_pool: str
) -> None:
    # Under a name that promises an archive: only bytes may lead to unpacking.
    image = Image(server.directory, "installer.iso.gz", 4 << 20)
    # ECMA-119, section 8: the volume descriptor that makes it an ISO
    descriptor, content = b"\x01CD001\x01", bytearray(image.path.read_bytes())
    content[16 * 2048 : 16 * 2048 + len(descriptor)] = descriptor
    image.path.write_bytes(content)
    local.apply(
        clusters.template("installer", server.url(image.path.name), format="ISO"),
        clusters.deployment("installer", pools=["owned"]),
    )
    local.converged("installer", 3)
    uid = local.get("template", "installer", "default")["metadata"]["uid"]
    for host in HOSTS:
        file = local.file(host, f"{owned_pool}/{uid}.iso")
        assert file.read_bytes() == content
        state = file.stat()
        assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (QEMU_UID, QEMU_GID, 0o640)
