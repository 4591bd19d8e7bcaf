"""How a command ends: the exit statuses, and the exception that carries one to `main`.

Every command raises Failure. Its message says what happened to which object, and what to do.
"""

import sys
from typing import IO, Any

import click

DONE = 0
TRANSIENT = 1
USAGE = 2
PERMANENT = 3
#: 128 + SIGINT, as shells report it
INTERRUPTED = 130


class Failure(click.ClickException):
    """The command failed: `exit_code` is TRANSIENT where the same command may work later, else PERMANENT."""

    def __init__(self, message: str, exit_code: int = PERMANENT) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance as well

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.message}", file=file or sys.stderr)
