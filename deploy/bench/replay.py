"""Replay of a tenant, beside the sink that wrote the same rows: Kafka to the shadow, and how long sinks had to wait."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from deploy.bench import figures, sinks
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say
from deploy.stack import Stack
from schemas.errors import Rejected

TARGET: Final = 1.0
_DAMAGE: Final = "DELETE FROM orders WHERE version_row % 100 = 0"


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """A tenant's orders from Kafka to the shadow, compared, and one in a hundred put right."""
    with Installation(stack, "replay") as shop:
        sinks.into_kafka(shop, "orders", count, count, say)
        say("orders from Kafka to rows")
        pace, _ = sinks.drain(shop, "orders", 0, count)
        yield figures.limit("a sink alone, orders", pace)
        say("the same rows from Kafka to the shadow")
        started = time.monotonic()
        looked = _replay(shop)
        whole = count / (time.monotonic() - started)
        yield figures.share("replay, Kafka to the shadow", looked["rows"] / looked["reading_s"], pace, TARGET)
        yield figures.share("with its start, the comparison and its end", whole, pace)
        with shop.database() as db:
            lost = db.execute(_DAMAGE.encode()).rowcount
        say("putting it right")
        healed = _replay(shop, "--promote")
        if healed["tables"]["orders"]["missing"] != lost:
            raise Rejected(
                "wrong_replay", f"{lost} orders were deleted, and a replay found {healed['tables']['orders']}"
            )
        name = f"sinks held back while {count:,} orders are compared and {lost:,} put right"
        yield Figure(name, f"{healed['held_s']:.2f} s")


def _replay(shop: Installation, *arguments: str) -> Any:
    command = [sys.executable, "-c", "from deploy.cli import main; main()"]
    done = subprocess.run(
        [*command, "replay", "--tenant", TENANT, "--json", *arguments],
        env=shop.settings.env(), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise Rejected("no_replay", done.stderr)
    return json.loads(done.stdout)
