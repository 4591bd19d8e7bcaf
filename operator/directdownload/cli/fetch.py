"""`directdownload fetch`: the download engine with no cluster. Resume, checksum, progress bar.

Part and journal lie hidden beside the output file and go when it is complete. With `--json` the last line of standard
output is a JobResult; everything for people goes to standard error.
"""

import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from directdownload.cli import examples, terminal, units
from directdownload.resources import headers, nfsexports, quantities

if TYPE_CHECKING:
    from directdownload.cli.progress import Bars
    from directdownload.download.gathering import Progress, ProgressCallback
    from directdownload.resources.jobs import JobResult

_LINE_SECONDS = 5.0
_FORMATS = ("QCOW2", "RAW", "ISO", "VMDK", "VHD", "VHDX", "OVA", "TAR")


class _Parsed(click.ParamType[Any]):
    """An option that one of our parsers reads; its ValueError is what the user sees."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    value = value.strip()
    if not colon or not value.isascii():
        # not the text itself: it may well hold a token
        raise ValueError("a header is not well-formed: expected 'Name: value', for example 'X-Token: abc'")
    headers.check(name, value.encode())
    return name, value


_DURATION = _Parsed("duration", quantities.parse_duration)
_QUANTITY = _Parsed("quantity", quantities.parse_quantity)
_CIDR = _Parsed("cidr", lambda text: str(ipaddress.ip_network(text, strict=False)))
_EXPORT = _Parsed("export", lambda text: str(nfsexports.NFSExport.parse(text)))


@click.command(
    epilog=examples.of(
        (
            "directdownload fetch https://images.example.org/debian-13.qcow2 -o debian-13.qcow2 "
            "--checksum sha256:c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"
        ),
        (
            "directdownload fetch https://images.example.org/debian-13.qcow2.xz -o debian-13.qcow2 "
            "--format QCOW2 --limit-rate 50Mi"
        ),
        (
            "directdownload fetch https://images.example.org/debian-13.qcow2 -o debian-13.qcow2 --ca ca.pem "
            "--header 'X-Token: abc' --json"
        ),
        "directdownload fetch https://images.example.org/debian-13.qcow2 --probe",
    )
)
@click.argument("url")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where the file goes.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="Tried in order if the source fails.")
@click.option("--checksum", default="", help="sha256:<hex>, {SHA-256}<hex>, or 32 hex digits of MD5.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(_FORMATS, case_sensitive=False),
    help="Of the image: checked, and archives of it are unpacked. Without it the file is kept as it is served.",
)
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="PEM file of further trusted certificates.")
@click.option("--header", multiple=True, type=_Parsed("header", _header), help="'N: V', to URL's origin only.")
@click.option(
    "--allow-cidr",
    "allowed_cidrs",
    multiple=True,
    type=_CIDR,
    help="Also from these addresses, though loopback, link-local and the like are denied.",
)
@click.option(
    "--nfs-export",
    "nfs_exports",
    multiple=True,
    type=_EXPORT,
    help="From this NFS export and no other, such as nfs.example.org:/export/templates. Without it from any.",
)
@click.option("--connect-timeout", default="5s", show_default=True, type=_DURATION, help="To establish a connection.")
@click.option("--socket-timeout", default="5s", show_default=True, type=_DURATION, help="Silence between two packets.")
@click.option("--limit-rate", default="0", type=_QUANTITY, help="Bytes per second, such as 10Mi; 0: no limit.")
@click.option(
    "--minimum-rate",
    default="0",
    type=_QUANTITY,
    help="Bytes per second on average over 2 minutes; a source that delivers less is given up. 0: none.",
)
@click.option(
    "--connections",
    default=0,
    type=click.IntRange(0, 8),
    help="At once, to each source. Without it one, and up to four where more of them are faster.",
)
@click.option("--deadline", default="12h", show_default=True, type=_DURATION, help="For the whole download; 0: none.")
@click.option("--probe", "only_probe", is_flag=True, help="Ask what the source has, fetch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, last.")
@click.option("--quiet", is_flag=True, help="No progress.")
def fetch(
    url: str,
    output: str | None,
    mirrors: tuple[str, ...],
    checksum: str,
    image_format: str | None,
    ca: str | None,
    header: tuple[tuple[str, str], ...],
    allowed_cidrs: tuple[str, ...],
    nfs_exports: tuple[str, ...],
    connect_timeout: float,
    socket_timeout: float,
    limit_rate: int,
    minimum_rate: int,
    connections: int,
    deadline: float,
    only_probe: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fetch URL into a file, verified; continues where an earlier run was cut off.

    Exit status: 0 done, 1 failed but worth another attempt, 2 usage, 3 failed for good.
    """
    from directdownload.download import engine, job, probe
    from directdownload.download.guard import Guard
    from directdownload.download.place import Place
    from directdownload.download.request import FetchRequest
    from directdownload.download.secrets import Secrets
    from directdownload.download.sources.proxy import Proxies
    from directdownload.resources.jobs import Limits, Policy, Timeouts

    if output is None and not only_probe:
        raise click.UsageError("Missing option '-o': where the file goes; or --probe, which fetches nothing.")

    request = FetchRequest(
        url=url,
        place=Place.beside(output or "probe"),
        mirrors=mirrors,
        headers=header,
        checksum=checksum,
        image_format=image_format or "",
        timeouts=Timeouts(connect_seconds=connect_timeout, socket_seconds=socket_timeout),
        limits=Limits(
            bandwidth_bytes_per_second=limit_rate,
            minimum_bytes_per_second=minimum_rate,
            deadline_seconds=deadline,
            connections=connections,
        ),
        policy=Policy(allowed_cidrs=allowed_cidrs, nfs_exports=nfs_exports or None, nfs_user=None),
        trust_bundle=ca or "",
        proxies=Proxies.from_environment(os.environ),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    hide = Secrets.of_request(request).hide
    with _Bar(quiet=quiet or only_probe) as bar:
        if only_probe:
            guard = Guard.start(stop, deadline, "nothing was to be kept")
            result = engine.outcome(lambda: probe.probe(request, guard), hide)
        else:
            result = engine.outcome(lambda: engine.fetch(request, stop=stop, progress=bar.callback), hide)
    if as_json:
        click.echo(result.to_message())
    if not (as_json or quiet) or not result.done:
        click.echo(_summary(result), err=True)
    sys.exit(job.exit_status(result))


def _summary(result: "JobResult") -> str:
    if not result.done:
        return f"{result.reason}: {result.message}"
    if not result.path:
        facts = {
            "bytes": result.size_bytes,
            "format": result.format or None,
            "virtual size": result.virtual_size_bytes,
            "type": result.media_type or None,
            "ETag": result.etag or None,
            "ranges": None if result.ranges is None else ("yes" if result.ranges else "no"),
        }
        return "\n".join(
            [f"{result.reason}: {result.source}", *(f"  {k}: {v}" for k, v in facts.items() if v is not None)]
        )
    unpacked = f", unpacked from {result.served_bytes}" if result.served_bytes is not None else ""
    resumed = f", continued from {result.resumed_from}" if result.resumed_from else ""
    return f"{result.reason}: {result.path}: {result.size_bytes} bytes{unpacked}, {result.digest}{resumed}"


class _Bar:
    """Progress on standard error: a bar on a terminal, lines anywhere else; nothing with `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self.callback: ProgressCallback | None = None
        self._bars: Bars | None = None
        self._quiet = quiet

    def __enter__(self) -> "_Bar":
        if self._quiet:
            return self
        import rich.console

        from directdownload.cli import boards, progress

        console = rich.console.Console(highlight=False, file=terminal.unguarded(sys.stderr))
        if not console.is_terminal or console.is_dumb_terminal:
            self.callback = _Lines().tell
            return self
        bars = self._bars = progress.Bars(console).__enter__()

        def tell(now: "Progress") -> None:
            size, rate = now.size_bytes, now.bytes_per_second or None
            line = boards.Line((), "", boards.Mood.ACTIVE, now.bytes_received, size, rate, _time_left(now))
            bars.update(boards.Board((), line))

        self.callback = tell
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bars is not None:
            self._bars.__exit__(*error)


class _Lines:
    """A line for each tenth of the way, and where that takes long or its length is not known, every few seconds."""

    def __init__(self) -> None:
        self._tenth = -1
        self._next_seconds = 0.0

    def tell(self, progress: "Progress") -> None:
        size, received = progress.size_bytes, progress.bytes_received
        percent = units.whole_percent(received, size)
        tenth, now = (percent or 0) // 10, time.monotonic()
        if tenth == self._tenth and now < self._next_seconds:
            return
        self._tenth, self._next_seconds = tenth, now + _LINE_SECONDS
        parts = (
            "" if percent is None else f"{percent} %",
            units.size(received) + (f" / {units.size(size)}" if size else ""),
            units.rate(progress.bytes_per_second) if progress.bytes_per_second else "",
            _time_left(progress),
        )
        click.echo("  ".join(filter(None, parts)), err=True)


def _time_left(progress: "Progress") -> str:
    size, received, rate = progress.size_bytes, progress.bytes_received, progress.bytes_per_second
    return f"ETA {units.span((size - received) / rate)}" if size and rate and received < size else ""
