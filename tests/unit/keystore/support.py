"""Certificates to put into keystores, and Java to say what is in them.

Used by the tests of this directory. Every JDK of the machine is asked: the keytool of PATH and those below
/usr/lib/jvm. Without any of them these tests fail.
"""

import base64
import dataclasses
import datetime
import functools
import os
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence

from cryptography import x509
from tests.world.certificates import Certificate, common_name, der
from tests.world.jdks import BRIEF, BRIEF_KEYTOOL

PASSWORD = "changeit"
KEY_PASSWORD = "keyspass"
#: With whole milliseconds, as JKS keeps it.
NOW = datetime.datetime(2026, 5, 4, 3, 2, 1, 234_000, tzinfo=datetime.UTC)


@functools.cache
def certificate(name: str) -> bytes:
    """A self-signed certificate of this common name, in DER; the same one during a test run."""
    names = (x509.SubjectAlternativeName([x509.DNSName("localhost")]),)
    return der(name, serial=x509.random_serial_number(), extensions=names)


def certificates(count: int, prefix: str = "server-") -> dict[str, bytes]:
    """By alias."""
    return {f"{prefix}{number}": certificate(f"{prefix}{number}") for number in range(count)}


@functools.cache
def own() -> Certificate:
    """With its key, as an entry of another's has both."""
    return Certificate("localhost", subject=common_name("own"), days=(-1, 3650))


@dataclasses.dataclass(frozen=True)
class JavaEntry:
    """As Java sees it. `kind` none: neither certificate nor key; `key` is what getEncoded gives."""

    alias: str
    kind: str
    created: datetime.datetime
    key: bytes | None
    chain: tuple[bytes, ...]


class JavaError(Exception):
    """What Java said of a store that it could not read."""


@dataclasses.dataclass(frozen=True)
class Jdk:
    """One Java; `name` is that of its directory."""

    name: str
    bin: pathlib.Path

    def keytool(self, *arguments: str, store: pathlib.Path, password: str = PASSWORD, java: Sequence[str] = ()) -> str:
        """What it prints; `java` are properties for its JVM. Fails the test when it fails."""
        options = (*BRIEF_KEYTOOL, *(f"-J-D{option}" for option in java))
        return command(
            self.bin / "keytool", *options, *arguments, "-keystore", store, "-storepass", password, "-noprompt"
        )


@functools.cache
def jdks() -> tuple[Jdk, ...]:
    """Those of this machine, each once; the fixture `jdk` fails where there is none."""
    candidates = [pathlib.Path(found)] if (found := shutil.which("keytool")) else []
    candidates += sorted(pathlib.Path("/usr/lib/jvm").glob("*/bin/keytool"))
    directories = sorted({candidate.resolve().parent for candidate in candidates})
    return tuple(Jdk(directory.parent.name, directory) for directory in directories)


def no_file(path: pathlib.Path, kind: str) -> None:
    """Puts there what is no regular file; `missing`: nothing."""
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)


def command(*arguments: str | pathlib.Path, stdin: bytes = b"") -> str:
    """The output of a command. Fails the test when it fails."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=120,
        # keytool speaks the user's language
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{arguments[0]} ended with {done.returncode}: {text}"
    return text


class StoreReader:
    """A JVM that reads keystores, kept running as it takes long to start. Use as a context manager."""

    def __init__(self, jdk: Jdk, classes: pathlib.Path) -> None:
        """`classes` is a directory for what javac makes."""
        source = pathlib.Path(__file__).with_name("StoreReader.java")
        command(jdk.bin / "javac", "-d", classes, source)
        self._process = subprocess.Popen(
            [str(jdk.bin / "java"), *BRIEF, "-cp", str(classes), "StoreReader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "StoreReader":
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            pass

    def entries(
        self, store: pathlib.Path, password: str = PASSWORD, *, key_password: str | None = None
    ) -> Mapping[str, JavaEntry]:
        """By alias, in Java's order. Raises JavaError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        store_type = "JKS" if store.read_bytes()[:1] == b"\xfe" else "PKCS12"
        question = [store_type, str(store), password, password if key_password is None else key_password]
        print(*(base64.b64encode(word.encode()).decode() for word in question), file=self._process.stdin, flush=True)
        found = {}
        while (line := self._process.stdout.readline().rstrip("\n")) != "ok":
            word, *rest = line.split(" ")
            if word == "error":
                raise JavaError(base64.b64decode(rest[0]).decode())
            assert rest, "the JVM ended"
            kind, milliseconds, key, *chain = rest
            alias = base64.b64decode(word).decode()
            created = datetime.datetime.fromtimestamp(int(milliseconds) / 1000, datetime.UTC)
            secret = None if key == "-" else base64.b64decode(key)
            found[alias] = JavaEntry(alias, kind, created, secret, tuple(map(base64.b64decode, chain)))
        return found
