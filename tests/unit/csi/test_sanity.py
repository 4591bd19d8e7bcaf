"""csi-sanity, the conformance tests of the Kubernetes CSI project, against the plugin on its socket.

It can ask for volumes only of a controller service, which this plugin does not have: the one node test that calls
CreateVolume is left out, beside those of the controller. It skips by itself what the plugin does not claim to do.
"""

import asyncio
import pathlib
import re
import subprocess

from tests.cluster import harness
from tests.world import private_mounts
from tests.world.csi_world import Agent, Host

from directdownload.csi.publishing import Publishing
from directdownload.csi.reports import Reports
from directdownload.csi.server import Server
from directdownload.resources import volumes
from directdownload.resources.volumes import Answer

_NEEDS_CREATE_VOLUME = "should remove target path"
_SKIPPED = f"Controller.Server|{_NEEDS_CREATE_VOLUME}"


def program() -> pathlib.Path:
    subprocess.run([str(harness.CLUSTER_DIRECTORY / "tools.sh"), "sanity"], check=True)
    return harness.state_root() / "bin" / "csi-sanity"


@private_mounts.alone
async def test_the_node_specs_of_csi_sanity_pass(host: Host) -> None:
    agent = Agent(lambda asked: host.ready() if isinstance(asked, volumes.Publish) else Answer())
    settings = host.settings()
    reports = Reports(settings.agent_socket, settings.pods, settings.mounted_interval_seconds)
    server = Server(settings, Publishing(settings, reports))
    parameters = host.directory / "parameters.yaml"
    parameters.write_text("template: debian-13\n")
    async with agent.serving(host.agent_socket):
        await server.start()
        try:
            process = await asyncio.create_subprocess_exec(
                program(),
                *("--csi.endpoint", f"unix://{settings.socket}"),
                *("--csi.mountdir", f"{settings.pods}/sanity"),
                *("--csi.stagingdir", str(host.directory / "staging")),
                *("--csi.testvolumeparameters", str(parameters)),
                *("--ginkgo.skip", _SKIPPED, "--ginkgo.no-color"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            output, _ = await process.communicate()
        finally:
            await server.close()
    text = output.decode()
    assert process.returncode == 0, text
    passed = re.search(r"(\d+) Passed \| 0 Failed", text)
    assert passed is not None, text
    assert int(passed[1]) >= 10, text
