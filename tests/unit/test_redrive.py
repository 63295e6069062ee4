"""Rows that come once more: their ids, their headers, and that they overwrite nothing that came since."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.rows import encoded
from producers.tenants import Policies
from schemas import codec, envelope, redrive, stock
from schemas.envelope import Envelope, Position, Redrive
from schemas.errors import Undecodable
from schemas.price_events import PRICE
from schemas.prices import PRICE_CHANGES
from schemas.stock import Level
from schemas.values import Invalid
from sinks.batch import prepare
from streams.price_messages import take
from streams.price_state import amount
from streams.stock import Source, fold_batch

FIRST = Position("ingestion", 3, 42, 1_767_225_600_000)
AGAIN = Position("ingestion", 3, 99, 1_767_312_000_000)
ORDERS = "tillstream.orders.v1"
ROW: dict[str, Any] = dict.fromkeys(("customer_id", "customer_name", "customer_email", "raw_payload", "updated_at")) | {
    "line": 1, "external_order_id": "A", "total_amount": b"\x01", "currency": "EUR", "order_status": "paid",
    "order_date": 0, "items": [],
}  # fmt: skip


def headers(of: Redrive, type_: str = ORDERS, value: bytes = b"v", rows: int = 1) -> envelope.Headers:
    return redrive.redriven(
        event_id="e~r1", type=type_, source="dlq", accepted_ms=FIRST.time_ms - 5, rows=rows, value=value, redrive=of
    )


def test_redrives_of_redrives_do_not_pile_up() -> None:
    assert redrive.redriven_id("e", 1) == "e~r1"
    assert redrive.redriven_id("e~r1", 2) == "e~r2"
    assert redrive.original_id("e~r2") == "e"
    assert redrive.original_id("e~r0") == "e~r0"
    assert redrive.original_id("e~rx") == "e~rx"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=200), st.integers(1, 999_999))
def test_an_id_with_a_number_is_still_an_id_that_headers_take(event_id: str, n: int) -> None:
    made = redrive.redriven_id(event_id, n)
    read = envelope.read([("ce_type", ORDERS.encode()), ("ce_id", made.encode())], b"", AGAIN)
    assert read.event_id == made
    assert redrive.redriven_id(made, n) == made


def test_what_is_sent_once_more_says_where_it_came_first_and_streams_keep_that() -> None:
    sent = headers(Redrive(FIRST, (2, 7)))
    read = envelope.read(sent, b"v", AGAIN)
    assert (read.redrive, read.first_ms, read.first_offset) == (Redrive(FIRST, (2, 7)), FIRST.time_ms, 42)
    assert [read.first_index(place) for place in range(2)] == [2, 7]
    assert [read.place_of(index) for index in (2, 7)] == [0, 1]
    assert envelope.read_forwarded(envelope.forwarded(sent, read), b"v") == read


def test_a_stranger_cannot_make_rows_newer_than_the_log_has_them() -> None:
    read = envelope.read(headers(Redrive(Position("x", 0, 10**9, AGAIN.time_ms + 10**9))), b"v", AGAIN)
    assert read.first_ms == AGAIN.time_ms


@pytest.mark.parametrize(
    "header",
    [("ts-redrive-of", b"x"), ("ts-redrive-of", b"a/0/-1/0"), ("ts-redrive-of", b"a/0/1/%d" % 10**15),
     ("ts-redrive-rows", b"2,2"), ("ts-redrive-rows", b"7,2"), ("ts-redrive-rows", b""), ("ts-redrive-rows", b"1,x")],
)  # fmt: skip
def test_headers_that_say_nonsense_are_refused(header: tuple[str, bytes]) -> None:
    with pytest.raises(Undecodable, match="bad_header"):
        envelope.read([*headers(Redrive(FIRST)), header], b"v", AGAIN)


def test_rows_keep_the_version_they_had_where_they_came_first() -> None:
    rows = [ROW | {"external_order_id": "A"}, ROW | {"external_order_id": "B", "updated_at": 4_102_444_800_000_000}]
    value = codec.encode(ORDERS, {"tenant_id": "acme", "rows": rows})
    sent = headers(Redrive(FIRST, (2, 7)), value=value, rows=2)
    forwarded = envelope.forwarded(sent, envelope.read(sent, value, AGAIN))
    message = prepare(b"acme", value, forwarded, AGAIN, lambda _: Policies())
    first_us = FIRST.time_ms * 1000 - 946_684_800_000_000
    assert [row[-3:] for row in message.rows] == [(first_us - 5_000, 42, 2), (first_us, 42, 7)]
    wrong = headers(Redrive(FIRST, (2, 7, 8)), value=value, rows=2)
    refused = prepare(
        b"acme", value, envelope.forwarded(wrong, envelope.read(wrong, value, AGAIN)), AGAIN, lambda _: Policies()
    ).refused
    assert refused is not None
    assert refused.code == "bad_header"


def folded(levels: dict[bytes, Level], kind: str, quantity: int, at: int, first_at: int | None = None) -> Any:
    row = {"line": 1, "product_id": "P", "kind": kind, "quantity": quantity}
    value = codec.encode(stock.MOVEMENTS, {"tenant_id": "acme", "rows": [row]})
    source = Source(b"acme", str(uuid.uuid4()), at, at if first_at is None else first_at, at, first_at)
    written = fold_batch(levels, codec.decode_rows(stock.MOVEMENTS, value)["rows"], source, False)
    head = {"tenant_id": "acme", "event_id": "e", "type": stock.MOVEMENTS, "topic": "stock", "partition": 0}
    record = head | {"offset": at, "time_ms": 1, "accepted_ms": 1}
    [told] = codec.decode(stock.OUTCOME, codec.encode_around(stock.OUTCOME, record, written))["movements"]
    return told["outcome"], told["quantity"]


def test_a_movement_that_comes_once_more_adds_unless_a_set_counted_it() -> None:
    levels: dict[bytes, Level] = {}
    assert folded(levels, "set", 10, at=100) == ("applied", 10)
    assert folded(levels, "received", 5, at=300, first_at=200) == ("applied", 15)
    assert folded(levels, "received", 5, at=301, first_at=99) == ("superseded", 15)


def test_a_set_that_comes_once_more_replaces_nothing_that_came_since() -> None:
    levels: dict[bytes, Level] = {}
    assert folded(levels, "received", 10, at=100) == ("applied", 10)
    assert folded(levels, "set", 3, at=300, first_at=50) == ("superseded", 10)
    assert folded(levels, "set", 3, at=301, first_at=150) == ("applied", 3)


def test_a_price_that_named_no_currency_is_sent_again_without_one() -> None:
    row = {"product_id": "P", "new_price": "1.00"}
    parts = [encoded(PRICE, row, 1, currency) for currency in (None, "CHF")]
    rows = codec.decode(PRICE_CHANGES, codec.frame(PRICE_CHANGES, "acme", parts))["rows"]
    assert [one["currency"] for one in rows] == [None, "CHF"]
    with pytest.raises(Invalid, match="currency"):
        encoded(PRICE, row, 1, "")


def test_a_price_that_comes_once_more_does_not_replace_a_newer_one() -> None:
    prices: dict[bytes, bytes] = {}

    def priced(price: int, src: Position, again: Redrive | None = None) -> list[str]:
        row = {"product_id": "P", "new_price": amount(price)}
        record = codec.decode(PRICE_CHANGES, codec.encode(PRICE_CHANGES, {"tenant_id": "acme", "rows": [row]}))
        message = Envelope("e", PRICE_CHANGES, "test", src.time_ms, 1, b"", src, redrive=again)
        return [str(row["status"]) for row in take(prices, {}, b"acme", message, record)["rows"]]

    assert priced(1_000, Position("prices", 0, 50, FIRST.time_ms + 1)) == ["accepted"]
    assert priced(1_100, AGAIN, Redrive(FIRST)) == ["superseded"]
    assert priced(1_100, AGAIN, Redrive(Position("prices", 0, 60, FIRST.time_ms + 2))) == ["accepted"]
