"""What became of a change of a price, as answers say it: the same fields live as from PostgreSQL (gateway/sql/)."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.codec import Record
from schemas.price_events import metadata_json
from schemas.prices import Status
from schemas.values import EPOCH

DateTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Price = Annotated[str, Meta(examples=["39.90"], extra_json_schema={"pattern": r"^-?[0-9]+\.[0-9]{2}$"})]
PriceStatus = Annotated[
    Literal["accepted", "anomaly", "held", "rejected", "superseded"],
    Meta(
        description="accepted and anomaly are in force; held waits for a decision; rejected and superseded (older than"
        " what was there) change nothing."
    ),
]
STATUSES: Final = tuple(Status)


class Found(Struct):
    """What is odd about a price."""

    name: Annotated[str, Meta(examples=["decimal_shift"])]
    score: Annotated[int, Meta(description="50 at the limit, towards 100 the further beyond it.")]
    reason: Annotated[str, Meta(description="For people.")]


class Judgement(Struct, kw_only=True):
    """What became of a change."""

    line: Annotated[int, Meta(description="In the body it came in, from 1; 0 where that is unknown.")]
    product_id: str
    status: PriceStatus
    findings: list[Found]
    price_before: Annotated[Price | None, Meta(description="In force before it.")]
    new_price: Annotated[Price | None, Meta(description="As asked for.")]
    price_after: Annotated[Price | None, Meta(description="In force after it.")]
    currency: Annotated[str | None, Meta(description="Of the price in force after it.")]
    new_currency: Annotated[str | None, Meta(description="Of the price asked for.")]
    version: Annotated[int, Meta(description="How many prices of the product have been in force.")]
    held_offset: Annotated[
        int | None, Meta(description="Of a held change: by this a decision names it. Of a decision: what it decides.")
    ]


class Verdict(Judgement, tag_field="type", tag="verdict", kw_only=True):
    """A line of an answer: what became of a change."""


class Told(Judgement, kw_only=True):
    """A change with all that is known of it."""

    occurred_at: DateTime
    logged_at: DateTime
    source: Annotated[str, Meta(description="Who changed it.")]
    metadata: Annotated[Any, Meta(description="As it was sent.")]
    change_id: Annotated[str | None, Meta(description="The sender's own id of the change.")]
    event_id: Annotated[str, Meta(description="Of the message it came in, for GET …/events.")]
    offset: Annotated[int, Meta(description="Where the message lies in its partition of topic `prices`.")]
    row: Annotated[int, Meta(description="Where the change stands in the message, from 0.")]


class Alert(Told, tag_field="type", tag="alert", kw_only=True):
    """A line of the live stream: an anomaly, or a price that is held or rejected for one."""


def verdict(batch: Record, row: Record) -> Verdict:
    """The line of a PriceVerdict."""
    return Verdict(**_judgement(batch, row))


def alert(batch: Record, index: int, row: Record) -> Alert:
    """The live line of a PriceVerdict, the `index`th of its batch."""
    metadata = metadata_json(row["metadata"])
    return Alert(
        **_judgement(batch, row),
        occurred_at=_moment(row["occurred_at"]),
        logged_at=_moment(batch["time_ms"] * 1000),
        source=row["source"],
        metadata=None if metadata is None else msgspec.Raw(metadata.encode()),
        change_id=row["event_id"],
        event_id=batch["event_id"],
        offset=batch["offset"],
        row=index,
    )


def _judgement(batch: Record, row: Record) -> dict[str, Any]:
    return {
        "line": row["line"],
        "product_id": row["product_id"],
        "status": row["status"],
        "findings": row["findings"],
        "price_before": _amount(row["price_before"]),
        "new_price": _amount(row["new_price"]),
        "price_after": _amount(row["price_after"]),
        "currency": row["currency"],
        "new_currency": row["new_currency"],
        "version": row["version"],
        "held_offset": batch["offset"] if row["status"] == Status.HELD else row["held_offset"],
    }


def _amount(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    cents = int.from_bytes(raw, "big", signed=True)
    return f"{'-' * (cents < 0)}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def _moment(us: int) -> str:
    """As PostgreSQL writes it: no zeros at the end."""
    text = (EPOCH + timedelta(microseconds=us)).isoformat().removesuffix("+00:00")
    return (text.rstrip("0") if "." in text else text) + "Z"
