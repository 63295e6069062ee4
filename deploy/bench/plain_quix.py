"""A peer: the same fold in Quix Streams with its own state.

Run as `python -m deploy.bench.plain_quix STYLE MESSAGES`, by a Python that has quixstreams (see peers.py): prints the
seconds from the first of MESSAGES messages to the moment when the state of the last is committed and the app closed.

Its defaults stay: RocksDB with a changelog topic, at-least-once, a checkpoint every 5 s. So a level that changes often
is written once in 5 s, where ours is with the sinks after a flush, some 100 ms, in a transaction and with dedup. What
reads messages, folds and writes the bytes of a level is ours, for its benefit. STYLE is

- `events`, as its documentation has it: a batch is expanded, each movement is folded by itself with the state of its
  tenant, and each has an outcome on `outcomes`. (Grouping by product, which its documentation has too, would send each
  movement through Kafka once more.)
- `batches`, which no documentation has: a batch is one call that folds all of it by our `fold_batch` and has one
  outcome. What its engine costs an event is then shared by 500 movements, as in ours.
"""

import json
import sys
import time
from typing import Any

from quixstreams import Application, State, message_context

from schemas import codec, stock, topics
from schemas.codec import Record
from schemas.settings import Settings
from schemas.stock import Level
from streams.stock import Source, fold_batch

APP_ID = "plain-quix"


def fold(rows: list[Record], key: bytes, state: State) -> list[bytes]:
    """Fold movements of a tenant with the state of its products; return an outcome for each."""
    at = message_context()
    levels: dict[bytes, Level] = {}
    for row in rows:
        name = topics.level_key(key, row["product_id"])
        if name not in levels and (known := state.get_bytes(row["product_id"])) is not None:
            levels[name] = stock.decode_level(known)
    written = fold_batch(levels, rows, Source(key, f"{at.partition}/{at.offset}", at.offset, 0, 0), oversell=False)
    for name, level in levels.items():
        state.set_bytes(name[len(key) + 1 :].decode(), stock.encode_level(name, level))
    return written


def main() -> None:
    """Fold so many messages, say how long it took, end."""
    settings, style, messages = Settings.from_env(), sys.argv[1], int(sys.argv[2])
    first, left = 0.0, messages

    def count(topic: str, partition: int, offset: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            app.stop()

    app = Application(
        broker_address=settings.kafka_bootstrap_servers,
        consumer_group=settings.named(f"{APP_ID}-{style}"),
        auto_offset_reset="earliest",
        state_dir=f"{settings.streams_data_dir}/{style}",
        on_message_processed=count,
        loglevel="WARNING",
    )
    movements = app.topic(settings.named(topics.STOCK), key_deserializer="bytes", value_deserializer="bytes")
    outcomes = app.topic(settings.named(topics.OUTCOMES), key_serializer="bytes", value_serializer="bytes")

    def read(value: bytes) -> list[Record]:
        nonlocal first
        first = first or time.perf_counter()
        rows: list[Record] = codec.decode_rows(stock.MOVEMENTS, value)["rows"]
        return rows

    def fold_one(row: Record, key: bytes, timestamp: int, headers: Any, state: State) -> bytes:
        return fold([row], key, state)[0]

    def fold_all(rows: list[Record], key: bytes, timestamp: int, headers: Any, state: State) -> bytes:
        return b"".join(fold(rows, key, state))

    batches = app.dataframe(movements)
    if style == "events":
        told = batches.apply(read, expand=True).apply(fold_one, stateful=True, metadata=True)
    else:
        told = batches.apply(read).apply(fold_all, stateful=True, metadata=True)
    told.to_topic(outcomes)
    app.run()
    print(json.dumps({"folded": messages, "seconds": time.perf_counter() - first}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
