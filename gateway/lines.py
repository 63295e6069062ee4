"""An answer that is lines, sent as they become known."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.operation import NDJSON
from gateway.stream import STALL_S, gone

log = logging.getLogger(__name__)


FAREWELL_S = 60.0
"""How long a client that was dropped may take to read on, so that the last line can still be told."""


class Lines(Response):
    """Ends with its last line, with its client, or when the client takes nothing for STALL_S; then calls `close`.

    A client that takes nothing is cut off, maybe within a line. Where there is a `farewell`, which makes the last line
    of a client that was dropped, it gets that instead of what was next, if it reads on within FAREWELL_S.
    """

    def __init__(
        self,
        status: int,
        lines: AsyncIterator[bytes],
        headers: dict[str, str],
        close: Callable[[], object] = lambda: None,
        media_type: str = NDJSON,
        farewell: Callable[[], bytes] | None = None,
    ) -> None:
        super().__init__(status_code=status, headers=headers | {"Cache-Control": "no-store"}, media_type=media_type)
        del self.headers["content-length"]
        self._lines, self._close, self._farewell = lines, close, farewell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending})
            self._close()
        if not sending.cancelled():
            sending.result()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for lines in self._lines:
                async with asyncio.timeout(STALL_S):
                    await send({"type": "http.response.body", "body": lines, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("lines end early: their client took nothing for %.0f s", STALL_S)
            if self._farewell is None or not await self._said(self._farewell(), send):
                scope["extensions"]["tillstream.abort"]["abort"]()

    async def _said(self, last: bytes, send: Send) -> bool:
        """Whether the client, whose place is given up, took its last line. What `send` waited with was never begun."""
        self._close()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await send({"type": "http.response.body", "body": last, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return True
        return False
