"""Simulated agents: what the real ones publish of disks and keystores, by the same manager and as sparingly."""

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from tests.world.disks import CAPACITY_BYTES, Disk, File, Record
from tests.world.kube import Kube, Object
from tests.world.lists import Lists
from tests.world.machines import Machine
from tests.world.simulated_keystores import Keystore

import directdownload
from directdownload.agent.pools import progress
from directdownload.cluster import kinds
from directdownload.resources import quantities
from directdownload.resources.base import AGENT
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.zone import Zone

#: Free space that moved by this share of the capacity is worth telling.
_SIGNIFICANT_BYTES = CAPACITY_BYTES // 100
_Told = tuple[str, dict[str, Any]]


class Agents:
    """One agent per machine. `step` lets each look once and write what has changed."""

    def __init__(self, machines: Mapping[str, Machine], disk_of: Callable[[str, str], Disk]) -> None:
        self._machines = machines
        self._disk_of = disk_of
        #: by host
        self.keystores: dict[str, Keystore] = {}
        #: by host, and by host and placement: uid and status that were told; None: nothing to tell to that uid
        self._told_hosts: dict[str, _Told] = {}
        self._told_copies: dict[tuple[str, str], tuple[str, dict[str, Any] | None]] = {}

    def step(self, kube: Kube, lists: Lists) -> None:
        pools = lists.read(kinds.STORAGE_POOLS, StoragePool.model_validate)
        # Whatever stands in their status, which these agents write themselves.
        hosts = lists.read(kinds.HOSTS, lambda each: Host.model_validate({**each, "status": {}}))
        zones = {zone.name: zone for zone in lists.read(kinds.ZONES, Zone.model_validate)}
        certificates = lists.read(kinds.CERTIFICATES, DirectDownloadCertificate.model_validate)
        for host in hosts:
            machine = self._machines.get(host.name)
            if machine is None or not (machine.online and machine.agent):
                continue
            mine = [
                (pool, self._disk_of(host.name, pool.name))
                for pool in sorted(pools, key=lambda pool: pool.name)
                if pool.spec.zone == host.spec.zone and pool.spec.host_selector.matches(host.metadata.labels)
            ]
            storage = [_storage(pool, disk, machine.mounts.get(pool.name)) for pool, disk in mine]
            told = self.keystores.setdefault(host.name, Keystore()).converge(host, zones, certificates)
            self._tell_host(kube, host, {"agentVersion": directdownload.__version__, "storage": storage, **told})
            for pool, disk in mine:
                for record, file in disk.seen() if pool.name not in machine.mounts else ():
                    self._tell_copy(kube, host.name, record, file, shared=pool.spec.shared)

    def _tell_host(self, kube: Kube, host: Host, status: Object) -> None:
        if self._told_hosts.get(host.name) != (host.uid, status) and _apply(
            kube, kinds.HOSTS, host.name, host.uid, status
        ):
            self._told_hosts[host.name] = host.uid, status

    def _tell_copy(self, kube: Kube, host: str, record: Record, file: File | None, *, shared: bool) -> None:
        key = (host, record.placement)
        told_uid, told = self._told_copies.get(key, ("", {}))
        status = {"observed": _observed(record, file), **_progress(record, file)}
        if told_uid == record.placement_uid and (told is None or told == status):
            return
        if shared and not _is_of(kube, host, record):
            # It may become this host's at any time.
            return
        written = _apply(kube, kinds.TEMPLATE_PLACEMENTS, record.placement, record.placement_uid, status)
        self._told_copies[key] = record.placement_uid, status if written else None


def _storage(pool: StoragePool, disk: Disk, mount: Reason | None) -> Object:
    facts = {"pool": pool.name, "path": pool.spec.path}
    if mount is not None:
        return {**facts, "writable": False, "mounted": mount is not Reason.NOT_MOUNTED, "reason": str(mount)}
    available = disk.available_bytes // _SIGNIFICANT_BYTES * _SIGNIFICANT_BYTES
    return {
        **facts,
        "capacityBytes": CAPACITY_BYTES,
        "availableBytes": available,
        "writable": True,
        "mounted": True,
    }


def _observed(record: Record, file: File | None) -> dict[str, Any]:
    if file is None:
        return {"present": False, "revision": record.revision}
    return {
        "present": True,
        "sizeBytes": file.size_bytes,
        "size": quantities.size(file.size_bytes),
        "mtime": file.mtime,
        "changed": not record.matches(file),
        "revision": record.revision,
    }


def _progress(record: Record, file: File | None) -> dict[str, Any]:
    if file is None or not record.matches(file):
        return {}
    done = progress.complete(file.size_bytes, datetime.datetime.fromisoformat(file.mtime))
    return {"progress": done.worded().model_dump(by_alias=True, exclude_none=True, mode="json")}


def _is_of(kube: Kube, host: str, record: Record) -> bool:
    found = kube.get(kinds.TEMPLATE_PLACEMENTS, record.placement)
    return found.ok and found.body["spec"]["host"] == host and found.body["metadata"]["uid"] == record.placement_uid


def _apply(kube: Kube, kind: kinds.Resource, name: str, uid: str, status: Object) -> bool:
    """False when there is no such object (any more)."""
    body = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "uid": uid},
        "status": status,
    }
    answer = kube.apply(kind, body, AGENT, subresource="status")
    assert answer.code in (200, 404, 409), answer
    return answer.ok
