"""A container that asks for a writable mount of a volume cannot write, with Debian's runc and with a newer one.

From version 1.2 on, runc makes a bind mount writable for a pod that asks for it, whatever the mount was.
"""

import json
import pathlib
import shutil
import subprocess

import pytest
from tests.cluster import harness
from tests.world import private_mounts
from tests.world.csi_world import UID, VOLUME, Host

from directdownload.csi import mounts
from directdownload.csi.mounts import Target
from directdownload.resources.volumes import MountedVolume

PROGRAMS = ("/usr/bin/touch", "/usr/bin/cat")


def newer() -> str:
    subprocess.run([str(harness.CLUSTER_DIRECTORY / "tools.sh"), "runc"], check=True)
    return str(harness.state_root() / "cache" / "runc")


def copy_programs(root: pathlib.Path) -> None:
    """PROGRAMS and the libraries that they load, below `root`."""
    for program in PROGRAMS:
        loaded = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in (program, *(word for word in loaded.split() if word.startswith("/"))):
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.lstrip("/"))


class Container:
    """One that has `volume` at /image, and asks for it writable."""

    def __init__(self, runc: str, directory: pathlib.Path, volume: str) -> None:
        self._runc, self._directory = runc, directory
        root = directory / "rootfs"
        for name in ("proc", "dev", "sys", "image"):
            (root / name).mkdir(parents=True)
        copy_programs(root)
        subprocess.run([runc, "spec", "-b", str(directory)], check=True)
        self._config = json.loads((directory / "config.json").read_text())
        self._config["process"]["terminal"] = False
        mount = {"destination": "/image", "type": "bind", "source": volume, "options": ["rbind", "rw", "rprivate"]}
        kept = [each for each in self._config["mounts"] if each["destination"] != "/sys/fs/cgroup"]
        self._config["mounts"] = [*kept, mount]
        self._config["linux"].pop("resources", None)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        self._config["process"]["args"] = list(command)
        (self._directory / "config.json").write_text(json.dumps(self._config))
        state = str(self._directory / "state")
        arguments = [self._runc, "--root", state, "run", "-b", str(self._directory), f"volume-{self._directory.name}"]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["Debian's", "newer"])
@private_mounts.alone
def test_a_container_that_asks_for_a_writable_volume_cannot_write(host: Host, version: str) -> None:
    target = Target(str(host.kubelet / "pods"), str(host.target()))
    volume = MountedVolume(VOLUME, "team-a", "debian-13", UID)
    mounts.attach(target, volume, mounts.open_image(str(host.image), str(host.pool.parent)))
    directory = host.directory / "bundle"
    directory.mkdir()
    container = Container("runc" if version == "Debian's" else newer(), directory, target.path)
    table = container.run("/usr/bin/cat", "/proc/self/mountinfo")
    assert table.returncode == 0, table.stderr
    options = {fields[4]: set(fields[5].split(",")) for fields in map(str.split, table.stdout.splitlines())}
    if version == "newer":
        # The trap: it has made the mount writable that it was given, and left alone what is in it.
        assert "rw" in options["/image"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= options["/image/disk.img"]
    for path in ("/image/new", "/image/disk.img"):
        tried = container.run("/usr/bin/touch", path)
        assert tried.returncode == 1
        assert "Read-only file system" in tried.stderr
    mounts.detach(target)
