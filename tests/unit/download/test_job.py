"""The job verbs as the pods run them: document in, result and exit status out."""

import json
import pathlib
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from tests.unit.download.support import content, job_document, leftovers, run_job, sha256, start_job
from tests.world import checkout
from tests.world.origin import Origin

from directdownload.download import job
from directdownload.resources.jobs import RESULT_LIMIT_BYTES, JobDocument, JobResult
from directdownload.resources.reasons import Reason

DATA = content(500_000)


def run(document: dict[str, Any]) -> JobResult:
    return job.run_job(JobDocument.model_validate(document), threading.Event())


def test_fetch_prints_its_result_last_and_leaves_it_for_the_kubelet(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (served / "image").write_bytes(DATA)
    log = tmp_path / "termination-log"
    code = f"import os; os.environ['DIRECTDOWNLOAD_TERMINATION_LOG'] = {str(log)!r}"
    document = job_document(pool, url=origin.url("image"), checksum=sha256(DATA), format="RAW")
    status, result = run_job(document, code=code)
    assert (status, result.reason, result.format) == (0, Reason.DOWNLOADED, "RAW")
    assert result.seconds is not None
    assert JobResult.model_validate_json(log.read_text()) == result


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"url": "http://127.0.0.1:9/none"}, 1, Reason.SOURCE_UNREACHABLE),
        ({"url": "ftp://127.0.0.1/none"}, 3, Reason.UNSUPPORTED_PROTOCOL),
        ({"checksum": "nonsense"}, 3, Reason.INVALID_CHECKSUM),
        ({"policy": {"protocols": ["HTTPS"]}}, 3, Reason.URL_NOT_ALLOWED),
    ],
)
def test_exit_status(pool: pathlib.Path, fields: dict[str, Any], status: int, reason: Reason) -> None:
    found_status, result = run_job(job_document(pool, **fields))
    assert (found_status, result.reason) == (status, reason)
    assert result.message


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "is empty"),
        ("{", "not a job document"),
        ('{"verb": "fetch"}', "templateUid"),
        ({"version": 2}, "version 2"),
        ({"verb": "remove"}, "verb remove"),
        ({"unknown": 1}, "unknown"),
        ({"fileName": "../x"}, "fileName"),
        ({"templateUid": ".directdownload"}, "templateUid"),
        ({"host": "a/b"}, "host"),
        ({"pool": {"name": "local", "path": "relative"}}, "absolute"),
    ],
)
def test_a_bad_document_is_a_usage_error(pool: pathlib.Path, document: str | dict[str, Any], problem: str) -> None:
    text = document if isinstance(document, str) else json.dumps({**job_document(pool), **document})
    process = subprocess.run(
        [sys.executable, "-c", "import sys; from directdownload.download import job; sys.exit(job.main('fetch'))"],
        env=checkout.environment(DIRECTDOWNLOAD_JOB=text),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert problem in JobResult.model_validate_json(process.stdout).message
    (line,) = process.stderr.splitlines()
    assert " WARNING " in line
    assert problem in line


def test_a_failure_is_one_warning_with_its_object_host_reason_and_message(pool: pathlib.Path) -> None:
    document = job_document(pool, url="http://127.0.0.1:9/x")
    with start_job(document) as process:
        _, log = process.communicate(timeout=60)
    begins, ends = log.splitlines()
    subject = f"TemplatePlacement {document['placement']} on host {document['host']}: fetch of {document['fileName']}"
    assert f" INFO directdownload.download.job: {subject} begins" in begins
    assert f" WARNING directdownload.download.job: {subject}: SourceUnreachable: " in ends
    assert "refused" in ends


def test_the_unforeseen_is_a_result_too(pool: pathlib.Path) -> None:
    """It has a reason of its own, is tried again, and its traceback is in the log, without what is secret."""
    code = (
        "from directdownload.download import engine\n"
        "def fetch(request, **options):\n"
        "    raise TypeError(f'no such thing: {request.url}')\n"
        "engine.fetch = fetch"
    )
    with start_job(job_document(pool, url="http://127.0.0.1:9/x?sign=planted-4711"), code=code) as process:
        output, log = process.communicate(timeout=120)
    result = JobResult.model_validate_json(output.splitlines()[-1])
    assert (process.returncode, result.reason) == (1, Reason.INTERNAL_ERROR)
    assert result.message == "unexpected: TypeError: no such thing: http://127.0.0.1:9/x?***"
    assert "Traceback (most recent call last)" in log
    assert "in outcome" in log
    assert "planted-4711" not in log + output


def test_the_unforeseen_in_the_process_for_foreign_bytes_is_a_result_too(pool: pathlib.Path) -> None:
    (pool / "headers").mkdir()
    (pool / "headers" / "X-Token").write_text("planted-token-4711")
    code = (
        "from directdownload.download import gathering\n"
        "def run(self):\n"
        "    raise LookupError(f'defective: {self._request.headers}')\n"
        "gathering.Gathering.run = run"
    )
    document = job_document(pool, url="http://127.0.0.1:9/x", headersDirectory=str(pool / "headers"))
    with start_job(document, code=code) as process:
        output, log = process.communicate(timeout=120)
    result = JobResult.model_validate_json(output.splitlines()[-1])
    assert (process.returncode, result.reason) == (1, Reason.INTERNAL_ERROR)
    assert result.message == "unexpected: LookupError: defective: (('X-Token', '***'),)"
    assert "Traceback (most recent call last)" in log
    assert "planted-token-4711" not in log + output


def test_the_result_is_short_enough_for_the_kubelet(pool: pathlib.Path) -> None:
    result = run(job_document(pool, url="ftp://" + "\u00e9" * 5000 + "/" + "x" * 5000))
    assert len(result.to_message().encode()) <= RESULT_LIMIT_BYTES


def test_a_sigterm_before_any_source_answers(pool: pathlib.Path) -> None:
    code = (
        "import socket, sys, time\n"
        "def hang(*arguments, **options):\n"
        "    print('it hangs', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "socket.getaddrinfo = hang"
    )
    with start_job(job_document(pool, url="http://example.org/x"), code=code) as process:
        assert process.stderr is not None
        while "it hangs" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert JobResult.model_validate_json(output).reason is Reason.INTERRUPTED
    assert leftovers(pool) == set()


def test_a_job_imports_nothing_heavy() -> None:
    script = (
        "import sys\nimport directdownload.cli.pods\nimport directdownload.download.job\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'kopf', 'kubernetes', 'aiohttp', 'rich', 'asyncio', 'cryptography', 'prometheus_client'}))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == "[]"


def test_a_job_logs_as_it_is_told_and_about_its_placement(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRECTDOWNLOAD_LOG_FORMAT", "json")
    with start_job(job_document(pool)) as process:
        output, errors = process.communicate(timeout=120)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning"]
    for line in lines:
        assert line["object"] == {"kind": "TemplatePlacement", "name": "debian-13-0123456789"}
        assert (line["host"], line["pool"], line["template_uid"]) == ("kvm-1", "local", "uid-1")
    assert lines[1]["reason"] == JobResult.model_validate_json(output).reason
    monkeypatch.setenv("DIRECTDOWNLOAD_LOG_LEVEL", "error")
    with start_job(job_document(pool)) as process:
        assert process.communicate(timeout=120)[1] == ""
    monkeypatch.setenv("DIRECTDOWNLOAD_LOG_LEVEL", "loud")
    with start_job(job_document(pool)) as process:
        assert "loud" in JobResult.model_validate_json(process.communicate(timeout=120)[0]).message
    assert process.returncode == 2
