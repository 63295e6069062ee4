"""Help texts whose paragraphs flow: the lines of a docstring are as long as source code's, a terminal's are not."""

import click


def flow(command: click.Command) -> click.Command:
    """The command, and those below it, with one line a paragraph, which whoever prints it breaks.

    Examples, which begin with `[dim]`, keep a line each.
    """
    if command.help:
        command.help = "\n\n".join(map(_joined, command.help.split("\n\n")))
    for below in getattr(command, "commands", {}).values():
        flow(below)
    return command


def _joined(paragraph: str) -> str:
    return paragraph if paragraph.startswith("[dim]") else " ".join(paragraph.split())
