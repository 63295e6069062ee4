"""What the rows of a batch leave behind, as if each had been applied alone in the order of the log: pure functions.

Neither what a table holds nor what the ledger says of a row may depend on where a sink's batches end; else a database
that is made again from the topics would be another one.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from sinks.batch import Message, StagedRow

Version = tuple[StagedRow, Message]
Key = tuple[str, str]
"""Tenant and natural id, or tenant and sku."""
Age = tuple[int, int, int]
"""The version of a row: its time, source offset and index in the message."""
_ID: Final = 2
_SKU: Final = 3
"""Where a staged row has its record's id, and a product its sku."""
_tenant: Final = itemgetter(0)
_sku: Final = itemgetter(_SKU)


@dataclass(slots=True)
class State:
    """What the table holds of these records, and for products who has the skus that these rows name or give up."""

    ages: dict[Key, Age] = field(default_factory=dict)
    skus: dict[Key, str] = field(default_factory=dict)
    holders: dict[Key, str] = field(default_factory=dict)


@dataclass(slots=True)
class Settled:
    """`winners` are the rows that stay, one a record; `applied` are they and those that they replaced since.

    The sku of a `taken` row belongs to another product.
    """

    winners: dict[Key, Version] = field(default_factory=dict)
    applied: list[Version] = field(default_factory=list)
    taken: list[Version] = field(default_factory=list)


def split(entity: str, versions: list[Version]) -> tuple[list[Version], list[Version]]:
    """Rows that one statement applies as if one by one, and those that must be settled first.

    A row whose record comes once depends on no other; a product does where another names its sku, or gives it up.
    """
    rows = [row for row, _ in versions]
    records = len({row[_ID] for row in rows})
    if entity == "products":
        skus = len(set(zip(map(_tenant, rows), map(_sku, rows), strict=True)))
        return (versions, []) if skus == records == len(versions) else ([], versions)
    if records == len(versions):
        return versions, []
    times = Counter([row[:2] for row, _ in versions])
    once = [version for version in versions if times[version[0][:2]] == 1]
    return once, [version for version in versions if times[version[0][:2]] > 1]


def settle(entity: str, versions: Iterable[Version], state: State) -> Settled:
    """Apply rows one by one to `state`, which is changed; what is in none of the lists was superseded."""
    settled = Settled()
    for version in versions:
        row = version[0]
        key, age = row[:2], row[-3:]
        known = state.ages.get(key)
        if known is not None and known >= age:
            continue
        if entity == "products":
            tenant_id, product_id, sku = row[0], row[1], row[_SKU]
            if state.holders.get((tenant_id, sku), product_id) != product_id:
                settled.taken.append(version)
                continue
            if key in state.skus:
                del state.holders[tenant_id, state.skus[key]]
            state.skus[key] = sku
            state.holders[tenant_id, sku] = product_id
        state.ages[key] = age
        settled.winners[key] = version
        settled.applied.append(version)
    return settled
