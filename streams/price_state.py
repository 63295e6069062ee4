"""What is remembered of a product's price and of a tenant's policy, and the values that are judged.

Prices are cents, times are microseconds since 1970, moves are millionths of a neper (natural logarithms of ratios):
whole numbers, so that two platforms which round a logarithm differently agree. The states are entries of table
`prices.current`, whose changelog nobody else reads: msgpack arrays, which cost a fraction of Avro's time. A field is
only ever added at the end, with a default; older entries then still read.
"""

from math import log
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from schemas.codec import Record
from schemas.errors import Rejected
from schemas.prices import ACTIONS, POLICY_RANGES, Action, Detector, Status

MICRO: Final = 1_000_000
RECENT: Final = 6
"""Prices that are remembered of a product."""
PRIOR_SCALE: Final = 50_000
"""Where the estimate of a product's usual move begins: 5%."""


class Held(Struct, frozen=True, array_like=True, gc=False):
    """A price that waits for a decision; `offset` is the source offset by which the decision names it."""

    offset: int
    price: int
    currency: str
    occurred_us: int
    source: str


class State(Struct, frozen=True, array_like=True, gc=False):
    """Of one (tenant, product). Bounded: `recent` has at most RECENT prices, all else is a number or a code.

    `price` is in force, `trusted` is the last one in which nothing was wrong: they differ while a price is in doubt.
    """

    version: int = 0
    """How many prices have been in force; 0 is none yet."""
    price: int = 0
    currency: str = ""
    since_us: int = 0
    """When the price in force came."""
    said_us: int = 0
    """When it was last said, by a repetition too: what happened earlier comes too late."""
    submitted: int = 0
    """The last price asked for, in force or not: its sender goes on from there."""
    offset: int = -1
    """Source offset of the last message about the product."""
    trusted: int = 0
    trusted_currency: str = ""
    doubts: int = 0
    """Changes in a row that came to about the price in force and were doubted."""
    count: int = 0
    """Moves learnt."""
    scale: int = PRIOR_SCALE
    """Running median of the product's absolute moves, in millionths of a neper."""
    recent: tuple[tuple[int, int], ...] = ()
    """The last trusted prices with their times, the newest last."""
    held: Held | None = None
    floor: int | None = None
    ceiling: int | None = None


class Policy(Struct, frozen=True, array_like=True, gc=False):
    """A tenant's rules; the fields are those of schema price-policy.v1."""

    max_increase_percent: int | None = None
    max_decrease_percent: int | None = None
    usual_increase_percent: int = 60
    usual_decrease_percent: int = 55
    jump_factor: int = 6
    flap_window_s: int = 21_600
    breaker_share_percent: int = 50
    breaker_change_percent: int = 50
    breaker_min_changes: int = 20
    actions: dict[str, str] = {}

    @classmethod
    def of(cls, record: Record) -> "Policy":
        """The policy of a PricePolicy message. Raises Rejected for one that could not be followed."""
        for name, (least, most) in POLICY_RANGES.items():
            if record[name] is not None and not least <= record[name] <= most:
                raise Rejected("invalid_policy", f"{name} is {least} to {most}, not {record[name]}")
        actions = {row["finding"]: row["action"] for row in record["actions"]}
        if unknown := actions.keys() - ACTIONS.keys():
            raise Rejected("invalid_policy", f"no such finding: {', '.join(sorted(unknown))}; see {', '.join(ACTIONS)}")
        return cls(**{name: record[name] for name in POLICY_RANGES}, actions=actions)


class Change(NamedTuple):
    """A row of a PriceChangeBatch; a price is None where it is absent or no amount of at most 8 bytes."""

    product_id: str
    new_price: int | None
    old_price: int | None = None
    currency: str | None = None
    occurred_us: int | None = None
    line: int = 0
    source: str = "unknown"
    metadata: str | None = None
    event_id: str | None = None

    @classmethod
    def of(cls, row: Record) -> "Change":
        """The change that a decoded row tells."""
        return cls(
            row["product_id"],
            cents(row["new_price"]),
            cents(row["old_price"]),
            row["currency"],
            row["occurred_at"],
            row["line"],
            row["source"],
            row["metadata"],
            row["event_id"],
        )


class At(NamedTuple):
    """Where the message lies: its source offset, and when the log took it."""

    offset: int
    time_us: int


class Finding(NamedTuple):
    """What a detector saw. The score is 50 at its limit, towards 100 the further beyond; 100 where it has no limit."""

    name: str
    score: int
    reason: str


class Verdict(NamedTuple):
    """What became of a change. `before` and `after` are in force, None while none is."""

    change: Change
    status: Status
    findings: list[Finding]
    before: int | None
    after: int | None
    currency: str
    """Of the price in force after; empty while unknown."""
    new_currency: str
    version: int
    occurred_us: int
    held_offset: int | None = None
    floor: int | None = None
    ceiling: int | None = None

    def record(self) -> Record:
        """The row of a PriceVerdictBatch."""
        change = self.change
        return {
            "line": change.line,
            "product_id": change.product_id,
            "status": self.status,
            "findings": [finding._asdict() for finding in self.findings],
            "price_before": amount(self.before),
            "new_price": amount(change.new_price),
            "price_after": amount(self.after),
            "currency": self.currency or None,
            "new_currency": self.new_currency or None,
            "version": self.version,
            "occurred_at": self.occurred_us,
            "source": change.source,
            "metadata": change.metadata,
            "event_id": change.event_id,
            "held_offset": self.held_offset,
            "floor": amount(self.floor),
            "ceiling": amount(self.ceiling),
        }


_encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(State).decode
_decode_policy = msgspec.msgpack.Decoder(Policy).decode


def packed(value: State | Policy) -> bytes:
    """An entry of the table."""
    return _encode(value)


def state_of(entry: bytes | None) -> State:
    """The state that an entry holds, or that of a product of which nothing is known."""
    return State() if entry is None else _decode_state(entry)


def policy_of(entry: bytes | None) -> Policy:
    """The policy that an entry holds, or the default."""
    return Policy() if entry is None else _decode_policy(entry)


def cents(raw: bytes | None) -> int | None:
    """An Avro decimal of scale 2; None also for what has more than 8 bytes."""
    return None if raw is None or len(raw) > 8 else int.from_bytes(raw, "big", signed=True)


def amount(price: int | None) -> bytes | None:
    """Cents as an Avro decimal."""
    return None if price is None else price.to_bytes((price.bit_length() + 8) >> 3, "big", signed=True)


def move(old: int, new: int) -> int:
    """ln(new / old) in millionths, of two prices above zero."""
    return round(log(new / old) * MICRO)


def action(policy: Policy, name: str) -> Action:
    """What is to be done about a finding of this name."""
    wanted = policy.actions.get(name)
    return Action(wanted) if wanted else ACTIONS[Detector(name)]
