"""Help texts whose paragraphs flow: the lines of a docstring are as long as source code's, a terminal's are not."""

from typing import Protocol, TypeVar


class _Command(Protocol):
    """Of click, or of the copy that Typer brings with it."""

    help: str | None


C = TypeVar("C", bound=_Command)


def flow(command: C) -> C:
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
