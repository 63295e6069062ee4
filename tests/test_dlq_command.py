"""`tillstream dlq`: letters are found, read, sent once more under the version they had, and all of it is noted."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from pipeline import Pipeline, eventually
from test_dead_letters import ORDERS, ROW, Direct
from typer.testing import CliRunner

from deploy.dlq import app
from schemas import codec, topics
from schemas.errors import Rejected, TillstreamError, Unavailable
from schemas.prices import PRICE_CHANGES
from schemas.stock import MOVEMENTS
from sinks import quarantine, redrives, redriving
from sinks.redriving import Asked
from streams.price_state import amount

TO_PAID = '[{"op": "test", "path": "/order_status", "value": "nonsense"},' \
          ' {"op": "replace", "path": "/order_status", "value": "paid"}]'  # fmt: skip


@pytest.fixture
def direct(pipeline: Pipeline) -> Direct:
    return Direct(pipeline)


def dlq(direct: Direct, *arguments: str, code: int = 0) -> Any:
    """What the command prints, or why it failed; in this process, for a new one takes a second."""
    done = CliRunner().invoke(app, [*arguments, "--json"], env=direct.pipeline.settings.env())
    if isinstance(done.exception, TillstreamError):
        assert code == (1 if isinstance(done.exception, Rejected) else 2), done.exception
        return str(done.exception)
    assert done.exit_code == code, (done.stdout, done.exception)
    return json.loads(done.stdout)


def redriven(direct: Direct, *arguments: str, code: int = 0) -> Any:
    return dlq(direct, "redrive", *arguments, "--why", "a test", "--by", "me", "--wait", "60", code=code)


def name_of(direct: Direct, event_id: str) -> str:
    letter = direct.letter(event_id)
    at = [letter["topic"].removeprefix(direct.pipeline.settings.prefix), letter["partition"], letter["log_offset"]]
    return "/".join(map(str, at if letter["row_index"] is None else [*at, letter["row_index"]]))


def known(pipeline: Pipeline) -> None:
    """Return when the database knows all redrives."""
    with redriving.connect(pipeline.settings.database_url) as db:
        redrives.await_known(db, pipeline.settings, 20)


def rows(direct: Direct, *changes: dict[str, Any]) -> bytes:
    made = [ROW | {"line": n, "external_order_id": f"A-{n}"} | change for n, change in enumerate(changes, 1)]
    return codec.encode(ORDERS, {"tenant_id": direct.tenant, "rows": made})


def orders(direct: Direct) -> list[tuple[Any, ...]]:
    query = "SELECT external_order_id, order_status, total_amount::text FROM orders WHERE tenant_id = %s ORDER BY 1"
    return direct.pipeline.sql(query, direct.tenant)


def test_letters_are_listed_by_tenant_reason_topic_and_time(direct: Direct) -> None:
    misplaced, bad_row = direct.send(rows(direct, {}), shift=1), direct.send(rows(direct, {}, {"order_status": "x"}))
    names = [name_of(direct, one) for one in (bad_row, misplaced)]
    mine = ("--tenant", direct.tenant)
    assert [one["letter"] for one in dlq(direct, "list", *mine)] == names
    assert [one["letter"] for one in dlq(direct, "list", *mine, "--limit", "1")] == names[:1]
    for options, found in (
        (("--reason", "wrong_partition"), names[1:]), (("--reason", "nothing"), []), (("--topic", "ingestion"), names),
        (("--topic", "stock"), []), (("--since", "1h"), names), (("--until", "1h"), []), (("--nobodys",), []),
        (("--status", "done"), []), (("--since", "2026-01-31T00:00:00Z", "--status", "all"), names),
    ):  # fmt: skip
        assert [one["letter"] for one in dlq(direct, "list", *mine, *options)] == found, options
    counted = dlq(direct, "list", *mine, "--summary")
    assert {(one["reason"], one["letters"]) for one in counted} == {("wrong_partition", 1), ("invalid_value", 1)}
    shown = direct.pipeline.cli("dlq", "list", *mine).stdout
    assert all(name in shown for name in names)
    for wrong in (("--since", "yesterday"), ("--until", "2026-01-31T00:00:00"), ("--status", "lost")):
        dlq(direct, "list", *wrong, code=2)
    assert direct.pipeline.cli("dlq", "list", "--status", "lost").returncode == 2


def test_a_letter_is_shown_as_the_rows_that_were_sent(direct: Direct) -> None:
    name = name_of(direct, direct.send(rows(direct, {}, {"raw_payload": '{"colour": "red", "n": 1.50}'}), shift=1))
    letter = dlq(direct, "show", name)
    assert [row["external_order_id"] for row in letter["contents"]] == ["A-1", "A-2"]
    assert letter["contents"][0]["total_amount"] == "12.50"
    assert letter["contents"][1]["raw_payload"] == {"colour": "red", "n": 1.5}
    assert (letter["reason"], letter["tenant_id"], letter["redrives"]) == ("wrong_partition", direct.tenant, [])
    assert letter["headers"]["ce_type"] == ORDERS
    text = direct.pipeline.cli("dlq", "show", name).stdout
    assert '"external_order_id":"A-2"' in text
    cut = name_of(direct, direct.send(rows(direct, {})[:-3]))
    assert "truncated" in dlq(direct, "show", cut)["unreadable"]
    assert "the first bytes of" in direct.pipeline.cli("dlq", "show", cut).stdout
    assert "no_such_letter" in dlq(direct, "show", "ingestion/0/999999999", code=1)
    assert "bad_letter" in dlq(direct, "show", "ingestion", code=1)


def test_a_whole_message_is_sent_once_more_and_once_only(direct: Direct) -> None:
    event_id = direct.send(rows(direct, {}, {}), shift=1)
    name = name_of(direct, event_id)
    planned = dlq(direct, "redrive", name, "--dry-run")
    assert (planned["dry_run"], planned["sent"][0]["letters"], planned["refused"]) == (True, [name], [])
    assert orders(direct) == []
    [sent] = redriven(direct, name)["sent"]
    assert sent == {"event_id": f"{event_id}~r1", "letters": [name], "outcome": "applied"}
    assert [row[0] for row in orders(direct)] == ["A-1", "A-2"]
    assert "redriven_before" in redriven(direct, name, code=1)
    [again] = redriven(direct, name, "--again")["sent"]
    assert (again["event_id"], again["outcome"]) == (f"{event_id}~r2", "superseded")
    letter = dlq(direct, "show", name)
    assert letter["status"] == "done"
    assert [(one["by"], one["why"], one["n"], one["result"]) for one in letter["redrives"]] == [
        ("me", "a test", 1, "sent"), ("me", "a test", 2, "sent"),
    ]  # fmt: skip
    ledger = "SELECT outcome, applied, superseded, rejected FROM ledger WHERE tenant_id = %s ORDER BY event_id"
    assert direct.pipeline.sql(ledger, direct.tenant) == [
        ("rejected", 0, 0, 2), ("applied", 2, 0, 0), ("applied", 0, 2, 0),
    ]  # fmt: skip
    assert direct.pipeline.drained().tenants[direct.tenant].accepted == 6


def test_a_quarantined_row_is_patched_and_keeps_its_line_and_version(direct: Direct) -> None:
    changes: list[dict[str, Any]] = [{}, {"order_status": "nonsense", "raw_payload": '{"colour": "red"}'}, {}]
    event_id = direct.send(rows(direct, *changes))
    name = name_of(direct, event_id)
    assert name.endswith("/1")
    refused = redriven(direct, name, code=1)["refused"]
    assert refused[0]["code"] == "invalid_value"
    assert "order_status" in refused[0]["detail"]
    wrong = '[{"op": "test", "path": "/order_status", "value": "other"}]'
    assert redriven(direct, name, "--patch", wrong, code=1)["refused"][0]["code"] == "patch_failed"
    assert "not a JSON Patch" in redriven(direct, name, "--patch", '[{"op": "nothing"}]', code=2)
    [sent] = redriven(direct, name, "--patch", TO_PAID)["sent"]
    assert sent == {"event_id": f"{event_id}~r1", "letters": [name], "outcome": "applied"}
    assert [row[:2] for row in orders(direct)] == [("A-1", "paid"), ("A-2", "paid"), ("A-3", "paid")]
    query = "SELECT DISTINCT version_at, version_offset FROM orders WHERE tenant_id = %s"
    assert len(direct.pipeline.sql(query, direct.tenant)) == 1
    query = "SELECT version_row, raw_payload FROM orders WHERE tenant_id = %s AND external_order_id = 'A-2'"
    assert direct.pipeline.sql(query, direct.tenant) == [(1, {"colour": "red"})]
    letter = dlq(direct, "show", name)
    assert [one["result"] for one in letter["redrives"]] == ["refused", "refused", "sent"]
    assert letter["redrives"][2]["patch"] == json.loads(TO_PAID)
    direct.pipeline.drained()


def test_a_redrive_never_overwrites_what_came_since(direct: Direct) -> None:
    bad = direct.send(rows(direct, {"order_status": "nonsense"}, {}))
    misplaced = direct.send(rows(direct, {"total_amount": b"\x01"}), shift=1)
    names = [name_of(direct, one) for one in (bad, misplaced)]
    direct.send(direct.value("A-1", order_status="shipped"), ce_time=b"2026-01-31T23:59:59.500Z")
    direct.pipeline.drained()
    redriven(direct, names[0], "--patch", TO_PAID)
    redriven(direct, names[1])
    assert orders(direct) == [("A-1", "shipped", "12.50"), ("A-2", "paid", "12.50")]
    assert {dlq(direct, "show", name)["status"] for name in names} == {"done"}
    outcomes = direct.pipeline.drained().tenants[direct.tenant].outcomes
    assert (outcomes["superseded"], outcomes["rejected"]) == (2, 2)


def test_rows_that_are_refused_again_are_letters_of_their_own_with_the_first_version(direct: Direct) -> None:
    event_id = direct.send(
        rows(direct, {}, {"total_amount": (10**14).to_bytes(7, "big")}, {"order_status": "nonsense"})
    )
    eventually(lambda: len(dlq(direct, "list", "--tenant", direct.tenant)) == 2)
    still = '[{"op": "add", "path": "/items", "value": [{"product_id": "P", "quantity": 1, "unit_price": "1.00"}]},' \
            ' {"op": "replace", "path": "/order_status", "value": "paid"},' \
            ' {"op": "replace", "path": "/total_amount", "value": "2.00"}]'  # fmt: skip
    [sent] = redriven(direct, "--tenant", direct.tenant, "--patch", still, code=1)["sent"]
    assert (sent["event_id"], sent["outcome"], len(sent["letters"])) == (f"{event_id}~r1", "rejected", 2)
    letters = dlq(direct, "list", "--tenant", direct.tenant)
    assert [(one["reason"], one["line"], one["event_id"]) for one in letters] == [
        ("total_mismatch", 2, f"{event_id}~r1"), ("total_mismatch", 3, f"{event_id}~r1"),
    ]  # fmt: skip
    right = '[{"op": "replace", "path": "/total_amount", "value": "1.00"}]'
    [sent] = redriven(direct, letters[1]["letter"], "--patch", right)["sent"]
    assert sent["event_id"] == f"{event_id}~r2"
    query = "SELECT DISTINCT version_at, version_offset FROM orders WHERE tenant_id = %s"
    assert len(direct.pipeline.sql(query, direct.tenant)) == 1
    query = "SELECT version_row FROM orders WHERE tenant_id = %s ORDER BY 1"
    assert direct.pipeline.sql(query, direct.tenant) == [(0,), (2,)]
    statuses = {one["status"] for one in dlq(direct, "list", "--tenant", direct.tenant, "--status", "all")}
    assert statuses == {"open", "failed", "done"}
    direct.pipeline.drained()


def test_a_redrive_whose_end_is_unknown_goes_on_under_its_id(direct: Direct) -> None:
    event_id = direct.send(rows(direct, {}), shift=1)
    name = name_of(direct, event_id)
    redriven(direct, name)
    known(direct.pipeline)  # what the log says of it comes no more
    direct.pipeline.sql(
        "UPDATE redrives SET result = 'begun', sent_offset = NULL WHERE original_id = %s RETURNING 1", event_id
    )
    assert dlq(direct, "list", "--tenant", direct.tenant)[0]["status"] == "begun"
    other = '[{"op": "replace", "path": "/rows/0/order_status", "value": "shipped"}]'
    assert redriven(direct, name, "--patch", other, code=1)["refused"][0]["code"] == "begun"
    [sent] = redriven(direct, name)["sent"]
    assert sent["event_id"] == f"{event_id}~r1"
    outcomes = direct.pipeline.drained().tenants[direct.tenant].outcomes
    assert (outcomes["applied"], outcomes["duplicate"], outcomes["rejected"]) == (1, 0, 1)  # the ledger had it
    [sent] = redriven(direct, name, "--again", "--patch", other)["sent"]
    assert sent["event_id"] == f"{event_id}~r2"
    assert orders(direct)[0][1] == "paid"  # of the same version: the first stays


def test_of_two_operators_at_once_one_sends_it(direct: Direct) -> None:
    settings = direct.pipeline.settings
    name = name_of(direct, direct.send(rows(direct, {}), shift=1))
    barrier = threading.Barrier(2)

    def operator(who: str) -> str:
        with redriving.connect(settings.database_url) as db:
            [letter] = quarantine.find(db, quarantine.named(name, settings.prefix), 1)
            message = redriving.prepared(db, [letter], None, None)
            barrier.wait()
            try:
                return redriving.send(db, settings, redriving.producer(settings), message, Asked(who, "a race"))
            except Rejected as exc:
                return exc.code

    with ThreadPoolExecutor(2) as pool:
        answers = set(pool.map(operator, ("Ada", "Bob")))
    letter = dlq(direct, "show", name)
    assert {letter["event_id"] + "~r1"} <= answers <= {letter["event_id"] + "~r1", "redriven_before"}
    assert [(one["n"], one["result"]) for one in letter["redrives"]] == [(1, "sent")]
    assert direct.pipeline.drained().tenants[direct.tenant].outcomes["applied"] == 1


def test_stock_and_prices_are_taken_where_they_come_again_but_overwrite_nothing(direct: Direct) -> None:
    def stock(kind: str, quantity: int, shift: int = 0) -> str:
        row = {"line": 1, "product_id": "P", "kind": kind, "quantity": quantity}
        value = codec.encode(MOVEMENTS, {"tenant_id": direct.tenant, "rows": [row]})
        return direct.send(value, topics.STOCK, MOVEMENTS, shift, ce_time=datetime.now(UTC).isoformat().encode())

    def level() -> int:
        [(quantity,)] = direct.pipeline.sql("SELECT quantity FROM stock_levels WHERE tenant_id = %s", direct.tenant)
        return int(quantity)

    def price(cents: int, shift: int = 0) -> str:
        row = {"line": 1, "product_id": "P", "new_price": amount(cents)}
        return direct.send(
            codec.encode(PRICE_CHANGES, {"tenant_id": direct.tenant, "rows": [row]}),
            topics.PRICES,
            PRICE_CHANGES,
            shift,
        )

    before = stock("received", 5, shift=1)
    stock("set", 10)
    lost, old = price(1_000, shift=1), stock("set", 99, shift=1)
    price(1_100)
    direct.pipeline.drained()
    after = stock("received", 7, shift=1)
    redriven(direct, name_of(direct, before))
    assert level() == 10
    redriven(direct, name_of(direct, old))
    redriven(direct, name_of(direct, after))
    eventually(lambda: level() == 106)
    redriven(direct, name_of(direct, lost))
    query = "SELECT price::text FROM prices WHERE tenant_id = %s"
    assert direct.pipeline.sql(query, direct.tenant) == [("11.00",)]
    query = "SELECT status FROM price_changes WHERE tenant_id = %s ORDER BY log_offset"
    assert direct.pipeline.sql(query, direct.tenant) == [("accepted",), ("superseded",)]
    outcomes = direct.pipeline.drained().tenants[direct.tenant].outcomes
    assert (outcomes["superseded"], outcomes["rejected"]) == (2, 4)


def test_what_cannot_be_sent_again_says_why(direct: Direct) -> None:
    other = Direct(direct.pipeline)
    foreign = direct.send(direct.value("A-1", tenant=other.tenant))
    policy = direct.send(b"x", type_="tillstream.ingestion-policy.v1")
    patch = ("--patch", "[]")
    assert redriven(direct, name_of(direct, foreign), *patch, code=1)["refused"][0]["code"] == "no_tenant"
    assert redriven(direct, name_of(direct, policy), code=1)["refused"][0]["code"] == "not_redrivable"
    again = redriven(direct, name_of(direct, foreign), code=1)["sent"][0]
    assert again["outcome"] == "rejected"
    assert direct.letter(again["event_id"])["tenant_id"] is None
    unknown = name_of(direct, direct.send(b"x", type_="com.example.other"))
    assert "no type of ours" in redriven(direct, unknown, code=1)["refused"][0]["detail"]
    assert "say which" in redriven(direct, code=2)
    assert "not both" in redriven(direct, "ingestion/0/1", "--reason", "x", code=2)
    assert "say why" in dlq(direct, "redrive", "--tenant", direct.tenant, code=2)


def test_many_are_sent_no_faster_than_they_should_be(direct: Direct) -> None:
    sent = [direct.send(direct.value(f"A-{n}"), shift=1) for n in range(12)]
    eventually(lambda: len(dlq(direct, "list", "--tenant", direct.tenant)) == len(sent))
    answer = redriven(direct, "--tenant", direct.tenant, "--rate", "6", "--limit", "10")
    assert [one["event_id"] for one in answer["sent"]] == [f"{one}~r1" for one in sent[:10]]
    query = "SELECT extract(epoch FROM max(begun_at) - min(begun_at))::float FROM redrives WHERE tenant_id = %s"
    assert direct.pipeline.sql(query, direct.tenant)[0][0] > 1.4


def test_an_emptied_database_knows_again_what_was_sent(own_pipeline: Pipeline) -> None:
    own_pipeline.backup()
    own_pipeline.start("streams", "sinks", restarted=False)
    direct = Direct(own_pipeline)
    sent, kept = direct.send(rows(direct, {}), shift=1), direct.send(rows(direct, {}), type_="tillstream.nothing.v1")
    names = [name_of(direct, one) for one in (sent, kept)]
    redriven(direct, names[0], "--patch", '[{"op": "test", "path": "/rows/0/order_status", "value": "paid"}]')
    redriven(direct, names[1], code=1)
    producer = redriving.producer(own_pipeline.settings)
    producer.produce(own_pipeline.settings.named(topics.REDRIVES), b"no note", b"anybody", 0)
    assert producer.flush(20) == 0
    known(own_pipeline)
    before = own_pipeline.sql("SELECT to_jsonb(r) - 'id' FROM redrives AS r ORDER BY begun_at")
    assert [row["result"] for (row,) in before] == ["sent", "refused"]
    own_pipeline.stop("sinks")
    own_pipeline.restore()
    with redriving.connect(own_pipeline.settings.database_url) as db, pytest.raises(Unavailable, match="of 4 notes"):
        redrives.await_known(db, own_pipeline.settings, 0.5)
    own_pipeline.start("sinks", restarted=False)
    own_pipeline.drained()
    assert "redriven_before" in redriven(direct, names[0], code=1)
    assert own_pipeline.sql("SELECT to_jsonb(r) - 'id' FROM redrives AS r ORDER BY begun_at") == before
    assert [dlq(direct, "show", name)["status"] for name in names] == ["done", "open"]
