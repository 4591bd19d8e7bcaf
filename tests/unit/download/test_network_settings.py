"""Proxies and address ranges as a user gives them: to the command and, through its environment, to a job."""

import json
import pathlib
import subprocess
import sys

import pytest
from tests.unit.download.support import content, job_document
from tests.world import checkout
from tests.world.http import HostileServer, answer

DATA = content(400_000)


def run(*arguments: str, **environment: str) -> tuple[int, dict[str, object], str]:
    """Exit status, result and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-c", "from directdownload.cli.main import main; main()", *arguments],
        env=checkout.environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_this_machine_is_not_fetched_from_unless_it_is_allowed(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as server:
        command = ("fetch", server.url(), "-o", str(pool / "out"), "--json")
        status, result, _ = run(*command)
        assert (status, result["reason"]) == (3, "URLNotAllowed")
        assert "--allow-cidr" in str(result["message"])
        assert server.received == []
        assert not (pool / "out").exists()
        status, result, _ = run(*command, "--allow-cidr", "10.0.0.0/8", "--allow-cidr", "127.0.0.1")
        assert (status, result["reason"]) == (0, "Downloaded")
    assert (pool / "out").read_bytes() == DATA


@pytest.mark.parametrize("verb", ["command", "job"])
def test_the_proxy_of_the_environment_is_used_and_its_password_is_never_printed(pool: pathlib.Path, verb: str) -> None:
    url = "http://images.invalid/file"
    with HostileServer(lambda c, r, n: answer(c, DATA)) as proxy:
        environment = {"http_proxy": f"http://user:s3cret@127.0.0.1:{proxy.port}", "NO_PROXY": "other.invalid"}
        if verb == "job":
            document = job_document(pool, url=url, policy={}, format="RAW")
            environment["DIRECTDOWNLOAD_JOB"] = json.dumps(document)
            status, result, printed = run("job", "fetch", **environment)
        else:
            status, result, printed = run("fetch", url, "-o", str(pool / "uid-1"), "--json", **environment)
    assert (status, result["reason"]) == (0, "Downloaded")
    assert (pool / "uid-1").read_bytes() == DATA
    assert {request.target for request in proxy.received} == {url}
    assert "s3cret" not in printed


def test_a_zone_that_requires_direct_connections_ignores_the_proxy(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as proxy:
        policy = {"requireDirect": True}
        document = job_document(pool, url="http://images.invalid/file", policy=policy, format="RAW")
        environment = {"http_proxy": f"http://127.0.0.1:{proxy.port}", "DIRECTDOWNLOAD_JOB": json.dumps(document)}
        status, result, _ = run("job", "fetch", **environment)
    assert (status, result["reason"]) in [(1, "SourceUnreachable"), (1, "ConnectTimeout")]
    assert proxy.received == []
