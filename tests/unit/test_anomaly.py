"""Each detector where it fires and where it must not; the estimate, the level it is held against, cold start."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.prices import Status
from streams import anomaly
from streams.price_state import PRIOR_SCALE, RECENT, At, Change, Policy, State, Verdict, packed, state_of
from streams.prices import judge

HOUR_S = 3_600
DAY_S = 24 * HOUR_S
CALM = [1_999, 2_049, 1_999, 2_099, 2_049, 2_149, 2_099, 2_049, 2_149, 2_199, 2_149, 2_099]


@dataclass
class Product:
    """One product under a policy; `to` changes its price, a day after the change before unless told otherwise."""

    policy: Policy = field(default_factory=Policy)
    state: State = field(default_factory=State)
    at_s: int = 0
    verdicts: list[Verdict] = field(default_factory=list)

    def to(self, price: int, after_s: int = DAY_S, old: int | None = None, currency: str | None = "EUR") -> Verdict:
        self.at_s += after_s
        change = Change("P-1", price, old, currency)
        at = At(len(self.verdicts), self.at_s * 1_000_000)
        self.state, verdict = judge(self.state, change, self.policy, at)
        self.verdicts.append(verdict)
        return verdict


def product(*prices: int, policy: Policy = Policy(), state: State = State()) -> Product:
    """A product with these changes behind it, all of them normal."""
    made = Product(policy, state)
    for price in prices:
        assert made.to(price).status is Status.ACCEPTED
    return made


def names(verdict: Verdict) -> list[str]:
    return [str(finding.name) for finding in verdict.findings]


# Jump


def test_a_jump_is_named_with_a_score_and_a_reason() -> None:
    verdict = product(*CALM).to(6_000)
    assert (verdict.status, names(verdict)) == (Status.ANOMALY, ["jump"])
    [finding] = verdict.findings
    assert 50 < finding.score < 100
    assert finding.reason == "20.99 to 60.00 is +186%; the median of 11 moves is 2.4%, up to +33% is taken for usual"
    assert (verdict.before, verdict.after) == (2_099, 6_000)


def test_tiny_moves_are_told_with_a_decimal() -> None:
    shop = product(*(10_000 + 10 * (n % 2) for n in range(174)))
    [finding] = shop.to(14_000).findings
    assert "the median of 173 moves is 0.1%" in finding.reason


@pytest.mark.parametrize("price", [2_099 * 65 // 100, 2_099 * 8 // 10, 2_399, 2_699])
def test_a_promotion_and_a_price_round_are_no_jump(price: int) -> None:
    assert product(*CALM).to(price).status is Status.ACCEPTED


@pytest.mark.parametrize("price", [610, 1_310])
def test_what_is_usual_shrinks_with_what_is_known_of_a_steady_product(price: int) -> None:
    steady = [1_000 + 10 * (n % 2) for n in range(17)]
    assert product(*steady[:5]).to(price).status is Status.ACCEPTED
    assert names(product(*steady).to(price)) == ["jump"]
    assert product(*steady * 20).to(750).status is Status.ACCEPTED


def test_a_return_from_a_promotion_is_no_jump() -> None:
    shop = product(*CALM, 1_399)
    assert shop.to(2_099).status is Status.ACCEPTED
    assert names(product(*CALM, 1_399).to(3_000)) == ["jump"]


def test_what_is_usual_is_the_products_own() -> None:
    swinging = [1_000, 1_300, 950, 1_300, 1_000, 1_400, 1_050, 1_450, 1_000, 1_350, 1_000]
    assert product(*swinging).to(1_700).status is Status.ACCEPTED
    assert names(product(*CALM).to(2_099 * 17 // 10)) == ["jump"]


def test_the_further_the_higher_the_score() -> None:
    scores = [product(*CALM).to(price).findings[0].score for price in (3_100, 4_500, 8_000)]
    assert scores == sorted(set(scores))


# Cold start


def test_a_first_price_without_an_old_one_is_compared_with_nothing() -> None:
    assert Product().to(999_999).status is Status.ACCEPTED


def test_a_first_price_is_compared_with_the_senders_old_one() -> None:
    assert names(Product().to(3_000, old=10_000)) == ["jump"]
    assert names(Product().to(1_000, old=10_000)) == ["decimal_shift"]
    assert Product().to(5_000, old=10_000).status is Status.ACCEPTED


def test_without_a_history_the_tenants_usual_percentages_are_the_limit() -> None:
    assert product(1_000).to(1_590).status is Status.ACCEPTED
    assert names(product(1_000).to(1_650)) == ["jump"]
    wide = Policy(usual_increase_percent=200)
    assert product(1_000, policy=wide).to(2_900).status is Status.ACCEPTED
    narrow = Policy(usual_increase_percent=20, usual_decrease_percent=20)
    assert names(product(1_000, policy=narrow).to(1_300)) == ["jump"]
    assert names(product(1_000, policy=narrow).to(750)) == ["jump"]


# The estimate


@given(st.lists(st.integers(-3_000_000, 3_000_000), max_size=300))
def test_the_estimate_stays_bounded(moves: list[int]) -> None:
    state = State()
    for moved in moves:
        scale, count = anomaly.learnt(state, moved)
        state = State(scale=scale, count=count)
    assert anomaly.LEAST_SCALE <= state.scale <= anomaly.MOST
    assert state.count == len(moves)


@pytest.mark.parametrize("median", [5_000, 20_000, 100_000, 400_000])
def test_the_estimate_goes_to_the_median_of_the_moves(median: int) -> None:
    state = State()
    for n in range(200):
        scale, count = anomaly.learnt(state, (median // 2, median, 2 * median)[n % 3] * (1, -1)[n % 2])
        state = State(scale=scale, count=count)
    assert 0.8 < state.scale / median < 1.25


def test_an_outlier_moves_the_estimate_no_further_than_any_move() -> None:
    calm = State(scale=20_000, count=30)
    assert anomaly.learnt(calm, 3_000_000) == anomaly.learnt(calm, 20_001)


def test_what_is_doubted_is_not_learnt() -> None:
    shop = product(*CALM)
    before = shop.state
    assert shop.to(20_990).status is Status.ANOMALY
    assert (shop.state.scale, shop.state.count, shop.state.recent) == (before.scale, before.count, before.recent)


# The level


def test_the_correction_of_an_anomaly_is_none() -> None:
    for wrong in (20_990, 209, 9_000):
        shop = product(*CALM)
        assert shop.to(wrong, HOUR_S).status is Status.ANOMALY
        assert shop.to(2_099, HOUR_S, old=wrong).status is Status.ACCEPTED


def test_a_doubted_level_is_believed_at_the_third_change_to_it() -> None:
    shop = product(*CALM)
    statuses = [shop.to(price, HOUR_S).status for price in (6_000, 6_100, 6_050, 6_200)]
    assert statuses == [Status.ANOMALY, Status.ANOMALY, Status.ACCEPTED, Status.ACCEPTED]


def test_doubted_levels_far_apart_do_not_confirm_each_other() -> None:
    shop = product(*CALM)
    assert [shop.to(price, HOUR_S).status for price in (6_000, 400, 6_000, 400, 6_000)] == [Status.ANOMALY] * 5


def test_a_doubted_price_that_stood_for_a_week_is_believed() -> None:
    shop = product(*CALM)
    assert shop.to(6_000).status is Status.ANOMALY
    assert shop.to(6_100, 8 * DAY_S).status is Status.ACCEPTED


def test_a_repetition_neither_confirms_nor_is_flagged_again() -> None:
    shop = product(*CALM)
    assert shop.to(6_000, HOUR_S).status is Status.ANOMALY
    doubts = shop.state.doubts
    assert [shop.to(6_000, HOUR_S).status for _ in range(5)] == [Status.ACCEPTED] * 5
    assert (shop.state.doubts, shop.state.trusted, shop.state.version) == (doubts, 2_099, len(CALM) + 1)


# The other detectors


@pytest.mark.parametrize(
    ("price", "words"),
    [(20_990, "10 times"), (209_900, "100 times"), (210, "1/10 of"), (21, "1/100 of"), (18_900, "10 times")],
)
def test_a_slipped_decimal_point_is_named_as_one(price: int, words: str) -> None:
    verdict = product(*CALM).to(price)
    assert names(verdict) == ["decimal_shift"]
    assert words in verdict.findings[0].reason


def test_no_decimal_shift_between_the_powers_of_ten() -> None:
    assert names(product(*CALM).to(2_099 * 5)) == ["jump"]
    assert names(product(*CALM).to(2_099 * 30)) == ["jump"]


def test_the_bounds_of_a_tenant_hold_whatever_the_product_does() -> None:
    strict = Policy(max_increase_percent=10, max_decrease_percent=20)
    shop = product(1_000, 1_100, 880, policy=strict)
    assert names(shop.to(703)) == ["bounds"]
    assert names(product(1_000, policy=strict).to(1_101)) == ["bounds"]
    assert "the bound is +10%" in product(1_000, policy=strict).to(1_101).findings[0].reason


def test_floor_and_ceiling_are_a_products_own() -> None:
    limited = State(floor=900, ceiling=1_200)
    assert names(product(1_000, state=limited).to(899)) == ["floor"]
    assert names(product(1_000, state=limited).to(1_201)) == ["ceiling"]
    for price in (900, 1_200):
        assert product(1_000, state=limited).to(price).status is Status.ACCEPTED
    assert names(Product(state=limited).to(899)) == ["floor"]


@pytest.mark.parametrize("price", [0, -1, -1_999])
def test_zero_and_less_is_rejected_and_stays_out_of_force(price: int) -> None:
    verdict = product(*CALM).to(price)
    assert (verdict.status, names(verdict), verdict.after) == (Status.REJECTED, ["non_positive"], 2_099)


def test_one_cent_is_a_price() -> None:
    assert Product().to(1).status is Status.ACCEPTED


def test_another_currency_is_named_and_compared_with_nothing() -> None:
    shop = product(*CALM)
    verdict = shop.to(9_999, HOUR_S, currency="PLN")
    assert (names(verdict), verdict.currency) == (["currency_change"], "PLN")
    assert shop.to(2_099, HOUR_S, currency="EUR").status is Status.ACCEPTED


def test_a_currency_is_the_products_own_where_it_is_absent_or_was_never_said() -> None:
    shop = product(*CALM)
    assert shop.to(2_199, currency=None).currency == "EUR"
    nameless = Product()
    nameless.to(1_000, currency=None)
    assert nameless.to(1_100, currency="EUR").status is Status.ACCEPTED
    assert names(nameless.to(1_100, currency="USD")) == ["currency_change"]


def test_a_currency_that_stays_is_believed() -> None:
    shop = product(*CALM)
    statuses = [shop.to(price, HOUR_S, currency="PLN").status for price in (9_000, 9_100, 9_200, 9_100)]
    assert statuses == [Status.ANOMALY, Status.ANOMALY, Status.ACCEPTED, Status.ACCEPTED]
    assert {price for price, _ in shop.state.recent} == {9_200, 9_100}


def test_an_old_price_that_is_not_in_force_is_stale() -> None:
    shop = product(2_000)
    assert names(shop.to(2_100, old=1_900)) == ["stale_old_price"]
    assert shop.to(2_200, old=2_100).status is Status.ACCEPTED
    assert shop.state.trusted == 2_200


def test_a_sender_goes_on_from_what_it_sent_even_where_that_was_refused() -> None:
    shop = product(2_000)
    assert shop.to(0, old=2_000).status is Status.REJECTED
    assert shop.to(2_050, old=0).status is Status.ACCEPTED


def test_two_prices_that_take_turns_are_flapping_from_the_fourth_change_on() -> None:
    shop = product(2_000)
    said = [
        names(shop.to(price, after_s)) for price, after_s in zip((1_900, 2_000) * 3, (DAY_S, *[600] * 5), strict=True)
    ]
    assert said == [[], [], [], ["flapping"], ["flapping"], ["flapping"]]
    assert "take turns: 4 changes in 30 minutes" in shop.verdicts[-1].findings[0].reason


def test_slow_turns_and_other_prices_are_no_flapping() -> None:
    shop = product(2_000)
    assert [names(shop.to(price, DAY_S)) for price in (1_900, 2_000, 1_900, 2_000, 1_900)] == [[]] * 5
    shop = product(2_000)
    assert [names(shop.to(price, 600)) for price in (1_900, 1_850, 1_790, 1_740, 1_690)] == [[]] * 5
    shop = product(2_000, policy=Policy(flap_window_s=0))
    assert [names(shop.to(price, 600)) for price in (1_900, 2_000, 1_900, 2_000, 1_900)] == [[]] * 5


# What is remembered


@given(st.lists(st.tuples(st.integers(-5, 10**12 - 1), st.sampled_from(["EUR", "USD", None])), max_size=60))
def test_a_state_stays_bounded_and_survives_its_entry(changes: list[tuple[int, str | None]]) -> None:
    shop = Product()
    for price, currency in changes:
        shop.to(price, 60, currency=currency)
        assert state_of(packed(shop.state)) == shop.state
    assert len(shop.state.recent) <= RECENT
    assert len(packed(shop.state)) <= 300


def test_entries_of_every_time_still_read() -> None:
    """Written down when they were new; fields that came later have their defaults."""
    first = bytes.fromhex(
        "dc00100ccd0833a3455552cf00038d7ea4c68000cf00038d7ea4c68000cd083307cd0833a3455552000bcd71a291"
        "92cd0833cf00038d7ea4c68000950501a3455552cf00038d7ea4c68000a365727064c0"
    )
    state = state_of(first)
    assert (state.version, state.price, state.currency, state.scale, state.floor) == (12, 2_099, "EUR", 29_090, 100)
    assert state.held is not None
    assert (state.held.offset, state.held.price, state.held.source) == (5, 1, "erp")
    shorter = bytes.fromhex("930ccd0833a3455552")
    assert (state_of(shorter).price, state_of(shorter).scale) == (2_099, PRIOR_SCALE)
