"""Detection is held against seeded histories with faults put in; `tillstream bench --only prices` does so at length."""

from itertools import islice, pairwise

import pytest

from deploy.bench.prices import PRECISION, RECALL, Score, evaluate, evaluate_uploads
from producers.price_histories import STEADY_JUMP, histories, uploads
from schemas.prices import ACTIONS, Detector

PRODUCTS = 1_500
LOWER = {Detector.JUMP: 0.8, STEADY_JUMP: 0.8, Detector.FLAPPING: 0.85}
"""Precision of those that also take clearance by more than 55% at once, and a lively repricer, for faults."""


@pytest.fixture(scope="module")
def score() -> Score:
    made = Score()
    evaluate(histories(21, PRODUCTS), made)
    return made


def test_faults_are_found_and_normal_changes_are_left_alone(score: Score) -> None:
    assert score.changes > 30_000
    assert score.faults.total() > 600
    assert score.precision() >= PRECISION
    assert score.recall() >= RECALL


@pytest.mark.parametrize("kind", [*ACTIONS, STEADY_JUMP])
def test_each_kind_is_named(score: Score, kind: str) -> None:
    assert score.faults[kind] >= 10
    assert score.recall(kind) >= RECALL
    assert score.precision(kind) >= LOWER.get(kind, PRECISION)


def test_price_lists_that_are_wrong_are_held_and_no_others() -> None:
    score = Score()
    evaluate_uploads(uploads(21, 60), score)
    assert 5 < score.faults.total() < 30
    assert (score.precision(), score.recall()) == (1, 1)


def test_a_history_depends_on_the_seed_and_its_number_only() -> None:
    assert list(histories(5, 10)) == list(islice(histories(5, 30), 10))
    assert list(histories(5, 10)) != list(histories(6, 10))


def test_histories_are_as_shops_make_them() -> None:
    made = list(histories(21, PRODUCTS))
    assert len({event.currency for product in made for event in product.events}) >= 5
    for product in made:
        assert all(one.at_us < other.at_us for one, other in pairwise(product.events)), product.product_id
        assert all(event.new_price > 0 for event in product.events if event.fault is not Detector.NON_POSITIVE)
    normal = [[event.new_price for event in product.events if event.fault is None] for product in made]
    assert sum(any(new <= old * 7 // 10 for old, new in pairwise(prices)) for prices in normal) > PRODUCTS // 6
