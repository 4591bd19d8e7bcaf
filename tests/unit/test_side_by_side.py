"""Parts of `make setup` run side by side: each once, in order, and one that fails ends all with its own words."""

import pathlib
import shutil
import subprocess

from tests.cluster import harness
from tests.world.waiting import until

_PREAMBLE = """
set -euo pipefail
CHECKOUT=$PWD
say() { echo "cluster: $*" >&2; }
fail() { say "error: $*"; exit 1; }
. "$1/side-by-side.sh"
EVERY=1
lock_of() { touch "$PWD/$1.lock"; echo "$PWD/$1.lock"; }
note() { echo "$1" >>"$PWD/order"; }
there_a() { [ -e a ]; }
there_b() { [ -e b ]; }
there_c() { [ -e c ]; }
make_a() { note a; touch a; }
make_b() { note b; touch b; }
make_c() { note c; touch c; }
run() { plan "$@"; [ ${#TODO[@]} = 0 ] || make_parts; }
"""


def start(place: pathlib.Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", _PREAMBLE + script, "bash", str(harness.CLUSTER_DIRECTORY)],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place: pathlib.Path, script: str) -> tuple[int, str]:
    with start(place, script) as running:
        _, said = running.communicate(timeout=60)
        return running.returncode, said


def order(place: pathlib.Path) -> list[str]:
    return (place / "order").read_text().split()


def test_a_part_comes_after_those_that_it_needs_and_is_made_once(tmp_path: pathlib.Path) -> None:
    status, said = run(tmp_path, 'AFTER=([a]="b c" [b]=c)\nrun a b\n')
    assert status == 0, said
    assert order(tmp_path) == ["c", "b", "a"]
    assert "ready after" in said
    assert all(f"{part} 0 s" in said or f"{part} 1 s" in said for part in "abc"), said


def test_it_is_silent_when_all_is_there(tmp_path: pathlib.Path) -> None:
    for name in "ab":
        (tmp_path / name).touch()
    # c is what b would need, if it were not there
    assert run(tmp_path, "AFTER=([b]=c)\nrun a b\n") == (0, "")
    assert not (tmp_path / "c").exists()


def test_parts_run_at_the_same_time(tmp_path: pathlib.Path) -> None:
    status, said = run(
        tmp_path,
        """
        make_a() { touch a; until [ -e b ]; do sleep 0.05; done; }
        make_b() { touch b; until [ -e a ]; do sleep 0.05; done; }
        run a b
        """,
    )
    assert status == 0, said


def test_one_that_fails_shows_its_output_and_ends_the_others(tmp_path: pathlib.Path) -> None:
    status, said = run(
        tmp_path,
        """
        make_a() { until [ -e begun ]; do sleep 0.05; done; echo "first word"; fail "no such package"; }
        make_b() { trap 'rm -f half' EXIT; touch half begun; sleep 600; touch b; }
        run a b
        """,
    )
    assert status == 1
    assert "part a failed" in said
    assert said.endswith("first word\ncluster: error: no such package\n"), said
    assert not (tmp_path / "half").exists()
    assert not (tmp_path / "b").exists()


def test_what_must_not_be_interrupted_is_waited_for(tmp_path: pathlib.Path) -> None:
    status, said = run(
        tmp_path,
        """
        UNINTERRUPTED=(b)
        make_a() { until [ -e begun ]; do sleep 0.05; done; fail "no"; }
        make_b() { touch begun; sleep 2; touch b; }
        run a b
        """,
    )
    assert (status, (tmp_path / "b").exists()) == (1, True), said


def test_what_claims_to_be_made_and_is_not_is_a_failure(tmp_path: pathlib.Path) -> None:
    status, said = run(tmp_path, "make_a() { :; }\nrun a\n")
    assert status == 1
    assert "part a was made, but is not as it should be" in said


def test_progress_is_said_while_a_part_runs(tmp_path: pathlib.Path) -> None:
    status, said = run(tmp_path, 'doing_a() { echo "7 of 9"; }\nmake_a() { sleep 3; touch a; }\nrun a\n')
    assert status == 0, said
    assert "cluster: a 1 s (7 of 9)" in said or "cluster: a 2 s (7 of 9)" in said


def test_a_second_caller_waits_and_makes_nothing(tmp_path: pathlib.Path) -> None:
    slow = "make_a() { note a; until [ -e go ]; do sleep 0.05; done; touch a; }\nrun a\n"
    with start(tmp_path, slow) as first:
        until("the first to be at it", lambda: (tmp_path / "order").exists())
        with start(tmp_path, slow) as second:
            assert second.stderr is not None
            assert "waiting for another run" in second.stderr.readline()
            (tmp_path / "go").touch()
            assert [second.wait(timeout=30), first.wait(timeout=30)] == [0, 0]
    assert order(tmp_path) == ["a"]


def test_an_interrupted_run_leaves_nothing_that_runs(tmp_path: pathlib.Path) -> None:
    with start(tmp_path, "make_a() { echo $BASHPID >pid; sleep 600; }\nrun a\n") as running:
        until("the part to run", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
        running.terminate()
        assert running.wait(timeout=30) == 130
    process = pathlib.Path("/proc") / (tmp_path / "pid").read_text().strip()
    until("the part to end", lambda: not process.exists())


def test_where_there_is_no_apt_get_it_lists_what_is_missing(tmp_path: pathlib.Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "awk", "cut", "dirname", "id", "paste", "readlink", "sed", "sha256sum", "sort", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(harness.CLUSTER_DIRECTORY / "tools.sh"), "packages", "go"],
        env={
            "PATH": str(programs),
            "PYTHON": "/nonexistent/python",
            "DIRECTDOWNLOAD_CLUSTER_ROOT": str(tmp_path / "root"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done
    missing, debian, elsewhere = done.stderr.splitlines()
    assert missing.startswith("cluster: missing on this machine: /nonexistent/python, python3-venv, Python.h, gcc, ")
    assert "containerd" in missing
    packages = debian.partition("apt-get install --no-install-recommends ")[2].split()
    assert {"python3-venv", "python3-dev", "gcc", "containerd", "buildah"} <= set(packages)
    assert packages == sorted(set(packages))
    assert "elsewhere" in elsewhere
    assert not (tmp_path / "root").exists()
