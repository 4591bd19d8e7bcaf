"""The controller's process: when it leads."""

import asyncio
import pathlib

import yaml
from tests.world.api import FakeApi
from tests.world.controllers import JOB_TEMPLATE

from directdownload.cluster import lease
from directdownload.controller import main
from directdownload.controller.settings import Settings


class Election(lease.LeaderElection):
    """Whose Lease is held as long as the test says."""

    held = True

    @property
    def is_leader(self) -> bool:
        return self.held


async def test_a_controller_leads_until_it_finishes_or_the_lease_is_not_certain(tmp_path: pathlib.Path) -> None:
    template = tmp_path / "job.yaml"
    template.write_text(yaml.safe_dump(JOB_TEMPLATE))
    api = FakeApi()
    election = Election(api, "system", "lease", "controller-a")
    controller = main.Controller(api, Settings("system", "controller-a", template, ()), asyncio.Event(), election)
    assert controller.leads()
    election.held = False
    assert not controller.leads()
    election.held = True
    await controller.finish()
    assert not controller.leads()
