"""Price anomalies: what detection finds of the faults put into seeded histories, and prices judged a second.

Nothing of it needs a store. The limits were chosen on seed 1; these are other seeds.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from deploy.bench.figures import Figure
from deploy.bench.installation import Say
from deploy.stack import Stack
from producers.price_histories import (
    MAX_FALL_PERCENT,
    MAX_RISE_PERCENT,
    STEADY_JUMP,
    Event,
    History,
    Upload,
    histories,
    uploads,
)
from schemas.prices import Detector, Status
from streams.price_state import At, Change, Policy, State, packed, state_of
from streams.prices import judge, judge_batch

PRECISION: Final = 0.95
RECALL: Final = 0.9
PER_SECOND: Final = 50_000
MESSAGE_ROWS: Final = 1_000
_STRICT: Final = Policy(max_increase_percent=MAX_RISE_PERCENT, max_decrease_percent=MAX_FALL_PERCENT)
_SEEDS: Final = (11, 12, 13)
_PRODUCTS: Final = 3_000
_UPLOADS: Final = 200
_ROUNDS: Final = 5


@dataclass
class Score:
    """Counts of changes. A fault is found when its verdict is not `accepted`, and named when a finding has its kind.

    A finding on a faulty change is right whatever its name: a price may be a jump and below its floor.
    """

    changes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    found: int = 0
    flagged: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)

    def add(self, fault: str | None, status: Status, names: Iterable[str]) -> None:
        """Count a change and its verdict."""
        names = set(names)
        self.changes += 1
        self.findings.update(names)
        self.flagged += status is not Status.ACCEPTED
        if fault is not None:
            self.faults[fault] += 1
            self.named[fault] += _detector(fault) in names
            self.found += status is not Status.ACCEPTED
            self.right.update(names)

    def precision(self, kind: str | None = None) -> float:
        """The share of what was flagged, or of the findings of a kind, that lies on a fault."""
        if kind is None:
            return self.found / self.flagged
        return self.right[_detector(kind)] / self.findings[_detector(kind)]

    def recall(self, kind: str | None = None) -> float:
        """The share of all faults that was flagged, or of the faults of a kind that was named so."""
        return self.found / self.faults.total() if kind is None else self.named[kind] / self.faults[kind]


def _detector(kind: str) -> str:
    """Whose name a fault of this kind should get."""
    return Detector.JUMP if kind == STEADY_JUMP else kind


def evaluate(products: Iterable[History], score: Score) -> None:
    """Judge whole histories, each from nothing."""
    for product in products:
        state = State(floor=product.floor, ceiling=product.ceiling)
        policy = _STRICT if product.strict else Policy()
        for offset, event in enumerate(product.events):
            change = _change(product.product_id, event)
            state, verdict = judge(state, change, policy, At(offset, event.at_us))
            score.add(event.fault, verdict.status, (finding.name for finding in verdict.findings))


def evaluate_uploads(lists: Iterable[Upload], score: Score) -> None:
    """Judge one shop's price lists, in order; an upload counts as one change, flagged when it is held."""
    states: dict[str, State] = {}
    for offset, upload in enumerate(lists):
        changes = [_change(f"P-{number}", event) for number, event in enumerate(upload.events)]
        judged = judge_batch(states, changes, Policy(), At(offset, upload.events[0].at_us))
        states |= judged.states
        fault = Detector.BREAKER if upload.wrong else None
        score.add(fault, *((Status.HELD, [Detector.BREAKER]) if judged.breaker else (Status.ACCEPTED, [])))


def _change(product_id: str, event: Event) -> Change:
    return Change(product_id, event.new_price, event.old_price, event.currency, source=event.source)


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Faults put into seeded price histories, found and named; then prices judged a second, by one process."""
    del stack
    say("price histories")
    score, lists = Score(), Score()
    for seed in _SEEDS:
        evaluate(histories(seed, _PRODUCTS), score)
        evaluate_uploads(uploads(seed, _UPLOADS), lists)
    yield Figure("changes, and faults among them", f"{score.changes:,}, {score.faults.total():,}")
    yield _share("precision", score.precision(), PRECISION)
    yield _share("recall", score.recall(), RECALL)
    for kind in sorted(score.faults):
        yield _of_kind(kind, score)
    yield _of_kind(f"{Detector.BREAKER}", lists)
    say("judging")
    yield from _speed(count)


def _share(name: str, value: float, target: float) -> Figure:
    return Figure(name, f"{value:.3f}", None, f">= {target}", value >= target)


def _of_kind(kind: str, score: Score) -> Figure:
    faults = score.faults[kind]
    return Figure(f"{kind}: precision, recall", f"{score.precision(kind):.3f}, {score.recall(kind):.3f} of {faults:,}")


def _speed(count: int) -> Iterator[Figure]:
    """Price lists of `count` products in messages of 1,000, one in ten unchanged, from table entry to table entry."""
    table: dict[str, bytes] = {}
    offset, judged, started = 0, 0, time.perf_counter()
    for round_ in range(_ROUNDS):
        for first in range(0, count, MESSAGE_ROWS):
            ids = [f"P-{number}" for number in range(first, min(first + MESSAGE_ROWS, count))]
            changes = [
                Change(product_id, 1_000 + (n * 7 + round_ * 40 * (n % 10 > 0)) % 400, None, "EUR")
                for n, product_id in enumerate(ids)
            ]
            states = {product_id: state_of(table.get(product_id)) for product_id in ids}
            made = judge_batch(states, changes, Policy(), At(offset, offset * 1_000_000))
            table |= {product_id: packed(state) for product_id, state in made.states.items()}
            offset, judged = offset + 1, judged + len(ids)
    per_second = judged / (time.perf_counter() - started)
    size = sum(map(len, table.values())) / len(table)
    yield Figure("prices judged", f"{per_second:,.0f} prices/s", None, f">= {PER_SECOND:,}", per_second >= PER_SECOND)
    yield Figure("an entry of the table", f"{size:.0f} bytes")
