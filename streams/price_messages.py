"""What a message of topic `prices` does: pure functions over a partition's tables.

Table `prices.current` has the products' states, and under keys no product can have the tenants' policies. Table
`dedup.prices` has, beside its events, the tallies of requests that came in several messages.
"""

import struct
from collections.abc import Callable, MutableMapping
from typing import Final

from schemas.codec import Record
from schemas.envelope import Envelope
from schemas.prices import HELD_PRICE_DECISION, PRICE_CHANGES, PRICE_LIMITS, PRICE_POLICY
from streams.price_state import At, Change, Policy, State, Verdict, packed, policy_of, state_of
from streams.prices import Tally, decide, judge_batch, limit

Entries = MutableMapping[bytes, bytes]

_POLICY: Final = b"\x00policy/"
_TALLY: Final = struct.Struct(">qq4I")  # begins as dedup's entries do, so that it is forgotten with them
_BY_ROW: Final[dict[str, Callable[[State, Record, At], tuple[State, Verdict]]]] = {
    PRICE_LIMITS: limit,
    HELD_PRICE_DECISION: decide,
}


def take(prices: Entries, tallies: Entries, tenant_key: bytes, envelope: Envelope, record: Record) -> Record:
    """Do what a decoded message says; return the PriceVerdictBatch that answers it.

    Raises Rejected for a policy that could not be followed; nothing is changed then.
    """
    src, request, breaker = envelope.src, envelope.request, None
    at = At(src.offset, envelope.first_ms * 1000)
    verdicts: list[Verdict] = []
    if envelope.type == PRICE_POLICY:
        prices[_POLICY + tenant_key] = packed(Policy.of(record))
    elif envelope.type == PRICE_CHANGES:
        verdicts, breaker = _changes(prices, tallies, tenant_key, envelope, record["rows"], at)
    else:
        for row in record["rows"]:
            verdicts.append(_row(prices, tenant_key, _BY_ROW[envelope.type], row, at))
    return {
        "tenant_id": record["tenant_id"],
        "rows": [verdict.record() for verdict in verdicts],
        "event_id": envelope.event_id,
        "type": envelope.type,
        "topic": src.topic,
        "partition": src.partition,
        "offset": src.offset,
        "time_ms": src.time_ms,
        "accepted_ms": envelope.accepted_ms,
        "request_id": str(request.id) if request else None,
        "body_hash": envelope.content_hash[:16] if request else None,
        "first_line": request.first if request else None,
        "last_line": request.last if request else None,
        "total_lines": request.total if request else None,
        "breaker": breaker,
        "decided_by": record.get("decided_by"),
        "decision_reason": record.get("reason"),
    }


def state_key(tenant_key: bytes, product_id: str) -> bytes:
    """The key of a product's state: `tenant/product`; a tenant's id holds no slash."""
    return tenant_key + b"/" + product_id.encode()


def _changes(
    prices: Entries, tallies: Entries, tenant_key: bytes, envelope: Envelope, rows: list[Record], at: At
) -> tuple[list[Verdict], str | None]:
    changes = [Change.of(row) for row in rows]
    keys = {change.product_id: state_key(tenant_key, change.product_id) for change in changes}
    states = {product_id: state_of(entry) for product_id, key in keys.items() if (entry := prices.get(key)) is not None}
    policy = policy_of(prices.get(_POLICY + tenant_key))
    request = envelope.request
    tally_key = b"" if request is None else tenant_key + b"\x00" + (request.upload or request.id).bytes + b"tally"
    earlier = tallies.get(tally_key) if request else None
    judged = judge_batch(states, changes, policy, at, Tally(*_TALLY.unpack(earlier)[2:]) if earlier else Tally())
    for product_id, state in judged.states.items():
        prices[keys[product_id]] = packed(state)
    if request is not None and (request.upload or request.last - request.first + 1 < request.total):
        tallies[tally_key] = _TALLY.pack(at.offset, envelope.src.time_ms, *judged.tally)
    return judged.verdicts, judged.breaker.reason if judged.breaker else None


def _row(
    prices: Entries,
    tenant_key: bytes,
    act: Callable[[State, Record, At], tuple[State, Verdict]],
    row: Record,
    at: At,
) -> Verdict:
    key = state_key(tenant_key, row["product_id"])
    before = state_of(prices.get(key))
    after, verdict = act(before, row, at)
    if after is not before:
        prices[key] = packed(after)
    return verdict
