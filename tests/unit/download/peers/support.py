"""What the tests of sharing hosts share: contents, their signed statements, and the logs of pieces."""

import base64
import hashlib
import pathlib
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.download.support import content, job_document, sha256

from directdownload.peer.piecelog import Header, PieceLog
from directdownload.peer.statements import Grant, Issuer, Proof, Warrant, sign_proof

MIB = 1024 * 1024
ZONE = "zone-1"
DOMAIN = "cluster.example"
#: four pieces, the last one shorter
DATA = content(3 * MIB + 500_000)
LOG = ".directdownload/uid-1.kvm-1.pieces"
PART = ".directdownload/uid-1.kvm-1.part"
JOURNAL = ".directdownload/uid-1.kvm-1.journal"
RECORD = ".directdownload/uid-1.record"


def pieces_of(data: bytes, piece_bytes: int = MIB) -> list[bytes]:
    return [data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes)]


class Swarm:
    """One content with its controller and the signing key of its Seed."""

    def __init__(self, data: bytes = DATA, piece_bytes: int = MIB, epoch: int = 1000) -> None:
        self.data = data
        self.header = Header("uid-1", sha256(data), piece_bytes)
        self.content = self.header.content
        self.controller = Issuer(Ed25519PrivateKey.generate())
        self.seed = Ed25519PrivateKey.generate()
        self.epoch = epoch

    def warrant(self, key: Ed25519PrivateKey | None = None, **fields: Any) -> str:
        signing = (key or self.seed).public_key().public_bytes_raw()
        defaults = (self.content, ZONE, self.header.piece_bytes, signing, self.epoch, int(time.time()) + 3600)
        names = ("content", "zone", "piece_bytes", "signing_key", "epoch", "expiry")
        return self.controller.warrant(Warrant(**{**dict(zip(names, defaults, strict=True)), **fields}))

    def grant(self, host: str = "kvm-1") -> str:
        return self.controller.grant(Grant(self.content, ZONE, host, int(time.time()) + 3600))

    def proof(self, index: int, data: bytes, epoch: int | None = None, key: Ed25519PrivateKey | None = None) -> Proof:
        digest = hashlib.sha256(data).digest()
        return sign_proof(key or self.seed, self.content, self.epoch if epoch is None else epoch, index, digest)

    def peers(self, role: str, **fields: Any) -> dict[str, Any]:
        """The document's part about other hosts."""
        told = {
            "role": role,
            "content": self.content,
            "zone": ZONE,
            "pieceBytes": self.header.piece_bytes,
            "grant": self.grant(),
            "keys": [base64.b64encode(self.controller.public).decode()],
            "trustDomain": DOMAIN,
        }
        if role == "Seed":
            told["warrant"] = self.warrant()
        return {**told, **fields}

    def document(self, pool: pathlib.Path, role: str, verb: str = "fetch", /, **fields: Any) -> dict[str, Any]:
        checksum = {"checksum": self.header.checksum, "peers": self.peers(role)}
        return job_document(pool, verb, **{**checksum, **fields})


def read_log(pool: pathlib.Path) -> PieceLog:
    told = PieceLog()
    told.feed((pool / LOG).read_bytes())
    return told


def lists(told: PieceLog, data: bytes = DATA, piece_bytes: int = MIB) -> bool:
    """Whether the log has exactly the pieces of `data`."""
    digests = {index: hashlib.sha256(piece).digest() for index, piece in enumerate(pieces_of(data, piece_bytes))}
    return {index: entry.digest for index, entry in told.entries.items()} == digests
