"""What must be there, told from the requests and the order in which the log has their messages. Pure; no product code.

Of a message the model believes where it lies, when it was appended, and which request it says to be of. Its rows are
those that the client sent, not those that the log holds.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.chaos.history import Event
from deploy.chaos.price_model import Prices
from deploy.chaos.rows_model import Records, micros
from deploy.chaos.stock_model import Stock

Row = dict[str, Any]
Place = tuple[str, int, int]
"""Topic, partition, offset."""
ANY: Final = "(any)"
"""Of a column about which the model says nothing."""
_PREFIX: Final = "tillstream."
_REFUSED: Final = "tillstream.rows-rejected.v1"
_OF_UPLOADS: Final = {
    "tillstream.upload-opened.v1": "open",
    "tillstream.upload-completed.v1": "complete",
    "tillstream.upload-cancelled.v1": "cancel",
}


def hash_of(body: str) -> str:
    """By which a message says what body it is of."""
    return hashlib.sha256(body.encode()).hexdigest()


def place_of(logged: Event) -> Place:
    """Where a message of the log lies."""
    return logged["topic"], logged["partition"], logged["offset"]


@dataclass(slots=True)
class _Upload:
    cancelled: bool = False
    chunks: int = 0
    highest: int = 0


@dataclass
class Model:
    """`decided` says of each message whether it is new, a duplicate, a conflict or rejected as a whole."""

    asked: dict[tuple[str, str], Event]
    """Requests by tenant and hash of the body."""
    decided: dict[Place, str] = field(default_factory=dict)
    ledger: list[Row] = field(default_factory=list)
    errors: list[Row] = field(default_factory=list)
    movements: list[Row] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Messages that nobody sent, or other than they were sent."""
    records: Records = field(default_factory=Records)
    stock: Stock = field(default_factory=Stock)
    prices: Prices = field(default_factory=Prices)
    _seen: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _uploads: dict[str, _Upload] = field(default_factory=dict)
    _changed: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, logged: Event) -> None:
        """Fold the next message of a partition."""
        rows = self._rows_of(logged)
        decision = self._decide(logged)
        self.decided[place_of(logged)] = decision
        told: Counter[str] = Counter()
        if decision != "new":
            told[decision] = len(rows)
        elif logged["type"] == _REFUSED:
            self._note_refused(logged)
        elif logged["topic"] == "stock":
            told = self._fold(logged, rows)
        elif logged["topic"] == "prices":
            told = self._judge(logged, rows)
        elif rows:
            told = self._upsert(logged, rows)
        outcome = "applied" if decision == "new" else decision
        self.ledger.append(
            {
                "tenant_id": logged["tenant"], "topic": logged["topic"], "partition": logged["partition"],
                "log_offset": logged["offset"], "event_id": logged["event_id"], "type": logged["type"],
                "outcome": outcome, "rows": len(rows),
            }
            | {name: told[name] for name in ("applied", "superseded", "duplicate", "conflict", "rejected")}
        )  # fmt: skip

    def tables(self) -> dict[str, list[Row]]:
        """The rows of each table, in no order."""
        levels = [
            {"tenant_id": tenant, "product_id": product, "quantity": quantity, "version": version,
             "source_offset": self._changed[tenant, product]}
            for (tenant, product), (quantity, version) in self.stock.levels().items()
        ]  # fmt: skip
        return self.records.expected() | {
            "stock_levels": levels,
            "stock_movements": self.movements,
            "prices": self.prices.in_force(),
            "price_changes": self.prices.changes,
            "row_errors": self.errors,
            "ledger": self.ledger,
        }

    def _rows_of(self, logged: Event) -> list[tuple[int, Row]]:
        """The rows that a message carries, each with its line: the good lines of what its client sent."""
        if logged["type"] in _OF_UPLOADS or "request" not in logged:
            return []
        ask = self.asked.get((logged["tenant"], logged["hash"]))
        if ask is None:
            self.strange.append(f"{place_of(logged)} is in the log and nobody sent it")
            return []
        if logged["type"] == _REFUSED:
            return []
        rows = [
            (line, json.loads(text))
            for line, text in enumerate(ask["body"].splitlines(), start=1)
            if str(line) not in ask["refused"] and logged["first"] <= line <= logged["last"]
        ]
        if len(rows) != logged["rows"]:
            self.strange.append(f"{place_of(logged)} has {logged['rows']} rows, its client sent {len(rows)} good ones")
        return rows

    def _decide(self, logged: Event) -> str:
        """By log order: what came first holds."""
        if "request" not in logged:
            return "new"  # policies; each has an id of its own
        tenant, type_, body = logged["tenant"], logged["type"], logged["hash"]
        kind = (
            ""
            if logged["topic"] != "ingestion" or type_.endswith(("customers.v1", "products.v1", "orders.v1"))
            else type_
        )
        mine = (tenant, logged["request"], kind)
        first = self._seen.get(mine)
        if first is None and logged["topic"] == "ingestion" and not self._upload_takes(logged):
            return "rejected"
        other = self._seen.get((tenant, logged["request"], "" if kind == _REFUSED else _REFUSED))
        if kind in ("", _REFUSED) and other not in (None, body):
            return "conflict"
        if first is not None:
            return "duplicate" if first == body else "conflict"
        self._seen[mine] = body
        self._follow_upload(logged)
        return "new"

    def _upload_takes(self, logged: Event) -> bool:
        upload, what = logged.get("upload"), _OF_UPLOADS.get(logged["type"])
        if not upload or what in ("open", "cancel"):
            return True
        state = self._uploads.get(upload)
        if state is None or state.cancelled:
            return False
        if what == "complete":
            return state.chunks in (0, logged["chunk"]) and logged["chunk"] >= state.highest
        return not state.chunks or logged["chunk"] <= state.chunks

    def _follow_upload(self, logged: Event) -> None:
        if not (upload := logged.get("upload")):
            return
        state = self._uploads.setdefault(upload, _Upload())
        match _OF_UPLOADS.get(logged["type"]):
            case "cancel":
                state.cancelled = True
            case "complete":
                state.chunks = logged["chunk"]
            case None:
                state.highest = max(state.highest, logged["chunk"])

    def _note_refused(self, logged: Event) -> None:
        ask = self.asked.get((logged["tenant"], logged["hash"]))
        for index, (line, code) in enumerate(
            sorted((int(n), code) for n, code in (ask or {"refused": {}})["refused"].items())
        ):
            self._error(logged, index, line, code, "gateway")

    def _upsert(self, logged: Event, rows: list[tuple[int, Row]]) -> Counter[str]:
        entity = logged["type"].removeprefix(_PREFIX).partition(".")[0]
        told, codes = self.records.take(
            logged["tenant"],
            entity,
            [row for _, row in rows],
            logged["offset"],
            logged["accepted_ms"],
            logged["time_ms"],
        )
        for index, code in codes.items():
            self._error(logged, index, rows[index][0], code, "sink")
        return told

    def _fold(self, logged: Event, rows: list[tuple[int, Row]]) -> Counter[str]:
        tenant, told = logged["tenant"], Counter[str]()
        if "value" in logged:
            self.stock.oversell[tenant] = logged["value"]["oversell"]
            return told
        accepted_us = min(logged["accepted_ms"], logged["time_ms"]) * 1000
        records = [_movement(row) for _, row in rows]
        outcomes = self.stock.take(tenant, logged["request"], logged["hash"].encode(), records, accepted_us)
        for index, ((line, row), (outcome, code, quantity, version)) in enumerate(zip(rows, outcomes, strict=True)):
            told[outcome] += 1
            if outcome == "applied":
                self._changed[tenant, row["product_id"]] = logged["offset"]
            if outcome == "rejected":
                self._error(logged, index, line, code, "sink")
            self.movements.append(
                {
                    "tenant_id": tenant, "product_id": row["product_id"], "log_offset": logged["offset"],
                    "row_index": index, "line": line, "movement_id": row.get("event_id"), "kind": row["kind"],
                    "moved": row["quantity"], "outcome": outcome, "code": code, "quantity": quantity,
                    "version": version,
                }
            )  # fmt: skip
        return told

    def _judge(self, logged: Event, rows: list[tuple[int, Row]]) -> Counter[str]:
        told = self.prices.take(logged["tenant"], rows, logged["offset"], logged["time_ms"])
        for index, became in enumerate(told):
            if became == "rejected":
                self._error(logged, index, rows[index][0], ANY, "sink")
        return Counter(told)

    def _error(self, logged: Event, index: int, line: int, code: str, stage: str) -> None:
        self.errors.append(
            {
                "tenant_id": logged["tenant"], "topic": logged["topic"], "partition": logged["partition"],
                "log_offset": logged["offset"], "row_index": index, "line": line, "code": code, "stage": stage,
            }
        )  # fmt: skip


def _movement(row: Row) -> Row:
    sent = row.get("occurred_at")
    return {
        "product_id": row["product_id"], "kind": row["kind"], "quantity": row["quantity"],
        "movement_id": row.get("event_id"), "expected_quantity": row.get("expected_quantity"),
        "occurred_at": micros(sent) if sent else None,
    }  # fmt: skip
