"""`directdownload fetch` and `directdownload job` as processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from tests.origin import Origin
from tests.unit.download.support import content, job_document, sha256, wait_for

DATA = content(400_000)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from directdownload.cli.main import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with start(*arguments, **environment) as process:
        output, errors = process.communicate(timeout=40)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture
def url(origin: Origin, served: pathlib.Path) -> str:
    (served / "image").write_bytes(DATA)
    return origin.url("image")


def test_a_file_and_nothing_beside_it(url: str, pool: pathlib.Path) -> None:
    process = run("fetch", url, "-o", str(pool / "out.img"), "--checksum", sha256(DATA), "--json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["reason"] == "Downloaded"
    assert (result["path"], result["sizeBytes"]) == (str(pool / "out.img"), len(DATA))
    assert result["digest"] == sha256(DATA)
    assert (pool / "out.img").read_bytes() == DATA
    assert os.listdir(pool) == ["out.img"]
    mask = os.umask(0)
    os.umask(mask)
    assert (pool / "out.img").stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_second_run_finds_it_by_its_checksum(url: str, origin: Origin, pool: pathlib.Path) -> None:
    (pool / "out.img").write_bytes(DATA)
    process = run("fetch", url, "-o", str(pool / "out.img"), "--checksum", sha256(DATA), "--quiet", "--json")
    assert json.loads(process.stdout)["reason"] == "AlreadyPresent"
    assert process.stderr == ""
    assert origin.requests() == []


def test_without_a_checksum_it_is_fetched_again(url: str, pool: pathlib.Path) -> None:
    (pool / "out.img").write_bytes(b"old")
    process = run("fetch", url, "-o", str(pool / "out.img"), "--quiet")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert (pool / "out.img").read_bytes() == DATA


def test_options_reach_the_engine(origin: Origin, url: str, served: pathlib.Path, pool: pathlib.Path) -> None:
    with Origin(served, tls=True) as secure:
        process = run(
            *("fetch", secure.url("image"), "-o", str(pool / "out"), "--ca", str(secure.certificate)),
            *("--header", "X-Token: secret", "--connect-timeout", "3s", "--socket-timeout", "3s"),
            *("--limit-rate", "10Mi", "--deadline", "1h", "--format", "qcow2", "--mirror", url),
        )
        assert process.returncode == 0, process.stderr
        assert "Downloaded" in process.stderr
        assert [entry.token for entry in secure.wait_for_requests(1)] == ["secret"]


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--checksum", "sha256:" + "0" * 64], 3, "ChecksumMismatch"),
        (["--checksum", "nonsense"], 3, "InvalidChecksum"),
        (["--socket-timeout", "5"], 2, "not a duration"),
        (["--limit-rate", "fast"], 2, "not a quantity"),
        (["--header", "no-colon-secret"], 2, "well-formed"),
        (["--header", "X: a\r\nY: secret"], 2, "well-formed"),
        (["--ca", "/nonexistent"], 2, "does not exist"),
    ],
)
def test_exit_status(url: str, pool: pathlib.Path, arguments: list[str], status: int, word: str) -> None:
    process = run("fetch", url, "-o", str(pool / "out"), *arguments)
    assert process.returncode == status
    assert word in process.stderr
    assert "secret" not in process.stderr
    assert os.listdir(pool) == []


def test_an_unreachable_source_is_worth_another_attempt(pool: pathlib.Path) -> None:
    process = run("fetch", "http://127.0.0.1:9/none", "-o", str(pool / "out"), "--json")
    assert process.returncode == 1
    assert json.loads(process.stdout.splitlines()[-1])["reason"] == "SourceUnreachable"


def test_an_interrupted_run_is_continued(served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    with Origin(served, rate=200_000) as origin:
        arguments = ("fetch", origin.url("image"), "-o", str(pool / "out"), "--json")
        with start(*arguments) as process:
            wait_for(lambda: (pool / ".out.part").exists() and (pool / ".out.part").stat().st_size > 100_000)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=10)
        assert process.returncode == 1
        assert json.loads(output.splitlines()[-1])["reason"] == "Interrupted"
        assert sorted(os.listdir(pool)) == [".out.journal", ".out.part"]
        second = run(*arguments)
    assert json.loads(second.stdout.splitlines()[-1])["resumedFrom"] > 100_000
    assert os.listdir(pool) == ["out"]
    assert (pool / "out").read_bytes() == DATA


@pytest.mark.parametrize("verb", ["fetch", "verify", "remove"])
def test_the_job_verbs(url: str, pool: pathlib.Path, verb: str) -> None:
    (pool / "uid-1").write_bytes(DATA)
    document = job_document(pool, verb, url=url, checksum=sha256(DATA))
    process = run("job", verb, DIRECTDOWNLOAD_JOB=json.dumps(document))
    assert process.returncode == 0, process.stderr
    expected = {"fetch": "AlreadyPresent", "verify": "Verified", "remove": "Removed"}
    assert json.loads(process.stdout)["reason"] == expected[verb]
