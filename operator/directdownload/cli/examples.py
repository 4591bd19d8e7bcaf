"""The examples at the end of every command's help. Imports nothing heavy, because every command imports it."""

import re

import click

_PROGRAM = "directdownload"
#: Longer examples continue on the next line, before an option, in a shell's notation.
_WIDTH = 78


def of(*commands: str) -> str:
    """The epilog of a command: the examples as a user types them."""
    # click keeps the lines of a paragraph that begins with \\b
    return "\b\nExamples:\n" + "\n".join(_broken(f"  {command}") for command in commands)


def _broken(text: str) -> str:
    lines = [""]
    for part in re.split(r" (?=--?[a-z])", text):
        if lines[-1] and len(lines[-1]) + len(part) + 1 > _WIDTH:
            lines.append(f"      {part}")
        else:
            lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def rename(command: click.Command, program: str) -> None:
    """Makes the examples of `command` and its subcommands use `program`, the name that the user has called."""
    command.epilog = renamed(command.epilog, program)
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        rename(part, program)


def renamed(epilog: str | None, program: str) -> str | None:
    # The name for kubectl contains the other one: renaming twice must equal renaming once.
    return epilog and re.sub(rf"(?<!kubectl) {_PROGRAM} ", f" {program} ", epilog)
