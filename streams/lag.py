"""How far this worker is behind on its source topics, told once a second."""

from collections import Counter
from typing import Any, Final

from schemas import metrics, topics
from streams.faust_app import App

_QUIET: Final = 5
"""Seconds in which a log has not grown, and nothing of it came or waits: what is left of it are markers."""


def install(app: App) -> None:
    """Add the timer that looks."""
    sources = {app.settings.named(name) for name in (topics.INGESTION, topics.STOCK, topics.PRICES)}
    known: set[Any] = set()
    quiet: Counter[Any] = Counter()
    before: dict[Any, Any] = {}

    @app.timer(1.0)
    async def measure_lag() -> None:
        nonlocal known, before
        consumer, lag = app.consumer, app.steps.lag
        mine = {tp for tp in consumer.assignment() if tp.topic in sources}
        if mine != known:
            known = mine
            lag.begin({(tp.topic, tp.partition): consumer._committed_offset[tp] or 0 for tp in mine})
        ends = {(tp.topic, tp.partition): end for tp in mine if (end := consumer.highwater(tp)) is not None}
        now = {at: (end, lag.next_of(at), consumer._read_offset.get(at)) for at, end in ends.items()}
        for at, (end, following, read) in now.items():
            waits = app.steps.busy(at[1]) or (read is not None and following is not None and read >= following)
            quiet[at] = quiet[at] + 1 if now[at] == before.get(at) and not waits else 0
            if quiet[at] >= _QUIET and following is not None:
                lag.nothing_between(at, following, end)
        before = now
        lag.measure(ends)
        metrics.STEPS_WAITING.set(app.steps.waiting)
