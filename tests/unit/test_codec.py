"""Avro values in both framings; fastavro is the judge of our compiled writers and readers."""

import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.tenant import PricePolicy, price_record
from schemas import codec, prices
from schemas.compiled import zigzag
from schemas.errors import Rejected, Undecodable

ORDERS = "tillstream.orders.v1"
AVRO = Path(codec.__file__).with_name("avro")

text = st.text(max_size=200)
longs = st.integers(-(2**63), 2**63 - 1)
items = st.fixed_dictionaries(
    {"product_id": text, "quantity": st.integers(-(2**31), 2**31 - 1), "unit_price": st.binary(max_size=300)}
)
order = st.fixed_dictionaries(
    {
        "line": st.integers(0, 2**31 - 1),
        "external_order_id": text,
        "customer_id": st.none() | text,
        "customer_name": st.none() | text,
        "customer_email": st.none() | text,
        "total_amount": st.binary(max_size=8),
        "currency": text,
        "order_status": text,
        "order_date": longs,
        "items": st.lists(items, max_size=5),
        "raw_payload": st.none() | text,
        "updated_at": st.none() | longs,
    }
)
batches = st.fixed_dictionaries({"tenant_id": text, "rows": st.lists(order, max_size=5)})


def by_fastavro(type_: str, record: dict[str, Any]) -> bytes:
    schema = codec._catalogue()[0][type_][-1]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema.physical, record)
    return codec.SINGLE_OBJECT + schema.fingerprint + out.getvalue()


@given(batches)
def test_our_bytes_are_fastavros_bytes(batch: dict[str, Any]) -> None:
    value = codec.encode(ORDERS, batch)
    assert value == by_fastavro(ORDERS, batch)
    assert codec.decode(ORDERS, value) == batch
    assert codec.count_rows(ORDERS, value, len(batch["rows"])) == len(batch["rows"])


keys = st.fixed_dictionaries(
    {"key_id": text, "sha256": st.binary(), "created_at": longs, "expires_at": st.none() | longs}
)
limits = st.none() | st.integers(0, 2**31 - 1)
a_tenant = st.fixed_dictionaries(
    {
        "tenant_id": text,
        "name": text,
        "currency": text,
        "keys": st.lists(keys, max_size=3),
        "limits": st.fixed_dictionaries({"requests_per_minute": limits, "product_events_per_minute": limits}),
        "policies": st.fixed_dictionaries(
            {
                "currencies": st.lists(text, max_size=5),
                "order_totals": text,
                "oversell": st.booleans(),
                "prices": st.fixed_dictionaries({name: st.integers(1, 9) for name in prices.POLICY_RANGES}).map(
                    lambda policy: policy | {"actions": [{"finding": "jump", "action": "hold"}]}
                ),
            }
        ),
    }
)


@given(a_tenant)
def test_records_in_records_and_arrays_of_strings_are_fastavros_bytes_too(tenant: dict[str, Any]) -> None:
    type_ = "tillstream.tenant.v1"
    value = codec.encode(type_, tenant)
    assert value == by_fastavro(type_, tenant)
    assert codec.decode(type_, value) == tenant
    required = {name: tenant[name] for name in ("tenant_id", "name", "currency", "keys")}
    policies = {"currencies": [], "order_totals": "exact", "oversell": False, "prices": price_record(PricePolicy())}
    assert codec.decode(type_, codec.encode(type_, required))["policies"] == policies


moneys = st.none() | st.binary(max_size=8)
a_finding = st.fixed_dictionaries({"name": text, "score": st.integers(1, 100), "reason": text})
verdict = st.fixed_dictionaries(
    {
        "line": st.integers(0, 2**31 - 1),
        "product_id": text,
        "status": st.sampled_from(list(prices.Status)).map(str),
        "findings": st.lists(a_finding, max_size=3),
        "price_before": moneys,
        "new_price": moneys,
        "price_after": moneys,
        "currency": st.none() | text,
        "new_currency": st.none() | text,
        "version": longs,
        "occurred_at": longs,
        "source": text,
        "metadata": st.none() | text,
        "event_id": st.none() | text,
        "held_offset": st.none() | longs,
        "floor": moneys,
        "ceiling": moneys,
    }
)


@given(st.lists(verdict, max_size=3), longs, longs, st.none() | text)
def test_verdicts_are_fastavros_bytes_too(rows: list[Any], offset: int, time_ms: int, why: str | None) -> None:
    at = {"type": "t", "topic": "prices", "partition": 3, "offset": offset, "time_ms": time_ms, "accepted_ms": time_ms}
    said = {"event_id": "e", "request_id": why, "trimmed": 0, "breaker": why, "decided_by": why, "decision_reason": why}
    lines = None if why is None else len(why)
    said |= {"body_hash": b"h" * 16, "first_line": lines, "last_line": lines, "total_lines": lines}
    batch = {"tenant_id": "t", "rows": rows, **at, **said}
    value = codec.encode(prices.PRICE_VERDICTS, batch)
    assert value == by_fastavro(prices.PRICE_VERDICTS, batch)
    assert codec.decode(prices.PRICE_VERDICTS, value) == batch
    assert codec.count_rows(prices.PRICE_VERDICTS, value, len(rows)) == len(rows)


def test_the_words_of_verdicts_and_policies_are_those_of_their_schemas() -> None:
    [verdicts], [policy] = (codec._catalogue()[0][type_] for type_ in (prices.PRICE_VERDICTS, prices.PRICE_POLICY))
    row = {field["name"]: field["type"] for field in verdicts.declared["fields"][1]["type"]["items"]["fields"]}
    assert row["status"]["symbols"] == list(prices.Status)
    [action] = [field for field in policy.declared["fields"] if field["name"] == "actions"]
    assert action["type"]["items"]["fields"][1]["type"]["symbols"] == list(prices.Action)


@given(batches, st.data())
def test_damaged_bytes_are_undecodable_and_nothing_worse(batch: dict[str, Any], data: st.DataObject) -> None:
    value = bytearray(codec.encode(ORDERS, batch))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(value)))
    for damaged in (bytes(value), bytes(value[:cut])):
        try:
            codec.decode(ORDERS, damaged)
        except Undecodable as exc:
            assert exc.code


@given(longs)
def test_longs_are_coded_as_fastavro_codes_them(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert zigzag(number) == out.getvalue()


def test_the_fingerprint_is_that_of_the_specification() -> None:
    # Avro's own test vectors, share/test/data/schema-tests.txt.
    assert int.from_bytes(codec.crc64("null"), "little") == 7195948357588979594
    assert int.from_bytes(codec.crc64("int"), "little") == 8247732601305521295


def test_omitted_optionals_are_their_defaults_and_omitted_others_are_named() -> None:
    row = {"external_order_id": "A", "total_amount": b"\1", "currency": "EUR", "order_status": "paid", "order_date": 0}
    [read] = codec.decode(ORDERS, codec.encode(ORDERS, {"tenant_id": "t", "rows": [row]}))["rows"]
    assert (read["line"], read["items"], read["customer_id"]) == (0, [], None)
    with pytest.raises(Rejected, match="missing_field.*currency"):
        codec.encode(ORDERS, {"tenant_id": "t", "rows": [{k: v for k, v in row.items() if k != "currency"}]})


def test_confluents_framing_is_read_where_the_id_is_known() -> None:
    value = codec.encode(ORDERS, {"tenant_id": "t", "rows": []})
    framed = codec.CONFLUENT + (77).to_bytes(4, "big") + value[10:]
    known = {77: codec.fingerprint_of((AVRO / "orders.v1" / "001.avsc").read_text()), 78: b""}
    with pytest.raises(Undecodable, match="no_registry"):
        codec.decode(ORDERS, framed)
    codec.read_ids_with(known.get)
    try:
        assert codec.decode(ORDERS, framed) == {"tenant_id": "t", "rows": []}
        for unknown in (78, 79):
            with pytest.raises(Undecodable, match=f"unknown_schema: schema id {unknown}"):
                codec.decode(ORDERS, codec.CONFLUENT + unknown.to_bytes(4, "big") + value[10:])
    finally:
        codec.read_ids_with(None)


def test_a_registered_schema_is_ours_when_its_logical_types_are() -> None:
    text = (AVRO / "orders.v1" / "001.avsc").read_text()
    ours = codec.newest(ORDERS)[1]
    assert codec.fingerprint_of(text) == ours
    plain = codec._without_logical_types(json.loads(text))
    java = text.replace('"type": "string"', '"type": {"type": "string", "avro.java.string": "String"}')
    for same in (json.dumps(plain), java, text.replace('"doc"', '"note"')):
        assert codec.fingerprint_of(same) == ours
    for other in (text.replace('"scale": 2', '"scale": 4'), text.replace("timestamp-micros", "timestamp-millis")):
        assert codec.fingerprint_of(other) == b""
    for nonsense in (
        "",
        "[",
        '{"type": "record"}',
        '"other.Name"',
        '{"$schema": "x", "type": "object"}',
        "[" * 100_000,
    ):
        assert codec.fingerprint_of(nonsense) == b""


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "empty_value"), (b"", "empty_value"), (b"{}", "bad_framing"), (b"\xc3\x01" + bytes(8), "unknown_schema")],
)
def test_what_is_no_message_of_ours_is_named(value: bytes | None, code: str) -> None:
    with pytest.raises(Undecodable) as raised:
        codec.check_framing(ORDERS, value)
    assert raised.value.code == code


def test_a_number_without_end_is_refused_at_once() -> None:
    value = codec.encode(ORDERS, {"tenant_id": "", "rows": []})[:10] + b"\xff" * 900_000
    started = time.process_time()
    with pytest.raises(Undecodable):
        codec.decode(ORDERS, value)
    assert codec.count_rows(ORDERS, value, 5) == 5
    assert time.process_time() - started < 0.1


def test_a_schema_of_another_type_is_refused() -> None:
    with pytest.raises(Undecodable, match="wrong_schema"):
        codec.check_framing("tillstream.products.v1", codec.encode(ORDERS, {"tenant_id": "t", "rows": []}))


SAMPLES = Path(__file__).with_name("avro_samples")


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.bin")), ids=lambda path: path.stem)
def test_bytes_of_every_version_ever_used_still_read(sample: Path) -> None:
    """One sample a schema version, written when it was new: `<type>.<version>.bin` beside what it must read as."""
    type_ = "tillstream." + sample.stem.rpartition(".")[0]
    expected = json.loads(sample.with_suffix(".json").read_text())
    read = codec.decode(type_, sample.read_bytes())
    assert json.loads(json.dumps(read, default=lambda raw: raw.hex())) == expected


def test_every_version_has_a_sample_and_can_read_the_one_before() -> None:
    for folder in AVRO.iterdir():
        versions = sorted(folder.glob("*.avsc"))
        for version in versions:
            assert (SAMPLES / f"{folder.name}.{version.stem}.bin").exists()
        for older, newer in zip(versions, versions[1:], strict=False):
            before, after = (fastavro.parse_schema(json.loads(path.read_text())) for path in (older, newer))
            sample = (SAMPLES / f"{folder.name}.{older.stem}.bin").read_bytes()[10:]
            fastavro.schemaless_reader(io.BytesIO(sample), before, after)


def test_the_package_ships_its_schemas(tmp_path: Path) -> None:
    copied = shutil.copytree(AVRO, tmp_path / "avro")
    assert sorted(f"tillstream.{folder.name}" for folder in copied.iterdir()) == codec.types()
