"""Lines of a body become records or errors that name them; no bytes whatever raise, and money is exact."""

import json
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.parse import Line, lines_of, parse, parts_of
from schemas import codec, topics
from schemas.rows import ENTITIES

MAX_LINE = 500_000
ORDER = {
    "external_order_id": '"A-1"',
    "total_amount": '"12.50"',
    "currency": '"EUR"',
    "order_status": '"paid"',
    "order_date": '"2026-01-31T23:59:59Z"',
}
CUSTOMER = {"customer_id": '"C-1"'}
PRODUCT = {"product_id": '"P-1"', "name": '"Kettle"', "price": '"1.00"'}
ROWS = {"orders": ORDER, "customers": CUSTOMER, "products": PRODUCT}
ITEM = {"product_id": '"P"', "quantity": "1", "unit_price": '"1.00"'}


def text(fields: dict[str, str], **changes: str | None) -> str:
    """A JSON object of fields whose values are JSON already; None leaves one out."""
    return "{" + ", ".join(f'"{k}": {v}' for k, v in (fields | changes).items() if v is not None) + "}"


def items(**changes: str | None) -> str:
    return f"[{text(ITEM)}, {text(ITEM, **changes)}]"


def finished(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """What a coroutine returns that waits for nothing, and how often it let others have their turn."""
    turns = 0
    try:
        while True:
            coroutine.send(None)
            turns += 1
    except StopIteration as done:
        return done.value, turns


def parsed(entity: str, *lines: str | bytes, currency: str = "EUR") -> tuple[list[dict[str, Any]], list[Any]]:
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    (rows, errors), _ = finished(parse(ENTITIES[entity], list(enumerate(raw, start=1)), currency, MAX_LINE))
    type_ = ENTITIES[entity].type
    records = codec.decode(type_, codec.frame(type_, "t", [row for _, row in rows]))["rows"]
    assert [record["line"] for record in records] == [line for line, _ in rows]
    return records, errors


def good(entity: str, line: str | bytes) -> dict[str, Any]:
    """The one record of a line that is right; it fits the schema and survives Avro."""
    [record], errors = parsed(entity, line)
    assert errors == []
    type_ = ENTITIES[entity].type
    value = codec.encode(type_, {"tenant_id": "t", "rows": [record]})
    assert codec.decode(type_, value)["rows"] == [record]
    return record


def reasons(entity: str, line: str | bytes) -> set[tuple[str, str]]:
    """(pointer, code) of every error of a line that is wrong."""
    records, errors = parsed(entity, line)
    assert records == []
    assert errors
    for error in errors:
        assert error.keys() == {"line", "pointer", "code", "detail"}
        assert error["line"] == 1
        assert error["detail"]
    return {(error["pointer"], error["code"]) for error in errors}


def cents(record: dict[str, Any], field: str = "total_amount") -> int:
    return int.from_bytes(record[field], "big", signed=True)


def test_every_field_of_a_row_is_carried() -> None:
    product = PRODUCT | {
        "sku": '"S-9"', "currency": '"CHF"', "category": '"kitchen"', "active": "false", "attributes": '{"a":[1]}',
        "updated_at": '"2026-01-01T00:00:00Z"', "colour": '"red"',
    }  # fmt: skip
    assert good("products", text(product)) == {
        "line": 1, "product_id": "P-1", "sku": "S-9", "name": "Kettle", "price": b"d", "currency": "CHF",
        "category": "kitchen", "active": False, "attributes": '{"colour":"red","a":[1]}',
        "updated_at": 1_767_225_600_000_000,
    }  # fmt: skip
    customer = CUSTOMER | {"email": '"a@b"', "name": '"Zoë"', "phone": '"1"', "country": '"NL"'}
    assert list(good("customers", text(customer)).values()) == [1, "C-1", "a@b", "Zoë", "1", "NL", None, None]
    order = ORDER | {"customer_id": '"C"', "customer_name": '"N"', "customer_email": '"e"', "items": items()}
    record = good("orders", text(order))
    assert [record[f"customer_{field}"] for field in ("id", "name", "email")] == ["C", "N", "e"]
    assert [tuple(item.values()) for item in record["items"]] == [("P", 1, b"d")] * 2


# Lines and parts


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"\n\r\n \t\n", []),
        (b"\xef\xbb\xbf", []),
        (b"{}", [(1, b"{}")]),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbfa\r\n\r\n b \r\nc", [(1, b"a"), (3, b"b"), (4, b"c")]),
        ("\u2028\u0085".encode() + b"a\n", [(1, "\u2028\u0085".encode() + b"a")]),
    ],
)
def test_lines_are_numbered_as_an_editor_numbers_them(body: bytes, expected: list[Line]) -> None:
    assert list(lines_of(body, single=False)) == expected


@pytest.mark.parametrize(("body", "expected"), [(b" \n", []), (b"\xef\xbb\xbf{\r\n}\n", [(1, b"{\r\n}")])])
def test_a_json_body_is_one_line(body: bytes, expected: list[Line]) -> None:
    assert list(lines_of(body, single=True)) == expected


@given(st.lists(st.integers(1, MAX_LINE) | st.integers(1, 400), max_size=2_500))
@settings(max_examples=25, deadline=None)
def test_parts_keep_every_line_in_order_within_the_limits(sizes: list[int]) -> None:
    blank = memoryview(bytes(MAX_LINE))
    lines: list[Line] = [(n, blank[:size]) for n, size in enumerate(sizes, start=1)]  # type: ignore[misc]
    parts = list(parts_of(lines))
    assert [line for part in parts for line in part] == lines
    for part in parts:
        assert 1 <= len(part) <= topics.MAX_ROWS
        assert sum(len(raw) for _, raw in part) < topics.MAX_MESSAGE_BYTES


@pytest.mark.parametrize("line", [b"\n", b"x\n"])
def test_short_lines_take_no_more_memory_than_long_ones(line: bytes) -> None:
    body = line * (2_000_000 // len(line))
    tracemalloc.start()
    try:
        assert sum(len(part) for part in parts_of(lines_of(body, single=False))) == body.count(b"x")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


# Money, times, text: what is right stays exact


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("12.5", 1250), ("1e2", 10_000), ("1.10e0", 110), ("4.35", 435), ("8.41", 841), ("0", 0), ("0.07", 7), ("1E-2", 1),
     ("1234567890.12", 123456789012), ("9999999999.99", 10**12 - 1), ('"9999999999.99"', 10**12 - 1), ('"0.10"', 10),
     ('"12.5000"', 1250), ("1.0e1", 1000), ("70368744177664", None)],
)  # fmt: skip
def test_an_amount_is_exact(raw: str, expected: int | None) -> None:
    if expected is None:
        assert reasons("orders", text(ORDER, total_amount=raw)) == {("/total_amount", "out_of_range")}
    else:
        assert cents(good("orders", text(ORDER, total_amount=raw))) == expected
        assert cents(good("products", text(PRODUCT, price=raw)), "price") == expected
        record = good("orders", text(ORDER, items=items(unit_price=raw)))
        assert cents(record["items"][1], "unit_price") == expected


@given(st.decimals(0, Decimal("9999999999.99"), places=2), st.booleans())
@settings(max_examples=200)
def test_any_amount_in_cents_is_exact(value: Decimal, quoted: bool) -> None:
    record = good("orders", text(ORDER, total_amount=f'"{value}"' if quoted else f"{value}"))
    assert cents(record) == int(value.scaleb(2))


@pytest.mark.parametrize(
    ("raw", "moment"),
    [("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
     ("1970-01-01T00:00:00-14:00", datetime(1970, 1, 1, 14, tzinfo=UTC)),
     ("2199-12-31T23:59:59.999999Z", datetime(2199, 12, 31, 23, 59, 59, 999_999, UTC)),
     ("2024-02-29T12:00:00.5+05:30", datetime(2024, 2, 29, 6, 30, 0, 500_000, UTC)),
     ("2026-01-31t23:59:59z", datetime(2026, 1, 31, 23, 59, 59, 0, UTC))],
)  # fmt: skip
def test_a_time_is_kept_to_the_microsecond_in_utc(raw: str, moment: datetime) -> None:
    record = good("orders", text(ORDER, order_date=f'"{raw}"', updated_at=f'"{raw}"'))
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert (record["order_date"], record["updated_at"]) == (expected, expected)


@pytest.mark.parametrize("raw", [r"a\\u0000b", r"\ud83d\ude00", "Ærø\u2028x", r"tab\tquote\"", "😀", r"\\\\u0000"])
def test_text_is_kept_as_it_is(raw: str) -> None:
    record = good("orders", text(ORDER, customer_name=f'"{raw}"', gift=f'{{"{raw}": ["{raw}"]}}'))
    value = json.loads(f'"{raw}"')
    assert record["customer_name"] == value
    assert json.loads(record["raw_payload"]) == {"gift": {value: [value]}}


@pytest.mark.parametrize(
    "raw",
    ["1", "1.5", "1e3", "-0.25", "true", "null", '"x"', "[]", "{}", "[1.5, [2]]", "18446744073709551616", '"1.5"'],
)
@pytest.mark.parametrize(
    ("entity", "kept"), [("orders", "raw_payload"), ("customers", "attributes"), ("products", "attributes")]
)
def test_an_unknown_field_is_kept_as_it_is(entity: str, kept: str, raw: str) -> None:
    assert json.loads(good(entity, text(ROWS[entity], gift=raw))[kept]) == {"gift": json.loads(raw)}
    if kept == "attributes":
        record = good(entity, text(ROWS[entity], attributes=f'{{"a": {raw}}}', gift=raw))
        assert json.loads(record[kept]) == {"a": json.loads(raw), "gift": json.loads(raw)}


def test_absent_optionals_are_null_or_their_default() -> None:
    product = parsed("products", text(PRODUCT, sku="null", currency="null"), currency="CHF")[0][0]
    assert (product["sku"], product["currency"], product["active"], product["attributes"]) == ("P-1", "CHF", True, None)
    order = good("orders", text(ORDER))
    assert (order["items"], order["customer_id"], order["raw_payload"], order["updated_at"]) == ([], None, None, None)


def test_null_is_as_absent() -> None:
    for gift in (None, "1"):
        order = good("orders", text(ORDER, items="null", gift=gift))
        assert (order["items"], order["raw_payload"]) == ([], gift and '{"gift":1}')
        for entity, row in (("products", PRODUCT), ("customers", CUSTOMER)):
            assert good(entity, text(row, attributes="null", gift=gift))["attributes"] == (gift and '{"gift":1}')


@given(st.text(min_size=1, max_size=12))
@settings(max_examples=300)
def test_an_id_is_taken_unless_it_has_what_nobody_sees(id_: str) -> None:
    row = CUSTOMER | {"customer_id": json.dumps(id_, ensure_ascii=False)}
    records, _ = parsed("customers", text(row, gift="1"), text(row))
    unseen = id_.strip("\ufeff").strip() != id_ or any(c < " " or c == "\x7f" for c in id_)
    assert len(records) == (0 if unseen else 2)


# What is wrong says where and why


LONG = '"' + "x" * 101 + '"'
HUGE = str(2**40)
WRONG: list[tuple[str, str, str | None, str, set[str]]] = [
    *(("orders", name, None, f"/{name}", {"missing_field"}) for name in ORDER),
    *(("orders", name, raw, f"/{name}", {"wrong_type"}) for name in ORDER for raw in ("null", "[]", "true", "{}")),
    *(("orders", "external_order_id", raw, "/external_order_id", {"invalid_value"}) for raw in ('""', LONG)),
    *(("orders", "customer_id", raw, "/customer_id", {"invalid_value"}) for raw in ('""', LONG)),
    ("orders", "customer_id", "7", "/customer_id", {"wrong_type"}),
    *(
        (entity, name, f'"{raw}"', f"/{name}", {"invalid_value"})
        for entity, name in (("orders", "external_order_id"), ("orders", "customer_id"), ("customers", "customer_id"),
                             ("products", "product_id"), ("products", "sku"))
        for raw in (" ", "A ", " A", r"A\t", "\u00a0A", r"A\nB", "\ufeffA", r"\u007f")
    ),
    ("orders", "items", items(product_id='" P"'), "/items/1/product_id", {"invalid_value"}),
    ("orders", "gift", "[" + "9" * 5_000 + "]", "/gift", {"out_of_range"}),
    ("orders", "a~b", "-" + "9" * 5_000, "/a~0b", {"out_of_range"}),
    ("orders", "items", items(quantity="9" * 5_000), "/items", {"out_of_range"}),
    ("orders", "customer_email", '"' + "x" * 321 + '"', "/customer_email", {"invalid_value"}),
    *(("orders", "currency", raw, "/currency", {"invalid_value"}) for raw in ('"eur"', '"EURO"', r'"EUR\n"', '"ÉUR"')),
    *(("orders", "order_status", raw, "/order_status", {"invalid_value"}) for raw in ('"Paid"', '"nonsense"', '""')),
    *(("orders", "total_amount", raw, "/total_amount", {"negative_amount"}) for raw in ("-1", '"-0.01"', "-5.5")),
    ("orders", "total_amount", "-1e400", "/total_amount", {"negative_amount", "out_of_range"}),
    *(
        ("orders", "total_amount", raw, "/total_amount", {"out_of_range"})
        for raw in ("10000000000", "1e400", "1e9999", "1e999999", "1e999999999999", "123456789012345678901234567890.5")
    ),
    *(
        ("orders", "total_amount", f'"{raw}"', "/total_amount", {"out_of_range", "invalid_value"})
        for raw in ("1e400", "1e999999", "1e99999999999999999999", "NaN", "sNaN", "-sNaN9", "Infinity", "-Infinity")
    ),
    *(
        ("orders", "total_amount", raw, "/total_amount", {"too_many_decimals"})
        for raw in ("1.005", '"0.001"', "1e-400", "12.50000000000000000000000000001", "1e-999999999",
                    "9999999999.990000000000000000001")
    ),
    *(
        ("orders", "total_amount", f'"{raw}"', "/total_amount", {"invalid_value"})
        for raw in ("", "x", "1,000.00", "12,50", "12.50 EUR", "0x10", "+1", ".5", "5.", "1e2", "1E2", "01.50", "1_0",
                    " 1", "--1", "-", "\u0661", "NaN", "1e400")
    ),
    *(
        ("orders", "order_date", f'"{raw}"', "/order_date", {"invalid_value", "out_of_range"})
        for raw in ("", "0000-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z",
                    "1970-01-01T00:30:00+01:00", "2200-01-01T00:00:00Z", "2199-12-31T23:59:59-01:00", "2026-01-31",
                    "2026-01-31T23:59:59", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "yesterday")
    ),
    ("orders", "order_date", "1700000000", "/order_date", {"wrong_type"}),
    ("orders", "updated_at", '"2026-01-31"', "/updated_at", {"invalid_value"}),
    *(("orders", "items", raw, "/items", {"wrong_type"}) for raw in ("{}", '"x"')),
    ("orders", "items", "[1]", "/items/0", {"wrong_type"}),
    ("orders", "items", f"[{', '.join([text(ITEM)] * 1001)}]", "/items", {"invalid_value"}),
    *(("orders", "items", items(**{name: None}), f"/items/1/{name}", {"missing_field"}) for name in ITEM),
    *(("orders", "items", items(quantity=raw), "/items/1/quantity", {"wrong_type"}) for raw in ("1.5", '"2"', "true")),
    *(("orders", "items", items(quantity=raw), "/items/1/quantity", {"invalid_value"}) for raw in ("0", "-1", HUGE)),
    ("orders", "items", items(unit_price="-1"), "/items/1/unit_price", {"negative_amount"}),
    ("orders", "items", items(unit_price='"sNaN"'), "/items/1/unit_price", {"out_of_range", "invalid_value"}),
    ("orders", "items", items(product_id='""'), "/items/1/product_id", {"invalid_value"}),
    ("customers", "attributes", "[1]", "/attributes", {"wrong_type"}),
    ("products", "price", "-1", "/price", {"negative_amount"}),
    ("products", "name", '""', "/name", {"invalid_value"}),
    ("products", "active", '"yes"', "/active", {"wrong_type"}),
    ("products", "currency", r'"EUR\n"', "/currency", {"invalid_value"}),
    *(("orders", name, r'"a\u0000b"', f"/{name}", {"nul_character"}) for name in ("customer_name", "gift")),
    ("orders", r"a\u0000b", "1", r"/a\u0000b", {"nul_character"}),
    ("orders", "a~b/c", r'["\u0000"]', "/a~0b~1c/0", {"nul_character"}),
    ("customers", "attributes", r'{"a": [{"b": "\u0000"}]}', "/attributes/a/0/b", {"nul_character"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("entity", "field", "raw", "pointer", "codes"),
    WRONG,
    ids=[f"{f}={(r or 'absent')[:30]}" for _, f, r, _, _ in WRONG],
)
def test_a_wrong_field_is_named(entity: str, field: str, raw: str | None, pointer: str, codes: set[str]) -> None:
    found = reasons(entity, text(ROWS[entity], **{field: raw}))
    assert {at for at, _ in found} == {pointer}
    assert {code for _, code in found} & codes, found


def test_every_wrong_field_of_a_line_is_named_at_once() -> None:
    line = text(ORDER, external_order_id=None, currency='"x"', total_amount="-1", order_date='"1969-01-01T00:00:00Z"')
    assert {at for at, _ in reasons("orders", line)} == {
        "/external_order_id", "/currency", "/total_amount", "/order_date",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code"),
    [(line, "malformed_json") for line in (
        "nonsense", "{", "-", '{"a": 1} {"b": 2}', '{"a": 1,}', "{'a': 1}", text(ORDER, total_amount="NaN"),
        "[" * 100_000, text(ORDER, gift=r'"\ud800"'), text(ORDER, gift=r'"\udc00\ud800"'),
        text(ORDER, **{r"\ud800": "1"}), text(ORDER, gift='"a\x00b"'), text(ORDER, gift='{"a": ' * 60_000))]
    + [(line, "not_an_object") for line in ("[1, 2]", f"[{text(ORDER)}]", '"x"', "5", "1.5", "null", "true")]
    + [(b'{"a": "' + raw + b'"}', "invalid_utf8") for raw in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8x")]
    + [(b"\xff\xfe{\x00}\x00", "invalid_utf8"), (text(ORDER, gift=f'"{"x" * MAX_LINE}"'), "line_too_long")],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_line_that_is_no_object_is_named(line: str | bytes, code: str) -> None:
    found = reasons("orders", line)
    assert found in ({("", code)}, {("", "lone_surrogate")})


@pytest.mark.parametrize("entity", ROWS)
def test_no_depth_of_nesting_raises(entity: str) -> None:
    def sunk(frames: int, call: Callable[[], Any]) -> Any:
        """Call with a stack that is as deep as a server's."""
        return sunk(frames - 1, call) if frames else call()

    field = "gift" if entity == "orders" else "attributes"
    for depth in [*range(1, 900, 31), *range(900, 1_010, 2), 5_000, 60_000]:
        for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            line = text(ROWS[entity], **{field: f'{{"a": {nested}}}'})[:MAX_LINE]
            records, errors = sunk(40, lambda line=line: parsed(entity, line))  # type: ignore[misc]
            assert len(records) + len({error["line"] for error in errors}) == 1


@pytest.mark.parametrize("raw", ["1e999999", '"1e999999"', "1e-999999", '"' + "9" * 400_000 + '"', "9" * 400_000])
def test_no_number_is_slow(raw: str) -> None:
    line = text(ORDER, total_amount=raw, gift=raw)
    began = time.process_time()
    records, errors = parsed("orders", *[line] * 20)
    assert (len(records), {error["line"] for error in errors}) == (0, set(range(1, 21)))
    assert time.process_time() - began < 2


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*ORDER, *ITEM, "items", "attributes", "x"]), inner, max_size=8)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=300)
def test_any_bytes_become_a_record_or_an_error(line: bytes) -> None:
    for entity in ROWS:
        records, errors = parsed(entity, line, text(ROWS[entity]))
        assert len(records) + len({error["line"] for error in errors}) == 2
        assert records[-1]["line"] == 2


@pytest.mark.parametrize(
    "again", ['"total_amount": "99.00"', '"total_amount": "x"', '"g": 1, "g": 2', '"items": [], "items": {}']
)
def test_a_repeated_name_is_its_last_value_or_an_error(again: str) -> None:
    records, errors = parsed("orders", text(ORDER)[:-1] + f", {again}}}")
    assert len(records) + len({error["line"] for error in errors}) == 1
    if records and "99" in again:
        assert cents(records[0]) == 9900


def test_slow_lines_let_other_requests_have_their_turn() -> None:
    slow = text(ORDER, total_amount='"x"', gift=str([{"a": n} for n in range(1_000)]).replace("'", '"')).encode()
    began = time.process_time()
    (_, errors), turns = finished(parse(ENTITIES["orders"], [(n, slow) for n in range(1, 201)], "EUR", MAX_LINE))
    took = time.process_time() - began
    assert len(errors) == 200
    assert turns > took / 0.02


def test_a_clients_reason_why_it_has_no_row_is_shown() -> None:
    _, [error] = parsed("orders", b'"4 cells where the header has 3: [\\u0000]"')
    assert error["detail"] == r"expected a JSON object, got a string, '4 cells where the header has 3: [\x00]'"
