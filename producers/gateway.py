"""The gateway as uploads use it: so many requests at a time, each until it is answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec
import zstandard

from producers.calls import Patience, Refused, persist, problem
from schemas.errors import Misconfigured

_ZSTD_LEVEL: Final = 3


class Gateway:
    """Use as `async with Gateway(url, ...) as gateway:`. Raises Misconfigured for what is no address."""

    def __init__(self, url: str, *, concurrency: int, patience: Patience) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self._concurrency = concurrency
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise Misconfigured(f"{url!r} is no address of a gateway: {exc}") from exc
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise Misconfigured(f"{url!r} is no address of a gateway; it takes one such as http://127.0.0.1:8080")

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self._concurrency)
        self._http = httpx.AsyncClient(base_url=self.url, timeout=60)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def call(
        self, method: str, path: str, auth: dict[str, str], document: Any = None, **headers: str
    ) -> httpx.Response:
        """The answer to a request with an optional JSON document; keywords are headers, `_` for `-`.

        Raises Unavailable when patience ends.
        """
        content = None if document is None else msgspec.json.encode(document)
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def attempt() -> httpx.Response:
            async with self._slots:
                return await self._http.request(
                    method, path, content=content, headers={"Content-Type": "application/json", **auth, **named}
                )

        return await persist(attempt, self.patience)

    async def lines(self, path: str, auth: dict[str, str]) -> AsyncIterator[bytes]:
        """Lines of an NDJSON answer as they come. Raises Refused, Unavailable; an answer that breaks off ends early."""
        async with self.streamed(path, auth) as answer:
            with suppress(httpx.TransportError):
                async for line in answer.aiter_lines():
                    yield line.encode()

    @asynccontextmanager
    async def streamed(self, path: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """A 2xx answer whose body is still to be read. Raises Refused, Unavailable."""

        async def attempt() -> httpx.Response:
            answer = await self._http.send(self._http.build_request("GET", path, headers=headers), stream=True)
            if not answer.is_success:
                await answer.aread()
            return answer

        answer = await persist(attempt, self.patience)
        try:
            if not answer.is_success:
                raise Refused(answer.status_code, problem(answer))
            yield answer
        finally:
            await answer.aclose()

    async def send(self, method: str, path: str, auth: dict[str, str], body: Callable[[], bytes]) -> httpx.Response:
        """The answer to a body of rows, which `body` makes in a thread. Raises Unavailable when patience ends.

        It is made anew for each attempt: what waits for its turn, or for the gateway to come back, holds no memory
        and no slot, so that one upload in trouble leaves the others theirs.
        """
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd", **auth}

        async def attempt() -> httpx.Response:
            async with self._slots:
                compressed = await asyncio.to_thread(lambda: zstandard.compress(body(), _ZSTD_LEVEL))
                return await self._http.request(method, path, content=compressed, headers=headers)

        return await persist(attempt, self.patience)


def key_header(api_key: str) -> dict[str, str]:
    """The header of a tenant's requests. Raises Misconfigured for what cannot be a key."""
    if not api_key.isascii() or not api_key.isprintable():
        raise Misconfigured("an API key has printable ASCII characters only; was it pasted whole?")
    return {"X-API-Key": api_key}


async def together(workers: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run until all are done; the first error ends the others, and is raised itself, not as one of a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
