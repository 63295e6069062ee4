"""Commands that speak to a gateway as one tenant: the options that they share, and the requests."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import httpx
import typer
from msgspec import Struct

from deploy import ingest_keys
from deploy.operate import errors, say
from deploy.stack import running
from producers.calls import Patience, accepted
from producers.gateway import Gateway, key_header
from schemas.errors import Misconfigured

TenantId = Annotated[str, typer.Option(envvar="TILLSTREAM_TENANT_ID", help="The tenant.")]
ApiKey = Annotated[str, typer.Option(envvar="TILLSTREAM_API_KEY", help="The tenant's.")]
Keys = Annotated[Path | None, typer.Option(help="CSV with tenant_id,api_key.", exists=True, dir_okay=False)]
GatewayUrl = Annotated[str, typer.Option(envvar="TILLSTREAM_GATEWAY_URL", help="By default the stack's.")]
PatienceS = Annotated[float, typer.Option(min=1, help="Seconds without progress after which it gives up.")]
PATIENCE_S: Final = 60.0
_NDJSON: Final = "application/x-ndjson"
_CONCURRENCY: Final = 8
_PAGE: Final = 1_000


class Caller(Struct, frozen=True):
    """A tenant's way to its gateway; use within `async with caller.gateway:`."""

    gateway: Gateway
    base: str
    auth: dict[str, str]

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The document at a path below the tenant's. Raises Refused, Unavailable."""
        return accepted(await self.gateway.call("GET", self.url(path, **query), self.auth))

    async def told(self, method: str, path: str, document: Any) -> httpx.Response:
        """The answer, as lines, to a document, which counts once however often it must be sent. Raises Unavailable."""
        key = secrets.token_urlsafe(18)
        return await self.gateway.call(method, self.url(path), self.auth, document, Accept=_NDJSON, Idempotency_Key=key)

    async def pages(self, path: str, most: int | None, **query: Any) -> list[dict[str, Any]]:
        """The rows of a list, page by page, at most so many. Raises as `get`."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None and (most is None or len(rows) < most):
            limit = _PAGE if most is None else min(_PAGE, most - len(rows))
            page = await self.get(path, **query, limit=limit, **({"cursor": cursor} if cursor else {}))
            rows += page["data"]
            cursor = page["next_cursor"]
        return rows

    def url(self, path: str, **query: Any) -> str:
        """A path below the tenant's, with the parameters that are not None."""
        given = {name: value for name, value in query.items() if value is not None}
        return f"{self.base}/{path}" + (f"?{urlencode(given)}" if given else "")


def caller(
    tenant_id: str, api_key: str, keys: Path | None, gateway_url: str, data_dir: Path, patience: float | None = None
) -> Caller:
    """Raises Misconfigured where there is no key of the tenant, or no address.

    Without `patience` of one's own a gateway that does not listen at all is not waited for.
    """
    key = ingest_keys.given(tenant_id, api_key, keys, None).get(tenant_id)
    if key is None:
        raise Misconfigured(f"no API key for {tenant_id}: give --api-key, or --keys FILE with tenant_id,api_key")
    lasting = Patience(patience or PATIENCE_S, saying(), must_listen=patience is None)
    gateway = Gateway(gateway_url or running(data_dir)[1], concurrency=_CONCURRENCY, patience=lasting)
    return Caller(gateway, f"/api/v1/tenants/{segment(tenant_id)}", key_header(key))


def saying() -> Callable[[str], None]:
    """Says on stderr why it waits, each reason once."""
    said = set[str]()

    def pausing(why: str) -> None:
        if why not in said:
            said.add(why)
            say(f"waiting: {why}", errors)

    return pausing


def segment(text: str) -> str:
    """An id as one part of a path, whatever is in it."""
    return quote(text, safe="")
