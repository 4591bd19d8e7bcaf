"""Unpacking while downloading: what the usual programs pack, what is damaged on the way, and what is made to hurt."""

import bz2
import gzip
import io
import lzma
import pathlib
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.world import checkout
from tests.world.soak import ROUNDS

from directdownload.download import archives
from directdownload.download.archives import Kind
from directdownload.download.errors import SourceError
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
#: compressible and not, and with long runs of zeros
CONTENT = random.Random(1).randbytes(70_000) + bytes(300_000) + b"the same again and again " * 4000
CALM = settings(deadline=None, database=None, max_examples=60 * ROUNDS)


class Unseekable(io.RawIOBase):
    """A pipe: what zipfile writes into it gets data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(memoryview(data))  # type: ignore[arg-type]
        self.data += block
        return len(block)


def zipped(
    content: bytes, *, method: int = zipfile.ZIP_DEFLATED, pipe: bool = False, zip64: bool = False, comment: bytes = b""
) -> bytes:
    target = Unseekable() if pipe else io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        with archive.open("image", "w", force_zip64=zip64) as member:
            member.write(content)
        archive.comment = comment
    return bytes(target.data) if isinstance(target, Unseekable) else target.getvalue()


def zst(content: bytes, **options: int) -> bytes:
    chosen = {getattr(zstd.CompressionParameter, name): value for name, value in options.items()}
    return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1, **chosen})


PACK: dict[Kind, Callable[[bytes], bytes]] = {
    Kind.GZ: gzip.compress,
    Kind.BZ2: bz2.compress,
    Kind.XZ: lzma.compress,
    Kind.ZST: zst,
    Kind.ZIP: zipped,
}
STREAMS = [Kind.GZ, Kind.BZ2, Kind.XZ, Kind.ZST]


def unpack(archive: bytes, kind: Kind | None = None, *, block_bytes: int = MIB, max_output: int = MIB) -> bytes:
    return unpack_all(archive, kind, block_bytes=block_bytes, max_output=max_output)[0]


def unpack_all(
    archive: bytes, kind: Kind | None = None, *, block_bytes: int = MIB, max_output: int = MIB
) -> tuple[bytes, int]:
    """As the engine does it, with the number of ignored bytes; kind None: as it is recognised."""
    chosen = kind or archives.recognise(archive[: archives.HEAD_BYTES])
    assert chosen
    unpacking = archives.create(chosen)
    content = bytearray()
    for start in range(0, len(archive), block_bytes):
        assert unpacking.needs_input
        # the engine uses its buffer again
        block = bytearray(archive[start : start + block_bytes])
        output = unpacking.decompress(memoryview(block), max_output)
        block[:] = bytes(len(block))
        while output or not unpacking.needs_input:
            assert len(output) <= max_output
            content += output
            output = unpacking.decompress(b"", max_output)
    unpacking.finish()
    return bytes(content), unpacking.ignored_bytes


def failure(archive: bytes, kind: Kind | None = None, *, block_bytes: int = MIB) -> str:
    """The message with which an archive is refused."""
    with pytest.raises(SourceError) as raised:
        unpack(archive, kind, block_bytes=block_bytes)
    assert raised.value.reason is Reason.DECOMPRESSION_FAILED
    assert raised.value.permanent
    return raised.value.message


def unpack_or_refuse(archive: bytes, kind: Kind, *, block_bytes: int = MIB) -> bytes | None:
    """The content, None if the archive is refused as it should be."""
    try:
        return unpack(archive, kind, block_bytes=block_bytes)
    except SourceError as error:
        if error.reason is not Reason.DECOMPRESSION_FAILED:
            raise
        return None


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("block_bytes", [1, 1000, MIB])
@pytest.mark.parametrize("max_output", [100, MIB])
def test_content_is_unpacked_in_blocks_of_any_size(kind: Kind, block_bytes: int, max_output: int) -> None:
    content = CONTENT if block_bytes > 1 else CONTENT[:10_000]
    archive = PACK[kind](content)
    assert unpack(archive, block_bytes=block_bytes, max_output=max_output) == content


@pytest.mark.parametrize("kind", Kind)
def test_nothing_is_held_back_while_input_is_wanted(kind: Kind) -> None:
    unpacking = archives.create(kind)
    content = bytearray()
    for byte in PACK[kind](bytes(5000)):
        content += unpacking.decompress(bytes([byte]), 7)
        while not unpacking.needs_input:
            content += unpacking.decompress(b"", 7)
        assert unpacking.decompress(b"", 7) == b""
    unpacking.finish()
    assert content == bytes(5000)


@pytest.mark.parametrize("kind", Kind)
def test_what_is_empty_is_unpacked_to_nothing(kind: Kind) -> None:
    assert unpack(PACK[kind](b"")) == b""


@pytest.mark.parametrize(
    "command",
    [
        ["gzip", "-1", "-c", "image"],
        ["gzip", "-9", "-c", "image"],
        ["bzip2", "-1", "-c", "image"],
        ["xz", "-0", "-c", "image"],
        ["xz", "-9", "-c", "image"],
        ["xz", "-c", "--check=sha256", "-T2", "--block-size=100000", "image"],
        ["xz", "-c", "--x86", "--lzma2=preset=1", "image"],
        ["zstd", "-1", "-c", "image"],
        ["zstd", "-c", "--ultra", "-22", "image"],
        ["zstd", "-c", "--long=27", "image"],
        ["zip", "-q", "-", "image"],
        ["zip", "-q", "-0", "archive", "image"],
        ["zip", "-q", "-9", "-X", "archive", "image"],
        ["sh", "-c", "zip -q - - < image"],
        ["zip", "-q", "-fz", "archive", "image"],
    ],
    ids=" ".join,
)
def test_what_the_usual_programs_pack_is_unpacked(tmp_path: pathlib.Path, command: list[str]) -> None:
    (tmp_path / "image").write_bytes(CONTENT)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=True)
    archive = tmp_path / "archive.zip"
    assert unpack(archive.read_bytes() if archive.exists() else done.stdout) == CONTENT


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("block_bytes", [1, 999, MIB])
def test_streams_one_after_the_other_are_one_content(kind: Kind, block_bytes: int) -> None:
    parts = [CONTENT[:5000], b"", CONTENT[5000:9000], b"x", CONTENT[9000:20_000]]
    archive = b"".join(map(PACK[kind], parts))
    assert unpack(archive, block_bytes=block_bytes) == CONTENT[:20_000].replace(parts[2], parts[2] + b"x", 1)


@pytest.mark.parametrize("kind", STREAMS)
def test_thousands_of_empty_streams_are_unpacked_to_nothing(kind: Kind) -> None:
    stream = PACK[kind](b"")
    assert unpack(stream * 5000) == b""


BEHIND = (
    b"x",
    b"PK",
    b"\x1e",
    b"By",
    b"\0\0\0\0",
    bytes(511) + b"x",
    b"garbage behind the end",
    CONTENT[:100],
    bytes(70_000),
)


@pytest.mark.parametrize("kind", [Kind.GZ, Kind.BZ2])
@pytest.mark.parametrize("block_bytes", [1, 7, MIB])
def test_other_data_behind_gz_and_bz2_are_ignored_and_counted(kind: Kind, block_bytes: int) -> None:
    content = CONTENT[:3000]
    for archive, found in ((PACK[kind](content), content), (PACK[kind](content) * 2, content * 2)):
        for rest in BEHIND:
            assert unpack_all(archive + rest, block_bytes=block_bytes) == (found, len(rest))
        assert unpack_all(archive, block_bytes=block_bytes) == (found, 0)


@pytest.mark.parametrize("kind", [Kind.GZ, Kind.BZ2])
def test_the_programs_unpack_the_same_from_an_archive_with_other_data_behind_it(kind: Kind) -> None:
    program = {Kind.GZ: "gzip", Kind.BZ2: "bzip2"}[kind]
    # gzip takes less for the beginning of a cut archive
    for rest in BEHIND[4:]:
        archive = PACK[kind](CONTENT[:3000]) + rest
        done = subprocess.run([program, "-dc"], input=archive, capture_output=True, timeout=30, check=False)
        # gzip calls it a warning
        assert done.returncode in (0, 2)
        assert done.stdout == unpack(archive)


def fwtool(metadata: bytes) -> bytes:
    """What OpenWrt's fwtool appends to an image: metadata, then `struct fwimage_trailer`."""
    return metadata + struct.pack(">4sIB3xI", b"FWx0", zlib.crc32(metadata), 1, len(metadata) + 16)


def test_a_gz_with_the_metadata_of_openwrt_is_unpacked() -> None:
    rest = fwtool(b'{"supported_devices": ["generic"], "version": {"dist": "OpenWrt"}}')
    assert unpack_all(gzip.compress(CONTENT) + rest) == (CONTENT, len(rest))


@pytest.mark.parametrize("kind", [Kind.GZ, Kind.BZ2])
@pytest.mark.parametrize("block_bytes", [1, 7, MIB])
def test_a_stream_behind_zeros_is_refused_and_not_lost(kind: Kind, block_bytes: int) -> None:
    archive = PACK[kind](CONTENT[:3000])
    assert "after its padding" in failure(archive + bytes(5) + archive, block_bytes=block_bytes)


@pytest.mark.parametrize("kind", [Kind.GZ, Kind.BZ2])
def test_a_damaged_further_stream_is_no_other_data(kind: Kind) -> None:
    archive = PACK[kind](CONTENT[:3000])
    for length in range(1, len(archive)):
        failure(archive + archive[:length])
    failure(archive + archive[:4] + b"\xff" * 30)


@pytest.mark.parametrize("kind", [Kind.GZ, Kind.BZ2])
def test_much_other_data_is_refused(kind: Kind) -> None:
    archive = PACK[kind](CONTENT[:3000])
    assert unpack_all(archive + b"x" * MIB) == (CONTENT[:3000], MIB)
    assert "more than 1048576 bytes of other data" in failure(archive + b"x" * (MIB + 1))
    assert unpack_all(archive + bytes(2 * MIB)) == (CONTENT[:3000], 2 * MIB), "zeros are padding"
    assert unpack_all(archive + b"signature" + bytes(2 * MIB)) == (CONTENT[:3000], 2 * MIB + 9), (
        "also behind a signature"
    )
    assert "more than 1048576 bytes of other data" in failure(archive + b"x\0" * MIB + b"y")


@pytest.mark.parametrize("block_bytes", [1, 7, MIB])
def test_zeros_behind_xz_are_padding_in_units_of_four(block_bytes: int) -> None:
    archive = lzma.compress(CONTENT[:3000])
    assert unpack(archive + bytes(8), block_bytes=block_bytes) == CONTENT[:3000]
    assert unpack(archive + bytes(4) + archive + bytes(4), block_bytes=block_bytes) == 2 * CONTENT[:3000]
    assert "multiple of four" in failure(archive + bytes(6), block_bytes=block_bytes)
    assert "after its padding" in failure(archive + bytes(6) + archive, block_bytes=block_bytes)


def test_zeros_before_a_first_stream_are_no_padding() -> None:
    for kind in STREAMS:
        failure(bytes(4) + PACK[kind](b"content"), kind)


@pytest.mark.parametrize("kind", [Kind.ZST, Kind.ZIP])
def test_zeros_behind_the_others_are_refused(kind: Kind) -> None:
    failure(PACK[kind](CONTENT) + bytes(4))


@pytest.mark.parametrize("kind", [Kind.XZ, Kind.ZST, Kind.ZIP])
@pytest.mark.parametrize("block_bytes", [1, MIB])
def test_anything_behind_the_others_is_refused(kind: Kind, block_bytes: int) -> None:
    content = CONTENT[:2000]
    for rest in (b"x", b"PK", b"\x1f", b"garbage behind the end", CONTENT[:100]):
        failure(PACK[kind](content) + rest, block_bytes=block_bytes)


def test_skippable_frames_of_zst_are_skipped() -> None:
    skipped = struct.pack("<II", 0x184D2A5F, 1000) + CONTENT[:1000]
    archive = skipped + zst(CONTENT) + skipped + zst(b"end") + skipped
    assert archives.recognise(archive[:6]) is Kind.ZST
    assert unpack(archive, block_bytes=777) == CONTENT + b"end"


@pytest.mark.parametrize("kind", Kind)
def test_a_truncated_archive_is_refused_at_every_byte(kind: Kind) -> None:
    archive = PACK[kind](CONTENT[:300])
    for length in range(len(archive)):
        failure(archive[:length], kind)
    assert unpack(archive) == CONTENT[:300]


@pytest.mark.parametrize("kind", Kind)
@CALM
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), min_size=1, max_size=3))
def test_a_flipped_bit_is_noticed_or_makes_no_difference(kind: Kind, flips: list[tuple[int, int]]) -> None:
    archive = bytearray(PACK[kind](CONTENT[:3000]))
    for position, bit in flips:
        archive[position % len(archive)] ^= 1 << bit
    assert unpack_or_refuse(bytes(archive), kind) in (None, CONTENT[:3000])


@pytest.mark.parametrize("kind", Kind)
@CALM
@given(data=st.binary(max_size=300), block_bytes=st.integers(1, 50))
def test_nonsense_is_refused_by_nothing_but_our_error(kind: Kind, data: bytes, block_bytes: int) -> None:
    archive = PACK[kind](b"content")
    unpack_or_refuse(data, kind, block_bytes=block_bytes)
    unpack_or_refuse(archive[: len(data) % len(archive)] + data, kind, block_bytes=block_bytes)


def test_only_archives_are_recognised() -> None:
    for kind, pack in PACK.items():
        for content in (b"", CONTENT):
            head = pack(content)[: archives.HEAD_BYTES]
            assert archives.recognise(head) is kind
            assert archives.recognise(head[:1]) is None
    for head in (b"", b"PK", b"PK\x01\x02aa", b"BZh0aa", b"BZh9aa", b"QFI\xfb\0\0", bytes(6), b"\x1f\x8b\x07\0\0\0"):
        assert archives.recognise(head) is None


def test_xz_that_needs_more_memory_than_preset_9_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 * MIB}]
    assert "64 MiB" in failure(lzma.compress(b"content", filters=filters))
    filters[0]["dict_size"] = 64 * MIB
    assert unpack(lzma.compress(b"content", filters=filters)) == b"content"


def test_zst_that_needs_a_larger_window_than_long_27_is_refused() -> None:
    def long_window(log: int) -> bytes:
        compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
        return compressor.compress(b"content") + compressor.flush()

    assert "128 MiB" in failure(long_window(28))
    assert unpack(long_window(27)) == b"content"


def test_data_before_it_is_wanted_is_a_mistake_of_the_caller() -> None:
    for kind in Kind:
        unpacking = archives.create(kind)
        unpacking.decompress(PACK[kind](CONTENT), 1)
        assert not unpacking.needs_input
        with pytest.raises(ValueError, match="before the earlier ones"):
            unpacking.decompress(b"more", 1)


# zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 1000, MIB])
def test_zip_with_lengths_in_front(method: int, zip64: bool, block_bytes: int) -> None:
    content = CONTENT[:20_000]
    assert unpack(zipped(content, method=method, zip64=zip64), block_bytes=block_bytes, max_output=999) == content


@pytest.mark.parametrize("zip64", [False, True])
def test_zip_with_lengths_behind(zip64: bool) -> None:
    archive = zipped(CONTENT, pipe=True, zip64=zip64)
    assert unpack(archive, block_bytes=1000) == CONTENT
    # the signature of a descriptor is optional
    start = archive.index(b"PK\x07\x08" + struct.pack("<I", zlib.crc32(CONTENT)))
    bare = bytearray(archive[:start] + archive[start + 4 :])
    end = bare.rindex(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<I", bare, end + 16)
    struct.pack_into("<I", bare, end + 16, offset - 4)
    assert unpack(bytes(bare), block_bytes=1000) == CONTENT


def test_zip_with_lengths_in_zip64_fields_everywhere() -> None:
    assert unpack(giant_fields(CONTENT[:500])) == CONTENT[:500]
    for length in range(len(giant_fields(b"abc"))):
        failure(giant_fields(b"abc")[:length], Kind.ZIP)


def giant_fields(content: bytes, **changes: int) -> bytes:
    """A zip of a stored member, every length and offset in its ZIP64 field; `changes` make it wrong."""
    fields = {"crc": zlib.crc32(content), "size": len(content), "offset": 0, "entries": 1, "disks": 1, **changes}
    ones, half = 2**32 - 1, 2**16 - 1
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0, 0, 0, 0, fields["crc"], ones, ones, 1, 24)
    local += b"n" + struct.pack("<HHHHHQQ", 0x5455, 0, 1, 16, 0, 0, 0)[:4]
    local += struct.pack("<HHQQ", 1, 16, fields["size"], fields["size"])
    directory = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        *(b"PK\1\2", 45, 45, 0, 0, 0, 0, fields["crc"], ones, ones, 1, 28, 3, 0, 0, 0, ones),
    )
    directory += b"n" + struct.pack("<HHQQQ", 1, 24, fields["size"], fields["size"], fields["offset"]) + b"..."
    start = len(local) + len(content)
    end = start + len(directory)
    record = struct.pack(
        "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, fields["entries"], fields["entries"], len(directory), start
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, fields["disks"])
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", half, half, half, half, ones, ones, 0)
    return local + content + directory + record + locator + last


@pytest.mark.parametrize("change", [{"crc": 1}, {"size": 2}, {"offset": 7}, {"entries": 2}, {"disks": 2}], ids=str)
def test_zip_with_a_wrong_zip64_field_is_refused(change: dict[str, int]) -> None:
    failure(giant_fields(b"abc", **change))


def test_zip_with_a_comment_is_unpacked() -> None:
    assert unpack(zipped(CONTENT, comment=b"c" * 65535)) == CONTENT


def zip_of(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def test_zip_with_anything_but_one_file_is_refused() -> None:
    for names in ("a b", "a directory/ b", "__MACOSX/._a a b", "a DS_Store", "a x__MACOSX/a"):
        assert "more than one file" in failure(zip_of(*((name, b"1") for name in names.split())))
    for names in ("", "directory/", "__MACOSX/._a .DS_Store"):
        assert "holds no file" in failure(zip_of(*((name, b"") for name in names.split())))


FOLDER = ("folder/", b"")
FORK = ("__MACOSX/folder/._image", b"\0\5\x16\7" + bytes(200))
FINDER = ("folder/.DS_Store", b"\0\0\0\1Bud1" + bytes(6000))
BESIDE = {
    "a folder before": (FOLDER, ("folder/image", CONTENT)),
    "a folder behind": (("folder/image", CONTENT), FOLDER),
    "what a Mac adds": (FOLDER, ("folder/image", CONTENT), FINDER, ("__MACOSX/", b""), ("__MACOSX/folder/", b""), FORK),
    "what a Mac adds, first": (FORK, (".DS_Store", b""), ("image", CONTENT)),
    "a name that leads out": (("../", b""), ("../../etc/passwd", CONTENT)),
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("block_bytes", [1000, MIB])
def test_zip_with_folders_and_what_a_mac_adds_is_unpacked(beside: str, block_bytes: int) -> None:
    archive = zip_of(*BESIDE[beside])
    assert unpack(archive, block_bytes=block_bytes, max_output=999) == CONTENT
    for length in range(0, len(archive), 97):
        failure(archive[:length], Kind.ZIP)


def test_zip_of_a_folder_by_the_usual_program_is_unpacked(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder/__MACOSX").mkdir(parents=True)
    (tmp_path / "folder/image").write_bytes(CONTENT)
    (tmp_path / "folder/.DS_Store").write_bytes(CONTENT[:6000])
    for arguments in (("-r", "one", "folder"), ("-r", "-fz", "two", "folder"), ("-r", "-0", "three", "folder")):
        subprocess.run(["zip", "-q", *arguments], cwd=tmp_path, check=True, timeout=120)
    for name in ("one.zip", "two.zip", "three.zip"):
        assert unpack((tmp_path / name).read_bytes(), block_bytes=1000) == CONTENT
    piped = subprocess.run(
        ["zip", "-q", "-r", "-", "folder"], cwd=tmp_path, check=True, timeout=120, capture_output=True
    )
    assert unpack(piped.stdout) == CONTENT


def test_zip_with_much_beside_the_image_is_refused() -> None:
    image = ("image", CONTENT[:1000])
    most = [(f"folder-{number}/", b"") for number in range(1000)]
    assert unpack(zip_of(*most, image)) == CONTENT[:1000]
    assert "more than 1000 folders" in failure(zip_of(*most, ("one-more/", b""), image))
    for name in ("__MACOSX/._image", "folder/"):
        assert "not of the image" in failure(zip_of((name, bytes(MIB + 1)), image))


def test_zip_whose_directory_tells_other_names_is_refused() -> None:
    archive = zip_of(("image-1", CONTENT[:100]), ("folder/", b""))
    start = archive.index(CENTRAL)
    for name, other in ((b"folder/", b"image-2"), (b"image-1", b"folder/")):
        assert "another member" in failure(archive[:start] + archive[start:].replace(name, other))


def test_zip_whose_directory_leaves_a_member_out_is_refused() -> None:
    archive = zip_of(("image", CONTENT[:100]), FOLDER)
    first, second = archive.index(CENTRAL), archive.rindex(CENTRAL)
    end = archive.index(END)
    for kept in (archive[first:second], archive[second:end], archive[first:second] * 2):
        assert "central directory" in failure(archive[:first] + kept + archive[end:])


def test_zip_of_a_link_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("/etc/shadow")
    subprocess.run(["zip", "-q", "-y", "archive", "link"], cwd=tmp_path, check=True, timeout=120)
    assert "a link" in failure((tmp_path / "archive.zip").read_bytes())


def test_zip_with_a_password_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "image").write_bytes(CONTENT)
    subprocess.run(["zip", "-q", "-P", "word", "archive", "image"], cwd=tmp_path, check=True, timeout=120)
    assert "encrypted" in failure((tmp_path / "archive.zip").read_bytes())


def test_zip_with_another_method_is_refused() -> None:
    assert "method 12; expected deflate" in failure(zipped(CONTENT, method=zipfile.ZIP_BZIP2))


def test_zip_that_stores_without_a_length_is_refused() -> None:
    message = failure(zipped(CONTENT, method=zipfile.ZIP_STORED, pipe=True))
    assert "nothing shows where it ends; pack the image with deflate" in message


def edited(archive: bytes, signature: bytes, offset: int, layout: str, value: int) -> bytes:
    data = bytearray(archive)
    struct.pack_into(layout, data, archive.rindex(signature) + offset, value)
    return bytes(data)


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
WRONG = {
    "local CRC": (LOCAL, 14, "<I", 1),
    "local compressed size": (LOCAL, 18, "<I", 1),
    "local size": (LOCAL, 22, "<I", 1),
    "central method": (CENTRAL, 10, "<H", 0),
    "central CRC": (CENTRAL, 16, "<I", 1),
    "central compressed size": (CENTRAL, 20, "<I", 1),
    "central size": (CENTRAL, 24, "<I", 1),
    "central disk": (CENTRAL, 34, "<H", 1),
    "central attributes": (CENTRAL, 38, "<I", 0x10),
    "central offset": (CENTRAL, 42, "<I", 1),
    "end disk": (END, 4, "<H", 1),
    "end members here": (END, 8, "<H", 2),
    "end members": (END, 10, "<H", 2),
    "end members in a ZIP64 record that is not there": (END, 10, "<H", 0xFFFF),
    "end directory size": (END, 12, "<I", 1),
    "end directory offset": (END, 16, "<I", 1),
    "end comment": (END, 20, "<H", 1),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_zip_with_a_field_that_contradicts_the_data_is_refused(wrong: tuple[bytes, int, str, int]) -> None:
    archive = zip_of(("image", CONTENT[:1000]))
    assert unpack(archive) == CONTENT[:1000]
    failure(edited(archive, *wrong))


def test_zip_with_a_second_member_between_the_parts_is_refused() -> None:
    one, two = zip_of(("a", CONTENT[:100])), zip_of(("b", CONTENT[:200]))
    member = one[: one.index(CENTRAL)]
    failure(member + two)
    # a directory that lists two, of which one is there
    directory = one[one.index(CENTRAL) : one.index(END)]
    assert "more than one file" in failure(member + directory + directory + one[one.index(END) :])


# archives that are made to hurt

BOMB = """
import sys
from directdownload.download import archives
archive = open(sys.argv[1], "rb").read()
kind = archives.recognise(archive[:archives.HEAD_BYTES])

def peak():
    # ru_maxrss is inherited
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

before = peak()
unpacking = archives.create(kind)
position = total = 0
while total < int(sys.argv[2]):
    block = b""
    if unpacking.needs_input:
        block = archive[position:position + 1024 * 1024]
        position += len(block)
        if not block:
            break
    output = unpacking.decompress(block, 1024 * 1024)
    assert len(output) <= 1024 * 1024
    total += len(output)
print(total, peak() - before)
"""


def zst_bomb(size: int) -> bytes:
    """One frame of blocks that repeat one byte: 131,072 bytes of content in four bytes (RFC 8878, section 3.1.1.2)."""
    blocks = size // (128 * 1024)
    repeated = (1 << 1 | (128 * 1024) << 3).to_bytes(3, "little") + b"\0"
    last = (1 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\0\x50" + repeated * blocks + last


@pytest.mark.parametrize("kind", Kind)
def test_memory_stays_small_whatever_the_ratio(tmp_path: pathlib.Path, kind: Kind) -> None:
    size, taken = 10 * 1024 * MIB, 96 * MIB
    zeros = bytes(16 * MIB)
    if kind is Kind.ZST:
        bomb = zst_bomb(size)
    elif kind is Kind.ZIP:
        bomb = zipped(bytes(128 * MIB))
    else:
        pack = {Kind.GZ: lambda data: gzip.compress(data, 6), Kind.XZ: lambda data: lzma.compress(data, preset=0)}
        bomb = pack.get(kind, bz2.compress)(zeros) * (size // len(zeros))
    assert len(bomb) < size // 500
    path = tmp_path / "bomb"
    path.write_bytes(bomb)
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path), str(taken)],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    total, grown_mib = map(int, done.stdout.split())
    assert total >= taken
    assert grown_mib <= 16
