"""The examples that every command's help ends with. Imports nothing, as every command needs it."""


def of(*commands: str) -> str:
    """The epilog of a command: each example on a line of its own, as it is typed."""
    # click keeps the lines of a paragraph that begins with \\b
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)
