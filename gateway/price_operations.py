"""The operations on prices that are no pages, and what reads of prices answer."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from gateway.alerts import SSE, AlertLine
from gateway.examples import DECISIONS, PRICE_EVENT, PRICE_EVENTS, PRICE_LIMITS
from gateway.filters import FILTERS
from gateway.ingest import Validated
from gateway.judged import DateTime, Found, Price, PriceStatus, Told
from gateway.operation import (
    BODY_CODES,
    COMPRESSED,
    JSON,
    KEYS,
    NDJSON,
    ROWS_CODES,
    TENANT,
    TENANT_CODES,
    Content,
    Operation,
    Said,
    Taken,
)
from gateway.parameters import IDEMPOTENCY_KEY, LIMITED, REPLAYED
from gateway.price_outcomes import PriceLine
from gateway.price_rules import Decision, PriceLimits
from gateway.publishing import Answer
from schemas.price_events import PriceChange, PriceEvent


class RecentChange(Struct):
    """A change of a price, in short."""

    status: PriceStatus
    findings: list[Found]
    price_before: Price | None
    new_price: Price | None
    price_after: Price | None
    new_currency: str | None
    held_offset: int | None
    occurred_at: DateTime
    source: str


class ProductPrice(Struct):
    """The price of a product."""

    product_id: str
    price: Annotated[Price | None, Meta(description="In force; null where none is.")]
    currency: str | None
    since: DateTime | None
    version: Annotated[int, Meta(description="How many prices have been in force.")]
    floor: Price | None
    ceiling: Price | None
    changes: Annotated[list[RecentChange], Meta(description="The last 20, the newest first.")]


class StoredChange(Told, kw_only=True):
    """A change of a price with its verdict, or a decision about a held one."""

    decided_by: str | None
    decision_reason: str | None


class Decided(Struct):
    """What was decided about a held price."""

    decision: Literal["approve", "reject"]
    decided_by: str | None
    reason: str | None
    logged_at: DateTime


class Successor(Struct):
    """The later price of the product that took the place of a held one."""

    status: Annotated[Literal["accepted", "anomaly", "held"], Meta(description="What became of it at first.")]
    new_price: Price
    new_currency: str | None
    event_id: str
    logged_at: DateTime


class StoredAlert(Told, kw_only=True):
    """A change of a price about which something was found."""

    decision: Annotated[Decided | None, Meta(description="Of a held price; null where nobody has decided.")]
    superseded_by: Annotated[
        Successor | None,
        Meta(
            description="Of a held price that nobody decided in time: it waits no more. One that waits has neither this"
            " nor a decision."
        ),
    ]


class ChangePage(Struct):
    """Changes of a price, the newest first."""

    data: list[StoredChange]
    next_cursor: str | None


class AlertPage(Struct):
    """Alerts, the newest first."""

    data: list[StoredAlert]
    next_cursor: str | None


_ONE: Final = Content(PriceEvent, PRICE_EVENT)
_JUDGED: Final = {JSON: Content(Answer), NDJSON: Content(list[PriceLine])}
_TAKEN: Final = Said(
    "Kafka has acknowledged. As NDJSON, what became of each as soon as it is judged.", _JUDGED, (IDEMPOTENCY_KEY,)
)
_CODES: Final = (
    *TENANT_CODES, *BODY_CODES, "bad_idempotency_key", "bad_parameter", "idempotency_key_reused", "kafka_unavailable",
    "message_too_large", "not_acceptable", "too_many_streams",
)  # fmt: skip
_HEADERS: Final = (IDEMPOTENCY_KEY, REPLAYED, "Cache-Control")
_DRY: Final = Said(
    "`validate_only=true`: what would become of the rows.", {JSON: Content(Validated)}, (IDEMPOTENCY_KEY,)
)


def _sends(name: str, taken: Taken, *codes: str) -> Operation:
    return Operation(
        name,
        "Prices",
        taken=taken,
        parameters=("on_error", "validate_only", IDEMPOTENCY_KEY, "traceparent"),
        answers={200: _DRY, 202: _TAKEN},
        codes=(*_CODES, *ROWS_CODES, "rows_rejected", "too_many_rows", "rate_limited", *codes),
        headers=(*_HEADERS, *LIMITED),
        security=KEYS,
    )


def _says(name: str, taken: Taken) -> Operation:
    return Operation(
        name,
        "Prices",
        taken=taken,
        parameters=(IDEMPOTENCY_KEY, "traceparent"),
        answers={202: _TAKEN},
        codes=(*_CODES, "bad_document", "bad_price_rule"),
        headers=_HEADERS,
        security=KEYS,
    )


PRICES: Final[dict[str, Operation]] = {
    f"POST {TENANT}/price-events": _sends(
        "send_price_changes",
        Taken(
            f"Changes, of which the good ones are taken. {COMPRESSED} As `application/json`, one; as any other type,"
            " NDJSON.",
            {
                NDJSON: Content(
                    Annotated[list[PriceChange], Meta(min_length=1)],
                    {name: value for name, value in PRICE_EVENTS.items() if isinstance(value, str)},
                ),
                JSON: Content(
                    PriceChange, {name: value for name, value in PRICE_EVENTS.items() if isinstance(value, dict)}
                ),
            },
        ),
    ),
    f"POST {TENANT}/products/{{product_id}}/price-event": _sends(
        "send_price_change", Taken("The change.", {JSON: _ONE}), "bad_document"
    ),
    f"PUT {TENANT}/products/{{product_id}}/price-limits": _says(
        "set_price_limits", Taken("Floor and ceiling.", {JSON: Content(PriceLimits, PRICE_LIMITS)})
    ),
    f"POST {TENANT}/price-decisions": _says(
        "decide_held_prices", Taken("The decision.", {JSON: Content(Decision, DECISIONS)})
    ),
    f"GET {TENANT}/price-alerts/stream": Operation(
        "watch_price_alerts",
        "Prices",
        parameters=("Last-Event-ID", *(f"price_alerts.{name}" for name in FILTERS["price_alerts"])),
        answers={
            200: Said(
                "Alerts, for as long as the client listens. The data of events are as the lines are.",
                {SSE: Content(), NDJSON: Content(list[AlertLine])},
                ("Cache-Control", "X-Accel-Buffering"),
            )
        },
        codes=(*TENANT_CODES, "bad_parameter", "not_acceptable", "too_many_streams", "kafka_unavailable"),
        security=KEYS,
    ),
}
STORED_PRICES: Final[dict[str, tuple[Any, Any, Any]]] = {
    "price_history": (StoredChange, ChangePage, list[StoredChange]),
    "price_alerts": (StoredAlert, AlertPage, list[StoredAlert]),
}
