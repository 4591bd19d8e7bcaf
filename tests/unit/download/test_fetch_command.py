"""`directdownload fetch` and `directdownload job` as processes."""

import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from tests.unit.download.support import content, job_document, sha256
from tests.world import checkout
from tests.world.http import HostileServer, Received, answer
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.cli.fetch import _Limits, _Policy
from directdownload.resources.jobs import Limits
from directdownload.resources.zone import SourcePolicy

DATA = content(400_000)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    if arguments[0] == "fetch":
        arguments += ("--allow-cidr", "127.0.0.0/8")
    return subprocess.Popen(
        [sys.executable, "-c", "from directdownload.cli.main import main; main()", *arguments],
        env=checkout.environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with start(*arguments, **environment) as process:
        output, errors = process.communicate(timeout=120)
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
            *("--limit-rate", "10Mi", "--minimum-rate", "64Ki", "--deadline", "1h"),
            *("--format", "raw", "--mirror", url),
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
        (["--minimum-rate", "slow"], 2, "not a quantity"),
        (["--header", "no-colon-secret"], 2, "well-formed"),
        (["--header", "X: a\r\nY: secret"], 2, "visible ASCII"),
        (["--header", "Range: secret"], 2, "sets this header itself"),
        (["--ca", "/nonexistent"], 2, "does not exist"),
        (["--allow-cidr", "10.0.0.0/33"], 2, "10.0.0.0/33"),
        (["--nfs-export", "nfs://nas/export"], 2, "for example nfs.example.org:/export/templates"),
    ],
)
def test_exit_status(url: str, pool: pathlib.Path, arguments: list[str], status: int, word: str) -> None:
    process = run("fetch", url, "-o", str(pool / "out"), *arguments)
    assert process.returncode == status
    assert word in process.stderr
    assert "secret" not in process.stderr
    assert os.listdir(pool) == []


@pytest.mark.parametrize(
    "text",
    ["http://[foo/x?sig=abcdefgh", "http://127.0.0.1:1/x?sig=" + 6 * "\udcff" + "ab", "http://h h/?sig=größer_x"],
)
def test_a_malformed_url_with_a_query_is_told(pool: pathlib.Path, text: str) -> None:
    process = run("fetch", text, "-o", str(pool / "out"), "--json", "--quiet")
    assert (process.returncode, json.loads(process.stdout)["reason"]) == (3, "InvalidURL")
    assert "sig=" not in process.stdout + process.stderr


@pytest.mark.parametrize(
    ("exports", "reason"),
    [
        # nobody listens there
        ([], "SourceUnreachable"),
        (["127.0.0.1:9:/export"], "SourceUnreachable"),
        (["127.0.0.1:9:/export", "nas:/export"], "SourceUnreachable"),
        (["127.0.0.1:9:/other"], "URLNotAllowed"),
        # more than a Zone may name
        ([f"nas:/export/{number}" for number in range(40)], "URLNotAllowed"),
    ],
)
@pytest.mark.parametrize("probe", [[], ["--probe"]])
def test_every_nfs_export_unless_some_are_named(
    pool: pathlib.Path, exports: list[str], reason: str, probe: list[str]
) -> None:
    options = [argument for export in exports for argument in ("--nfs-export", export)]
    process = run("fetch", "nfs://127.0.0.1:9/export/x", "-o", str(pool / "out"), "--json", *options, *probe)
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["reason"] == reason
    assert ('--nfs-export the line - "127.0.0.1:9:/export"' in result["message"]) is (reason == "URLNotAllowed")


def test_an_unreachable_source_is_worth_another_attempt(pool: pathlib.Path) -> None:
    process = run("fetch", "http://127.0.0.1:9/none", "-o", str(pool / "out"), "--json")
    assert process.returncode == 1
    assert json.loads(process.stdout.splitlines()[-1])["reason"] == "SourceUnreachable"


def test_an_interrupted_run_is_continued(served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    with Origin(served, rate=200_000) as origin:
        arguments = ("fetch", origin.url("image"), "-o", str(pool / "out"), "--json")
        with start(*arguments) as process:
            closely(
                "half of it is there",
                lambda: (pool / ".out.part").exists() and (pool / ".out.part").read_bytes()[:100_001] == DATA[:100_001],
            )
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert json.loads(output.splitlines()[-1])["reason"] == "Interrupted"
        assert sorted(os.listdir(pool)) == [".out.journal", ".out.part"]
        second = run(*arguments)
    assert json.loads(second.stdout.splitlines()[-1])["resumedFrom"] > 100_000
    assert os.listdir(pool) == ["out"]
    assert (pool / "out").read_bytes() == DATA


def test_https_with_several_connections(served: pathlib.Path, pool: pathlib.Path) -> None:
    large = content(40 * 1024 * 1024)
    (served / "image").write_bytes(large)
    with Origin(served, tls=True, rate=8 * 1024 * 1024) as secure:
        process = run(
            *("fetch", secure.url("image"), "-o", str(pool / "out"), "--ca", str(secure.certificate)),
            *("--connections", "4", "--checksum", sha256(large), "--json", "--quiet"),
        )
        assert (process.returncode, process.stderr) == (0, "")
        ranges = [request.range for request in secure.requests()]
    result = json.loads(process.stdout)
    assert (result["reason"], result["sizeBytes"], result["digest"]) == ("Downloaded", len(large), sha256(large))
    assert len([asked for asked in ranges if asked]) >= 3, "the first one asks for everything, the others for ranges"
    assert (pool / "out").read_bytes() == large
    assert os.listdir(pool) == ["out"]


def test_a_metalink_with_a_dead_first_mirror(
    origin: Origin, served: pathlib.Path, url: str, pool: pathlib.Path
) -> None:
    (served / "image.meta4").write_text(
        f'<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="image"><size>{len(DATA)}</size>'
        f'<hash type="sha-256">{hashlib.sha256(DATA).hexdigest()}</hash>'
        f'<url priority="1">http://127.0.0.1:9/image</url><url priority="2">{url}</url></file></metalink>'
    )
    process = run("fetch", origin.url("image.meta4"), "-o", str(pool / "out"), "--json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert (result["reason"], result["source"], result["digest"]) == ("Downloaded", url, sha256(DATA))
    assert (pool / "out").read_bytes() == DATA
    assert os.listdir(pool) == ["out"]


@pytest.mark.parametrize("image_format", ["raw", None])
def test_an_archive_is_unpacked_where_a_format_is_named(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, image_format: str | None
) -> None:
    archive = gzip.compress(DATA)
    (served / "image.gz").write_bytes(archive)
    named = ("--format", image_format) if image_format else ()
    process = run(
        *("fetch", origin.url("image.gz"), "-o", str(pool / "out"), "--checksum", sha256(archive), "--json", *named)
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert (result["reason"], result["digest"]) == ("Downloaded", sha256(archive))
    if image_format:
        assert (result["sizeBytes"], result["servedBytes"], result["format"]) == (len(DATA), len(archive), "RAW")
        assert (pool / "out").read_bytes() == DATA
    else:
        assert (result["sizeBytes"], result.get("servedBytes")) == (len(archive), None)
        assert (pool / "out").read_bytes() == archive
    assert os.listdir(pool) == ["out"]


def test_what_is_odd_is_printed_and_does_no_harm(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.gz").write_bytes(gzip.compress(DATA + b"x") + b"signature")
    process = run("fetch", origin.url("image.gz"), "-o", str(pool / "out"), "--format", "raw", "--quiet", "--json")
    assert process.returncode == 0
    notes = ("9 bytes behind the end of the gz archive are ignored", f"its size, {len(DATA) + 1} bytes, is no multiple")
    lines = process.stderr.splitlines()
    assert len(lines) == len(notes)
    for note, line in zip(notes, lines, strict=True):
        assert note in line
        assert note in json.loads(process.stdout)["message"]


def test_a_probe_says_what_there_is_for_people(url: str, pool: pathlib.Path) -> None:
    process = run("fetch", url, "--probe")
    assert (process.returncode, process.stdout) == (0, "")
    assert "SourceReachable" in process.stderr
    assert f"bytes: {len(DATA)}" in process.stderr
    assert "ranges: yes" in process.stderr
    assert os.listdir(pool) == []


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [(["--probe"], 3, "SourceRefused"), ([], 2, "-o"), (["-o", "out", "--connections", "9"], 2, "9")],
)
def test_what_cannot_be(origin: Origin, arguments: list[str], status: int, word: str) -> None:
    process = run("fetch", origin.url("none"), *arguments)
    assert process.returncode == status
    assert word in process.stderr


@pytest.mark.parametrize("verb", ["fetch", "verify", "remove"])
def test_the_job_verbs(url: str, pool: pathlib.Path, verb: str) -> None:
    (pool / "uid-1").write_bytes(DATA)
    document = job_document(pool, verb, url=url, checksum=sha256(DATA))
    process = run("job", verb, DIRECTDOWNLOAD_JOB=json.dumps(document))
    assert process.returncode == 0, process.stderr
    expected = {"fetch": "AlreadyPresent", "verify": "Verified", "remove": "Removed"}
    assert json.loads(process.stdout)["reason"] == expected[verb]


def test_off_a_terminal_progress_is_lines(url: str, pool: pathlib.Path) -> None:
    process = run("fetch", url, "-o", str(pool / "out"), "--limit-rate", "100k")
    lines = process.stderr.splitlines()
    assert process.returncode == 0, process.stderr
    assert len(lines) >= 4
    told = [
        re.fullmatch(r"(\d+) %  \S+ \w+ / 390\.6 KiB(  \S+ [KM]?i?B/s(  ETA \d+ s)?)?", line) for line in lines[:-1]
    ]
    assert all(told), lines
    assert any(match and match[3] for match in told), lines
    tenths = [int(match[1]) // 10 for match in told if match]
    assert tenths == sorted(tenths)
    assert lines[-1].startswith("Downloaded: ")


def test_on_a_terminal_it_is_a_bar(pool: pathlib.Path) -> None:
    """The source drips until the bar is seen, however slow this machine is."""
    seen = threading.Event()

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", length=len(DATA))
        for start in range(0, len(DATA), 1000):
            connection.sendall(DATA[start : start + 1000])
            seen.wait(0.05)

    master, slave = pty.openpty()
    os.set_blocking(master, True)
    with HostileServer(respond) as server:
        fetch = ["fetch", server.url(), "-o", str(pool / "out"), "--connections", "1", "--allow-cidr", "127.0.0.0/8"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from directdownload.cli.main import main; main()", *fetch],
            env=checkout.environment(TERM="xterm", COLUMNS="120"),
            stdout=subprocess.DEVNULL,
            stderr=slave,
        )
        os.close(slave)
        shown = b""
        try:
            while chunk := os.read(master, 65536):
                shown += chunk
                text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="ignore"))
                if re.search(r"━+ +\d+ % +\S+ \w+ / 390\.6 KiB +\S+ [KM]?i?B/s +ETA \d+ s", text):
                    seen.set()
        except OSError:
            pass  # what a terminal says whose last user is gone
        finally:
            os.close(master)
            bar = seen.is_set()
            seen.set()
    assert process.wait(timeout=120) == 0
    assert bar, shown.decode()


def test_what_has_no_option_is_as_in_a_zone_that_says_nothing() -> None:
    """The command has its own types, which load at once; their defaults are written twice."""
    own_policy, own_limits = _Policy((), None), _Limits(0, 0, 0, 0)
    policy = SourcePolicy(nfs_exports=None, nfs_user=None)
    limits = Limits()
    assert dataclasses.asdict(own_policy) == {name: getattr(policy, name) for name in type(policy).model_fields}
    assert dataclasses.asdict(own_limits) == {name: getattr(limits, name) for name in dataclasses.asdict(own_limits)}
