"""Makes docs/images/terminal.svg: a terminal with a rollout on the local cluster, by real commands.

Run as root, from the checkout: `python -m tests.demo.capture`. Only the three comments in the picture are written by
hand; of the live display it keeps a frame from the middle and the last one.
"""

import contextlib
import fcntl
import io
import os
import pathlib
import pty
import re
import struct
import subprocess
import tempfile
import termios

import rich.console
import rich.terminal_theme
import rich.text
from tests.cluster import harness
from tests.demo import image
from tests.world import checkout
from tests.world import cluster as clusters
from tests.world.checkout import REPOSITORY
from tests.world.cluster import Cluster
from tests.world.origin import Origin
from tests.world.waiting import until

PICTURE = REPOSITORY / "docs" / "images" / "terminal.svg"
COLUMNS, LINES = 116, 40
SIZE_BYTES = 256 << 20
_TEMPLATE = "debian-13"
#: The start of the next frame of a live display: back to the first line of the previous one, each line cleared.
_REDRAW = re.compile(r"\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
_CURSOR = re.compile(r"\x1b\[\?25[lh]")
_TOTAL_PERCENT = re.compile(r"^\s*total\b.*?(\d+) %", re.M)
#: rich's own format names web fonts, which a picture may not fetch.
_FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" class="rich-terminal" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-family: system-ui, 'DejaVu Sans', sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Terminal:
    """Runs commands as in a terminal, and keeps the screen's content."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._console = rich.console.Console(
            record=True,
            width=COLUMNS,
            file=io.StringIO(),
            force_terminal=True,
            color_system="truecolor",
            highlight=False,
        )

    def comment(self, text: str) -> None:
        self._console.print(f"# {text}", style="grey62", markup=False)

    def show(self, text: str) -> None:
        for line in text.replace("\r\n", "\n").strip("\n").splitlines():
            self._console.print(rich.text.Text.from_ansi(line), no_wrap=True, overflow="crop", crop=True)

    def prompt(self, command: str) -> None:
        self._console.print(f"$ {command}", style="bold", markup=False)

    def gap(self) -> None:
        self._console.print()

    def run(self, command: str) -> str:
        """The output of `command` to a terminal, with its control sequences."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        with os.fdopen(ours, "rb", buffering=0) as output:
            process = subprocess.Popen(
                ["bash", "-c", command],
                env=self._environment,
                cwd=REPOSITORY,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
            )
            os.close(theirs)
            pieces: list[bytes] = []
            # Reading after the end of a terminal's output is an error.
            with contextlib.suppress(OSError):
                while piece := output.read(65536):
                    pieces.append(piece)
            if process.wait() != 0:
                raise RuntimeError(f"{command} ended with {process.returncode}: {b''.join(pieces).decode()}")
        return b"".join(pieces).decode()

    def save(self, path: pathlib.Path, title: str) -> None:
        theme = rich.terminal_theme.MONOKAI
        text = self._console.export_svg(
            title=title, theme=theme, code_format=_FORMAT, unique_id="terminal", clear=False
        )
        path.write_text(text)


def frames(output: str) -> list[str]:
    """The frames of a live display in order; the last one includes the output after it."""
    return [frame for frame in _REDRAW.split(_CURSOR.sub("", output)) if frame.strip()]


def middle(shown: list[str]) -> str:
    """The frame whose total is nearest to the middle."""

    def distance(frame: str) -> float:
        found = _TOTAL_PERCENT.search(re.sub(r"\x1b\[[0-9;]*m", "", frame))
        return abs(int(found[1]) - 55) if found else 100

    return min(shown, key=distance)


def play(cluster: Cluster, directory: pathlib.Path) -> Terminal:
    """`cluster` has the operator, a zone of three hosts with a limit, and a pool."""
    served = directory / "served"
    served.mkdir()
    directory.chmod(0o755)
    programs = f"{checkout.PROGRAMS}:{harness.state_root() / 'bin'}"
    path = f"{programs}:{os.environ['PATH']}"
    terminal = Terminal(checkout.environment(KUBECONFIG=str(cluster.kubeconfig), TERM="xterm-256color", PATH=path))
    digest = image.write(served / f"{_TEMPLATE}.qcow2", SIZE_BYTES)
    with Origin(served, cluster.origin_host) as origin:
        url, checksum = origin.url(f"{_TEMPLATE}.qcow2"), f"sha256:{digest}"
        cluster.apply(clusters.template(_TEMPLATE, url, checksum=checksum, format="QCOW2"))
        # The probe reports the size, so the total is known from the first frame on.
        until("the probe", lambda: cluster.get("template", _TEMPLATE, "default").get("status", {}).get("sizeBytes"), 60)
        deploy = "kubectl directdownload deploy debian-13 --zone zone-1 --wait"
        terminal.prompt(deploy)
        *shown, last = frames(terminal.run(deploy))
        terminal.show(middle(shown))
        terminal.comment("the same lines some seconds later; every copy is verified and in place:")
        terminal.show(last)
        terminal.gap()
        for command in (
            "kubectl get dddeploy",
            "kubectl get ddtemplate debian-13 -o jsonpath='{.spec.checksum}'",
        ):
            terminal.prompt(command)
            terminal.show(terminal.run(command))
            terminal.gap()
        terminal.comment("the files on the disks of the three hosts:")
        file = f"$host/host{clusters.POOL_ROOT}/$uid"
        look = f"for host in {' '.join(cluster.hosts())}; do echo $host $(sha256sum < {file}); done"
        terminal.prompt(look)
        uid = cluster.get("template", _TEMPLATE, "default")["metadata"]["uid"]
        terminal.show(terminal.run(f"cd {harness.state_root()}/nodes; uid={uid}; {look}"))
    return terminal


def main() -> None:
    with Cluster.acquired() as cluster:
        cluster.install()
        cluster.apply(clusters.zone(downloads={"bandwidthPerHost": "48Mi"}), clusters.pool())
        cluster.await_hosts(3)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            play(cluster, pathlib.Path(name)).save(PICTURE, "A template goes onto three hosts")


if __name__ == "__main__":
    main()
