"""What the kinds' pages show is what a cluster says: their examples, applied, and what kubectl prints of them then.

Only what differs from one cluster to the next is left out of the comparison: times, ages, uids, hashes, and how wide a
column is. A page may leave lines out, for which it shows `...`.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster import harness
from tests.world import agents, certificates, disks, docs
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import jobs
from directdownload.resources.reasons import Reason

#: In the order in which their objects are made; the controller makes those of the others.
WRITTEN = (kinds.ZONES, kinds.STORAGE_POOLS, kinds.TEMPLATES, kinds.TEMPLATE_DEPLOYMENTS, kinds.CERTIFICATES)
MADE = (kinds.HOSTS, kinds.TEMPLATE_PLACEMENTS)
#: What is worth waiting for: then all of it has converged.
CONVERGED = {
    kinds.ZONES: {"Ready": "Ready"},
    kinds.STORAGE_POOLS: {"Ready": "Ready"},
    kinds.TEMPLATES: {"Ready": "Registered", "SourceReachable": "SourceReachable"},
    kinds.TEMPLATE_DEPLOYMENTS: {"Ready": "Converged"},
    kinds.CERTIFICATES: {"Ready": "Provisioned", "Expiring": "NotExpiring"},
}
SIZE_BYTES, VIRTUAL_SIZE_BYTES, CAPACITY_BYTES = 327_155_712, 3 << 30, 500 << 30
ETAG = '"13800000-6a3c2f41"'
#: What is another one in each cluster, and what it is compared as.
_VARIABLE = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z| UTC)", "TIME"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
    (r"(?<=debian-13-)[0-9a-f]{10}\b", "HASH"),
    (r"\b([0-9A-F]{2}:){31}[0-9A-F]{2}\b", "FINGERPRINT"),
    (r"(?<=Resource Version:)\s+\d+", "NUMBER"),
    (r"(?<=(?i:sha256):)\s+[0-9a-f]{64}", "HASH"),
    (r"(?<=Revision:)\s+[0-9a-f]{12}", "HASH"),
    (r"(?<=Selection:)\s+[0-9a-f]{10}", "HASH"),
    (r"(?<=Inputs:)\s+[0-9a-f.]+", "HASH"),
    (r"\b(\d+[dhms])+(?=\s|$)", "AGE"),
    (r"\bkvm-\d\b", "HOST"),
    # an Event keeps its first message: how far the others were then differs
    (r"(?<=directdownload.dev/controller)(.*?)\d+ of \d+", r"\1COUNT of COUNT"),
    (r"\s+", " "),
)
#: A condition as `_plain` has it. Those of two writers come in the order in which they first wrote.
_CONDITION = r"Last Transition Time:.*\nMessage:.*\nObserved Generation:.*\nReason:.*\nStatus:.*\nType: (.*)\n"


def _page(kind: kinds.Resource) -> pathlib.Path:
    return docs.DOCS / "kinds" / f"{kind.kind.lower()}.md"


def _example(kind: kinds.Resource) -> Object:
    found: Object = yaml.safe_load(docs.blocks(_page(kind), "yaml")[0])
    return found


def _name(kind: kinds.Resource) -> str:
    return str(_example(kind)["metadata"]["name"])


def _plain(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        for pattern, word in _VARIABLE:
            line = re.sub(pattern, word, line)
        if line.strip():
            lines.append(line.strip())
    return re.sub(f"({_CONDITION})+", _by_type, "".join(f"{line}\n" for line in lines)).splitlines()


def _by_type(conditions: re.Match[str]) -> str:
    found = sorted(re.finditer(_CONDITION, conditions[0]), key=lambda condition: condition[1])
    return "".join(condition[0] for condition in found)


def _parts(shown: str) -> Iterator[list[str]]:
    """The lines of `shown` between those that stand for what is left out."""
    for part in re.split(r"^\s*\.\.\.$", shown, flags=re.MULTILINE):
        yield _plain(part)


def _without(shown: str, printed: str) -> list[str]:
    """The parts of `shown` that `printed` has not, or not in this order."""
    lines = _plain(printed)
    missing, at = [], 0
    for part in _parts(shown):
        found = next((n for n in range(at, len(lines)) if lines[n : n + len(part)] == part), None)
        if found is None:
            missing.append("\n".join(part))
        else:
            at = found + len(part)
    return missing


def _holds(printed: Any, shown: Any) -> bool:
    """Whether an object has all that is shown of it."""
    if isinstance(shown, dict):
        return all(name in printed and _holds(printed[name], value) for name, value in shown.items())
    return _plain(str(printed)) == _plain(str(shown))


@pytest.fixture
def converged(
    own: harness.ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[Simulation]:
    """Three hosts, kvm-1 to kvm-3, in the state that the examples of the pages wish for."""
    template, certificate = _example(kinds.TEMPLATES)["spec"], _example(kinds.CERTIFICATES)["spec"]
    monkeypatch.setattr(disks, "SIZE_BYTES", SIZE_BYTES)
    for module in (disks, agents):
        monkeypatch.setattr(module, "CAPACITY_BYTES", CAPACITY_BYTES)
    monkeypatch.setattr(disks.Origin, "digest", lambda _self, _url: template["checksum"])
    inspected = {"format": template["format"], "virtual_size_bytes": VIRTUAL_SIZE_BYTES}
    done = disks.Disk._done
    monkeypatch.setattr(disks.Disk, "_done", lambda *a, **k: done(*a, **k).model_copy(update=inspected))
    answer = jobs.JobResult(
        reason=Reason.SOURCE_REACHABLE,
        size_bytes=SIZE_BYTES,
        virtual_size_bytes=VIRTUAL_SIZE_BYTES,
        etag=ETAG,
        media_type="application/octet-stream",
        ranges=True,
    )
    authority = tmp_path / "ca.crt"
    authority.write_text(certificates.pem("Example Images CA"))
    reference = certificate["certificateRef"]
    labels = _example(kinds.ZONES)["spec"]["nodeSelector"]["matchLabels"]
    with Simulation(own, "kvm", agents=True) as world:
        world.kubelets.probe_behaviour = lambda _: answer
        for number in (1, 2, 3):
            world.relabel(world.add_host(str(number), labels=labels), simulated_zone=None)
        content = f"--from-file={reference['key']}={authority}"
        own.kubectl("create", "configmap", reference["name"], content, "-n", world.namespace, check=True)
        world.start_controller()
        for kind in WRITTEN:
            own.kubectl("apply", "--validate=strict", "-f", "-", input=docs.blocks(_page(kind), "yaml")[0], check=True)
        until("all examples to have converged", lambda: {kind: _said(world, kind) for kind in WRITTEN} == CONVERGED)
        until("all facts to be there", lambda: _settled(world))
        yield world


def _said(world: Simulation, kind: kinds.Resource) -> dict[str, str]:
    metadata = _example(kind)["metadata"]
    found = world.get(kind, metadata["name"], metadata.get("namespace", ""))
    conditions = {c["type"]: c["reason"] for c in found.get("status", {}).get("conditions", ())}
    return {name: conditions[name] for name in CONVERGED[kind] if name in conditions}


def _placements(world: Simulation) -> list[Object]:
    with world.kube() as kube:
        return list(kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"])


def _settled(world: Simulation) -> bool:
    """Counts of other objects, and what agents tell, come a little later than conditions."""
    hosts = len(world.kubelets.machines)
    template = world.get(kinds.TEMPLATES, _name(kinds.TEMPLATES), "default")["status"]
    pool = world.get(kinds.STORAGE_POOLS, _name(kinds.STORAGE_POOLS))["status"]
    zone = world.get(kinds.ZONES, _name(kinds.ZONES))["status"]
    copies = [placement["status"] for placement in _placements(world)]
    return template["placements"]["ready"] == pool["hosts"]["ready"] == zone["hosts"]["up"] == len(
        copies
    ) == hosts and all(
        "progress" in copy and copy["observed"]["revision"] == copy["file"]["revision"] for copy in copies
    )


def test_pages_show_what_kubectl_prints(converged: Simulation) -> None:
    plane = converged.control_plane
    placed = next(each for each in _placements(converged) if each["spec"]["host"] == "kvm-1")
    shown = [(kind, *output) for kind in (*WRITTEN, *MADE) for output in docs.outputs(_page(kind))]
    assert {kind for kind, _, _ in shown} == {*WRITTEN, *MADE}
    wrong: dict[str, str] = {}

    def same() -> bool:
        wrong.clear()
        for kind, command, text in shown:
            name = placed["metadata"]["name"] if kind is kinds.TEMPLATE_PLACEMENTS else _name(kind)
            words = [name if word == _name(kind) else word for word in command.split()]
            printed = plane.kubectl(*words[1:], check=True).stdout
            for part in _without(text, printed):
                wrong[f"{command}, which does not print\n{part}\nbut"] = printed
        return not wrong

    # Events come a moment later than what they tell.
    with contextlib.suppress(AssertionError):
        until("all that is shown", same, seconds=30)
    assert not wrong, "\n\n".join("\n".join(each) for each in wrong.items())

    # The same fleet serves for what nobody writes: their examples are what the controller makes.
    host = converged.get(kinds.HOSTS, _name(kinds.HOSTS))
    assert _holds(host, _example(kinds.HOSTS)), host
    assert _holds(placed, _example(kinds.TEMPLATE_PLACEMENTS)), placed
