"""What rows of a tenant must be, folded in log order, so that every replay judges a row alike.

The sink that reads a tenant's partition keeps the policies in memory; PostgreSQL has them as of the stored offsets.
"""

from typing import Any

import psycopg

from producers.tenants import Policies, checked_policies
from schemas import codec
from sinks.sql import statement

Db = psycopg.Connection[Any]
Change = tuple[str, Policies, int]
"""A tenant, its policies, and the source offset from which on they hold."""


def read(record: codec.Record) -> Policies:
    """What a message says; a direct producer may say anything. Raises Rejected."""
    return checked_policies(Policies(tuple(record["currencies"]), record["order_totals"]))


class InForce:
    """The policies of each tenant at the place in the log that this sink has read up to."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, Policies]] = {}

    def load(self, db: Db) -> None:
        """Forget what was folded, and begin where PostgreSQL's offsets are."""
        with db.transaction():
            rows = db.execute(b"SELECT tenant_id, log_offset, currencies, order_totals FROM ingestion_policies")
            self._since = {row[0]: (row[1], Policies(tuple(row[2]), row[3])) for row in rows}

    def of(self, tenant_id: str) -> Policies:
        """The defaults for a tenant of which nothing was said."""
        known = self._since.get(tenant_id)
        return known[1] if known else Policies()

    def follow(self, tenant_id: str, policies: Policies, offset: int) -> None:
        """Fold a message; one that was folded before changes nothing."""
        known = self._since.get(tenant_id)
        if known is None or known[0] < offset:
            self._since[tenant_id] = offset, policies


def store(db: Db, changes: list[Change]) -> None:
    """Keep what messages said, in their order."""
    for tenant_id, policies, offset in changes:
        db.execute(statement("follow_policies"), [tenant_id, list(policies.currencies), policies.order_totals, offset])
