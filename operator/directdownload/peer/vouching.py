"""Which pieces of a piece log somebody vouches for, with the proof of each. No I/O; the time is an argument.

Called by `copies`, which reads the log. A piece counts if a warrant of the controller, for this content and zone,
stands in the log, and its signer has signed the digest. Where the warrant names the key of this very host, the host's
Seed has written the digests down, and this module signs them.
"""

import dataclasses

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from directdownload.peer import statements
from directdownload.peer.piecelog import Entry, PieceLog
from directdownload.peer.statements import Proof, StatementError, Verifier, Warrant


@dataclasses.dataclass(frozen=True, slots=True)
class Changed:
    """Pieces that came or were written down again, and those that nobody vouches for any more."""

    come: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What goes out with a piece."""

    proof: Proof
    warrant: str


class Vouching:
    """A piece log as it grows. `log` is for reading."""

    def __init__(self, content: str, zone: str, verifier: Verifier, signing_key: Ed25519PrivateKey) -> None:
        self._content = content
        self._zone = zone
        self._verifier = verifier
        self._key = signing_key
        self._public = signing_key.public_key().public_bytes_raw()
        self.log = PieceLog()
        self._looked_at = 0
        self._warrants: dict[int, tuple[str, Warrant]] = {}
        #: pieces somebody vouches for; None: this host, which has not signed it yet
        self._proofs: dict[int, Proof | None] = {}

    @property
    def is_seed(self) -> bool:
        """Whether this host is the one that the newest warrant names."""
        return bool(self._warrants) and self._warrants[max(self._warrants)][1].signing_key == self._public

    def feed(self, data: bytes, now: float) -> Changed:
        """Take further bytes of the log. Raises ValueError if it is none, or that of another content."""
        begun = self.log.header is not None
        changed = self.log.feed(data)
        if not begun and self.log.header is not None and self.log.header.content != self._content:
            raise ValueError("it is the log of another content")
        if self._learn(now):
            changed |= self.log.entries.keys() - self._proofs.keys()
        come = {index for index in changed if self._vouch(index)}
        gone = {index for index in changed - come if self._proofs.pop(index, self) is not self}
        return Changed(frozenset(come), frozenset(gone))

    def expire(self, now: float) -> Changed:
        """Leave out the warrants that have expired, and what rests on them."""
        expired = [epoch for epoch, (_, warrant) in self._warrants.items() if _has_expired(warrant, now)]
        if not expired:
            return Changed()
        for epoch in expired:
            del self._warrants[epoch]
        gone = {index for index in self._proofs if not self._vouch(index)}
        for index in gone:
            del self._proofs[index]
        return Changed(gone=frozenset(gone))

    def distrust(self, index: int) -> None:
        """The bytes are not what the log says; until it says it again."""
        self._proofs.pop(index, None)

    def digest(self, index: int) -> bytes | None:
        """That of a piece somebody vouches for."""
        return self.log.entries[index].digest if index in self._proofs else None

    def claim(self, index: int) -> Claim | None:
        """None if nobody vouches for the piece."""
        if index not in self._proofs:
            return None
        proof = self._proofs[index]
        if proof is None:
            proof = statements.sign_proof(
                self._key, self._content, max(self._own()), index, self.log.entries[index].digest
            )
            self._proofs[index] = proof
        return Claim(proof, self._warrants[proof.epoch][0])

    def _learn(self, now: float) -> bool:
        """Look at the warrants that came; return whether there is one that counts."""
        tokens = self.log.warrants[self._looked_at :]
        self._looked_at += len(tokens)
        learnt = False
        for token in tokens:
            try:
                warrant = self._verifier.warrant(token, now)
            except StatementError:
                continue
            if (warrant.content, warrant.zone) == (self._content, self._zone) and warrant.epoch not in self._warrants:
                self._warrants[warrant.epoch] = (token, warrant)
                learnt = True
        return learnt

    def _vouch(self, index: int) -> bool:
        entry = self.log.entries.get(index)
        if entry is None or not self._is_proven(index, entry):
            return False
        self._proofs[index] = entry.proof
        return True

    def _is_proven(self, index: int, entry: Entry) -> bool:
        if entry.proof is None:
            return bool(self._own())
        if entry.proof.epoch not in self._warrants:
            return False
        try:
            statements.check_proof(self._warrants[entry.proof.epoch][1], index, entry.proof)
        except StatementError:
            return False
        return True

    def _own(self) -> list[int]:
        return [epoch for epoch, (_, warrant) in self._warrants.items() if warrant.signing_key == self._public]


def _has_expired(warrant: Warrant, now: float) -> bool:
    return now > warrant.expiry + statements.LEEWAY_SECONDS
