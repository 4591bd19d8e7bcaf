"""Archives: recognising one by its first bytes, and unpacking it while it is downloaded.

Called by the engine: it reads the served bytes in order, asks `recognise` about the first of them, and feeds all of
them to what `create` returns:

    unpacking = archives.create(kind)
    for block in served:
        output = unpacking.decompress(block, limit)
        while output or not unpacking.needs_input:
            …write output, check the guard and the limits…
            output = unpacking.decompress(b"", limit)
    unpacking.finish()

Promised: a call returns at most `max_output` bytes and reads at most 64 KiB of what is pending, so that neither memory
nor the time of one call grows with the ratio of the archive; the checksums inside of the archive are verified; nothing
follows the archive but padding that its format allows. Everything that is wrong with an archive is a
SourceError(DecompressionFailed). What an archive says about names, owners and times is never used.
"""

from directdownload.download.archives import streams, zip
from directdownload.download.archives.base import HEAD_BYTES, Decompressor, Kind, recognise

__all__ = ["HEAD_BYTES", "Decompressor", "Kind", "create", "recognise"]


def create(kind: Kind) -> Decompressor:
    """A decompressor for one archive of this kind, from its first byte."""
    return zip.Unzip() if kind is Kind.ZIP else streams.Concatenated(kind)
