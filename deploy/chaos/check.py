"""Judges a history: what was acknowledged is in the log, what is in the log was folded once, and the tables say so.

`lost`: something that must be there is not. `doubled`: something happened twice. `wrong`: something is other than the
model says, or is there and nobody asked for it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.chaos.evidence import SOURCES, TABLES
from deploy.chaos.history import Event
from deploy.chaos.model import ANY, Model, Place, hash_of

Row = dict[str, Any]
FAULTS: Final = ("lost", "doubled", "wrong")
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "customers": ("tenant_id", "customer_id"),
    "products": ("tenant_id", "product_id"),
    "orders": ("tenant_id", "external_order_id"),
    "order_items": ("tenant_id", "external_order_id", "item"),
    "stock_levels": ("tenant_id", "product_id"),
    "stock_movements": ("tenant_id", "product_id", "log_offset", "row_index"),
    "prices": ("tenant_id", "product_id"),
    "price_changes": ("tenant_id", "product_id", "log_offset", "row_index"),
    "row_errors": ("tenant_id", "topic", "partition", "log_offset", "row_index"),
    "ledger": ("tenant_id", "topic", "partition", "log_offset"),
}
_ROW_BEARING: Final = ("customers", "products", "orders", "chunk", "stock", "prices")
_REFUSED: Final = "tillstream.rows-rejected.v1"
_NEVER: Final = {"idempotency_key_reused", "upload_cancelled", "upload_completed", "chunk_out_of_range"}
"""Codes of requests that are refused for what came before."""


@dataclass
class Report:
    """What a check found, in words by fault, and what it looked at."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        """Nothing was found, and there was something to look at."""
        return not (self.lost or self.doubled or self.wrong) and self.compared["ledger"] > 0

    def found(self) -> Iterable[tuple[str, str]]:
        """Every fault as its kind and what is known of it."""
        return ((kind, what) for kind in FAULTS for what in getattr(self, kind))


def check(events: Iterable[Event]) -> Report:
    """Judge a history that was written to its end."""
    kinds: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        kinds[event["kind"]].append(event)
    report = Report()
    if not kinds["end"]:
        report.wrong.append("the history was not written to its end: not all was read back, and nothing is judged")
        return report
    model = _told(kinds)
    report.wrong += model.strange
    _acknowledged(report, kinds)
    _derived(report, model, kinds["derived"])
    _tables(report, model, kinds["row"])
    _sinks(report, kinds)
    report.lost += [f"the audit misses {text}" for law in kinds["law"] for text in law["missing"]]
    report.wrong += [f"the audit says: {text}" for law in kinds["law"] for text in law["wrong"]]
    return report


def _told(kinds: dict[str, list[Event]]) -> Model:
    model = Model({(ask["tenant"], hash_of(ask["body"])): ask for ask in kinds["asked"]})
    order = {topic: n for n, topic in enumerate(SOURCES)}
    for logged in sorted(kinds["logged"], key=lambda one: (order[one["topic"]], one["partition"], one["offset"])):
        model.take(logged)
    return model


def _acknowledged(report: Report, kinds: dict[str, list[Event]]) -> None:
    """Every answer against the log: what was acknowledged is there, and what was refused at once is not."""
    asks = {ask["id"]: ask for ask in kinds["asked"]}
    ids = {(logged["tenant"], logged["event_id"], logged["hash"]) for logged in kinds["logged"]}
    bodies = {(logged["tenant"], logged["hash"]) for logged in kinds["logged"]}
    refusals = {(one["tenant"], one["hash"]) for one in kinds["logged"] if one["type"] == _REFUSED}
    sent_before: set[tuple[str, str]] = set()
    for answer in kinds["answered"]:
        ask = asks[answer["id"]]
        if ask["to"] not in _ROW_BEARING:
            continue
        report.compared["answers"] += 1
        body = ask["tenant"], hash_of(ask["body"])
        good, bad, status, code = _good_lines(ask), len(ask["refused"]), answer["status"], answer.get("code")
        what = f"{ask['id']} ({ask['to']}, attempt {answer['attempt']}) was answered {status}"
        if status == 202:
            absent = [event for event in answer["event_ids"] if (body[0], event, body[1]) not in ids]
            report.lost += [f"{what}, but event {event} is not in the log" for event in absent]
            if (answer["accepted"], answer["rejected"]) != (good, bad):
                counts = f"{answer['accepted']} accepted and {answer['rejected']} rejected, not {good} and {bad}"
                report.wrong.append(f"{what} with {counts}")
        if bad and ask["to"] in ("customers", "products", "orders", "chunk") and body not in refusals:
            if status == 202 or code == "rows_rejected":
                report.lost.append(f"{what}, but its {bad} refused lines are not in the log")
        elif 400 <= status < 500 and not (code == "rows_rejected" and good == 0):
            _refused(report, ask, what, code, seen=body in sent_before or body not in bodies)
        if status == 500:
            report.wrong.append(f"{what}: a fault of the gateway, {code}")
        sent_before.add(body)


def _refused(report: Report, ask: Event, what: str, code: str | None, *, seen: bool) -> None:
    if not seen:
        report.wrong.append(f"{what} ({code}), but it is in the log")
    if code not in _NEVER and not (code == "chunk_conflict" and ask["upload"]):
        report.wrong.append(f"{what} ({code}), which nothing explains")


def _good_lines(ask: Event) -> int:
    return len(ask["body"].splitlines()) - len(ask["refused"])


def _derived(report: Report, model: Model, derived: list[Event]) -> None:
    """Each source message left one message downstream, and that says what the model says."""
    said: dict[Place, list[str]] = defaultdict(list)
    for event in derived:
        if event.get("of"):
            topic, partition, offset = event["of"]
            said[topic, partition, offset].append(event["said"])
        elif event["topic"] == "dead-letters":
            report.wrong.append(f"dead-letters[{event['partition']}]@{event['offset']}: {event['said']}")
    for place, decision in model.decided.items():
        report.compared["messages"] += 1
        found = said.pop(place, [])
        if not found:
            report.lost.append(f"streams left nothing of {_text(place)}, which is {decision}")
        elif len(found) > 1:
            report.doubled.append(f"streams left {len(found)} messages of {_text(place)}: {', '.join(found)}")
        elif found[0] != decision:
            report.wrong.append(f"streams say that {_text(place)} is {found[0]}, it is {decision}")
    report.wrong += [f"streams left a message of {_text(place)}, which is not in the log" for place in said]


def _tables(report: Report, model: Model, rows: list[Event]) -> None:
    """Row by row."""
    there: dict[str, list[Row]] = defaultdict(list)
    for event in rows:
        there[event["table"]].append(event["row"])
    for table, expected in model.tables().items():
        key = _KEYS[table]
        found: dict[tuple[Any, ...], Row] = {}
        for row in there[table]:
            at = tuple(row[name] for name in key)
            if at in found:
                report.doubled.append(f"{table} has {at} twice")
            found[at] = row
        for row in expected:
            report.compared[table] += 1
            at = tuple(row[name] for name in key)
            other = found.pop(at, None)
            if other is None:
                report.lost.append(f"{table} lacks {at}")
            elif different := _different(row, other):
                report.wrong.append(f"{table} {at}: {different}")
        report.wrong += [f"{table} has {at}, which nobody sent" for at in found]


def _different(expected: Row, found: Row) -> str:
    """In which columns two rows differ, in words; empty where they are the same."""
    return "; ".join(
        f"{name} is {found.get(name)!r}, must be {value!r}"
        for name, value in expected.items()
        if found.get(name) != value and not _may_be(value, found.get(name))
    )


def _may_be(expected: Any, found: Any) -> bool:
    """The detectors are not modelled: what comes in force may be an anomaly or not."""
    return expected == ANY or (expected == "in force" and found in ("accepted", "anomaly"))


def _sinks(report: Report, kinds: dict[str, list[Event]]) -> None:
    """No sink wrote what another had written, offsets only went forward, and they stand at the end of every topic."""
    for (topic, partition, offset), times in Counter(
        (one["topic"], one["partition"], one["log_offset"]) for one in kinds["written"]
    ).items():
        report.compared["ledger lines written"] += 1
        if times > 1:
            report.doubled.append(f"sinks wrote the ledger line of {topic}[{partition}]@{offset} {times} times")
    lines = {(row["topic"], row["partition"], row["log_offset"]) for row in _rows(kinds["row"], "ledger")}
    seen = {(one["topic"], one["partition"], one["log_offset"]) for one in kinds["written"]}
    report.wrong += [f"nobody saw a sink write the ledger line of {_text(at)}" for at in lines - seen]
    report.lost += [f"a sink wrote the ledger line of {_text(at)}, and it is gone" for at in seen - lines]
    stored = {(row["topic"], row["partition"]): row["next_offset"] for row in _rows(kinds["row"], "sink_offsets")}
    steps: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for moved in kinds["moved"]:
        report.compared["offsets moved"] += 1
        step = moved["from_offset"], moved["to_offset"]
        if step[0] < step[1]:
            steps[moved["topic"], moved["partition"]].append(step)
        else:
            where = f"{moved['topic']}[{moved['partition']}] from {step[0]} to {step[1]}"
            report.wrong.append(f"a sink that no longer owned it moved the offset of {where}")
    for at in steps.keys() | stored.keys():
        _one_chain(report, at, sorted(steps[at]), stored.get(at, 0))
    for event in kinds["derived"]:
        at = event["topic"], event["partition"]
        if "end" in event and stored.get(at) != event["end"]:
            kind = report.lost if stored.get(at, 0) < event["end"] else report.wrong
            kind.append(f"the sinks' offset of {at[0]}[{at[1]}] is {stored.get(at)}, the topic ends at {event['end']}")


def _one_chain(report: Report, at: tuple[str, int], steps: list[tuple[int, int]], end: int) -> None:
    """Each step of an offset begins where one before it ended: from 0 to where it stands now."""
    place, where = f"{at[0]}[{at[1]}]", 0
    for begins, ends in steps:
        if begins < where:
            report.doubled.append(f"sinks went twice over {place} from {begins}")
        elif begins > where:
            report.wrong.append(f"nobody saw a sink move the offset of {place} from {where} to {begins}")
        where = max(where, ends)
    if where != end:
        report.wrong.append(f"the offset of {place} is {end}, and was last moved to {where}")


def _rows(rows: list[Event], table: str) -> list[Row]:
    assert table in TABLES
    return [event["row"] for event in rows if event["table"] == table]


def _text(place: Place) -> str:
    return f"{place[0]}[{place[1]}]@{place[2]}"
