"""Getting the bytes from other hosts: transfer, verify, unpack, inspect. A Peer opens no source of the request.

The pieces are verified one by one, and the whole file by its checksum. If that fails although each piece is what a Seed
has signed, the Seed was wrong: then only pieces that a later Seed has signed otherwise are fetched again.
"""

import logging
import os
from collections.abc import Mapping

from directdownload.download.checksum import first_mismatch
from directdownload.download.errors import SourceError, StoppedError
from directdownload.download.gathered import Gathered
from directdownload.download.gathering import Delivery, Gathering, Progress
from directdownload.download.guard import PART_IS_KEPT
from directdownload.download.peers import credentials, links
from directdownload.download.peers.shared import Shared
from directdownload.download.peers.transfer import ContestedError, PeerTransfer
from directdownload.download.transfer import assembly
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.unpack import Unpack
from directdownload.peer.statements import Proof
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: in the journal
_SOURCE = "other hosts"


class _FromHosts(Gathering):
    """What a Peer and a Seed have in common."""

    def _transfer(
        self,
        access: links.Access,
        unpack: Unpack | None,
        doubts: Mapping[int, Proof],
        believed: int | None = None,
        *,
        votes: int = 0,
        brief: bool = False,
    ) -> PeerTransfer:
        request = self._request
        terms = assembly.Terms(
            tuple(checksum.algorithm for checksum in self._expected), request.limits, request.reserve
        )
        return PeerTransfer(
            self._staging,
            access,
            terms,
            self._guard,
            unpack=unpack,
            keep=self._keep_pieces,
            report=self._report_pieces,
            doubts=doubts,
            size_bytes=believed,
            votes=votes,
            brief=brief,
        )

    def _keep_pieces(self, running: PeerTransfer, written: Ranges, bytes_per_second: int) -> None:
        self._keep_journal(_SOURCE, (), running.size_bytes, running.resumed_from, written, bytes_per_second)

    def _report_pieces(self, running: PeerTransfer, written_bytes: int, bytes_per_second: int) -> None:
        if self._progress is not None:
            size, resumed_from = running.size_bytes, running.resumed_from
            self._progress(Progress(written_bytes, size, bytes_per_second, resumed_from, _SOURCE))


class PeerGathering(_FromHosts):
    """One attempt to fill the staging from the parents in the request."""

    def run(self) -> Gathered:
        """Raises DownloadError."""
        request, shared = self._request, self._request.shared
        assert shared is not None  # noqa: S101
        access = links.Access(
            shared.terms, credentials.context(shared.terms.directory), request.policy, request.timeouts
        )
        doubts: Mapping[int, Proof] = {}
        refused: list[str] = []
        mismatch, bad_host, received, resumed_from = "", "", 0, 0
        believed: int | None = None
        votes = 0
        while True:
            unpack = self._unpack()
            try:
                running = self._transfer(access, unpack, doubts, believed, votes=votes)
                try:
                    size, hasher = running.run()
                except ContestedError as error:
                    logger.info("%s", error)
                    believed, votes = error.size_bytes, error.votes
                    if error.refused:
                        refused.append(str(error))
                        access = access.without(error.refused)
                    continue
                except SourceError as error:
                    # a mismatch asks for another Seed, of which hosts may have nothing yet
                    reason = Reason.PEERS_DIFFER if mismatch else Reason.PEERS_UNAVAILABLE
                    told = "; ".join(filter(None, (mismatch, error.message, *refused, PART_IS_KEPT)))
                    raise SourceError(reason, told, bad_host=bad_host or running.swarm.bad_host) from error
                finally:
                    bad_host = bad_host or running.swarm.bad_host
                    received += running.received_bytes
                    resumed_from = resumed_from or running.resumed_from
                digests = hasher.digests()
                wrong = first_mismatch(digests, self._expected)
                if wrong is None:
                    names = running.swarm.delivered
                    hosts = f"{len(names)} other host{'s' if len(names) != 1 else ''}"
                    delivery = Delivery(
                        sources=f"{hosts}: {', '.join(names)}" if names else hosts,
                        source=hosts,
                        resumed_from=resumed_from,
                        peer_bytes=received,
                        bad_host=bad_host,
                    )
                    return self._finish(unpack, delivery, size, digests)
                mismatch = (
                    f"the pieces that other hosts have do not match: expected checksum {wrong[0]}, found {wrong[1]}"
                )
                logger.warning("%s; pieces that a later Seed has signed otherwise are fetched again", mismatch)
                doubts = running.proofs()
            finally:
                if unpack is not None:
                    unpack.close()


class SeedGathering(_FromHosts):
    """One attempt of a Seed: first what other hosts have, as after the failure of another Seed, then its source.

    The file may come from there whole, so nothing that it meets at other hosts costs the download.
    """

    def run(self) -> Gathered:
        """Raises DownloadError."""
        shared = self._request.shared
        if shared is not None and self._may_take():
            try:
                self._take(shared)
            except StoppedError:
                raise
            except Exception as error:  # the source has the file as well
                logger.info("the rest of the file comes from its source: %s", error)
        return super().run()

    def _may_take(self) -> bool:
        """Whether the part has nothing but pieces of other hosts: bytes of the source would be lost."""
        kept, log = self._staging.earlier, self._staging.pieces
        entries = log.entries.values() if log is not None else ()
        signed = bool(entries) and all(entry.proof is not None for entry in entries)
        return log is not None and (kept is None or not kept.ranges or signed)

    def _take(self, shared: Shared) -> None:
        context = credentials.context(shared.terms.directory)
        access = links.Access(shared.terms, context, self._request.policy, self._request.timeouts)
        running = self._transfer(access, None, {}, brief=True)
        try:
            size, _ = running.run()
            # it is complete, and the journal lists no bytes that a crash could take
            os.fdatasync(self._staging.part.descriptor)
            self._keep_pieces(running, Ranges([(0, size)]), 0)
        finally:
            self._peer_bytes = running.received_bytes
            self._bad_host = running.swarm.bad_host
