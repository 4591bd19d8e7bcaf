"""Files made from the code: `make crds` and `make docs` write them, `make lint` checks that they are current.

The command line that the generators share: `crd`, `reference`, `metrics_reference` and the chart's values.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence


def main(
    arguments: Sequence[str], render: Callable[[pathlib.Path], Mapping[pathlib.Path, str]], *, place: str, command: str
) -> int:
    """`PLACE [--check]`: writes the files that `render` makes for the place, or names the stale ones; the exit status.

    `place` names the argument, `command` the command that makes the files anew. A ValueError of `render` is the user's:
    2.
    """
    parser = argparse.ArgumentParser(description="Write what is made from the code, or check that it is current.")
    parser.add_argument("place", type=pathlib.Path, help=place)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something is stale")
    options = parser.parse_args(arguments)
    try:
        files = render(options.place)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not options.check:
        for path, text in files.items():
            path.write_text(text)
        return 0
    stale = [str(path) for path, text in files.items() if not path.exists() or path.read_text() != text]
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `{command}`\n")
    return 1 if stale else 0
