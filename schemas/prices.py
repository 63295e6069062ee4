"""Prices: the message types of their topics, and the words of a verdict."""

from enum import StrEnum
from typing import Final

from schemas.codec import Record

PRICE_CHANGES: Final = "tillstream.price-changes.v1"
PRICE_LIMITS: Final = "tillstream.price-limits.v1"
PRICE_POLICY: Final = "tillstream.price-policy.v1"
HELD_PRICE_DECISION: Final = "tillstream.held-price-decision.v1"
PRICE_TYPES: Final = frozenset({PRICE_CHANGES, PRICE_LIMITS, PRICE_POLICY, HELD_PRICE_DECISION})
"""What topic `prices` carries."""
PRICE_VERDICTS: Final = "tillstream.price-verdicts.v1"


class Status(StrEnum):
    """What became of a price change: the first two are in force, the others are not."""

    ACCEPTED = "accepted"
    ANOMALY = "anomaly"
    HELD = "held"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


class Action(StrEnum):
    """What a finding leads to, the gravest last."""

    IGNORE = "ignore"
    FLAG = "flag"
    HOLD = "hold"
    REJECT = "reject"


class Detector(StrEnum):
    """The names of findings."""

    JUMP = "jump"
    BOUNDS = "bounds"
    FLOOR = "floor"
    CEILING = "ceiling"
    NON_POSITIVE = "non_positive"
    DECIMAL_SHIFT = "decimal_shift"
    CURRENCY_CHANGE = "currency_change"
    STALE_OLD_PRICE = "stale_old_price"
    FLAPPING = "flapping"
    BREAKER = "breaker"
    INVALID = "invalid"
    OUT_OF_ORDER = "out_of_order"
    NOT_HELD = "not_held"


ACTIONS: Final = {
    Detector.JUMP: Action.FLAG,
    Detector.BOUNDS: Action.FLAG,
    Detector.FLOOR: Action.FLAG,
    Detector.CEILING: Action.FLAG,
    Detector.NON_POSITIVE: Action.REJECT,
    Detector.DECIMAL_SHIFT: Action.FLAG,
    Detector.CURRENCY_CHANGE: Action.FLAG,
    Detector.STALE_OLD_PRICE: Action.FLAG,
    Detector.FLAPPING: Action.FLAG,
}
"""What a finding leads to where the tenant's policy does not say otherwise; for others a policy says nothing."""

POLICY_RANGES: Final = {
    "max_increase_percent": (1, 1_000_000),
    "max_decrease_percent": (1, 100),
    "usual_increase_percent": (1, 1_000_000),
    "usual_decrease_percent": (1, 99),
    "jump_factor": (1, 1_000),
    "flap_window_s": (0, 31_536_000),
    "breaker_share_percent": (0, 100),
    "breaker_change_percent": (1, 99),
    "breaker_min_changes": (1, 1_000_000),
}
"""What the numbers of a policy may be (schema price-policy.v1), both ends included."""


def alarming(row: Record) -> bool:
    """Whether a PriceVerdict is an alert: something was found about the price, which is neither late nor no price."""
    found, status = row["findings"], row["status"]
    return bool(found) and status != Status.SUPERSEDED and found[0]["name"] != Detector.INVALID
