"""`completion`, and the executable `kubectl_complete-directdownload`: completion for shells and for kubectl.

A shell gets click's own script, which calls the program again with `COMPLETE_VARIABLE` set. kubectl calls a plugin's
completion program with the words so far, the last one unfinished, and expects what cobra's `__complete` prints:
a candidate per line, a tab before its description, and `:<directive>` at the end.
"""

import sys

import click

from directdownload.cli import examples
from directdownload.cli.main import COMPLETE_VARIABLE, PROGRAMS, cli

SHELLS = ("bash", "zsh", "fish")
#: cobra's ShellCompDirective: files may follow; they may not; directories may.
_DEFAULT, _NO_FILES, _DIRECTORIES = 0, 4, 16


@click.command(
    epilog=examples.of(
        "directdownload completion bash > /etc/bash_completion.d/directdownload",
        "directdownload completion zsh > ~/.zfunc/_directdownload",
        "directdownload completion fish > ~/.config/fish/completions/directdownload.fish",
    )
)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish.

    It completes commands, options and the names of the cluster's objects. To use it in the current bash:
    source <(directdownload completion bash). `kubectl directdownload` needs only kubectl's own completion: kubectl
    calls the executable kubectl_complete-directdownload.
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The completion script of `shell` for all names of the program. Raises ValueError for an unknown shell."""
    from click import shell_completion

    shell_class = shell_completion.get_completion_class(shell)
    if shell_class is None:
        raise ValueError(f"click knows no shell {shell}")
    if shell == "zsh":
        # The first line, #compdef, may occur only once in a file, so it gets all names.
        text = shell_class(cli, {}, PROGRAMS[0], COMPLETE_VARIABLE).source()
        names = " ".join(PROGRAMS)
        text = text.replace(f"#compdef {PROGRAMS[0]}\n", f"#compdef {names}\n")
        return text.replace(f"_completion {PROGRAMS[0]}\n", f"_completion {names}\n")
    return "".join(shell_class(cli, {}, name, COMPLETE_VARIABLE).source() for name in PROGRAMS)


def kubectl_main() -> None:
    """`kubectl_complete-directdownload WORD… UNFINISHED`: prints only candidates, also after an error."""
    sys.stdout.write(for_kubectl(sys.argv[1:]))


def for_kubectl(words: list[str]) -> str:
    """The output for kubectl; `words` end with the unfinished one."""
    from click import shell_completion

    *before, unfinished = words or [""]
    asked = shell_completion.ShellComplete(cli, {}, PROGRAMS[0], COMPLETE_VARIABLE)
    lines, directive = [], _NO_FILES
    for item in asked.get_completions(before, unfinished):
        if item.type == "plain":
            lines.append(f"{item.value}\t{' '.join(item.help.split())}" if item.help else str(item.value))
        else:
            directive = _DIRECTORIES if item.type == "dir" else _DEFAULT
    return "".join(f"{line}\n" for line in [*lines, f":{directive}"])
