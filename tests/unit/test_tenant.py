"""What a tenant is and how its keys change: pure functions, and the files that people have of them."""

from pathlib import Path
from typing import Any

import pytest

from deploy import tenant_files
from producers import tenant as t
from producers.tenant import ApiKey, Limits, Policies, PricePolicy, Tenant
from schemas.currencies import CURRENCIES
from schemas.errors import Rejected

HOUR = 3_600_000_000
ACME = Tenant("acme", "Acme")


def at(micros: int) -> t.Clock:
    return lambda: micros


def test_a_tenant_reads_as_it_was_written() -> None:
    tenant = Tenant(
        "acme", "Ærø", "DKK", (ApiKey("k", b"\1" * 32, 5, None), ApiKey("l", b"\2" * 32, 5, 7)),
        Limits(0, 7),
        Policies(("DKK", "EUR"), "any", oversell=True, prices=PricePolicy(80, jump_factor=7, actions={"jump": "hold"})),
    )  # fmt: skip
    assert t.decode(t.encode(tenant)) == tenant
    assert t.decode(t.encode(ACME)) == ACME


def test_a_rotated_key_ends_after_the_grace_and_never_later_than_it_would_have() -> None:
    tenant, _ = t.with_new_key(ACME, at(0))
    tenant, _ = t.with_rotated_keys(tenant, HOUR, at(HOUR))
    assert [key.expires_at for key in tenant.keys] == [2 * HOUR, None]
    tenant, _ = t.with_rotated_keys(tenant, 24 * HOUR, at(HOUR))
    assert [key.expires_at for key in tenant.keys] == [2 * HOUR, 25 * HOUR, None]
    tenant, _ = t.with_rotated_keys(tenant, 0, at(HOUR))
    assert sorted(key.ended(HOUR) for key in tenant.keys) == [False, True, True, True]


def test_revoking_ends_a_key_at_once_and_a_second_time_changes_nothing() -> None:
    tenant, key = t.with_new_key(ACME, at(1))
    revoked = t.with_revoked_key(tenant, tenant.keys[0].key_id, at(5))
    assert (revoked.keys[0].expires_at, revoked.keys[0].sha256) == (5, t.digest(key))
    assert t.with_revoked_key(revoked, tenant.keys[0].key_id, at(9)) == revoked
    with pytest.raises(Rejected, match="unknown_key"):
        t.with_revoked_key(tenant, "other")


def test_keys_are_bounded_and_those_that_ended_are_remembered_for_a_while() -> None:
    tenant = ACME
    for _ in range(t.MAX_KEYS):
        tenant, _ = t.with_new_key(tenant, at(1))
    with pytest.raises(Rejected, match="too_many_keys"):
        t.with_new_key(tenant, at(1))
    for _ in range(2 * t.MAX_KEYS):
        tenant, _ = t.with_rotated_keys(tenant, 0, at(2))
    assert len(tenant.keys) == t.MAX_KEYS + 1


def test_what_is_shown_holds_no_hash() -> None:
    shown = t.shown(t.with_new_key(ACME, at(1_767_225_600_000_000))[0])
    assert shown["keys"][0] | {"key_id": "k"} == {
        "key_id": "k", "created_at": "2026-01-01T00:00:00Z", "expires_at": None,
    }  # fmt: skip
    assert "sha256" not in str(shown)


def test_merging_changes_what_is_named_and_none_is_the_default() -> None:
    tenant = t.merged(ACME, {"limits": {"requests_per_minute": 5}, "policies": {"order_totals": "any"}})
    tenant = t.merged(tenant, {"limits": {"product_events_per_minute": 0}, "name": "New"})
    assert (tenant.limits, tenant.policies.order_totals, tenant.name) == (Limits(5, 0), "any", "New")
    assert t.merged(tenant, {"limits": {"requests_per_minute": None}}).limits == Limits(None, 0)
    assert t.merged(tenant, {"limits": None, "policies": None}) == Tenant("acme", "New")


def test_the_currencies_are_those_of_iso_4217() -> None:
    assert {"EUR", "USD", "XCG", "ZWG", "BGN"} <= CURRENCIES
    assert not {"XXX", "XTS", "EURO", "eur", ""} & CURRENCIES
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)


# Files


def rows(tmp_path: Path, content: bytes) -> list[tuple[int, str, dict[str, Any]]]:
    file = tmp_path / "tenants.csv"
    file.write_bytes(content)
    return [(row.line, row.tenant_id, row.given) for row in tenant_files.read(file)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, delimiter: str, mark: str, end: str) -> None:
    lines = [
        ["Tenant_ID ", "name", "currency", "requests_per_minute", "currencies", "order_totals", "oversell"],
        ["a", '"A ""quoted""; name, and\u00a0more"', "EUR", "0", "EUR|USD", "any", "Yes"],
        [],
        ["b", "", "", "default", "any", "", "FALSE"],
        ["", "", "", "", "", "", ""],
    ]
    text = mark + end.join(delimiter.join(cells) for cells in lines) + end
    policies = {"currencies": ["EUR", "USD"], "order_totals": "any", "oversell": True}
    assert rows(tmp_path, text.encode()) == [
        (2, "a", {"name": 'A "quoted"; name, and\u00a0more', "currency": "EUR", "limits": {"requests_per_minute": 0},
                  "policies": policies}),
        (4, "b", {"limits": {"requests_per_minute": None}, "policies": {"currencies": [], "oversell": False}}),
    ]  # fmt: skip


def test_excels_own_first_line_and_its_older_encoding_are_read(tmp_path: Path) -> None:
    assert rows(tmp_path, "sep=;\r\ntenant_id;name\r\na;Ærø, x\r\n".encode("cp1252"))[0][:2] == (3, "a")
    assert rows(tmp_path, "tenant_id\tname\na\tÆrø\n".encode("cp1252"))[0][2]["name"] == "Ærø"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "tenant_id"),
        (b"name\nA\n", "tenant_id"),
        (b"tenant_id,tenant_id\na,b\n", "each once"),
        (b"tenant_id,nonsense\na,b\n", "line 1: no column is called 'nonsense'"),
        ("tenant_id,name\na,Ærø\nb,".encode() + b"\xe6\n", "line 3 has 0xE6 at byte 3, which is not UTF-8"),
        (b"sep=;\ntenant_id;name\na;b;c\n", "line 3: 3 cells, but 2 columns"),
        ("tenant_id,name\na,b\n".encode("utf-16"), "CSV UTF-8"),
        (b'tenant_id,name\na,"b\n', "line 2"),
        (b"tenant_id\n\n\n-\n", "line 4: a tenant id has"),
        (b"tenant_id,name\na,b,c\n", "line 2: 3 cells, but 2 columns"),
        (b"tenant_id,requests_per_minute\na,-1\nb,1.5\n", "line 3: requests_per_minute takes a whole number"),
        (b"tenant_id,requests_per_minute\na,99999999999999\n", "line 2: requests_per_minute takes 0"),
        (b"tenant_id,order_totals\na,maybe\n", "line 2: order_totals takes exact, at_least, any"),
        (b"tenant_id,oversell\na,perhaps\n", "line 2: oversell takes yes or no, not 'perhaps'"),
        (b"tenant_id,currencies\na,EUR|EURO\n", "line 2: a currency is the ISO 4217 code of one in use, such as EUR,"),
        (b"tenant_id\n" + b"-\n" * 12, "and 2 more"),
    ],
    ids=repr,
)
def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(Rejected) as raised:
        rows(tmp_path, content)
    assert says in str(raised.value)
