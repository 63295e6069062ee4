"""A request to the gateway, again while an answer says that it may help, until patience ends."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import msgspec

from schemas.errors import Rejected, Unavailable

LONGEST_PAUSE_S: Final = 15.0
_TRY_AGAIN: Final = {408, 425, 429, 500, 502, 503, 504}
"""Of answers that are not ours, such as a proxy's."""


class Refused(Rejected):
    """The gateway's answer to a request that will not do better another time. `said` is its problem document."""

    def __init__(self, status: int, said: dict[str, Any]) -> None:
        super().__init__(str(said.get("code", f"http_{status}")), str(said.get("detail", "the answer says no more")))
        self.status = status
        self.said = said


class Patience:
    """Seconds to go on without any progress. One may serve many requests: progress of one is progress of all.

    With `must_listen`, who cannot connect before anything was answered is not patient: the address is wrong, or nothing
    runs there, and who asked for one thing wants to know.
    """

    def __init__(
        self,
        seconds: float,
        on_pause: Callable[[str], None] = lambda why: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        must_listen: bool = False,
    ) -> None:
        self.seconds, self.on_pause, self._clock = seconds, on_pause, clock
        self.progress()
        self.must_listen = must_listen

    def progress(self) -> None:
        """Something got done."""
        self._since = self._clock()
        self.must_listen = False

    @property
    def left(self) -> float:
        """Seconds until it ends; 0 or less when it has."""
        return self._since + self.seconds - self._clock()


async def persist(attempt: Callable[[], Awaitable[httpx.Response]], patience: Patience) -> httpx.Response:
    """The first answer of `attempt` that a repeat would not change, an error's included.

    Between attempts it waits with exponential backoff and jitter, and as long as Retry-After asks. Raises Unavailable
    with the last reason when patience ends.
    """
    for tried in itertools.count():
        try:
            answer = await attempt()
        except httpx.TransportError as exc:
            if patience.must_listen and isinstance(exc, httpx.ConnectError):
                raise Unavailable(f"no gateway listens at {_origin(exc.request.url)} ({exc})") from exc
            why, asked = f"no answer ({str(exc) or type(exc).__name__})", 0.0
        else:
            if not _may_help(answer):
                patience.progress()
                return answer
            said = problem(answer)
            why, asked = str(said.get("detail", f"status {answer.status_code}")), retry_after(answer)
        if patience.left <= 0:
            raise Unavailable(f"no progress for {patience.seconds:.0f} s: {why}")
        patience.on_pause(why)
        backoff = min(0.2 * 2 ** min(tried, 10), LONGEST_PAUSE_S) * random.uniform(0.5, 1)
        await asyncio.sleep(min(max(asked, backoff), patience.left + 0.1))
    raise AssertionError("count() has no end")


def accepted(answer: httpx.Response) -> dict[str, Any]:
    """The document of a 2xx answer; raises Refused for any other."""
    if not answer.is_success:
        raise Refused(answer.status_code, problem(answer))
    return document(answer)


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document (RFC 9457) of an error; empty where a proxy answered something else."""
    return document(answer) if answer.headers.get("content-type", "").startswith("application/problem+json") else {}


def document(answer: httpx.Response) -> dict[str, Any]:
    """A JSON object; raises Refused when the answer is something else, as that of another server would be."""
    try:
        return msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        detail = f"{answer.url} does not answer as a gateway does; is the address right?"
        raise Refused(answer.status_code, {"code": "not_a_gateway", "detail": detail}) from exc


def retry_after(answer: httpx.Response) -> float:
    """Seconds that Retry-After asks for (RFC 9110, 10.2.3: a number or a date); 0 when it asks for none."""
    given = answer.headers.get("retry-after", "").strip()
    if not given or given.isdigit():
        return float(given or 0)
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # not a date, or one without a zone
        return 0.0


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _may_help(answer: httpx.Response) -> bool:
    """Whether the same request may work later."""
    if answer.is_success:
        return False
    return bool(problem(answer).get("retriable", answer.status_code in _TRY_AGAIN))
