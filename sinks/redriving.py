"""Sending letters once more, with a note about each (`sinks.redrives`): before it is sent, and how that ended.

A redrive whose end is unknown, since Kafka or the operator went away, goes on under its id when it is asked for again:
dedup then knows the second of the two.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import confluent_kafka
import psycopg
from psycopg.rows import dict_row

from producers.client import config
from producers.registry import Registry
from schemas import topics
from schemas.envelope import Position
from schemas.errors import Rejected, Unavailable
from schemas.redrive import original_id, redriven, redriven_id
from schemas.settings import Settings
from sinks import quarantine, redrives
from sinks.migrate import require
from sinks.quarantine import Letter
from sinks.redrive import Outgoing, Patch, outgoing
from sinks.redrives import Note
from sinks.sql import statement

Db = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who has letters sent once more, why, after which patch, and whether also those that were sent before."""

    by: str
    why: str
    patch: Patch | None = None
    again: bool = False


def connect(database_url: str) -> Db:
    """A connection with the rights of the writer role, as the sinks have. Raises Misconfigured without the tables."""
    db = psycopg.connect(database_url, application_name="tillstream-dlq", connect_timeout=5, autocommit=True)
    require(db)
    db.execute("SET ROLE tillstream_writer")
    return db


def messages(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    """Letters by the message that sends them: one each, rows of one message together."""
    for _, same in groupby(letters, key=lambda one: (one.kind, one.topic, one.partition, one.log_offset)):
        yield list(same)


def prepared(db: Db, letters: Sequence[Letter], patch: Patch | None, registry: Registry | None) -> Outgoing:
    """The message that sends these letters, of one message, once more.

    Raises Rejected where it cannot be sent, and Unavailable while a schema registry is needed and away.
    """
    letter = letters[0]
    if letter.kind == "message":
        whole = quarantine.find(db, quarantine.named(letter.name()), 1, whole=True)
    else:
        wanted = quarantine.named(f"{letter.topic}/{letter.partition}/{letter.log_offset}")
        rows = {one.row_index for one in letters}
        found = quarantine.find(db, wanted, 100_000, whole=True)
        whole = [one for one in found if one.row_index in rows and one.kind == "row"]
    if registry is not None:
        registry.learn(whole[0].payload)
    return outgoing(whole, patch, _first(db, letter))


def refuse(
    db: Db, settings: Settings, kafka: confluent_kafka.Producer, letters: Sequence[Letter], asked: Asked, why: Rejected
) -> None:
    """Note that letters could not be sent."""
    note = _note(letters, asked, None) | {"result": "refused", "detail": str(why), "ended_ms": _now_ms()}
    redrives.publish(settings, kafka, note)
    redrives.store(db, [note])


def send(db: Db, settings: Settings, kafka: confluent_kafka.Producer, message: Outgoing, asked: Asked) -> str:
    """Send a message and note it; return its event id once Kafka has acknowledged.

    Raises Unavailable where Kafka did not: ask again, and it goes on under the same id. Raises Rejected where another
    redrive of the same was begun and did not end.
    """
    note = _begun(db, message, asked)
    event_id: str = note["event_id"]
    redrives.publish(settings, kafka, note)
    offset = _known(db, note)  # of one that was begun before
    if offset is None:
        offset = _sent(settings, kafka, message, event_id)
    note |= {"result": "sent", "sent_offset": offset, "ended_ms": _now_ms()}
    redrives.store(db, [note])
    redrives.publish(settings, kafka, note)
    return event_id


def _sent(settings: Settings, kafka: confluent_kafka.Producer, message: Outgoing, event_id: str) -> int:
    """Send a message; return its offset. Raises Unavailable."""
    letter = message.letters[0]
    headers = redriven(
        event_id=event_id,
        type=letter.type,
        source="dlq",
        accepted_ms=round(letter.accepted_at.timestamp() * 1000),
        rows=message.rows,
        value=message.value,
        redrive=message.redrive,
    )
    landed: list[confluent_kafka.Message] = []
    failed: list[confluent_kafka.KafkaError] = []

    def delivered(error: confluent_kafka.KafkaError | None, sent: confluent_kafka.Message) -> None:
        if error is None:
            landed.append(sent)
        else:
            failed.append(error)

    partition = topics.partition_of(message.key, settings.partitions)
    kafka.produce(letter.topic, message.value, message.key, partition, headers=headers, on_delivery=delivered)
    kafka.flush(settings.delivery_timeout_s + 1)
    if not landed:
        why = failed[0].str() if failed else "no answer"
        raise Unavailable(f"Kafka did not acknowledge {event_id}: {why}. The same command sends it again, once")
    return int(landed[0].offset())


def ended(db: Db, event_ids: Sequence[str]) -> dict[str, str]:
    """What became of redrives that the ledger has: the outcome, or what became of the rows where that says more.

    An applied message may have rows that were refused, or superseded by what came since.
    """
    rows = db.execute(
        "SELECT event_id, CASE WHEN outcome <> 'applied' OR applied = rows THEN outcome"
        " WHEN rejected = rows THEN 'rejected' WHEN rejected > 0 THEN 'partly rejected'"
        " WHEN superseded = rows THEN 'superseded' WHEN superseded > 0 THEN 'partly superseded' ELSE outcome END"
        " FROM ledger WHERE (tenant_id, event_id) IN (SELECT claimed, event_id FROM redrives WHERE event_id = ANY(%s))",
        [list(event_ids)],
    )
    return dict(rows.fetchall())


def producer(settings: Settings) -> confluent_kafka.Producer:
    """What `send` sends with."""
    return confluent_kafka.Producer(config(settings))


def _first(db: Db, letter: Letter) -> Position:
    """Where the event of a letter came first: of a redrive, what it repeats."""
    mine = Position(letter.topic, letter.partition, letter.log_offset, round(letter.logged_at.timestamp() * 1000))
    first = original_id(letter.event_id)
    if first == letter.event_id:
        return mine
    row = db.execute(
        "SELECT partition, log_offset, (extract(epoch FROM logged_at) * 1000)::bigint FROM ledger"
        " WHERE tenant_id = %s AND event_id = %s AND topic = %s ORDER BY logged_at LIMIT 1",
        [letter.claimed, first, letter.topic],
    ).fetchone()
    return mine if row is None else Position(letter.topic, *row)


def _begun(db: Db, message: Outgoing, asked: Asked) -> Note:
    """The note of a message that is about to be sent, and was begun before or is begun now."""
    letter, base = message.letters[0], original_id(message.letters[0].event_id)
    rows = _rows(message.letters)
    with db.transaction(), db.cursor(row_factory=dict_row) as cursor:
        # From here on no other operator begins with the same.
        db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 8))", [f"{letter.claimed}/{letter.topic}/{base}"])
        begun = cursor.execute(statement("begun_redrives"), [letter.topic, letter.partition, letter.log_offset])
        for note in begun.fetchall():
            if note["rows"] == rows and _loaded(note["patch"]) == _said(asked.patch):
                return note
            if note["rows"] == rows or set(note["rows"].split(",")) & set(rows.split(",")):
                where = f"{letter.topic}/{letter.partition}/{letter.log_offset}"
                raise Rejected("begun", f"{note['event_id']} was begun with rows {note['rows']} of {where} and patch"
                               f" {note['patch']}: first let that end, by asking for the same again")  # fmt: skip
        if not asked.again:
            _refuse_sent(db, letter, rows)
        note = _note(message.letters, asked, _free(db, letter, base))
        redrives.store(db, [note])
        return note


def _refuse_sent(db: Db, letter: Letter, rows: str) -> None:
    """Raises Rejected where somebody sent the letter meanwhile, though it was open when it was looked for."""
    sent = db.execute(
        "SELECT event_id, by FROM redrives WHERE topic = %s AND partition = %s AND log_offset = %s AND result = 'sent'"
        " AND (row_indexes && string_to_array(%s, ',')::int[] OR row_indexes = '{}' AND %s = '')",
        [letter.topic, letter.partition, letter.log_offset, rows, rows],
    ).fetchone()
    if sent is not None:
        raise Rejected("redriven_before", f"{sent[1]} sent it as {sent[0]} just now; once more with --again")


def _known(db: Db, note: Note) -> int | None:
    """Where a redrive lies that the ledger has."""
    row = db.execute(
        "SELECT log_offset FROM ledger WHERE tenant_id = %s AND event_id = %s AND topic = %s"
        " ORDER BY logged_at LIMIT 1",
        [note["claimed"], note["event_id"], note["topic"]],
    ).fetchone()
    return None if row is None else int(row[0])


def _free(db: Db, letter: Letter, base: str) -> int:
    """The first number that neither the notes nor the ledger have, for the notes may be younger than the log."""
    row = db.execute(
        "SELECT coalesce(max(n), 0) + 1 FROM redrives WHERE claimed = %s AND topic = %s AND original_id = %s",
        [letter.claimed, letter.topic, base],
    ).fetchone()
    n = int(row[0]) if row else 1
    known = "SELECT FROM ledger WHERE tenant_id = %s AND event_id = %s AND topic = %s"
    while db.execute(known, [letter.claimed, redriven_id(base, n), letter.topic]).fetchone() is not None:
        n += 1
    return n


def _note(letters: Sequence[Letter], asked: Asked, n: int | None) -> Note:
    """What is said of a redrive when it begins."""
    letter, base = letters[0], original_id(letters[0].event_id)
    return {
        "note": str(uuid.uuid4()),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.log_offset,
        "rows": _rows(letters),
        "tenant_id": letter.tenant_id,
        "claimed": letter.claimed,
        "original_id": base,
        "n": n,
        "event_id": None if n is None else redriven_id(base, n),
        "by": asked.by,
        "why": asked.why,
        "patch": json.dumps(asked.patch.patch) if asked.patch else None,
        "begun_ms": _now_ms(),
        "result": "begun",
        "detail": None,
        "sent_offset": None,
        "ended_ms": None,
    }


def _rows(letters: Sequence[Letter]) -> str:
    return ",".join(str(one.row_index) for one in letters if one.row_index is not None)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _loaded(patch: str | None) -> Any:
    return None if patch is None else json.loads(patch)


def _said(patch: Patch | None) -> Any:
    return None if patch is None else patch.patch
