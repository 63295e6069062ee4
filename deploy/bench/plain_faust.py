"""A peer: the same fold in a Faust app as its examples have it, plain `faust.Table` in memory, no transactions.

Run as `python -m deploy.bench.plain_faust COUNT`: prints the seconds from the first of COUNT movements to the last, and
before that how many levels of an earlier run it recovered, and the seconds that took from its assignment.
"""

import json
import logging
import sys
import time
from typing import Any

import faust
import mode.loop

from schemas import codec, stock, topics
from schemas.settings import Settings
from streams.stock import Source, fold_batch

APP_ID = "plain-faust"


def create_app(settings: Settings, count: int) -> faust.App:
    """The app; it ends the process when `count` movements are folded."""
    app = faust.App(
        settings.named(APP_ID),
        broker=f"kafka://{settings.kafka_bootstrap_servers}",
        datadir=settings.streams_data_dir,
        topic_partitions=settings.partitions,
        topic_disable_leader=True,
        stream_recovery_delay=0.0,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    source = app.topic(settings.named(topics.STOCK), key_serializer="raw", value_serializer="raw")
    table = app.Table("levels", key_type=bytes, value_type=bytes)
    assigned = time.perf_counter()

    @app.on_partitions_assigned.connect
    async def begin(*_: Any, **__: Any) -> None:
        nonlocal assigned
        assigned = time.perf_counter()

    @table.on_recover
    async def recovered() -> None:
        say(recovered=len(table), seconds=time.perf_counter() - assigned)

    @app.agent(source)
    async def fold(stream: Any) -> None:
        left, first = count, 0.0
        async for event in stream.events():
            first = first or time.perf_counter()
            message = event.message
            record = codec.decode_rows(stock.MOVEMENTS, message.value)
            source = Source(message.key, f"{message.partition}/{message.offset}", message.offset, 0, 0)
            levels: dict[bytes, Any] = {}
            for row in record["rows"]:
                key = topics.level_key(message.key, row["product_id"])
                if key not in levels and (known := table.get(key)) is not None:
                    levels[key] = stock.decode_level(known)
            fold_batch(levels, record["rows"], source, oversell=False)
            for key, level in levels.items():
                table[key] = stock.encode_level(key, level)
            left -= len(record["rows"])
            if left <= 0:
                await app.producer.flush()  # as ours, it is done when Kafka has it
                say(folded=count, seconds=time.perf_counter() - first)

    return app


def say(**found: float) -> None:
    """A line of JSON for the process that measures."""
    print(json.dumps(found), flush=True)  # noqa: T201


def main() -> None:
    """Run until it is ended."""
    mode.loop.use("uvloop")
    app = create_app(Settings.from_env(), int(sys.argv[1]))
    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    main()
