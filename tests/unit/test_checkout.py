"""Tests start programs of the checkout that they lie in."""

import pathlib
import subprocess
import sys

import pytest
from tests.world import checkout


@pytest.mark.parametrize("module", ["directdownload", "tests.world.checkout"])
def test_a_program_imports_from_this_checkout(module: str, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module} as found; print(found.__file__)"],
        env=checkout.environment({"PYTHONPATH": "/nonexistent"}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.startswith(f"{checkout.REPOSITORY}/")
