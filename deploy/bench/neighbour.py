"""What a tenant within its limit feels of one that sends twenty times its own."""

from collections.abc import Iterator
from typing import Final

from deploy.bench.figures import Figure
from deploy.bench.installation import Installation, Say
from deploy.bench.load import Client, Load, Result, percentile
from deploy.stack import Stack
from producers.tenants import Limits

TARGET: Final = 2.0
QUIET_LIMIT: Final = Limits(6_000, 0)
NOISY_LIMIT: Final = Limits(600, 0)
_QUIET_PER_S: Final = 50.0
"""Enough for a p99 that one slow answer does not make."""
_NOISY_PER_S: Final = 20 * 600 / 60
_WINDOW_S: Final = 15.0
_WINDOWS: Final = 4


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Tenant A sends 50 events a second, half of what it may, alone and in turn beside B's 200, of which B may 10."""
    del count
    with Installation(stack, "neighbour") as shop:
        keys = {"a": shop.tenant("a", QUIET_LIMIT), "b": shop.tenant("b", NOISY_LIMIT)}
        shop.start("gateway", "streams", "sinks")

        def begin(tenant: str, rate: float, connections: int, seconds: float = _WINDOW_S) -> Client:
            url = f"{shop.gateway_url}/api/v1/tenants/{tenant}/ingest/orders"
            return Client(
                Load(url, keys[tenant], body_rows=1, connections=connections, seconds=seconds, rate=rate)
            ).go()

        begin("a", _QUIET_PER_S, 2, 2.0).result().only(202)
        alone: list[float] = []
        beside: list[float] = []
        noise: list[Result] = []
        for window in range(_WINDOWS):
            say(f"a neighbour: window {window + 1} of {_WINDOWS}")
            alone += begin("a", _QUIET_PER_S, 2).result().only(202).ms
            other = begin("b", _NOISY_PER_S, 16, _WINDOW_S + 1)
            beside += begin("a", _QUIET_PER_S, 2).result().only(202).ms
            noise.append(other.result())
    quiet, noisy = (percentile(sorted(ms), 99) for ms in (alone, beside))
    middle, noisy_middle = (percentile(sorted(ms), 50) for ms in (alone, beside))
    yield Figure("limit: tenant A alone, p99", f"{quiet:.1f} ms", 1.0)
    yield Figure("tenant A beside B, p99", f"{noisy:.1f} ms", noisy / quiet, f"< {TARGET:.1f}", noisy < TARGET * quiet)
    yield Figure("tenant A, p50 alone and beside", f"{middle:.1f} and {noisy_middle:.1f} ms", noisy_middle / middle)
    yield Figure("samples of A, alone and beside", f"{len(alone)} and {len(beside)}")
    for status in (202, 429):
        answers = sum(result.statuses.get(status, 0) for result in noise)
        yield Figure(f"answers {status} to tenant B", f"{answers:,}")
