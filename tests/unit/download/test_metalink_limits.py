"""What a metalink may cost: memory, processor time, and requests."""

import collections
import pathlib
import socket
import subprocess
import sys

import pytest
from tests.unit.download.sourcing import guard
from tests.unit.download.support import fetch, fetch_error, make_request
from tests.unit.download.test_metalink import NAME, URL, chosen, file, many_pieces, refused, v4
from tests.world import checkout
from tests.world.http import HostileServer, Received, answer

from directdownload.download.errors import SourceError, StoppedError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, metalink, metalinkxml, offers
from directdownload.download.sources.metalinkxml import Parsing
from directdownload.download.sources.urls import Url
from directdownload.resources.checksum import Algorithm
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
NAMESPACE = "urn:ietf:params:xml:ns:metalink"


def attributes(count: int, prefix: str = "") -> str:
    return " ".join(f'{prefix}a{number:x}=""' for number in range(count))


# memory

READING = """
import resource, sys
from directdownload.download.sources import metalink
from directdownload.download.errors import SourceError

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
document = open(sys.argv[1], "rb").read()
before = peak()
try:
    metalink.parse(document)
except SourceError as error:
    print(peak() - before, error.message)
"""
BOMBS = {
    "prefixed-attributes": (v4(f"<a {attributes(20_000, 'p:')}/>", root=f' xmlns:p="{"u" * 65_536}"'), "namespaces"),
    "prefixed-elements": (
        v4("".join(f"<p:a{n:x}/>" for n in range(20_000)), root=f' xmlns:p="{"u" * 65_536}"'),
        "namespaces",
    ),
    "attributes-of-a-tag": (v4(f"<a {attributes(1_000_000)}/>"), "a tag of more"),
    "attributes-of-tags": (v4("".join(f"<a{n} {attributes(500)}/>" for n in range(2000))), "names"),
    # in UTF-16 the bytes of `<` and U+4E3F begin as those of `<?` do, but for zeros
    "attributes-behind-a-mark": (v4(f"<\u4e3f {attributes(1_000_000)}/>").decode()[38:].encode("utf-16"), "a tag of"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_document_takes_little_memory(tmp_path: pathlib.Path, bomb: str) -> None:
    """These took up to 3.5 GiB."""
    data, words = BOMBS[bomb]
    document = tmp_path / "document"
    document.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", READING, str(document)],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    grown_kib, _, message = done.stdout.partition(" ")
    assert words in message
    assert int(grown_kib) < 48 << 10


@pytest.mark.parametrize(
    "content",
    [
        f"<{'n' * 257}/>",
        f"<a {'n' * 257}=''/>",
        f"<a xmlns:p='{'u' * 257}'/>",
        f"<a xmlns='{'u' * 257}'/>",
        "".join(f"<a{number}/>" for number in range(1025)),
    ],
)
def test_names_are_bounded(content: str) -> None:
    assert "names, namespaces or prefixes" in refused(lambda: metalink.parse(v4(file(content))))


def test_names_of_some_length_are_read() -> None:
    names = "".join(f"<a{number} b{number}=''/>" for number in range(400))
    allowed = f"<{'n' * 256}/><a {'n' * 256}='' xmlns:p='{'u' * 256}'/>{names}"
    assert chosen(v4(file(allowed))).urls == (URL,)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_long_tag_is_read_up_to_its_limit(encoding: str) -> None:
    def document(length: int) -> bytes:
        tag = f"<a b='{'c' * length}'/>"
        text = f'<metalink xmlns="{NAMESPACE}">{file(tag)}</metalink>'
        return text.encode(encoding)

    width = len("cc".encode(encoding)) - len("c".encode(encoding))
    assert chosen(document(60_000 // width)).urls == (URL,)
    assert "a tag of more than" in refused(lambda: chosen(document(200_000 // width)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "iso-8859-1"])
@pytest.mark.parametrize(
    "long", ["{}", "<![CDATA[{}]]>", "<!--{}-->", "<?pi {}?>", "<b>{}</b>"], ids=["text", "cdata", "comment", "pi", "b"]
)
def test_what_is_long_but_no_tag_is_read(long: str, encoding: str) -> None:
    declared = '<?xml version="1.0" encoding="iso-8859-1"?>' if encoding == "iso-8859-1" else ""
    text = v4(file(f"<description>{long.format('t' * 2 * MIB)}</description>" * 3)).decode()
    text = declared + text.partition("\n")[2]
    data = (b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding)
    assert len(data) > 6 * MIB
    assert chosen(data).urls == (URL,)


def test_what_is_long_is_read_wherever_a_step_ends() -> None:
    """The mark of a comment may be cut anywhere."""
    comment = f"<!--{'t' * 300_000}-->"
    for shift in range(8):
        filler = " " * (metalinkxml._STEP_BYTES - len(v4(file("")).partition(b"<url>")[0]) - shift)
        assert chosen(v4(file(filler + comment))).urls == (URL,)


def test_a_long_comment_before_the_root_is_read() -> None:
    document = f'<!--{"t" * MIB}--><metalink xmlns="{NAMESPACE}">{file("")}</metalink><!--{"t" * MIB}-->'
    assert chosen(document.encode()).urls == (URL,)


# namespaces


@pytest.mark.parametrize(
    "document",
    [
        f'<m:metalink xmlns:m="{NAMESPACE}"><m:file name="x"><m:url>{URL}</m:url><url>http://no/</url></m:file></m:metalink>',
        f'<metalink xmlns="{NAMESPACE}"><file name="x"><p:url xmlns:p="{NAMESPACE}">{URL}</p:url></file></metalink>',
        f'<p:metalink xmlns:p="{NAMESPACE}"><file xmlns="{NAMESPACE}" name="x"><url>{URL}</url></file></p:metalink>',
        # a declaration ends with its element, and another may hide it
        f'<metalink xmlns="{NAMESPACE}"><file name="x"><a xmlns="urn:x"><b xmlns=""/></a><url>{URL}</url></file>'
        "</metalink>",
        f'<p:metalink xmlns:p="{NAMESPACE}"><p:file name="x"><p:url xmlns:p="urn:x">http://no/</p:url><p:url>{URL}</p:url>'
        "</p:file></p:metalink>",
        # attributes with a prefix are others
        f'<metalink xmlns="{NAMESPACE}" xmlns:p="urn:x"><file p:name="y" xml:lang="de" name="x">'
        f'<url p:type="bittorrent">{URL}</url></file></metalink>',
    ],
)
def test_namespaces_of_elements_and_attributes(document: str) -> None:
    parsed = metalink.parse(document.encode())
    assert [entry.name for entry in parsed.entries] == ["x"]
    assert metalink.choose(parsed, "x").urls == (URL,)


@pytest.mark.parametrize(
    "content", ["<p:a/>", "<a p:b=''/>", "<p:a xmlns:p=''/>", "<a xmlns:p='urn:x'/><p:a/>", "<p:a:b xmlns:p='urn:x'/>"]
)
def test_prefixes_must_be_declared(content: str) -> None:
    assert "does not declare the prefix" in refused(lambda: metalink.parse(v4(file(content))))


# time


class Served:
    """A source that has one block of a document, and stops its reader when that is read."""

    url = Url.parse(f"http://a.example/{NAME}.meta4")
    media_type = ""

    def __init__(self, document: bytes, reader: Guard) -> None:
        self._left = document
        self._reader = reader

    def open(self, *_others: object) -> "Served":
        return self

    def readinto(self, buffer: memoryview) -> int:
        data, self._left = self._left, b""
        buffer[: len(data)] = data
        if not data:
            self._reader.stop.set()
        return len(data)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("document", [v4(file("")), v4(file("<a/>" * 10_000))[:-5]], ids=["good", "cut"])
def test_stopping_ends_the_parsing_of_a_block(document: bytes) -> None:
    """It counts more than a flaw in a later step."""
    reader = guard()
    with pytest.raises(StoppedError) as caught:
        metalink.read(Served(document, reader), reader)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.INTERRUPTED


def test_the_guard_is_asked_after_each_step() -> None:
    document = many_pieces(Algorithm.MD5)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1

    parsing = Parsing("x", check)
    parsing.feed(document)
    steps = -(-len(document) // metalinkxml._STEP_BYTES)
    assert asked == steps
    parsing.finish()
    assert asked == steps + 1


# requests


class Metalinks(HostileServer):
    """Documents at /document…, each with four mirrors that are not there, and what `others` has."""

    def __init__(self, others: dict[str, bytes]) -> None:
        self.others = others
        super().__init__(self.serve)

    def serve(self, connection: socket.socket, request: Received, _number: int) -> None:
        path = request.target
        if path in self.others:
            answer(connection, self.others[path])
        elif path.startswith("/document"):
            dead = [f"<url>{self.url(f'dead{path[9:]}-{each}')}</url>" for each in range(4)]
            document = v4(f'<file name="x">{"".join(dead)}</file>')
            answer(connection, document, headers="Content-Type: application/metalink4+xml\r\n")
        else:
            answer(connection, b"", status="404 Not Found")

    def most(self, kind: str) -> int:
        """How often one such path was asked for."""
        return max(collections.Counter(each.target for each in self.received if kind in each.target).values())


def test_many_metalinks_are_read_once_each_and_dead_mirrors_asked_once(pool: pathlib.Path) -> None:
    """13 documents were asked for 104 times, and a mirror 13 times."""
    with Metalinks({}) as server:
        mirrors = tuple(server.url(f"document{number}") for number in range(1, 13))
        error = fetch_error(make_request(pool, server.url("document0"), mirrors=mirrors))
        assert error.reason is Reason.SOURCE_REFUSED
        # by its media type at first
        assert (server.most("document"), server.most("dead")) == (2, 1)
        assert len(server.received) == 13 * (2 + 4)


def test_a_metalink_that_cannot_be_read_is_asked_once(pool: pathlib.Path) -> None:
    with Metalinks({"/bad.meta4": b"nonsense", "/image": b"x" * MIB}) as server:
        mirrors = (server.url("gone.meta4"), server.url("document1"), server.url("document2"), server.url("image"))
        result = fetch(make_request(pool, server.url("bad.meta4"), mirrors=mirrors, image_format="RAW"))
        assert result.source == server.url("image")
        assert (server.most("bad"), server.most("gone"), server.most("document")) == (1, 1, 2)


def test_a_source_that_answered_is_asked_again() -> None:
    class Fickle:
        url = Url.parse(URL)
        broken = True

        def open(self, *_others: object) -> Served:
            if self.broken:
                raise SourceError(Reason.SOURCE_UNAVAILABLE, "broken")
            return Served(b"", guard())

    inner = Fickle()
    source = offers.PlainSource(inner, within=False)  # type: ignore[arg-type]
    with pytest.raises(SourceError):
        source.open(Ask(), guard())
    assert source.failure is not None
    assert source.failure.__traceback__ is None
    inner.broken = False
    source.open(Ask(), guard())
    inner.broken = True
    with pytest.raises(SourceError):
        source.open(Ask(), guard())
    assert source.failure is None


def test_only_the_pieces_that_count_are_kept(pool: pathlib.Path) -> None:
    documents = {f"/{name}.meta4": many_pieces(Algorithm.MD5) for name in "abc"}
    with HostileServer(lambda c, r, n: answer(c, documents[r.target])) as server:
        request = make_request(pool, server.url("a.meta4"), mirrors=(server.url("b.meta4"), server.url("c.meta4")))
        known = offers.Known()
        offer = offers.collect(request.url, request.mirrors, request.source, guard(), known)
    assert offer.pieces is not None
    files = known.files.values()
    assert [isinstance(each, metalink.MetalinkFile) and each.pieces is not None for each in files] == [
        True,
        False,
        False,
    ]
