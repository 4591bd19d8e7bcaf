"""Makes docs/images/dashboard-*.png: pages of the dashboard, light and dark, of a fleet in a real API server.

`python -m tests.demo.dashboard`, from the checkout. No host and no controller runs: the objects are written as they
would write them in the middle of a rollout.
"""

import sys

from playwright.sync_api import expect
from tests.cluster import harness
from tests.world import checkout, kube
from tests.world import dashboard as fleet
from tests.world import dashboard_process as processes
from tests.world.dashboard_process import Dashboard, Fleet
from tests.world.kube import Kube, Object

from directdownload.cluster import kinds

IMAGES = checkout.REPOSITORY / "docs" / "images"
HOSTS = 240
_PAGES = {
    "fleet": "/",
    "rollout": f"/rollouts/{fleet.NAMESPACE}/everywhere",
    "certificate": "/certificates/corporate-ca",
}
_SIZE = {"width": 1200, "height": 900}
_FAILURE = "expected sha256:c6ab15af…, images.example.org sent sha256:5d41402a… after one restart from zero"
_TLS = "images.example.org: the certificate is of an unknown authority, 'Example Corporate Root'"


def main() -> int:
    with harness.ControlPlane() as control_plane:
        kube.install_definitions(control_plane)
        with Kube(control_plane.kubeconfig()) as connection:
            connection.create(kinds.NAMESPACES, {"metadata": {"name": fleet.NAMESPACE}}).object()
            world = Fleet(connection)
            write(world, ready=70)
            with Dashboard(control_plane.kubeconfig()) as running, processes.chromium() as browser:
                for scheme in ("light", "dark"):
                    options: Object = {"color_scheme": scheme, "viewport": _SIZE, "device_scale_factor": 1}
                    with processes.entered(browser, running, **options) as page:
                        expect(page.locator(".tile").first).to_contain_text("236", timeout=60_000)
                        for ready in range(80, 140, 10):
                            rollout(world, ready)
                            page.wait_for_timeout(1100)
                        for name, path in _PAGES.items():
                            page.goto(running.origin + path)
                            page.screenshot(path=IMAGES / f"dashboard-{name}-{scheme}.png", full_page=name != "fleet")
    return 0


def write(world: Fleet, ready: int) -> None:
    world.put(kinds.ZONES, fleet.zone(hosts=HOSTS))
    world.put(kinds.STORAGE_POOLS, fleet.pool())
    world.put(kinds.TEMPLATES, fleet.template())
    world.put(kinds.TEMPLATES, fleet.template("ubuntu-24.04"))
    done = fleet.deployment("ubuntu-everywhere", of="ubuntu-24.04", desired=HOSTS, ready=HOSTS)
    world.put(kinds.TEMPLATE_DEPLOYMENTS, done)
    for name, proved in (("corporate-ca", HOSTS - 31), ("mirror-ca", HOSTS)):
        world.put(kinds.CERTIFICATES, fleet.certificate(name, hosts=HOSTS, proved=proved))
    for number in range(HOSTS):
        state = "Down" if number in (17, 101) else "Maintenance" if number in (40, 41) else "Up"
        failed = fleet.proof("Failed", "corporate-ca", reason="KeystoreWriteFailed", message="no space left on device")
        pending = fleet.proof("Pending", "corporate-ca", reason="Provisioning")
        proof = failed if number == 133 else pending if number % 8 == 5 else fleet.proof(name="corporate-ca")
        used = 91 if number == 55 else 30 + number % 37
        world.put(kinds.HOSTS, fleet.host(number, state, used=used, proofs=[proof, fleet.proof(name="mirror-ca")]))
    rollout(world, ready)


def rollout(world: Fleet, ready: int) -> None:
    """The first `ready` hosts have their copy, twenty download, four have failed, the others wait."""
    world.put(
        kinds.TEMPLATE_DEPLOYMENTS,
        fleet.deployment(desired=HOSTS, ready=ready, status={"conditions": [_CONDITION]}),
    )
    for number in range(HOSTS):
        place = (number * 7) % HOSTS
        if number in (19, 83):
            copy = fleet.copy(number, "Failed", message=_FAILURE)
        elif number in (17, 101):
            copy = fleet.copy(number, "Pending", reason="HostDown", message="the host is Down")
        elif number in (66, 120):
            after: Object = {"nextAttemptTime": "2026-12-01T12:00:00Z", "attempts": 3}
            copy = fleet.copy(number, "Pending", reason="TLSVerificationFailed", message=_TLS, **after)
        elif place < ready:
            copy = fleet.copy(number)
        elif place < ready + 20:
            copy = fleet.copy(number, "Downloading", percent=5 + 5 * (place - ready))
        else:
            copy = fleet.copy(number, "Pending", message="20 downloads run in the zone, the most that it allows")
        world.put(kinds.TEMPLATE_PLACEMENTS, copy)


_CONDITION = fleet.condition("Ready", "False", "Downloading", "copies are being downloaded")

if __name__ == "__main__":
    sys.exit(main())
