"""When the agent looks at its keystore: a keeper that runs, with real files."""

import asyncio
import datetime
import logging
import pathlib
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from tests.world import certificates, stores
from tests.world.stores import HostFiles
from tests.world.waiting import until_async

from directdownload.agent.keystore import bundle
from directdownload.agent.keystore.bundle import Bundle
from directdownload.agent.keystore.keeper import KeystoreKeeper
from directdownload.agent.keystore.sync import KeystoreSync, Synced, Wishes
from directdownload.agent.settings import Settings
from directdownload.download.sources import tls
from directdownload.planning.keystores import Published
from directdownload.resources import pem
from directdownload.resources.host import KeystoreSpec
from directdownload.resources.reasons import Reason

A = stores.certificate("a")
#: an object identifier that nobody has registered
UNKNOWN = x509.ObjectIdentifier("1.2.3.4")
PUBLISHED = Published("cert-a", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "z", "ca", A)


class Kept:
    """A host with a keeper that runs; counts how often it looks, and how often it brings the keystore in line."""

    def __init__(self, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, poll_seconds: float = 0.01) -> None:
        self.files = HostFiles(directory / "agent")
        self.bundle = directory / "trust" / "bundle.pem"
        self.looks = self.syncs = 0
        stamp, sync = Bundle.stamp, KeystoreSync.sync

        def counted_stamp(bundle: Bundle) -> tuple[int, ...] | None:
            self.looks += 1
            return stamp(bundle)

        def counted_sync(synchroniser: KeystoreSync, wishes: Wishes, now: datetime.datetime) -> Synced:
            self.syncs += 1
            return sync(synchroniser, wishes, now)

        monkeypatch.setattr(Bundle, "stamp", counted_stamp)
        monkeypatch.setattr(KeystoreSync, "sync", counted_sync)
        settings = Settings(
            "kvm-1",
            (),
            keystore_roots=(str(self.files.directory),),
            state_directory=str(directory),
            keystore_poll_seconds=poll_seconds,
        )
        self.keeper = KeystoreKeeper(settings, on_report=lambda: None)
        self._running: asyncio.Task[None] | None = None

    def want(self, *, interval_seconds: float = 0, **keystore: Any) -> None:
        spec = KeystoreSpec.model_validate({**self.files.spec, **keystore})
        self.keeper.want(Wishes("kvm-1", "z", True, interval_seconds, spec, (PUBLISHED,), 1))

    async def until(self, condition: Callable[[], object]) -> None:
        """While the keeper runs, which must not end."""
        self._running = running = self._running or asyncio.create_task(self.keeper.run())

        def held() -> object:
            if running.done():
                running.result()
            return condition()

        await until_async("the condition of this line", held, poll_seconds=0.01)

    def told(self, reason: Reason) -> bool:
        report = self.keeper.report
        return report is not None and report.condition is not None and report.condition.reason is reason

    def trusted(self) -> frozenset[bytes]:
        """As a download job reads it."""
        return tls.trust(str(self.bundle)).certificates if self.bundle.exists() else frozenset()


@pytest.mark.parametrize(
    "keystore",
    [
        {"path": "/etc/a\0b"},
        {"passwordFrom": {"file": "/etc/a\0b"}},
        {"passwordFrom": {"agentProperties": "/etc/a\0b"}},
    ],
    ids=["path", "file", "agentProperties"],
)
async def test_a_path_that_no_file_can_have_does_not_end_the_agent(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, keystore: dict[str, Any]
) -> None:
    """A Host that was written before the definition refused such a path."""
    kept = Kept(tmp_path, monkeypatch)
    kept.want(**keystore)
    await kept.until(lambda: kept.keeper.report is not None)
    looks = kept.looks
    await kept.until(lambda: kept.looks > looks + 3)
    assert not kept.told(Reason.KEYSTORE_SYNCED)
    kept.want()
    await kept.until(lambda: kept.told(Reason.KEYSTORE_SYNCED))
    assert kept.files.fingerprints() == {"ca": A.fingerprint_sha256}


async def test_an_interval_shorter_than_a_look_is_no_hot_loop(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, monkeypatch, poll_seconds=3600)
    kept.want(interval_seconds=0.001)
    await kept.until(lambda: kept.told(Reason.KEYSTORE_SYNCED))
    assert kept.keeper._due_monotonic > time.monotonic() + 3000


async def test_each_failure_is_one_warning_with_object_host_reason_and_message(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of one certificate, then of the keystore as a whole, however often it is tried."""
    kept = Kept(tmp_path, monkeypatch)
    kept.files.put(ca=stores.certificate("foreign"))
    kept.want(interval_seconds=0.001)
    await kept.until(lambda: kept.syncs >= 3)
    kept.files.set_password("another-one")
    await kept.until(lambda: kept.told(Reason.KEYSTORE_PASSWORD_WRONG))
    syncs = kept.syncs
    await kept.until(lambda: kept.syncs > syncs)
    found = [record for record in caplog.records if record.levelno == logging.WARNING]
    certificate, keystore = found
    assert certificate.getMessage().startswith("DirectDownloadCertificate cert-a on Host kvm-1: AliasConflict: ")
    about = {"object": {"kind": "DirectDownloadCertificate", "name": "cert-a"}, "host": "kvm-1"}
    assert about.items() <= vars(certificate).items()
    assert keystore.getMessage().startswith("Host kvm-1: KeystorePasswordWrong: ")
    assert [vars(each)["reason"] for each in found] == ["AliasConflict", "KeystorePasswordWrong"]


@pytest.mark.parametrize("spoil", [pathlib.Path.unlink, lambda bundle: bundle.write_bytes(b"")], ids=["gone", "empty"])
async def test_a_trust_bundle_that_is_removed_or_changed_by_hand_is_written_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pathlib.Path], object]
) -> None:
    kept = Kept(tmp_path, monkeypatch)
    kept.want()
    await kept.until(lambda: kept.told(Reason.KEYSTORE_SYNCED))
    spoil(kept.bundle)
    await kept.until(lambda: kept.trusted() == {A.der})
    looks = kept.looks
    await kept.until(lambda: kept.looks > looks + 5)
    assert kept.syncs == 2, "what the keeper writes itself is no change"


def test_a_certificate_is_in_the_trust_bundle_as_long_as_its_text_can_be_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (
        certificates.der(extensions=(x509.UnrecognizedExtension(UNKNOWN, bytes(bundle._DER_LIMIT_BYTES - less)),))
        for less in (500, 0)
    )
    assert pem.parse(pem.Certificate(small).pem).der == small
    texts: list[int] = []

    def text(found: pem.Certificate) -> str:
        texts.append(len(found.der))
        return ssl.DER_cert_to_PEM_cert(found.der)

    monkeypatch.setattr(pem.Certificate, "pem", property(text))
    Bundle(str(tmp_path)).write([small, large, bytes(4 << 20)])
    assert tls.trust(str(tmp_path / "trust" / "bundle.pem")).certificates == {small}
    assert texts == [len(small)], "no text is made of what is too large"
