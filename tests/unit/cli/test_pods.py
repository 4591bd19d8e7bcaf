"""Pods that are deleted while they start: the first process of a container, as `unshare --pid` makes one."""

import os
import signal
import subprocess
import sys

import pytest
from tests.world import checkout

#: The program is one that is never loaded.
_CODE = """
import sys, time, types

def main(settings):
    print(*open("/proc/self/stat").read().split()[:1], flush=True)
    time.sleep(60)

command = sys.argv[1]
sys.modules[f"directdownload.{command}.main"] = types.SimpleNamespace(main=main, opener=main, server=main)
from directdownload.cli.main import cli
cli.main(args=sys.argv[1:])
"""
_POD = ("--pod-name=pod", "--pod-namespace=operator", "--pool-root=/var/lib/libvirt/images")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("controller", (*_POD, f"--job-template={__file__}")),
        ("agent", (*_POD, "--node-name=kvm-1")),
        ("csi", ("--pool-root=/var/lib/libvirt/images", "--node-name=kvm-1")),
        ("peer", ("opener", "--pool-root=/var/lib/libvirt/images")),
        ("peer", ("server",)),
    ],
)
def test_a_container_that_is_asked_to_end_while_it_starts_ends_at_once(
    command: str, arguments: tuple[str, ...]
) -> None:
    first = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", _CODE]
    with subprocess.Popen(
        [*first, command, *arguments], env=checkout.environment(), stdout=subprocess.PIPE, text=True
    ) as outside:
        assert outside.stdout is not None
        try:
            process = int(outside.stdout.readline())
            os.kill(process, signal.SIGTERM)
            assert outside.wait(timeout=120) == 0
        finally:
            outside.kill()
