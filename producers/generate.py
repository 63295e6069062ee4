"""Seeded e-commerce data for several merchants, as NDJSON, with constant memory whatever the size.

Every row is a pure function of (seed, tenant, row number): `orders(plan, 3, start=1_000_000, count=5)` makes
those five rows without the million before them, and every machine makes the same bytes.

Products are numbered from the best seller down, customers from the most faithful down. A product's price and
a customer's name follow from their numbers, so an order agrees with both without a search.
The generators yield lines that end in a newline. They bind every table to a local name, for speed.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack
from typing import Final

from producers import catalogue_data as data

STRIDE: Final = 1_000_003  # a prime: its multiples modulo a smaller number visit everything once


@dataclass(frozen=True)
class Plan:
    """How much to make, per tenant; `chunk_size` is the rows a write and changes nothing in the data."""

    tenants: int
    products_per_tenant: int
    orders_per_tenant: int
    seed: int = 7
    chunk_size: int = 5_000

    def __post_init__(self) -> None:
        for name in ("tenants", "products_per_tenant", "orders_per_tenant", "chunk_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def customers_per_tenant(self) -> int:
        """A quarter of the orders: a customer comes back three times on average."""
        return max(1, self.orders_per_tenant // 4)

    @property
    def stock_events_per_tenant(self) -> int:
        """An opening count for each product, then as many movements as there are orders."""
        return self.products_per_tenant + self.orders_per_tenant

    @property
    def price_events_per_tenant(self) -> int:
        """A change for each product, a second for the better half, a third for the best quarter, ..."""
        halvings = range(self.products_per_tenant.bit_length())
        return sum(self.products_per_tenant >> halving for halving in halvings)

    @property
    def total_rows(self) -> int:
        """All rows of all NDJSON files: the sum of what `write` reports as progress."""
        rows = self.customers_per_tenant + self.products_per_tenant + self.orders_per_tenant
        return self.tenants * (rows + self.stock_events_per_tenant + self.price_events_per_tenant)


PRESETS: Final[dict[str, Plan]] = {
    "small": Plan(tenants=2, products_per_tenant=500, orders_per_tenant=2_500),
    "medium": Plan(tenants=5, products_per_tenant=10_000, orders_per_tenant=20_000),
    "large": Plan(tenants=10, products_per_tenant=50_000, orders_per_tenant=200_000),
}


def tenant_id(tenant_index: int) -> str:
    """`acme-001` for tenant 0, `nordlicht-002` for tenant 1, ..."""
    return f"{data.merchant(tenant_index).slug}-{tenant_index + 1:03d}"


def customers(plan: Plan, tenant_index: int, start: int = 0, count: int | None = None) -> Iterator[bytes]:
    """Customer lines, by default all; `customer_id` is `C-<row number>`."""
    count = plan.customers_per_tenant - start if count is None else count
    people, clocks, dates = data.people(plan.seed, tenant_index), data.clocks(), data.dates()
    draws = data.draws("<IHHB", plan.seed, tenant_index, "customers", start, count)
    for number, (phone, day, clock, draw) in draws:
        person = people[number % data.PEOPLE]
        newsletter, channel = "true" if draw < 96 else "false", data.CHANNELS[draw % 3]
        yield (
            f'{{"customer_id":"C-{number}","email":"{person.mailbox}.{number}@example.com",'
            f'"name":"{person.name}","phone":"+{person.dial}555{phone % 10_000_000:07d}",'
            f'"country":"{person.country}","attributes":{{"newsletter":{newsletter},"channel":"{channel}"}},'
            f'"updated_at":"{dates[day % data.DAYS]}T{clocks[clock]}Z"}}\n'
        ).encode()


def products(plan: Plan, tenant_index: int, start: int = 0, count: int | None = None) -> Iterator[bytes]:
    """Product lines, by default all; `product_id` is `P-<row number>`, one in 32 is no longer active."""
    count = plan.products_per_tenant - start if count is None else count
    articles, clocks, dates = data.articles(plan.seed, tenant_index), data.clocks(), data.dates()
    currency = data.merchant(tenant_index).currency
    draws = data.draws("<4B3H", plan.seed, tenant_index, "products", start, count)
    for number, (brand, style, colour, active, weight, day, clock) in draws:
        article, tint = articles[number % data.ARTICLES], data.COLOURS[colour % len(data.COLOURS)]
        maker, style = data.BRANDS[brand % len(data.BRANDS)], data.STYLES[style % len(data.STYLES)]
        yield (
            f'{{"product_id":"P-{number}","sku":"{article.category[:3].upper()}-{tint[:2].upper()}-{number}",'
            f'"name":"{maker} {style} {article.noun}, {tint}",'
            f'"price":"{article.price}","currency":"{currency}","category":"{article.category}",'
            f'"active":{"true" if active >= 8 else "false"},'
            f'"attributes":{{"brand":"{maker}","colour":"{tint}","weight_g":{20 + weight % 4980}}},'
            f'"updated_at":"{dates[day % data.DAYS]}T{clocks[clock]}Z"}}\n'
        ).encode()


def orders(plan: Plan, tenant_index: int, start: int = 0, count: int | None = None) -> Iterator[bytes]:
    """Order lines with items, by default all; day after day through the year, in any order within a day.

    `external_order_id` is `SO-<1,000,000 + row number>`. Rows beyond the plan's end fall on the last day.
    """
    count = plan.orders_per_tenant - start if count is None else count
    return _orders(plan, tenant_index, start, count, items=True)


def order_240(plan: Plan, tenant_index: int, start: int, count: int) -> Iterator[bytes]:
    """The same orders without `items` and `updated_at`: lines of about 240 bytes, for benchmarks."""
    return _orders(plan, tenant_index, start, count, items=False)


def _orders(plan: Plan, tenant_index: int, start: int, count: int, *, items: bool) -> Iterator[bytes]:
    people, articles = data.people(plan.seed, tenant_index), data.articles(plan.seed, tenant_index)
    currencies = data.currencies(data.merchant(tenant_index).currency)
    sizes, quantities = data.spread(data.ITEMS_PER_ORDER), data.spread(data.QUANTITY)
    settled, recent = data.spread(data.SETTLED), data.spread(data.RECENT)
    bands, clientele = data.popularity(plan.products_per_tenant), plan.customers_per_tenant
    days, dates, clocks = data.day_ends(plan.orders_per_tenant), data.dates(), data.clocks()
    known_people, known_articles = len(people), len(articles)
    day, day_end, statuses = 0, start, settled
    draws = data.draws("<IBBBH5I", plan.seed, tenant_index, "orders", start, count)
    for number, (loyalty, money, state, size, clock, *picks) in draws:
        if number >= day_end:
            day = bisect_right(days, number)
            day_end = days[day] if day < len(days) else start + count
            statuses = settled if day < data.DAYS - data.RECENT_DAYS else recent
        # Mostly the square of a uniform draw: the most faithful customer orders nine times the average.
        customer = clientele * ((8 * (loyalty * loyalty >> 32) + loyalty) // 9) >> 32
        person = people[customer % known_people]
        total, lines = 0, ""
        bought: list[int] = []
        for pick in picks[: sizes[size]]:
            low, width = bands[pick >> 22]
            product = low + (width * (pick & 0x3FFFFF) >> 22)
            if product not in bought:
                bought.append(product)
                article, quantity = articles[product % known_articles], quantities[pick & 255]
                total += quantity * article.cents
                lines += f'{{"product_id":"P-{product}","quantity":{quantity},"unit_price":"{article.price}"}},'
        status, lag = statuses[state]
        time = clocks[clock]
        tail = f',"items":[{lines[:-1]}],"updated_at":"{dates[day + lag]}T{time}Z"' if items else ""
        yield (
            f'{{"external_order_id":"SO-{1_000_000 + number}","customer_id":"C-{customer}",'
            f'"customer_name":"{person.name}","customer_email":"{person.mailbox}.{customer}@example.com",'
            f'"total_amount":"{total // 100}.{total % 100:02d}","currency":"{currencies[money]}",'
            f'"order_status":"{status}","order_date":"{dates[day]}T{time}Z"{tail}}}\n'
        ).encode()


def stock_events(plan: Plan, tenant_index: int, start: int = 0, count: int | None = None) -> Iterator[bytes]:
    """Stock lines, by default all: a `set` for each product, then movements; one in 35 goes below zero."""
    count = plan.stock_events_per_tenant - start if count is None else count
    kinds, quantities = data.spread(data.MOVEMENTS), data.spread(data.QUANTITY)
    openings, bands = plan.products_per_tenant, data.popularity(plan.products_per_tenant)
    days, dates, clocks = data.day_ends(plan.orders_per_tenant), data.dates(), data.clocks()
    draws = data.draws("<IBBHI", plan.seed, tenant_index, "stock-events", start, count)
    for number, (pick, kind_draw, size, clock, mark) in draws:
        if number < openings:
            product, kind, quantity, when = number, "set", 5 + size % 60, f"{dates[0]}T00:00:00Z"
        else:
            low, width = bands[pick >> 22]
            product, kind = low + (width * (pick & 0x3FFFFF) >> 22), kinds[kind_draw]
            quantity = 6 * (1 + size % 4) if kind == "received" else quantities[size]
            if kind == "adjusted" and size % 4:
                quantity = -quantity
            when = f"{dates[bisect_right(days, number - openings)]}T{clocks[clock]}Z"
        yield (
            f'{{"product_id":"P-{product}","kind":"{kind}","quantity":{quantity},'
            f'"event_id":"mv-{number}-{mark:08x}","occurred_at":"{when}"}}\n'
        ).encode()


def price_events(plan: Plan, tenant_index: int, start: int = 0, count: int | None = None) -> Iterator[bytes]:
    """Price lines, by default all: markdowns and returns in turn, one in 85 with a slipped decimal point.

    Best sellers change most often. A product's first `old_price` is its catalogue price, every later one the
    `new_price` before it.
    """
    count = plan.price_events_per_tenant - start if count is None else count
    articles, currency = data.articles(plan.seed, tenant_index), data.merchant(tenant_index).currency
    swings = unpack(f"<{data.ARTICLES}I", data.noise(plan.seed, tenant_index, "prices", 4 * data.ARTICLES))
    # A round is the n-th change (n = `change`) of each of the `size` best sellers, from row `first` on.
    first, change, size = 0, 1, plan.products_per_tenant
    for number in range(start, start + count):
        while number >= first + size:
            first, change, size = first + size, change + 1, max(1, size // 2)
        product = (number - first) * STRIDE % size
        catalogue, place = articles[product % data.ARTICLES].cents, product + 977 * change
        old = _changed(catalogue, change - 1, swings[(place - 977) % data.ARTICLES])
        new = _changed(catalogue, change, swings[place % data.ARTICLES])
        yield (
            f'{{"product_id":"P-{product}","old_price":"{old // 100}.{old % 100:02d}",'
            f'"new_price":"{new // 100}.{new % 100:02d}","currency":"{currency}",'
            f'"source":"{data.SOURCES[place % len(data.SOURCES)]}"}}\n'
        ).encode()


def _changed(catalogue: int, change: int, swing: int) -> int:
    """A price in cents after its n-th change: 3 to 20 % off after odd ones, 0 to 8 % up after even ones."""
    if change == 0:
        return catalogue
    price = catalogue * (97 - swing % 18 if change % 2 else 100 + swing % 9) // 100
    slip = swing >> 24
    return price * 10 if slip == 0 else price // 10 if slip < 3 else price


def bad_rows(tenant_index: int) -> Iterator[tuple[bytes, str]]:
    """Order lines that are wrong in one way each, with that way in words."""
    good = {
        "external_order_id": "SO-BAD-0",
        "customer_id": "C-0",
        "total_amount": "39.90",
        "currency": data.merchant(tenant_index).currency,
        "order_status": "paid",
        "order_date": "2025-06-01T12:00:00Z",
    }
    changes = {
        "negative amount": {"total_amount": "-39.90"},
        "three decimals": {"total_amount": "39.905"},
        "date without offset": {"order_date": "2025-06-01T12:00:00"},
        "unknown status": {"order_status": "teleported"},
    }
    for place, (description, change) in enumerate(changes.items(), 1):
        yield _line(good | {"external_order_id": f"SO-BAD-{place}"} | change), description
    yield _line({name: value for name, value in good.items() if name != "currency"}), "missing currency"
    yield _line(good)[:-3] + b"\n", "not JSON"


def _line(row: dict[str, str]) -> bytes:
    return json.dumps(row).encode() + b"\n"


FILES: Final = {
    "customers.ndjson": customers,
    "products.ndjson": products,
    "orders.ndjson": orders,
    "stock-events.ndjson": stock_events,
    "price-events.ndjson": price_events,
}
