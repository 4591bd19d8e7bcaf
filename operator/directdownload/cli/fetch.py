"""`directdownload fetch`: the download engine without a cluster, with resume, checksum and progress bar.

Part and journal are hidden files beside the output file, and are removed when it is complete. With `--json` the last
line of standard output is a JobResult; all text for people goes to standard error.
"""

import dataclasses
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from directdownload.cli import examples
from directdownload.cli.view import terminal, units
from directdownload.download.settings import Setting
from directdownload.resources import headers, nfsexports, quantities

if TYPE_CHECKING:
    from directdownload.cli.view.progress import Bars
    from directdownload.download.gathering import Progress, ProgressCallback
    from directdownload.download.request import FetchRequest
    from directdownload.resources.jobs import JobResult

_LINE_SECONDS = 5.0
#: What this command calls the settings that the engine's messages name; it sets no limit for the others.
NAMES: Mapping[Setting, str] = {
    Setting.CONNECT_TIMEOUT: "--connect-timeout",
    Setting.CONNECTION_REQUEST_TIMEOUT: "--connect-timeout",
    Setting.SOCKET_TIMEOUT: "--socket-timeout",
    Setting.MINIMUM_RATE: "--minimum-rate",
    Setting.ALLOWED_CIDRS: "--allow-cidr",
    Setting.NFS_EXPORTS: "--nfs-export",
    Setting.CERTIFICATES: "--ca",
    Setting.HEADERS: "--header",
    Setting.MAX_REDIRECTS: "the limit of this command",
}
#: By these rich takes any file for a terminal.
_RICH_VARIABLES = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE"})
_FORMATS = ("QCOW2", "RAW", "ISO", "VMDK", "VHD", "VHDX", "OVA", "TAR")


@dataclasses.dataclass(frozen=True)
class _Timeouts:
    connect_seconds: float
    socket_seconds: float
    connection_request_seconds: float


@dataclasses.dataclass(frozen=True)
class _Limits:
    bandwidth_bytes_per_second: int
    minimum_bytes_per_second: int
    deadline_seconds: float
    connections: int
    max_size_bytes: int = 0
    max_virtual_size_bytes: int = 0
    progress_interval_seconds: float = 2


@dataclasses.dataclass(frozen=True)
class _Policy:
    """Of this command's user, who may read what the process may. The lists are as long as the user writes them."""

    allowed_cidrs: tuple[str, ...]
    nfs_exports: tuple[str, ...] | None
    nfs_user: None = None
    protocols: tuple[str, ...] = ("HTTP", "HTTPS", "NFS")
    allowed_hosts: tuple[str, ...] = ()
    max_redirects: int = 5
    require_checksum: bool = False
    require_direct: bool = False
    minimum_checksum: str = "MD5"


class _Parsed(click.ParamType[Any]):
    """An option whose value `parse` reads. The user sees the text of its ValueError."""

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
        # do not repeat the text: it may hold a token
        raise ValueError("a header is not well-formed: expected 'Name: value', for example 'X-Token: abc'")
    headers.check(name, value.encode())
    return name, value


class _BadFileError(click.BadParameter):
    """The command is right, and the file is not: the status is that of any other input of a download."""

    exit_code = 3


def _bundle(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """The path of a file with certificates. Raises _BadFileError for another, before anything is asked of a server."""
    if path is None:
        return None
    from directdownload.download.sources import tls

    try:
        if not tls.load(path).certificates:
            raise ValueError("it is empty; expected certificates in PEM")
    except ValueError as error:
        raise _BadFileError(f"{path}: {error}") from error
    return path


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
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Output file. Required without --probe.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="A further URL of the same bytes. Repeatable.")
@click.option("--checksum", default="", help="sha256:<hex>, {SHA-256}<hex>, or 32 hex digits of MD5.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(_FORMATS, case_sensitive=False),
    help="Format of the image: checked; archives are unpacked.  [default: keep the file as served]",
)
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    callback=_bundle,
    help="PEM file of further trusted certificates.",
)
@click.option(
    "--header",
    multiple=True,
    type=_Parsed("header", _header),
    help="'Name: value', sent to URL's origin only. Repeatable.",
)
@click.option(
    "--allow-cidr",
    "allowed_cidrs",
    multiple=True,
    type=_CIDR,
    help="Allow these addresses, even if loopback, link-local and the like. Repeatable.",
)
@click.option(
    "--nfs-export",
    "nfs_exports",
    multiple=True,
    type=_EXPORT,
    help="Allow only this NFS export, such as nfs.example.org:/export/templates. Repeatable; default: any.",
)
@click.option(
    "--connect-timeout", default="5s", show_default=True, type=_DURATION, help="Limit for each connection attempt."
)
@click.option(
    "--socket-timeout", default="5s", show_default=True, type=_DURATION, help="Longest silence between two packets."
)
@click.option("--limit-rate", default="0", type=_QUANTITY, help="Bytes per second, such as 10Mi; 0: no limit.")
@click.option(
    "--minimum-rate",
    default="0",
    type=_QUANTITY,
    help="Bytes per second on average over 2 minutes; a slower source is given up. 0: no minimum.",
)
@click.option(
    "--connections",
    default=0,
    type=click.IntRange(0, 8),
    help="Connections to each source.  [default: one, up to four where that is faster]",
)
@click.option(
    "--deadline", default="12h", show_default=True, type=_DURATION, help="Limit for the whole download; 0: no limit."
)
@click.option("--probe", "only_probe", is_flag=True, help="Ask the source what it has; fetch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, last.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
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
    """Fetch URL into a file and verify it; resume an interrupted run.

    Exit status: 0 done, 1 failed but worth another attempt, 2 usage, 3 failed for good.
    """
    from directdownload.download import engine
    from directdownload.download.guard import Guard
    from directdownload.download.request import FetchRequest
    from directdownload.download.secrets import Secrets
    from directdownload.download.sources.proxy import Proxies
    from directdownload.download.store.place import Place

    if output is None and not only_probe:
        raise click.UsageError("Missing option '-o': name the output file, or use --probe, which fetches nothing.")
    if output is not None and not os.path.isdir(os.path.dirname(output) or "."):
        raise click.UsageError(f"Invalid value for '-o': there is no directory {os.path.dirname(output)}; create it.")

    request = FetchRequest(
        url=url,
        place=Place.beside(output or "probe"),
        mirrors=mirrors,
        headers=header,
        checksum=checksum,
        image_format=image_format or "",
        timeouts=_Timeouts(connect_timeout, socket_timeout, connect_timeout),
        limits=_Limits(limit_rate, minimum_rate, deadline, connections),
        policy=_Policy(allowed_cidrs, nfs_exports or None),
        trust_bundle=ca or "",
        proxies=Proxies.from_environment(os.environ),
    )
    _check_proxies(request)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    hide = Secrets.of_request(request).hide
    with _Bar(quiet=quiet or only_probe) as bar:
        if only_probe:
            from directdownload.download import probe

            guard = Guard.start(stop, deadline, "nothing is kept")
            result = engine.outcome(lambda: probe.probe(request, guard), hide)
        else:
            result = engine.outcome(lambda: engine.fetch(request, stop=stop, progress=bar.callback), hide)
    result = result.model_copy(update={"message": named(result.message)})
    if as_json:
        click.echo(result.to_message())
    if not (as_json or quiet) or not result.done:
        click.echo(_summary(result), err=True)
    sys.exit(engine.exit_status(result))


def named(message: str) -> str:
    """`message` of the engine with this command's names of its settings."""
    for setting, name in NAMES.items():
        message = message.replace(setting, name)
    return message


def _check_proxies(request: "FetchRequest") -> None:
    """Raise UsageError if the variable of the proxy for a URL is malformed. Invalid URLs are left to the engine."""
    from directdownload.download.errors import RequestError, SourceError
    from directdownload.download.sources.urls import Url

    for text in (request.url, *request.mirrors):
        try:
            request.proxies.choose(Url.parse(text))
        except SourceError as error:
            raise click.UsageError(error.message) from error
        except RequestError:
            continue


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
        if not (sys.stderr.isatty() or _RICH_VARIABLES & os.environ.keys()):
            self.callback = _Lines().tell
            return self
        import rich.console

        from directdownload.cli.view import progress, screen

        console = rich.console.Console(highlight=False, file=terminal.unguarded(sys.stderr))
        if not console.is_terminal or console.is_dumb_terminal:
            self.callback = _Lines().tell
            return self
        bars = self._bars = progress.Bars(console).__enter__()

        def tell(now: "Progress") -> None:
            size, rate = now.size_bytes, now.bytes_per_second or None
            line = screen.Line((), "", screen.Mood.ACTIVE, now.bytes_received, size, rate, _time_left(now))
            bars.update(screen.Screen((), line))

        self.callback = tell
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bars is not None:
            self._bars.__exit__(*error)


class _Lines:
    """A line for each tenth of the way, and every few seconds if that takes longer or the size is unknown."""

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
