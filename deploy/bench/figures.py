"""What a benchmark found, and the table of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """A line of a table: what was measured, as text with its unit; its `ratio` to the limit; its target in words."""

    name: str
    value: str
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


def limit(name: str, value: float, unit: str = "rows/s") -> Figure:
    """What others are held against."""
    return Figure(f"limit: {name}", f"{value:,.0f} {unit}", 1.0)


def share(name: str, value: float, of: float, target: float | None = None, unit: str = "rows/s") -> Figure:
    """A speed as a share `of` its limit, of which it should be at least `target`."""
    ratio = value / of
    if target is None:
        return Figure(name, f"{value:,.0f} {unit}", ratio)
    return Figure(name, f"{value:,.0f} {unit}", ratio, f">= {target:.2f}", ratio >= target)


def cpu(used: Mapping[str, float], count: int, of: str = "row") -> list[Figure]:
    """CPU seconds of each process as microseconds for each of `count` rows, the largest first."""
    ordered = sorted(used.items(), key=lambda item: -item[1])
    return [Figure(f"CPU, {name}", f"{seconds / count * 1e6:.1f} µs a {of}") for name, seconds in ordered]


def table(title: str, figures: Sequence[Figure]) -> Table:
    """All figures of one benchmark."""
    shown = Table("measure", title=title, title_justify="left")
    for name in ("value", "ratio", "target"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("")
    for figure in figures:
        verdict = {None: "", True: "[green]met[/green]", False: "[red]not met[/red]"}[figure.met]
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        shown.add_row(figure.name, figure.value, ratio, figure.target, verdict)
    return shown
