"""The demo's second half: a private HTTPS server, and the certificate that hosts trust it by, until it is revoked."""

import pathlib
from collections.abc import Sequence

import yaml
from tests.demo.stage import DemoError, Stage
from tests.demo.target import PRIVATE, Target
from tests.world.origin import Origin

ALIAS = "images"
KIND = "directdownloadcertificate"
_REPAIR_SECONDS = 30


class Trust:
    """`directory` is for manifests; `hosts` are those of the demo's zone; the server serves `file`."""

    def __init__(
        self, stage: Stage, cluster: Target, directory: pathlib.Path, hosts: Sequence[str], file: pathlib.Path
    ) -> None:
        self._stage = stage
        self._cluster = cluster
        self._directory = directory
        self._hosts = hosts
        self._file = file

    def play(self, sha256: str) -> None:
        stage = self._stage
        stage.heading(
            "A private HTTPS server",
            "No public authority vouches for it, so no host trusts it. Each host has the Java keystore that",
            "CloudStack's agent has made for itself, with a key of its own.",
        )
        for host in self._hosts:
            if not self._cluster.make_keystore(stage, host):
                return
        with Origin(self._file.parent, self._cluster.origin_address, tls=True) as origin:
            self._fail(origin, sha256)
            self._upload(origin)
            self._wipe()
            self._revoke()
        stage.run("kubectl", "delete", f"dddeploy/{PRIVATE}", f"ddtemplate/{PRIVATE}", "--timeout=60s")
        stage.run("kubectl", "delete", KIND, ALIAS, "--timeout=60s")

    def _fail(self, origin: Origin, sha256: str) -> None:
        stage = self._stage
        own, url = {"name": PRIVATE, "namespace": "default"}, origin.url(self._file.name)
        self._apply(
            "private",
            _document("Template", own, url=url, checksum=f"sha256:{sha256}", format="QCOW2"),
            _document("TemplateDeployment", own, templateRef={"name": PRIVATE}, zone="zone-1"),
        )
        stage.until("every host to refuse the server", 60, lambda: self._reasons() == {"TLSVerificationFailed"})
        stage.run("kubectl", "directdownload", "status", PRIVATE)

    def _upload(self, origin: Origin) -> None:
        stage = self._stage
        stage.heading(
            "Its certificate is uploaded",
            "One object. Every host puts it into its keystore beside what is there, and proves it; the downloads that",
            "failed go on by themselves.",
        )
        pem = origin.certificate.read_text()
        self._apply(
            "certificate",
            _document("DirectDownloadCertificate", {"name": ALIAS}, zone="zone-1", alias=ALIAS, certificate=pem),
        )
        stage.run("kubectl", "wait", f"{KIND}/{ALIAS}", "--for=condition=Ready", "--timeout=30s")
        stage.run("kubectl", "directdownload", "certificate", "list", "--hosts")
        self._look(self._hosts[0])
        stage.run("kubectl", "directdownload", "status", PRIVATE, "--watch", "--timeout", "90s")
        for host in self._hosts:
            if ALIAS not in self._cluster.aliases(stage, host):
                raise DemoError(f"keytool does not see {ALIAS} in the keystore of {host}")

    def _wipe(self) -> None:
        stage, host = self._stage, self._hosts[-1]
        stage.heading(
            "A keystore is made anew behind the operator's back",
            "As when a host is added to CloudStack again: the certificate is gone with the old store.",
        )
        self._cluster.make_keystore(stage, host)
        stage.until(
            f"{ALIAS} to be back on {host}", _REPAIR_SECONDS, lambda: ALIAS in self._cluster.aliases(stage, host)
        )
        self._look(host)
        events = ("get", "events", "--field-selector", "reason=KeystoreRepaired", "-o", "name")
        stage.until("the event", _REPAIR_SECONDS, lambda: bool(stage.read("kubectl", *events)))
        stage.run("kubectl", *events[:4])

    def _revoke(self) -> None:
        stage = self._stage
        stage.heading("It is revoked", "Every host removes it, and proves that it is gone. All else stays.")
        named = ("--name", ALIAS, "--zone", "zone-1")
        stage.run("kubectl", "directdownload", "certificate", "revoke", *named, "--wait", "--timeout", "60s")
        self._look(self._hosts[0])
        left = [host for host in self._hosts if self._cluster.aliases(stage, host) != {"cloud"}]
        if left:
            raise DemoError(f"the keystore holds something else than the host's own key on {', '.join(left)}")

    def _look(self, host: str) -> None:
        self._cluster.show_keystore(self._stage, host)

    def _apply(self, name: str, *documents: dict[str, object]) -> None:
        path = self._directory / f"{name}.yaml"
        path.write_text(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False))
        self._stage.show_file(path, f"{name}.yaml")
        self._stage.run("kubectl", "apply", "-f", str(path))

    def _reasons(self) -> set[str]:
        items = self._cluster.cluster.list("ddplacement")
        found = [item.get("status", {}) for item in items if item["spec"]["templateRef"]["name"] == PRIVATE]
        return {c["reason"] for status in found for c in status.get("conditions", []) if c["type"] == "Ready"}


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _document(kind: str, metadata: dict[str, str], **spec: object) -> dict[str, object]:
    return {"apiVersion": "directdownload.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
