"""What a controller logs at debug while things go wrong: JSON lines that name their objects, and no secret.

Secrets are planted where one can be: in a header, a query, what a server made a job say, a key beside a certificate.
"""

import base64
import json
from typing import Any

from tests.world import certificates
from tests.world.kube import resource
from tests.world.simulation import Simulation, succeed
from tests.world.steps import ask, delete, settle
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult, Verb
from directdownload.resources.reasons import Reason

ORIGIN = "http://images.example.org"
HEADER, SIGNATURE, SAID = "planted-header-4711", "planted-signature-42", "planted-echo-0815"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZA"


def test_every_line_is_json_names_its_object_and_holds_no_secret(world: Simulation) -> None:
    world.create_zone(downloads={"retry": {"initial": "3s", "maximum": "3s"}})
    hosts = [world.add_host(f"kvm-{number}") for number in (1, 2)]
    key = certificates.private_key()
    with world.kube() as kube:
        headers: dict[str, Any] = {
            "metadata": {"name": "token", "annotations": {"directdownload.dev/origins": ORIGIN}},
            "type": "directdownload.dev/headers",
            "data": {"Authorization": base64.b64encode(f"Bearer {HEADER}".encode()).decode()},
        }
        kube.create(kinds.SECRETS, headers, world.namespace).object()
        data = {"tls.key": key, "tls.crt": key}
        pasted = {"metadata": {"name": "pasted"}, "stringData": data}
        kube.create(kinds.SECRETS, pasted, world.namespace).object()
        reference = {"kind": "Secret", "name": "pasted", "key": "tls.crt"}
        spec = {"zone": world.zone, "alias": "ca", "certificateRef": reference}
        kube.create(kinds.CERTIFICATES, resource(kinds.CERTIFICATES, f"{world.prefix}-ca", spec)).object()
    url, proxy = f"{ORIGIN}/x?token={SAID}", f"https://user:{SAID}@proxy"
    said = f"{url} Authorization: Bearer {SAID}-bearer {TOKEN} {proxy} password={SAID}"

    def fail_once(document: JobDocument) -> JobResult:
        if (document.host, "fetch", 2) in world.started or document.host != hosts[0]:
            return succeed(document)
        return JobResult(reason=Reason.SOURCE_UNAVAILABLE, message=f"{said}: {key}", source=said)

    world.behaviour = fail_once
    controller = world.start_controller("controller", "--log-format", "json", "--log-level", "debug")
    world.create_template(url=f"{ORIGIN}/debian.raw?signature={SIGNATURE}", headersSecretRef={"name": "token"})
    world.deploy()

    def failing() -> str | None:
        text = json.dumps([world.placements(), world.deployment()])
        return text if "SourceUnavailable" in text else None

    seen = {"objects while it fails": until("the failure", failing)}
    world.converged(2)
    until("the certificate to be refused", lambda: world.ready_reason(kinds.CERTIFICATES, f"{world.prefix}-ca"))
    assert controller.stop() == 0

    text = controller.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    assert any(line["logger"].startswith("kopf") for line in lines)
    about = [line for line in lines if "object" in line]
    placements = {p["metadata"]["name"]: p["spec"]["host"] for p in world.placements()}
    for name, host in placements.items():
        reference = {"kind": "TemplatePlacement", "name": name}
        told = [(line["host"], line["reason"], line["attempt"]) for line in about if _is(line, reference, "attempt")]
        assert (host, "Downloaded", 2 if host == hosts[0] else 1) in told
    expected = {
        ("Host", "", hosts[0]),
        ("Template", world.namespace, "debian"),
        ("DirectDownloadCertificate", "", f"{world.prefix}-ca"),
    }
    assert expected <= {(o["kind"], o.get("namespace", ""), o["name"]) for o in (line["object"] for line in about)}

    seen["log"] = text
    with world.kube() as kube:
        for kind in (*(kinds.TEMPLATE_PLACEMENTS, kinds.TEMPLATE_DEPLOYMENTS), kinds.CERTIFICATES, kinds.EVENTS):
            seen[kind.plural] = json.dumps(kube.request("GET", kind.path()).object())
        # What people write there is their own; what the product writes is the status.
        templates = kube.request("GET", kinds.TEMPLATES.path()).object()["items"]
        seen["templates"] = json.dumps([template["status"] for template in templates])
    assert "SourceUnavailable" in seen["events"]
    secret = key.splitlines()[1]
    for where, found in seen.items():
        for value in (HEADER, SIGNATURE, SAID, TOKEN, secret):
            assert value not in found, f"{value} in {where}"


def _is(line: dict[str, Any], reference: dict[str, str], field: str) -> bool:
    return line["object"] == reference and field in line


def test_each_failure_is_one_warning_with_object_host_reason_and_message(world: Simulation) -> None:
    """Of a download, a verification, a removal, a probe and a certificate, however often they are looked at."""
    world.create_zone(downloads={"retry": {"initial": "1s", "maximum": "1s"}})
    host = world.add_host("kvm-1")
    failed: set[Verb] = set()

    def fail_each_verb_once(document: JobDocument) -> JobResult:
        if document.verb in failed:
            return succeed(document)
        failed.add(document.verb)
        return JobResult(reason=Reason.WRITE_FAILED, message=f"the {document.verb} cannot write")

    world.behaviour = fail_each_verb_once
    world.kubelets.probe_behaviour = lambda _: JobResult(reason=Reason.SOURCE_REFUSED, message="the probe is refused")
    controller = world.start_controller("controller", "--log-format", "json")
    world.create_template()
    world.deploy()
    world.converged(1)
    certificate = world.create_certificate("ca", "no certificate")
    placement = world.placement(host)["metadata"]["name"]
    ask(world, kinds.TEMPLATE_PLACEMENTS, placement)
    until("a verification", lambda: "verify" in world.placement(host)["status"]["conditions"][0]["message"])
    until("the probe", lambda: world.kubelets.probed)
    until("the refusal", lambda: world.ready_reason(kinds.CERTIFICATES, certificate) == "InvalidCertificate")
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    until("the placement to go", lambda: not world.placements())

    def told() -> list[tuple[str, str, str, str]]:
        lines = [json.loads(line) for line in controller.log.read_text().splitlines()]
        return sorted(
            (line["object"]["kind"], line.get("host", ""), line["reason"], line["message"].rpartition(": ")[2])
            for line in lines
            if line["level"] == "warning"
        )

    until("the last warning", lambda: len(told()) >= 5)
    settle(world)
    found = told()
    assert [(kind, where, reason) for kind, where, reason, _ in found] == [
        ("DirectDownloadCertificate", "", "InvalidCertificate"),
        ("Template", "", "SourceRefused"),
        *[("TemplatePlacement", host, "WriteFailed")] * 3,
    ]
    assert [message for *_, message in found[1:]] == [
        "the probe is refused",
        *(f"the {verb} cannot write" for verb in ("fetch", "remove", "verify")),
    ]
