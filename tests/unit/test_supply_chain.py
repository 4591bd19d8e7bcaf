"""What is installed is pinned, file by file; and the audit says clearly whether it could ask anybody."""

import json
import pathlib
import re
import tomllib
from collections.abc import Iterator

import pytest
from image import audit
from tests.world import origin
from tests.world.checkout import REPOSITORY

LOCKS = ("requirements.lock", "requirements-dev.lock")
_PINNED = re.compile(r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][^ ;]*)( ; (?P<marker>[^\\]*))?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pinned(name: str) -> dict[str, str]:
    """Version by package; fails on whatever is not one version with the digests of its files."""
    found: dict[str, str] = {}
    for line in (REPOSITORY / name).read_text().replace("\\\n", " ").splitlines():
        first, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        match = _PINNED.fullmatch(first.strip())
        assert match is not None, f"{name}: {first!r} is not one version of a package from an index"
        assert hashes, f"{name}: {first} has no digest"
        assert all(_HASH.fullmatch(each) for each in hashes), f"{name}: {first}: expected sha256 digests only"
        found[match["name"]] = match["version"]
    return found


def test_every_dependency_is_one_version_with_digests() -> None:
    product, development = (pinned(lock) for lock in LOCKS)
    assert product.items() <= development.items(), "what is tested is not what the image holds"
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[a-z0-9.-]+", each.lower())[0].replace(".", "-") for each in wanted} <= product.keys()  # type: ignore[index]


def test_the_image_and_make_install_with_digests_only() -> None:
    installs = [
        line
        for name in ("Containerfile", "tests/cluster/tools.sh")
        for line in (REPOSITORY / name).read_text().splitlines()
        if re.search(r"\bpip\b.* install ", line)
    ]
    assert len(installs) == 7
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs), installs


@pytest.fixture
def advisories(tmp_path: pathlib.Path) -> Iterator[str]:
    """An address that answers as OSV does, for any package: there is one advisory."""
    advisory = {
        "id": "PYSEC-2000-1",
        "details": "An example.",
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "idna"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
            }
        ],
    }
    answers = {"/known": json.dumps({"vulns": [advisory]}), "/nothing": "{}"}
    extra = "".join(
        f"location = {path} {{ default_type application/json; return 200 '{text}'; }}" for path, text in answers.items()
    )
    with origin.Origin(tmp_path, "127.0.0.1", extra=extra) as server:
        yield server.url("").rstrip("/")


def ask(tmp_path: pathlib.Path, *options: str) -> tuple[int, str]:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"idna==3.11 --hash=sha256:{'0' * 64}\n")
    return audit.audit(lock, ("--cache-dir", str(tmp_path / "cache"), *options))


def test_a_known_vulnerability_is_named_with_what_fixes_it(advisories: str, tmp_path: pathlib.Path) -> None:
    status, text = ask(tmp_path, "--vulnerability-service", "osv", "--osv-url", f"{advisories}/known")
    assert status == audit.VULNERABLE
    assert "idna 3.11: PYSEC-2000-1, fixed in 99.1" in text


def test_nothing_known_is_success(advisories: str, tmp_path: pathlib.Path) -> None:
    status, text = ask(tmp_path, "--vulnerability-service", "osv", "--osv-url", f"{advisories}/nothing")
    assert (status, "1 packages, no known vulnerabilities" in text) == (audit.CLEAN, True), text


@pytest.mark.parametrize("answer", ["refused", "missing"])
def test_a_service_that_does_not_answer_is_no_success(advisories: str, tmp_path: pathlib.Path, answer: str) -> None:
    address = {"refused": f"http://127.0.0.1:{origin.free_port('127.0.0.1')}/", "missing": f"{advisories}/404"}[answer]
    status, text = ask(tmp_path, "--vulnerability-service", "osv", "--osv-url", address)
    assert (status, "could not be audited" in text) == (audit.NOT_ASKED, True), text


def test_a_package_that_the_service_leaves_out_is_no_success(tmp_path: pathlib.Path) -> None:
    """pip-audit itself ends well when it has skipped everything."""
    skipped = [{"name": "idna", "skip_reason": "Dependency not found on PyPI"}]
    assert audit.verdict(tmp_path, skipped)[0] == audit.NOT_ASKED
    assert audit.verdict(tmp_path, [])[0] == audit.NOT_ASKED
