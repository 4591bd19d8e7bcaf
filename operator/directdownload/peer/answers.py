"""What the controller answers to a host's request for certificates. Pure: the caller has the clock and the limits.

A host is served as often as it needs: its certificates are renewed at half of their life, and at once if the authority
has changed. Other keys of its own get certificates too, but none within ten minutes of the ones before.
"""

import dataclasses
import datetime
import enum

from directdownload.peer import authority as authorities
from directdownload.peer import certificates
from directdownload.peer.authority import Authority
from directdownload.peer.certificates import CertificateError, PublicKey, Validity
from directdownload.resources import peers
from directdownload.resources.peeridentity import PeerIdentity, PeerRequest

#: The shortest time between certificates of one host by one authority.
PAUSE = datetime.timedelta(minutes=10)


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What the certificates of all hosts have in common."""

    authority: Authority
    trust_domain: str
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """The public keys of a request."""

    server: PublicKey
    client: PublicKey


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What the certificates of a host say that an authority of ours has signed; keys as `certificates.raw` has them."""

    server: bytes
    client: bytes
    validity: Validity

    @property
    def issued(self) -> datetime.datetime:
        return self.validity.begins + authorities.EARLIER


class Step(enum.Enum):
    """What is to be done about a host: nothing, writing what all hosts have in common, or new certificates as well."""

    KEEP = enum.auto()
    SPREAD = enum.auto()
    ISSUE = enum.auto()


def requested(request: PeerRequest) -> Keys:
    """Raises CertificateError."""
    certificates.key_of_text(request.signing_key)
    return Keys(certificates.requested_key(request.csr), certificates.requested_key(request.client_csr))


def held(terms: Terms, host: str, present: PeerIdentity | None) -> Held | None:
    """What `host` holds; None: nothing that counts, whatever its time."""
    if present is None:
        return None
    name = peers.spiffe(terms.trust_domain, host)
    signers = [each.certificate for each in terms.authority.generations]
    try:
        server = certificates.certificate(present.server_certificate)
        client = certificates.certificate(present.client_certificate)
        one = certificates.check(server, name=name, purpose=certificates.SERVER, authorities=signers)
        other = certificates.check(client, name=name, purpose=certificates.CLIENT, authorities=signers)
        of_server, of_client = (certificates.raw(certificates.key_of(each)) for each in (server, client))
    except CertificateError:
        return None
    return Held(of_server, of_client, Validity(max(one.begins, other.begins), min(one.ends, other.ends)))


def step(
    terms: Terms, keys: Keys, found: Held | None, present: PeerIdentity | None, now: datetime.datetime
) -> tuple[Step, datetime.datetime | None]:
    """What is to be done, and when to look again; `found` is what `held` says of `present`."""
    if present is None or found is None or not found.validity.covers(now):
        return Step.ISSUE, None
    fits = (found.server, found.client) == (certificates.raw(keys.server), certificates.raw(keys.client))
    due = found.issued + (authorities.LIFE / 2 if fits else PAUSE)
    if now >= due:
        return Step.ISSUE, None
    return (Step.KEEP if spread(terms, present) == present else Step.SPREAD), due


def spread(terms: Terms, present: PeerIdentity) -> PeerIdentity:
    """`present`, with what all hosts have in common."""
    return present.model_copy(
        update={
            "bundle": terms.authority.bundle,
            "keys": terms.authority.keys,
            "trust_domain": terms.trust_domain,
            "port": terms.port,
        }
    )


def issue(terms: Terms, host: str, keys: Keys, now: datetime.datetime) -> PeerIdentity:
    """New certificates for the own name of `host`, by the generation that signs at `now`."""
    name, generation = peers.spiffe(terms.trust_domain, host), terms.authority.current(now)
    return PeerIdentity(
        server_certificate=authorities.issue(generation, keys.server, name, certificates.SERVER, now),
        client_certificate=authorities.issue(generation, keys.client, name, certificates.CLIENT, now),
        bundle=terms.authority.bundle,
        keys=terms.authority.keys,
        not_after=now.replace(microsecond=0) + authorities.LIFE,
        trust_domain=terms.trust_domain,
        port=terms.port,
    )


def renewal(now: datetime.datetime) -> datetime.datetime:
    """When certificates that are issued at `now` are due for renewal."""
    return now + authorities.LIFE / 2
