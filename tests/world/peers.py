"""Hosts that serve each other: real servers and openers in this process, real files and certificates.

Each host has an address of its own in 127.0.0.0/8, and all hosts of a fleet listen at one port.

    fleet = Fleet(tmp_path)
    seed, reader = fleet.host("kvm-1"), fleet.host("kvm-2")
    file = SharedFile.of(5 * MIB)
    seed.begin(file, warrant=fleet.warrant(file, seed))
    seed.write(file, range(file.pieces))
    with seed.serving():
        fleet.job_peers(file, reader, parents=[seed])

Nothing here knows how a job fetches: what a job writes down is written with `piecelog`.
"""

import base64
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import os
import pathlib
import random
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.world import waiting
from tests.world.certificates import Certificate, common_name

from directdownload.download.store.record import Record
from directdownload.peer import asking, piecelog, statements
from directdownload.peer.config import Config
from directdownload.peer.opener import Opener
from directdownload.peer.piecelog import Header
from directdownload.peer.server import Server
from directdownload.peer.statements import Grant, Issuer, Proof, Warrant
from directdownload.resources import peers
from directdownload.resources.jobs import JobParent, JobPeers, PeerRole
from directdownload.resources.naming import PIECES_SUFFIX, RECORD_SUFFIX, WORK_DIRECTORY

MIB = 2**20
DOMAIN = "peers.test"
_DRAWN_BYTES = 16 * MIB


@dataclasses.dataclass(frozen=True)
class SharedFile:
    """A file of one Template that hosts may share."""

    data: bytes = dataclasses.field(repr=False)
    template_uid: str
    piece_bytes: int = MIB

    @classmethod
    def of(cls, size: int, *, piece_bytes: int = MIB, number: int = 0) -> "SharedFile":
        """Random bytes, the same ones for the same `number`; a Template of its own each time."""
        source = random.Random(number)
        # Python draws less than 256 MiB at once
        blocks = (source.randbytes(min(_DRAWN_BYTES, size - start)) for start in range(0, size, _DRAWN_BYTES))
        return cls(b"".join(blocks), str(uuid.uuid4()), piece_bytes)

    @functools.cached_property
    def checksum(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @property
    def header(self) -> Header:
        return Header(self.template_uid, self.checksum, self.piece_bytes)

    @property
    def content(self) -> str:
        return self.header.content

    @property
    def pieces(self) -> int:
        return peers.pieces(len(self.data), self.piece_bytes)

    def piece(self, index: int) -> bytes:
        start, end = peers.piece_range(index, self.piece_bytes, len(self.data))
        return self.data[start:end]

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(self.piece(index)).digest()


class Fleet:
    """The authority of some hosts: what the controller would sign. Each host has a directory below `directory`."""

    def __init__(self, directory: pathlib.Path, *, zone: str = "zone-1", name: str = "authority") -> None:
        self.directory = directory
        self.zone = zone
        self.authority = Certificate(name, authority=True, strict=True)
        self.issuer = Issuer(Ed25519PrivateKey.generate())
        # no other fleet of this machine has the same ones
        self.port = random.SystemRandom().randint(20000, 32000)
        self.network = "127.{}.{}".format(*(random.SystemRandom().randint(1, 254) for _ in range(2)))
        self.hosts: dict[str, PeerHost] = {}

    def host(self, name: str, *, pools: int = 1) -> "PeerHost":
        """With its certificates, an empty pool, and a server that is not started."""
        found = self.hosts[name] = PeerHost(self, name, pools)
        return found

    def certificate(
        self, host: str, purpose: str, *, domain: str = DOMAIN, ends: datetime.datetime | None = None
    ) -> Certificate:
        """`purpose`: `server` or `client`."""
        usage = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}[purpose]
        name = peers.spiffe(domain, host)
        subject = common_name(host[:64])
        return Certificate(name, issuer=self.authority, strict=True, purpose=usage, ends=ends, subject=subject)

    def grant(
        self, file: SharedFile | str, host: "PeerHost | str", *, zone: str | None = None, seconds: float = 3600
    ) -> str:
        content = file if isinstance(file, str) else file.content
        name = host if isinstance(host, str) else host.name
        return self.issuer.grant(Grant(content, zone or self.zone, name, int(time.time() + seconds)))

    def warrant(
        self,
        file: SharedFile,
        seed: "PeerHost",
        *,
        epoch: int = 1,
        zone: str | None = None,
        seconds: float = 3600,
    ) -> str:
        expiry = int(time.time() + seconds)
        named = Warrant(file.content, zone or self.zone, file.piece_bytes, seed.public_key, epoch, expiry)
        return self.issuer.warrant(named)

    def job_peers(
        self,
        file: SharedFile,
        host: "PeerHost",
        role: PeerRole = PeerRole.PEER,
        *,
        parents: Iterable["PeerHost"] = (),
        warrant: str = "",
    ) -> JobPeers:
        """What the job document of `host` says."""
        return JobPeers(
            role=role,
            content=file.content,
            zone=self.zone,
            piece_bytes=file.piece_bytes,
            grant=self.grant(file, host),
            warrant=warrant,
            keys=(base64.b64encode(self.issuer.public).decode(),),
            trust_domain=DOMAIN,
            parents=tuple(JobParent(host=each.name, addresses=(each.address,)) for each in parents),
            port=self.port,
            directory=str(host.client_directory),
        )


class PeerHost:
    """One host: its files, and its server while it is `serving`."""

    def __init__(self, fleet: Fleet, name: str, pools: int) -> None:
        self.fleet = fleet
        self.name = name
        self.address = f"{fleet.network}.{len(fleet.hosts) + 1}"
        self.port = fleet.port
        self.directory = fleet.directory / name
        self.pools = [self.directory / f"pool-{number}" for number in range(1, pools + 1)]
        self.server_directory = self.directory / "peer" / "server"
        self.client_directory = self.directory / "peer" / "client"
        self.signing_key = Ed25519PrivateKey.generate()
        for pool in self.pools:
            (pool / WORK_DIRECTORY).mkdir(parents=True)
        for path in (self.server_directory, self.client_directory):
            path.mkdir(parents=True)
        self.server: Server | None = None
        self.opener: Opener | None = None
        self.clock: Callable[[], float] = time.time
        self.issue()
        self.configure()

    @property
    def pool(self) -> pathlib.Path:
        return self.pools[0]

    @property
    def work(self) -> pathlib.Path:
        return self.pool / WORK_DIRECTORY

    @property
    def public_key(self) -> bytes:
        return self.signing_key.public_key().public_bytes_raw()

    # what agent and controller do

    def issue(self, *, ends: datetime.datetime | None = None) -> None:
        """New certificates for server and client, and the signing key."""
        authorities = self.fleet.authority.pem
        for purpose, directory in (("server", self.server_directory), ("client", self.client_directory)):
            certificate = self.fleet.certificate(self.name, purpose, ends=ends)
            _put(directory / peers.AUTHORITIES, authorities)
            _put(directory / peers.CERTIFICATE, certificate.pem)
            _put(directory / peers.KEY, certificate.key_pem)
        encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        pem = self.signing_key.private_bytes(encoding, private, serialization.NoEncryption())
        _put(self.server_directory / peers.SIGNING_KEY, pem)

    def configure(self, *, pools: Iterable[str] | None = None) -> None:
        config = Config(
            host=self.name,
            zone=self.fleet.zone,
            trust_domain=DOMAIN,
            keys=(self.fleet.issuer.public,),
            pools=tuple(pools if pools is not None else map(str, self.pools)),
            port=self.port,
        )
        _put(self.server_directory / peers.CONFIG, config.encoded())

    # what a job does

    def log_path(self, file: SharedFile) -> pathlib.Path:
        return self.work / f"{file.template_uid}.{self.name}{PIECES_SUFFIX}"

    def part_path(self, file: SharedFile) -> pathlib.Path:
        return self.work / f"{file.template_uid}.{self.name}.part"

    def record_path(self, file: SharedFile) -> pathlib.Path:
        return self.work / f"{file.template_uid}{RECORD_SUFFIX}"

    def begin(self, file: SharedFile, *, warrant: str = "") -> None:
        """An empty part of the full length, and the head of its piece log."""
        with open(self.part_path(file), "wb") as part:
            part.truncate(len(file.data))
        lines = [piecelog.header_line(file.header), piecelog.size_line(len(file.data))]
        if warrant:
            lines.append(piecelog.warrant_line(warrant))
        self.log_path(file).write_bytes(b"".join(lines))

    def write(
        self, file: SharedFile, indices: Iterable[int], *, signer: "PeerHost | None" = None, epoch: int = 1
    ) -> None:
        """Pieces that came, with proofs by `signer`; without one as a Seed records them."""
        for index in indices:
            proof = signer.proof(file, index, epoch) if signer is not None else None
            with open(self.part_path(file), "r+b") as part:
                part.seek(index * file.piece_bytes)
                part.write(file.piece(index))
            self.append(file, piecelog.piece_line(index, file.digest(index), proof))

    def append(self, file: SharedFile, line: bytes) -> None:
        with open(self.log_path(file), "ab") as log:
            log.write(line)

    def publish(self, file: SharedFile) -> pathlib.Path:
        """The part gets its final name and a record; returns its path."""
        final = self.pool / file.template_uid
        record = Record.of(self.part_path(file).stat(), path=str(final), digest=file.checksum, checksum=file.checksum)
        record.write(str(self.record_path(file)))
        self.part_path(file).rename(final)
        return final

    def proof(self, file: SharedFile, index: int, epoch: int = 1) -> Proof:
        return statements.sign_proof(self.signing_key, file.content, epoch, index, file.digest(index))

    # its processes

    @property
    def opener_socket(self) -> str:
        return str(self.directory / "opener.sock")

    @contextlib.contextmanager
    def serving(self) -> Iterator["PeerHost"]:
        """With opener and server, until the context ends."""
        config = str(self.server_directory / peers.CONFIG)
        self.opener = Opener(self.opener_socket, config, map(str, self.pools), (os.geteuid(),))
        self.opener.start()
        self.server = Server(
            str(self.server_directory),
            lambda content: asking.ask(self.opener_socket, content),
            addresses=(self.address,),
            clock=lambda: self.clock(),
        )
        threads = [
            threading.Thread(target=each.serve, name=each.__class__.__name__) for each in (self.opener, self.server)
        ]
        for thread in threads:
            thread.start()
        try:
            waiting.closely(f"{self.name} listens", lambda: self.server is not None and self.server.port)
            yield self
        finally:
            self.server.close()
            self.opener.close()
            for thread in threads:
                thread.join()
            self.server = self.opener = None

    def client_context(self, *, authority: bytes | None = None) -> ssl.SSLContext:
        """For a connection to a server of the fleet, with this host's certificate; its name is not checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=(authority or self.fleet.authority.pem).decode())
        context.load_cert_chain(self.client_directory / peers.CERTIFICATE, self.client_directory / peers.KEY)
        return context


def _put(path: pathlib.Path, data: bytes) -> None:
    """As the agent does: the old or the new file, never a part."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    temporary.rename(path)
