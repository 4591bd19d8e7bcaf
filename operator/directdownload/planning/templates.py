"""The status of a Template: registered at once, whatever its source does; the digest of its copies is remembered."""

import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from directdownload.planning import digests, requests
from directdownload.planning.conditions import Verdict, condition, conditions
from directdownload.planning.observed import PlacementView
from directdownload.planning.probes import CONDITION, Outcome
from directdownload.resources import quantities, urls
from directdownload.resources.base import ConditionStatus
from directdownload.resources.checksum import Checksum
from directdownload.resources.reasons import Reason
from directdownload.resources.template import PlacementCounts, Template, TemplateStatus
from directdownload.resources.templateplacement import BytesFrom, Phase

_PROTOCOLS: Mapping[str, Literal["HTTP", "HTTPS", "NFS"]] = {"http": "HTTP", "https": "HTTPS", "nfs": "NFS"}


def protocol(url: str) -> Literal["HTTP", "HTTPS", "NFS"] | None:
    """`HTTP`, `HTTPS` or `NFS` by the scheme, None for any other; a metalink goes by the scheme that serves it."""
    return _PROTOCOLS.get(urls.scheme(url))


def source_host(url: str) -> str:
    """The host that is asked, for limits per source; empty if the URL is not valid."""
    try:
        return urls.Url.parse(url).host
    except urls.URLError:
        return ""


def _verdict(template: Template, zones: Collection[str], secret: Verdict | None) -> Verdict:
    spec = template.spec
    for field, url in (("url", spec.url), *((f"mirrors[{index}]", url) for index, url in enumerate(spec.mirrors))):
        if protocol(url) is None:
            expected = "expected http, https or nfs, for example https://images.example.org/debian-13.qcow2"
            return Verdict(False, Reason.UNSUPPORTED_PROTOCOL, f"spec.{field}: {expected}", stalled=True)
        try:
            urls.Url.parse(url)
        except urls.URLError as error:
            message = f"spec.{field} is not a valid URL: {error.problem}; {error.advice}"
            return Verdict(False, Reason.INVALID_URL, message, stalled=True)
    if spec.checksum is not None:
        try:
            Checksum.parse(spec.checksum)
        except ValueError as error:
            return Verdict(False, Reason.INVALID_CHECKSUM, f"spec.checksum: {error}", stalled=True)
    if secret is not None:
        return secret
    missing = [name for name in spec.zones if name not in zones]
    if missing:
        message = f"spec.zones: there is no Zone {missing[0]}; create it, or remove it from the list"
        return Verdict(False, Reason.ZONE_NOT_FOUND, message)
    return Verdict(True, Reason.REGISTERED, "available for deployment")


def count(placements: Iterable[PlacementView]) -> PlacementCounts:
    """Copies per phase; those being removed count nowhere, and `total` is all that remain."""
    phases = [p.counted for p in placements if p.phase is not Phase.REMOVING]
    ready, downloading, failed = (phases.count(phase) for phase in (Phase.READY, Phase.DOWNLOADING, Phase.FAILED))
    pending = len(phases) - ready - downloading - failed
    return PlacementCounts(total=len(phases), ready=ready, downloading=downloading, pending=pending, failed=failed)


def _received(placements: Iterable[PlacementView]) -> BytesFrom | None:
    """What the downloads of the copies received; None: no copy says."""
    told = [p.file.bytes_from for p in placements if p.file is not None and p.file.bytes_from is not None]
    if not told:
        return None
    sums = (sum(each.origin for each in told), sum(each.peers for each in told))
    origin, peers = (min(each, quantities.LARGEST_INTEGER) for each in sums)
    return BytesFrom(origin=origin, peers=peers)


def plan_template(
    template: Template,
    zones: Collection[str],
    placements: Iterable[PlacementView],
    now: datetime.datetime,
    *,
    secret: Verdict | None = None,
    probed: Outcome | None = None,
    lessons: Iterable[Checksum] = (),
) -> TemplateStatus:
    """`zones` are the names of those that exist; `placements` the copies of this very template (by uid).

    `lessons`: digests found by the jobs that have just fetched copies (`digests.lesson`). `secret`: why its header
    Secret may not be used. `probed`: the result of a probe that has just ended.
    """
    placements = list(placements)
    before = template.status
    verified = sorted(
        (p for p in placements if p.phase is Phase.READY and p.file is not None and p.file.digest is not None),
        key=lambda p: p.key,
    )
    learnt = verified[0].file if verified else None
    generation = template.metadata.generation
    answer = probed.result if probed is not None and probed.result.reason is Reason.SOURCE_REACHABLE else None
    # Facts belong to the digest: a verified copy proves what the file is, a probe only repeats a server's claim.
    known: list[tuple[int | None, int | None]] = [
        (learnt.served_bytes or learnt.size_bytes, learnt.virtual_size_bytes) if learnt else (None, None),
        (answer.size_bytes, answer.virtual_size_bytes) if answer else (None, None),
    ]
    known.insert(0 if before.digest else len(known), (before.size_bytes, before.virtual_size_bytes))
    reachable = probed.condition if probed is not None else before.condition(CONDITION)
    heard = digests.learn(template, lessons)
    dispute = before.condition(digests.CONDITION)
    if heard.contradiction:
        reason, words = Reason.DIGESTS_DIFFER, heard.contradiction
        dispute = condition(digests.CONDITION, ConditionStatus.TRUE, reason, words, (), generation, now)
    size_bytes = next((size for size, _ in known if size is not None), None)
    virtual_size_bytes = next((size for _, size in known if size is not None), None)
    return TemplateStatus(
        observed_generation=generation,
        protocol=protocol(template.spec.url),
        size_bytes=size_bytes,
        virtual_size_bytes=virtual_size_bytes,
        **quantities.in_words(size=size_bytes, virtual_size=virtual_size_bytes),
        etag=(answer.etag if answer.etag.isprintable() else "") or None if answer is not None else before.etag,
        digest=heard.digest,
        placements=count(placements),
        bytes_from=_received(placements),
        probe=probed.record if probed is not None else before.probe,
        **requests.served(template, now).fields(),
        conditions=(
            *conditions(
                _verdict(template, zones, secret), before.conditions, generation, now, types=("Ready", "Stalled")
            ),
            *(each for each in (reachable, dispute) if each is not None),
        ),
    )
