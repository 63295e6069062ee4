"""Tables on a narrow terminal: numbers stay numbers."""

import io

from rich.console import Console

from deploy.operate import accounts, show
from deploy.price_view import show_held, show_price
from deploy.tenants import listed
from producers.tenant import ApiKey, Limits, Tenant
from sinks.audit import Report, Tally


def printed(report: Report, width: int, *, narrow: bool = True) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show(accounts(report, narrow=narrow), console)
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def report(tenant: str, **outcomes: int) -> Report:
    tally = Tally(accepted=12_345_678)
    tally.outcomes.update(outcomes)
    return Report({tenant: tally})


def test_an_audit_leaves_out_what_no_row_ended_as() -> None:
    assert printed(report("acme", applied=12_345_000, rejected=678), 80) == [
        ["tenant", "accepted", "applied", "rejected", "in", "flight"],
        ["acme", "12,345,678", "12,345,000", "678", "0"],
    ]
    assert printed(report("acme"), 200, narrow=False)[1] == [
        "acme",
        "12,345,678",
        "0",
        "0",
        "0",
        "0",
        "0",
        "12,345,678",
    ]


def test_numbers_are_whole_on_a_terminal_that_is_too_narrow_for_them() -> None:
    every = dict.fromkeys(("applied", "superseded", "duplicate", "conflict", "rejected"), 2_469_135)
    for width in (20, 60, 80):
        first = printed(report("a-tenant-with-a-long-name", **every), width)[1]
        assert first[1:] == ["12,345,678", *["2,469,135"] * 5, "3"]


def test_tenants_keep_their_times_and_numbers_whole_at_80_columns() -> None:
    until = 4_102_444_740_000_000
    keys = (ApiKey("k-12345678", b"", 0, until), ApiKey("k-87654321", b"", 0, 1))
    busy = Tenant("a-tenant-with-a-long-name", "Müller & Söhne " * 5, keys=keys, limits=Limits(1_000, 50))
    plain = Tenant("acme", "Acme Ltd", keys=(ApiKey("k-11111111", b"", 0),))

    def lines(*known: Tenant) -> list[str]:
        console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
        show(listed(known, narrow=True), console)
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]

    both = lines(busy, plain)
    assert max(map(len, both)) <= 80
    for whole in ("1000,", "50 a product", "k-12345678", "(until 2099-12-31T23:59Z)", "(revoked)", "k-11111111"):
        assert whole in "\n".join(both)
    assert [line.split() for line in lines(plain)] == [
        ["tenant", "name", "currency", "keys"],
        ["acme", "Acme", "Ltd", "EUR", "k-11111111"],
    ]


def test_prices_and_what_is_held_fit_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    found = [{"name": "decimal_shift", "score": 99, "reason": "2000.00 is about 100 times 20.00: a slipped decimal"}]
    change = {
        "occurred_at": "2026-01-31T12:00:00.123456Z", "logged_at": "2026-01-31T12:00:00.123456Z",
        "status": "superseded", "price_before": "20.00", "new_price": "9999999.99", "new_currency": "EUR",
        "source": "erp-synchronisation", "findings": found, "event_id": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "product_id": "SKU-1234-ABCDEF-XL-red",
    }  # fmt: skip
    price = {
        "product_id": "SKU-1234-ABCDEF-XL-red", "price": "20.00", "currency": "EUR", "version": 12, "floor": "8.50",
        "since": "2026-01-31T12:00:00.123456Z", "ceiling": "12.00", "changes": [change, change | {"findings": []}],
    }  # fmt: skip
    show_price(price, console)
    show_held([change, change | {"product_id": "P-1"}], console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    said = "\n".join(lines)
    for whole in ("2026-01-31 12:00:00  superseded  20.00 -> 9999999.99 EUR", "floor 8.50, ceiling 12.00", "P-1"):
        assert whole in said
    assert said.count("message 3fa85f64-5717-4562-b3fc-2c963f66afa6") == 1
