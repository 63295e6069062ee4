"""Verdicts on price changes: pure functions over the states of one tenant's products.

The same log gives the same verdicts: nothing here reads a clock, and a change happened when it says, at the latest when
the log took it. Changes are judged in log order; what happened before the price in force was last said is superseded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec.structs import replace

from schemas.codec import Record
from schemas.currencies import CURRENCIES
from schemas.prices import Action, Detector, Status
from schemas.values import MAX_CENTS
from streams import anomaly
from streams.anomaly import LEVEL, Seen
from streams.price_state import RECENT, At, Change, Finding, Held, Policy, State, Verdict, action, cents

MAX_ID: Final = 100
MAX_TEXT: Final = 200


class Tally(NamedTuple):
    """How the prices of a message or of an upload move, each held against the level from before the message."""

    compared: int = 0
    fell: int = 0
    rose: int = 0
    renamed: int = 0
    """Those in another currency than before."""

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(*(one + two for one, two in zip(self, other, strict=True)))


@dataclass
class Judged:
    """What a message of changes leaves behind: a verdict a change, the new states, the upload's tally from here on."""

    verdicts: list[Verdict] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    breaker: Finding | None = None


def judge_batch(
    states: Mapping[str, State], changes: Sequence[Change], policy: Policy, at: At, upload: Tally = Tally()
) -> Judged:
    """Judge the changes of one message in their order.

    `states` has the products that are known, by id; `upload` counts the earlier messages of the same upload. When most
    prices of the message, or of the upload so far, move too far the same way, then every change of the message that
    would come in force is held instead.
    """
    mine = tally(states, changes, policy)
    judged = Judged(tally=upload.plus(mine))
    judged.breaker = tripped(mine, policy) or tripped(judged.tally, policy)
    for change in changes:
        state = judged.states.get(change.product_id) or states.get(change.product_id) or State()
        state, verdict = judge(state, change, policy, at, judged.breaker)
        if state.offset == at.offset:
            judged.states[change.product_id] = state
        judged.verdicts.append(verdict)
    return judged


def tally(states: Mapping[str, State], changes: Iterable[Change], policy: Policy) -> Tally:
    """Count the moves of a message; repeated prices count as compared, first prices without an old one do not."""
    compared = fell = rose = renamed = 0
    left = 100 - policy.breaker_change_percent
    for change in changes:
        state, new = states.get(change.product_id), change.new_price
        level = state.trusted if state and state.trusted else change.old_price
        if new is None or not level:
            continue
        compared += 1
        if state and change.currency and state.trusted_currency and change.currency != state.trusted_currency:
            renamed += 1
        elif new * 100 < level * left:
            fell += 1
        elif new * left > level * 100:
            rose += 1
    return Tally(compared, fell, rose, renamed)


def tripped(counts: Tally, policy: Policy) -> Finding | None:
    """The breaker: whether these prices move together as prices never do on purpose, and how to say it."""
    share = policy.breaker_share_percent
    if not share or counts.compared < policy.breaker_min_changes:
        return None
    most = max(counts.fell, counts.rose, counts.renamed)
    percent = most * 100 // counts.compared
    if percent < share:
        return None
    by = policy.breaker_change_percent
    what = {
        counts.renamed: "are in another currency",
        counts.rose: f"rose by more than {100 * by // (100 - by)}%",
        counts.fell: f"fell by more than {by}%",
    }[most]
    return Finding(Detector.BREAKER, max(50, percent), f"{percent}% of the {counts.compared:,} prices {what}: held")


def judge(
    state: State, change: Change, policy: Policy, at: At, breaker: Finding | None = None
) -> tuple[State, Verdict]:
    """The state after a change, and the verdict; `breaker` is why the whole message is held."""
    when = change.occurred_us
    when = at.time_us if when is None or when > at.time_us else max(when, 0)
    currency = change.currency or state.currency
    price = change.new_price
    invalid = _invalid(change, price)
    if price is None or invalid:
        why = Finding(Detector.INVALID, 100, invalid)
        return state, _verdict(state, change, Status.REJECTED, [why], currency, when)
    if when < state.said_us:
        late = (state.said_us - when) // 1_000_000
        why = Finding(Detector.OUT_OF_ORDER, 100, f"happened {late:,} s before the price in force was last said")
        return state, _verdict(state, change, Status.SUPERSEDED, [why], currency, when)
    if state.version and price == state.price and currency == state.currency:
        said = replace(state, said_us=when, submitted=price, offset=at.offset, held=None)
        return said, _verdict(said, change, Status.ACCEPTED, [], currency, when)
    seen = anomaly.see(state, change, price, currency, when, policy)
    found = anomaly.findings(state, change, seen, policy)
    gravest = _gravest(found, policy) if found else None
    if breaker is not None and gravest is not Action.REJECT:
        found, gravest = [breaker, *found], Action.HOLD
    if price < 0 or gravest is Action.REJECT:
        after = replace(state, submitted=price, offset=at.offset)
        return after, _verdict(state, change, Status.REJECTED, found, currency, when)
    if gravest is Action.HOLD:
        held = Held(at.offset, price, currency, when, change.source)
        after = replace(state, submitted=price, offset=at.offset, held=held)
        return after, _verdict(state, change, Status.HELD, found, currency, when)
    after = _in_force(state, seen, at, policy, found)
    status = Status.ANOMALY if found else Status.ACCEPTED
    return after, Verdict(change, status, found, _price(state), price, currency, currency, after.version, when)


def decide(state: State, row: Record, at: At) -> tuple[State, Verdict]:
    """Approve or reject what is held of a product; without effect when that is no longer held."""
    held, offset = state.held, row["held_offset"]
    product_id, line = row["product_id"], row["line"]
    if held is None or held.offset != offset:
        change = Change(product_id, None, line=line)
        why = Finding(
            Detector.NOT_HELD, 100, f"nothing of offset {offset} is held: decided, or replaced by a later price"
        )
        verdict = _verdict(state, change, Status.SUPERSEDED, [why], state.currency, at.time_us)
        return state, verdict._replace(held_offset=offset)
    change = Change(product_id, held.price, None, held.currency, held.occurred_us, line, held.source)
    if row["decision"] != "approve":
        after = replace(state, held=None, offset=at.offset)
        verdict = _verdict(state, change, Status.REJECTED, [], held.currency, held.occurred_us)
        return after, verdict._replace(held_offset=offset)
    after = _trusted(_moved(state, held.price, held.currency, held.occurred_us, at))
    return after, Verdict(
        change, Status.ACCEPTED, [], _price(state), held.price, held.currency, held.currency, after.version,
        held.occurred_us, offset,
    )  # fmt: skip


def limit(state: State, row: Record, at: At) -> tuple[State, Verdict]:
    """The state after a row of a PriceLimitBatch: it replaces floor and ceiling of its product."""
    change = Change(row["product_id"], None, line=row["line"])
    if invalid := _invalid_id(change.product_id):
        why = Finding(Detector.INVALID, 100, invalid)
        return state, _verdict(state, change, Status.REJECTED, [why], state.currency, at.time_us)
    after = replace(state, floor=cents(row["floor"]), ceiling=cents(row["ceiling"]), offset=at.offset)
    verdict = _verdict(after, change, Status.ACCEPTED, [], state.currency, at.time_us)
    return after, verdict._replace(floor=after.floor, ceiling=after.ceiling)


def _invalid_id(product_id: str) -> str:
    fits = 1 <= len(product_id) <= MAX_ID and "\x00" not in product_id
    return "" if fits else f"a product id has 1 to {MAX_ID} characters, none of them NUL"


def _invalid(change: Change, price: int | None) -> str:
    """What a row must not be, whoever sends it; empty for one that may be judged."""
    if invalid := _invalid_id(change.product_id):
        return invalid
    if price is None or not -MAX_CENTS <= price <= MAX_CENTS:
        return "the new price is no amount of at most 10 digits and 2 decimals"
    if change.currency is not None and change.currency not in CURRENCIES:
        return "the currency is no code of ISO 4217"
    event_id = change.event_id or ""
    if len(change.source) > MAX_TEXT or len(event_id) > MAX_TEXT:
        return f"source and event_id have at most {MAX_TEXT} characters"
    if "\x00" in change.source + event_id + (change.metadata or ""):
        return "PostgreSQL's texts hold no NUL"
    return ""


def _gravest(found: list[Finding], policy: Policy) -> Action:
    order = list(Action)
    return max((action(policy, finding.name) for finding in found), key=order.index)


def _price(state: State) -> int | None:
    return state.price if state.version else None


def _verdict(
    state: State, change: Change, status: Status, found: list[Finding], currency: str, when_us: int
) -> Verdict:
    """A verdict that leaves the price in force as it is."""
    price = _price(state)
    return Verdict(change, status, found, price, price, state.currency, currency, state.version, when_us)


def _in_force(state: State, seen: Seen, at: At, policy: Policy, found: list[Finding]) -> State:
    price, currency, when = seen.price, seen.currency, seen.when_us
    doubted = price <= 0 or any(finding.name in LEVEL for finding in found)
    if doubted:
        doubts = 1 + (state.doubts if anomaly.near_doubted(state, price, currency, policy) else 0)
        return replace(_moved(state, price, currency, when, at), doubts=doubts)
    after = _trusted(_moved(state, price, currency, when, at))
    if found or not seen.move:
        return after
    scale, count = anomaly.learnt(state, seen.move)
    return replace(after, scale=scale, count=count)


def _moved(state: State, price: int, currency: str, when_us: int, at: At) -> State:
    held = state.held if state.held is not None and state.held.occurred_us > when_us else None
    return replace(
        state, version=state.version + 1, price=price, currency=currency, since_us=when_us, said_us=when_us,
        submitted=price, offset=at.offset, held=held,
    )  # fmt: skip


def _trusted(state: State) -> State:
    """The state in which the price in force is in no doubt."""
    known = state.recent if state.trusted_currency in (state.currency, "") else ()
    recent = (*known, (state.price, state.since_us))[-RECENT:]
    return replace(state, trusted=state.price, trusted_currency=state.currency, doubts=0, recent=recent)
