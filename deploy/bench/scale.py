"""Whether a row costs the same whatever the number of rows."""

from collections.abc import Iterator
from typing import Final

from deploy.bench import ingest
from deploy.bench.figures import Figure
from deploy.bench.installation import Installation, Say
from deploy.stack import Stack

TOLERANCE: Final = 0.2
_TIMES: Final = (1, 10, 50)
_WARM_ROWS: Final = 50_000
"""Sent before the clock starts: what the first rows cost anew in each process is not what a row costs."""


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Orders over HTTP to rows: half of --rows, 10 times and 50 times as many, each into empty tables."""
    first: tuple[float, float] | None = None
    for times in _TIMES:
        rows = count // 2 * times
        with Installation(stack, f"scale_{times}") as shop:
            key = shop.tenant()
            shop.start("gateway", "streams", "sinks")
            ingest.send(shop, key, "customers", _WARM_ROWS, ahead=False)
            say(f"{rows:,} orders over HTTP to rows")
            way = ingest.send(shop, key, "orders", rows, ahead=False)
        cost = sum(seconds for name, seconds in way.cpu_s.items() if name != "client") / rows * 1e6
        first = first or (cost, way.applied)
        for name, value, unit, base in (
            ("CPU", cost, "µs a row", first[0]),
            ("speed", way.applied, "rows/s", first[1]),
        ):
            ratio = value / base
            met = None if times == _TIMES[0] else abs(ratio - 1) <= TOLERANCE
            yield Figure(f"{rows:,} orders, {name}", f"{value:,.1f} {unit}", ratio, "" if met is None else "±20%", met)
        for role, peak in sorted(way.resident_mb.items()):
            yield Figure(f"{rows:,} orders, resident, {role}", f"{peak:,.0f} MB")
