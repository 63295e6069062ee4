"""Any log of price changes: the same verdicts again, no gap in what is in force, and what is held can be approved."""

from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.prices import PRICE_VERDICTS, Status
from streams.price_state import At, Change, Policy, State, Verdict
from streams.prices import decide, judge_batch

SOURCE = {"event_id": "e", "type": "t", "topic": "prices", "partition": 0, "offset": 1, "time_ms": 1, "accepted_ms": 1}

prices = st.integers(-10, 100_000) | st.sampled_from([0, 1_000, 1_100, 10_000, 100, 10**13])
change = st.builds(
    Change,
    st.sampled_from(["a", "b", "c", ""]),
    st.none() | prices,
    st.none() | prices,
    st.sampled_from([None, "EUR", "USD", "nope"]),
    st.none() | st.integers(-(2**40), 2**40),
    st.integers(0, 2**31 - 1),
)
messages = st.lists(st.lists(change, max_size=8), max_size=12)
policies = st.sampled_from(
    [
        Policy(),
        Policy(10, 10, 20, 20, 3, 0, 30, 10, 1),
        Policy(actions={"jump": "hold", "non_positive": "ignore", "stale_old_price": "reject"}),
    ]
)


def judged_log(log: list[list[Change]], policy: Policy) -> tuple[list[Verdict], dict[str, State]]:
    states: dict[str, State] = {}
    verdicts: list[Verdict] = []
    for offset, changes in enumerate(log):
        judged = judge_batch(states, changes, policy, At(offset, offset * 2**37))
        states |= judged.states
        verdicts += judged.verdicts
    return verdicts, states


@given(messages, policies)
def test_the_same_log_gives_the_same_verdicts_and_each_is_a_row(log: list[list[Change]], policy: Policy) -> None:
    verdicts, states = judged_log(log, policy)
    assert (verdicts, states) == judged_log(log, policy)
    assert len(verdicts) == sum(map(len, log))
    rows = [verdict.record() for verdict in verdicts]
    batch = {"tenant_id": "t", "rows": rows, **SOURCE}
    read = codec.decode(PRICE_VERDICTS, codec.encode(PRICE_VERDICTS, batch))["rows"]
    assert [row["status"] for row in read] == [verdict.status for verdict in verdicts]


@given(messages, policies)
def test_verdicts_tell_the_price_in_force_without_a_gap(log: list[list[Change]], policy: Policy) -> None:
    """What is in force after a verdict is so before the next of its product, and in the end in its state."""
    verdicts, states = judged_log(log, policy)
    in_force: dict[str, int | None] = {}
    for verdict in verdicts:
        product_id = verdict.change.product_id
        assert verdict.before == in_force.get(product_id)
        if verdict.status in (Status.HELD, Status.REJECTED, Status.SUPERSEDED):
            assert verdict.after == verdict.before
        else:
            assert verdict.after == verdict.change.new_price
        in_force[product_id] = verdict.after
    for product_id, state in states.items():
        assert in_force[product_id] == (state.price if state.version else None)


@given(messages, policies, st.sampled_from("abc"))
def test_whatever_is_held_comes_in_force_when_it_is_approved(
    log: list[list[Change]], policy: Policy, product_id: str
) -> None:
    _, states = judged_log(log, policy)
    state = states.get(product_id, State())
    held = state.held
    row = {"product_id": product_id, "line": 0, "decision": "approve", "held_offset": held.offset if held else 0}
    after, verdict = decide(state, row, At(99, 2**50))
    if held is None:
        assert (after, verdict.status) == (state, Status.SUPERSEDED)
    else:
        assert (after.price, after.trusted, after.held, verdict.after) == (held.price, held.price, None, held.price)
