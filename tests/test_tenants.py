"""Tenants and their keys: over HTTP on two gateways that share a Kafka, and on the command line."""

import json
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
import pytest
from gateways import ADMIN, gateway, send
from msgspec import to_builtins
from pipeline import Pipeline, eventually
from shop import problem

from producers import admin, tenants
from producers.client import config
from producers.tenant import PricePolicy
from producers.tenants import Follower, Tenant
from schemas.settings import Settings

IN_FORCE_S = 1.0
PRICES = to_builtins(PricePolicy())
Two = tuple[httpx.Client, httpx.Client]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Topics of their own, and no process yet."""
    with Pipeline(tmp_path_factory.mktemp("tenants")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def two(kafka: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two gateways whose database is away all the time: to let tenants in they need none."""
    folder, away = tmp_path_factory.mktemp("gateways"), "postgresql://nobody@127.0.0.1:1/nothing"
    with (
        gateway(kafka, folder / "one.log", reader_database_url=away) as one,
        gateway(kafka, folder / "other.log", reader_database_url=away) as other,
    ):
        yield one, other


@pytest.fixture
def one(two: Two) -> httpx.Client:
    return two[0]


def fresh(client: httpx.Client, **fields: Any) -> tuple[str, str, str]:
    """A new tenant without limits: its id, its key's id and its key."""
    tenant_id = f"shop-{secrets.token_hex(4)}"
    limits = {"requests_per_minute": 0, "product_events_per_minute": 0}
    answer = client.post(ADMIN, json={"tenant_id": tenant_id, "limits": limits} | fields)
    assert answer.status_code == 201, answer.text
    return tenant_id, answer.json()["key_id"], answer.json()["api_key"]


def soon(outcome: Callable[[], bool]) -> None:
    """`outcome` is true within the second that other gateways have."""
    started = time.monotonic()
    while not outcome():
        assert time.monotonic() - started < IN_FORCE_S
        time.sleep(0.01)


# In force everywhere


def test_a_new_key_works_at_once_and_on_another_gateway_within_a_second(two: Two) -> None:
    tenant, _, key = fresh(two[0], name="Acme Ltd", currency="DKK")
    assert send(two[0], tenant, key).status_code == 202
    soon(lambda: send(two[1], tenant, key).status_code == 202)
    said = two[1].get(f"{ADMIN}/{tenant}").json()
    assert (said["name"], said["currency"], len(said["keys"])) == ("Acme Ltd", "DKK", 1)


def test_a_rotated_key_works_until_its_grace_ends(two: Two) -> None:
    tenant, _, old = fresh(two[0])
    made = two[0].post(f"{ADMIN}/{tenant}/keys", json={"grace_seconds": 2})
    new = made.json()["api_key"]
    assert (made.status_code, set(made.json())) == (201, {"key_id", "api_key"})
    assert [send(two[0], tenant, key).status_code for key in (old, new)] == [202, 202]
    soon(lambda: send(two[1], tenant, new).status_code == 202)
    for client in two:
        eventually(lambda client=client: send(client, tenant, old).status_code == 401, within=3)
        problem(send(client, tenant, old), 401, "revoked_key")
        assert send(client, tenant, new).status_code == 202


def test_a_revoked_key_is_refused_at_once_and_elsewhere_within_a_second(two: Two) -> None:
    tenant, key_id, key = fresh(two[0])
    second = two[0].post(f"{ADMIN}/{tenant}/keys").json()["api_key"]
    soon(lambda: send(two[1], tenant, second).status_code == 202)
    said = two[0].delete(f"{ADMIN}/{tenant}/keys/{key_id}")
    assert said.status_code == 200
    assert [bool(entry["expires_at"]) for entry in said.json()["keys"]] == [True, False]
    problem(send(two[0], tenant, key), 401, "revoked_key")
    soon(lambda: send(two[1], tenant, key).status_code == 401)
    assert [send(client, tenant, second).status_code for client in two] == [202, 202]
    ended = said.json()["keys"][0]["expires_at"]
    assert two[0].delete(f"{ADMIN}/{tenant}/keys/{key_id}").json()["keys"][0]["expires_at"] == ended


def test_limits_are_in_force_on_another_gateway_within_a_second(two: Two) -> None:
    tenant, _, key = fresh(two[0])
    soon(lambda: send(two[1], tenant, key).status_code == 202)
    two[0].patch(f"{ADMIN}/{tenant}", json={"limits": {"requests_per_minute": 2}})
    soon(lambda: '"tenant";q=2;' in send(two[1], tenant, key).headers.get("RateLimit-Policy", ""))


def test_concurrent_changes_lose_nothing(two: Two, kafka: Pipeline) -> None:
    tenant, _, _ = fresh(two[0])
    followed: dict[str, Tenant | None] = {}
    follower = Follower(kafka.settings, followed.__setitem__)
    follower.start()

    def change(worker: int) -> list[str]:
        """Make keys through one of two gateways or directly, and set one field each."""
        made = []
        for _ in range(4):
            if worker < 4:
                made.append(two[worker % 2].post(f"{ADMIN}/{tenant}/keys").json()["key_id"])
            else:
                made.append(tenants.change(kafka.settings, tenant, with_one_more_key).keys[-1].key_id)
        body = ({"name": "Renamed"}, {"currency": "USD"}, {"policies": {"order_totals": "any"}})
        if worker < 3:
            assert two[worker % 2].patch(f"{ADMIN}/{tenant}", json=body[worker]).status_code == 200
        return made

    with ThreadPoolExecutor(6) as pool:
        made = {key for keys in pool.map(change, range(6)) for key in keys}
    follower.catch_up(5)
    follower.stop()
    known = followed[tenant]
    assert known is not None
    assert made <= {key.key_id for key in known.keys}
    assert (len(made), len(known.keys)) == (24, 25)
    assert (known.name, known.currency, known.policies.order_totals) == ("Renamed", "USD", "any")


# What it says


def test_all_tenants_are_listed_a_page_at_a_time_and_no_secret_with_them(one: httpx.Client) -> None:
    made = {fresh(one)[0] for _ in range(5)}
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = one.get(ADMIN, params={"limit": 2, "cursor": cursor}).json()
        seen += [tenant["tenant_id"] for tenant in page["tenants"]]
        cursor = page["next_cursor"]
    assert seen == sorted(set(seen))
    assert made <= set(seen)
    whole = one.get(ADMIN + "/")
    assert "sha256" not in whole.text
    assert '"ts_' not in whole.text
    assert set(whole.json()["tenants"][0]["keys"][0]) == {"key_id", "created_at", "expires_at"}


def test_a_patch_changes_what_it_names_and_null_is_the_default(one: httpx.Client) -> None:
    tenant, _, _ = fresh(one)
    url = f"{ADMIN}/{tenant}"
    body: dict[str, Any] = {
        "limits": {"requests_per_minute": 500},
        "policies": {"currencies": ["USD", "EUR"], "order_totals": "at_least", "oversell": True},
    }
    said = one.patch(url, json=body).json()
    assert said["limits"] == {"requests_per_minute": 500, "product_events_per_minute": 0}
    policies = {"currencies": ["EUR", "USD"], "order_totals": "at_least", "oversell": True, "prices": PRICES}
    assert said["policies"] == policies
    said = one.patch(url, json={"limits": {"requests_per_minute": None}, "policies": {"currencies": None}}).json()
    assert said["limits"] == {"requests_per_minute": None, "product_events_per_minute": 0}
    assert said["policies"] == policies | {"currencies": []}
    prices = {"max_decrease_percent": 80, "jump_factor": 9, "actions": {"jump": "hold", "floor": "reject"}}
    one.patch(url, json={"policies": {"prices": prices}}).raise_for_status()
    said = one.patch(url, json={"policies": {"prices": {"jump_factor": None, "actions": {"floor": None}}}}).json()
    assert said["policies"]["prices"] == PRICES | {"max_decrease_percent": 80, "actions": {"jump": "hold"}}
    said = one.patch(url, json={"policies": {"prices": None}}).json()
    assert said["policies"] == policies | {"currencies": []}
    said = one.patch(url, json={"limits": None, "policies": None, "name": "New"}).json()
    assert said["limits"] == {"requests_per_minute": None, "product_events_per_minute": None}
    assert (said["policies"]["order_totals"], said["name"]) == ("exact", "New")
    assert one.get(url).json() == said


def test_a_tenant_is_made_once(one: httpx.Client) -> None:
    tenant, _, _ = fresh(one)
    problem(one.post(ADMIN, json={"tenant_id": tenant}), 409, "tenant_exists")


def test_what_does_not_exist_is_said_to(one: httpx.Client) -> None:
    tenant, _, _ = fresh(one)
    for answer in (one.get(f"{ADMIN}/nobody"), one.patch(f"{ADMIN}/nobody", json={}), one.post(f"{ADMIN}/nobody/keys")):
        problem(answer, 404, "unknown_tenant")
    problem(one.delete(f"{ADMIN}/nobody/keys/k"), 404, "unknown_tenant")
    problem(one.delete(f"{ADMIN}/{tenant}/keys/k"), 404, "unknown_key")
    answer = one.put(f"{ADMIN}/{tenant}")
    problem(answer, 405, "method_not_allowed")
    assert {"GET", "PATCH"} <= set(answer.headers["allow"].split(", "))


NONSENSE: list[tuple[Any, int, str]] = [
    (b"", 422, "bad_body"),
    (b"nonsense", 400, "malformed_json"),
    (b'{"tenant_id": "a"', 400, "malformed_json"),
    (b"\xff\xfe", 400, "malformed_json"),
    (b"[" * 60_000, 422, "bad_body"),
    (b" " * 70_000, 413, "body_too_large"),
    ([], 422, "bad_body"),
    ({}, 422, "bad_body"),
    ({"tenant_id": 7}, 422, "bad_body"),
    ({"tenant_id": "x", "nonsense": 1}, 422, "bad_body"),
    ({"tenant_id": "x", "limits": {"nonsense": 1}}, 422, "bad_body"),
    ({"tenant_id": "x", "limits": {"requests_per_minute": "7"}}, 422, "bad_body"),
    ({"tenant_id": "x", "limits": {"requests_per_minute": 1.5}}, 422, "bad_body"),
    ({"tenant_id": "x", "policies": {"currencies": "EUR"}}, 422, "bad_body"),
    ({"tenant_id": ""}, 422, "bad_tenant_id"),
    ({"tenant_id": "-x"}, 422, "bad_tenant_id"),
    ({"tenant_id": "a/b"}, 422, "bad_tenant_id"),
    ({"tenant_id": "ä"}, 422, "bad_tenant_id"),
    ({"tenant_id": "x" * 101}, 422, "bad_tenant_id"),
    ({"tenant_id": "x\n"}, 422, "bad_tenant_id"),
    ({"tenant_id": "x", "name": ""}, 422, "bad_name"),
    ({"tenant_id": "x", "name": "a\x00b"}, 422, "bad_name"),
    ({"tenant_id": "x", "name": "x" * 201}, 422, "bad_name"),
    (b'{"tenant_id": "x", "name": "\\ud800"}', 400, "malformed_json"),
    (b'{"tenant_id": "x", "name": "\\udc00"}', 400, "malformed_json"),
    ({"tenant_id": "x", "currency": "XXX"}, 422, "bad_currency"),
    ({"tenant_id": "x", "currency": "eur"}, 422, "bad_currency"),
    ({"tenant_id": "x", "policies": {"currencies": ["EUR", "EURO"]}}, 422, "bad_currency"),
    ({"tenant_id": "x", "policies": {"order_totals": "roughly"}}, 422, "bad_order_totals"),
    ({"tenant_id": "x", "policies": {"oversell": "yes"}}, 422, "bad_body"),
    ({"tenant_id": "x", "policies": {"prices": {"jump_factor": 0}}}, 422, "bad_price_policy"),
    ({"tenant_id": "x", "policies": {"prices": {"actions": {"jump": "shout"}}}}, 422, "bad_price_policy"),
    ({"tenant_id": "x", "policies": {"prices": {"actions": {"breaker": "flag"}}}}, 422, "bad_price_policy"),
    ({"tenant_id": "x", "policies": {"prices": {"jmp_factor": 1}}}, 422, "bad_body"),
    ({"tenant_id": "x", "limits": {"requests_per_minute": -1}}, 422, "bad_limit"),
    ({"tenant_id": "x", "limits": {"requests_per_minute": 10**30}}, 422, "bad_limit"),
]


@pytest.mark.parametrize(("body", "status", "code"), NONSENSE, ids=[repr(body)[:40] for body, _, _ in NONSENSE])
def test_nonsense_gets_a_sentence(one: httpx.Client, body: Any, status: int, code: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    problem(one.post(ADMIN, content=raw), status, code)


def test_nonsense_about_keys_and_pages_gets_a_sentence(one: httpx.Client) -> None:
    tenant, _, _ = fresh(one)
    for grace in (-1, 10**9):
        problem(one.post(f"{ADMIN}/{tenant}/keys", json={"grace_seconds": grace}), 422, "bad_grace")
    for limit in ("0", "-1", "x", "1001", "9" * 30, "", "1.5", "²"):
        problem(one.get(ADMIN, params={"limit": limit}), 400, "bad_parameter")
    assert one.get(ADMIN, params={"cursor": "\x00nonsense", "limit": 1}).status_code == 200
    misspelled = one.get(ADMIN, params={"limits": 1})
    assert (misspelled.status_code, misspelled.json()["code"]) == (400, "bad_parameter")
    assert "it takes cursor, limit" in misspelled.json()["detail"]


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "missing_admin_token"),
        ("Bearer", "missing_admin_token"),
        ("Basic YTpi", "missing_admin_token"),
        ("Bearer wrong", "wrong_admin_token"),
        (b"Bearer \xff\xfe", "wrong_admin_token"),
    ],
    ids=repr,
)
def test_without_the_admin_token_nobody_gets_in(one: httpx.Client, authorization: Any, code: str) -> None:
    for method, path in (("GET", ""), ("POST", ""), ("PATCH", "/x"), ("POST", "/x/keys"), ("DELETE", "/x/keys/k")):
        answer = one.request(method, ADMIN + path, headers={"Authorization": authorization})
        problem(answer, 401, code)
        assert answer.headers["www-authenticate"]


def test_an_api_key_is_no_admin_token_and_the_admin_token_no_api_key(one: httpx.Client) -> None:
    tenant, _, key = fresh(one)
    problem(one.get(ADMIN, headers={"Authorization": f"Bearer {key}"}), 401, "wrong_admin_token")
    problem(send(one, tenant, "admin-of-the-tests"), 401, "invalid_key")


def test_without_a_configured_token_the_admin_api_is_off(kafka: Pipeline, tmp_path: Path) -> None:
    with gateway(kafka, tmp_path / "off.log", admin_token="") as client:
        problem(client.get(ADMIN), 403, "admin_off")
        problem(client.post(ADMIN, headers={"Authorization": "Bearer x"}), 403, "admin_off")


def test_without_kafka_it_is_unavailable_and_says_so(kafka: Pipeline, tmp_path: Path) -> None:
    with gateway(kafka, tmp_path / "away.log", "healthz", kafka_bootstrap_servers="127.0.0.1:1") as client:
        eventually(lambda: "Kafka does not answer" in client.get("/readyz").json()["reasons"])
        problem(client.post(ADMIN, json={"tenant_id": "x"}), 503, "kafka_unavailable")
        problem(client.get(ADMIN), 503, "tenants_not_loaded")


# The log


def test_an_unreadable_record_is_left_out_and_the_rest_followed(settings: Settings) -> None:
    settings = replace(settings, prefix=f"t-{secrets.token_hex(4)}.", partitions=1)
    admin.ensure(settings)
    producer = confluent_kafka.Producer(config(settings))
    for key, value in ((b"a", b"nonsense"), (None, b"x"), (b"\xff", b"x"), (b"gone", None)):
        producer.produce(settings.named("tenants"), value, key)
    producer.flush()
    tenants.put(settings, [Tenant("acme", "Acme")])
    assert set(tenants.read_all(settings)) == {"acme"}
    assert tenants.change(settings, "acme", renamed).name == "New"


def renamed(tenant: Tenant | None) -> Tenant:
    assert tenant is not None
    return tenants.merged(tenant, {"name": "New"})


def with_one_more_key(tenant: Tenant | None) -> Tenant:
    assert tenant is not None
    return tenants.with_new_key(tenant)[0]


# The command line


def test_adding_an_existing_tenant_makes_one_more_key_and_says_so(kafka: Pipeline) -> None:
    first = kafka.cli("tenants", "add", "twice", "--name", "Twice Ltd", "--currency", "SEK")
    assert (first.returncode, "twice: API key ts_" in first.stdout) == (0, True), first.stderr
    again = kafka.cli("tenants", "add", "twice", "--currency", "SEK")
    assert "one more API key" in again.stdout, again.stderr
    differs = kafka.cli("tenants", "add", "twice", "--name", "Other")
    assert differs.returncode == 2
    assert "tillstream tenants set" in " ".join(differs.stderr.split())
    known = tenants.read_all(kafka.settings)["twice"]
    assert (known.name, known.currency, len(known.keys)) == ("Twice Ltd", "SEK", 2)


def test_a_tenant_is_rotated_and_set_on_the_command_line(kafka: Pipeline) -> None:
    tenants.put(kafka.settings, [tenants.with_new_key(Tenant("cli", "Cli"))[0]])
    rotated = json.loads(kafka.cli("tenants", "rotate", "cli", "--grace", "24h", "--json").stdout)
    old, new = tenants.read_all(kafka.settings)["cli"].keys
    assert new.sha256 == tenants.digest(rotated["api_key"])
    assert old.expires_at is not None
    assert abs(old.expires_at - new.created_at - 86_400_000_000) < 1_000_000
    done = kafka.cli(
        "tenants", "set", "cli", "--requests-per-minute", "0", "--currencies", "EUR,USD", "--name", "New", "--oversell"
    )
    assert done.returncode == 0, done.stderr
    [listed] = [
        each for each in json.loads(kafka.cli("tenants", "list", "--json").stdout) if each["tenant_id"] == "cli"
    ]
    assert (listed["name"], listed["limits"]["requests_per_minute"]) == ("New", 0)
    policies = {"currencies": ["EUR", "USD"], "order_totals": "exact", "oversell": True, "prices": PRICES}
    assert listed["policies"] == policies
    shown = kafka.cli("tenants", "list").stdout
    assert "until" in shown
    assert "oversells" in shown
    again = json.loads(kafka.cli("tenants", "set", "cli", "--no-oversell", "--json").stdout)
    assert again["policies"] == policies | {"oversell": False}


def test_a_table_from_a_spreadsheet_is_loaded_and_its_keys_kept_from_others(
    kafka: Pipeline, one: httpx.Client, tmp_path: Path
) -> None:
    tenants.put(kafka.settings, [tenants.with_new_key(Tenant("load-old", "Old", "DKK"))[0]])
    table, keys = tmp_path / "tenants.csv", tmp_path / "keys.csv"
    table.write_bytes(
        "\ufefftenant_id;name;currency;requests_per_minute;currencies\r\n"
        'load-new;"Ærø; ""Sønner""";NOK;0;NOK|SEK\r\n\r\nload-old;;;;\r\n;;;;\r\n'.encode()
    )
    done = kafka.cli("tenants", "load", str(table), "--keys", str(keys), "--json")
    assert json.loads(done.stdout) == {"loaded": 2, "created": 1}, done.stderr
    known = tenants.read_all(kafka.settings)
    assert (known["load-new"].name, known["load-new"].policies.currencies) == ('Ærø; "Sønner"', ("NOK", "SEK"))
    assert (known["load-old"].currency, len(known["load-old"].keys)) == ("DKK", 1)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    header, line = keys.read_text().split()
    tenant, key = line.split(",")
    assert (header, tenant) == ("tenant_id,api_key", "load-new")
    soon(lambda: send(one, tenant, key).status_code == 202)
    assert kafka.cli("tenants", "load", str(table), "--keys", str(keys)).returncode == 2


def test_of_a_table_with_a_wrong_line_nothing_is_published(kafka: Pipeline, tmp_path: Path) -> None:
    table = tmp_path / "tenants.csv"
    table.write_text("tenant_id,currency\nnever-1,EUR\nnever-2,Euro\nno spaces,EUR\nnever-1,EUR\n")
    done = kafka.cli("tenants", "load", str(table))
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "line 3: a currency is the ISO 4217 code" in said
    assert "line 4: a tenant id has" in said
    assert "line 5: never-1 was on line 2 already" in said
    assert not any(tenant.startswith("never") for tenant in tenants.read_all(kafka.settings))


def test_ten_thousand_tenants_are_loaded_at_once(kafka: Pipeline, tmp_path: Path) -> None:
    table, keys = tmp_path / "tenants.csv", tmp_path / "keys.csv"
    table.write_text("tenant_id,name\n" + "".join(f"many-{n:05d},Shop {n}\n" for n in range(10_000)))
    started = time.monotonic()
    done = kafka.cli("tenants", "load", str(table), "--keys", str(keys))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 30
    assert len(keys.read_text().splitlines()) == 10_001
    assert sum(tenant.startswith("many-") for tenant in tenants.read_all(kafka.settings)) == 10_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rotate", "nobody"], "there is no tenant nobody"),
        (["rotate", "nobody", "--grace", "soon"], "--grace takes 30m, 24h, 7d or seconds"),
        (["set", "nobody"], "say what to change"),
        (["set", "nobody", "--requests-per-minute", "many"], "requests_per_minute takes a whole number"),
        (["add", "shop", "--currency", "XXX"], "ISO 4217"),
    ],
    ids=repr,
)
def test_a_wrong_argument_gets_a_sentence(kafka: Pipeline, arguments: list[str], says: str) -> None:
    done = kafka.cli("tenants", *arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
