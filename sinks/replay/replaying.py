"""The replay as a flow: fill the shadow, catch up, compare, promote."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from producers.breaker import Breaker
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings
from sinks import writer
from sinks.batch import Batch
from sinks.intake import Intake
from sinks.offsets import Move
from sinks.replay.differences import Comparison
from sinks.replay.log import At, Chunk, Log
from sinks.replay.plan import Plan, Progress, Report
from sinks.replay.shadow import Shadow

Db = psycopg.Connection[Any]

_NEAR: Final = 2_000
"""Offsets behind the live tables at which the last transaction may begin."""
_ROUNDS: Final = 20
_LOCK_S: Final = 15.0
"""How long sinks in the middle of a batch are waited for."""
_STOPPED_S: Final = 5.0
"""How long a replay that was stopped (SIGSTOP) holds sinks back after its time is up."""


_TOO_LONG: Final = (
    psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.errors.IdleInTransactionSessionTimeout,
)  # fmt: skip


Tell = Callable[[Progress], None]


def replay(settings: Settings, plan: Plan, tell: Tell = lambda _: None) -> Report:
    """Make the tables again, compare them with the live ones, and put those right if the plan says so.

    Raises Misconfigured where something must be put right first, Unavailable where trying again may do; either way
    nothing live has changed.
    """
    plan.check()
    with (
        Log(settings, plan.tenant, plan.topics, scattered=not plan.by_offset) as log,
        Shadow(settings.database_url, plan.tenant, keep=plan.keep) as shadow,
    ):
        return Replay(settings, plan, log, shadow, tell).run()


class Replay:
    """One run."""

    def __init__(self, settings: Settings, plan: Plan, log: Log, shadow: Shadow, tell: Tell) -> None:
        self._plan, self._log, self._shadow, self._db, self._tell = plan, log, shadow, shadow.db, tell
        self._intake = Intake(settings, time.sleep, again=True)
        self._breaker = Breaker(1.0, "a replay")  # it drains nothing
        self._positions: dict[At, int] = {}
        self._progress, self._report = Progress(), Report()

    def run(self) -> Report:
        """See `replay`."""
        self._begin()
        started = time.monotonic()
        self._approach()
        self._report.reading_s = time.monotonic() - started
        self._step("comparing")
        self._shadow.analyze()
        with self._at_one_point() as ends:
            for chunk in self._log.read(self._positions, ends):
                self._in_time()
                self._clear_staging()
                self._write(self._intake.prepare(chunk.records), self._moves(chunk, self._stored))
            self._compare()
            if self._plan.promote:
                self._require_whole(ends)
                tables = [table for table in self._shadow.tables if table.name in self._report.tables]
                self._comparison.put_right(self._report.tables, tables)
        self._report.promoted = self._plan.promote
        self._require_known()
        return self._report

    def _begin(self) -> None:
        live = self._live()
        self._positions = self._log.starts(self._plan.since, live, merge=self._plan.merge)
        self._report.merged = self._plan.merge or self._plan.of_a_range or self._log.short
        self._stored = dict(self._positions)
        self._comparison = Comparison(
            self._db, self._shadow.schema, self._shadow.live, self._plan.tenant, merge=self._report.merged
        )
        for (topic, partition), offset in self._positions.items():
            self._db.execute(
                "INSERT INTO sink_offsets (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s)",
                [topic, partition, self._log.topics[topic].id, offset],
            )
        if self._log.short:  # the message that set a policy may be gone
            query = SQL("INSERT INTO ingestion_policies SELECT * FROM {}").format(
                Identifier(self._shadow.live, "ingestion_policies")
            )
            if self._plan.tenant is not None:
                query += SQL(" WHERE tenant_id = {}").format(Literal(self._plan.tenant))
            self._db.execute(query)
        self._db.commit()
        self._intake.policies.load(self._db)

    def _live(self, *, lock: bool = False) -> dict[At, int]:
        return self._log.live(self._db, self._shadow.live, lock=lock)

    def _approach(self) -> None:
        """Read until the live tables are near: they go on meanwhile."""
        for _ in range(_ROUNDS):
            ends = self._log.ends(self._plan.until, self._live())
            self._db.commit()
            behind = sum(end - self._positions[at] for at, end in ends.items() if end > self._positions[at])
            if behind <= (_NEAR if self._progress.total else 0):
                return
            self._progress.total += behind
            self._fill(ends)

    def _fill(self, ends: Mapping[At, int]) -> None:
        """Write what lies before `ends`, preparing each batch while the one before is being written."""
        writing: Future[None] | None = None
        with ThreadPoolExecutor(1, "shadow") as pool:
            before = sum(self._positions.values())
            for chunk in self._log.read(self._positions, ends):
                batch = self._intake.prepare(chunk.records)
                if writing is not None:
                    writing.result()
                writing = pool.submit(self._write, batch, self._moves(chunk, self._stored))
                now = sum(self._positions.values())
                self._progress.done, before = self._progress.done + now - before, now
                self._tell(self._progress)
            if writing is not None:
                writing.result()

    def _write(self, batch: Batch, moves: list[Move]) -> None:
        writer.write(self._db, batch, moves, self._breaker)
        self._progress.rows += rows_of(batch)
        self._report.rows = self._progress.rows

    def _moves(self, chunk: Chunk, stored: dict[At, int]) -> list[Move]:
        self._report.messages += len(chunk.records)
        moves = [Move(*at, self._log.topics[at[0]].id, stored[at], end) for at, end in sorted(chunk.ends.items())]
        stored |= chunk.ends
        return moves

    @contextmanager
    def _at_one_point(self) -> Iterator[dict[At, int]]:
        """A transaction in which the live tables stand still, and where they are. Promoting, sinks are held back."""
        promote, started = self._plan.promote, time.monotonic()
        try:
            with self._db.transaction():
                if not promote:
                    self._db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self._db.execute("SET LOCAL work_mem = '128MB'")
                if promote:
                    self._db.execute("SET LOCAL synchronous_commit = on")
                    # Whatever happens to this process, sinks go on when the time is up.
                    for name, bound_s in (
                        ("statement_timeout", self._plan.hold_s),
                        ("idle_in_transaction_session_timeout", self._plan.hold_s + _STOPPED_S),
                        ("lock_timeout", _LOCK_S),
                    ):
                        self._db.execute("SELECT set_config(%s, %s, true)", [name, f"{max(1, round(bound_s * 1000))}"])
                live = self._live(lock=promote)
                started = time.monotonic()
                self._deadline = started + self._plan.hold_s
                yield self._log.ends(self._plan.until, live)
            if promote:
                self._report.held_s = time.monotonic() - started
        except _TOO_LONG as exc:
            raise self._too_long() from exc

    def _too_long(self) -> Unavailable:
        return Unavailable(
            f"sinks would be held back for longer than {self._plan.hold_s:.0f} s; nothing was changed. Try when less is"
            " going on, or allow more with --hold"
        )

    def _compare(self) -> None:
        tables = {table.name: table for table in self._shadow.tables}
        chosen = set(self._plan.topics)
        for name, table in tables.items():
            missing = table.decision.fed_by - chosen
            if missing == table.decision.fed_by:
                continue
            if missing and not self._report.merged:
                self._report.left_out[name] = f"filled from {', '.join(sorted(missing))} too"
                continue
            self._in_time()
            found = self._comparison.compare(table, tables)
            self._comparison.sample(table, found, self._plan.samples)
            self._report.tables[name] = found
        self._in_time()

    def _in_time(self) -> None:
        if self._plan.promote:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._too_long()
            self._db.execute("SELECT set_config('statement_timeout', %s, true)", [str(max(1, round(left * 1000)))])

    def _require_whole(self, ends: Mapping[At, int]) -> None:
        """Raises Misconfigured where the shadow does not hold all that the live tables do."""
        rows = self._db.execute("SELECT topic, partition, next_offset FROM sink_offsets").fetchall()
        stored = {(topic, partition): offset for topic, partition, offset in rows}
        for (topic, partition), end in ends.items():
            if stored.get((topic, partition), -1) < end:
                raise Misconfigured(
                    f"the shadow ends at {stored.get((topic, partition))} of {topic}[{partition}], the live tables at"
                    f" {end}: it is incomplete and is not promoted. Nothing was changed; begin again"
                )

    def _require_known(self) -> None:
        if self._plan.tenant is None or self._report.messages or self._report.differing:
            return
        if not self._plan.of_a_range or not self._shadow.known():  # nothing need lie in a range
            raise Misconfigured(f"neither the topics nor the tables know a tenant {self._plan.tenant!r}")

    def _clear_staging(self) -> None:
        """Staging tables empty themselves when a transaction ends, and here several batches share one."""
        rows = self._db.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'"
        )
        if names := [Identifier("pg_temp", row[0]) for row in rows]:
            self._db.execute(SQL("TRUNCATE {}").format(SQL(", ").join(names)))

    def _step(self, name: str) -> None:
        self._progress.step = name
        self._tell(self._progress)


def rows_of(batch: Batch) -> int:
    """Rows, movements, price changes and levels of a batch."""
    return (
        sum(message.count for message in batch.messages)
        + sum(len(folded["movements"]) for folded in batch.folded)
        + sum(len(judged["rows"]) for judged in batch.judged)
        + len(batch.levels)
    )
