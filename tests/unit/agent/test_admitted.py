"""The agent reads whatever the definitions admit, and decides on it: objects drawn from the schemas, by seeds that a
failure names.
"""

import contextlib
import datetime
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests.world import foreign
from tests.world.admitted import Draw, refused, schema_of

from directdownload.agent import cluster_view as views
from directdownload.agent import peers
from directdownload.agent.keystore import report, sync
from directdownload.agent.keystore.sync import Synced
from directdownload.agent.pools import monitor
from directdownload.agent.status import placements
from directdownload.agent.volumes import demands
from directdownload.agent.volumes.book import Asked, Moment, VolumeBook
from directdownload.agent.volumes.ledger import Ledger
from directdownload.cluster import kinds
from directdownload.peer.certificates import CertificateError
from directdownload.planning import keystores
from directdownload.planning.keystores import Published
from directdownload.resources.host import CERTIFICATES_LIMIT, Demand, Served
from directdownload.resources.reasons import Reason

NOW = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.UTC)
MOMENT = Moment(NOW, 0)
_SEEDS = 250
_ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
_KEYS = peers.Keys(_ELLIPTIC, _ELLIPTIC, ed25519.Ed25519PrivateKey.generate())
_ROOTS = ("/var/lib/libvirt", "/")


@pytest.mark.parametrize("first", range(0, _SEEDS, 50))
def test_a_host_works_with_whatever_its_zone_holds(first: int) -> None:
    for seed in range(first, first + 50):
        try:
            _works(Draw(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


def _works(draw: Draw) -> None:
    host = views.project_host(draw.document(kinds.HOSTS))
    zone = views.project_zone(draw.document(kinds.ZONES))
    assert zone.sync_interval_seconds >= 0
    if host.keystore is not None:
        sync.stamps(host.keystore)
    for _ in range(3):
        target = views.target_of(views.project_pool(draw.document(kinds.STORAGE_POOLS)), host)
        if target is not None:
            monitor.exposed(target, _ROOTS)
    book = VolumeBook(Ledger("/nowhere"), MOMENT)
    demanded, _ = demands.readable(host.status.get("demands"), Demand)
    served, _ = demands.readable(host.status.get("served"), Served)
    book.remember(demanded, MOMENT)
    book.hear(served)
    for each in demanded:
        if book.ask("v1", each.namespace, each.template, MOMENT) is Asked.FIRST:
            volume = book.volume("v1")
            assert volume is not None
            assert demands.judged(volume, book.answer(volume), _ROOTS).state
    assert not [flaw for each in book.demands() for flaw in _refused(each)]
    said = host.status.get("peer")
    if said is not None:
        with contextlib.suppress(CertificateError):
            assert not peers.accepted(peers.Wishes(host.key, host.zone, (), said), said, _KEYS, NOW)
    owner = placements.owner_of(draw.document(kinds.TEMPLATE_PLACEMENTS))
    assert owner.exists
    published = _published(draw)
    ownership = {each.alias: keystores.Owned(each.name, each.fingerprints) for each in published if draw.chance(0.5)}
    wanted = keystores.desired(host.key, host.zone, zone.enabled, published, NOW, ownerships=[ownership])
    entries = {each.alias: draw.choice([None, *each.fingerprints]) for each in published if draw.chance(0.5)}
    settled = keystores.plan(wanted, ownership, entries)
    proofs = keystores.proofs(wanted, settled, entries)
    told = report.made(Synced(proofs, Reason.KEYSTORE_SYNCED, "", None), host.generation, report.told(host.status), NOW)
    assert len(told.certificates) <= CERTIFICATES_LIMIT
    assert told.status["conditions"]


def _refused(demand: Demand) -> Iterator[str]:
    schema = schema_of(kinds.HOSTS)["status"]["properties"]["demands"]["items"]
    return refused(schema, demand.model_dump(by_alias=True, exclude_none=True, mode="json"))


def _published(draw: Draw) -> list[Published]:
    """Some with a certificate that is one, as those have that the controller has published."""
    found = []
    for _ in range(3):
        document = draw.document(kinds.CERTIFICATES)
        status = document.setdefault("status", {})
        if draw.chance(0.5):
            status["certificate"] = draw.choice(foreign.pems())
        if draw.chance(0.3) and "previous" in status:
            status["previous"]["certificate"] = draw.choice(foreign.pems())
        view = views.project_certificate(document)
        if view.published is not None:
            found.append(view.published)
    return found
