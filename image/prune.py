"""Copies from a Debian system only the files that the product needs: Python, its libraries, libnfs, CA certificates.

The Containerfile runs it as `python3 prune.py TARGET` in the stage that has the packages installed; TARGET becomes the
image. The lists below name the files; the shared libraries that they need are added. So no shell, no package manager
and no other program gets in, regardless of the packages. dpkg's records stay for every package with a file in the
image: scanners and `sbom.py` read them. Each package keeps its copyright file.

It needs only Python and Debian's ldd.
"""

import argparse
import compileall
import glob
import os
import pathlib
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator

#: Parts of the standard library that no pod imports.
_STDLIB_LEFT_OUT = frozenset(
    {"__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "venv"}
)
#: C modules that need an extra library for a function that no pod uses, or that are for Python's tests.
_MODULES_LEFT_OUT = re.compile(r"(_curses|_dbm|_gdbm|_sqlite3|_test|_tkinter|_xxtest|readline|xxlimited|_ctypes_test)")
_TREES = ("/etc/ssl/certs", "/usr/share/ca-certificates")
_FILES = (
    # the distribution, for scanners
    *("/etc/debian_version", "/etc/os-release"),
    # the directory that OpenSSL reads
    *("/etc/ssl/openssl.cnf", "/usr/lib/ssl/cert.pem", "/usr/lib/ssl/certs", "/usr/lib/ssl/openssl.cnf"),
)
#: Loaded by name at run time, so no other library depends on them: by download/sources/libnfs.py, and by glibc when a
#: thread ends.
_LIBRARIES = ("libnfs.so.[0-9]*", "libgcc_s.so.1")
#: Written instead of copied: no user can log in, and names are resolved by files and the DNS.
_WRITTEN = {
    "/etc/passwd": (
        "root:x:0:0:root:/:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        "nonroot:x:65532:65532:nonroot:/:/usr/sbin/nologin\n"
    ),
    "/etc/group": "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
#: Mount points, so that a runtime need not create them.
_DIRECTORIES = {"/dev": 0o755, "/proc": 0o555, "/sys": 0o555, "/run": 0o755, "/tmp": 0o1777}  # noqa: S108
_DPKG = pathlib.Path("/var/lib/dpkg")


class Tree:
    """The image under construction: each path is copied with the links that lead to it."""

    def __init__(self, target: pathlib.Path) -> None:
        self.target = target
        #: the copied files, as canonical paths of the source system
        self.taken: set[str] = set()

    def place(self, path: str) -> pathlib.Path:
        return self.target / path.lstrip("/")

    def take(self, path: str) -> None:
        """Copy one file or link, and the target of a link; directories in the path keep their mode."""
        current = "/"
        for part in pathlib.PurePosixPath(path).parts[1:]:
            current = os.path.join(current, part)
            if current in self.taken:
                continue
            self.taken.add(current)
            if os.path.islink(current):
                link = os.readlink(current)
                self.place(current).symlink_to(link)
                rest = path[len(current) :]
                self.take(os.path.normpath(os.path.join(os.path.dirname(current), link)) + rest)
                return
            if os.path.isdir(current):
                self.place(current).mkdir(mode=0o755, exist_ok=True)
            else:
                shutil.copy2(current, self.place(current))
                if current.endswith(".py"):
                    # some modules of the standard library are also programs
                    self.place(current).chmod(0o644)
        # a link in the path that was copied before
        real = os.path.realpath(path)
        if real not in self.taken:
            self.take(real)

    def take_all(self, directory: str, left_out: Iterable[str] = ()) -> None:
        self.take(directory)
        for folder, folders, files in os.walk(directory):
            folders[:] = sorted(name for name in folders if name not in left_out)
            for name in (*folders, *sorted(files)):
                self.take(os.path.join(folder, name))

    def write(self, path: str, text: str) -> None:
        self.place(path).parent.mkdir(parents=True, exist_ok=True)
        self.place(path).write_text(text)
        self.taken.add(path)


def take_python(tree: Tree) -> None:
    tree.take("/usr/bin/python3")
    library = sysconfig.get_path("stdlib")
    embedding = os.path.basename(sysconfig.get_config_var("LIBPL") or "")
    modules = os.path.join(library, "lib-dynload")
    tree.take_all(library, {*_STDLIB_LEFT_OUT, embedding, "lib-dynload"})
    for path in sorted(glob.glob(f"{modules}/*.so")):
        if not _MODULES_LEFT_OUT.match(os.path.basename(path)):
            tree.take(path)
    # Never checked against its source again: a read-only root cannot store a new compilation.
    compileall.compile_dir(
        tree.place(library),
        stripdir=str(tree.target),
        quiet=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def needed_libraries(files: Iterable[str]) -> Iterator[str]:
    """The shared libraries and the loader that these programs and libraries need."""
    for path in files:
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        answer = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
        if "not found" in answer.stdout:
            raise SystemExit(f"{path} needs a library that is not installed:\n{answer.stdout}")
        yield from re.findall(r"(?:=> |^\s*)(/\S+) \(0x", answer.stdout, re.MULTILINE)


def take_libraries(tree: Tree, dependencies: str) -> None:
    folder = os.path.dirname(os.path.realpath(f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/libc.so.6"))
    for pattern in _LIBRARIES:
        found = glob.glob(f"{folder}/{pattern}")
        if not found:
            raise SystemExit(f"there is no {pattern} in {folder}: install its package")
        for path in found:
            tree.take(path)
    own = [path for path in tree.taken if os.path.isfile(path)]
    theirs = glob.glob(f"{dependencies}/lib/**/*.so*", recursive=True)
    for path in set(needed_libraries([*own, *theirs])):
        if not path.startswith(dependencies):
            tree.take(path)


def take_records(tree: Tree) -> None:
    """Copy dpkg's status and file lists, and the copyright files, of the packages with a copied file."""
    kept = {}
    for record in sorted((_DPKG / "info").glob("*.list")):
        lines = [line for line in record.read_text().splitlines() if line != "/." and _canonical(line) in tree.taken]
        if any(os.path.islink(line) or os.path.isfile(line) for line in lines):
            kept[record.stem] = lines
    paragraphs = []
    for paragraph in (_DPKG / "status").read_text().strip().split("\n\n"):
        fields = dict(re.findall(r"^(Package|Architecture): (.*)$", paragraph, re.MULTILINE))
        name = fields["Package"]
        for stem in (name, f"{name}:{fields['Architecture']}"):
            if stem in kept:
                paragraphs.append(paragraph)
                copyright_file = f"/usr/share/doc/{name}/copyright"
                if os.path.exists(copyright_file):
                    tree.take(copyright_file)
                tree.write(f"{_DPKG}/info/{stem}.list", "".join(f"{line}\n" for line in kept[stem]))
    tree.write(f"{_DPKG}/status", "\n\n".join(paragraphs) + "\n")


def _canonical(path: str) -> str:
    """The real path: dpkg lists /lib/x, which is in /usr/lib since /lib became a link."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", type=pathlib.Path, help="a directory that does not exist yet")
    parser.add_argument("--dependencies", default="/opt/directdownload", help="whose shared libraries must be found")
    arguments = parser.parse_args()
    arguments.target.mkdir(mode=0o755)
    tree = Tree(arguments.target)
    take_python(tree)
    take_libraries(tree, arguments.dependencies)
    for directory in _TREES:
        tree.take_all(directory)
    for path in _FILES:
        tree.take(path)
    take_records(tree)
    for path, text in _WRITTEN.items():
        tree.write(path, text)
    for path, mode in _DIRECTORIES.items():
        tree.place(path).mkdir(exist_ok=True)
        tree.place(path).chmod(mode)
    sys.stdout.write(f"{len(tree.taken)} paths\n")


if __name__ == "__main__":
    main()
