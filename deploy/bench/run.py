"""The benchmarks by name, run one after the other."""

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Final

from rich.console import Console

from deploy.bench import (
    exports,
    figures,
    gateway,
    growth,
    ingest,
    metrics,
    neighbour,
    prices,
    reads,
    replay,
    scale,
    single,
    sinks,
    stock,
    verdicts,
)
from deploy.bench.figures import Figure
from deploy.bench.installation import Say
from deploy.stack import Stack
from schemas.errors import Rejected

Benchmark = Callable[[Stack, int, Say], Iterator[Figure]]
ALL: Final = MappingProxyType[str, Benchmark](
    {
        "ingest": ingest.run,
        "sinks": sinks.run,
        "replay": replay.run,
        "gateway": gateway.run,
        "single": single.run,
        "reads": reads.run,
        "exports": exports.run,
        "metrics": metrics.run,
        "neighbour": neighbour.run,
        "prices": prices.run,
        "verdicts": verdicts.run,
        "stock": stock.run,
        "growth": growth.run,
        "scale": scale.run,
    }
)
LONG: Final = frozenset({"growth", "scale"})
"""Those that run only when named."""


def chosen(only: Sequence[str]) -> list[str]:
    """The names to run. Raises Rejected for one that is unknown."""
    for name in only:
        if name not in ALL:
            raise Rejected("unknown_benchmark", f"--only takes {', '.join(ALL)}, not {name!r}")
    return list(only) or [name for name in ALL if name not in LONG]


def run(stack: Stack, names: Sequence[str], count: int, console: Console) -> None:
    """Print a table a benchmark, each as soon as it is done."""
    for name in names:
        with console.status(name) as status:
            found = list(ALL[name](stack, count, status.update))
        console.print(figures.table(f"{name}: {ALL[name].__doc__}", found))
