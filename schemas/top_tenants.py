"""Which tenants a metric names: the N busiest of this process; all others are "other".

A label a tenant would make a series a tenant and metric; thousands of merchants would be more than Prometheus bears.

- While fewer than N tenants have come, each is named at once: a small installation never sees "other".
- After that the busiest are chosen at most once a minute, when somebody scrapes, by what each has done since, where an
  older minute counts half of the next. A tenant takes the place of the least busy one only with more than twice as
  much, so that two alike do not take turns.
- Nothing is moved between series: who comes in starts at 0, who leaves goes on in "other". Hence every series only
  grows, and all of them together are exact. The series of who left is shown for one more minute, so that its last
  counts are scraped, then removed.

Each process chooses for itself. A tenant's messages are all in one partition, hence in one sink.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any, Final

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

OTHER: Final = "other"
NOBODY: Final = "none"
"""Of a request that no tenant's key came with."""
SIZE: Final = 20
EVERY_S: Final = 60.0
_MORE: Final = 2


class TopTenants(Collector):
    """Registered first, so that a scrape chooses before it reads. `metrics` are those with the label `tenant`."""

    def __init__(self, size: int = SIZE, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._clock = size, clock
        self._named: dict[str, str] = {}
        self._done: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._next = clock() + EVERY_S
        self._letting_in = Lock()
        self.metrics: Iterable[MetricWrapperBase] = ()
        self.on_removed: list[Callable[[], Any]] = []
        """Called after series were removed: who keeps a metric's children must let go of them."""

    def of(self, tenant_id: str, amount: float = 1) -> str:
        """The label of a tenant, who has done so much more."""
        self._done[tenant_id] = self._done.get(tenant_id, 0) + amount
        label = self._named.get(tenant_id)
        if label is None:
            if len(self._named) >= self._size:
                return OTHER
            with self._letting_in:
                if len(self._named) >= self._size:
                    return OTHER
                label = self._named[tenant_id] = tenant_id
        return label

    def collect(self) -> Iterator[Any]:
        """Nothing of its own."""
        if self._clock() >= self._next:
            self._next = self._clock() + EVERY_S
            self.choose()
        return iter(())

    def choose(self) -> None:
        """Let in who does far more than the least busy of those that are in. Other threads may count meanwhile."""
        done = dict(self._done)
        self._done = {tenant: amount / 2 for tenant, amount in done.items() if amount >= 1}
        with self._letting_in:
            named, left = dict(self._named), set()
            inside = sorted(named, key=lambda tenant: done.get(tenant, 0))
            outside = sorted(done.keys() - named.keys(), key=lambda tenant: done[tenant], reverse=True)
            for least, most in zip(inside, outside, strict=False):
                if done[most] <= _MORE * done.get(least, 0):
                    break
                del named[least]
                named[most] = most
                left.add(least)
            self._named = named
            gone, self._leaving = self._leaving - named.keys(), left
        for tenant in gone:
            for metric in self.metrics:
                metric.remove_by_labels({"tenant": tenant})
        for let_go in self.on_removed if gone else ():
            let_go()
