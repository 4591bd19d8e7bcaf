"""`make demo`: from nothing to a verified template on every host, step by step. demo.sh names its settings.

Every step shows the command it runs. A failed check ends the demo with exit status 1, the reason, and the relevant
logs; it leaves nothing behind unless KEEP=1.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
from typing import Any

import yaml
from tests.cluster import harness
from tests.demo import image, machine, peers, target
from tests.demo.machine import Machine
from tests.demo.peers import Peers
from tests.demo.stage import FAILURES, DemoError, RefusedError, Stage
from tests.demo.target import DEPLOYMENT, PRIVATE, TEMPLATE, Target
from tests.demo.trust import ALIAS, Trust
from tests.world import evidence
from tests.world.checkout import REPOSITORY
from tests.world.cluster import NAMESPACE, RELEASE
from tests.world.origin import Origin, Request

EXAMPLES = REPOSITORY / "examples"
MIB = 1024**2
SIZE_MIB = int(os.environ.get("SIZE_MIB", "256"))
RATE_MIB = int(os.environ.get("RATE_MIB", "24"))
KEEP = os.environ.get("KEEP", "") not in ("", "0")
ROLLOUT_TIMEOUT = "150s"


class Demo:
    def __init__(self, stage: Stage, cluster: Target, directory: pathlib.Path) -> None:
        self.stage = stage
        self.target = cluster
        self.cluster = cluster.cluster
        self.directory = directory
        self.hosts: list[str] = []

    def play(self) -> None:
        self.versions()
        self.bring_up()
        self.install()
        sha256 = self.make_template()
        served = self.directory / "served"
        # nginx's workers do not run as root, and must reach the file.
        self.directory.chmod(0o755)
        with Origin(served, self.target.origin_address) as origin:
            self.show_origin(origin)
            self.apply_fleet()
            self.apply_template(origin, sha256)
            self.plan()
            self.roll_out()
            self.look_around()
            self.compare(sha256)
            self.who_downloaded(origin)
            lost = self.lose_a_file()
            self.add_a_host()
            self.find_it_again(lost, sha256, origin)
            self.compare(sha256)
        Trust(self.stage, self.target, self.directory, self.hosts, served / "debian-13.qcow2").play(sha256)
        if not KEEP:
            self.remove_again()
        with Origin(served, self.target.origin_address) as origin:
            Peers(self.stage, self.target, self.directory, self.hosts).play(origin, served / "debian-13.qcow2", sha256)
        with Origin(served, self.target.origin_address) as origin:
            Machine(self.stage, self.target, self.directory, served).play(origin)

    def versions(self) -> None:
        stage = self.stage
        stage.heading("Versions", "What this demo runs with.")
        packages = [(name, importlib.metadata.version(name)) for name in ("kopf", "kubernetes", "aiohttp", "pydantic")]
        rows = [
            ("direct-download-operator", stage.read("directdownload", "--version").split()[-1]),
            ("python", sys.version.split()[0]),
            *((f"python: {name}", version) for name, version in packages),
            (
                "kubectl",
                json.loads(stage.read("kubectl", "version", "--client", "-o", "json"))["clientVersion"]["gitVersion"],
            ),
            ("helm", stage.read("helm", "version", "--short")),
            *((name, _first_line(stage.ask(name, "--version"))) for name in ("containerd", "runc", "buildah")),
            ("nginx", _first_line(stage.ask("sh", "-c", "nginx -v 2>&1"))),
            ("kernel", os.uname().release),
        ]
        stage.table(("what", "version"), rows)

    def bring_up(self) -> None:
        stage = self.stage
        stage.heading(
            "A Kubernetes cluster",
            "API server, controller manager, scheduler, and nodes with kubelet and containerd. The nodes play KVM",
            "hosts: each has its own /var/lib/libvirt/images, which no other node sees.",
        )
        self.target.bring_up(stage)
        stage.run("kubectl", "get", "nodes", "-o", "wide")
        stage.heading("The product's image", "One image for controller, agent and download jobs.")
        self.values = self.target.provide_image(stage)

    def install(self) -> None:
        stage = self.stage
        stage.heading(
            "Install the operator with Helm",
            "The controller plans; an agent on every host reports; download jobs do the work, without API credentials.",
            "With csi.enabled pods may have templates as volumes: a second container of the agents mounts them.",
        )
        target.mark(stage)
        self.forget_earlier_run()
        sets = [f"--set-string={value}" for value in [*self.values, "log.format=text"]]
        if self.cluster.local:
            sets.append("--set=csi.enabled=true")
        chart = "charts/direct-download-operator"
        stage.run(
            *("helm", "upgrade", "--install", RELEASE, chart, "--namespace", NAMESPACE, "--create-namespace"),
            *("--wait", "--timeout", "120s", *sets),
        )
        stage.run("kubectl", "-n", NAMESPACE, "get", "pods", "-o", "wide")

    def forget_earlier_run(self) -> None:
        """Remove the objects of a run with KEEP=1: its copies would be found in place, with nothing to show."""
        if not self.stage.ask("kubectl", "get", "crd", "templates.directdownload.dev", "-o", "name").startswith(
            "custom"
        ):
            return
        self.stage.run("kubectl", "apply", "--server-side", "--force-conflicts", "-f", "crds")
        self.delete_template()

    def make_template(self) -> str:
        self.stage.heading(
            "A private origin",
            f"A QCOW2 image of {SIZE_MIB} MiB is made and served by nginx on this machine, as a template server would.",
        )
        served = self.directory / "served"
        served.mkdir()
        return image.write(served / "debian-13.qcow2", SIZE_MIB * MIB)

    def show_origin(self, origin: Origin) -> None:
        file = self.directory / "served" / "debian-13.qcow2"
        self.stage.run("curl", "--noproxy", "*", "-sS", "-I", origin.url(file.name))
        self.stage.run("sha256sum", str(file))

    def apply_fleet(self) -> None:
        stage = self.stage
        stage.heading(
            "A zone and its primary storage",
            "Administrators say which nodes are hosts of a zone, and where templates are put on them. Here they also",
            f"limit each of two downloads of a host to {RATE_MIB} MiB/s, so that there is something to watch.",
        )
        selector = {"matchLabels": self.target.node_labels}
        limits = {"maxParallel": 20, "maxParallelPerHost": 2, "bandwidthPerHost": f"{2 * RATE_MIB}Mi"}
        zone = self.manifest("zone", {"nodeSelector": selector, "downloads": limits})
        pool = self.manifest("storagepool", {})
        stage.run("kubectl", "apply", "-f", str(zone), "-f", str(pool))
        labels = ",".join(f"{key}={value}" for key, value in self.target.node_labels.items())
        self.hosts = sorted(node["metadata"]["name"] for node in self.cluster.list("nodes", None, "-l", labels))
        if not self.hosts:
            raise DemoError(f"no node has the labels {labels}")
        stage.until("every host to be Up and the pool to be Ready", 90, self.fleet_is_ready)
        stage.run("kubectl", "directdownload", "host", "list")

    def fleet_is_ready(self) -> bool:
        hosts = self.cluster.list("ddhost")
        up = sorted(host["metadata"]["name"] for host in hosts if host.get("status", {}).get("state") == "Up")
        pool = self.cluster.get("ddpool", "local")
        ready = [c for c in pool.get("status", {}).get("conditions", []) if c["type"] == "Ready"]
        usable = pool.get("status", {}).get("hosts", {}).get("ready")
        return up == self.hosts and usable == len(up) and bool(ready) and ready[0]["status"] == "True"

    def apply_template(self, origin: Origin, sha256: str) -> None:
        stage = self.stage
        stage.heading(
            "Register a template",
            "A URL and a checksum. It is ready at once: nothing is downloaded before somebody deploys it.",
            "Meanwhile one host asks the source, and reads as much of the image as tells how large its disk is.",
        )
        spec = {"url": origin.url("debian-13.qcow2"), "checksum": f"sha256:{sha256}"}
        stage.run("kubectl", "apply", "-f", str(self.manifest("template", spec)))
        stage.run("kubectl", "wait", f"ddtemplate/{TEMPLATE}", "--for=condition=Ready", "--timeout=10s")
        stage.run("kubectl", "wait", f"ddtemplate/{TEMPLATE}", "--for=condition=SourceReachable", "--timeout=60s")
        columns = "custom-columns=NAME:.metadata.name,SIZE:.status.sizeBytes,DISK:.status.virtualSizeBytes"
        stage.run("kubectl", "get", "ddtemplate", TEMPLATE, "-o", columns)
        status = self.cluster.get("ddtemplate", TEMPLATE, "default")["status"]
        found = (status.get("sizeBytes"), status.get("virtualSizeBytes"))
        expected = ((self.directory / "served" / "debian-13.qcow2").stat().st_size, SIZE_MIB * MIB)
        if found != expected:
            raise DemoError(f"size and disk of the image are {expected}, the template says {found}")

    def plan(self) -> None:
        self.stage.heading(
            "Ask first what a deployment would do",
            "The controller's own planners say which host fetches how much from where, and what blocks it.",
        )
        self.stage.run("kubectl", "directdownload", "plan", TEMPLATE, "--zone", "zone-1")

    def roll_out(self) -> None:
        stage = self.stage
        stage.heading(
            "Deploy it onto every host of the zone",
            "Each host fetches its copy straight from the origin. Live, until every copy is verified and in place:",
        )
        kubeconfig = stage.environment.get("KUBECONFIG", "")
        stage.say("To see it in a browser meanwhile, in another terminal (the address that it prints is good once):")
        stage.say(f"    {REPOSITORY}/.venv/bin/directdownload dashboard --kubeconfig {kubeconfig} --no-browser")
        stage.say()
        manifest = self.manifest("templatedeployment", {})
        began = time.monotonic()
        stage.run("kubectl", "apply", "-f", str(manifest))
        stage.run("kubectl", "directdownload", "status", DEPLOYMENT, "--watch", "--timeout", ROLLOUT_TIMEOUT)
        copies = len(self.hosts)
        stage.say(f"{copies} x {SIZE_MIB} MiB in {time.monotonic() - began:.1f} s, from `kubectl apply` to all Ready.")

    def look_around(self) -> None:
        stage = self.stage
        stage.heading("What is where now", "A placement is one copy of a template in a pool.")
        stage.run("kubectl", "get", "ddplacement", "-o", "wide")
        for command in (["zone", "list"], ["host", "list"], ["pool", "list"], ["template", "list"], ["status"]):
            stage.run("kubectl", "directdownload", *command)

    def compare(self, sha256: str) -> None:
        stage = self.stage
        stage.heading(
            "The file on each host, compared with the origin's",
            "Read from the hosts' own directories, not from what the operator says about them.",
        )
        placements = self.placements()
        rows, wrong = [("origin", "debian-13.qcow2", sha256, "")], []
        for host, path in placements:
            found = self.cluster.sha256(host, path)
            rows.append((host, path, found or "missing", "same" if found == sha256 else "DIFFERENT"))
            if found != sha256:
                wrong.append(host)
        stage.table(("where", "file", "sha-256", ""), rows)
        if wrong:
            raise DemoError(f"the file differs from the origin's on {', '.join(wrong)}")
        if sorted(host for host, _ in placements) != self.hosts:
            raise DemoError(f"copies are on {[host for host, _ in placements]}, expected one on each of {self.hosts}")

    def who_downloaded(self, origin: Origin) -> None:
        stage = self.stage
        stage.heading(
            "Who downloaded, according to the origin's access log",
            "No secondary storage in between: every host came itself, once, and took every byte once. (One had come",
            "before, when the template was registered, for the head of the image alone: that is left out here.)",
        )
        gets = self.downloads(origin)
        rows = [
            (self.target.host_of(r.client), r.client, f"GET {r.path}", str(r.status), str(r.bytes_sent)) for r in gets
        ]
        stage.table(("host", "client", "request", "status", "bytes"), sorted(rows))
        size = (self.directory / "served" / "debian-13.qcow2").stat().st_size
        if len(gets) != len(self.hosts) or any(r.status != 200 or r.bytes_sent != size for r in gets):
            raise DemoError(f"expected {len(self.hosts)} complete downloads of {size} bytes, one for each host")
        if len({self.target.host_of(r.client) for r in gets}) != len(self.hosts):
            raise DemoError("some host did not download by itself")

    def downloads(self, origin: Origin) -> list[Request]:
        own = self.target.origin_address
        return [request for request in evidence.gets(origin) if request.client != own]

    def lose_a_file(self) -> tuple[str, str]:
        """Delete a copy; return its host and path."""
        stage = self.stage
        stage.heading(
            "A file is deleted behind the operator's back",
            "Somebody tidied up. It is missed within a minute: time for something else.",
        )
        host, path = self.placements()[-1]
        self.target.lose(stage, host, path)
        if self.cluster.sha256(host, path):
            raise DemoError(f"{path} is still there on {host}")
        return host, path

    def add_a_host(self) -> None:
        stage = self.stage
        stage.heading("A host joins", "The deployment stays in force, so nobody has to ask for the copy.")
        host = self.target.add_host(stage)
        if not host:
            return
        self.hosts = sorted([*self.hosts, host])
        stage.until(f"a copy for {host}", 60, lambda: host in {on for on, _ in self.placements()})
        stage.run("kubectl", "directdownload", "status", DEPLOYMENT, "--watch", "--timeout", ROLLOUT_TIMEOUT)

    def find_it_again(self, lost: tuple[str, str], sha256: str, origin: Origin) -> None:
        stage = self.stage
        host, path = lost
        stage.heading("The lost file is back", f"The agent of {host} has missed it, and {host} has fetched it again.")
        stage.until(f"the file on {host}", 120, lambda: self.cluster.sha256(host, path) == sha256)
        stage.run("kubectl", "wait", f"dddeploy/{DEPLOYMENT}", "--for=condition=Ready", "--timeout=30s")
        stage.run("kubectl", "get", "events", "--field-selector", "reason=Missing")
        stage.run("kubectl", "directdownload", "status", DEPLOYMENT)
        gets = self.downloads(origin)
        if len(gets) != len(self.hosts) + 1:
            raise DemoError(f"expected one download for each host and one more for {host}, found {len(gets)}")
        stage.say(f"The origin has served {len(gets)} downloads: one for each host, and one more for {host}.")

    def remove_again(self) -> None:
        stage = self.stage
        placements = self.placements()
        stage.heading("Delete the deployment", "Nobody wants the copies any more: each host removes its file.")
        stage.run("kubectl", "delete", "dddeploy", DEPLOYMENT, "--timeout=60s")
        stage.until("the placements to be gone", 60, lambda: not self.placements())
        rows = [(host, path, self.cluster.sha256(host, path) or "gone") for host, path in placements]
        stage.table(("host", "file", "sha-256"), rows)
        left = [host for host, _, found in rows if found != "gone"]
        if left:
            raise DemoError(f"the file is still on {', '.join(left)}")

    def delete_template(self) -> None:
        stage = self.stage
        own = [f"dddeploy/{name}" for name in (DEPLOYMENT, PRIVATE, peers.NAME)]
        own += [f"ddtemplate/{name}" for name in (TEMPLATE, PRIVATE, machine.NAME, peers.NAME)]
        stage.run("kubectl", "delete", *own, f"ddcert/{ALIAS}", "--ignore-not-found", "--timeout=60s")
        stage.until("the placements to be gone", 60, lambda: not self.placements())

    def placements(self) -> list[tuple[str, str]]:
        """Host and path of each copy of the demo's template."""
        specs = [item["spec"] for item in self.cluster.list("ddplacement")]
        return sorted((spec["host"], spec["path"]) for spec in specs if spec["templateRef"]["name"] == TEMPLATE)

    def manifest(self, name: str, spec: dict[str, Any]) -> pathlib.Path:
        """`examples/NAME.yaml` with these fields of its spec replaced, shown on screen."""
        source = EXAMPLES / f"{name}.yaml"
        path = self.directory / source.name
        text = source.read_text()
        example = yaml.safe_load(text)["spec"]
        changes = {field: value for field, value in spec.items() if example.get(field) != value}
        for field, value in changes.items():
            if isinstance(value, str):
                # Line by line, so that the comments stay.
                text = re.sub(rf"^  {field}: .*$", f"  {field}: {value}", text, flags=re.M)
            else:
                document = yaml.safe_load(text)
                document["spec"][field] = value
                text = yaml.safe_dump(document, sort_keys=False)
        if yaml.safe_load(text)["spec"] != example | spec:
            raise DemoError(f"{source} does not have the fields {', '.join(changes)} in the way the demo expects")
        path.write_text(text)
        changed = f", with {' and '.join(changes)} of this demo" if changes else ""
        self.stage.show_file(path, f"examples/{source.name}{changed}")
        return path


def main() -> int:
    stage = Stage()
    with contextlib.ExitStack() as stack:
        try:
            cluster = target.choose()
        except DemoError as error:
            stage.say(f"Error: {error}")
            return 2
        directory = pathlib.Path(tempfile.mkdtemp(prefix="directdownload-demo-", dir=target.work_directory()))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        status = 1
        try:
            Demo(stage, cluster, directory).play()
            status = 0
        except RefusedError as error:
            stage.say(f"\nRefused: {error}.")
            return 2
        except FAILURES as error:
            complain(stage, error)
        except KeyboardInterrupt:
            stage.say("\nInterrupted.")
            status = 130
        return max(status, end(stage, cluster, status))


def complain(stage: Stage, error: Exception) -> None:
    stage.say()
    stage.say(f"!!! FAILED in step {stage.heading_text}: {error}")
    if "KUBECONFIG" not in stage.environment:
        return
    controller = ("-l", "app.kubernetes.io/component=controller", "--tail=40", "--prefix")
    for command in (
        ("kubectl", "-n", NAMESPACE, "get", "pods,jobs", "-o", "wide"),
        ("kubectl", "get", "directdownload", "-A"),
        ("kubectl", "get", "ddplacement", "-o", "yaml"),
        ("kubectl", "-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/component=job", "--tail=20", "--prefix"),
        ("kubectl", "-n", NAMESPACE, "logs", *controller),
        ("kubectl", "-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/component=agent", "--tail=10", "--prefix"),
    ):
        stage.command(" ".join(command))
        stage.say(stage.ask(*command))


def end(stage: Stage, cluster: Target, status: int) -> int:
    """Take everything down, or print how to; return 1 when that fails."""
    seconds = time.monotonic() - stage.began_monotonic
    if KEEP:
        kubeconfig = stage.environment.get("KUBECONFIG", "")
        stage.heading("Everything is still up (KEEP=1)")
        stage.say(f"    Look around:  export KUBECONFIG={kubeconfig} PATH={REPOSITORY}/.venv/bin:{_bin()}:$PATH")
        stage.say("                  kubectl get directdownload -A; kubectl directdownload status")
        stage.say("                  directdownload dashboard --no-browser")
        stage.say(f"                  kubectl -n {NAMESPACE} logs deployment/{RELEASE}-controller -f")
        stage.say(f"    Take it down: {cluster.how_to_take_down()}")
    else:
        stage.heading("Take everything down")
        try:
            cluster.take_down(stage)
        except FAILURES as error:
            stage.say(f"!!! not everything could be taken down: {error}")
            return 1
    if status == 0:
        stage.say()
        stage.say(f"Everything held. {seconds:.0f} s.")
    return 0


def _bin() -> pathlib.Path:
    return harness.state_root() / "bin"


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


if __name__ == "__main__":
    sys.exit(main())
