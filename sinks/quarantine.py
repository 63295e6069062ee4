"""What was set aside, for operators: found by tenant, reason, topic and time, and read into rows again."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import psycopg
from psycopg.rows import class_row

from schemas import codec
from schemas.errors import Rejected
from schemas.movements import sent
from schemas.rows import as_json
from schemas.stock import MOVEMENTS
from sinks.sql import statement

Db = psycopg.Connection[Any]

STATUSES: Final = ("open", "begun", "sent", "failed", "done", "corrected")
"""Nothing was done; a redrive was begun and whether Kafka took it is unknown; sent; how that ended; put right by its
tenant."""
_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_UNDONE: Final = ("open", "begun")


@dataclass(frozen=True, slots=True)
class Letter:
    """A line of the view `quarantine`: a whole message, or a row of one (`row_index`)."""

    kind: str
    topic: str
    partition: int
    log_offset: int
    row_index: int | None
    tenant_id: str | None
    claimed: str
    step: str
    reason: str
    detail: str
    event_id: str
    type: str
    rows: int
    line: int | None
    natural_id: str | None
    accepted_at: datetime
    logged_at: datetime
    dead_at: datetime
    headers: dict[str, str] | None
    key: bytes | None
    payload_bytes: int | None
    payload: bytes | None
    row: str | None
    redriven_as: str | None
    status: str

    def name(self, prefix: str = "") -> str:
        """`topic/partition/offset`, and `/row` of a row: by which operators name it."""
        parts = [self.topic.removeprefix(prefix), self.partition, self.log_offset]
        return "/".join(map(str, parts if self.row_index is None else [*parts, self.row_index]))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters; what is not given does not matter. `nobodys` are those of no tenant that can be trusted."""

    tenant_id: str | None = None
    nobodys: bool = False
    reason: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    partition: int | None = None
    log_offset: int | None = None
    row_index: int | None = None
    statuses: tuple[str, ...] = field(default=_UNDONE)

    @property
    def anything(self) -> bool:
        """Whether nothing narrows it."""
        return self == Wanted(statuses=self.statuses)


def named(name: str, prefix: str = "") -> Wanted:
    """The letter of a name, whatever was done about it. Raises Rejected."""
    topic, *numbers = name.split("/")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() and len(number) < 19 for number in numbers):
        raise Rejected("bad_letter", f"a letter is named topic/partition/offset, and /row of a row, not {name!r}")
    partition, offset, *row = map(int, numbers)
    if partition >= 2**31 or (row and row[0] >= 2**31):
        raise Rejected("bad_letter", f"{name!r} names no letter")
    return Wanted(
        topic=prefix + topic, partition=partition, log_offset=offset, row_index=row[0] if row else None,
        statuses=STATUSES,
    )  # fmt: skip


def find(db: Db, wanted: Wanted, limit: int, *, newest_first: bool = True, whole: bool = False) -> list[Letter]:
    """Letters, in the order of their times; `whole` with their messages or rows."""
    order = "DESC" if newest_first else "ASC"
    query = f"{_found()} ORDER BY logged_at {order}, topic, partition, log_offset {order}, row_index LIMIT %(limit)s"
    with db.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(query.encode(), _parameters(wanted, whole) | {"limit": limit}).fetchall()


def summary(db: Db, wanted: Wanted) -> list[tuple[str | None, str, str, str, int]]:
    """How many there are, by tenant, topic, reason and status, the most first."""
    query = (
        f"SELECT tenant_id, topic, reason, status, count(*) FROM ({_found()}) AS f GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC"
    )
    return db.execute(query.encode(), _parameters(wanted, False)).fetchall()


def redrives(db: Db, letter: Letter) -> list[dict[str, Any]]:
    """What was done about a letter: who, when, why, and what came of it."""
    rows = db.execute(
        "SELECT to_jsonb(r) - '{topic,partition,log_offset,claimed,tenant_id}'::text[] FROM redrives AS r"
        " WHERE topic = %s AND partition = %s AND log_offset = %s"
        " AND (row_indexes = '{}' OR %s = ANY (row_indexes)) ORDER BY id",
        [letter.topic, letter.partition, letter.log_offset, letter.row_index],
    )
    return [row[0] for row in rows.fetchall()]


def contents(letter: Letter) -> list[dict[str, Any]]:
    """The rows of a letter as their merchant sent them. Raises Rejected for one that cannot be read."""
    if letter.kind == "row":
        return [_json(letter.row or "")]
    record = codec.decode(letter.type, letter.payload)
    shown = sent if letter.type == MOVEMENTS else as_json
    return [_json(shown(row)) for row in record.get("rows", [record])]


def _json(text: str) -> dict[str, Any]:
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError as exc:
        raise Rejected("row_cut", f"the row is not there whole: {exc}") from exc


def _found() -> str:
    return f"SELECT * FROM ({statement('quarantined').decode()}) AS found WHERE status = ANY (%(statuses)s)"


def _parameters(wanted: Wanted, whole: bool) -> dict[str, Any]:
    return asdict(wanted) | {"statuses": list(wanted.statuses), "whole": whole}
