"""Settling a batch at once leaves what its rows would leave one by one, however they are cut into batches."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Envelope, Position
from sinks.batch import Message
from sinks.settling import State, Version, settle, split

MESSAGE = Message("acme", Envelope("e", "tillstream.products.v1", "test", 0, 0, b"", Position("ingestion", 0, 0, 0)))
rows = st.tuples(st.sampled_from("PQRS"), st.sampled_from("abcde"), st.integers(0, 5))


def versions(given: list[tuple[str, str, int]]) -> list[Version]:
    return [
        (("acme", product, product.encode(), sku, at, offset, 0), MESSAGE)
        for offset, (product, sku, at) in enumerate(given)
    ]


def one_by_one(given: list[Version], entity: str) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """What PostgreSQL would do: the row that stays of each record, and which rows were applied and refused."""
    table: dict[str, Any] = {}
    applied, taken = [], []
    for row, _ in given:
        if row[1] in table and table[row[1]][-3:] >= row[-3:]:
            continue
        if entity == "products" and any(other[3] == row[3] for name, other in table.items() if name != row[1]):
            taken.append(row)
            continue
        table[row[1]] = row
        applied.append(row)
    return table, applied, taken


def after(state: State, winners: dict[Any, Version]) -> State:
    """The state that the next batch finds."""
    state = State(dict(state.ages), dict(state.skus), {})
    for key, (row, _) in winners.items():
        state.ages[key], state.skus[key] = row[-3:], row[3]
    state.holders = {(tenant, sku): product for (tenant, product), sku in state.skus.items()}
    return state


@given(st.lists(rows, max_size=40), st.lists(st.integers(0, 40), max_size=4), st.sampled_from(["products", "orders"]))
def test_batches_of_any_size_leave_the_same(given: list[tuple[str, str, int]], cuts: list[int], entity: str) -> None:
    log = versions(given)
    table, applied, taken = one_by_one(log, entity)
    state, stays = State(), {}
    applied_here, taken_here = [], []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        settled = settle(entity, log[begin:end], after(state, {}))
        state = after(state, settled.winners)
        stays |= {key[1]: row for key, (row, _) in settled.winners.items()}
        applied_here += [row for row, _ in settled.applied]
        taken_here += [row for row, _ in settled.taken]
    assert (stays, applied_here, taken_here) == (table, applied, taken)


@given(st.lists(rows, max_size=10), st.sampled_from(["products", "orders"]))
def test_what_one_statement_takes_depends_on_no_other_row_of_the_batch(
    given: list[tuple[str, str, int]], entity: str
) -> None:
    log = versions(given)
    once, several = split(entity, log)
    assert sorted(map(id, once + several)) == sorted(map(id, log))
    assert not {row[1] for row, _ in once} & {row[1] for row, _ in several}
    assert len({row[1] for row, _ in once}) == len(once)
    if entity == "products" and once:
        assert len({row[3] for row, _ in once}) == len(once)
