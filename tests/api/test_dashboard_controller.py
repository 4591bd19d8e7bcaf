"""The dashboard beside the real controller and simulated agents: what they write is what the pages read."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from tests.cluster import harness
from tests.world import dashboard_process as processes
from tests.world.certificates import pem
from tests.world.dashboard_process import Dashboard
from tests.world.simulation import Simulation

from directdownload.cluster import kinds

HOSTS = 3
_LATE_MILLISECONDS = 120_000


@pytest.fixture
def world(own: harness.ControlPlane) -> Iterator[Simulation]:
    with Simulation(own, "pages", agents=True) as found:
        yield found


def follow(page: Page, address: str) -> None:
    page.goto(address)
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    return bool(page.evaluate("window.stayed === true"))


def test_a_rollout_a_host_that_goes_down_and_a_revoked_certificate(world: Simulation) -> None:
    world.create_zone()
    hosts = [world.add_host(f"host-{number}") for number in range(HOSTS)]
    world.start_controller()
    world.create_template()
    name = world.create_certificate("my-ca", pem("my-ca"))
    kubeconfig = world.control_plane.kubeconfig()
    with (
        processes.chromium() as browser,
        Dashboard(kubeconfig) as dashboard,
        processes.entered(browser, dashboard) as page,
    ):
        expect(page.locator(".tile").first).to_contain_text(str(HOSTS), timeout=_LATE_MILLISECONDS)
        follow(page, f"{dashboard.origin}/rollouts")
        world.deploy()
        expect(page.locator("main")).to_contain_text("✓ Ready", timeout=_LATE_MILLISECONDS)
        expect(page.locator("main")).to_contain_text(f"{HOSTS} of {HOSTS}")
        assert stayed(page)
        page.goto(f"{dashboard.origin}/rollouts/{world.namespace}/everywhere")
        expect(page.locator("#map .done")).to_have_count(HOSTS)
        follow(page, f"{dashboard.origin}/certificates/{name}")
        proved = page.locator('[data-part="summary"]')
        expect(proved).to_contain_text(f"{HOSTS} of {HOSTS} hosts proved it", timeout=_LATE_MILLISECONDS)
        expect(page.locator("#map .done")).to_have_count(HOSTS)
        with world.kube() as kube:
            kube.patch(kinds.CERTIFICATES, name, {"spec": {"revoked": True}}).object()
        cell = page.locator("#map a").first
        expect(cell).to_have_attribute("aria-label", f"{hosts[0]}: Revoked", timeout=_LATE_MILLISECONDS)
        assert stayed(page)
        follow(page, f"{dashboard.origin}/hosts/{hosts[1]}")
        expect(page.locator('[data-part="copies"]')).to_contain_text("Ready")
        expect(page.locator('[data-part="keystore"]')).to_contain_text("Revoked", timeout=_LATE_MILLISECONDS)
        world.power_off(hosts[1])
        expect(page.locator('[data-part="facts"]')).to_contain_text("Down", timeout=_LATE_MILLISECONDS)
        assert stayed(page)
        page.goto(dashboard.origin)
        assert page.locator(".notes").count() == 0, page.locator(".notes").inner_text()
