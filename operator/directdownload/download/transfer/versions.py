"""Whether what a source answers is the file that a transfer is about. Pure; called by the transfer, under its lock."""

import dataclasses

from directdownload.download import sources
from directdownload.download.errors import ChangedError, SourceError
from directdownload.download.transfer.supplier import Supplier
from directdownload.resources.reasons import Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a file that the bytes of one transfer may be of.

    `promised_bytes`: the size of the file by a metalink. `verified`: a digest proves in the end that the bytes belong
    together. `mixing`: until then they may be of several versions, as servers behind one name call the same bytes
    differently.
    """

    promised_bytes: int | None
    verified: bool
    mixing: bool

    def check_promise(self, supplier: Supplier, stream: sources.Stream) -> None:
        """SourceError if the file has another size than was promised."""
        if self.promised_bytes is not None and stream.size_bytes not in (None, self.promised_bytes):
            raise SourceError(
                Reason.CHECKSUM_MISMATCH,
                f"{supplier.source.url}: expected {self.promised_bytes} bytes (from the metalink), "
                f"it has {stream.size_bytes}",
            )

    def is_same(self, known: str, found: str, *, asked: bool) -> bool:
        """`asked`: the request was conditional on the known version; without a digest only that is accepted."""
        unknown = not (known and found)
        return self.mixing or known == found or (unknown and self.verified) or (asked and not found)

    def is_same_type(self, supplier: Supplier, stream: sources.Stream) -> bool:
        """Whether the media type is that of the answers before; with a digest that does not matter."""
        return self.verified or supplier.media_type in (None, stream.media_type)

    def check_further(self, supplier: Supplier, stream: sources.Stream, size_bytes: int | None, *, same: bool) -> None:
        """SourceError if a further connection got another file than the others are fetching, of `size_bytes`."""
        if stream.size_bytes not in (None, size_bytes):
            detail = f"it has {stream.size_bytes} bytes, not {size_bytes}"
        elif not same:
            detail = "it is another version"
        elif supplier.media_type not in (None, stream.media_type):
            detail = f"it is {stream.media_type or 'of no type'}, not {supplier.media_type or 'of no type'}"
        else:
            return
        message = f"{supplier.source.url}: a further connection got another file: {detail}"
        raise SourceError(Reason.SOURCE_CHANGED, message)

    def check_continued(self, supplier: Supplier, *, same: bool) -> None:
        """ChangedError if the only connection got another file than the one that the bytes are of."""
        if supplier.delivered and not same:
            raise ChangedError(
                Reason.SOURCE_CHANGED, f"{supplier.source.url}: the file changed while it was downloaded"
            )
