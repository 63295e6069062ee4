"""Settings, headers and keys."""

import uuid
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from producers.tenant import PricePolicy
from schemas import envelope, ids, topics
from schemas.envelope import Position
from schemas.errors import Misconfigured, Undecodable
from schemas.prices import POLICY_RANGES
from schemas.settings import Settings, variable

README = Path(__file__).parents[2] / "README.md"
AT = Position("ingestion", 3, 42, 1_767_225_600_000)


def test_settings_come_from_the_environment_given() -> None:
    settings = Settings.from_env({"KAFKA_BOOTSTRAP_SERVERS": "x:9092", "TILLSTREAM_PARTITIONS": "12"})
    assert (settings.kafka_bootstrap_servers, settings.partitions) == ("x:9092", 12)
    assert Settings.from_env(settings.env()) == settings


def test_a_value_that_does_not_fit_names_its_variable() -> None:
    with pytest.raises(Misconfigured, match="TILLSTREAM_PARTITIONS='many'"):
        Settings.from_env({"TILLSTREAM_PARTITIONS": "many"})


@pytest.mark.parametrize(
    ("name", "number", "says"),
    [
        ("TILLSTREAM_MAX_BODY_BYTES", "-1", "takes 1 or more, not -1"),
        ("TILLSTREAM_PARTITIONS", "0", "takes 1 or more, not 0"),
        ("TILLSTREAM_GATEWAY_PORT", "65536", "takes 0 to 65535, not 65536"),
        ("TILLSTREAM_SESSION_TIMEOUT_S", "0", "takes 0.001 or more, not 0.0"),
        ("TILLSTREAM_LINGER_MS", "nan", "takes 0 or more, not nan"),
        ("TILLSTREAM_DELIVERY_TIMEOUT_S", "inf", "takes 0.001 or more, not inf"),
        ("TILLSTREAM_DEAD_LETTER_LIMIT", "-0.1", "takes 0 or more, not -0.1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(name: str, number: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name} {says}"):
        Settings.from_env({name: number})


def test_the_readme_has_a_line_for_every_variable_with_its_default() -> None:
    table = README.read_text()
    for field in fields(Settings):
        assert f"| `{variable(field.name)}` | `{field.default}` |" in table, variable(field.name)


def test_the_readme_has_a_line_for_every_setting_of_a_price_policy_with_its_range_and_default() -> None:
    table, usual = README.read_text(), asdict(PricePolicy())
    for name, (least, most) in POLICY_RANGES.items():
        default = "none" if usual[name] is None else usual[name]
        assert f"| `{name}` | {least} to {most} | {default} |" in table, name


@pytest.mark.parametrize(
    ("key", "hashed"),
    # Kafka's own test vectors (UtilsTest.testMurmur2), as unsigned numbers.
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
     (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
     (bytes([ord("a"), ord("b"), ord("c")]), 479470107)],
)  # fmt: skip
def test_keys_are_hashed_as_kafka_hashes_them(key: bytes, hashed: int) -> None:
    assert topics._murmur2(key) == hashed & 0xFFFFFFFF


def test_headers_say_what_was_put_in() -> None:
    headers = envelope.headers_of(
        event_id="e-1", type="tillstream.orders.v1", source="gateway", accepted_ms=1_767_225_599_123, rows=7,
        value=b"v", traceparent=b"00-1-2-3",
    )  # fmt: skip
    read = envelope.read(headers, b"v", AT)
    assert (read.event_id, read.accepted_ms, read.rows, read.entity) == ("e-1", 1_767_225_599_123, 7, "orders")
    assert envelope.read_forwarded(envelope.forwarded(headers, read), b"v") == read


def test_a_message_without_an_id_gets_one_from_its_position_and_keeps_it() -> None:
    read = envelope.read([("ce_type", b"tillstream.orders.v1")], b"v", AT)
    assert read.event_id == AT.event_id() != Position("ingestion", 3, 43, 0).event_id()
    assert read.accepted_ms == AT.time_ms


@given(
    st.lists(st.tuples(st.sampled_from(["ce_type", "ce_id", "ce_time", "ts-rows", "ts-hash", "ts-src"]), st.binary()))
)
def test_any_headers_are_read_or_refused(headers: list[tuple[str, bytes | None]]) -> None:
    try:
        assert envelope.read(headers, b"", AT).src == AT
    except Undecodable as exc:
        assert exc.detail


def test_an_event_id_is_that_of_its_part_of_its_request() -> None:
    def made(tenant: str = "acme", route: str = "ingest/orders", key: str = "key", part: str = "1-1000") -> str:
        return envelope.event_id("secret", tenant, envelope.request_id(tenant, route, key), part)

    assert made() == made()
    assert uuid.UUID(made()).version == 5
    assert len({made(), made(part="1001-2000"), made("other"), made(route="ingest/products"), made(key="other")}) == 5


def test_an_event_id_is_known_by_the_secret_and_the_tenant_it_was_made_with() -> None:
    id_ = envelope.event_id("secret", "acme", envelope.request_id("acme", "ingest/orders", "key"), "1-1000")
    assert envelope.issued("secret", "acme", id_)
    assert not envelope.issued("other", "acme", id_)
    assert not envelope.issued("secret", "other", id_)
    assert not envelope.issued("secret", "acme", str(uuid.uuid5(envelope.NAMESPACE, "x")))
    assert not envelope.issued("secret", "acme", "no uuid")


def test_a_request_reads_as_it_was_written() -> None:
    request = envelope.Request(uuid.uuid4(), 1001, 2000, 2500, uuid.uuid4(), 7)
    said = envelope.headers_of(
        event_id="e", type="t", source="s", accepted_ms=0, rows=9, value=b"", traceparent=None, request=request,
        body_hash="ab" * 32,
    )  # fmt: skip
    read = envelope.read(said, b"", AT)
    assert (read.request, read.content_hash) == (request, bytes.fromhex("ab" * 32))
    for lines in (b"0-1/1", b"2-1/2", b"1-3/2", b"1-2", b"x"):
        with pytest.raises(Undecodable):
            envelope.read([*said, ("ts-lines", lines)], b"", AT)


@given(st.text(), st.text(), st.sampled_from([None, b"00-trace"]), st.integers(0, 4_102_444_800_000))
def test_what_is_made_for_one_row_is_as_for_many(tenant: str, key: str, traceparent: bytes | None, at: int) -> None:
    tenant, key = (text.encode(errors="replace").decode() for text in (tenant, key))
    id_ = envelope.request_id(tenant, "ingest/orders", key)
    request, event = envelope.ids_of_one_row("secret", tenant, "ingest/orders", key)
    assert (request, event) == (str(id_), envelope.event_id("secret", tenant, id_, "1-1"))
    assert envelope.headers_of_one_row(event, "t", at, request, "ab" * 32, traceparent) == envelope.headers_of(
        event_id=event, type="t", source="gateway", accepted_ms=at, rows=1, value=b"", traceparent=traceparent,
        request=envelope.Request(id_, 1, 1, 1), body_hash="ab" * 32,
    )  # fmt: skip


def test_rows_that_came_before_are_counted_as_trimmed() -> None:
    said = envelope.headers_of(
        event_id="e", type="t", source="s", accepted_ms=0, rows=9, value=b"", traceparent=None
    )  # fmt: skip
    on = envelope.forwarded(said, envelope.read([*said, ("ts-trimmed", b"5")], b"", AT), rows=2, trimmed=7)
    read = envelope.read_forwarded(on, b"")
    assert (read.rows, read.trimmed) == (2, 7)


@given(st.uuids(), st.text())
def test_our_uuid5_is_that_of_the_standard_library(namespace: uuid.UUID, name: str) -> None:
    name = name.encode(errors="replace").decode()
    assert uuid.UUID(bytes=ids.uuid5(namespace.bytes, name.encode())) == uuid.uuid5(namespace, name)


def test_every_kafka_client_takes_its_address_and_secrets_from_the_settings() -> None:
    root = Path(__file__).parents[2]
    folders = ("producers", "streams", "sinks", "gateway", "deploy")
    files = [file for folder in folders for file in (root / folder).rglob("*.py") if file.name != "broker.py"]
    assert len(files) > 100
    assert [file.name for file in files if "bootstrap.servers" in file.read_text()] == []
