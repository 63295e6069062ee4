"""Plain Python values become the rows that the gateway makes of their JSON."""

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.parse import parse
from producers.batches import batch_of
from producers.rows import KINDS, encoded, kind_of
from schemas import codec, topics
from schemas.errors import Rejected
from schemas.rows import ENTITIES
from schemas.values import Invalid

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ORDER: dict[str, Any] = {
    "external_order_id": "A-1",
    "total_amount": Decimal("12.50"),
    "currency": "EUR",
    "order_status": "paid",
    "order_date": NOON,
}
PRODUCT: dict[str, Any] = {"product_id": "P-1", "name": "Kettle", "price": 30}


def record(entity: str, row: dict[str, Any], currency: str = "") -> codec.Record:
    kind = KINDS[entity]
    batch = batch_of(kind, "t", [encoded(kind.entity, row, 1, currency)], "e", "test")
    [made] = codec.decode(kind.entity.type, batch.value)["rows"]
    return dict(made)


def test_money_and_times_may_be_python_s_own() -> None:
    made = record("orders", ORDER | {"updated_at": NOON.astimezone(timezone(timedelta(hours=5)))})
    assert made["total_amount"] == b"\x04\xe2"
    assert made["order_date"] == made["updated_at"] == 1_769_860_800_000_000
    for same in ("12.50", "12.5", Decimal("1.25E1"), 12.5):
        assert record("orders", ORDER | {"total_amount": same})["total_amount"] == b"\x04\xe2"
    assert record("orders", ORDER | {"order_date": "2026-01-31T12:00:00Z"})["order_date"] == made["order_date"]


def test_unknown_fields_are_kept_those_of_items_too() -> None:
    item = {"product_id": "P", "quantity": 2, "unit_price": "6.25", "gift": True}
    made = record("orders", ORDER | {"channel": "web", "weight": Decimal("1.10"), "items": [item]})
    assert json.loads(made["raw_payload"]) == {"channel": "web", "weight": 1.1, "items": [{"gift": True}]}
    assert made["items"] == [{"product_id": "P", "quantity": 2, "unit_price": b"\x02q"}]
    assert json.loads(record("products", PRODUCT | {"colour": "red"}, "EUR")["attributes"]) == {"colour": "red"}


def test_a_row_that_names_no_currency_takes_the_one_given_and_needs_one() -> None:
    assert record("products", PRODUCT, "USD")["currency"] == "USD"
    assert record("products", PRODUCT | {"currency": "EUR"}, "USD")["currency"] == "EUR"
    with pytest.raises(Invalid, match="currency"):
        record("products", PRODUCT)


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"total_amount": Decimal("0.005")}, "too_many_decimals", ""),
        ({"total_amount": Decimal("-1")}, "negative_amount", ""),
        ({"total_amount": 0.1 + 0.2}, "too_many_decimals", ""),
        ({"total_amount": b"\x01"}, "invalid_value", ""),
        ({"order_date": datetime(2026, 1, 31)}, "invalid_value", "/order_date"),
        ({"order_date": datetime(1969, 1, 31, tzinfo=UTC)}, "out_of_range", "/order_date"),
        ({"external_order_id": ""}, "invalid_value", "/external_order_id"),
        ({"external_order_id": "a\x00"}, "nul_character", ""),
        ({"note": "a\x00"}, "nul_character", ""),
        ({"external_order_id": "\ud800"}, "wrong_type", ""),
        ({"note": object()}, "wrong_type", ""),
        ({"items": [5]}, "invalid_value", "/items/0"),
        ({"currency": None}, "missing_field", "/currency"),
        ({"currency": "eur"}, "invalid_value", "/currency"),
        ({"order_status": "nonsense"}, "invalid_value", "/order_status"),
    ],
)
def test_a_wrong_row_says_which_and_why(change: dict[str, Any], code: str, pointer: str) -> None:
    entity = ENTITIES["orders"]
    with pytest.raises(Invalid, match="line 7: ") as caught:
        encoded(entity, ORDER | change, 7, "")
    assert (caught.value.code, caught.value.pointer) == (code, pointer)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Invalid, match="external_order_id"):
        record("orders", {name: value for name, value in ORDER.items() if name != "external_order_id"})


texts = st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@given(
    st.fixed_dictionaries(
        {"external_order_id": st.text("abcÄ\\u0", min_size=1, max_size=20),
         "total_amount": st.decimals(0, 9_999_999_999, places=2, allow_nan=False),
         "order_date": st.datetimes(datetime(1970, 1, 2), datetime(2199, 1, 1), timezones=st.just(UTC))},
        optional={"customer_name": texts, "note": texts, "seen": st.lists(st.booleans())},
    )
)  # fmt: skip
def test_a_row_is_what_the_gateway_makes_of_its_json(row: dict[str, Any]) -> None:
    line = json.dumps(ORDER | row, default=str).encode()
    [(_, theirs)], errors = asyncio.run(parse(ENTITIES["orders"], [(1, line)], "EUR", 500_000))
    assert errors == []
    entity = ENTITIES["orders"]
    value = codec.frame(entity.type, "t", [encoded(entity, ORDER | row, 1, ""), theirs])
    made = codec.decode(entity.type, value)["rows"]
    kept = [json.loads(one.pop("raw_payload") or "{}") for one in made]
    assert made[0] == made[1]
    assert kept[0] == kept[1] == {name: row[name] for name in ("note", "seen") if name in row}


def test_what_is_no_batch_is_refused() -> None:
    kind = kind_of("orders")
    part = encoded(kind.entity, ORDER | {"note": "x" * 100_000}, 1, "")
    for rows, code in (([], "too_many_rows"), ([part] * 1_001, "too_many_rows"), ([part] * 10, "batch_too_large")):
        with pytest.raises(Rejected) as caught:
            batch_of(kind, "t", rows, "e", "test")
        assert caught.value.code == code
    assert len(batch_of(kind, "t", [part] * 8, "e", "test").value) < topics.MAX_MESSAGE_BYTES
    with pytest.raises(Rejected, match="shoes"):
        kind_of("shoes")
