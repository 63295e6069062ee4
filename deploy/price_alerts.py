"""Alerts on prices for people: those that are, those that come, and the prices that wait for a decision."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from deploy.as_tenant import Caller
from producers.calls import Refused
from schemas.errors import Misconfigured

_AGAIN_S: Final = 0.5
_AT_ONCE: Final = 1_000
"""Prices of one decision."""
_line: Final = msgspec.json.Decoder(dict[str, Any])


class Follower:
    """Live alerts from a position on, each once; it comes back by itself when the stream ends."""

    def __init__(self, caller: Caller, filters: dict[str, Any], last_event_id: str = "") -> None:
        self._caller, self._filters, self.last_event_id = caller, filters, last_event_id
        self._newest = (-1, -1)

    async def alerts(self) -> AsyncIterator[dict[str, Any]]:
        """Raises Misconfigured when the key ends, Refused, Unavailable when patience ends."""
        path = self._caller.url("price-alerts/stream", **self._filters)
        while True:
            headers = self._caller.auth | {"Accept": "application/x-ndjson"}
            if self.last_event_id:
                headers["Last-Event-ID"] = self.last_event_id
            async for line in self._caller.gateway.lines(path, headers):
                if line.strip() and (alert := self._taken(_line.decode(line))) is not None:
                    yield alert
            await asyncio.sleep(_AGAIN_S)

    def _taken(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """An alert that has not been seen yet."""
        match said["type"]:
            case "position":
                self.last_event_id = said["last_event_id"]
            case "end" if said["code"] == "key_ended":
                raise Misconfigured(said["detail"])
            case "alert" if (place := (said["offset"], said["row"])) > self._newest:
                self._newest = place
                return said
        return None


async def held(caller: Caller, product_id: str | None) -> list[dict[str, Any]]:
    """The alerts of prices that wait for a decision, the newest first. A product has one at most."""
    found = await caller.pages("price-alerts", None, status="held", product_id=product_id)
    return [alert for alert in found if alert["decision"] is None and alert["superseded_by"] is None]


async def decide(
    caller: Caller, decision: str, waiting: list[dict[str, Any]], decided_by: str, reason: str | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """The verdicts on a decision about held prices. Raises Refused, Unavailable."""
    for at in range(0, len(waiting), _AT_ONCE):
        some = [{name: alert[name] for name in ("product_id", "held_offset")} for alert in waiting[at : at + _AT_ONCE]]
        said = {"decision": decision, "held": some, "decided_by": decided_by, "reason": reason}
        answer = await caller.told("POST", "price-decisions", said)
        if not answer.is_success:
            raise Refused(answer.status_code, answer.json())
        yield [line for line in map(_line.decode, answer.content.splitlines()) if line["type"] == "verdict"]
