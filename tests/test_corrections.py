"""Rows of an upload that were refused, corrected by whoever sent them, through real processes."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pipeline import Pipeline, eventually
from shop import problem
from test_uploads import ORDER, Upload, orders

from sinks import quarantine
from sinks.quarantine import STATUSES, Wanted

MISMATCH = {"items": [{"product_id": "P", "quantity": 2, "unit_price": "5.00"}]}
"""Refused by the sink: the items are not the total."""
TOTALS = "SELECT external_order_id, total_amount::text FROM orders WHERE tenant_id = %s ORDER BY 1"


def row(order: str, **fields: Any) -> dict[str, Any]:
    return ORDER | {"external_order_id": order} | fields


def body(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


class Corrected(Upload):
    """An upload whose refused rows are put right."""

    def post(self, *lines: Any, token: str = "", **headers: str) -> Any:
        content = lines[0] if lines and isinstance(lines[0], bytes) else body(*lines)
        return self.request("POST", f"/{token or self.token}/corrections", content=content, headers=headers)

    def correct(self, *lines: Any) -> dict[str, Any]:
        answer = self.post(*lines)
        assert answer.status_code == 202, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def refused(self, count: int) -> list[dict[str, Any]]:
        """The errors, once there are so many."""
        return list(eventually(lambda: len(found := self.errors()) == count and found))

    def totals(self) -> dict[str, str]:
        return dict(self.pipeline.sql(TOTALS, self.tenant))

    def ledger(self) -> list[tuple[Any, ...]]:
        """What became of each correction: its number, outcome, and rows applied, superseded, rejected."""
        return self.pipeline.sql(
            "SELECT correction, outcome, applied, superseded, rejected FROM ledger"
            " WHERE tenant_id = %s AND correction IS NOT NULL ORDER BY log_offset",
            self.tenant,
        )

    def ends(self, state: str) -> dict[str, Any]:
        return dict(eventually(lambda: (said := self.state())["state"] == state and said))


def put_right(error: dict[str, Any], as_text: bool = True, **fields: Any) -> dict[str, Any]:
    """A line of the errors with its row put right, as somebody would who edits the file."""
    fixed = json.loads(error["row"]) | fields
    return error | {"row": json.dumps(fixed) if as_text else fixed}


def test_all_refused_rows_corrected_complete_an_upload(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline)
    first = orders(0, 2) + body(row("B-1", total_amount="1.555")) + b"\n" + body(row("B-2", **MISMATCH)) + orders(4, 1)
    assert upload.put(1, first).json()["rejected"] == 1
    upload.put(2, body(row("B-3", gift="yes", order_status="lost")))
    upload.complete(2)
    state = upload.ends("partially_completed")
    assert (state["rows"]["applied"], state["rows"]["rejected"], state["rows"]["corrected"]) == (3, 3, 0)
    decimals, total, status = upload.refused(3)
    assert [(e["chunk"], e["line"], e["stage"], e["correction"]) for e in (decimals, total, status)] == [
        (1, 3, "gateway", 0), (1, 5, "sink", 0), (2, 1, "gateway", 0),
    ]  # fmt: skip
    said = upload.correct(
        put_right(decimals, total_amount="1.55"), put_right(total, total_amount="10.00"),
        put_right(status, as_text=False, order_status="paid"),
    )  # fmt: skip
    assert (said["accepted"], said["rejected"], said["repeated"], said["errors"]) == (3, 0, 0, [])
    assert [id_.rpartition("~")[2] for id_ in said["event_ids"]] == ["r1"] * 3
    event = pipeline.http.get(
        f"/api/v1/tenants/{upload.tenant}/events/{said['event_ids'][0]}", headers={"X-API-Key": upload.key}
    )
    assert (event.status_code, event.json()["status"] in ("pending", "applied")) == (200, True)
    state = upload.ends("completed")
    assert state["rows"] == {
        "applied": 6, "superseded": 0, "duplicate": 0, "conflict": 0, "rejected": 0, "corrected": 3,
    }  # fmt: skip
    assert state["chunks"] == {"declared": 2, "applied": 2, "missing": [], "missing_count": 0}
    assert upload.errors() == []
    assert {order: upload.totals()[order] for order in ("B-1", "B-2", "B-3")} == {
        "B-1": "1.55", "B-2": "10.00", "B-3": "12.50",
    }  # fmt: skip
    assert pipeline.sql(
        "SELECT raw_payload FROM orders WHERE tenant_id = %s AND external_order_id = 'B-3'", upload.tenant
    ) == [({"gift": "yes"},)]
    tally = pipeline.drained().tenants[upload.tenant]
    assert (tally.accepted, tally.outcomes["applied"], tally.outcomes["rejected"]) == (7, 6, 1)
    with psycopg.connect(pipeline.settings.database_url) as db:  # nothing is left for operators
        [letter] = quarantine.find(db, Wanted(tenant_id=upload.tenant, statuses=STATUSES), 10)
    assert (letter.line, letter.status) == (5, "corrected")


def test_a_correction_that_comes_again_counts_once(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline)
    upload.put(1, body(*(row(f"B-{n}", total_amount="1.555") for n in range(50))))
    lines = [put_right(error, total_amount=f"{error['line']}.00") for error in upload.refused(50)]
    first, again = upload.correct(*lines), upload.correct(*lines)
    assert (first["accepted"], first["repeated"]) == (50, 0)
    assert again["accepted"] + again["repeated"] == 50
    eventually(lambda: upload.errors() == [])
    late = upload.correct(*lines)
    assert (late["accepted"], late["repeated"], late["rejected"], late["event_ids"]) == (0, 50, 0, [])
    pipeline.drained()
    outcomes = [outcome for _, outcome, *_ in upload.ledger()]
    assert (outcomes.count("applied"), outcomes.count("duplicate")) == (50, again["accepted"])
    assert upload.totals() == {f"B-{n}": f"{n + 1}.00" for n in range(50)}
    assert upload.state()["rows"]["corrected"] == 50


def test_of_two_corrections_of_a_row_the_first_counts(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline)
    upload.put(1, body(row("B-1", total_amount="1.555")))
    [error] = upload.refused(1)
    assert upload.correct(put_right(error, total_amount="1.00"))["accepted"] == 1
    racing = upload.correct(put_right(error, total_amount="2.00"))
    if racing["accepted"]:  # the ledger did not have the first yet
        pipeline.drained()
        assert [outcome for _, outcome, *_ in upload.ledger()] == ["applied", "conflict"]
    eventually(lambda: upload.errors() == [])
    late = upload.correct(put_right(error, total_amount="2.00"))
    [wrong] = late["errors"]
    assert (late["accepted"], wrong["line"], wrong["code"]) == (0, 1, "already_corrected")
    assert upload.state()["rows"]["corrected"] == 1
    assert upload.totals() == {"B-1": "1.00"}
    upload.complete(1)
    assert upload.ends("completed")["rows"]["conflict"] == 0


def test_a_correction_that_is_refused_can_be_corrected(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline)
    upload.put(1, orders(0, 1) + body(row("B-1", **MISMATCH)))
    upload.complete(1)
    [error] = upload.refused(1)
    [first] = upload.correct(put_right(error, total_amount="11.00"))["event_ids"]
    [again] = eventually(lambda: (found := upload.errors()) and found[0]["correction"] == 1 and found)
    assert (again["chunk"], again["line"], again["code"], again["stage"]) == (1, 2, "total_mismatch", "sink")
    assert json.loads(again["row"])["total_amount"] == "11.00"
    assert upload.state()["state"] == "partially_completed"
    assert upload.state()["rows"]["rejected"] == 1
    still = upload.correct(put_right(again, total_amount="1.555"))
    assert [(e["line"], e["pointer"], e["code"]) for e in still["errors"]] == [
        (1, "/row/total_amount", "too_many_decimals")
    ]
    [second] = upload.correct(put_right(again, total_amount="10.00"))["event_ids"]
    assert (first.rpartition("~")[0], second) == (second.rpartition("~")[0], first.replace("~r1", "~r2"))
    assert upload.ends("completed")["rows"]["corrected"] == 1
    assert upload.ledger() == [(1, "applied", 0, 0, 1), (2, "applied", 1, 0, 0)]
    assert upload.errors() == []


def test_what_came_in_between_is_newer(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline)
    upload.put(1, body(row("B-1", total_amount="1.555"), row("B-2", **MISMATCH), row("B-3", total_amount="x")))
    upload.complete(1)
    errors = upload.refused(3)
    newer = body(row("B-1", total_amount="98.00"), row("B-2", total_amount="99.00"))
    assert pipeline.post(upload.tenant, upload.key, "orders", newer).status_code == 202
    pipeline.drained()
    future = {"total_amount": "10.00", "updated_at": "2199-01-01T00:00:00Z"}  # it is no newer than its message was
    assert upload.correct(*[put_right(error, **future) for error in errors])["accepted"] == 3
    state = upload.ends("completed")
    assert (state["rows"]["superseded"], state["rows"]["applied"], state["rows"]["corrected"]) == (2, 1, 3)
    assert upload.totals() == {"B-1": "98.00", "B-2": "99.00", "B-3": "10.00"}


@pytest.mark.parametrize("wrong", [{"total_amount": "1.555"}, MISMATCH], ids=["gateway", "sink"])
def test_a_corrected_row_keeps_its_place_among_the_rows_of_its_chunk(pipeline: Pipeline, wrong: dict[str, Any]) -> None:
    upload = Corrected(pipeline)
    bad = row("other", total_amount="1.555")
    upload.put(
        1,
        body(
            bad, row("earlier", total_amount="1.00"), bad, row("earlier", **wrong), bad, row("later", **wrong),
            row("later", total_amount="3.00"), row("last"), bad,
        ),
    )  # fmt: skip
    upload.complete(1)
    errors = [error for error in upload.refused(6) if json.loads(error["row"])["external_order_id"] != "other"]
    assert [error["line"] for error in errors] == [4, 6]
    assert upload.correct(*[put_right(error, total_amount="2.00", items=[]) for error in errors])["accepted"] == 2
    eventually(lambda: len(upload.errors()) == 4)
    assert upload.totals() == {"earlier": "2.00", "last": "12.50", "later": "3.00"}
    assert sorted(upload.ledger()) == [(1, "applied", 0, 1, 0), (1, "applied", 1, 0, 0)]


def test_what_is_no_correction_is_refused_line_by_line(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline)
    upload.put(1, orders(0, 1) + body(row("B-1", total_amount="1.555"), row("B-2", total_amount="1.555")))
    upload.put(3, orders(7, 1))
    one, _ = upload.refused(2)
    good = row("B-1", total_amount="1.00")
    lines: list[Any] = [
        {"chunk": 1, "line": 1, "row": row("A-0")}, {"chunk": 2, "line": 1, "row": good}, [], {"chunk": 1, "line": 2},
        {"chunk": 0, "line": 1, "row": good}, {"chunk": 1, "line": 2, "row": 7}, {"chunk": "1", "line": 2, "row": good},
        {"chunk": 1, "line": 3, "row": "no JSON"}, {"chunk": 1, "line": 2, "row": good},
        {"chunk": 1, "line": 2, "row": good},
    ]  # fmt: skip
    said = upload.correct(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"{\n")
    assert (said["accepted"], said["rejected"], said["repeated"]) == (1, 10, 0)
    assert [(error["line"], error["pointer"], error["code"]) for error in said["errors"]] == [
        (1, "", "row_not_refused"), (2, "", "row_not_refused"), (3, "", "bad_correction"), (4, "", "bad_correction"),
        (5, "", "bad_correction"), (6, "/row", "bad_correction"), (7, "", "bad_correction"),
        (8, "/row", "malformed_json"), (10, "", "already_corrected"), (11, "", "bad_correction"),
    ]  # fmt: skip
    assert "line 1 of chunk 1 is not among the rows" in said["errors"][0]["detail"]
    eventually(lambda: len(upload.errors()) == 1)
    problem(upload.post(b""), 400, "empty_body")
    problem(upload.post(b"{}\n" * 10_001), 413, "too_many_lines")
    problem(upload.post(one, **{"Content-Type": "text/csv"}), 415, "unknown_media_type")
    problem(upload.request("POST", f"/{upload.token}/corrections?x=1", content=body(one)), 400, "bad_parameter")
    other = Corrected(pipeline)
    problem(other.post(one, token=upload.token), 404, "unknown_upload")
    [error] = other.correct(one)["errors"]
    assert error["code"] == "row_not_refused"
    upload.request("DELETE", f"/{upload.token}")
    eventually(lambda: upload.state()["state"] == "cancelled" and upload.post(one).status_code == 409)
    problem(upload.post(one), 409, "upload_cancelled")


def test_an_upload_whose_time_is_over_can_be_corrected(pipeline: Pipeline) -> None:
    upload = Corrected(pipeline, expires_in_s=2)
    chunk = body(row("B-1", total_amount="1.555"))
    upload.put(1, chunk)
    upload.complete(1)
    [error] = upload.refused(1)
    eventually(lambda: upload.put(1, chunk).status_code == 410)
    assert upload.correct(put_right(error, total_amount="1.00"))["accepted"] == 1
    assert upload.ends("completed")["rows"]["applied"] == 1


def test_log_order_rules_between_a_cancel_and_a_correction(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway", "streams")
    own_pipeline.start("sinks", restarted=False)
    upload = Corrected(own_pipeline)
    upload.put(1, body(row("B-1", total_amount="1.555"), row("B-2", total_amount="1.555")))
    errors = upload.refused(2)
    own_pipeline.stop("sinks")  # the ledger hears of neither
    before, after = (put_right(error, total_amount="1.00") for error in errors)
    assert upload.correct(before)["accepted"] == 1
    assert upload.request("DELETE", f"/{upload.token}").status_code == 202
    assert upload.correct(after)["accepted"] == 1
    own_pipeline.start("sinks")
    own_pipeline.drained()
    assert upload.ledger() == [(1, "applied", 1, 0, 0), (1, "rejected", 0, 0, 1)]
    assert upload.totals() == {"B-1": "1.00"}
    assert upload.state()["state"] == "cancelled"


def test_a_database_made_again_has_the_same_corrections(own_pipeline: Pipeline, tmp_path: Path) -> None:
    own_pipeline.start("gateway", "streams", "sinks")
    upload = Corrected(own_pipeline)
    upload.put(1, orders(0, 20) + body(*(row(f"B-{n}", **MISMATCH) for n in range(5)), row("B-9", total_amount="x")))
    upload.complete(1)
    errors = upload.refused(6)
    upload.correct(*[put_right(error, total_amount=f"{9 + error['line'] % 2}.00") for error in errors])
    own_pipeline.post(upload.tenant, upload.key, "orders", body(row("B-9", total_amount="9.99")))
    own_pipeline.drained()
    upload.correct(*[put_right(error, total_amount="10.00") for error in upload.errors()])
    own_pipeline.drained()
    assert upload.ends("completed")["rows"]["corrected"] == 6
    same = (TOTALS, "SELECT log_offset, event_id, outcome, applied, superseded, rejected, correction, first_line, chunk"
            " FROM ledger WHERE tenant_id = %s ORDER BY 1",
            "SELECT log_offset, row_index, line, code FROM row_errors WHERE tenant_id = %s ORDER BY 1, 2",
            "SELECT external_order_id, version_at, version_offset, version_row FROM orders WHERE tenant_id = %s"
            " ORDER BY 1")  # fmt: skip
    (folder := tmp_path / "again").mkdir()
    with Pipeline(folder, prefix=own_pipeline.settings.prefix) as again:
        again.start("sinks")
        again.drained()
        for query in same:
            assert again.sql(query, upload.tenant) == own_pipeline.sql(query, upload.tenant)


def test_refused_rows_are_fetched_and_sent_back_on_the_command_line(pipeline: Pipeline, tmp_path: Path) -> None:
    upload = Corrected(pipeline)
    upload.put(
        1, orders(0, 1) + body(*(row(f"B-{n}", total_amount="1.555") for n in range(2_100)), row("C", **MISMATCH))
    )
    upload.complete(1)
    upload.refused(2_101)
    access = "--tenant-id", upload.tenant, "--api-key", upload.key, "--gateway-url", str(pipeline.http.base_url)
    file = tmp_path / "refused.ndjson"

    def run(command: str, *arguments: str, code: int) -> str:
        done = pipeline.cli("uploads", command, upload.token, *arguments, *access)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    assert "partially completed, 1 of 1 chunks" in run("show", code=1)
    assert "2,101 refused rows" in run("errors", "-o", str(file), code=0)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [json.loads(line) for line in run("errors", code=0).splitlines()[:2_101]] == lines
    wrong = [put_right(line, total_amount="2.00") for line in lines[:-1]] + [{"chunk": 1, "line": 9, "row": "x"}]
    file.write_bytes(body(*wrong))
    said = run("correct", str(file), code=1)
    assert "accepted 2,100, repeated 0, refused 1" in said
    assert "refused.ndjson line 2101: /row malformed_json" in said
    file.write_bytes(body(*wrong[:-1], put_right(lines[-1], total_amount="10.00")))
    said = json.loads(run("correct", str(file), "--wait", "--json", code=0).splitlines()[0])  # others wait
    assert (said["refused"], said["upload"]["state"], said["upload"]["rows"]["corrected"]) == (0, "completed", 2_101)
    assert said["accepted"] + said["repeated"] == 2_101
    assert "completed, 1 of 1 chunks" in run("show", code=0)
    assert pipeline.cli("uploads", "show", "other", *access).returncode == 2
