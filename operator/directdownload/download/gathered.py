"""The report of what was gathered: from the process that handles foreign bytes to the one that publishes."""

from typing import Annotated, Self

import pydantic

from directdownload.download import images
from directdownload.download.terms import Limits
from directdownload.download.transfer.unpack import limit_of_unpacked
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import Document

#: the largest file size of any system
LARGEST_BYTES = 2**62
_Size = Annotated[int, pydantic.Field(ge=0, le=LARGEST_BYTES)]
TEXT_LIMIT = 2048
_Text = Annotated[str, pydantic.Field(max_length=TEXT_LIMIT)]


class Gathered(Document):
    """The content of the staged files: the image in the part, or `unpacked` from it.

    `digests` are canonical texts, of the bytes as served: SHA-256 and those of the expected algorithms. `size_bytes`
    and `digest` are of the image.
    """

    unpacked: bool
    size_bytes: _Size
    digest: _Text
    served_bytes: _Size
    digests: Annotated[tuple[_Text, ...], pydantic.Field(max_length=len(Algorithm))]
    format: _Text
    virtual_size_bytes: _Size | None
    #: for messages: the sources that delivered bytes, and the one that delivered last
    sources: _Text
    source: _Text
    resumed_from: _Size
    #: received by this attempt of a file that is shared with other hosts
    origin_bytes: _Size = 0
    peer_bytes: _Size = 0
    #: a host that sent a piece that its proof does not fit
    bad_host: Annotated[str, pydantic.Field(max_length=253)] = ""
    #: what is odd about the file and does no harm
    notes: Annotated[tuple[_Text, ...], pydantic.Field(max_length=2)] = ()

    @property
    def served_digest(self) -> str:
        """`sha256:<hex>` of the bytes as served."""
        return next(text for text in self.digests if Checksum.parse(text).algorithm is Algorithm.SHA256)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        image, *served = [Checksum.parse(text).algorithm for text in (self.digest, *self.digests)]
        if image is not Algorithm.SHA256 or Algorithm.SHA256 not in served or len(served) != len(set(served)):
            raise ValueError("expected the SHA-256 of the image and of what was served, and one digest of an algorithm")
        if not self.unpacked and (self.digest, self.size_bytes) != (self.served_digest, self.served_bytes):
            raise ValueError("what was not unpacked is what was served")
        if self.format not in images.FORMATS:
            raise ValueError("no format of an image")
        return self

    def meets(self, image_format: str, limits: Limits) -> bool:
        """Whether it has the requested format and is within the limits: its process should have checked that."""
        measured = [
            (self.served_bytes, limits.max_size_bytes),
            (self.virtual_size_bytes or 0, limits.max_virtual_size_bytes),
            (self.size_bytes if self.unpacked else 0, limit_of_unpacked(limits.max_virtual_size_bytes)),
        ]
        return self.format == (image_format or self.format) and all(size <= (most or size) for size, most in measured)
