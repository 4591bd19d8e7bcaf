"""The authority of peers in its Secret, and what each Host gets of it. Only with `--peers-port`.

`run` reads the Secret, makes it where it is missing, and replaces it as generations come and go: only the leader does.
A Secret that cannot be read is reported and left alone; no download uses peers until it is mended or deleted, and
Hosts keep what they have. `answer` is called by the reconciler of Hosts, which writes it with its other fields.
"""

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import datetime
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

from directdownload import tokenbucket
from directdownload.backoff import Backoff
from directdownload.cluster import client, errors, kinds
from directdownload.controller import events
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.world import COMPONENT_LABEL, MANAGED_BY_LABEL, PRODUCT, World
from directdownload.observe import logs
from directdownload.peer import answers
from directdownload.peer import authority as authorities
from directdownload.peer.authority import Authority, AuthorityError
from directdownload.peer.certificates import CertificateError
from directdownload.peer.statements import Issuer
from directdownload.planning.observed import ObservedHost, Revision
from directdownload.resources.base import GROUP
from directdownload.resources.peeridentity import PeerIdentity, PeerRequest
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

SECRET_TYPE = f"{GROUP}/peers"
#: The key of the Secret.
DOCUMENT = "authority.json"
#: Certificates of so many hosts a second: a lost Secret must not write to all hosts at once.
_HOSTS_PER_SECOND = 50.0
#: Whether a generation is due, and whether the Secret is there.
_LOOK_SECONDS = 60.0
_BACKOFF = Backoff(1, 60, (0.5, 1.0))
#: After so many failures in a row the controller begins without peers.
_PATIENCE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Peers:
    """What jobs get: `issuer` signs warrants and grants, `keys` (base64) are the public keys to check them with."""

    issuer: Issuer
    terms: answers.Terms

    @property
    def keys(self) -> tuple[str, ...]:
        return self.terms.authority.keys

    @property
    def trust_domain(self) -> str:
        return self.terms.trust_domain

    @property
    def port(self) -> int:
        return self.terms.port


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Registrar:
    """`peers` is None until the Secret was read, and while it cannot be."""

    def __init__(
        self,
        api: client.Api,
        world: World,
        queue: WorkQueue,
        recorder: events.Recorder,
        *,
        namespace: str,
        secret: str,
        port: int,
        now: Callable[[], datetime.datetime] = _now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._world, self._queue, self._recorder = api, world, queue, recorder
        self._namespace, self._secret, self._port = namespace, secret, port
        self._now, self._monotonic = now, monotonic
        self.peers: Peers | None = None
        #: set once it is known whether there are peers
        self.settled = asyncio.Event()
        self._bucket = tokenbucket.TokenBucket.full(1 / _HOSTS_PER_SECOND, _HOSTS_PER_SECOND, monotonic())
        #: when it is the turn of a host that waits for it (monotonic seconds)
        self._turns: dict[str, float] = {}
        #: what was found of a host's request and certificates, with a digest of what was looked at
        self._requested: dict[str, tuple[bytes, answers.Keys | None]] = {}
        self._held: dict[str, tuple[bytes, answers.Held | None]] = {}
        #: the version of the Secret that was reported as unreadable
        self._reported = ""
        self._wake = asyncio.Event()
        world.secret_revisions.subscribe(self._secret_changed)
        world.hosts.subscribe(self._host_changed)

    def _secret_changed(self, key: str, _: Revision | None, __: Revision | None) -> None:
        if key == f"{self._namespace}/{self._secret}":
            self._wake.set()

    def _host_changed(self, key: str, old: ObservedHost | None, new: ObservedHost | None) -> None:
        if new is None:
            for memory in (self._turns, self._requested, self._held):
                memory.pop(key, None)
        elif old is not None and _told(old) != _told(new):
            self._queue.add(Key("host", key))

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                await self.refresh()
            except errors.ApiError as error:
                failures += 1
                logger.warning("Secret %s/%s of the peers: %s", self._namespace, self._secret, error)
                if failures >= _PATIENCE:
                    self.settled.set()
                await asyncio.sleep(_BACKOFF.pause_seconds(failures))
                continue
            failures = 0
            self.settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()

    async def refresh(self) -> None:
        """Reads the Secret, and writes what is due. Raises errors.ApiError."""
        try:
            secret = await self._api.get(kinds.SECRETS, self._secret, namespace=self._namespace)
        except errors.NotFound:
            await self._make()
            return
        try:
            authority = _read(secret)
        except AuthorityError as error:
            self.peers = None
            self._report(secret, error)
            return
        self._reported = ""
        advanced = authorities.advanced(authority, self._now())
        if advanced is not authority:
            metadata = {name: value for name, value in secret["metadata"].items() if name != "managedFields"}
            await self._api.replace(kinds.SECRETS, self._document(advanced, metadata), namespace=self._namespace)
            logger.info("The peers have %d generations of authorities now", len(advanced.generations))
        self._take(advanced)

    async def _make(self) -> None:
        if self.peers is not None:
            logger.warning(
                "Secret %s/%s of the peers is gone: all hosts get certificates of a new authority",
                self._namespace,
                self._secret,
            )
        authority = authorities.advanced(None, self._now())
        labels = {MANAGED_BY_LABEL: PRODUCT, COMPONENT_LABEL: "peer"}
        metadata = {"name": self._secret, "namespace": self._namespace, "labels": labels}
        await self._api.create(kinds.SECRETS, self._document(authority, metadata), namespace=self._namespace)
        logger.info("Made the authority of the peers: Secret %s/%s", self._namespace, self._secret)
        self._take(authority)

    def _document(self, authority: Authority, metadata: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": kinds.SECRETS.api_version,
            "kind": kinds.SECRETS.kind,
            "metadata": metadata,
            "type": SECRET_TYPE,
            "data": {DOCUMENT: base64.b64encode(authority.encoded()).decode()},
        }

    def _report(self, secret: client.Object, error: AuthorityError) -> None:
        """Once for each version of the Secret."""
        metadata = secret["metadata"]
        if metadata["resourceVersion"] == self._reported:
            return
        self._reported = metadata["resourceVersion"]
        key = f"{self._namespace}/{self._secret}"
        message = (
            f"it is not the authority of the peers, and is left alone: {error}; no download uses peers. Restore it, or "
            "delete it: then all hosts get certificates of a new authority"
        )
        logger.error("Secret %s: %s", key, message, extra=logs.about(kinds.SECRETS.kind, key))
        item = Revision(key, self._secret, metadata["uid"], int(metadata["resourceVersion"]))
        self._recorder.tell(kinds.SECRETS, item, "Warning", Reason.UNREADABLE, message)

    def _take(self, authority: Authority) -> None:
        terms = answers.Terms(authority, f"{self._namespace}.directdownload", self._port)
        before, self.peers = self.peers, Peers(Issuer(authority.current(self._now()).grant_key), terms)
        if before is None or before.terms.authority.bundle != authority.bundle or before.keys != authority.keys:
            self._queue.add_all(Key("host", host.name) for host in list(self._world.hosts))

    def answer(
        self, host: ObservedHost, now: datetime.datetime
    ) -> tuple[PeerIdentity | None, datetime.datetime | None]:
        """`status.peer` of the Host, and when to look at it again."""
        request, present = host.status.peer_request, host.status.peer
        if request is None:
            return None, None
        if self.peers is None:
            return present, None
        terms = self.peers.terms
        keys = self._keys(host.name, request)
        if keys is None:
            return present, None
        step, due = answers.step(terms, keys, self._found(terms, host.name, present), present, now)
        if step is answers.Step.KEEP:
            return present, due
        wait = self._wait(host.name)
        if wait > 0:
            return present, now + datetime.timedelta(seconds=wait)
        if step is answers.Step.SPREAD and present is not None:
            return answers.spread(terms, present), due
        logger.info("Host %s: new certificates for its peer server and its downloads", host.name)
        return answers.issue(terms, host.name, keys, now), answers.renewal(now)

    def _wait(self, host: str) -> float:
        """Seconds until it is the turn of `host`; 0: it is."""
        now = self._monotonic()
        due = self._turns.get(host)
        if due is None:
            self._bucket, seconds = self._bucket.take(now)
            due = now + seconds
        if due > now:
            self._turns[host] = due
            return due - now
        self._turns.pop(host, None)
        return 0.0

    def _keys(self, host: str, request: PeerRequest) -> answers.Keys | None:
        """None: a request that cannot be served, which is said once."""
        digest = _digest(request.csr, request.client_csr, request.signing_key)
        known = self._requested.get(host)
        if known is not None and known[0] == digest:
            return known[1]
        try:
            keys = answers.requested(request)
        except CertificateError as error:
            keys = None
            if known is None or known[1] is not None:
                about = logs.about(kinds.HOSTS.kind, host)
                logger.warning("Host %s: status.peerRequest is not served: %s", host, error, extra=about)
        self._requested[host] = digest, keys
        return keys

    def _found(self, terms: answers.Terms, host: str, present: PeerIdentity | None) -> answers.Held | None:
        if present is None:
            return None
        bundle = terms.authority.bundle
        digest = _digest(present.server_certificate, present.client_certificate, terms.trust_domain, bundle)
        known = self._held.get(host)
        if known is not None and known[0] == digest:
            return known[1]
        found = answers.held(terms, host, present)
        self._held[host] = digest, found
        return found


def _told(host: ObservedHost) -> object:
    return host.status.peer_request, host.status.peer


def _digest(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).digest()


def _read(secret: client.Object) -> Authority:
    """Raises AuthorityError."""
    if secret.get("type") != SECRET_TYPE:
        raise AuthorityError(f"type: expected {SECRET_TYPE}")
    value = (secret.get("data") or {}).get(DOCUMENT)
    if not isinstance(value, str):
        raise AuthorityError(f"data: expected the key {DOCUMENT}")
    try:
        return Authority.parse(base64.b64decode(value, validate=True))
    except binascii.Error:
        raise AuthorityError(f"{DOCUMENT}: expected base64") from None
