"""Verdicts of whole messages: the breaker, held prices and their decisions, policies, time."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import codec
from schemas.errors import Rejected
from schemas.prices import HELD_PRICE_DECISION, PRICE_CHANGES, PRICE_LIMITS, PRICE_POLICY, Status
from streams.price_state import At, Change, Policy, State, Verdict, cents, packed, policy_of
from streams.prices import Judged, Tally, decide, judge, judge_batch, limit

MINUTE_US = 60_000_000
PRICES = {f"P-{n}": 1_000 + 7 * n for n in range(100)}


@dataclass
class Shop:
    """A tenant's products under a policy, fed message by message, a minute apart."""

    policy: Policy = field(default_factory=Policy)
    states: dict[str, State] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    offset: int = 0

    def at(self) -> At:
        self.offset += 1
        return At(self.offset, self.offset * MINUTE_US)

    def take(self, prices: dict[str, int], currency: str = "EUR") -> Judged:
        changes = [Change(product_id, price, None, currency) for product_id, price in prices.items()]
        judged = judge_batch(self.states, changes, self.policy, self.at(), self.tally)
        self.states |= judged.states
        return judged

    def decided(self, product_id: str, decision: str, held_offset: int) -> Verdict:
        row = {"product_id": product_id, "line": 1, "held_offset": held_offset, "decision": decision}
        self.states[product_id], verdict = decide(self.states[product_id], row, self.at())
        return verdict

    def in_force(self) -> dict[str, int]:
        return {product_id: state.price for product_id, state in self.states.items()}


def shop(policy: Policy | None = None) -> Shop:
    """A shop whose price list was taken."""
    made = Shop(policy or Policy())
    assert statuses(made.take(PRICES)) == {Status.ACCEPTED}
    return made


def statuses(judged: Judged) -> set[Status]:
    return {verdict.status for verdict in judged.verdicts}


def scaled(factor: float, count: int = 100) -> dict[str, int]:
    """The price list with the first `count` prices times a factor."""
    return {p: round(price * factor) if n < count else price for n, (p, price) in enumerate(PRICES.items())}


# The breaker


def test_a_message_whose_prices_fall_together_is_held() -> None:
    acme = shop()
    judged = acme.take(scaled(0.4, 92))
    assert judged.breaker is not None
    assert judged.breaker.reason == "92% of the 100 prices fell by more than 50%: held"
    assert [verdict.status for verdict in judged.verdicts] == [Status.HELD] * 92 + [Status.ACCEPTED] * 8
    assert judged.verdicts[0].findings[0] == judged.breaker
    assert (judged.verdicts[0].before, judged.verdicts[0].after) == (1_000, 1_000)
    assert acme.in_force() == PRICES


@pytest.mark.parametrize("factor", [0.55, 0.8, 1.08, 1.9])
def test_a_sale_of_the_whole_shop_is_not_held(factor: float) -> None:
    judged = shop().take(scaled(factor))
    assert judged.breaker is None
    assert Status.HELD not in statuses(judged)


def test_prices_that_rise_together_or_change_their_currency_are_held_too() -> None:
    assert "100% of the 100 prices rose by more than 100%" in shop().take(scaled(2.2)).verdicts[0].findings[0].reason
    [reason] = {verdict.findings[0].reason for verdict in shop().take(PRICES, "USD").verdicts}
    assert reason == "100% of the 100 prices are in another currency: held"


def test_falls_of_fewer_than_the_share_are_flagged_one_by_one() -> None:
    judged = shop().take(scaled(0.4, 40))
    assert judged.breaker is None
    assert [verdict.status for verdict in judged.verdicts] == [Status.ANOMALY] * 40 + [Status.ACCEPTED] * 60


def test_few_prices_and_first_prices_are_never_held() -> None:
    assert shop().take(dict(list(scaled(0.3).items())[:19])).breaker is None
    assert Shop().take(dict.fromkeys(PRICES, 1)).breaker is None


def test_the_breaker_can_be_set_and_turned_off() -> None:
    assert shop(Policy(breaker_share_percent=0)).take(scaled(0.01)).breaker is None
    assert shop(Policy(breaker_share_percent=30)).take(scaled(0.4, 40)).breaker is not None
    assert shop(Policy(breaker_change_percent=20)).take(scaled(0.75)).breaker is not None


def test_an_upload_of_small_messages_is_held_as_soon_as_it_can_be_told() -> None:
    acme, held = shop(), []
    for first in range(0, 100, 10):
        judged = acme.take(dict(list(scaled(0.4).items())[first : first + 10]))
        acme.tally = judged.tally
        held.append(judged.breaker is not None)
    assert held == [False] + [True] * 9
    assert acme.tally == Tally(100, 100, 0, 0)


def test_what_is_rejected_is_not_held() -> None:
    assert statuses(shop().take(scaled(0))) == {Status.REJECTED}


# Decisions


def test_an_approved_price_is_in_force_and_trusted() -> None:
    acme = shop()
    acme.take(scaled(0.4))
    verdict = acme.decided("P-0", "approve", acme.offset)
    assert (verdict.status, verdict.before, verdict.after, verdict.held_offset) == (Status.ACCEPTED, 1_000, 400, 2)
    assert (acme.states["P-0"].held, acme.states["P-0"].trusted) == (None, 400)
    assert acme.take({"P-0": 410}).verdicts[0].status is Status.ACCEPTED


def test_a_rejected_price_never_comes_in_force() -> None:
    acme = shop()
    acme.take(scaled(0.4))
    verdict = acme.decided("P-0", "reject", 2)
    assert (verdict.status, verdict.change.new_price, verdict.after) == (Status.REJECTED, 400, 1_000)
    assert acme.states["P-0"].held is None


def test_a_decision_counts_once_and_only_for_what_is_held() -> None:
    acme = shop()
    acme.take(scaled(0.4))
    assert acme.decided("P-0", "approve", 77).status is Status.SUPERSEDED
    assert acme.decided("P-0", "approve", 2).status is Status.ACCEPTED
    version = acme.states["P-0"].version
    again = acme.decided("P-0", "approve", 2)
    assert (again.status, again.findings[0].name, acme.states["P-0"].version) == (
        Status.SUPERSEDED,
        "not_held",
        version,
    )


def test_a_later_price_replaces_a_held_one() -> None:
    acme = shop()
    acme.take(scaled(0.4))
    acme.take({"P-0": 1_050, "P-1": 1_007})
    for product_id in ("P-0", "P-1"):
        assert acme.decided(product_id, "approve", 2).status is Status.SUPERSEDED
    assert (acme.in_force()["P-0"], acme.in_force()["P-1"]) == (1_050, 1_007)


def test_an_earlier_price_that_comes_late_leaves_a_held_one() -> None:
    acme = shop()
    acme.take(scaled(0.4))
    late = Change("P-0", 1_100, occurred_us=MINUTE_US + 1)
    judged = judge_batch(acme.states, [late], acme.policy, acme.at())
    acme.states |= judged.states
    assert judged.verdicts[0].status is Status.ACCEPTED
    assert acme.decided("P-0", "approve", 2).after == 400


# Policies and limits


def test_a_finding_leads_to_what_the_tenant_says() -> None:
    def said(action: str, price: int = 10_000) -> Verdict:
        acme = shop(Policy(actions={"decimal_shift": action, "non_positive": action}))
        return acme.take({"P-0": price}).verdicts[0]

    assert [said(action).status for action in ("ignore", "flag", "hold", "reject")] == [
        Status.ACCEPTED, Status.ANOMALY, Status.HELD, Status.REJECTED
    ]  # fmt: skip
    assert said("ignore").findings == []
    assert (said("ignore", 0).status, said("ignore", 0).after) == (Status.ACCEPTED, 0)
    assert (said("ignore", -1).status, said("ignore", -1).after) == (Status.REJECTED, 1_000)


def test_after_a_price_of_zero_that_was_allowed_the_next_is_judged_by_the_one_before() -> None:
    acme = shop(Policy(actions={"non_positive": "ignore"}))
    acme.take({"P-0": 0})
    assert acme.take({"P-0": 1_000}).verdicts[0].status is Status.ACCEPTED
    acme.take({"P-0": 0})
    assert acme.take({"P-0": 5_000}).verdicts[0].status is Status.ANOMALY


def test_a_policy_is_what_its_message_says_and_its_defaults_are_the_schemas() -> None:
    assert Policy.of(decoded(PRICE_POLICY, {"tenant_id": "acme"})) == Policy()
    actions = [{"finding": "jump", "action": "hold"}]
    policy = Policy.of(decoded(PRICE_POLICY, {"tenant_id": "acme", "max_decrease_percent": 30, "actions": actions}))
    assert policy == Policy(max_decrease_percent=30, actions={"jump": "hold"})
    assert policy_of(packed(policy)) == policy
    assert policy_of(None) == Policy()


@pytest.mark.parametrize(
    "wrong",
    [{"usual_decrease_percent": 100}, {"max_increase_percent": -1}, {"breaker_change_percent": 100},
     {"actions": [{"finding": "jmup", "action": "hold"}]}, {"actions": [{"finding": "breaker", "action": "ignore"}]}],
)  # fmt: skip
def test_a_policy_that_could_not_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="invalid_policy"):
        Policy.of(decoded(PRICE_POLICY, {"tenant_id": "acme", **wrong}))


def test_limits_replace_those_before_and_keep_the_price() -> None:
    acme = shop()
    rows = [{"product_id": "P-0", "floor": b"\x03\x84"}, {"product_id": "P-1"}, {"product_id": "\0"}]
    acme.states["P-1"] = replace(acme.states["P-1"], floor=1, ceiling=2)
    said = []
    for row in decoded(PRICE_LIMITS, {"tenant_id": "acme", "rows": rows})["rows"]:
        state, verdict = limit(acme.states.get(row["product_id"], State()), row, acme.at())
        if verdict.status is Status.ACCEPTED:
            acme.states[row["product_id"]] = state
        said.append((str(verdict.status), cents(verdict.record()["floor"]), verdict.after, verdict.version))
    assert said == [("accepted", 900, 1_000, 1), ("accepted", None, 1_007, 1), ("rejected", None, None, 0)]
    assert (acme.states["P-1"].ceiling, acme.in_force()) == (None, PRICES)
    assert acme.take({"P-0": 899}).verdicts[0].findings[0].name == "floor"


def decoded(type_: str, record: dict[str, Any]) -> dict[str, Any]:
    return codec.decode(type_, codec.encode(type_, record))


# Rows, time, order


@pytest.mark.parametrize(
    "wrong",
    [{"new_price": b"\x7f" * 9}, {"new_price": (10**12).to_bytes(6, "big")}, {"currency": "EURO"},
     {"currency": "XXX"}, {"product_id": ""}, {"product_id": "P" * 101}, {"product_id": "P\0"},
     {"source": "s" * 201}, {"event_id": "e" * 201}, {"metadata": '{"\0": 1}'}],
)  # fmt: skip
def test_a_row_that_is_none_is_rejected_and_leaves_no_trace(wrong: dict[str, Any]) -> None:
    row = {"product_id": "P-0", "new_price": b"\x03\xe8", **wrong}
    [read] = decoded(PRICE_CHANGES, {"tenant_id": "t", "rows": [row]})["rows"]
    judged = judge_batch({}, [Change.of(read)], Policy(), At(1, MINUTE_US))
    assert (judged.verdicts[0].status, judged.verdicts[0].findings[0].name) == (Status.REJECTED, "invalid")
    assert judged.states == {}


def test_a_change_from_before_the_price_in_force_is_superseded() -> None:
    acme = shop()
    late = Change("P-0", 900, occurred_us=MINUTE_US - 1)
    verdict = judge(acme.states["P-0"], late, acme.policy, acme.at())[1]
    assert (verdict.status, verdict.after, verdict.occurred_us) == (Status.SUPERSEDED, 1_000, MINUTE_US - 1)
    tie = late._replace(occurred_us=MINUTE_US)
    assert judge(acme.states["P-0"], tie, acme.policy, acme.at())[1].status is Status.ACCEPTED


def test_a_clock_that_runs_fast_freezes_nothing() -> None:
    acme = shop()
    state, verdict = judge(acme.states["P-0"], Change("P-0", 900, occurred_us=2**62), acme.policy, acme.at())
    assert verdict.occurred_us == 2 * MINUTE_US
    assert judge(state, Change("P-0", 950), acme.policy, acme.at())[1].after == 950


def test_changes_of_one_product_in_one_message_follow_each_other() -> None:
    changes = [Change("P-0", 1_000), Change("P-0", 1_100, 1_000), Change("P-0", 1_050, 1_100)]
    judged = judge_batch({}, changes, Policy(), At(3, MINUTE_US))
    assert [(verdict.before, verdict.after, verdict.version) for verdict in judged.verdicts] == [
        (None, 1_000, 1), (1_000, 1_100, 2), (1_100, 1_050, 3)
    ]  # fmt: skip


def test_a_decision_is_a_message_of_rows() -> None:
    row = {"product_id": "P-0", "held_offset": 7, "decision": "approve"}
    read = decoded(HELD_PRICE_DECISION, {"tenant_id": "t", "rows": [row], "decided_by": "key_1"})
    assert read["rows"] == [{**row, "line": 0}]
