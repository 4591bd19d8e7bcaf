"""Looks for known vulnerabilities in the image's packages from PyPI. `make audit` runs it with pip-audit.

pip-audit succeeds when a service does not know a package, and prints a stack trace when a service is unreachable. Here
each outcome has its own exit status: 0 every package was looked up and none is vulnerable; 1 there are vulnerabilities;
3 not every package could be looked up, so the result is unknown.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CLEAN, VULNERABLE, NOT_ASKED = 0, 1, 3


def audit(lock: pathlib.Path, options: Sequence[str]) -> tuple[int, str]:
    """The exit status and a message; `options` go to pip-audit, such as `--vulnerability-service osv`."""
    # The lock is complete and has hashes: nothing needs to be resolved.
    fixed = ("--requirement", str(lock), "--require-hashes", "--disable-pip", "--progress-spinner", "off")
    command = [sys.executable, "-m", "pip_audit", *fixed, "--format", "json", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return NOT_ASKED, f"{lock} could not be audited: {_last_line(ended.stderr)}"
    return verdict(lock, found)


def verdict(lock: pathlib.Path, found: Sequence[dict[str, Any]]) -> tuple[int, str]:
    lines = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for each in found
        for vulnerability in each.get("vulns", ())
    ]
    skipped = [each for each in found if "skip_reason" in each]
    if lines:
        return VULNERABLE, "\n".join([f"{lock}: known vulnerabilities", *lines])
    if skipped or not found:
        names = ", ".join(each["name"] for each in skipped[:5])
        reason = skipped[0]["skip_reason"] if skipped else "it names no package"
        return NOT_ASKED, f"{lock} could not be audited: {len(skipped)} packages ({names} …) are not known: {reason}"
    return CLEAN, f"{lock}: {len(found)} packages, no known vulnerabilities"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "pip-audit printed nothing"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Look for known vulnerabilities; further options go to pip-audit. "
        "Exit status: 0 none known, 1 some, 3 lookup failed."
    )
    parser.add_argument("lock", type=pathlib.Path, help="for example requirements.lock")
    arguments, options = parser.parse_known_args()
    status, text = audit(arguments.lock, options)
    sys.stderr.write(text + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
