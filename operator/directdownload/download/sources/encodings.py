"""The Content-Encoding of an answer: whether its body is the file or an encoding of it.

Called by the HTTP source. The request has `Accept-Encoding: identity`, so most labels that arrive all the same are no
encodings. Some servers label an archive by its name (`AddEncoding` of Apache): its bytes are those of the file, and the
checksum is of them. Any other encoding is of the transfer, and no checksum or range would match.
"""

import re
from collections.abc import Iterable, Sequence

from directdownload.download.errors import SourceError
from directdownload.download.sources.body import Body, PeekedBody
from directdownload.download.sources.urls import Url, redact
from directdownload.resources.reasons import Reason

#: labels without an encoding: names of it that mean none, or of a charset
_HARMLESS = frozenset({"", "identity", "none", "binary", "utf-8"})
#: archives that servers label although the transfer is not encoded
_SUFFIXES = {"gzip": (".gz", ".tgz"), "bzip2": (".bz2",), "xz": (".xz",), "zstd": (".zst",)}
_AWS_CHUNKED = "aws-chunked"
#: The first line of a body in S3's framing for uploads: the size of a chunk, mostly with its signature.
_AWS_FRAME = re.compile(rb"[0-9a-fA-F]{1,16}(;chunk-signature=|\r\n)")
_AWS_FRAME_BYTES = 33


def plain(content: Body, begins: bool, labels: Iterable[str], urls: Sequence[Url]) -> Body:
    """`content` if it is the file; `begins`: with its first byte. Raises SourceError if it is encoded.

    `labels` are the values of Content-Encoding, `urls` the one asked and the one that answers.
    """
    found = [each.strip() for each in ",".join(labels).lower().split(",")]
    encodings = [each for each in found if each not in _HARMLESS and each != _AWS_CHUNKED]
    suffixes = _SUFFIXES.get(encodings[0].removeprefix("x-"), ()) if len(encodings) == 1 else ()
    if encodings and not (suffixes and any(url.path.lower().endswith(suffixes) for url in urls)):
        raise _encoded(urls[-1], ", ".join(encodings))
    # S3 stores the label of an upload with the object, and removes the framing
    if _AWS_CHUNKED in found and begins:
        content = PeekedBody(content, _AWS_FRAME_BYTES)
        if _AWS_FRAME.match(content.head):
            raise _encoded(urls[-1], _AWS_CHUNKED)
    return content


def _encoded(url: Url, encoding: str) -> SourceError:
    return SourceError(
        Reason.SOURCE_REFUSED,
        f"{url}: the server encodes the file ({redact(encoding)[:64]}), expected no encoding; switch off compression "
        "of images on the server",
    )
