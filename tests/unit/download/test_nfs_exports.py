"""What a source policy lets out of a real nfs-ganesha, over both versions of the protocol: links, owners, modes."""

import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from tests.unit.download.support import PATIENT, fetch, fetch_error, make_request
from tests.world import ganesha, waiting
from tests.world.ganesha import Ganesha

from directdownload.download import sources
from directdownload.download.errors import SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, SourceOptions
from directdownload.download.sources.nfssession import Session
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import NFSUser, SourcePolicy

pytestmark = pytest.mark.skipif(not ganesha.available(), reason="an NFS server of one's own needs root")

ROOT = NFSUser(uid=0, gid=0)
#: below `templates`, which alone is allowed; `{}` is the served directory
LINKS = {
    "latest": "debian",
    "deep/up": "../debian",
    "absolute": "{}/templates/debian",
    "to-deep": "deep",
    "deep/round": "../deep/../debian",
    "deep/of-many": "../latest",
    "dot": ".",
    "out": "../other/disk",
    "out-absolute": "{}/other/disk",
    "out-and-in": "../templates/debian",
    "out-deep": "deep/../../other/disk",
    "out-prefix": "{}/templates-of-others/disk",
    "out-directory": "../other",
    "out-directory-absolute": "{}/other",
    "out-chain": "out-directory/disk",
    "deep/dots": "..",
    "deep/more-dots": "../..",
    "root": "/",
    "loop": "loop",
    "long": "a/" * 1500,
}
FOLLOWED = ("latest", "deep/up", "absolute", "to-deep/inner", "to-deep/up", "deep/round", "deep/of-many", "dot/debian")
REFUSED = {
    **dict.fromkeys(("out", "out-absolute", "out-and-in", "out-deep", "out-prefix", "out-chain"), "leads out of"),
    **dict.fromkeys(("out-directory/disk", "out-directory-absolute/disk", "deep/more-dots", "root"), "leads out of"),
    **dict.fromkeys(("dot", "deep/dots", "to-deep"), "not a regular file"),
    **dict.fromkeys(("loop", "loop/x"), "more than 40 symbolic links"),
    "long": "no such file",
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("export")
    for name in ("templates/deep", "other", "templates-of-others"):
        (directory / name).mkdir(parents=True)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)
    for name in ("templates/debian", "templates/deep/inner"):
        (directory / name).write_bytes(b"template")
    for name in ("other/disk", "templates-of-others/disk"):
        (directory / name).write_bytes(b"of another tenant")
    for name, target in LINKS.items():
        (directory / "templates" / name).symlink_to(target.format(directory))
    for name, owner, mode in (("of-root", 0, 0o600), ("of-group", 0, 0o640), ("of-nobody", 65534, 0o600)):
        path = directory / "templates" / name
        path.write_bytes(b"template")
        os.chown(path, owner, 1234)
        path.chmod(mode)
    return directory


@pytest.fixture(scope="module", params=[3, 4], ids=["v3", "v4"])
def server(request: pytest.FixtureRequest, export: pathlib.Path) -> Iterator[Ganesha]:
    """Speaks one version only, and believes whom it is told."""
    with Ganesha(export, versions=(request.param,), squash="no_root_squash") as running:
        yield running


def policy_of(server: Ganesha, user: NFSUser | None = None, directory: str = "/templates") -> SourcePolicy:
    allowed = (f"{server.export}{directory}",)
    return SourcePolicy(allowed_cidrs=("198.18.0.0/15",), nfs_exports=allowed, nfs_user=user or NFSUser())


def read(url: str, policy: SourcePolicy) -> bytes:
    stream = sources.create(url, SourceOptions(PATIENT, policy)).open(Ask(), Guard.start(threading.Event()))
    buffer = memoryview(bytearray(64))
    try:
        return bytes(buffer[: stream.readinto(buffer)])
    finally:
        stream.close()


@pytest.mark.parametrize("name", ["debian", "deep/inner", *FOLLOWED])
def test_links_are_followed_below_what_is_allowed(server: Ganesha, name: str) -> None:
    assert read(server.url(f"templates/{name}"), policy_of(server)) == b"template"


@pytest.mark.parametrize("name", REFUSED)
def test_links_lead_nowhere_else(server: Ganesha, name: str) -> None:
    """The file that most of them lead to is there, and may be read where the policy allows it."""
    with pytest.raises(SourceError) as caught:
        read(server.url(f"templates/{name}"), policy_of(server))
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert REFUSED[name] in caught.value.message
    if name.startswith("out"):
        expected = b"template" if name == "out-and-in" else b"of another tenant"
        assert read(server.url(f"templates/{name}"), policy_of(server, directory="")) == expected


@pytest.mark.parametrize("whole", [False, True], ids=["the entry", "the whole export"])
@pytest.mark.parametrize("name", ["disk", "directory/disk"])
def test_a_link_that_takes_the_place_of_something_leads_nowhere(
    server: Ganesha, export: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, whole: bool
) -> None:
    """Between the look at the path and the opening of it; also where version 3 must mount the whole export."""
    work = export / "templates" / f"swapped-{server.versions[0]}-{name.count('/')}-{whole}"
    path = work / name
    path.parent.mkdir(parents=True)
    for directory in (work, path.parent):
        directory.chmod(0o755)
    path.write_bytes(b"template")
    assert read(server.url(str(path.relative_to(export))), policy_of(server)) == b"template"
    look, swapped = Session._link, threading.Event()

    def swap(self: Session, names: Sequence[str], end: float) -> str | None:
        found = look(self, names, end)
        if names[-1] == "disk" and not swapped.is_set():
            swapped.set()
            top = work / name.partition("/")[0]
            top.rename(work / "aside")
            top.symlink_to("../../other/disk" if top == path else "../../other")
        return found

    mount = Session.mount
    # version 4 gives any directory
    if whole and server.versions == (3,):
        monkeypatch.setattr(Session, "mount", lambda self, address, _, end: mount(self, address, server.pseudo, end))
    monkeypatch.setattr(Session, "_link", swap)
    with pytest.raises(SourceError) as caught:
        read(server.url(str(path.relative_to(export))), policy_of(server))
    assert caught.value.reason in (Reason.SOURCE_REFUSED, Reason.NFS_ERROR)


@pytest.mark.parametrize(("name", "told"), [("out", "leads out of"), ("debian", ""), ("latest", "")])
def test_a_server_that_gives_only_the_whole_export(server: Ganesha, name: str, told: str) -> None:
    """Version 3 may have to mount more than is allowed: the links there lead out all the same."""
    url = Url.parse(server.url(f"templates/{name}"))
    root = f"{server.pseudo}/templates"
    session = Session(url, server.versions[0], NFSUser(), PATIENT, Guard.start(threading.Event()))
    end = time.monotonic() + waiting.DEADLINE_SECONDS
    try:
        session.mount(server.host, server.pseudo, end)
        if told:
            with pytest.raises(SourceError, match=told):
                session.open(f"{root}/{name}", root, end)
        else:
            session.open(f"{root}/{name}", root, end)
            assert session.attributes.size == len(b"template")
    finally:
        session.close()


def test_a_link_does_not_lead_out_of_what_is_mounted(server: Ganesha) -> None:
    """Where all of the server is allowed, version 3 mounts the directory of the file."""
    url = Url.parse(server.url("templates/deep/up"))
    deep = f"{server.pseudo}/templates/deep"
    session = Session(url, server.versions[0], NFSUser(), PATIENT, Guard.start(threading.Event()))
    end = time.monotonic() + waiting.DEADLINE_SECONDS
    try:
        session.mount(server.host, deep, end)
        with pytest.raises(SourceError, match="leads out of"):
            session.open(f"{deep}/up", "/", end)
    finally:
        session.close()


@pytest.mark.parametrize(
    ("user", "readable"),
    [
        (None, {"of-nobody"}),
        (ROOT, {"of-root", "of-group", "of-nobody"}),
        (NFSUser(uid=1000, gid=1234), {"of-group"}),
        # AUTH_SYS has numbers without a sign
        (NFSUser(uid=2**32 - 2, gid=2**32 - 2), set()),
    ],
    ids=["nobody", "root", "a group", "the largest"],
)
def test_the_server_is_told_who_reads(server: Ganesha, user: NFSUser | None, readable: set[str]) -> None:
    """This process is user 0: it would read everything."""
    policy, expected = policy_of(server, user), user or NFSUser()
    for name in ("of-root", "of-group", "of-nobody"):
        if name in readable:
            assert read(server.url(f"templates/{name}"), policy) == b"template"
            continue
        with pytest.raises(SourceError) as caught:
            read(server.url(f"templates/{name}"), policy)
        assert caught.value.reason is Reason.SOURCE_REFUSED
        told = f"requested as user {expected.uid}, group {expected.gid} (sourcePolicy.nfsUser of the Zone)"
        assert told in caught.value.message


def test_no_further_groups_are_told(server: Ganesha, export: pathlib.Path) -> None:
    """A process that is in the group of a file reads it no more than another one."""
    before = os.getgroups()
    os.setgroups([*before, 1234])
    try:
        with pytest.raises(SourceError, match="access denied"):
            read(server.url("templates/of-group"), policy_of(server))
    finally:
        os.setgroups(before)


def test_a_fetch_reads_what_is_allowed_and_no_metalink_more(server: Ganesha, tmp_path: pathlib.Path) -> None:
    policy = policy_of(server)
    allowed, other = server.url("templates/debian"), server.url("other/disk")
    request = make_request(tmp_path / "pool", allowed, policy=policy)
    assert fetch(request).reason is Reason.DOWNLOADED
    metalink = server.directory / "templates" / "any.meta4"
    entry = '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="any">{}</file></metalink>'
    for urls, expected in (([other], Reason.METALINK_INVALID), ([other, allowed], None)):
        metalink.write_text(entry.format("".join(f"<url>{url}</url>" for url in urls)))
        request = make_request(tmp_path / f"pool-{len(urls)}", server.url("templates/any.meta4"), policy=policy)
        if expected is None:
            assert fetch(request).source == allowed
        else:
            assert "sourcePolicy.nfsExports" in fetch_error(request).message


def test_a_refused_export_is_not_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        port = listener.getsockname()[1]
        policy = SourcePolicy(allowed_cidrs=("127.0.0.0/8",), nfs_exports=(f"127.0.0.1:{port}:/export/templates",))
        with pytest.raises(Exception, match="nfsExports"):
            read(f"nfs://127.0.0.1:{port}/export/other/x", policy)
        with pytest.raises(BlockingIOError):
            listener.accept()
