"""The breaker of streams and sinks: a bad deploy must not drain a topic into dead letters, nor one tenant stop all.

Over the last 1,000 messages and more, the tenant with the most dead letters left out, the share of messages that would
be dead-lettered has a limit. The process stops before it passes the limit, as soon as no further message can change
that: eleven of other tenants' are more than 1% of any 1,000.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import Misconfigured

LEAST: Final = 1_000
"""Messages over which the share is taken, at least; twice as many at most."""

Verdict = tuple[str, str | None]
"""Whose a message is, and the code under which it would be dead-lettered; None for one that goes on."""


@dataclass(slots=True)
class _Span:
    """Messages, and those of them that were dead-lettered, by tenant."""

    seen: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    messages: int = 0

    def add(self, verdicts: Sequence[Verdict]) -> None:
        for tenant_id, code in verdicts:
            self.seen[tenant_id] += 1
            if code is not None:
                self.dead[tenant_id] += 1
        self.messages += len(verdicts)


class Breaker:
    """Ask `judge` before messages are dead-lettered, tell `count` what has become of them."""

    def __init__(self, limit: float, where: str) -> None:
        """`limit` is the share, 1 or more for none; `where` is the process, in words."""
        self._limit, self._where = limit, where
        self._before, self._now = _Span(), _Span()

    def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Raise Misconfigured, which ends the process, where with these too many would be dead-lettered."""
        codes = Counter(code for _, code in verdicts if code is not None)
        if not codes or self._limit >= 1:
            return
        asked = _Span()
        asked.add(verdicts)
        seen = self._before.seen + self._now.seen + asked.seen
        dead = self._before.dead + self._now.dead + asked.dead
        worst = max(dead, key=lambda tenant_id: dead[tenant_id])
        others = dead.total() - dead[worst]
        if others <= self._limit * max(LEAST, seen.total() - seen[worst]):
            return
        named = ", ".join(f"{code} {count}" for code, count in codes.most_common(5))
        raise Misconfigured(
            f"{self._where} stopped: {others} messages of {len(dead) - 1} tenants would be dead-lettered of the last"
            f" {seen.total() - seen[worst]}, the worst tenant ({worst!r}) left out, and {self._limit:.1%} is the limit;"
            f" the last were {named}. Nothing at hand is committed. If a deploy did it, take it back; if the messages"
            " are what is wrong, see tillstream dlq list, and let them pass with a higher TILLSTREAM_DEAD_LETTER_LIMIT"
        )

    def count(self, verdicts: Sequence[Verdict]) -> None:
        """Remember messages that are through."""
        self._now.add(verdicts)
        if self._now.messages >= LEAST:
            self._before, self._now = self._now, _Span()
