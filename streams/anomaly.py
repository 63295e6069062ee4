"""Price anomalies: pure functions that judge one price change by what is remembered of its product.

**The estimate.** A product's usual move is the running median of its absolute log-price changes, by stochastic
approximation (Tierney, "A space-efficient recursive procedure for estimating a quantile of an unknown distribution",
SIAM J. Sci. Stat. Comput. 4, 1983), on a logarithmic scale: each observation moves it up or down by a half at first and
a sixteenth later, however large the observation is. Times 1.4826 the median of absolute deviations is a robust standard
deviation, and what lies beyond several of them is an outlier (Hampel, "The influence curve and its role in robust
estimation", JASA 69, 1974). One number and a count are kept. What is doubted is not learnt.

**The level.** A change is compared with the last price that nobody doubted, not with the one in force: a slip does not
make its own correction look like a jump. A doubted level is taken over by the third change in a
row that comes to about the same price (the first two are flagged), by the first after it stood for a week, or when a
held price is approved.

**Cold start.**
- A first price without `old_price` is compared with nothing: only the rules of the product and of the tenant apply.
- A first price with `old_price` is compared with that.
- Without observations the tenant's usual percentages are the limit. With each move learnt they count for less, down to
  KEPT_PERCENT of their logarithms, half of the way after WARM_UP moves: the default of -55% becomes -43% after 6 moves,
  -37% after 15 and -31% after 50, that of +60% becomes +39%, +31% and +24%. They do not vanish, because a sale comes
  unannounced; what the product itself does is taken for usual in any case.
"""

from collections.abc import Callable
from functools import lru_cache
from math import expm1, log
from typing import Final, NamedTuple

from schemas.prices import Action, Detector
from streams.price_state import MICRO, Change, Finding, Policy, State, action, move

MAD_TO_SIGMA: Final = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution."""
KEPT_PERCENT: Final = 40
"""What remains of the tenant's usual percentages, as moves, for a product that moved often and never far."""
WARM_UP: Final = 6
"""Observations after which they are half way there."""
MOST: Final = round(log(2.5) * MICRO)
"""No product is so restless that a move by this factor is usual."""
LEAST_SCALE: Final = 1_000
CONFIRMING: Final = 2
"""Doubted changes to about the same price, after which the next is believed."""
STOOD_US: Final = 7 * 86_400 * MICRO
"""How long a doubted price must be in force to be taken for meant."""
KNOWN_PERCENT: Final = 8
"""A price this near to a recent one is a return to it, perhaps with a price round."""
SAME_PERCENT: Final = 1
"""Prices this near are the same when they take turns."""
SLIP: Final = 250_000
"""How far from a power of ten a slipped decimal point may be: prices change when they are mistyped, too."""
_TENS: Final = {power: round(power * log(10) * MICRO) for power in (-3, -2, -1, 1, 2, 3)}


class Seen(NamedTuple):
    """A change beside the level that it is compared with; `level` and `move` are 0 where there is none."""

    price: int
    currency: str
    when_us: int
    level: int
    level_currency: str
    move: int
    """ln(price / level) in millionths."""
    slip: int
    """The power of ten by which the decimal point seems to have slipped; 0 where it did not."""


def see(state: State, change: Change, price: int, currency: str, when_us: int, policy: Policy) -> Seen:
    """Find the level: see the module's text."""
    level, level_currency = state.trusted, state.trusted_currency
    if state.doubts and (when_us - state.since_us >= STOOD_US or _confirmed(state, price, currency, policy)):
        level, level_currency = state.price, state.currency
    if not level and change.old_price is not None and change.old_price > 0:
        level, level_currency = change.old_price, currency
    if price <= 0 or level <= 0 or (level_currency and currency != level_currency):
        return Seen(price, currency, when_us, level, level_currency, 0, 0)
    moved = move(level, price)
    slip = 0
    if not -MICRO < moved < MICRO and not _known(state, price):
        slip = next((power for power, tens in _TENS.items() if -SLIP <= moved - tens <= SLIP), 0)
    return Seen(price, currency, when_us, level, level_currency, moved, slip)


def near_doubted(state: State, price: int, currency: str, policy: Policy) -> bool:
    """Whether a price is about the doubted one in force."""
    if not state.doubts or price <= 0 or state.price <= 0 or currency != state.currency:
        return False
    moved = move(state.price, price)
    return abs(moved) <= limit(state, policy, rise=moved > 0)


def _confirmed(state: State, price: int, currency: str, policy: Policy) -> bool:
    return state.doubts >= CONFIRMING and near_doubted(state, price, currency, policy)


def limit(state: State, policy: Policy, *, rise: bool) -> int:
    """The largest usual move of a product, in millionths of a neper."""
    own = min(round(policy.jump_factor * MAD_TO_SIGMA * state.scale), MOST) if state.count else 0
    usual = _rise(policy.usual_increase_percent) if rise else _fall(policy.usual_decrease_percent)
    kept = usual * KEPT_PERCENT // 100
    return max(own, kept + (usual - kept) * WARM_UP // (WARM_UP + state.count))


def learnt(state: State, moved: int) -> tuple[int, int]:
    """The estimate and its count after one more move; one step, however far the move is."""
    gain = max(1 / (state.count + 2), 1 / 16)
    scale = state.scale * (1 + gain) if abs(moved) > state.scale else state.scale / (1 + gain)
    return min(max(round(scale), LEAST_SCALE), MOST), state.count + 1


def findings(state: State, change: Change, seen: Seen, policy: Policy) -> list[Finding]:
    """What all detectors see, save what the tenant ignores."""
    found = [finding for detector in DETECTORS if (finding := detector(state, change, seen, policy)) is not None]
    if found and policy.actions:
        return [finding for finding in found if action(policy, finding.name) is not Action.IGNORE]
    return found


def non_positive(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """A price of zero or less."""
    if seen.price > 0:
        return None
    return Finding(Detector.NON_POSITIVE, 100, f"a price of {money(seen.price)} is not above zero")


def currency_change(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """Another currency than that of the level; what was said in another currency is compared with nothing else."""
    if not seen.level_currency or seen.currency == seen.level_currency:
        return None
    return Finding(
        Detector.CURRENCY_CHANGE,
        100,
        f"in {seen.currency or 'no currency'}, this product is sold in {seen.level_currency}",
    )


def decimal_shift(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """About 10, 100 or 1,000 times the level, or that part of it."""
    if not seen.slip:
        return None
    factor = f"{10 ** abs(seen.slip):,}"
    about = f"{factor} times" if seen.slip > 0 else f"1/{factor} of"
    off = abs(seen.move - _TENS[seen.slip])
    return Finding(
        Detector.DECIMAL_SHIFT,
        100 - 50 * off // SLIP,
        f"{money(seen.price)} is about {about} {money(seen.level)}: a slipped decimal point?",
    )


def jump(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """A move beyond what is usual for the product, and not a return to one of its recent prices."""
    if not seen.move or seen.slip:  # a slip says it better
        return None
    most = limit(state, policy, rise=seen.move > 0)
    if abs(seen.move) <= most or _known(state, seen.price):
        return None
    history = f"the median of {state.count} moves is {_small(state.scale)}%" if state.count else "it has no history yet"
    usual = f"up to +{_percent(most)}%" if seen.move > 0 else f"down to {_percent(-most)}%"
    return Finding(
        Detector.JUMP, _score(abs(seen.move), most), f"{_moved(seen)}; {history}, {usual} is taken for usual"
    )


def bounds(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """A move beyond the tenant's fixed percentages."""
    if not seen.move:
        return None
    percent = policy.max_increase_percent if seen.move > 0 else policy.max_decrease_percent
    if percent is None:
        return None
    by = abs(seen.price - seen.level)
    if by * 100 <= percent * seen.level:
        return None
    sign = "+" if seen.move > 0 else "-"
    return Finding(
        Detector.BOUNDS, _score(by * 100, percent * seen.level), f"{_moved(seen)}; the bound is {sign}{percent}%"
    )


def floor(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """Below the product's floor, which is in the currency of its prices."""
    least = state.floor
    if least is None or not 0 < seen.price < least or seen.currency != (seen.level_currency or seen.currency):
        return None
    return Finding(
        Detector.FLOOR, _score(least, seen.price), f"{money(seen.price)} is below the floor of {money(least)}"
    )


def ceiling(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """Above the product's ceiling, as floor."""
    most = state.ceiling
    if most is None or seen.price <= most or seen.currency != (seen.level_currency or seen.currency):
        return None
    return Finding(
        Detector.CEILING, _score(seen.price, most), f"{money(seen.price)} is above the ceiling of {money(most)}"
    )


def stale_old_price(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """The sender's `old_price` is neither in force nor what was asked for last: it has not seen a change."""
    old = change.old_price
    if old is None or not state.version or old in (state.price, state.submitted):
        return None
    return Finding(Detector.STALE_OLD_PRICE, 100, f"changes a price of {money(old)}, {money(state.price)} is in force")


def flapping(state: State, change: Change, seen: Seen, policy: Policy) -> Finding | None:
    """The fourth change in the window by which the same two prices take turns."""
    if len(state.recent) < 3 or not policy.flap_window_s:
        return None
    (first, first_us), (second, _), (third, _) = state.recent[-3:]
    age_s = (seen.when_us - first_us) // MICRO
    if age_s > policy.flap_window_s or not _same(second, seen.price) or not _same(first, third) or _same(first, second):
        return None
    return Finding(
        Detector.FLAPPING,
        _score(2 * policy.flap_window_s, policy.flap_window_s + age_s),
        f"{money(third)} and {money(seen.price)} take turns: 4 changes in {age_s // 60} minutes",
    )


DETECTORS: Final[tuple[Callable[[State, Change, Seen, Policy], Finding | None], ...]] = (
    non_positive,
    currency_change,
    decimal_shift,
    jump,
    bounds,
    floor,
    ceiling,
    stale_old_price,
    flapping,
)
LEVEL: Final = frozenset(Detector) - {Detector.STALE_OLD_PRICE, Detector.FLAPPING}
"""Findings that put a price itself in doubt."""


def _known(state: State, price: int) -> bool:
    return any(abs(price - known) * 100 <= KNOWN_PERCENT * known for known, _ in state.recent)


def _same(one: int, other: int) -> bool:
    return abs(one - other) * 100 <= SAME_PERCENT * one


@lru_cache
def _rise(percent: int) -> int:
    return round(log(1 + percent / 100) * MICRO)


@lru_cache
def _fall(percent: int) -> int:
    return round(-log(1 - percent / 100) * MICRO)


def _score(value: int, most: int) -> int:
    """50 at the limit, 75 at twice the limit, towards 100."""
    return 100 - 50 * most // value


def money(price: int) -> str:
    """Cents for people."""
    return f"{'-' if price < 0 else ''}{abs(price) // 100}.{abs(price) % 100:02d}"


def _percent(moved: int) -> int:
    """A move as a change in percent, for people."""
    return round(expm1(moved / MICRO) * 100)


def _small(moved: int) -> str:
    """A usual move in percent, with decimals where whole ones would say nothing: LEAST_SCALE is 0.1%."""
    percent = expm1(moved / MICRO) * 100
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}"


def _moved(seen: Seen) -> str:
    return f"{money(seen.level)} to {money(seen.price)} is {_percent(seen.move):+d}%"
