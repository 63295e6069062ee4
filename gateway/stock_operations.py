"""The operations on stock that are no reads."""

from typing import Annotated, Final

from msgspec import Meta

from gateway.examples import MOVEMENTS
from gateway.ingest import Validated
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
from gateway.publishing import Answer
from gateway.stock_outcomes import Line
from schemas.movements import Movement

STOCK: Final = {
    f"POST {TENANT}/stock-events": Operation(
        "send_movements",
        "Stock",
        taken=Taken(
            f"Movements, of which the good ones are taken: up to 5,000, which are one message. {COMPRESSED} As"
            " `application/json`, one; as any other type, NDJSON.",
            {
                NDJSON: Content(
                    Annotated[list[Movement], Meta(min_length=1)],
                    {name: value for name, value in MOVEMENTS.items() if isinstance(value, str)},
                ),
                JSON: Content(Movement, {name: value for name, value in MOVEMENTS.items() if isinstance(value, dict)}),
            },
        ),
        parameters=("on_error", "validate_only", "wait", IDEMPOTENCY_KEY, "traceparent"),
        answers={
            200: Said(
                "`validate_only=true`: what would become of the rows.", {JSON: Content(Validated)}, (IDEMPOTENCY_KEY,)
            ),
            202: Said(
                "Kafka has acknowledged the good movements. With `wait`, lines.",
                {JSON: Content(Answer), NDJSON: Content(list[Line])},
                (IDEMPOTENCY_KEY,),
            ),
        },
        codes=(
            *TENANT_CODES, *BODY_CODES, *ROWS_CODES, "bad_idempotency_key", "bad_parameter", "too_many_rows",
            "rows_rejected", "idempotency_key_reused", "rate_limited", "too_many_streams",
        ),
        headers=(IDEMPOTENCY_KEY, REPLAYED, "Cache-Control", *LIMITED),
        security=KEYS,
    ),
}  # fmt: skip
