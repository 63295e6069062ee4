"""The HTTP way in, as a client: chunks, retries under the same Idempotency-Key, several requests at a time."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

import httpx
from msgspec import Struct, convert

from producers.calls import Patience, accepted, persist, problem
from schemas.errors import Rejected

CHUNK_ROWS: Final = 1_000
PATIENCE_S: Final = 30.0


class Answer(Struct):
    """What the gateway said of one chunk."""

    accepted: int
    rejected: int
    event_ids: list[str]
    errors: list[dict[str, Any]]
    errors_omitted: int = 0


def chunk_answer(answer: httpx.Response) -> Answer:
    """What became of a chunk's rows; of those of /ingest the 422 says that none was good. Raises Refused."""
    said = problem(answer)
    if said.get("code") != "rows_rejected":
        return convert(accepted(answer), Answer)
    wrong = {error["line"] for error in said["errors"]}
    return Answer(0, len(wrong), [], said["errors"], said.get("errors_omitted", 0))


class IngestClient:
    """Sends rows of one tenant; use as `async with IngestClient(url, tenant_id, key) as client:`."""

    def __init__(self, gateway_url: str, tenant_id: str, api_key: str) -> None:
        if not api_key.isascii():
            raise Rejected("bad_key", "an API key has ASCII characters only; was it pasted whole?")
        self._path = f"{gateway_url}/api/v1/tenants/{tenant_id}/ingest"
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/x-ndjson"}

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(headers=self._headers, timeout=60)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send(self, entity: str, body: bytes, idempotency_key: str | None = None) -> Answer:
        """Send one chunk of NDJSON, again while the gateway says that it may; a repeat cannot double it.

        A chunk without one good row is an answer, too. Raises Refused when the gateway will not take it, Unavailable
        when it cannot for PATIENCE_S.
        """
        headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(18)}

        async def post() -> httpx.Response:
            return await self._http.post(f"{self._path}/{entity}", content=body, headers=headers)

        return chunk_answer(await persist(post, Patience(PATIENCE_S)))

    async def send_all(
        self,
        entity: str,
        lines: Iterable[bytes],
        *,
        on_chunk: Callable[[int, Answer], None],
        concurrency: int = 4,
        chunk_rows: int = CHUNK_ROWS,
        key_prefix: str | None = None,
    ) -> None:
        """Send lines in chunks, `concurrency` at a time; `on_chunk(rows, answer)` is told of each. Errors as `send`.

        With a `key_prefix` the chunks get the keys `<prefix>-<number>`, so that sending all again doubles nothing.
        """
        prefix = key_prefix or secrets.token_urlsafe(12)
        chunks = enumerate(_chunks(lines, chunk_rows))

        async def work() -> None:
            for number, chunk in chunks:
                answer = await self.send(entity, b"".join(chunk), f"{prefix}-{number}")
                on_chunk(len(chunk), answer)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())


def _chunks(lines: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    remaining = iter(lines)
    while chunk := list(islice(remaining, size)):
        yield chunk
