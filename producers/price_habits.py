"""How shops change the price of a product within a year, one function a habit; chance is a seeded `Random`.

Only `Random(text).random()` is used: it is the same on every machine and Python version.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import exp
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")
DAYS: Final = 365
ENDINGS: Final = (99, 95, 49, 90, 50)
Path = list[tuple[float, int, str]]
"""Day, price in cents and source of each change; the first is on day 0."""


def steady(chance: Random, base: int, ending: int) -> Path:
    """Price rounds of 1 to 9%, a rarer fall, a supplier's rise of up to 28%, a new rounding."""
    path, day, price = [(0.0, ended(base, ending), "catalogue")], between(chance, 20, 120), float(base)
    while day < DAYS:
        kind = chance.random()
        if kind < 0.1:
            ending = pick(chance, ENDINGS) if ending else 0
        elif kind < 0.15:
            price *= between(chance, 1.12, 1.28)
        else:
            price *= between(chance, 1.01, 1.09) if kind < 0.8 else between(chance, 0.88, 0.98)
        path.append((day, ended(price, ending), "erp-sync"))
        day += between(chance, 20, 120)
    return path


def rare(chance: Random, base: int, ending: int) -> Path:
    """One change in the year, or two."""
    path = [(0.0, ended(base, ending), "catalogue")]
    path.append((between(chance, 30, 300), ended(base * between(chance, 0.9, 1.15), ending), "manual"))
    if chance.random() < 0.4:
        path.append((between(chance, 301, 364), ended(base * between(chance, 0.9, 1.15), ending), "manual"))
    return path


def promoted(chance: Random, base: int, ending: int) -> Path:
    """Promotions of 20 to 50%, some lowered once more, and back; the regular price follows the price rounds."""
    path: Path = [(0.0, ended(base, ending), "catalogue")]
    day, price = between(chance, 5, 60), float(base)
    while day < DAYS - 20:
        off = between(chance, 0.2, 0.5)
        path.append((day, ended(price * (1 - off), ending), "promotion"))
        if off < 0.35 and chance.random() < 0.25:
            path.append((day + 3, ended(price * (1 - off - 0.15), ending), "promotion"))
        if chance.random() < 0.3:
            price *= between(chance, 1.01, 1.05)
        path.append((day + between(chance, 4, 14), ended(price, ending), "promotion"))
        day += between(chance, 20, 90)
    return path


def repriced(chance: Random, base: int, ending: int) -> Path:
    """60 days of a repricer: several changes a day, each by 1 to 5%, around a base."""
    path: Path = [(0.0, ended(base, ending), "repricer")]
    spread, day, drift = between(chance, 0.01, 0.05), between(chance, 0, 300), 0.0
    end = day + 60
    while day < end:
        drift = 0.9 * drift + spread * sum(chance.random() - 0.5 for _ in range(12))
        path.append((day, max(1, round(base * exp(drift))), "repricer"))
        day += between(chance, 0.02, 0.9)
    return path


def indexed(chance: Random, base: int, ending: int) -> Path:
    """Every week by at most 2%, after a rate of exchange or of metal; every third has a sale of 12 to 22% late on."""
    path: Path = [(0.0, base, "catalogue")]
    price, sale = float(base), pick(chance, (30, 40, 99, 99, 99, 99))
    for week in range(1, 52):
        price *= between(chance, 0.98, 1.02)
        told = price * between(chance, 0.78, 0.88) if week == sale else price
        path.append((7 * week + chance.random(), max(1, round(told)), "erp-sync"))
    return path


def fresh(chance: Random, base: int, ending: int) -> Path:
    """Fresh goods: up to a third up or down from week to week."""
    weeks = range(1, 52)
    return [
        (0.0, ended(base, ending), "manual"),
        *((7 * week + chance.random(), ended(base * between(chance, 0.8, 1.2), ending), "manual") for week in weeks),
    ]


def cleared(chance: Random, base: int, ending: int) -> Path:
    """A season's end: down to a third in steps, or by 50 to 60% at once; some come back next season."""
    path, day = steady(chance, base, ending)[:2], between(chance, 125, 250)
    regular = path[-1][1]
    steps = [0.25, 0.45, 0.65] if chance.random() < 0.75 else [between(chance, 0.5, 0.6)]
    for off in steps:
        path.append((day, ended(regular * (1 - off), ending), "promotion"))
        day += between(chance, 5, 20)
    if chance.random() < 0.3:
        path.append((day + 50, regular, "catalogue"))
    return path


Habit = Callable[[Random, int, int], Path]
CALM: Final[dict[Habit, float]] = {steady: 0.5, rare: 0.3, repriced: 0.2, indexed: 0.1}
"""Those whose moves stay within MAX_RISE_PERCENT and MAX_FALL_PERCENT."""
HABITS: Final[dict[Habit, float]] = {
    steady: 0.3, rare: 0.15, promoted: 0.3, repriced: 0.12, indexed: 0.08, fresh: 0.05, cleared: 0.08,
}  # fmt: skip


def ended(price: float, ending: int) -> int:
    """A price as shops write it: 3.79, 19.95, from 200 on whole, never 0; in tens where there are no endings."""
    if not ending:
        return max(1_000, round(price / 1_000) * 1_000)
    if price >= 20_000:
        return round(price / 100) * 100
    if price < 1_000:
        return max(9, round(price / 10) * 10 - 1)
    return int(price // 100) * 100 + ending


def between(chance: Random, low: float, high: float) -> float:
    """A uniform draw."""
    return low + (high - low) * chance.random()


def pick(chance: Random, choices: Sequence[T]) -> T:
    """One of several, all equally likely."""
    return choices[int(chance.random() * len(choices))]


def weighted(chance: Random, weights: Mapping[T, float]) -> T:
    """One of several, by weight."""
    ends = list(accumulate(weights.values()))
    return list(weights)[bisect_right(ends, chance.random() * ends[-1])]
