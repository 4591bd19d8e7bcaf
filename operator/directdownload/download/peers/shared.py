"""What a job shares with other hosts: its part of the document, and the content as a piece log names it."""

import dataclasses
import importlib
import logging

from directdownload.download.errors import DownloadError
from directdownload.peer.piecelog import Header
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import JobDocument, JobPeers, PeerRole
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Shared:
    """`header` names the same content as `terms`."""

    terms: JobPeers
    header: Header

    @property
    def is_peer(self) -> bool:
        return self.terms.role is PeerRole.PEER

    def preload(self) -> None:
        """Read and load now what a confined process may be unable to."""
        from directdownload.download.peers import credentials

        credentials.preload(self.terms.directory)
        for name in ("gathering", "recorder"):
            importlib.import_module(f"{__package__}.{name}")

    @property
    def is_seed(self) -> bool:
        return self.terms.role is PeerRole.SEED


def of(document: JobDocument, terms: JobPeers) -> Shared | None:
    """None for a Seed of which the document does not fit together: it fetches without a record for others.

    A Peer has no other source, so for that it raises DownloadError(PeersUnavailable).
    """
    try:
        return _of(document, terms)
    except ValueError as error:
        problem = f"the job document's content cannot be shared with other hosts: {error}"
    if terms.role is PeerRole.PEER:
        raise DownloadError(Reason.PEERS_UNAVAILABLE, problem)
    logger.warning("%s", problem)
    return None


def _of(document: JobDocument, terms: JobPeers) -> Shared:
    header = Header(document.template_uid, str(Checksum.parse(document.checksum)), terms.piece_bytes)
    if header.content != terms.content:
        raise ValueError("its id is not that of the Template's uid, its checksum and the size of a piece")
    return Shared(terms, header)
