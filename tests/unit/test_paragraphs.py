"""Help texts flow: the lines of a docstring are not those of a terminal."""

import typer

from deploy.cli import app
from deploy.paragraphs import flow


def test_a_paragraph_is_one_line_and_examples_keep_theirs() -> None:
    helps = _helps(flow(typer.main.get_command(app)))
    assert len(helps) > 30
    paragraphs = [paragraph for text in helps for paragraph in text.split("\n\n")]
    examples = [paragraph for paragraph in paragraphs if paragraph.startswith("[dim]")]
    assert [paragraph for paragraph in paragraphs if "\n" in paragraph and paragraph not in examples] == []
    assert "[dim]tillstream rebuild --json\ntillstream rebuild --promote --hold 300[/dim]" in examples


def _helps(command: object) -> list[str]:
    below = [text for each in getattr(command, "commands", {}).values() for text in _helps(each)]
    return [getattr(command, "help", None) or "", *below]
