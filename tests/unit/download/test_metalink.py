"""Metalinks of both versions, and everything that a hostile server may send instead."""

import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from tests.unit.download.sourcing import guard, make_source
from tests.world import checkout
from tests.world.http import HostileServer, Received, answer
from tests.world.origin import Origin

from directdownload.download.checksum import Pieces
from directdownload.download.errors import DownloadError, SourceError
from directdownload.download.sources import metalink, metalinkxml
from directdownload.download.sources.metalink import MetalinkFile
from directdownload.download.sources.urls import Url
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason

MD5, SHA1, SHA256 = "d" * 32, "1" * 40, "A" * 64
NAME = "debian.qcow2"
URL = f"https://a.example/{NAME}"


def v4(*files: str, root: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="urn:ietf:params:xml:ns:metalink"{root}>'
        f"<generator>test</generator>{''.join(files)}</metalink>"
    ).encode()


def v3(*files: str) -> bytes:
    return (
        '<?xml version="1.0"?><metalink version="3.0" xmlns="http://www.metalinker.org/">'
        f"<publisher><name>x</name></publisher><files>{''.join(files)}</files></metalink>"
    ).encode()


def file(content: str, name: str = NAME) -> str:
    return f'<file name="{name}">{content}<url>{URL}</url></file>'


def chosen(document: bytes, wanted: str = NAME) -> MetalinkFile:
    return metalink.choose(metalink.parse(document), wanted)


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(SourceError) as caught:
        action()
    assert caught.value.reason is Reason.METALINK_INVALID
    assert caught.value.permanent
    assert len(caught.value.message) < 500
    return caught.value.message


# what is understood


def test_version_4() -> None:
    document = v4(
        f"""
        <file name="other.qcow2"><url>https://other.example/</url></file>
        <file name="{NAME}">
          <description>of which nothing is kept: <b>bold</b></description>
          <size> 2500 </size>
          <hash type="md5">{MD5}</hash><hash type="sha-256">
            {SHA256}
          </hash><hash type="sha-1">{SHA1}</hash><hash type="whirlpool">x</hash>
          <pieces length="1024" type="sha-1">
            <hash>{"2" * 40}</hash><hash>{"3" * 40}</hash><hash>{"4" * 40}</hash>
          </pieces>
          <metaurl mediatype="torrent" priority="1">https://a.example/x.torrent</metaurl>
          <url>https://last.example/x</url>
          <url priority="20">nfs://second.example/export/x</url>
          <url priority="1" location="de">https://first.example/x?a=1&amp;b=2</url>
          <url priority="2">ftp://first.example/x</url>
          <url priority="3">https://torrent.example/x.torrent</url>
          <url priority="3">https://again.example/x.METALINK?y</url>
          <url priority="nonsense">http://also-last.example/x</url>
          <x:url xmlns:x="urn:extension">https://extension.example/</x:url>
          <signature mediatype="application/pgp-signature">-----BEGIN</signature>
        </file>"""
    )
    assert chosen(document) == MetalinkFile(
        2500,
        (
            Checksum(Algorithm.SHA256, SHA256.lower()),
            Checksum(Algorithm.SHA1, SHA1),
            Checksum(Algorithm.MD5, MD5),
        ),
        Pieces(Algorithm.SHA1, 1024, bytes.fromhex("2" * 40 + "3" * 40 + "4" * 40)),
        (
            "https://first.example/x?a=1&b=2",
            "nfs://second.example/export/x",
            "https://last.example/x",
            "http://also-last.example/x",
        ),
    )


def test_version_3() -> None:
    document = v3(
        f"""<file name="{NAME}">
          <size>2048</size>
          <verification>
            <hash type="md5">{MD5}</hash><hash type="sha256">{SHA256}</hash>
            <pieces length="1024" type="sha1">
              <hash piece="1">{"3" * 40}</hash><hash piece="0">{"2" * 40}</hash>
            </pieces>
          </verification>
          <resources maxconnections="2">
            <url type="http" location="de" preference="10">http://low.example/x</url>
            <url type="https" preference="100">https://high.example/x</url>
            <url type="bittorrent" preference="100">https://torrent.example/x</url>
            <url type="ftp" preference="100">ftp://ftp.example/x</url>
            <url type="http">http://none.example/x</url>
          </resources>
        </file>"""
    )
    assert chosen(document) == MetalinkFile(
        2048,
        (Checksum(Algorithm.SHA256, SHA256.lower()), Checksum(Algorithm.MD5, MD5)),
        Pieces(Algorithm.SHA1, 1024, bytes.fromhex("2" * 40 + "3" * 40)),
        ("https://high.example/x", "http://low.example/x", "http://none.example/x"),
    )


def test_a_url_is_all_that_a_file_needs() -> None:
    assert chosen(v4(file(""))) == MetalinkFile(None, (), None, (URL,))
    assert chosen(v3(f'<file name="x"><resources><url>{URL}</url></resources></file>')).urls == (URL,)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_encodings_of_xml(encoding: str) -> None:
    text = v4(file("<description>\u00fc</description>")).decode().replace('encoding="UTF-8"', "")
    if encoding == "iso-8859-1":
        text = text.replace('version="1.0"', 'version="1.0" encoding="iso-8859-1"')
    assert chosen(text.encode(encoding)).urls == (URL,)


def test_the_strongest_pieces_are_used() -> None:
    pieces = "".join(
        f'<pieces length="1024" type="{kind}"><hash>{"a" * digits}</hash></pieces>'
        for kind, digits in (("md5", 32), ("sha-256", 64), ("sha-1", 40), ("ed2k", 7))
    )
    found = chosen(v4(file("<size>1000</size>" + pieces))).pieces
    assert found == Pieces(Algorithm.SHA256, 1024, bytes.fromhex("a" * 64))


def test_an_empty_file_has_no_pieces() -> None:
    assert chosen(v4(file('<size>0</size><pieces length="1024" type="sha-1"></pieces>'))).pieces is None


def test_the_same_url_is_used_once_and_at_most_64_are() -> None:
    urls = "".join(f"<url>https://h{number}.example/</url><url>https://h0.example/</url>" for number in range(100))
    assert chosen(v4(file(urls))).urls == tuple(f"https://h{number}.example/" for number in range(64))


def test_urls_that_are_not_valid_are_left_out() -> None:
    bad = ("https://user:pw@a.example/", "/relative", "https://a b/", "file:///etc/passwd", "", "https://[::1/")
    assert chosen(v4(file("".join(f"<url priority='1'>{url}</url>" for url in bad)))).urls == (URL,)


def test_urls_are_read_as_browsers_do() -> None:
    told = (" https://a.example/x y/caf\u00e9|?q=\u00e9\n", "https:\\\\b.example\\x", "https:c.example/./x")
    read = ("https://a.example/x%20y/caf%C3%A9|?q=%C3%A9", "https://b.example/x", "https://c.example/x")
    assert chosen(v4(file("".join(f"<url priority='1'>{url}</url>" for url in told)))).urls == (*read, URL)


# which file


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://a.example/images/debian.qcow2.metalink", "debian.qcow2"),
        ("https://a.example/images/debian.qcow2.META4?x=/y.z", "debian.qcow2"),
        ("nfs://a.example/export/de%20bian.meta4", "de bian"),
        ("https://a.example/.meta4", ""),
        ("https://a.example/debian.qcow2", "debian.qcow2"),
    ],
)
def test_the_file_that_a_metalink_is_named_after(text: str, name: str) -> None:
    assert metalink.wanted_name(Url.parse(text)) == name


@pytest.mark.parametrize(
    ("names", "wanted", "index"),
    [
        (["a", "b"], "b", 1),
        (["only"], "another", 0),
        (["dir/a", "b"], "a", 0),
        (["dir/a", "a"], "a", 1),
        ([""], "a", 0),
        (["../../etc/passwd"], "passwd", 0),
    ],
)
def test_the_file_that_is_chosen(names: list[str], wanted: str, index: int) -> None:
    document = v4(
        *(f'<file name="{name}"><size>{number}</size><url>{URL}</url></file>' for number, name in enumerate(names))
    )
    assert chosen(document, wanted).size_bytes == index


@pytest.mark.parametrize(
    ("names", "wanted"), [([], "a"), (["a", "b"], "c"), (["a", "a"], "a"), (["x/a", "y/a"], "a"), (["A", "B"], "a")]
)
def test_no_file_to_choose(names: list[str], wanted: str) -> None:
    assert repr(wanted) in refused(lambda: chosen(v4(*(file("", name) for name in names)), wanted))


def test_nonsense_in_a_file_that_nobody_wants_does_no_harm() -> None:
    assert chosen(v4(file("<size>big</size>", "other"), file("<size>1</size>"))).size_bytes == 1


# what is refused


@pytest.mark.parametrize(
    "content",
    [
        "<size>-1</size>",
        "<size>1e9</size>",
        "<size></size>",
        "<size>9999999999999999999</size>",
        "<size>1</size><size>2</size>",
        "<hash type='sha-256'>abc</hash>",
        f"<hash type='sha-256'>{'g' * 64}</hash>",
        f"<hash type='md5'>{MD5}</hash><hash type='md5'>{'e' * 32}</hash>",
        f"<pieces type='sha-1'><hash>{SHA1}</hash></pieces>",
        f"<pieces length='0' type='sha-1'><hash>{SHA1}</hash></pieces>",
        f"<pieces length='1023' type='sha-1'><hash>{SHA1}</hash></pieces>",
        f"<pieces length='1073741825' type='sha-1'><hash>{SHA1}</hash></pieces>",
        f"<pieces length='-1024' type='sha-1'><hash>{SHA1}</hash></pieces>",
        "<pieces length='1024' type='sha-1'><hash>x</hash></pieces>",
        f"<size>1025</size><pieces length='1024' type='sha-1'><hash>{SHA1}</hash></pieces>",
        f"<size>0</size><pieces length='1024' type='sha-1'><hash>{SHA1}</hash></pieces>",
        "<size>1</size><pieces length='1024' type='sha-1'></pieces>",
        f"<pieces length='1024' type='sha-1'><hash piece='1'>{SHA1}</hash></pieces>",
        f"<pieces length='1024' type='sha-1'><hash piece='x'>{SHA1}</hash></pieces>",
        f"<pieces length='1024' type='sha-1'><hash piece='0'>{SHA1}</hash><hash piece='0'>{SHA1}</hash></pieces>",
    ],
)
def test_contradictions_and_nonsense(content: str) -> None:
    refused(lambda: chosen(v4(file(content))))


@pytest.mark.parametrize("urls", ["", "<url>ftp://a.example/x</url>", "<url>https://a.example/x.meta4</url>"])
def test_a_file_without_a_usable_url(urls: str) -> None:
    assert "http, https or nfs" in refused(lambda: chosen(v4(f'<file name="x">{urls}</file>')))


BOMB = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
DOCTYPES = [
    f'<!DOCTYPE metalink [<!ENTITY l0 "lol">{BOMB}]>',
    '<!DOCTYPE metalink [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE metalink SYSTEM "http://evil.example/x.dtd">',
    '<!DOCTYPE metalink [<!ENTITY % x SYSTEM "http://evil.example/x.dtd"> %x;]>',
    "<!DOCTYPE metalink>",
]


@pytest.mark.parametrize("doctype", DOCTYPES)
def test_document_types_are_refused_before_they_mean_anything(doctype: str) -> None:
    document = v4(file("<description>&l9;</description>")).replace(b"<metalink", doctype.encode() + b"<metalink", 1)
    assert "document type" in refused(lambda: metalink.parse(document))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\0" * 1000,
        b"QFI\xfb" + b"\0" * 1000,
        b"<html><body>404</body></html>",
        b"<metalink/>",
        b'<metalink xmlns="urn:other"/>',
        b'<x:other xmlns:x="urn:ietf:params:xml:ns:metalink"/>',
        v4(file(""))[:-5],
        v4(file("")) + b"<more/>",
        v4(file("<description>&undeclared;</description>")),
        b'<?xml version="1.0" encoding="no-such"?><metalink/>',
        b'<?xml version="1.0" encoding="utf-7"?><metalink/>',
        b"\xff\xfe<\0",
        v4(file("\x00")),
        v4(file("<a b='1' b='2'/>")),
    ],
)
def test_what_is_no_metalink(document: bytes) -> None:
    refused(lambda: chosen(document))


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (v4(file("<a>" * 20 + "</a>" * 20)), "deeper"),
        (v4(file("<a>" * 1_000_000)), "deeper"),
        (v4(file("<a/>" * 270_000)), "elements"),
        (v4(file(f"<url>https://a.example/{'a' * 9000}</url>")), "characters"),
        (v4(file(f"<hash type='md5'>{'a' * 3_000_000}</hash>")), "characters"),
        (v4(file("<url>https://a.example/</url>" * 1100)), "URLs"),
        (v4(file("")) + b" " * metalinkxml.DOCUMENT_LIMIT_BYTES, "bytes"),
        (v4(*(file("", str(number)) for number in range(9000))), "too much"),
        (v4(file("<size>1</size>" * 9000)), "too much"),
        (v4(file("<hash type='md5'>x</hash>" * 9000)), "too much"),
        (v4(file("<pieces/>" * 9000)), "too much"),
        (v4(file(f"<hash type='{'a' * 8000}'/>" * 300)), "too much"),
    ],
)
def test_what_is_too_much(document: bytes, word: str) -> None:
    assert word in refused(lambda: metalink.parse(document))


#: a file of 64 GiB in pieces of 1 MiB
MANY = 65_536


def many_pieces(algorithm: Algorithm, *, numbered: bool = False) -> bytes:
    """Indented, as tools write it."""
    pieces = "".join(
        f"        <hash{f' piece={chr(34)}{number}{chr(34)}' if numbered else ''}>"
        f"{number:0{algorithm.hex_length}x}</hash>\n"
        for number in range(MANY)
    )
    kind = algorithm.title.lower()
    return v4(file(f"<size>{MANY << 20}</size><pieces length='1048576' type='{kind}'>\n{pieces}</pieces>"))


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("numbered", [True, False])
def test_pieces_of_a_file_of_64_gib_are_read(algorithm: Algorithm, numbered: bool) -> None:
    document = many_pieces(algorithm, numbered=numbered)
    size = algorithm.hex_length // 2
    digests = b"".join(number.to_bytes(size, "big") for number in range(MANY))
    found = chosen(document).pieces
    assert found == Pieces(algorithm, 1024 * 1024, digests)
    assert found.digest(MANY - 1) == digests[-size:]


LOADING = """
import sys, threading
from directdownload.download.sources import metalink
from directdownload.download.guard import Guard
from directdownload.download.sources.urls import Url

class Served:
    url = Url.parse("http://a.example/debian.qcow2.meta4")
    def open(self, ask, guard):
        self.file = open(sys.argv[1], "rb", buffering=0)
        return self
    def readinto(self, buffer):
        return self.file.readinto(buffer[:64 * 1024])
    def close(self):
        self.file.close()

def peak():
    # ru_maxrss is inherited
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
found = metalink.load(Served(), Guard(threading.Event()))
print(len(found.pieces.digests), peak() - before)
"""


def test_memory_stays_small_with_many_pieces(tmp_path: pathlib.Path) -> None:
    """The digests as bytes (2 MiB) a few times over, and blocks of the document, but never all of its 6 MiB of text.

    As text they took 35 MiB.
    """
    document = tmp_path / "document"
    document.write_bytes(many_pieces(Algorithm.SHA256, numbered=True))
    assert document.stat().st_size > 6 << 20
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(document)],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    length, grown_kib = map(int, done.stdout.split())
    assert length == MANY * 32
    assert grown_kib < 12 << 10


def test_the_root_element_shows_a_metalink() -> None:
    for document in (v4(file("")), v3(), v4(file("")).decode().replace('encoding="UTF-8"', "").encode("utf-16")):
        for length in (400, metalink.HEAD_BYTES):
            assert metalink.is_one(document[:length])
    for document in (b"", b"<html/>", b"<metalink/>", DOCTYPES[0].encode() + v4(), bytes(5000), b"text", v4()[:60]):
        assert not metalink.is_one(document)


def test_messages_name_the_metalink_and_nothing_secret() -> None:
    message = refused(lambda: metalink.parse(b"<x/>", str(Url.parse("https://a.example/x.meta4?token=secret"))))
    assert message.startswith("https://a.example/x.meta4 is not a usable metalink")
    assert "secret" not in message


# from a server


def test_a_metalink_is_loaded_from_a_server(origin: Origin, served: pathlib.Path) -> None:
    (served / f"{NAME}.meta4").write_bytes(v4(file("<size>1</size>", "x"), file("<size>2</size>")))
    with Origin(served) as running:
        # `create` leaves metalinks to the engine: the document itself is a file like any other
        (served / "document").write_bytes(v4(file("<size>2</size>")))
        assert metalink.load(make_source(running.url("document")), guard()).size_bytes == 2


def test_a_document_that_is_too_long_is_not_read_to_its_end() -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.ended.is_set():
            connection.sendall(b" " * 65_536)

    with HostileServer(respond) as server:
        source = make_source(server.url())
        assert "bytes" in refused(lambda: metalink.read(source, guard()))


def test_a_document_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metalink, "_READ_SECONDS", 0.3)

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.ended.wait(0.02):
            connection.sendall(b" ")

    with HostileServer(respond) as server, pytest.raises(SourceError) as caught:
        metalink.read(make_source(server.url()), guard())
    assert caught.value.reason is Reason.SOCKET_TIMEOUT


def test_a_document_that_is_cut_is_truncated() -> None:
    document = v4(file(""))
    with HostileServer(lambda c, r, n: answer(c, document, length=len(document) + 1)) as server:
        with pytest.raises(DownloadError) as caught:
            metalink.load(make_source(server.url()), guard())
        assert caught.value.reason is Reason.TRUNCATED


def test_stopping_ends_the_download_of_a_document() -> None:
    stopping = guard()

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n ")
        stopping.stop.set()
        server.ended.wait(10)

    with HostileServer(respond) as server, pytest.raises(DownloadError) as caught:
        metalink.read(make_source(server.url()), stopping)
    assert caught.value.reason is Reason.INTERRUPTED
    assert isinstance(stopping.stop, threading.Event)
