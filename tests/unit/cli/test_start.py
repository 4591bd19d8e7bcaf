"""Starting the program: quick, without what a command does not need, and never with a traceback."""

import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest
from tests.world import checkout

HEAVY = ("kopf", "kubernetes", "rich", "directdownload.cluster", "directdownload.controller", "directdownload.agent")
_IMPORTED = """
import json, sys
from directdownload.cli import main
try:
    main.run(json.loads(sys.argv[1]))
except SystemExit:
    pass
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]), file=sys.stderr)
"""
#: Prints what is loaded when a program opens its first connection.
_AT_THE_FIRST_CONNECTION = """
import os, sys
from directdownload.cli import main
def connects(event, _):
    if event == "socket.connect":
        print(*sys.modules, flush=True)
        os._exit(0)
sys.addaudithook(connects)
main.run(sys.argv[1:])
"""
#: `fetch` needs these after its first request, for a terminal or for a special source, if at all.
LATER = (
    *("pydantic", "pydantic_core", "directdownload.resources.base"),
    *("rich", "ssl", "email", "http.client", "tempfile", "shutil", "zipfile", "zlib", "lzma", "backports.zstd", "json"),
    *("idna", "importlib.metadata"),
    *("directdownload.download.job", "directdownload.download.sandbox", "directdownload.download.sources.nfs"),
)
#: Prints which models exist and which of them are not built when the event loop would begin.
_AT_THE_LOOP = """
import asyncio, json, pathlib, sys
from directdownload.cli import main
from directdownload.resources import base
def models(kind):
    for each in kind.__subclasses__():
        yield each
        yield from models(each)
def begin(coroutine):
    coroutine.close()
    print(json.dumps({each.__name__: each.__pydantic_complete__ for each in models(base.Model)}))
    sys.exit()
asyncio.run = begin
main.run(json.loads(sys.argv[1]))
"""


def directdownload(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = checkout.environment({"PATH": os.defpath, "HOME": "/nonexistent"}, **environment)
    command = [checkout.DIRECTDOWNLOAD, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=120, check=False)


def imported(*arguments: str) -> list[str]:
    """Which of the heavy modules are loaded after `directdownload ARGUMENTS`."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED, json.dumps(arguments), json.dumps(HEAVY)],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("job", "--help"),
        ("job", "fetch"),
        ("fetch", "--help"),
        ("fetch", "--quiet", "-o", "/nonexistent/file", "http://127.0.0.1:1/x"),
    ],
)
def test_jobs_and_fetch_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments) == []


def test_the_test_of_imports_sees_them() -> None:
    assert "directdownload.cluster" in imported("zone", "list", "--kubeconfig", "/nonexistent")


def test_the_help_of_a_command_waits_for_no_client_of_a_cluster() -> None:
    assert "kubernetes" not in imported("status", "--help")


@pytest.fixture(scope="module")
def first_connection(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The modules of `fetch` when it connects."""
    arguments = ["fetch", "http://127.0.0.1:1/x", "-o", str(tmp_path_factory.mktemp("fetch") / "x")]
    arguments += ["--checksum", "sha256:" + "0" * 64, "--allow-cidr", "127.0.0.0/8"]
    # `make coverage` measures child processes as well, and loads modules for that
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", _AT_THE_FIRST_CONNECTION, *arguments],
        env=checkout.environment(plain),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.split()


def test_the_test_of_the_first_connection_sees_modules(first_connection: list[str]) -> None:
    assert "directdownload.download.transfer.transfer" in first_connection


@pytest.mark.parametrize("module", LATER)
def test_fetch_asks_its_source_before_it_loads(first_connection: list[str], module: str) -> None:
    assert module not in first_connection


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (("controller", "--pod-name", "p", "--pod-namespace", "n", "--pool-root", "/pools"), "ObservedHost"),
        (("agent", "--node-name", "n", "--pool-root", "/pools"), "Host"),
    ],
)
def test_a_process_that_stays_builds_its_models_before_its_event_loop(
    tmp_path: pathlib.Path, arguments: tuple[str, ...], model: str
) -> None:
    job = tmp_path / "job.yaml"
    job.touch()
    arguments += ("--job-template", str(job)) if arguments[0] == "controller" else ()
    done = subprocess.run(
        [sys.executable, "-c", _AT_THE_LOOP, json.dumps(arguments)],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    built = json.loads(done.stdout)
    assert built[model]
    assert not [name for name, complete in built.items() if not complete]


def test_a_job_starts_with_0_3_seconds_of_work() -> None:
    def seconds() -> float:
        began = children_seconds()
        assert directdownload("job", "--help").returncode == 0
        return children_seconds() - began

    # Of the processor, not of the clock, and the best of some: other work on the machine makes a start no quicker.
    assert min(seconds() for _ in range(5)) < 0.3


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--version",), 0, "directdownload 0.2.0"),
        (("frobnicate",), 2, "No such command 'frobnicate'"),
        (("deploy",), 2, "Missing argument 'TEMPLATE'"),
        (("deploy", "t"), 2, "Missing option '--zone'"),
        (("deploy", "t", "--zone", "z", "--timeout", "5 minutes"), 2, "expected numbers with the units h, m, s"),
        (("zone", "list", "-o", "xml"), 2, "'xml' is not one of 'table', 'json', 'yaml', 'name'"),
        (("zone", "list", "--kubeconfig", "/nonexistent"), 3, "kubeconfig /nonexistent cannot be used: no such file"),
        (("controller",), 2, "Missing option '--pod-name'"),
        (("agent", "--node-name", "n"), 2, "Missing option '--pool-root'"),
        (("csi", "--node-name", "n"), 2, "Missing option '--pool-root'"),
        (("peer", "opener"), 2, "Missing option '--pool-root'"),
        (("csi", "--hold-seconds", "111"), 2, "111.0 is not in the range 0<=x<=110"),
    ],
)
def test_exit_status_and_message(arguments: tuple[str, ...], status: int, words: str) -> None:
    done = directdownload(*arguments)
    assert done.returncode == status, done
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_api_server_that_is_away_is_transient(tmp_path: pathlib.Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    done = directdownload("--kubeconfig", str(kubeconfig), "zone", "list")
    assert done.returncode == 1
    assert "cannot reach the API server at 127.0.0.1:1: connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plugin_calls_itself_as_it_was_called() -> None:
    command = [checkout.PLUGIN, "--help"]
    done = subprocess.run(command, env=checkout.environment(), capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("Usage: kubectl directdownload ")


def test_a_reader_that_has_enough_gets_no_complaint() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [checkout.DIRECTDOWNLOAD, "--help"],
        env=checkout.environment(),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
