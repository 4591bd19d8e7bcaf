"""The program: its names, its commands and its exit status.

Entry point of `directdownload` and `kubectl-directdownload`. Commands are imported when they are run: a download job
starts on every host, and must not pay for kopf, the Kubernetes client or progress bars (`tests/unit/cli/test_start`).

Exit status: 0 done; 1 failed, try again; 2 usage; 3 failed, trying again cannot help; 130 interrupted by Ctrl-C.
Users see no traceback without `--traceback`; the processes of pods log theirs.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

import directdownload
from directdownload.cli import examples, options
from directdownload.cli.exit_status import INTERRUPTED, TRANSIENT
from directdownload.cli.view import terminal

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: name → (module, attribute, summary); the summaries stand here so that `--help` imports nothing
COMMANDS = {
    "template": ("template", "template", "Register, list, describe and delete templates."),
    "deploy": ("deployment", "deploy", "Put a template onto hosts of a zone, and keep it there."),
    "plan": ("plan", "plan", "Show what deploying a template would do, and what blocks it; write nothing."),
    "status": ("deployment", "status", "Show deployments and their progress."),
    "zone": ("fleet", "zone", "List zones."),
    "host": ("fleet", "host", "List hosts."),
    "pool": ("fleet", "pool", "List primary storage pools, and the files in one."),
    "volume": ("volume", "volume", "List the volumes of pods, and what they wait for."),
    "certificate": ("certificate", "certificate", "Put certificates into the keystores of hosts, and take them out."),
    "dashboard": ("dashboard", "dashboard", "Show the fleet in a browser, live and read-only."),
    "fetch": ("fetch", "fetch", "Fetch a URL into a file, with no cluster: resume, checksum, progress."),
    "keystore": ("keystore", "keystore", "List, import and remove certificates of a Java keystore, with no cluster."),
    "crds": ("crds", "crds", "Print, upgrade or delete the CustomResourceDefinitions of this version."),
    "completion": ("completion", "completion", "Print a shell's completion script."),
    "selftest": ("selftest", "selftest", "Download a small file through a real Job; `helm test` does this."),
    "job": ("pods", "job", "Run one download job; the controller's Jobs do this."),
    "controller": ("pods", "controller", "Run the controller; the chart does this."),
    "agent": ("pods", "agent", "Run the agent of one host; the chart does this."),
    "csi": ("pods", "csi", "Run the CSI node plugin of one host; the chart does this."),
    "peer": ("pods", "peer", "Run a part of the peer server of one host; the chart does this."),
}
#: The names of the program; the second makes it kubectl's plugin.
PROGRAMS = ("directdownload", "kubectl-directdownload")
#: The variable that the scripts of `completion` set. Otherwise click derives it from the name that was called.
COMPLETE_VARIABLE = "_DIRECTDOWNLOAD_COMPLETE"
#: A bug must leave its traceback in their logs, for the administrator of the cluster.
_POD_COMMANDS = frozenset({"selftest", "job", "controller", "agent", "csi", "peer"})


class LazyGroup(click.Group):
    """Imports a command when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"directdownload.cli.{module}"), attribute)
        if _program_name() != PROGRAMS[0]:
            examples.rename(command, _program_name())
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list["CompletionItem[str]"]:
        """Names come from COMMANDS, so that none is imported. Commands of pods are left out: nobody types them."""
        from click.shell_completion import CompletionItem

        names = [name for name in COMMANDS if name.startswith(incomplete) and name not in _POD_COMMANDS]
        found = [CompletionItem(name, help=COMMANDS[name][2]) for name in names]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    epilog=examples.of(
        "directdownload template register debian-13 --url https://images.example.org/debian-13.qcow2 --format QCOW2",
        "directdownload plan debian-13 --zone zone-1",
        "directdownload deploy debian-13 --zone zone-1 --wait",
    ),
)
@click.version_option(directdownload.__version__, message="directdownload %(version)s")
@options.connection_options
@click.option("--traceback", is_flag=True, hidden=True, help="Show where an unexpected error came from.")
@click.pass_context
def cli(
    ctx: click.Context, kubeconfig: str | None, context: str | None, namespace: str | None, traceback: bool
) -> None:
    """Direct download of VM templates onto KVM hosts.

    Templates are registered by URL and checksum; a deployment puts verified copies onto the primary storage of a
    zone's hosts.
    """
    # A dict, because commands without a cluster must not import `session`.
    ctx.obj = {"kubeconfig": kubeconfig, "context": context, "namespace": namespace}


def main() -> None:
    """Runs the command of `sys.argv` and ends the process with its exit status."""
    terminal.guard()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit status; errors are printed on standard error."""
    if _program_name() != PROGRAMS[0]:
        cli.epilog = examples.renamed(cli.epilog, _program_name())
    try:
        outcome: Any = cli.main(
            args=arguments, prog_name=_program_name(), complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        # Click has printed nothing yet; the shell shows ^C without a line end.
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `… | head` has read enough. The rest of the buffer must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TRANSIENT
    except Exception as error:
        if "--traceback" in arguments or not _POD_COMMANDS.isdisjoint(arguments[:1]):
            raise
        text = str(error).strip() or "no message"
        print(f"Error: unexpected {type(error).__name__}: {text}", file=sys.stderr)
        print("This is a defect: please report it with the output of `directdownload --traceback …`.", file=sys.stderr)
        return TRANSIENT
    return outcome if isinstance(outcome, int) else 0


def _program_name() -> str:
    name = os.path.basename(sys.argv[0])
    return "kubectl directdownload" if name.startswith("kubectl-") else "directdownload"
