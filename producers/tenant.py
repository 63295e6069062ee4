"""A tenant: what every process must know of a merchant. All here is pure; `producers.tenants` reads and writes them.

An API key has 256 random bits, so that a fast hash of it is safe to keep and a slow one would add nothing.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from msgspec import Struct, to_builtins
from msgspec.structs import asdict, replace

from schemas import codec
from schemas.currencies import CURRENCIES
from schemas.errors import Rejected
from schemas.prices import ACTIONS, POLICY_RANGES, Action

TYPE: Final = "tillstream.tenant.v1"
ORDER_TOTALS: Final = ("exact", "at_least", "any")
MAX_KEYS: Final = 100
"""Keys of a tenant that work at a time, and as many that ended, whose holders are still told why."""
MAX_PER_MINUTE: Final = 1_000_000
MAX_GRACE_S: Final = 366 * 86_400
TENANT_ID: Final = "^[A-Za-z0-9][A-Za-z0-9-]{0,99}$"
MAX_NAME: Final = 200
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Clock = Callable[[], int]


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class ApiKey(Struct, frozen=True):
    """What is kept of a key: never the key. Times in microseconds since 1970; no `expires_at` means no end."""

    key_id: str
    sha256: bytes
    created_at: int
    expires_at: int | None = None

    def ended(self, at: int) -> bool:
        """Whether it was revoked or has expired by then."""
        return self.expires_at is not None and self.expires_at <= at


class Limits(Struct, frozen=True):
    """Single events a minute, of the tenant and of each product: None is the gateway's default, 0 is no limit."""

    requests_per_minute: int | None = None
    product_events_per_minute: int | None = None


class PricePolicy(Struct, frozen=True):
    """Which changes of prices are normal, and what is done about others: the fields of schema price-policy.v1."""

    max_increase_percent: int | None = None
    max_decrease_percent: int | None = None
    usual_increase_percent: int = 60
    usual_decrease_percent: int = 55
    jump_factor: int = 6
    flap_window_s: int = 21_600
    breaker_share_percent: int = 50
    breaker_change_percent: int = 50
    breaker_min_changes: int = 20
    actions: dict[str, str] = {}
    """By finding, where it is not the default of `schemas.prices.ACTIONS`."""


class Policies(Struct, frozen=True):
    """What rows must be: `currencies` they may name (none: any), what an order's total must be to the sum of its items.

    `order_totals` is one of ORDER_TOTALS: "exact", "at_least" (shipping or tax come on top), or "any". With `oversell`
    a level of stock may fall below zero. `prices` is about changes of prices.
    """

    currencies: tuple[str, ...] = ()
    order_totals: str = "exact"
    oversell: bool = False
    prices: PricePolicy = PricePolicy()


class Tenant(Struct, frozen=True):
    """A merchant. `currency` is that of products that name none."""

    tenant_id: str
    name: str
    currency: str = "EUR"
    keys: tuple[ApiKey, ...] = ()
    limits: Limits = Limits()
    policies: Policies = Policies()


def checked(tenant: Tenant) -> Tenant:
    """The tenant, its currencies sorted, when all of it is right; else raises Rejected, which says what would be."""
    if not re.fullmatch(TENANT_ID, tenant.tenant_id):
        raise Rejected("bad_tenant_id", "a tenant id has 1 to 100 letters, digits and hyphens, no hyphen first")
    if not 1 <= len(tenant.name) <= MAX_NAME or _UNSHOWN.search(tenant.name):
        raise Rejected("bad_name", f"a name has 1 to {MAX_NAME} characters, none of them a control character")
    _known_currency(tenant.currency)
    for name, limit in asdict(tenant.limits).items():
        if limit is not None and not 0 <= limit <= MAX_PER_MINUTE:
            raise Rejected("bad_limit", f"{name} takes 0 (no limit) to {MAX_PER_MINUTE}, not {limit}")
    return replace(tenant, policies=checked_policies(tenant.policies))


def checked_policies(policies: Policies) -> Policies:
    """The policies, currencies sorted, when they are right; else raises Rejected."""
    for code in policies.currencies:
        _known_currency(code)
    if policies.order_totals not in ORDER_TOTALS:
        given = policies.order_totals
        raise Rejected("bad_order_totals", f"order_totals takes {', '.join(ORDER_TOTALS)}, not {given!r}")
    _check_prices(policies.prices)
    return replace(policies, currencies=tuple(sorted(set(policies.currencies))))


def _check_prices(policy: PricePolicy) -> None:
    for name, (least, most) in POLICY_RANGES.items():
        given = getattr(policy, name)
        if given is not None and not least <= given <= most:
            raise Rejected("bad_price_policy", f"{name} takes {least} to {most}, not {given}")
    for finding, action in policy.actions.items():
        if finding not in ACTIONS or action not in list(Action):
            known = f"{', '.join(ACTIONS)}, each {', '.join(Action)}"
            raise Rejected("bad_price_policy", f"actions are of {known}, not {finding!r}: {action!r}")


def _known_currency(code: str) -> None:
    if code not in CURRENCIES:
        raise Rejected("bad_currency", f"a currency is the ISO 4217 code of one in use, such as EUR, not {code!r}")


def merged(tenant: Tenant, given: Mapping[str, Any]) -> Tenant:
    """The tenant with `given` (name, currency, limits, policies) put over it.

    `limits` and `policies`, and in them `prices` and its `actions`, are mappings of which only what they name is
    changed; None resets to the default.
    """
    part: dict[str, Any] = {"limits": tenant.limits, "policies": tenant.policies}
    plain = {name: value for name, value in given.items() if name in ("name", "currency")}
    return replace(tenant, **plain, **{name: _merged(old, given.get(name, {})) for name, old in part.items()})


_Part = TypeVar("_Part", Limits, Policies, PricePolicy)


def _merged(part: _Part, given: Mapping[str, Any] | None) -> _Part:
    fields = {**asdict(part), **given} if given is not None else {}
    if isinstance(part, Policies) and given and "prices" in given:
        fields["prices"] = _merged(part.prices, given["prices"])
    if isinstance(part, PricePolicy) and given and given.get("actions"):
        actions = {**part.actions, **given["actions"]}
        fields["actions"] = {finding: action for finding, action in actions.items() if action is not None}
    return type(part)(**{name: value for name, value in fields.items() if value is not None})


def digest(key: str) -> bytes:
    """SHA-256 of an API key."""
    return hashlib.sha256(key.encode()).digest()


def with_new_key(tenant: Tenant, clock: Clock = now) -> tuple[Tenant, str]:
    """The tenant with one more key, and that key: it can be shown now and never again. Raises Rejected at MAX_KEYS."""
    at, key = clock(), "ts_" + secrets.token_urlsafe(32)
    live = tuple(old for old in tenant.keys if not old.ended(at))
    ended = tuple(old for old in tenant.keys if old.ended(at))[-MAX_KEYS:]
    if len(live) >= MAX_KEYS:
        raise Rejected("too_many_keys", f"{tenant.tenant_id} has {MAX_KEYS} keys that work; revoke one first")
    return replace(tenant, keys=(*ended, *live, ApiKey(secrets.token_hex(6), digest(key), at))), key


def with_rotated_keys(tenant: Tenant, grace_us: int, clock: Clock = now) -> tuple[Tenant, str]:
    """The tenant with a new key; the others end after the grace period, none later than it would have."""
    ends = clock() + grace_us
    keys = tuple(replace(key, expires_at=min(ends, key.expires_at or ends)) for key in tenant.keys)
    return with_new_key(replace(tenant, keys=keys), clock)


def with_revoked_key(tenant: Tenant, key_id: str, clock: Clock = now) -> Tenant:
    """The tenant with one key ended now; it stays listed, so that its holder is told why. Raises Rejected."""
    if key_id not in {key.key_id for key in tenant.keys}:
        raise Rejected("unknown_key", f"{tenant.tenant_id} has no key {key_id!r}; its keys are listed with it")
    at = clock()
    keys = (
        replace(key, expires_at=min(at, key.expires_at or at)) if key.key_id == key_id else key for key in tenant.keys
    )
    return replace(tenant, keys=tuple(keys))


def shown(tenant: Tenant) -> dict[str, Any]:
    """The tenant for people and scripts: no hashes, times as RFC 3339."""
    keys = [
        {"key_id": k.key_id, "created_at": rfc3339(k.created_at), "expires_at": k.expires_at and rfc3339(k.expires_at)}
        for k in tenant.keys
    ]
    return asdict(tenant) | {"keys": keys, "limits": asdict(tenant.limits), "policies": to_builtins(tenant.policies)}


def rfc3339(micros: int) -> str:
    """A time as text, in UTC."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(tenant: Tenant) -> bytes:
    """The value of a tenant's message."""
    keys, limits, policies = [asdict(key) for key in tenant.keys], asdict(tenant.limits), asdict(tenant.policies)
    policies["prices"] = price_record(tenant.policies.prices)
    return codec.encode(TYPE, asdict(tenant) | {"keys": keys, "limits": limits, "policies": policies})


def price_record(policy: PricePolicy) -> codec.Record:
    """A policy as its schema has it."""
    actions = [{"finding": finding, "action": action} for finding, action in policy.actions.items()]
    return asdict(policy) | {"actions": actions}


def decode(value: bytes) -> Tenant:
    """Read a tenant's message; raises Undecodable."""
    record = codec.decode(TYPE, value)
    policies = record["policies"]
    return Tenant(
        record["tenant_id"],
        record["name"],
        record["currency"],
        tuple(ApiKey(**key) for key in record["keys"]),
        Limits(**record["limits"]),
        Policies(
            tuple(policies["currencies"]),
            policies["order_totals"],
            policies["oversell"],
            _price_policy(policies["prices"]),
        ),
    )


def _price_policy(record: codec.Record) -> PricePolicy:
    return PricePolicy(**record | {"actions": {row["finding"]: row["action"] for row in record["actions"]}})
