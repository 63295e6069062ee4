"""Seeded price histories as shops make them, with faults of known kinds put in: what detection is held against.

A year of each product, by one of seven habits. Normal are price rounds and rounding, promotions of 20 to 50% and back,
clearance in steps or at once, relaunches at the old price, prices that a repricer moves several times a day, and fresh
goods that move by a third within a week. Not in it, because nothing in the numbers could tell: a fault smaller than a
promotion of a product that may have some, and a whole shop at half price on purpose.

History `n` depends on the seed and on `n` only.
"""

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

from producers.price_habits import CALM, ENDINGS, HABITS, between, ended, pick, weighted
from schemas.prices import Detector

DAY_US: Final = 86_400_000_000
FIRST_US: Final = 1_735_689_600_000_000
"""2025-01-01."""
CURRENCIES: Final = {"EUR": 1, "USD": 1, "GBP": 1, "CHF": 1, "PLN": 4, "SEK": 11, "JPY": 160}
"""How many units a price of about one euro has."""
MAX_RISE_PERCENT: Final = 35
"""Fixed bound of the shop that is strict."""
MAX_FALL_PERCENT: Final = 30
"""The other one."""
FAULTY: Final = 0.4
"""Share of products with a fault."""
STEADY_JUMP: Final = "jump of a steady product"
"""A kind of fault: no further than others promote, but of a product that never did. Jump should name it."""
STEADY: Final = 20
"""Changes behind a product before it can be called steady."""
STEADY_MOVE: Final = 1.1
"""No change of a steady product is by more than this factor."""


class Event(NamedTuple):
    """A price change as its sender tells it, in cents; `fault` is the kind that was put in, None for a normal one.

    A kind is the detector that should name it, or STEADY_JUMP, which is jump's.
    """

    at_us: int
    old_price: int | None
    new_price: int
    currency: str
    source: str
    fault: str | None = None


class History(NamedTuple):
    """All changes of one product, in order; `strict` where the shop has fixed bounds."""

    product_id: str
    strict: bool
    floor: int | None
    ceiling: int | None
    events: list[Event]


def histories(seed: int, count: int) -> Iterator[History]:
    """`count` products; history `n` depends on the seed and on `n` only."""
    for number in range(count):
        yield _history(f"P-{number}", Random(f"{seed}/{number}"))


def _history(product_id: str, chance: Random) -> History:
    strict = chance.random() < 0.25
    habits = CALM if strict else HABITS
    habit = weighted(chance, habits)
    currency = pick(chance, list(CURRENCIES))
    base = round(100 * CURRENCIES[currency] * 2 * 200 ** chance.random())
    path = habit(chance, base, pick(chance, ENDINGS) if currency != "JPY" else 0)
    prices = [price for _, price, _ in path]
    limited = habit in CALM and chance.random() < 0.4
    floor, ceiling = (min(prices) * 75 // 100, max(prices) * 120 // 100) if limited else (None, None)
    tells_old = chance.random() < 0.7
    events = [Event(_time(path[0][0]), None, path[0][1], currency, path[0][2])]
    for (_, old, _), (day, new, source) in pairwise(path):
        if old != new:
            events.append(Event(_time(day), old if tells_old else None, new, currency, source))
    history = History(product_id, strict, floor, ceiling, events)
    return _with_fault(history, chance, tells_old) if chance.random() < FAULTY else history


class Upload(NamedTuple):
    """A shop's whole price list, sent at once; `wrong` says how its prices are wrong, None for a normal one."""

    events: list[Event]
    wrong: str | None = None


def uploads(seed: int, count: int, products: int = 300) -> Iterator[Upload]:
    """A list of first prices, then `count` later ones; one in four is wrong in 70 to 100% of its prices.

    Normal are quiet days, price rounds, sales of the whole shop at 20 to 45% off and back, and clearance of some; the
    wrong ones are out by a factor, or in another currency.
    """
    chance = Random(f"{seed}/uploads")
    regular = [ended(200 * 200 ** chance.random(), 99) for _ in range(products)]
    now, on_sale = list(regular), False
    yield Upload(_list(now, 0))
    for day in range(1, count + 1):
        if chance.random() < 0.25:
            yield _wrong_upload(now, day, chance)
            continue
        kind = chance.random()
        if on_sale:
            now, on_sale = list(regular), False
        elif kind < 0.2:
            regular = [ended(price * between(chance, 1.02, 1.09), 99) for price in regular]
            now = list(regular)
        elif kind < 0.4:
            now, on_sale = [ended(price * between(chance, 0.55, 0.8), 99) for price in regular], True
        else:
            share, low = (between(chance, 0.01, 0.3), 0.9) if kind < 0.8 else (between(chance, 0.05, 0.25), 0.4)
            now = [ended(price * between(chance, low, 1), 99) if chance.random() < share else price for price in now]
        yield Upload(_list(now, day))


def _wrong_upload(now: list[int], day: int, chance: Random) -> Upload:
    share = between(chance, 0.7, 1)
    factor, currency, wrong = pick(
        chance,
        [
            (between(chance, 0.05, 0.45), "EUR", "fell"),
            (between(chance, 2.3, 100), "EUR", "rose"),
            (1.0, "USD", "USD"),
        ],
    )
    events = [
        event._replace(new_price=max(1, round(event.new_price * factor)), currency=currency)
        if chance.random() < share
        else event
        for event in _list(now, day)
    ]
    return Upload(events, wrong)


def _list(prices: list[int], day: int) -> list[Event]:
    return [Event(_time(day), None, price, "EUR", "erp-sync") for price in prices]


def _with_fault(history: History, chance: Random, tells_old: bool) -> History:
    """The history with one fault after one of its changes, and its correction where the sender would make one."""
    kinds: list[str] = [Detector.JUMP, Detector.DECIMAL_SHIFT, Detector.CURRENCY_CHANGE, Detector.NON_POSITIVE]
    kinds += [Detector.STALE_OLD_PRICE, Detector.FLAPPING]
    if history.strict:
        kinds += [Detector.BOUNDS, Detector.BOUNDS]
    if history.floor is not None:
        kinds += [Detector.FLOOR, Detector.CEILING]
    kind, place = pick(chance, kinds), int(chance.random() * len(history.events))
    before, after = history.events[: place + 1], history.events[place + 1 :]
    if _steady(before):
        kind = pick(chance, (kind, STEADY_JUMP))
    here = before[-1]
    end = after[0].at_us if after else here.at_us + 20 * DAY_US
    at = here.at_us + round((end - here.at_us) * between(chance, 0.05, 0.5))
    if kind is Detector.FLAPPING:
        put = _flaps(here, at, chance, tells_old)
        after = [event for event in after if event.at_us > put[-1].at_us]
        return history._replace(events=before + put + _carried_on(after, put[-1], tells_old))
    if kind is Detector.STALE_OLD_PRICE:
        old = round(here.new_price * pick(chance, (0.9, 0.95, 1.05, 1.15)) + 3)
        new = round(here.new_price * between(chance, 0.93, 1.07) + 1)
        put = [here._replace(at_us=at, old_price=old, new_price=new, fault=kind)]
        return history._replace(events=before + put + _carried_on(after, put[-1], tells_old))
    wrong, currency = _wrong(kind, history, here, chance)
    told = here.new_price if tells_old else None
    put = [here._replace(at_us=at, old_price=told, new_price=wrong, currency=currency, fault=kind)]
    corrected = at + round(min(between(chance, 0.003, 2) * DAY_US, (end - at) * 0.9))
    put.append(here._replace(at_us=corrected, old_price=wrong if tells_old else None, source="manual"))
    return history._replace(events=before + put + after)


def _steady(events: list[Event]) -> bool:
    """Whether a product has hardly moved, often."""
    ratios = [new.new_price / old.new_price for old, new in pairwise(events)]
    return len(ratios) >= STEADY and max(ratios) <= STEADY_MOVE and min(ratios) >= 1 / STEADY_MOVE


def _wrong(kind: str, history: History, here: Event, chance: Random) -> tuple[int, str]:
    """The price and the currency of a faulty change."""
    price = here.new_price
    rise = chance.random() < 0.5
    match kind:
        case Detector.JUMP:
            return round(price * (between(chance, 1.9, 6) if rise else 1 / between(chance, 2.6, 6))), here.currency
        case _ if kind == STEADY_JUMP:
            return round(price * (between(chance, 1.31, 1.6) if rise else between(chance, 0.45, 0.61))), here.currency
        case Detector.DECIMAL_SHIFT:
            slipped = price * between(chance, 0.9, 1.1) * 10 ** (pick(chance, (1, 2)) * (1 if rise else -1))
            return max(1, round(slipped)), here.currency
        case Detector.CURRENCY_CHANGE:
            others = [code for code in CURRENCIES if code != here.currency]
            return round(price * (1 if rise else between(chance, 0.8, 1.3))), pick(chance, others)
        case Detector.NON_POSITIVE:
            return 0 if rise else -price, here.currency
        case Detector.BOUNDS:
            return round(price * (between(chance, 1.38, 1.55) if rise else between(chance, 0.5, 0.67))), here.currency
        case Detector.FLOOR if history.floor is not None:
            return round(history.floor * between(chance, 0.8, 0.97)), here.currency
        case Detector.CEILING if history.ceiling is not None:
            return round(history.ceiling * between(chance, 1.02, 1.2)) + 1, here.currency
        case _:
            raise ValueError(f"{kind} is no fault of one price")


def _flaps(here: Event, at: int, chance: Random, tells_old: bool) -> list[Event]:
    """Two prices that take turns every 3 to 40 minutes; from the fourth change on it can be told."""
    prices = (here.new_price, round(here.new_price * between(chance, 0.8, 0.97)))
    events = []
    for turn in range(1, 5 + int(3 * chance.random())):
        old, new = prices[(turn - 1) % 2], prices[turn % 2]
        fault = Detector.FLAPPING if turn >= 4 else None
        events.append(Event(at, old if tells_old else None, new, here.currency, "repricer", fault))
        at += round(between(chance, 3, 40) * 60_000_000)
    return events


def _carried_on(after: list[Event], last: Event, tells_old: bool) -> list[Event]:
    """What follows, where the sender goes on from another price than it did."""
    if not after or not tells_old:
        return after
    return [after[0]._replace(old_price=last.new_price), *after[1:]]


def _time(day: float) -> int:
    return FIRST_US + round(day * DAY_US)
