"""Controllers of the product as processes, each with an identity of its own towards the API, and what they wrote."""

import dataclasses
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

import yaml
from tests.cluster import harness
from tests.world import checkout
from tests.world.forked import POSSIBLE, Forked

JOB_TEMPLATE = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "backoffLimit": 0,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [{"name": "download", "image": "localhost/none"}],
            }
        },
    },
}


@dataclasses.dataclass(slots=True)
class Controller:
    """One controller process with an identity of its own towards the API."""

    user: str
    process: subprocess.Popen[bytes] | Forked
    log: pathlib.Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=120)

    def stop(self) -> int:
        """Asks it to end, as the kubelet does, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


class Controllers:
    """Controllers of one namespace, which is named as the simulation. All end by `kill`."""

    def __init__(self, control_plane: harness.ControlPlane, namespace: str, *, forked: bool) -> None:
        """`forked`: see there; otherwise each is a new interpreter."""
        self._forked = forked
        self._control_plane = control_plane
        self._namespace = namespace
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="simulation-", dir=control_plane.directory))
        self.started: list[Controller] = []

    def start(
        self, user: str, *options: str, kubeconfig: pathlib.Path | None = None, interval: float | None = None
    ) -> Controller:
        """`interval`: the seconds between two requests of a tenant that are served; None: as it is."""
        template = self._directory / "job.yaml"
        template.write_text(yaml.safe_dump(JOB_TEMPLATE))
        log = self._directory / f"{user}-{len(self.started)}.log"
        name = f"{self._namespace}-{user}"
        arguments = ["controller", "--pod-name", user, "--pod-namespace", self._namespace, "--health-port", "0"]
        arguments += ["--job-template", str(template), *options]
        environment = checkout.pod_environment(self._directory, kubeconfig or self._control_plane.kubeconfig(name))
        process: subprocess.Popen[bytes] | Forked
        if self._forked and POSSIBLE and interval is None:
            process = Forked([checkout.DIRECTDOWNLOAD, *arguments], environment, output=log)
        else:
            with log.open("wb") as output:
                command = [*_program(interval), *arguments]
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self.started.append(Controller(name, process, log))
        return self.started[-1]

    def kill(self) -> None:
        for controller in self.started:
            if controller.alive:
                controller.kill()

    def writes(self, user: str, *, of_probes: bool = False) -> list[dict[str, Any]]:
        """The audit log's writes of one of them, without Leases and Events."""
        return [
            event
            for event in harness.read_audit_log(self._control_plane.audit_log)
            if event["user"]["username"] == f"{self._namespace}-{user}"
            and event["objectRef"]["resource"] not in ("leases", "events")
            and _of_probe(event) == of_probes
        ]


def _program(interval: float | None) -> list[str]:
    if interval is None:
        return [checkout.DIRECTDOWNLOAD]
    changed = f"requests.INTERVAL = datetime.timedelta(seconds={interval})"
    program = f"import datetime; from directdownload.planning import requests; {changed}"
    return [sys.executable, "-c", f"{program}; from directdownload.cli.main import main; main()"]


def _of_probe(event: dict[str, Any]) -> bool:
    return event["objectRef"]["resource"] in ("jobs", "secrets") and "-probe-" in event["objectRef"].get("name", "")
