"""Whether the proof of a piece counts: its warrant is the controller's, for this content, zone and size of pieces, and
the warrant's signer has signed the digest. Pure: the time is an argument.
"""

import contextlib
from collections.abc import Iterable, Iterator

from directdownload.peer import piecelog, statements
from directdownload.peer.statements import Proof, StatementError, Verifier, Warrant
from directdownload.resources.jobs import JobPeers

#: Checked warrants that are remembered.
_REMEMBERED = 64


class ExpiredError(StatementError):
    """The warrant was good once: its host tells no lie."""


class Judge:
    """The proofs of one content, by the terms of the job. One thread at a time."""

    def __init__(self, terms: JobPeers) -> None:
        self._terms = terms
        self._verifier = Verifier([*_keys(terms.keys)])
        self._checked: dict[str, Warrant] = {}

    def check(self, index: int, proof: Proof, token: str, now: float) -> None:
        """Raises StatementError unless `proof` counts for the piece `index`, by the warrant `token`."""
        statements.check_proof(self._warrant(token, now), index, proof)

    def kept(self, index: int, entry: piecelog.Entry, warrants: tuple[str, ...], now: float) -> Proof | None:
        """The proof of an entry of a log with these warrants, if it still counts."""
        if entry.proof is None:
            return None
        for token in warrants:
            try:
                self.check(index, entry.proof, token, now)
            except StatementError:
                continue
            return entry.proof
        return None

    def _warrant(self, token: str, now: float) -> Warrant:
        found = self._checked.get(token)
        if found is None:
            # when it ends is a matter of its own
            found = self._verifier.warrant(token, 0.0)
            ours = (self._terms.content, self._terms.zone, self._terms.piece_bytes)
            if (found.content, found.zone, found.piece_bytes) != ours:
                raise StatementError("the warrant is for another content or zone")
            if len(self._checked) >= _REMEMBERED:
                self._checked.clear()
            self._checked[token] = found
        if now > found.expiry + statements.LEEWAY_SECONDS:
            raise ExpiredError("the warrant has expired")
        return found


def _keys(texts: Iterable[str]) -> Iterator[bytes]:
    """The raw keys; a text that is none is left out."""
    for text in texts:
        with contextlib.suppress(StatementError):
            yield statements.key_of(text)
