"""Daily metrics are what a plain GROUP BY of the orders says, whatever was changed, when, and beside whom."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline import Pipeline, eventually
from reader import Reader

from schemas.envelope import Envelope, Position
from sinks.batch import Message
from sinks.daily_metrics import connect, pause_after, refresh
from sinks.sql import statement
from sinks.upsert import upsert
from sinks.writer import connect as connect_sink

Db = psycopg.Connection[Any]
TOPIC = "ingestion.unique"
DAY_US = 86_400_000_000
METRICS = (
    "SELECT tenant_id, day, currency, orders, cancelled, refunded, revenue, customers, average_order"
    " FROM tenant_daily_metrics ORDER BY 1, 2, 3"
)
BY_HAND = """
SELECT tenant_id, (order_date AT TIME ZONE 'UTC')::date, currency, count(*),
       sum((order_status = 'cancelled')::int), sum((order_status = 'refunded')::int),
       sum(CASE WHEN order_status IN ('cancelled', 'refunded') THEN 0 ELSE total_amount END),
       count(DISTINCT customer_id),
       round(avg(total_amount) FILTER (WHERE order_status <> 'cancelled' AND order_status <> 'refunded'), 2)
FROM orders GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
MARKS = "SELECT DISTINCT tenant_id, day FROM metrics_marks ORDER BY 1, 2"

orders = st.tuples(
    st.sampled_from(["one", "two"]),
    st.integers(0, 5),  # which order
    st.sampled_from(["EUR", "USD"]),
    st.sampled_from(["paid", "cancelled", "refunded"]),
    st.sampled_from([0, 1, DAY_US - 1, DAY_US, 2 * DAY_US - 1, 2 * DAY_US]),  # its date
    st.integers(0, 999),  # cents
    st.sampled_from([None, "C-1", "C-2"]),
    st.integers(0, 9),  # its version's time: late ones are superseded
)
batches = st.lists(orders, max_size=8)
steps = st.one_of(
    batches.map(lambda batch: ("write", batch)),
    st.just(("refresh", [])),
    st.just(("two at once", [])),
    batches.map(lambda batch: ("write while marks go", batch)),
    batches.map(lambda batch: ("write while it counts", batch)),
    batches.map(lambda batch: ("write while two refresh", batch)),
    st.integers(0, 5).map(lambda order: ("delete by hand", order)),
    st.integers(0, 5).map(lambda order: ("change by hand", order)),
    st.integers(0, 5).map(lambda order: ("insert by hand", order)),
)


class Interleaved(psycopg.Connection[Any]):
    """A refresher's connection on which something else happens just before a statement."""

    before: bytes = b""
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        if query == self.before:
            self.before = b""
            self.meanwhile()
        return super().execute(query, *args, **kwargs)


class Days:
    """A sink's connection, and those of two refreshers."""

    def __init__(self, url: str) -> None:
        self.sink, self.owner = connect_sink(url), psycopg.connect(url, autocommit=True)
        self.first = Interleaved.connect(url, autocommit=True)
        self.first.execute("SET ROLE tillstream_writer")
        self.second = connect(url)
        self.offset = 0
        self.threads = ThreadPoolExecutor(1)

    def clear(self) -> None:
        self.owner.execute("TRUNCATE orders, order_items, metrics_marks, tenant_daily_metrics, sink_offsets")

    def write(self, batch: list[Any]) -> None:
        """As a sink writes a batch, a message a tenant."""
        with self.sink.transaction():
            messages = []
            for tenant in ("one", "two"):
                self.offset += 1
                envelope = Envelope(
                    "e", "tillstream.orders.v1", "t", 0, 0, b"", Position("ingestion", 0, self.offset, 0)
                )
                rows = [
                    (tenant, f"A-{n}", bytes(16), customer, None, None, cents, currency, status, at, None, None,
                     version, self.offset, index)
                    for index, (owner, n, currency, status, at, cents, customer, version) in enumerate(batch)
                    if owner == tenant
                ]  # fmt: skip
                messages.append(Message(tenant, envelope, rows=rows, lines=[1] * len(batch), count=len(rows)))
            upsert(self.sink, "orders", messages)
            assert not [message.errors for message in messages if message.errors]

    def do(self, step: str, given: Any) -> None:
        match step:
            case "write":
                self.write(given)
            case "refresh":
                refresh(self.first, TOPIC)
                self.check()
            case "two at once":
                other = self.threads.submit(refresh, self.second, TOPIC)
                refresh(self.first, TOPIC)
                other.result()
            case "write while marks go" | "write while it counts":
                self.first.before = statement("delete_marks" if step.endswith("go") else "count_days")
                self.first.meanwhile = lambda: self.write(given)
                refresh(self.first, TOPIC)
                self.first.before = b""
            case "write while two refresh":
                self.first.before = statement("count_days")
                self.first.meanwhile = lambda: (self.write(given), refresh(self.second, TOPIC))
                refresh(self.first, TOPIC)
                self.first.before = b""
            case "delete by hand":
                self.owner.execute("DELETE FROM orders WHERE external_order_id = %s", [f"A-{given}"])
            case "change by hand":
                self.owner.execute(
                    "UPDATE orders SET order_date = order_date + interval '1 day' WHERE external_order_id = %s",
                    [f"A-{given}"],
                )

            case "insert by hand":
                self.owner.execute(
                    "INSERT INTO orders SELECT 'two', 'copy of ' || external_order_id, id, customer_id, NULL, NULL, 1,"
                    " 'EUR', 'paid', order_date, NULL, NULL, version_at, 0, 0 FROM orders"
                    " WHERE external_order_id = %s AND tenant_id = 'one' ON CONFLICT DO NOTHING",
                    [f"A-{given}"],
                )

    def check(self) -> None:
        """Right now, and nothing left to do."""
        assert self.owner.execute(MARKS).fetchall() == []
        assert self.owner.execute(METRICS).fetchall() == self.owner.execute(BY_HAND).fetchall()


@pytest.fixture(scope="module")
def days() -> Iterator[Days]:
    with Pipeline.database() as url:
        yield Days(url)


@given(st.lists(steps, max_size=12))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_metrics_are_what_a_plain_group_by_says(days: Days, given: list[tuple[str, Any]]) -> None:
    days.clear()
    for step, what in given:
        days.do(step, what)
    refresh(days.first, TOPIC)
    days.check()


def order(n: int, at: int = 0, version: int = 0, status: str = "paid", currency: str = "EUR") -> tuple[Any, ...]:
    return ("one", n, currency, status, at, 1_000, "C-1", version)


def test_an_order_that_moves_leaves_its_old_day(days: Days) -> None:
    days.clear()
    days.write([order(1)])
    days.do("refresh", [])
    days.write([order(1, at=DAY_US, version=1)])
    assert days.owner.execute(MARKS).fetchall() == [("one", date(2000, 1, 1)), ("one", date(2000, 1, 2))]
    days.do("refresh", [])
    assert [row[1] for row in days.owner.execute(METRICS)] == [date(2000, 1, 2)]


def test_what_is_inserted_past_the_sinks_is_counted_too(days: Days) -> None:
    days.clear()
    days.write([order(1)])
    days.do("refresh", [])
    days.owner.execute(
        "INSERT INTO orders SELECT 'two', 'B', id, NULL, NULL, NULL, 7, 'EUR', 'paid', '2026-01-31 23:59:59.999999Z',"
        " NULL, NULL, now(), 1, 1 FROM orders"
    )
    days.do("refresh", [])
    assert [row[:2] for row in days.owner.execute(METRICS)] == [("one", date(2000, 1, 1)), ("two", date(2026, 1, 31))]


def test_a_day_that_another_refresher_has_is_left_to_it(days: Days) -> None:
    days.clear()
    days.owner.execute("INSERT INTO sink_offsets VALUES (%s, 3, 'x', 1, '2026-01-31Z')", [TOPIC])
    up_to = "SELECT counted_up_to = applied_up_to FROM sink_offsets"
    days.write([order(1), order(2, at=DAY_US)])
    seen: list[int] = []
    days.first.before = statement("count_days")
    days.first.meanwhile = lambda: seen.extend([refresh(days.second, TOPIC), refresh(days.second, TOPIC)])
    assert refresh(days.first, TOPIC) == 2
    assert seen == [0, 0]
    assert days.owner.execute(up_to).fetchall() == [(True,)]
    days.check()


def test_how_fresh_metrics_are_is_not_said_before_they_are(days: Days) -> None:
    days.clear()
    days.owner.execute("INSERT INTO sink_offsets VALUES (%s, 3, 'x', 1, '2026-01-31Z')", [TOPIC])
    up_to = "SELECT counted_up_to::date::text FROM sink_offsets"
    days.write([order(1)])
    seen: list[Any] = []

    def another_batch() -> None:
        refresh(days.second, TOPIC)  # has nothing to do that is its own, and does not say that all is done
        seen.extend(days.owner.execute(up_to).fetchall())
        days.write([order(2)])
        days.owner.execute("UPDATE sink_offsets SET applied_up_to = '2026-02-01Z'")

    days.first.before, days.first.meanwhile = statement("count_days"), another_batch
    refresh(days.first, TOPIC)
    assert seen == [(None,)]
    assert days.owner.execute(up_to).fetchall() == [("2026-01-31",)]
    days.do("refresh", [])
    assert days.owner.execute(up_to).fetchall() == [("2026-02-01",)]


# In a running sink

ORDER = {
    "external_order_id": "A-1", "customer_id": "C-1", "total_amount": "12.50", "currency": "EUR",
    "order_status": "paid", "order_date": "2026-01-31T23:59:59.999999Z",
}  # fmt: skip


def test_days_follow_what_is_sent(pipeline: Pipeline) -> None:
    reader = Reader(pipeline)
    reader.send("orders", ORDER, ORDER | {"external_order_id": "A-2", "order_status": "refunded"})
    day = {
        "day": "2026-01-31", "currency": "EUR", "orders": 2, "cancelled": 0, "refunded": 1, "revenue": "12.50",
        "customers": 1, "average_order": "12.50",
    }  # fmt: skip
    eventually(lambda: reader.page("metrics/daily")["data"] == [day])
    reader.send("orders", ORDER | {"order_date": "2026-02-01T00:30:00+01:00", "currency": "USD"})
    eventually(lambda: [row["currency"] for row in reader.page("metrics/daily")["data"]] == ["USD", "EUR"])
    reader.send("orders", ORDER | {"order_date": "2026-02-01T01:00:00+01:00", "order_status": "cancelled"})
    left = [("2026-02-01", "EUR", 1, "0.00", None), ("2026-01-31", "EUR", 1, "0.00", None)]
    names = ("day", "currency", "orders", "revenue", "average_order")
    eventually(lambda: [tuple(row[n] for n in names) for row in reader.page("metrics/daily")["data"]] == left)
    fresh = eventually(lambda: reader.get("metrics/daily").headers.get("applied-up-to"))
    assert fresh <= reader.get("orders").headers["applied-up-to"]


BUG = """
import sinks.daily_metrics as m
def refresh(db, topic):
    if db.execute("SELECT FROM metrics_marks").fetchone() is not None:
        raise RuntimeError("a bug")
    return 0
m.refresh = refresh
"""
ONE_ORDER = (
    "INSERT INTO orders VALUES ('t', 'A', gen_random_uuid(), NULL, NULL, NULL, 1, 'EUR', 'paid', '2026-01-31Z', NULL,"
    " NULL, now(), 1, 1) RETURNING id"
)


def test_a_refresher_that_fails_ends_the_sink(own_pipeline: Pipeline) -> None:
    own_pipeline.start("sinks", restarted=False, patch=BUG)
    process = own_pipeline.children["sinks"].process
    assert process is not None
    own_pipeline.sql(ONE_ORDER)
    assert process.wait(20) == 1
    assert "RuntimeError: a bug" in own_pipeline.log("sinks")


def test_a_refresher_whose_connection_breaks_goes_on(own_pipeline: Pipeline) -> None:
    own_pipeline.start("sinks", restarted=False)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    eventually(lambda: own_pipeline.sql(cut + " AND application_name = 'tillstream-metrics'") == [(True,)])
    own_pipeline.sql(ONE_ORDER)
    eventually(lambda: [row[:2] for row in own_pipeline.sql(METRICS)] == [("t", date(2026, 1, 31))])
    assert own_pipeline.children["sinks"].alive()
    assert "tillstream_sink_waits_total 0.0" not in httpx.get(own_pipeline.urls["sinks"]).text


def test_a_refresh_that_took_long_delays_the_next_by_seconds_only() -> None:
    pauses = [pause_after(seconds) for seconds in (0.001, 0.5, 6, 600)]
    assert pauses == pytest.approx([1, 9.5, 15, 15])
