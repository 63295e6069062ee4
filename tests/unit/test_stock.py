"""How movements change levels: the rules one by one, and any log of them against a model that is plain and slow."""

import io
from typing import Any

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from deploy.chaos.stock_model import RECENT, Stock
from schemas import codec, stock, topics
from schemas.stock import Level, decode_level, encode_level
from streams.stock import Source, fold_batch

TENANT, ACCEPTED = b"acme", 1_000
Levels = dict[bytes, Level]


def movement(kind: str, quantity: int, product_id: str = "P", **more: Any) -> codec.Record:
    return {"line": 0, "product_id": product_id, "kind": kind, "quantity": quantity, **more}


def folded(levels: Levels, *rows: codec.Record, offset: int = 0, oversell: bool = False) -> list[codec.Record]:
    """The MovementOutcomes of one message, as a reader of `outcomes` sees them."""
    value = codec.encode(stock.MOVEMENTS, {"tenant_id": "acme", "rows": list(rows)})
    source = Source(TENANT, f"event-{offset}", offset, ACCEPTED, ACCEPTED + 5)
    written = fold_batch(levels, codec.decode_rows(stock.MOVEMENTS, value)["rows"], source, oversell)
    head = {"tenant_id": "acme", "event_id": "e", "type": stock.MOVEMENTS, "topic": "stock", "partition": 0}
    record = head | {"offset": offset, "time_ms": 1, "accepted_ms": 1}
    return list(codec.decode(stock.OUTCOME, codec.encode_around(stock.OUTCOME, record, written))["movements"])


def told(outcomes: list[codec.Record]) -> list[tuple[Any, ...]]:
    return [(o["outcome"], o["code"], o["quantity"], o["version"]) for o in outcomes]


def test_deltas_add_and_a_set_replaces() -> None:
    rows = [
        movement("received", 10), movement("sold", 3), movement("returned", 1), movement("adjusted", -2),
        movement("set", 50), movement("adjusted", 1),
    ]  # fmt: skip
    quantities = [10, 7, 8, 6, 50, 51]
    assert told(folded({}, *rows)) == [("applied", None, q, n) for n, q in enumerate(quantities, 1)]


def test_a_sale_below_zero_is_rejected_alone_unless_the_tenant_oversells() -> None:
    rows = [movement("received", 2), movement("sold", 3), movement("adjusted", -3), movement("sold", 2)]
    assert told(folded({}, *rows)) == [
        ("applied", None, 2, 1), ("rejected", "insufficient_stock", 2, 1), ("rejected", "insufficient_stock", 2, 1),
        ("applied", None, 0, 2),
    ]  # fmt: skip
    assert [o["quantity"] for o in folded({}, *rows, oversell=True)] == [2, -1, -4, -6]


def test_what_makes_a_negative_level_less_negative_is_taken() -> None:
    levels: Levels = {}
    folded(levels, movement("sold", 10), oversell=True)
    rows = (movement("received", 3), movement("sold", 1), movement("adjusted", 0), movement("set", 0))
    assert told(folded(levels, *rows, offset=1)) == [
        ("applied", None, -7, 2), ("rejected", "insufficient_stock", -7, 2), ("applied", None, -7, 3),
        ("applied", None, 0, 4),
    ]  # fmt: skip


def test_of_sets_the_last_to_happen_wins_and_ties_go_to_the_later_in_the_log() -> None:
    rows = [
        movement("set", 1, occurred_at=500), movement("set", 2, occurred_at=499),
        movement("received", 5, occurred_at=1), movement("set", 3, occurred_at=500), movement("set", 4),
        movement("set", 5, occurred_at=10**17),
        movement("set", 6, occurred_at=ACCEPTED - 1),
    ]  # fmt: skip
    assert told(folded({}, *rows)) == [
        ("applied", None, 1, 1), ("superseded", None, 1, 1), ("applied", None, 6, 2), ("applied", None, 3, 3),
        ("applied", None, 4, 4), ("applied", None, 5, 5), ("superseded", None, 5, 5),
    ]  # fmt: skip


def test_a_date_far_ahead_freezes_nothing() -> None:
    levels: Levels = {}
    folded(levels, movement("set", 1, occurred_at=10**17))
    assert levels[b"acme/P"].set_at == ACCEPTED


def test_expected_quantity_holds_for_every_kind_and_answers_with_what_is_there() -> None:
    for kind in stock.KINDS:
        levels: Levels = {}
        folded(levels, movement("received", 7))
        [outcome] = folded(levels, movement(kind, 1, expected_quantity=6), offset=1)
        assert told([outcome]) == [("rejected", "expected_quantity_mismatch", 7, 1)]
        assert stock.reason(outcome) == "expected 6, the level is 7 (version 1)"
        [outcome] = folded(levels, movement(kind, 1, expected_quantity=7), offset=2)
        assert outcome["outcome"] == "applied"
    assert folded({}, movement("received", 7, expected_quantity=0))[0]["outcome"] == "applied"


def test_a_movement_id_counts_once_a_product_and_gets_its_first_result_again() -> None:
    levels: Levels = {}
    folded(levels, movement("received", 5, movement_id="m"), movement("received", 2))
    rows = (movement("sold", 1, movement_id="m"), movement("received", 1, "Q", movement_id="m"))
    assert told(folded(levels, *rows, offset=1)) == [("duplicate", None, 5, 1), ("applied", None, 1, 1)]


def test_what_was_refused_may_be_sent_again_under_its_id() -> None:
    levels: Levels = {}
    folded(levels, movement("sold", 5, movement_id="m"))
    folded(levels, movement("received", 5), offset=1)
    assert told(folded(levels, movement("sold", 5, movement_id="m"), offset=2)) == [("applied", None, 0, 2)]


def test_an_event_that_comes_again_counts_nothing_twice_though_its_own_id_is_forgotten() -> None:
    levels: Levels = {}
    rows = [movement("received", 1), movement("received", 1), movement("received", 1, "Q")]
    first = folded(levels, *rows)
    again = folded(levels, *rows)
    assert [o["outcome"] for o in first] == ["applied"] * 3
    assert told(again) == [("duplicate", None, 1, 1), ("duplicate", None, 2, 2), ("duplicate", None, 1, 1)]


def test_a_level_knows_its_last_32_movements() -> None:
    levels: Levels = {}
    for n in range(RECENT + 1):
        folded(levels, movement("received", 1, movement_id=f"m{n}"), offset=n)
    assert len(levels[b"acme/P"].recent) == 16 * RECENT
    assert told(folded(levels, movement("received", 1, movement_id="m1"), offset=50)) == [("duplicate", None, 2, 2)]
    assert told(folded(levels, movement("received", 1, movement_id="m0"), offset=51)) == [("applied", None, 34, 34)]


def test_what_is_impossible_is_rejected_alone() -> None:
    most = stock.MAX_QUANTITY
    rows = [
        movement("sold", -1), movement("received", most + 1), movement("received", 1, ""),
        movement("set", 1, "x" * 101), movement("set", 1, "a\x00b"),
        movement("set", 1, movement_id="x" * 101), movement("set", 1, occurred_at=-1),
        movement("received", most), movement("received", 1),
    ]  # fmt: skip
    levels: Levels = {}
    outcomes = folded(levels, *rows)
    assert [o["code"] for o in outcomes] == [
        "negative_quantity", "out_of_range", "invalid_product_id", "invalid_product_id", "invalid_product_id",
        "invalid_movement_id", "out_of_range", None, "out_of_range",
    ]  # fmt: skip
    assert list(levels) == [b"acme/P"]
    assert all(stock.reason(o) for o in outcomes if o["code"])


any_movement = st.fixed_dictionaries(
    {
        "line": st.just(0),
        "product_id": st.sampled_from(["P", "Q/1"]),
        "kind": st.sampled_from(stock.KINDS),
        "quantity": st.integers(-3, 9),
        "movement_id": st.none() | st.integers(0, 40).map(str),
        "occurred_at": st.none() | st.integers(995, 1_003),
        "expected_quantity": st.none() | st.integers(-1, 5),
    }
)
any_log = st.lists(st.tuples(st.booleans(), st.lists(any_movement, max_size=12)), max_size=12)


@given(any_log)
def test_any_log_gives_what_the_model_gives(log: list[tuple[bool, list[codec.Record]]]) -> None:
    levels: Levels = {}
    model = Stock()
    for offset, (oversell, rows) in enumerate(log):
        model.oversell["acme"] = oversell
        outcomes = folded(levels, *rows, offset=offset, oversell=oversell)
        assert told(outcomes) == model.take("acme", f"event-{offset}", b"", rows, ACCEPTED)
        assert [o["movement"] for o in outcomes] == rows
        # A worker that starts anew reads what another wrote.
        levels = {key: decode_level(encode_level(key, level)) for key, level in levels.items()}
    kept = {topics.parse_level_key(key): (level.quantity, level.version) for key, level in levels.items()}
    assert kept == model.levels()


@given(st.text(min_size=1, max_size=100).filter(lambda text: "\x00" not in text))
def test_the_first_slash_of_a_key_ends_the_tenant(product_id: str) -> None:
    assert topics.parse_level_key(topics.level_key(TENANT, product_id)) == ("acme", product_id)
    assert topics.parse_level_key(b"\x00fence") is None


longs = st.integers(-(2**63), 2**63 - 1)


@given(longs, longs, longs, longs, st.none() | longs, st.binary(max_size=600), st.text(max_size=50))
def test_a_level_is_what_fastavro_writes(
    quantity: int, version: int, offset: int, changed_at: int, set_at: int | None, recent: bytes, product_id: str
) -> None:
    level = Level(quantity, version, offset, changed_at, set_at, recent)
    value = encode_level(topics.level_key(TENANT, product_id), level)
    record = codec.decode(stock.LEVEL, value)
    assert (record["tenant_id"], record["product_id"]) == ("acme", product_id)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, codec._catalogue()[0][stock.LEVEL][-1].physical, record)
    assert value[10:] == out.getvalue()
    assert decode_level(value) == level
