"""Writes a batch in one transaction: offsets, rows, uploads, policies, stock, prices, ledger, and all else."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import psycopg

from producers.breaker import Breaker, Verdict
from sinks import dead_letters, ledger, policies, prices, redrives, stock, tenants, uploads
from sinks.batch import Batch, Message
from sinks.exports import requests
from sinks.migrate import require
from sinks.offsets import Move, advance
from sinks.sql import statement
from sinks.upsert import INVALID, upsert

Db = psycopg.Connection[Any]


def connect(database_url: str) -> Db:
    """A connection with the rights of the writer role and its staging tables. Raises Misconfigured without tables."""
    db = psycopg.connect(database_url, application_name="tillstream-sink", connect_timeout=5)
    require(db)
    db.execute("SET ROLE tillstream_writer")
    db.execute("SET idle_in_transaction_session_timeout = '30s'")  # who froze must not keep its offsets locked
    db.execute("SET plan_cache_mode = force_custom_plan")
    db.execute(statement("staging"))
    db.execute("SET app.orders_staged = on")  # what is inserted is what is staged (migration 0011)
    db.commit()
    return db


def write(db: Db, batch: Batch, moves: list[Move], breaker: Breaker) -> None:
    """Apply a batch, or nothing of it. Raises psycopg.Error for the environment's faults, Superseded for a zombie's.

    Raises Misconfigured where PostgreSQL refuses all rows of too many messages: a constraint is wrong, not they.
    """
    with db.transaction():
        # First: a zombie ends before it works, and who locks these rows holds back all that their partitions would
        # write (sinks/replay).
        advance(db, moves)
        fresh = _skip_known(db, batch.messages)
        by_entity: dict[str, list[Message]] = defaultdict(list)
        for message in fresh:
            if message.rows and not message.duplicate:
                by_entity[message.envelope.entity].append(message)
        for entity, messages in by_entity.items():
            upsert(db, entity, messages)
        breaker.judge(verdicts := _verdicts(fresh))
        new = [message for message in fresh if not message.duplicate]
        uploads.follow(db, [(m.envelope.type, m.upload) for m in new if m.upload is not None])
        policies.store(db, [(m.tenant_id, m.policies, m.envelope.src.offset) for m in new if m.policies is not None])
        stock.store_levels(db, batch.levels)
        stock.store_movements(db, batch.folded)
        prices.store(db, batch.judged)
        ledger.write(db, batch, fresh)
        dead_letters.store(db, batch.letters)
        requests.store(db, batch.exports)
        redrives.store(db, batch.notes)
        tenants.materialise(db, batch.tenants)
    breaker.count(verdicts)


def _verdicts(messages: list[Message]) -> Sequence[Verdict]:
    """Messages with rows, and of which PostgreSQL refused every one."""
    refused = [sum(error.code == INVALID for error in message.errors) for message in messages]
    return [
        (message.tenant_id, INVALID if count == len(message.rows) else None)
        for message, count in zip(messages, refused, strict=True)
        if message.rows and not message.duplicate
    ]


def _skip_known(db: Db, messages: list[Message]) -> list[Message]:
    """Leave out what the ledger has, and mark what it has applied under the same event id elsewhere."""
    if not messages:
        return []
    for message in messages:  # a second try starts from nothing
        message.applied, message.duplicate = 0, False
        message.errors.clear()
    tenants = [m.tenant_id for m in messages]
    event_ids = [m.envelope.event_id for m in messages]
    at = [
        [m.envelope.src.topic for m in messages],
        [m.envelope.src.partition for m in messages],
        [m.envelope.src.offset for m in messages],
    ]
    known: dict[int, bool] = {}
    for n, same_message in db.execute(statement("known_events"), [tenants, event_ids, *at, tenants, *at], binary=True):
        known[n - 1] = known.get(n - 1, False) or same_message
    fresh, seen = [], set()
    for n, message in enumerate(messages):
        if known.get(n):
            continue
        event = (message.tenant_id, message.envelope.event_id)
        if message.refused is None:
            message.duplicate = n in known or event in seen
            seen.add(event)
        fresh.append(message)
    return fresh
