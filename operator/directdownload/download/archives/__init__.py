"""Archives: recognising one by its first bytes, and unpacking it during the download.

Called by the engine: it reads the served bytes in order, asks `recognise` about the first of them, and feeds all of
them to what `create` returns:

    unpacking = archives.create(kind)
    for block in served:
        output = unpacking.decompress(block, limit)
        while output or not unpacking.needs_input:
            …write output, check the guard and the limits…
            output = unpacking.decompress(b"", limit)
    unpacking.finish()

Promises: a call returns at most `max_output` bytes and reads at most 64 KiB of the pending input, so that neither
memory nor the time of one call grows with the compression ratio; the checksums inside the archive are verified; only
what its own program ignores may follow the archive, and is counted. Every flaw of an archive is a
SourceError(DecompressionFailed). Owners and times in an archive are never used; names only tell the image in a zip from
a folder and from what a Mac adds.
"""

from directdownload.download.archives.base import HEAD_BYTES, Decompressor, Kind, recognise

__all__ = ["HEAD_BYTES", "Decompressor", "Kind", "create", "recognise"]


def create(kind: Kind) -> Decompressor:
    """A decompressor for one archive of this kind, from its first byte."""
    from directdownload.download.archives import streams, zip

    return zip.Unzip() if kind is Kind.ZIP else streams.Concatenated(kind)
