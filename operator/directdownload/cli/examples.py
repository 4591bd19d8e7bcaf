"""The examples that the help of every command ends with. Imports nothing heavy, as every command needs it."""

import re

import click

_PROGRAM = "directdownload"
#: Longer ones go on in a further line, before an option, as shells take it.
_WIDTH = 78


def of(*commands: str) -> str:
    """The epilog of a command: the examples, as they are typed."""
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
    """Lets the examples of `command`, and of what it holds, call the program as the user has called it."""
    command.epilog = renamed(command.epilog, program)
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        rename(part, program)


def renamed(epilog: str | None, program: str) -> str | None:
    # Twice is as once: kubectl's name holds the other one.
    return epilog and re.sub(rf"(?<!kubectl) {_PROGRAM} ", f" {program} ", epilog)
