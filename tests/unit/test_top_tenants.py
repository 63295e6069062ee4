import itertools
import random
import sys
import threading
from collections import Counter as Count

import pytest
from prometheus_client import CollectorRegistry, Counter

from schemas.top_tenants import EVERY_S, OTHER, TopTenants


class Shop:
    """A counter by tenant, its registry, and a clock that a test moves."""

    def __init__(self, size: int = 20) -> None:
        self.now = 0.0
        self.top = TopTenants(size, clock=lambda: self.now)
        self.registry = CollectorRegistry()
        self.registry.register(self.top)
        self.rows = Counter("rows", "Rows.", ["tenant"], registry=self.registry)
        self.top.metrics = [self.rows]

    def row(self, tenant: str, rows: int = 1) -> None:
        self.rows.labels(self.top.of(tenant, rows)).inc(rows)

    def minute(self) -> dict[str, float]:
        """A minute passes and somebody scrapes."""
        self.now += EVERY_S
        return self.scrape()

    def scrape(self) -> dict[str, float]:
        [family] = list(self.registry.collect())
        return {s.labels["tenant"]: s.value for s in family.samples if s.name == "rows_total"}


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_of_a_thousand_tenants_the_busiest_have_names_and_nothing_is_lost(shop: Shop) -> None:
    chosen = random.Random(7)
    tenants = [f"shop-{n}" for n in range(1_000)]
    chosen.shuffle(tenants)
    weights = [1 / (n + 1) ** 1.2 for n in range(1_000)]  # Zipf: few sell much, most sell little
    sent: Count[str] = Count()
    grown: dict[str, float] = {}
    shown: dict[str, float] = {}
    for _ in range(20):
        for tenant in chosen.choices(tenants, weights, k=20_000):
            shop.row(tenant)
            sent[tenant] += 1
        shown = shop.minute()
        assert len(shown) <= 2 * 20 + 1  # the named, who has just left, and "other"
        assert all(value >= grown.get(tenant, 0) for tenant, value in shown.items())
        grown = shown
    busiest = set(tenants[:10])
    assert busiest <= shown.keys()
    assert shown[tenants[0]] > sent[tenants[0]] * 0.9
    assert shown[OTHER] > 0


def test_all_series_together_are_exact(shop: Shop) -> None:
    chosen = random.Random(3)
    last: dict[str, float] = {}
    ended, sent = 0.0, 0
    for minute in range(30):
        for n in range(2_000):  # who is busy changes all the time
            shop.row(f"shop-{(minute * 7 + n % (1 + chosen.randrange(60))) % 1_000}")
            sent += 1
        shown = shop.scrape()
        now = shop.minute()
        ended += sum(value for tenant, value in shown.items() if tenant not in now)
        last = now
    assert sum(last.values()) + ended == sent


def test_a_small_installation_sees_every_tenant(shop: Shop) -> None:
    for n in range(20):
        shop.row(f"shop-{n}")
    assert shop.scrape() == {f"shop-{n}": 1 for n in range(20)}
    shop.row("shop-20")
    assert shop.scrape()[OTHER] == 1


def test_who_comes_in_starts_at_nothing_and_who_leaves_is_shown_for_one_more_minute() -> None:
    shop = Shop(1)
    shop.row("old", 10)
    shop.row("new", 21)
    assert shop.minute() == {"old": 10, OTHER: 21}
    shop.row("new", 5)
    shop.row("old", 1)
    assert shop.scrape() == {"old": 10, "new": 5, OTHER: 22}
    assert shop.minute() == {"new": 5, OTHER: 22}


def test_two_who_do_alike_do_not_take_turns() -> None:
    shop = Shop(1)
    shop.row("a", 100)
    for a, b in itertools.repeat((100, 150), 10):
        shop.row("a", a)
        shop.row("b", b)
        assert "b" not in shop.minute()


def test_who_keeps_children_is_told_to_let_go(shop: Shop) -> None:
    told: list[str] = []
    shop.top.on_removed.append(lambda: told.append("let go"))
    for n in range(20):
        shop.row(f"shop-{n}")
    shop.row("big", 1_000)
    shop.minute()
    assert not told
    shop.minute()
    assert told == ["let go"]


def test_tenants_that_do_nothing_more_are_forgotten(shop: Shop) -> None:
    for n in range(1_000):
        shop.row(f"shop-{n}", 100)
    for _ in range(10):
        shop.minute()
    assert not shop.top._done


def test_threads_count_while_another_chooses() -> None:
    shop = Shop()
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    failed: list[BaseException] = []

    def count(seed: int) -> None:
        try:
            for n in range(100_000):
                shop.top.of(f"shop-{seed}-{n}")
        except RuntimeError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=count, args=[seed]) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            shop.top.choose()
    finally:
        sys.setswitchinterval(switching)
    assert not failed
    assert len(shop.top._named) == 20
