"""The host's identity for its peers: keys that are made here and stay here, and the certificates that come for them.

Fed by `supervisor`, and only where the chart has `peers.enabled`. Two directories of the host: the peer server reads
the one, downloads the other. Each look brings them in line: a missing or broken key is made anew, a certificate is
written when it comes and fits. The agent has no capability, so it gives no file away: those of the server belong to
root and to the server's group, in which the chart puts the agent.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pydantic
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from directdownload.agent import retry
from directdownload.agent.settings import Settings
from directdownload.hostfiles import reading, writing
from directdownload.peer import certificates
from directdownload.peer.certificates import CertificateError, PrivateKey
from directdownload.peer.config import Config
from directdownload.resources import peers
from directdownload.resources.peeridentity import PeerIdentity, PeerRequest

logger = logging.getLogger(__name__)

#: A change of the files by others is noticed within this time.
LOOK_SECONDS = 30.0
_POOLS_LIMIT = 256
K = TypeVar("K", bound=PrivateKey)
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """`pools`: absolute paths of those that the host serves; `identity`: `status.peer` as it was read."""

    host: str
    zone: str
    pools: tuple[str, ...]
    identity: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    server: ec.EllipticCurvePrivateKey
    client: ec.EllipticCurvePrivateKey
    signing: ed25519.Ed25519PrivateKey


@dataclasses.dataclass(frozen=True, slots=True)
class _Access:
    """Modes of a directory and its files; `group` None: root's, as all is."""

    directory_mode: int
    file_mode: int
    group: int | None


_OF_SERVER = _Access(0o750, 0o640, peers.SERVER_UID)
_OF_CLIENT = _Access(0o755, 0o400, None)


class PeerKeeper:
    """`want` sets the wishes (None: there is no Host); `run` keeps the files until cancelled. `request` is reported."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_request: Callable[[], None],
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._server = os.path.join(settings.state_directory, "peer", os.path.basename(peers.SERVER_DIRECTORY))
        self._client = os.path.join(settings.state_directory, "peer", os.path.basename(peers.CLIENT_DIRECTORY))
        self._on_request, self._now = on_request, now
        self._wanted: Wishes | None = None
        #: public keys of `request`
        self._asked: tuple[bytes, ...] = ()
        #: None: there are no keys
        self.request: PeerRequest | None = None
        #: whether it is known if there are keys
        self.settled = False
        self._complaint = retry.Complaint(logger)
        self._refusal = retry.Complaint(logger)
        self._wake = asyncio.Event()

    def want(self, wishes: Wishes | None) -> None:
        if wishes != self._wanted:
            self._wanted = wishes
            self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            before = self.settled, self.request
            try:
                await asyncio.to_thread(self.look, self._wanted)
            except OSError as error:
                self._complaint.say(logging.WARNING, f"Cannot keep the keys of the peers: {error}")
            else:
                self._complaint.clear("Keep the keys of the peers again")
            self.settled = True
            if before != (self.settled, self.request):
                self._on_request()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    def look(self, wishes: Wishes | None) -> None:
        """Brings the files in line. Raises OSError."""
        _make_directory(os.path.dirname(self._server), _OF_CLIENT)
        _make_directory(self._server, _OF_SERVER)
        _make_directory(self._client, _OF_CLIENT)
        keys = self._keys()
        self._ask(keys)
        if wishes is None or wishes.identity is None:
            return
        try:
            files = accepted(wishes, wishes.identity, keys, self._now())
        except CertificateError as error:
            self._refusal.say(logging.WARNING, f"status.peer of Host {wishes.host} is not used: {error}")
            return
        self._refusal.clear(f"status.peer of Host {wishes.host} is used")
        # The certificate last: with it the others count.
        for directory, access in ((self._server, _OF_SERVER), (self._client, _OF_CLIENT)):
            for name, data in files[access].items():
                _put(os.path.join(directory, name), data, access)

    def _keys(self) -> Keys:
        server = self._key(self._server, peers.KEY, _OF_SERVER, certificates.elliptic, _elliptic)
        client = self._key(self._client, peers.KEY, _OF_CLIENT, certificates.elliptic, _elliptic)
        make = ed25519.Ed25519PrivateKey.generate
        return Keys(server, client, self._key(self._server, peers.SIGNING_KEY, _OF_SERVER, certificates.edwards, make))

    def _key(self, directory: str, name: str, access: _Access, read: Callable[[bytes], K], make: Callable[[], K]) -> K:
        """The key in a file; a new one if there is none that can be read."""
        path = os.path.join(directory, name)
        data = reading.read_small(path)
        with contextlib.suppress(CertificateError):
            found = read(data or b"")
            _put(path, data or b"", access)
            return found
        made = make()
        if name == peers.KEY:
            # It is another key's.
            writing.remove(os.path.join(directory, peers.CERTIFICATE))
        _put(path, certificates.private_pem(made), access)
        writing.sync_directory(directory)
        logger.info("Made the key %s of the peers", path)
        return made

    def _ask(self, keys: Keys) -> None:
        """A request is made once for its keys: each would have other bytes, and be written to the Host."""
        asked = tuple(certificates.raw(key.public_key()) for key in (keys.server, keys.client, keys.signing))
        if asked != self._asked:
            self._asked = asked
            self.request = PeerRequest(
                csr=certificates.request(keys.server),
                client_csr=certificates.request(keys.client),
                signing_key=certificates.text_of_key(keys.signing.public_key()),
            )


def _elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def accepted(
    wishes: Wishes, said: Mapping[str, Any], keys: Keys, now: datetime.datetime
) -> Mapping[_Access, Mapping[str, bytes]]:
    """The content of the files by their directory. Raises CertificateError if `said` is not for this host and keys."""
    try:
        identity = PeerIdentity.model_validate(said)
    except pydantic.ValidationError as error:
        raise CertificateError(f"{error.error_count()} of its fields cannot be read") from None
    if not _DOMAIN.fullmatch(identity.trust_domain) or not 1 <= identity.port <= 65535 or not identity.keys:
        raise CertificateError("expected a trust domain, a port and one or two keys")
    granting = tuple(certificates.key_of_text(text).public_bytes_raw() for text in identity.keys)
    authorities = certificates.authorities(identity.bundle)
    bundle = "".join(map(certificates.pem, authorities)).encode()
    name = peers.spiffe(identity.trust_domain, wishes.host)
    own = {}
    for text, key, purpose in (
        (identity.server_certificate, keys.server, certificates.SERVER),
        (identity.client_certificate, keys.client, certificates.CLIENT),
    ):
        found = certificates.certificate(text)
        validity = certificates.check(found, name=name, purpose=purpose, authorities=authorities)
        if certificates.raw(certificates.key_of(found)) != certificates.raw(key.public_key()):
            raise CertificateError("certificate: it is for another key")
        if not validity.covers(now):
            raise CertificateError(f"certificate: it counts from {validity.begins} to {validity.ends}, and not now")
        own[purpose] = certificates.pem(found).encode()
    config = Config(wishes.host, wishes.zone, identity.trust_domain, granting, wishes.pools, identity.port)
    return {
        _OF_SERVER: {
            peers.CONFIG: config.encoded(),
            peers.AUTHORITIES: bundle,
            peers.CERTIFICATE: own[certificates.SERVER],
        },
        _OF_CLIENT: {peers.AUTHORITIES: bundle, peers.CERTIFICATE: own[certificates.CLIENT]},
    }


def served(paths: Mapping[str, bool]) -> tuple[str, ...]:
    """The pools to serve, of `paths` with whether other hosts have the pool as well: they need no copy of it."""
    found = sorted(path for path, shared in paths.items() if not shared and os.path.normpath(path) == path)
    return tuple(found[:_POOLS_LIMIT])


def _make_directory(path: str, access: _Access) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(descriptor, access.directory_mode, access.group)
    finally:
        os.close(descriptor)


def _put(path: str, data: bytes, access: _Access) -> None:
    """Makes sure that a file has this content, mode and owner. Raises OSError."""
    try:
        content = reading.read(path, len(data))
    except OSError:
        content = None
    if content is None or content.data != data or not _is_given(content.status, access.file_mode, access.group):
        writing.write_atomically(
            path, data, finish=lambda descriptor: _give(descriptor, access.file_mode, access.group)
        )


def _is_given(status: os.stat_result, mode: int, group: int | None) -> bool:
    return stat.S_IMODE(status.st_mode) == mode and status.st_uid == os.geteuid() and group in (None, status.st_gid)


def _give(descriptor: int, mode: int, group: int | None) -> None:
    status = os.fstat(descriptor)
    if not _is_given(status, mode, group):
        if group is not None:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
