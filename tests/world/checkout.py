"""This checkout: where its files are, and its programs as tests start them.

A virtual environment may have been installed from another checkout, as git worktrees share one. A process that a test
starts with `environment` imports the product and the tests from this checkout all the same.
"""

import os
import pathlib
import sys
from collections.abc import Mapping

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "direct-download-operator"
CRDS = REPOSITORY / "crds"
#: Where pip has put the programs of the product.
PROGRAMS = pathlib.Path(sys.executable).parent
DIRECTDOWNLOAD = str(PROGRAMS / "directdownload")
PLUGIN = str(PROGRAMS / "kubectl-directdownload")


def environment(given: Mapping[str, str] = os.environ, /, **variables: str) -> dict[str, str]:
    """`given`, by default this process's environment, with `variables`; Python imports from this checkout first."""
    found = {**given, **variables}
    path = (str(REPOSITORY / "operator"), str(REPOSITORY), found.get("PYTHONPATH", ""))
    return {**found, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def pod_environment(home: pathlib.Path, kubeconfig: pathlib.Path, **variables: str) -> dict[str, str]:
    """For a program that runs as in a pod: PATH and `variables` alone; the way to the API server is a kubeconfig."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(kubeconfig)}
    return environment(bare, **variables)
