"""The clients of a run: each asks one thing after another, again while the outcome is unknown, as a merchant's would.

A request without an answer, or with one that says "send it again", may have been taken or not. Most clients go on until
they know; some give up, and then nobody knows but the log.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec

from deploy.chaos.history import History
from deploy.chaos.shop import ENTITIES, Ask, Shop
from producers.calls import problem, retry_after

_TIMEOUT_S: Final = 5.0
_GIVES_UP: Final = 0.15
"""Share of requests whose client does not try a second time."""
_PAUSE_S: Final = (0.05, 1.0)
"""Between attempts, the shortest and the longest."""
_AT_MOST_S: Final = 2.0
"""Longest wait that Retry-After is granted."""


class Load:
    """Clients in a thread of their own, from `start` until `finish`."""

    def __init__(
        self,
        gateway_url: str,
        keys: Mapping[str, str],
        shops: Sequence[tuple[str, Shop]],
        history: History,
        pace_s: float,
    ) -> None:
        """`keys` are API keys by tenant; a client pauses `pace_s` seconds on average between its requests."""
        self._url, self._keys, self._shops, self._history, self._pace_s = gateway_url, keys, shops, history, pace_s
        self._over = threading.Event()
        self._last_call = float("inf")
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")
        self.counted: Counter[str] = Counter()
        """Requests asked, attempts by what came of them, rows accepted."""

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def finish(self, within: float) -> None:
        """Ask for nothing more, and return when every client knows what became of its requests or `within` is over."""
        self._last_call = time.monotonic() + within
        self._over.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as exc:  # handed to whoever waits in `finish`
            self._failed = exc

    async def _all(self) -> None:
        limits = httpx.Limits(max_connections=len(self._shops) + 4)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT_S, limits=limits) as http,
            asyncio.TaskGroup() as clients,
        ):
            for n, (tenant, shop) in enumerate(self._shops):
                client = _Client(http, self._keys[tenant], self._history, self.counted, random.Random(n))
                clients.create_task(self._one(client, shop))

    async def _one(self, client: "_Client", shop: Shop) -> None:
        while not self._over.is_set():
            for ask in shop.next():
                if not await client.ask(ask, lambda: self._last_call):
                    break  # what follows an opening that failed has no token
            await asyncio.sleep(client.chance.expovariate(1 / self._pace_s))


class _Client:
    def __init__(
        self, http: httpx.AsyncClient, api_key: str, history: History, counted: Counter[str], chance: random.Random
    ) -> None:
        self._http, self._api_key, self._history, self._counted, self.chance = http, api_key, history, counted, chance
        self._tokens: dict[str, str] = {}

    async def ask(self, ask: Ask, last_call: Any) -> bool:
        """Whether there is any point in going on with what belongs to it."""
        if ask.upload and ask.upload not in self._tokens:
            return False
        self._history.add("asked", **msgspec.to_builtins(ask, str_keys=True))
        self._counted["requests"] += 1
        patient = self.chance.random() >= _GIVES_UP
        for attempt in range(1, 10_000):
            answer = await self._attempt(ask, attempt)
            if answer is not None and not _again(answer):
                self._counted["refused" if answer.is_error else "acknowledged"] += 1
                return not answer.is_error or ask.to != "open"
            self._counted["unknown attempts"] += 1
            if not patient or time.monotonic() > last_call():
                break
            asked = 0.0 if answer is None else min(retry_after(answer), _AT_MOST_S)
            await asyncio.sleep(max(asked, self.chance.uniform(*_PAUSE_S)))
        self._history.add("given_up", id=ask.id)
        self._counted["given up"] += 1
        return ask.to != "open"

    async def _attempt(self, ask: Ask, attempt: int) -> httpx.Response | None:
        method, path = self._route(ask)
        headers = {"X-API-Key": self._api_key, "Content-Type": _content_type(ask)}
        if ask.key:
            headers["Idempotency-Key"] = ask.key
        try:
            answer = await self._http.request(method, path, content=ask.body, headers=headers)
        except httpx.TransportError as exc:
            self._history.add("answered", id=ask.id, attempt=attempt, status=0, code=type(exc).__name__)
            return None
        said = _document(answer)
        if ask.to == "open" and not answer.is_error:
            self._tokens[ask.id] = said["token"]
        if not answer.is_error:
            self._counted["rows accepted"] += said.get("accepted", 0)
        told = {name: said[name] for name in ("code", "accepted", "rejected", "event_ids", "upload_id") if name in said}
        replayed = "idempotent-replayed" in answer.headers
        self._history.add("answered", id=ask.id, attempt=attempt, status=answer.status_code, replayed=replayed, **told)
        return answer

    def _route(self, ask: Ask) -> tuple[str, str]:
        base = f"/api/v1/tenants/{ask.tenant}"
        upload = f"{base}/uploads/{self._tokens.get(ask.upload, '')}"
        match ask.to:
            case "stock":
                return "POST", f"{base}/stock-events"
            case "prices":
                return "POST", f"{base}/price-events"
            case "open":
                return "POST", f"{base}/uploads"
            case "chunk":
                return "PUT", f"{upload}/chunks/{ask.chunk}"
            case "complete":
                return "POST", f"{upload}/complete"
            case "cancel":
                return "DELETE", upload
            case entity:
                return "POST", f"{base}/ingest/{entity}"


def _content_type(ask: Ask) -> str:
    return "application/x-ndjson" if ask.to in (*ENTITIES, "stock", "prices", "chunk") else "application/json"


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:  # a gateway that was killed in the middle of an answer
        return {}


def _again(answer: httpx.Response) -> bool:
    """Whether the outcome is unknown, and the same request may be sent again."""
    return answer.status_code >= 500 or bool(problem(answer).get("retriable", False))
